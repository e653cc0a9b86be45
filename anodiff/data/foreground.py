"""Where the part is in a picture, told from the ground it lies on without having learnt anything."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

SIDE = 128
"""The longer side, in pixels, of the small picture that is looked at."""

LEAST, MOST = 0.01, 0.8
"""Shares of the picture that a part may cover."""

BORDER = 0.15
"""Share of the picture's border that the part may cover, or that may look unlike the ground."""

CONTRAST = 4.0
"""The least distance in Lab of a part's colour from the ground's; about 2 is just seen."""

_RING = 0.04  # width of the border, over the shorter side
_CUT = 0.4  # where the line is drawn between the ground's mean distance (0) and the part's (1)
_PIECE = 0.1  # a piece of this share of the largest one's area still belongs to the part


@dataclass(frozen=True, eq=False)
class Foreground:
    """A part in a picture, at the size of a small copy of it."""

    cover: np.ndarray  # [h, w] float32 in [0, 1], how much of each pixel is part; holes are filled
    contrast: np.ndarray  # [h, w] float32, distance in Lab from the colour of the ground
    picture: np.ndarray  # [h, w, 3] float32, the small copy
    size: tuple[int, int]  # height and width of the picture itself

    @property
    def share(self) -> float:
        """How much of the picture is part."""
        return float(self.cover.mean())


def thumbnail(unit: np.ndarray) -> np.ndarray:
    """A small copy [h, w, 3] of a picture [H, W, C] in [0, 1], its longer side `SIDE` at most."""
    factor = min(1.0, SIDE / max(unit.shape[:2]))
    height, width = (max(1, round(side * factor)) for side in unit.shape[:2])
    small = unit if factor == 1 else cv2.resize(unit, (width, height), interpolation=cv2.INTER_AREA)
    small = small[..., None] if small.ndim == 2 else small  # OpenCV drops a single channel
    return np.repeat(small, 3, axis=2) if small.shape[2] == 1 else small


def foreground(unit: np.ndarray) -> Foreground | None:
    """The part of a picture [H, W, C] float32 in [0, 1]; None where no part stands out clearly.

    The ground's colour is a plane in Lab over the picture (so that light may fall off to one side), fitted to the
    border by trimmed least squares. With `d` the distance in Lab of a pixel from it, the cut is drawn at

        t = m0 + .4 (m1 - m0)        m0, m1 the means of d below and above t

    which is solved by iteration from above (after Ridler & Calvard 1978, Picture thresholding using an iterative
    selection method, who take the middle). Pieces smaller than a tenth of the largest are dropped, holes are filled.

    There is no part where more than `BORDER` of the border lies above the cut (a texture, a picture that the part
    fills), where the part covers less than `LEAST` or more than `MOST`, or stands out by less than `CONTRAST`.
    """
    small = thumbnail(unit)
    if min(small.shape[:2]) < 8:
        return None
    lab = cv2.cvtColor(np.ascontiguousarray(small), cv2.COLOR_RGB2Lab)  # L in [0, 100]
    ring = _ring((small.shape[0], small.shape[1]))
    away = lab - _ground(lab, ring)
    away = cv2.GaussianBlur(np.sqrt(np.einsum("ijk,ijk->ij", away, away)), (0, 0), 0.7)  # [h, w]
    found = _cut(away)
    if found is None:
        return None
    cut, low = found
    above = away > cut
    if above[ring].mean() > BORDER:
        return None
    solid = _solid(above)
    if not LEAST <= solid.mean() <= MOST:
        return None
    # soft at the edge, so that neither the digit a file is rounded at nor a pixel's phase moves the part
    soft = np.clip((away - low) / np.float32(2 * (cut - low)), 0, 1)
    inner = cv2.erode(solid, np.ones((3, 3), np.uint8))
    outer = cv2.dilate(solid, np.ones((3, 3), np.uint8))
    cover = np.where(inner > 0, np.float32(1), soft * outer).astype(np.float32)
    return Foreground(cover, away, small, (unit.shape[0], unit.shape[1]))


def _ring(shape: tuple[int, int]) -> np.ndarray:
    """The border [h, w] bool."""
    wide = max(2, round(_RING * min(shape)))
    ring = np.ones(shape, bool)
    ring[wide:-wide, wide:-wide] = False
    return ring


def _ground(lab: np.ndarray, ring: np.ndarray) -> np.ndarray:
    """The colour of the ground [h, w, 3]: a plane through the border, what departs most from it left out."""
    height, width = ring.shape
    y = np.linspace(-0.5, 0.5, height)
    x = np.linspace(-0.5, 0.5, width)
    rows, columns = (places[::2] for places in np.nonzero(ring))  # half of the pixels tell as much
    places = np.stack([np.ones(len(rows)), x[columns], y[rows]], axis=1)  # [n, 3]
    colours = lab[rows, columns].astype(np.float64)  # [n, 3]
    kept = _nearest(colours - np.median(colours, axis=0))
    plane = np.zeros((3, 3))
    for _ in range(3):
        base = places[kept]
        plane = np.linalg.solve(base.T @ base, base.T @ colours[kept])
        kept = _nearest(colours - places @ plane)
    level, across, down = plane.astype(np.float32)  # [3] each
    return level + x.astype(np.float32)[None, :, None] * across + y.astype(np.float32)[:, None, None] * down


def _nearest(away: np.ndarray) -> np.ndarray:
    """Three quarters of the pixels [n], those whose difference [n, 3] is least."""
    squared = (away**2).sum(axis=1)
    return squared <= np.partition(squared, len(squared) * 3 // 4)[len(squared) * 3 // 4]


def _cut(away: np.ndarray) -> tuple[float, float] | None:
    """The cut and the ground's mean distance; None where there is no contrast."""
    values = np.sort(away, axis=None)  # [n], so that each mean is a difference of sums
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    count = len(values)
    cut, low, below = float(values[count // 2] + values[-1]) / 2, 0.0, -1
    for _ in range(50):
        before, below = below, int(np.searchsorted(values, np.float32(cut), side="right"))
        if not 0 < below < count:
            return None
        low, high = sums[below] / below, (sums[-1] - sums[below]) / (count - below)
        if high - low < CONTRAST:
            return None
        cut = float(low + _CUT * (high - low))
        if below == before:
            break
    return cut, float(low)


def _solid(above: np.ndarray) -> np.ndarray:
    """The pieces that make the part, holes filled, [h, w] uint8 of 0 and 1."""
    solid = np.zeros(above.shape, np.uint8)
    outlines, _ = cv2.findContours(above.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    areas = [cv2.contourArea(outline) for outline in outlines]
    largest = max(areas, default=0.0)
    pieces = [outline for outline, area in zip(outlines, areas, strict=True) if area >= _PIECE * largest]
    return cv2.drawContours(solid, pieces, -1, 1, cv2.FILLED)  # type: ignore[return-value]
