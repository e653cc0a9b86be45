"""The ranking of good against bad: one curve, and the areas under it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Curve:
    """How many of each kind rank above every distinct bad value, highest value first.

    A curve needs vertices at the values of bad items only: between two of them just the false alarms grow.
    Items of equal value enter together, as a straight line in the ROC plane. All counts may carry leading
    axes, one entry for each bootstrap draw; every metric then returns an array of that leading shape.

    Attributes:
        value: [k] distinct values of bad items, descending.
        above: [..., k] good items strictly above the value.
        upto: [..., k] good items at or above it: the false alarms when everything `>= value` is called bad.
        bad: [..., k] bad items at or above it: the true alarms.
        share: [..., k] like `bad`, each item weighted by one over the size of its region.
        good: [...] good items in all.
    """

    value: Floats
    above: Floats
    upto: Floats
    bad: Floats
    share: Floats
    good: Floats


def trace(good: Floats, good_count: Floats, bad: Floats, bad_count: Floats, bad_share: Floats) -> Curve:
    """The curve of weighted good and bad values.

    Args:
        good: [g] values, descending.
        good_count: [..., g] how many good items each stands for.
        bad: [b] values, descending.
        bad_count: [..., b] how many bad items each stands for.
        bad_share: [..., b] their weight in the per-region overlap.
    """
    last = np.flatnonzero(np.append(bad[1:] != bad[:-1], True))  # ties end where the value changes
    value = bad[last]
    rising = good[::-1]
    above = good.size - np.searchsorted(rising, value, side="right")  # positions in `good`
    upto = good.size - np.searchsorted(rising, value, side="left")
    reached = np.cumsum(good_count, axis=-1, dtype=np.float64)  # [..., g]
    reached = np.concatenate([np.zeros((*reached.shape[:-1], 1)), reached], axis=-1)  # [..., g + 1]
    return Curve(
        value=value,
        above=reached[..., above],
        upto=reached[..., upto],
        bad=np.cumsum(bad_count, axis=-1, dtype=np.float64)[..., last],
        share=np.cumsum(bad_share, axis=-1, dtype=np.float64)[..., last],
        good=reached[..., -1],
    )


def partial_area(gain: Floats, above: Floats, upto: Floats, good: Floats, limit: float) -> Floats:
    """The area under a curve over false-alarm rate, up to `limit`, divided by `limit`.

    A gain that comes while the rate f grows from a to b counts with `integral_0^limit clip((f - a)/(b - a),
    0, 1) df`: `limit - (a + b)/2` where b is inside, `(limit - a)^2 / (2 (b - a))` where the limit cuts the
    rise (so the curve is interpolated at the limit), 0 where a is outside.

    Args:
        gain: [..., k] cumulative gain, its last entry the total (the curve is divided by it).
        above: [..., k] good items before each gain.
        upto: [..., k] good items after it.
        good: [...] good items in all.
        limit: the largest false-alarm rate, in (0, 1].
    """
    total = good[..., None]
    a, b = above / total, upto / total
    inside = limit - (a + b) / 2
    cut = np.maximum(limit - a, 0.0) ** 2 / (2 * np.maximum(b - a, np.finfo(np.float64).tiny))
    area = np.where(b <= limit, inside, np.where(a < limit, cut, 0.0))
    steps = np.diff(gain, axis=-1, prepend=0.0)
    return (steps * area).sum(axis=-1) / (gain[..., -1] * limit)


def auroc(curve: Curve) -> Floats:
    """The area under the ROC curve: P(bad > good) + P(bad = good)/2, in [0, 1]  (Mann & Whitney 1947)."""
    return partial_area(curve.bad, curve.above, curve.upto, curve.good, 1.0)


def average_precision(curve: Curve) -> Floats:
    """The average precision `sum_k (R_k - R_{k-1}) P_k` over distinct thresholds, in [0, 1]."""
    called = curve.bad + curve.upto
    precision = curve.bad / np.where(called > 0, called, 1.0)
    return (np.diff(curve.bad, axis=-1, prepend=0.0) * precision).sum(axis=-1) / curve.bad[..., -1]


def f1_scores(curve: Curve) -> Floats:
    """The F1 score 2 TP / (TP + FP + P) [..., k] when all at or above each threshold is called bad."""
    return 2 * curve.bad / (curve.bad + curve.upto + curve.bad[..., -1:])


def f1max(curve: Curve) -> Floats:
    """The largest F1 score over all thresholds, in (0, 1]; it is reached at the value of a bad item."""
    return f1_scores(curve).max(axis=-1)


def fpr_at_tpr(curve: Curve, tpr: float) -> Floats:
    """The false-alarm rate at the highest threshold that catches a share `tpr` of the bad, in [0, 1]."""
    needed = tpr * curve.bad[..., -1:] * (1 - 1e-12)  # .95 * 20 must not ask for the 20th of 19 by rounding
    first = (curve.bad >= needed).argmax(axis=-1)
    return np.take_along_axis(curve.upto, first[..., None], axis=-1)[..., 0] / curve.good


def aupro(curve: Curve, limit: float = 0.3) -> Floats:
    """The area under the per-region-overlap curve up to a false-alarm rate `limit`, divided by it, in [0, 1].

    PRO(t) is the mean over all defect regions of the share of a region at or above t; the false-alarm rate is
    the share of good pixels at or above t. Since the mean over regions weighs a pixel by 1/(regions x its
    region's size), this is a partial ROC area with those weights.  Bergmann et al., IJCV 2021,
    doi:10.1007/s11263-020-01400-4
    """
    return partial_area(curve.share, curve.above, curve.upto, curve.good, limit)
