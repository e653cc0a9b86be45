"""Weighted points that stand for very many values, with a bounded error of every rank."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anodiff.metrics.curve import Floats


@dataclass(frozen=True)
class Precision:
    """How many values one point may stand for: at rank r from the top of N, `clip(growth * r, 1, depth * N)`.

    Ranks below 1/growth are kept exactly, so precision at the top (average precision, small false-alarm
    rates) does not suffer from the number of values below.
    """

    depth: float
    growth: float

    def widest(self, total: float) -> int:
        """The most values a point may stand for, anywhere among `total`."""
        return max(1, int(self.depth * total))

    def allowed(self, rank: NDArray[np.number], total: float) -> Floats:
        """The number of values a point may stand for that begins at `rank` (0 is the highest value)."""
        return np.clip(self.growth * rank.astype(np.float64), 1.0, self.widest(total))


FINE = Precision(depth=2.0**-17, growth=2.0**-14)
"""About 450,000 points for 20 million values; every metric within 1e-4 (see `PixelScores.error_bound`)."""
COARSE = Precision(depth=2.0**-8, growth=2.0**-5)
"""About 1000 points for a picture of a million pixels; for the spread over pictures, not for the value."""


@dataclass(frozen=True, eq=False)
class Points:
    """Values, highest first, and what each stands for.

    Attributes:
        value: [k] float32, descending, not necessarily distinct.
        weight: [m, k] row 0 the number of items; further rows any other additive weight.
    """

    value: NDArray[np.float32]
    weight: Floats


def pool(parts: Iterable[Points]) -> Points:
    """The points of all parts in one order."""
    parts = tuple(parts)
    value = np.concatenate([part.value for part in parts])
    order = np.argsort(value, kind="stable")[::-1]
    return Points(value[order], np.concatenate([part.weight for part in parts], axis=1)[:, order])


def cuts(total: float, precision: Precision) -> Floats:
    """The ranks, ascending from 0, at which groups of points may begin under `precision`.

    The step doubles from octave to octave, `step <= growth * rank`, until it is as wide as `depth` allows.
    """
    widest = precision.widest(total)
    parts, start, step = [], 0.0, 1
    while start < total and step < widest:
        stop = min(total, 2 * step / precision.growth)
        parts.append(np.arange(start, stop, step))
        start, step = stop, 2 * step
    parts.append(np.arange(start, total, widest))
    return np.concatenate(parts)


def summarise(points: Points, precision: Precision) -> Points:
    """Fewer points, of which none is moved past more weight than `precision` allows.

    Row 0 of the weights is grouped by `cuts`, further rows into equal parts of `depth`. A point that
    straddles a cut stays alone; a group takes the value of its median item. Rank errors are at most half a
    group for row 0, a whole group for the others (the bound of a mergeable summary, Agarwal et al., PODS
    2012).
    """
    size = points.value.size
    if size == 0 or precision.widest(points.weight[0].sum()) == 1:
        return points
    reached = np.cumsum(points.weight, axis=1, dtype=np.float64)  # [m, k] inclusive ranks
    begins = [np.zeros(1, dtype=np.intp)]
    for row, (upto, weight) in enumerate(zip(reached, points.weight, strict=True)):
        total = upto[-1]
        at = cuts(total, precision) if row == 0 else np.arange(0.0, total, precision.depth * total)
        first = np.minimum(np.searchsorted(upto, at, side="right"), size - 1)  # the point that holds the cut
        straddles = upto[first] - weight[first] < at
        begins += [first, first[straddles] + 1]
    starts = np.unique(np.concatenate(begins))
    starts = starts[starts < size]
    ends = np.append(starts[1:], size)
    before = reached[0, starts] - points.weight[0, starts]
    median = np.searchsorted(reached[0], (before + reached[0, ends - 1]) / 2)
    median = np.clip(median, starts, ends - 1)
    grouped = np.add.reduceat(points.weight, starts, axis=1, dtype=np.float64)
    return Points(points.value[median], grouped)


class Sketch:
    """A growing summary of points in constant memory: a counter in base `fan_in` whose digits are summaries.

    When `fan_in` parts of one level have come they are pooled, summarised and carried to the next, so that
    the number of roundings a value has seen grows with the logarithm of their number only.
    """

    def __init__(self, precision: Precision = FINE, *, fan_in: int = 8) -> None:
        self.precision = precision
        self.fan_in = fan_in
        self.levels: list[list[Points]] = []

    def push(self, points: Points) -> None:
        """Take in one more part."""
        for level in range(len(self.levels) + 1):
            if level == len(self.levels):
                self.levels.append([])
            self.levels[level].append(points)
            if len(self.levels[level]) < self.fan_in:
                return
            points = summarise(pool(self.levels[level]), self.precision)
            self.levels[level] = []

    @property
    def parts(self) -> tuple[Points, ...]:
        """All summaries held, to be pooled."""
        return tuple(points for level in self.levels for points in level)

    @property
    def carries(self) -> int:
        """How many times a value may have been summarised again since it was pushed."""
        return max(len(self.levels) - 1, 0)

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return sum(part.value.nbytes + part.weight.nbytes for part in self.parts)
