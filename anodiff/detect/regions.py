"""Connected places of a map above a threshold."""

from __future__ import annotations

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

    def to_dict(self) -> dict[str, Any]:
        """The region as plain lists and numbers."""
        return {
            "bbox": list(self.bbox),
            "polygon": [list(point) for point in self.polygon],
            "area": self.area,
            "peak": self.peak,
        }


def regions(heatmap: np.ndarray, threshold: float, *, smallest: int = 1) -> tuple[Region, ...]:
    """The regions of `heatmap` [H, W] strictly above `threshold`, highest peak first.

    Pixels that touch at a corner belong together (8-connectivity). Regions of fewer than `smallest` pixels
    are left out. NaN is never above a threshold.
    """
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
        found.append(
            Region(
                bbox=(x, y, width, height),
                polygon=tuple((int(px), int(py)) for px, py in outline),
                area=area,
                peak=float(heatmap[window][inside].max()),
            )
        )
    return tuple(sorted(found, key=lambda region: (-region.peak, region.bbox)))
