"""Pixel scores of a test set, taken in picture by picture in constant memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from anodiff.errors import DataError
from anodiff.metrics.curve import Curve, Floats, aupro, auroc, average_precision, trace
from anodiff.metrics.histogram import histogram
from anodiff.metrics.sketch import COARSE, FINE, Points, Precision, Sketch, pool, summarise

EXACT = 20_000_000
"""Pixels up to which every value is kept and the metrics are exact (80 MB, and as much again while they are sorted)."""


def pixel_auroc(curve: Curve) -> Floats:
    """The area under the ROC curve over all pixels, in [0, 1]."""
    return auroc(curve)


def pixel_ap(curve: Curve) -> Floats:
    """The average precision over all pixels, in [0, 1]."""
    return average_precision(curve)


def aupro_30(curve: Curve) -> Floats:
    """AUPRO up to a false-alarm rate of .3, divided by .3, in [0, 1]."""
    return aupro(curve, 0.3)


def aupro_05(curve: Curve) -> Floats:
    """AUPRO up to a false-alarm rate of .05, divided by .05, in [0, 1]: the limit MVTec AD 2 uses."""
    return aupro(curve, 0.05)


PIXEL = {"pixel_auroc": pixel_auroc, "pixel_ap": pixel_ap, "aupro_30": aupro_30, "aupro_05": aupro_05}
"""The pixel metrics by name; each takes a `Curve`."""


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture's pixels in a few hundred points each, for resampling over pictures.

    Attributes:
        good: points of the good pixels; weight row 0 counts pixels.
        bad: points of the defect pixels; row 0 counts pixels, row 1 holds their region shares.
        regions: defect regions in the picture.
    """

    good: Points
    bad: Points
    regions: int

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return sum(p.value.nbytes + p.weight.nbytes for p in (self.good, self.bad))


def region_shares(mask: NDArray[np.bool_]) -> tuple[Floats, int]:
    """One over the size of its region for every defect pixel in row order [b], and the number of regions.

    Regions are the 8-connected components of the mask.
    """
    regions, names, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    size = stats[:, cv2.CC_STAT_AREA].astype(np.float64)
    return 1.0 / size[names[mask].astype(np.intp)], regions - 1  # name 0 is the background


def raw_points(values: NDArray[np.float32], shares: Floats | None = None) -> Points:
    """The values as points of one item each; their region shares, if given, as a second weight."""
    if shares is None:
        return Points(np.sort(values)[::-1], np.broadcast_to(1.0, (1, values.size)))
    order = np.argsort(values, kind="stable")[::-1]
    return Points(values[order], np.stack([np.ones(values.size), shares[order]]))


def _compact(points: Points) -> Points:
    return Points(points.value, points.weight.astype(np.float32))


class PixelScores:
    """Gathers maps and masks one picture at a time and gives the curve all pixel metrics are read from.

    Up to `exact` pixels every value is kept and the metrics are exact. Beyond, each `exact` pixels become a
    summary of about 450,000 points (see `histogram`), whose range adapts to the data; `error_bound` says what
    that may cost. Memory is constant in the number of pixels: 4 bytes for each good and 12 for each defect
    pixel of the last `exact`, 6 to 12 MB for each of a few summaries, and about 10 kB a picture for the
    bootstrap over pictures.

    Maps are ranked as float32, the precision in which they are written to disk. Higher means more anomalous;
    any range will do, nothing is squashed or normalised.

    Args:
        exact: number of pixels kept as they are.
        precision: of the summaries beyond.
    """

    def __init__(self, *, exact: int = EXACT, precision: Precision = FINE) -> None:
        self.exact = exact
        self.precision = precision
        self.pixels = 0
        self.regions = 0
        self.pictures: list[Picture] = []
        self._good: list[NDArray[np.float32]] = []
        self._bad: list[tuple[NDArray[np.float32], Floats]] = []
        self._held = 0
        self._good_sketch = Sketch(precision)
        self._bad_sketch = Sketch(precision)

    def update(self, map: NDArray[np.floating], mask: NDArray[np.generic]) -> None:
        """Take in one picture.

        Args:
            map: [H, W] anomaly scores, finite, at the mask's native size (resize the map, never the mask).
            mask: [H, W] True or non-zero where the defect is; all zero for a good picture. Leave out
                defective pictures whose mask is not known: their defects would count as good pixels.

        Raises:
            DataError: shapes differ or are not [H, W], values are not finite, or the mask is not boolean or
                integer.
        """
        values, defect = _checked(map, mask)
        if not values.size:
            return
        shares, regions = region_shares(defect)
        good, bad = values[~defect], values[defect]
        self.pictures.append(
            Picture(
                good=_compact(summarise(histogram(good, COARSE), COARSE)),
                bad=_compact(summarise(raw_points(bad, shares), COARSE)),
                regions=regions,
            )
        )
        self._good.append(good)
        self._bad.append((bad, shares))
        self.pixels += values.size
        self.regions += regions
        self._held += values.size
        if self._held > self.exact:
            good_points, bad_points = self._summary()
            self._good_sketch.push(good_points)
            self._bad_sketch.push(bad_points)
            self._good, self._bad, self._held = [], [], 0

    def _summary(self) -> tuple[Points, Points]:
        good, bad = _joined(self._good, self._bad)
        return histogram(good, self.precision), summarise(bad, self.precision)

    def curve(self) -> Curve:
        """The curve of all pixels so far; `pixel_auroc`, `pixel_ap` and `aupro` are read from it.

        Raises:
            DataError: there is no defect pixel, or no good one: nothing can be ranked.
        """
        if self.is_exact:
            values, bad = _joined(self._good, self._bad)
            good = raw_points(values)
        else:
            last_good, last_bad = self._summary()
            good = pool((*self._good_sketch.parts, last_good))
            bad = pool((*self._bad_sketch.parts, last_bad))
        if not good.value.size or not bad.value.size:
            kind = "good" if bad.value.size else "defect"
            raise DataError(
                f"pixel metrics need good and defect pixels, but the {len(self.pictures)} masks hold no "
                f"{kind} pixel; add pictures of the other kind or leave the pixel metrics out"
            )
        return trace(good.value, good.weight[0], bad.value, bad.weight[0], bad.weight[1])

    @property
    def is_exact(self) -> bool:
        """True as long as no value has been summarised."""
        return not self._good_sketch.levels

    @property
    def nbytes(self) -> int:
        """Memory held between updates, in bytes: raw values, summaries and pictures."""
        raw = sum(g.nbytes for g in self._good) + sum(b.nbytes + s.nbytes for b, s in self._bad)
        summaries = self._good_sketch.nbytes + self._bad_sketch.nbytes
        return raw + summaries + sum(picture.nbytes for picture in self.pictures)

    def error_bound(self) -> dict[str, float]:
        """The largest error of each pixel metric against the exact sort, to first order; 0 while exact.

        With rank errors of at most `e = min(growth * rank, depth * N)`: AUROC moves by at most the sum of the
        two rank errors; AUPRO up to a limit L by `min(growth, depth / L) + depth`; average precision, whose
        derivative by the logarithm of either count is at most 1/4, by `3/4 growth + depth`. Each carry of the
        sketches adds a half.
        """
        if self.is_exact:
            return dict.fromkeys(PIXEL, 0.0)
        depth, growth = self.precision.depth, self.precision.growth
        rounds = 1 + max(self._good_sketch.carries, self._bad_sketch.carries) / 2
        return {
            "pixel_auroc": rounds * 2 * depth,
            "pixel_ap": rounds * (0.75 * growth + depth),
            "aupro_30": rounds * (min(growth, depth / 0.3) + depth),
            "aupro_05": rounds * (min(growth, depth / 0.05) + depth),
        }


def _joined(
    good: Sequence[NDArray[np.float32]], bad: Sequence[tuple[NDArray[np.float32], Floats]]
) -> tuple[NDArray[np.float32], Points]:
    values = np.concatenate([np.zeros(0, np.float32), *good])
    defects = np.concatenate([np.zeros(0, np.float32), *(value for value, _ in bad)])
    shares = np.concatenate([np.zeros(0), *(share for _, share in bad)])
    return values, raw_points(defects, shares)


def _checked(
    map: NDArray[np.floating], mask: NDArray[np.generic]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    map, mask = np.asarray(map), np.asarray(mask)
    if map.ndim != 2 or map.shape != mask.shape:
        raise DataError(
            f"map and mask must both be [H, W] of one size, got {map.shape} and {mask.shape}; "
            "resize the map to the mask's native size, never the mask"
        )
    if mask.dtype.kind not in "bui":
        raise DataError(
            f"a mask must be boolean or integer, got {mask.dtype}: an interpolated mask has no edge; "
            "read the mask at native size and compare it with 0"
        )
    with np.errstate(over="ignore"):
        values = map.astype(np.float32)
    if not np.isfinite(values).all():
        wrong = int((~np.isfinite(values)).sum())
        raise DataError(
            f"a map must be finite and within float32, but {wrong} of {values.size} pixels are NaN, "
            "infinite or larger; find the scorer that made them"
        )
    return values, mask != 0
