"""Where the pixels of a picture went in what a model saw of it, and the way back."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from anodiff.detect.heatmap import array_to_size

Row = tuple[float, float, float]


@dataclass(frozen=True)
class Placement:
    """A model saw its part moved and turned; maps and painted pictures go back to where it lies.

    Attributes:
        rows: the affine map [2, 3] from pixels of the picture to those of what was seen, both counted from the upper
            left corner.
        seen: height and width of what was seen.
    """

    rows: tuple[Row, Row]
    seen: tuple[int, int]

    @classmethod
    def of(cls, matrix: np.ndarray | None, seen: tuple[int, int]) -> Placement | None:
        """The placement of a map [2, 3]; None where the picture was resized as a whole."""
        if matrix is None:
            return None
        first, second = ((float(a), float(b), float(c)) for a, b, c in matrix)
        return cls((first, second), seen)

    def heat(self, heat: np.ndarray, size: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
        """The map [h, w] float32 brought to a picture of `size`, drawn at `shape` (both height, width), [H, W].

        Every value is a weighted mean of the map's own, and what was not seen has the map's minimum: nothing rises
        above its maximum.
        """
        matrix = self._from(size, shape)
        found = self._drawn(heat, matrix, shape)
        found[self._outside(matrix, shape)] = heat.min()
        return found

    def painted(self, painted: np.ndarray, shape: tuple[int, int], own: np.ndarray | None) -> np.ndarray:
        """The painted picture uint8 [h, w, C] where the part lies in its picture, uint8 [H, W] or [H, W, 3].

        Args:
            painted: of any size.
            shape: height and width of the picture.
            own: the picture uint8 [H, W] or [H, W, 3] in RGB, which shows where nothing was painted; None: the border
                of what was painted goes on there.
        """
        matrix = self._from(shape, shape)
        found = self._drawn(painted.astype(np.float32), matrix, shape).round().clip(0, 255).astype(np.uint8)
        if own is not None:
            outside = self._outside(matrix, shape)
            found[outside] = _like(own, found)[outside]
        return found

    def _from(self, size: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
        """The map [2, 3] from pixels of a drawing at `shape` of a picture of `size` to what was seen."""
        return np.array(self.rows) * np.array([size[1] / shape[1], size[0] / shape[0], 1.0])

    def _drawn(self, seen: np.ndarray, matrix: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """What `matrix` leads to in `seen` [h, w] or [h, w, C], at each pixel of `shape`."""
        scale = math.sqrt(abs(float(np.linalg.det(matrix[:, :2])))) * seen.shape[0] / self.seen[0]
        if scale > 1:  # averaged first, as a resize would be
            small = tuple(max(1, round(side / scale)) for side in seen.shape[:2])
            seen = (
                array_to_size(seen, (small[0], small[1]))
                if seen.ndim == 2
                else cv2.resize(seen, small[::-1], interpolation=cv2.INTER_AREA).reshape(*small, -1)
            )
        factors = np.array([[seen.shape[1] / self.seen[1]], [seen.shape[0] / self.seen[0]]])
        there = matrix * factors
        half = np.array([0.5, 0.5])  # OpenCV counts from the middle of the first pixel
        there = np.concatenate([there[:, :2], (there[:, :2] @ half + there[:, 2] - half)[:, None]], axis=1)
        return cv2.warpAffine(
            seen,
            there,
            shape[::-1],
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )  # drops a single channel's axis

    def _outside(self, matrix: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """Which pixels of `shape` were not seen, [H, W] bool."""
        x, y = np.arange(shape[1])[None] + 0.5, np.arange(shape[0])[:, None] + 0.5
        across, down = (row[0] * x + row[1] * y + row[2] for row in matrix)  # [H, W] each
        return (across < 0) | (across > self.seen[1]) | (down < 0) | (down > self.seen[0])


def _like(own: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The picture with the channels of another."""
    if own.ndim == other.ndim:
        return own
    if other.ndim == 2:
        return cv2.cvtColor(np.ascontiguousarray(own), cv2.COLOR_RGB2GRAY)
    return np.repeat(own[..., None], 3, axis=2)
