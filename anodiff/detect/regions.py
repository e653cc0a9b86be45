"""Connected places of a map above a threshold, each with the chance that a good picture shows one like it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np


@dataclass(frozen=True)
class Region:
    """One place that is not normal, in pixels of the input picture, x to the right and y down."""

    bbox: tuple[int, int, int, int]  # x, y, width, height
    polygon: tuple[tuple[int, int], ...]  # outer contour, (x, y) of pixel centres
    area: int  # pixels
    peak: float  # highest value of the map inside
    p_value: float = math.nan  # chance that a good picture shows a region as high anywhere; NaN: not known

    def to_dict(self) -> dict[str, Any]:
        """The region as plain lists and numbers."""
        return {
            "bbox": list(self.bbox),
            "polygon": [list(point) for point in self.polygon],
            "area": self.area,
            "peak": self.peak,
            "p_value": self.p_value if math.isfinite(self.p_value) else None,
        }


def family_p_value(peak: float, maxima: np.ndarray) -> float:
    """The conformal p-value of a region: `(1 + #{i : M_i >= peak}) / (n + 1)`.

    It is corrected for all places of the picture. No region of a picture peaks above the map's maximum M, so the least
    p-value of all its regions is at least that of M, and M is exchangeable with the maxima of held-out good pictures:

        P(a good picture shows any region with p <= a) <= a        for every a

    The comparison of each place with the maximum over all is the single-step procedure of Westfall & Young (1993,
    Resampling-Based Multiple Testing, ch. 2), the p-value that of Vovk et al. (2005) and Bates et al. (2023,
    arXiv:2104.08279, eq. 2). It is never below 1 / (n + 1), and says nothing about a single region by itself.

    Args:
        peak: the highest value of the map inside the region.
        maxima: [n] the maxima of held-out good pictures' maps, ascending.
    """
    n = len(maxima)
    if not n or math.isnan(peak):
        return math.nan
    return (1 + n - int(np.searchsorted(maxima, peak, side="left"))) / (n + 1)


def regions(
    heatmap: np.ndarray, threshold: float, *, smallest: int = 1, maxima: np.ndarray | None = None
) -> tuple[Region, ...]:
    """The regions of `heatmap` [H, W] strictly above `threshold`, highest peak first.

    Pixels that touch at a corner belong together (8-connectivity). Regions of fewer than `smallest` pixels
    are left out. NaN is never above a threshold. With the `maxima` [n] of held-out good pictures' maps, ascending,
    each region has its p-value.
    """
    against = np.empty(0) if maxima is None else maxima
    above = (heatmap > threshold).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(above, connectivity=8)
    found = []
    for index in range(1, count):  # 0 is the background
        x, y, width, height, area = (int(v) for v in stats[index])
        if area < smallest:
            continue
        window = np.s_[y : y + height, x : x + width]
        inside = labels[window] == index
        # The crop holds this component only, so a region inside another's hole keeps its own contour.
        contours, _ = cv2.findContours(
            inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=(x, y)
        )
        outline = max(contours, key=len).reshape(-1, 2)
        peak = float(heatmap[window][inside].max())
        found.append(
            Region(
                bbox=(x, y, width, height),
                polygon=tuple((int(px), int(py)) for px, py in outline),
                area=area,
                peak=peak,
                p_value=family_p_value(peak, against),
            )
        )
    return tuple(sorted(found, key=lambda region: (-region.peak, region.bbox)))
