"""Whether two methods differ on the same pictures: a paired bootstrap of the difference of their image AUROC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anodiff.errors import DataError
from anodiff.metrics.bootstrap import multiplicities, percentiles
from anodiff.metrics.curve import auroc
from anodiff.metrics.image import checked, image_curve

Draws = NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """The first method's figure less the second's, with its interval and what speaks against no difference."""

    value: float
    low: float
    high: float
    p: float  # two-sided, in (0, 1]; never below 2/(draws + 1)
    n: int  # pictures


def resampled(scores: ArrayLike, labels: ArrayLike, *, draws: int = 2000, seed: int) -> Draws:
    """The image AUROC [m, draws] of every row of scores on the same resamples of the pictures.

    Good and bad pictures are drawn separately, with replacement, as many as there are of each. Column d of every row is
    of the same pictures: this is what makes a comparison of rows a paired one.

    Args:
        scores: [m, n], a row a method or a seed of one; finite, higher = more anomalous, each row on its own scale.
        labels: [n] 0 = good, 1 = bad; both must occur.
        draws: number of resamples.
        seed: of the resampling.

    Raises:
        DataError: shapes do not fit together, a score is not finite, or good or bad pictures are missing.
    """
    rows = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    if rows.ndim != 2 or not len(rows):
        raise DataError(f"expected scores [methods, pictures], one row or more, got shape {rows.shape}")
    checks = [checked(row, labels) for row in rows]  # every row: a NaN in any of them is refused
    truth = checks[0][1]
    found: list[Draws] = []
    for times in multiplicities(truth, draws=draws, seed=seed):
        curves = [auroc(image_curve(row, truth, weights=times)) for row in rows]
        found.append(np.stack(curves).astype(np.float64, copy=False))
    return np.concatenate(found, axis=1)


def paired(
    first: ArrayLike,
    second: ArrayLike,
    labels: ArrayLike,
    *,
    draws: int = 2000,
    level: float = 0.95,
    seed: int,
) -> Difference:
    """The difference of two methods' image AUROC, each averaged over its seeds, on the same pictures.

    The interval and p say what other pictures of this kind would change, for the very models that were trained; what
    other seeds would change is in `anodiff.metrics.seeds`.

    Args:
        first: [n] or [seeds, n] scores of one method.
        second: the same of the other, of as many seeds as it has.
        labels: [n] 0 = good, 1 = bad.
        draws: number of resamples of the pictures.
        level: share of the draws inside the interval.
        seed: of the resampling.

    Source: Efron & Tibshirani 1993, ch. 13 and 16; the closed form for one pair is DeLong et al. 1988.
    """
    one, two = (np.atleast_2d(np.asarray(part, dtype=np.float64)) for part in (first, second))
    if one.shape[-1] != two.shape[-1]:
        raise DataError(
            f"a paired comparison needs both methods on the same pictures, got {one.shape[-1]} and "
            f"{two.shape[-1]} scores; keep the pictures that both have scored"
        )
    table = np.concatenate([one, two])
    drawn = resampled(table, labels, draws=draws, seed=seed)
    whole = whole_auroc(table, labels)
    return difference(
        whole[: len(one)].mean() - whole[len(one) :].mean(),
        drawn[: len(one)].mean(axis=0),
        drawn[len(one) :].mean(axis=0),
        level=level,
        n=one.shape[-1],
    )


def whole_auroc(scores: ArrayLike, labels: ArrayLike) -> Draws:
    """The image AUROC [m] of every row of scores [m, n] on all pictures."""
    return np.array([float(auroc(image_curve(row, labels))) for row in np.atleast_2d(np.asarray(scores))])


def difference(value: float, first: Draws, second: Draws, *, level: float = 0.95, n: int) -> Difference:
    """The difference with the percentile interval and two-sided p of its draws.

    `p = 2 (1 + min(#{d <= 0}, #{d >= 0})) / (draws + 1)`, at most 1: the level at which the percentile interval just
    reaches 0. Two methods that agree in every draw have p = 1. The one added is the sample itself; no number of draws
    makes a p of 0.

    Args:
        value: the difference on all pictures.
        first: [draws] figures of one method.
        second: [draws] figures of the other, on the same resamples.
        level: share of the draws inside the interval.
        n: pictures.

    Source: Davison & Hinkley 1997, eq. 4.11; Efron & Tibshirani 1993, ch. 15.
    """
    if first.shape != second.shape or first.ndim != 1:
        raise DataError(
            f"expected as many draws of both, [draws] each, got shapes {first.shape} and {second.shape}"
        )
    drawn = first - second
    drawn = np.where(np.abs(drawn) < 1e-12, 0.0, drawn)  # sums in another order are no difference
    beyond = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    found = percentiles(value, drawn, level=level, n=n)
    return Difference(
        found.value, found.low, found.high, min(1.0, 2 * (1 + beyond) / (drawn.size + 1)), found.n
    )


def holm(p: Sequence[float]) -> list[float]:
    """The p-values adjusted for having looked at all of them, in their order, each at most 1.

    The i-th smallest of m is multiplied by m - i + 1, and no adjusted value is below a smaller one's. Calling different
    what is below .05 then errs in any of them with a probability of .05 at most.  Holm 1979.
    """
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    raised = np.maximum.accumulate(values[order] * np.arange(values.size, 0, -1))
    found = np.empty_like(values)
    found[order] = np.minimum(raised, 1.0)
    return found.tolist()
