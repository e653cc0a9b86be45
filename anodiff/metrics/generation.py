"""How like real samples generated ones are: distances between two sets of features, each row a picture.

The features come from elsewhere, and a number means nothing without their name: it goes into the metric's, as in
"FD[lite0]". "FID" is the Frechet distance in the features of one network only, the Inception of 2015 with its own
resize; what another network sees is an FD.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.neighbors import NearestNeighbors

from anodiff.errors import ConfigError, DataError

Rows = NDArray[np.float64]
"""Features [n, d], one row a picture."""

_BLOCK = 2048  # rows of a distance matrix that are in memory at once


@dataclass(frozen=True)
class Kid:
    """The kernel distance over subsets."""

    mean: float  # of the subsets' estimates; about 0, on either side of it, where the two laws are equal
    deviation: float  # of the subsets' estimates among each other
    subsets: int
    subset: int  # rows of either set in each


@dataclass(frozen=True)
class PrecisionRecall:
    """Fidelity and diversity."""

    precision: float  # share of the generated samples that lie among the real ones, in [0, 1]
    recall: float  # share of the real samples that lie among the generated ones, in [0, 1]
    neighbours: int


@dataclass(frozen=True)
class Nearest:
    """How near samples come to what was trained on, and how near real ones that were not."""

    generated: float  # median distance of a generated sample to its nearest training row
    held: float  # the same for held-out real samples
    ratio: float  # generated / held; well below 1: training pictures are repeated
    closer: float  # probability that a generated sample is the nearer of the two, ties one half; .5: as real


def named(metric: str, extractor: str) -> str:
    """The full name of a metric of features, `metric[extractor]`.

    Raises:
        ConfigError: "FID" of anything but the Inception network: that is an FD.
    """
    if metric == "FID" and extractor != "inception":
        raise ConfigError(
            f"FID is the Frechet distance in Inception's features, but these are of {extractor!r}: call it FD"
        )
    return f"{metric}[{extractor}]"


def frechet(real: ArrayLike, generated: ArrayLike) -> float:
    """The Frechet distance of two sets of features, 0 or above; the smaller the more alike.

    `|m1 - m2|^2 + tr(C1 + C2 - 2 (C1^(1/2) C2 C1^(1/2))^(1/2))` with means and unbiased covariances, in float64. The
    trace of the root is the sum of the roots of the eigenvalues of the symmetric product, which are real and not
    negative but for rounding; a general matrix root of `C1 C2` loses that where a covariance is singular.

    It is biased upwards by few samples, the more the larger d: compare numbers of equal counts only.

    Args:
        real: [n, d].
        generated: [m, d].

    Raises:
        DataError: fewer than two rows, features that do not fit together or are not finite.

    Warns:
        UserWarning: a set with no more rows than features: its covariance is singular, and the distance says more about
            the count than about the pictures.

    Source: Heusel et al. 2017, arXiv:1706.08500 eq. 6.
    """
    first, second = _pair(real, generated, least=2)
    for name, rows in (("real", first), ("generated", second)):
        n, d = rows.shape
        if n <= d:
            warnings.warn(
                f"the Frechet distance of {n} {name} samples with {d} features each: the covariance is singular, take "
                f"more than {d} samples (better 10 times as many), or features of fewer dimensions",
                stacklevel=2,
            )
    shift = first.mean(0) - second.mean(0)
    one, two = (np.atleast_2d(np.cov(rows, rowvar=False)) for rows in (first, second))  # [d, d]
    values, vectors = np.linalg.eigh(one)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    both = np.linalg.eigvalsh(root @ two @ root)
    trace = np.trace(one) + np.trace(two) - 2 * np.sqrt(both.clip(min=0)).sum()
    return max(0.0, float(shift @ shift + trace))


def kid(
    real: ArrayLike, generated: ArrayLike, *, subsets: int = 100, subset: int = 1000, seed: int = 0
) -> Kid:
    """The kernel distance of two sets of features: the squared maximum mean discrepancy, without bias.

    The kernel is `(x y / d + 1)^3`; each of `subsets` draws takes `subset` rows of either set without replacement.
    Unlike `frechet` its expectation does not depend on the counts.

    Args:
        real: [n, d].
        generated: [m, d].
        subsets: draws.
        subset: rows of either set a draw, at least 2.
        seed: of the draws.

    Raises:
        ConfigError: a count out of range.
        DataError: fewer rows than `subset`, features that do not fit together or are not finite.

    Source: Binkowski et al. 2018, arXiv:1801.01401, section 4 and appendix.
    """
    if subsets < 1 or subset < 2:
        raise ConfigError(f"expected subsets >= 1 and rows a subset >= 2, got {subsets} and {subset}")
    first, second = _pair(real, generated, least=2)
    fewest = min(len(first), len(second))
    if fewest < subset:
        raise DataError(
            f"subsets of {subset} rows were asked for, but the smaller set has {fewest}: take subset={fewest} or less"
        )
    rng = np.random.default_rng(seed)
    found = [
        _discrepancy(
            first[rng.choice(len(first), subset, replace=False)],
            second[rng.choice(len(second), subset, replace=False)],
        )
        for _ in range(subsets)
    ]
    return Kid(float(np.mean(found)), float(np.std(found)), subsets, subset)


def precision_recall(real: ArrayLike, generated: ArrayLike, *, neighbours: int = 3) -> PrecisionRecall:
    """Precision and recall of generated samples, each the share of one set within the other's manifold.

    The manifold of a set is the union of balls about its rows, each reaching to the row's `neighbours`-th nearest
    neighbour of the same set. Both depend on the counts; the paper takes as many of the one as of the other.

    Args:
        real: [n, d].
        generated: [m, d].
        neighbours: k of the paper.

    Raises:
        ConfigError: neighbours below 1.
        DataError: no more rows than `neighbours`, features that do not fit together or are not finite.

    Source: Kynkaanniemi et al. 2019, arXiv:1904.06991 eq. 1-2.
    """
    if neighbours < 1:
        raise ConfigError(f"expected neighbours of 1 or more, got {neighbours}")
    first, second = _pair(real, generated, least=neighbours + 1)
    return PrecisionRecall(
        _covered(second, first, neighbours), _covered(first, second, neighbours), neighbours
    )


def nearest(train: ArrayLike, generated: ArrayLike, *, held: ArrayLike) -> Nearest:
    """How near generated samples lie to training ones, against how near real held-out samples do.

    A model that has learnt the law leaves its samples as far from the training rows as new real ones are; one that
    repeats what it saw leaves them nearer. `closer` is the Mann-Whitney statistic of the two sets of distances.

    Args:
        train: [n, d], all that was trained on, or as many rows of it as can be had.
        generated: [m, d].
        held: [k, d] real, not trained on.

    Raises:
        DataError: no rows, features that do not fit together or are not finite, or held-out rows that are all among
            the training ones.

    Source: the test of data-copying of Meehan et al. 2020, arXiv:2004.05675, section 3, without its cells.
    """
    rows, made = _pair(train, generated, least=1)
    _, real = _pair(train, held, least=1)
    index = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(rows)
    ours, theirs = (index.kneighbors(part)[0][:, 0] for part in (made, real))
    middle = float(np.median(theirs))
    if middle == 0:
        raise DataError(
            "most held-out samples are training samples, so nearness says nothing: hold out others"
        )
    ranks = rankdata(np.concatenate([ours, theirs]))[: len(ours)]  # 1 = the nearest, ties shared
    farther = (ranks.sum() - len(ours) * (len(ours) + 1) / 2) / (len(ours) * len(theirs))
    return Nearest(float(np.median(ours)), middle, float(np.median(ours)) / middle, float(1 - farther))


def _discrepancy(first: Rows, second: Rows) -> float:
    """The unbiased squared discrepancy of two sets of equal size (arXiv:1801.01401, eq. 4)."""
    n, d = first.shape

    def kernel(a: Rows, b: Rows) -> Rows:
        return (a @ b.T / d + 1) ** 3

    within = [kernel(rows, rows) for rows in (first, second)]
    apart = sum((k.sum() - np.trace(k)) / (n * (n - 1)) for k in within)
    return float(apart - 2 * kernel(first, second).mean())


def _covered(points: Rows, manifold: Rows, neighbours: int) -> float:
    """The share of `points` within the manifold of a set."""
    # Brute force: distances come from one matrix product, which is faster than a tree above some 15 dimensions.
    index = NearestNeighbors(n_neighbors=neighbours, algorithm="brute").fit(manifold)
    reach = index.kneighbors()[0][:, -1]  # to the k-th other row; no row is its own neighbour
    inside = 0
    for start in range(0, len(points), _BLOCK):
        apart = euclidean_distances(points[start : start + _BLOCK], manifold)  # [block, m]
        inside += int((apart <= reach).any(1).sum())
    return inside / len(points)


def _pair(first: ArrayLike, second: ArrayLike, *, least: int) -> tuple[Rows, Rows]:
    """Both sets as float64 [n, d], checked."""
    sets = [np.asarray(rows, dtype=np.float64) for rows in (first, second)]
    if any(rows.ndim != 2 for rows in sets) or sets[0].shape[1] != sets[1].shape[1]:
        raise DataError(
            f"expected two sets of features [n, d] with one d, got shapes {sets[0].shape} and {sets[1].shape}: "
            "take both from one extractor"
        )
    for rows in sets:
        if len(rows) < least:
            raise DataError(f"expected at least {least} rows of features, got {len(rows)}: take more samples")
        if not np.isfinite(rows).all():
            bad = int((~np.isfinite(rows).all(1)).sum())
            raise DataError(
                f"features must be finite, but {bad} of {len(rows)} rows are not: leave those out"
            )
    return sets[0], sets[1]
