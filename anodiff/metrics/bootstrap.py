"""Intervals from resampling pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anodiff.errors import ConfigError
from anodiff.metrics import image
from anodiff.metrics.curve import Curve, Floats
from anodiff.metrics.image import IMAGE, checked, image_curve
from anodiff.metrics.pixel import PIXEL, Picture, PixelScores
from anodiff.metrics.sketch import Points, Precision, pool, summarise

Metric = Callable[[ArrayLike, ArrayLike], float]
BATCH = 1_000_000  # numbers of one array held at a time while drawing
GRID = Precision(depth=2.0**-10, growth=2.0**-6)  # of the thresholds at which pictures are compared


@dataclass(frozen=True)
class Interval:
    """A metric, the bounds of its percentile interval, and the number of pictures behind it."""

    value: float
    low: float
    high: float
    n: int


def multiplicities(labels: NDArray[np.bool_], *, draws: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """How often each picture is drawn, batch by batch of draws, each [d, n].

    Bad and good pictures are drawn separately, with replacement, as many as there are of each (stratified).
    """
    if draws < 1:
        raise ConfigError(f"a bootstrap needs at least one draw, got {draws}; 1000 is usual")
    random = np.random.default_rng(seed)
    strata = [np.flatnonzero(labels == kind) for kind in (False, True)]
    step = max(1, BATCH // labels.size)
    for start in range(0, draws, step):
        size = min(step, draws - start)
        drawn = np.zeros((size, labels.size))  # [d, n]
        for stratum in strata:
            if stratum.size:
                drawn[:, stratum] = random.multinomial(
                    stratum.size, np.full(stratum.size, 1 / stratum.size), size=size
                )
        yield drawn


def percentiles(value: float, drawn: Floats, *, level: float, n: int) -> Interval:
    """The interval between the percentiles that leave (1 - level)/2 of the draws on either side.

    Efron & Tibshirani 1993, ch. 13. With perfect separation every draw is perfect and the interval has no
    width.
    """
    if not 0 < level < 1:
        raise ConfigError(f"the level of an interval lies between 0 and 1, got {level}; .95 is usual")
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value), float(low), float(high), n)


def interval(
    metric: Metric, scores: ArrayLike, labels: ArrayLike, *, draws: int = 1000, level: float = 0.95, seed: int
) -> Interval:
    """The metric of all pictures and its stratified percentile bootstrap interval.

    The metrics of `anodiff.metrics.image` are computed for all draws at once from counts of ranks; any other
    callable `(scores, labels) -> float` is called once a draw.

    Args:
        metric: what to compute.
        scores: [n] finite, higher = more anomalous.
        labels: [n] 0 = good, 1 = bad; both must occur.
        draws: number of resamples.
        level: share of the draws inside the interval.
        seed: of the resampling; the same seed gives the same interval.
    """
    known = {getattr(image, name): name for name in IMAGE}
    if metric in known:
        return image_intervals(scores, labels, draws=draws, level=level, seed=seed)[known[metric]]
    score, label = checked(scores, labels)
    drawn = [
        metric(np.repeat(score, times), np.repeat(label, times))
        for batch in multiplicities(label, draws=draws, seed=seed)
        for times in batch.astype(np.intp)
    ]
    return percentiles(metric(score, label), np.asarray(drawn), level=level, n=score.size)


def image_intervals(
    scores: ArrayLike, labels: ArrayLike, *, draws: int = 1000, level: float = 0.95, seed: int
) -> dict[str, Interval]:
    """All image metrics by name, each with its interval, from the same draws."""
    score, label = checked(scores, labels)
    curve = image_curve(score, label)
    drawn: dict[str, list[Floats]] = {name: [] for name in IMAGE}
    for batch in multiplicities(label, draws=draws, seed=seed):
        resampled = image_curve(score, label, weights=batch)
        for name, metric in IMAGE.items():
            drawn[name].append(metric(resampled))
    return {
        name: percentiles(float(metric(curve)), np.concatenate(drawn[name]), level=level, n=score.size)
        for name, metric in IMAGE.items()
    }


def pixel_intervals(
    pixels: PixelScores, *, draws: int = 1000, level: float = 0.95, seed: int
) -> dict[str, Interval]:
    """All pixel metrics by name, each with its interval over pictures.

    Whole pictures are drawn (pixels of one picture are not independent), stratified by whether they hold a
    defect. A draw is read from the pictures' compact points on a common grid of about 2000 thresholds, so no
    pixel is sorted again; its deviation from the same reading of all pictures is added to the value, which
    comes from all pixels. Memory: 12 bytes x pictures x thresholds.
    """
    value = pixels.curve()
    label = np.array([picture.regions > 0 for picture in pixels.pictures])
    table = PixelTable.of(pixels.pictures)
    rough = table.curve(np.ones((1, label.size)))
    drawn: dict[str, list[Floats]] = {name: [] for name in PIXEL}
    step = max(1, BATCH // table.edges.size)
    for batch in multiplicities(label, draws=draws, seed=seed):
        for start in range(0, len(batch), step):
            curve = table.curve(batch[start : start + step])
            for name, metric in PIXEL.items():
                drawn[name].append(metric(curve))
    found = {}
    for name, metric in PIXEL.items():
        exact = float(metric(value))
        shifted = np.concatenate(drawn[name]) - metric(rough) + exact
        found[name] = percentiles(exact, np.clip(shifted, 0.0, 1.0), level=level, n=label.size)
    return found


@dataclass(frozen=True, eq=False)
class PixelTable:
    """Every picture's counts at common thresholds, so that a resample is one matrix product."""

    edges: NDArray[np.float32]  # [k] descending; bin j holds the values in [edges[j], edges[j - 1])
    good: NDArray[np.float32]  # [n, k] good pixels at or above each edge
    bad: NDArray[np.float32]  # [n, k] defect pixels
    share: NDArray[np.float32]  # [n, k] their region shares

    @classmethod
    def of(cls, pictures: Sequence[Picture]) -> PixelTable:
        """The table of these pictures."""
        kinds = [
            summarise(pool(parts), GRID).value
            for parts in zip(*((p.good, p.bad) for p in pictures), strict=True)
        ]
        parts = [part for picture in pictures for part in (picture.good, picture.bad)]
        lowest = min(part.value[-1] for part in parts if part.value.size)
        edges = np.unique(np.append(np.concatenate(kinds), lowest))[::-1]
        reached = [(_reached(p.good, edges), _reached(p.bad, edges)) for p in pictures]
        return cls(
            edges=edges,
            good=np.stack([good[0] for good, _ in reached]),
            bad=np.stack([bad[0] for _, bad in reached]),
            share=np.stack([bad[1] for _, bad in reached]),
        )

    def curve(self, times: NDArray[np.generic]) -> Curve:
        """The curves of resamples, `times` [d, n] saying how often each picture counts."""
        weight = times.astype(np.float32)
        upto, bad, share = (
            (weight @ counts).astype(np.float64) for counts in (self.good, self.bad, self.share)
        )  # [d, k]
        above = np.concatenate([np.zeros((len(weight), 1)), upto[:, :-1]], axis=1)
        return Curve(value=self.edges, above=above, upto=upto, bad=bad, share=share, good=upto[:, -1])


def _reached(points: Points, edges: NDArray[np.float32]) -> NDArray[np.float32]:
    """The weight at or above each edge  # [m, k]."""
    place = points.value.size - np.searchsorted(points.value[::-1], edges, side="left")
    rows = np.cumsum(points.weight, axis=1, dtype=np.float64)
    rows = np.concatenate([np.zeros((len(rows), 1)), rows], axis=1)
    return rows[:, place].astype(np.float32)
