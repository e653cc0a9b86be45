"""How a part lies in its picture, and the way to where it lies upright in the middle."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from anodiff.data.foreground import Foreground

Turn = Literal["none", "shape", "look"]
"""What tells a part's angle: nothing, for it has none; its outline; or where along its axis it stands out most."""

Canvas = tuple[float, float, float, float]
"""How far an upright picture goes left, up, right and down of the part's centre, over sqrt(H W) of its picture."""

ROUND, SYMMETRIC = 1.1, 0.05
"""Below these, elongation and asymmetry say nothing about an angle."""

_DIGITS = 2  # of degrees and pixels; the last digits of a file's depth do not get through


@dataclass(frozen=True, kw_only=True)
class Pose:
    """How a part lies.

    Attributes:
        angle: degrees clockwise from upright; upright the main axis is vertical and the thinner end points down.
        centre: x and y in pixels of the picture, from its upper left corner.
        elongation: deviation of the part along its main axis over that across, 1 for a disc or a square.
        asymmetry: along the axis, 0 where its two ends cannot be told apart.
    """

    angle: float
    centre: tuple[float, float]
    elongation: float
    asymmetry: float

    @property
    def doubt(self) -> str | None:
        """Why the angle means little; None where it is sure."""
        if self.elongation < ROUND:
            return f"it is as long as wide (ratio {self.elongation:.2f}) and has no main axis"
        if self.asymmetry < SYMMETRIC:
            return f"its two ends look alike (asymmetry {self.asymmetry:.2f})"
        return None


@dataclass(frozen=True, kw_only=True)
class Upright:
    """The pose that all pictures are brought to."""

    canvas: Canvas
    turn: Turn

    @property
    def size(self) -> tuple[float, float]:
        """Height and width of the canvas."""
        left, up, right, down = self.canvas
        return up + down, left + right

    def matrix(self, found: Foreground, shape: tuple[int, int]) -> np.ndarray | None:
        """The affine map [2, 3] from pixels of the picture to those of an upright one of `shape` (h, w), both counted
        from the upper left corner; None where the part reaches out of the canvas, and would be cut.
        """
        pose = pose_of(found, self.turn)
        unit = math.sqrt(found.size[0] * found.size[1])
        if any(there > limit for there, limit in zip(extents(found, pose), self.canvas, strict=True)):
            return None
        left, up, right, down = (unit * side for side in self.canvas)
        scale = min(shape[0] / (up + down), shape[1] / (left + right))
        middle = shape[1] / 2 - scale * (right - left) / 2, shape[0] / 2 - scale * (down - up) / 2
        return placing(pose, scale=scale, target=middle)


def pose_of(found: Foreground, turn: Turn) -> Pose:
    """How a part lies, from the moments of its cover `w`.

    The centre is the first moment, the main axis the first eigenvector of the second. Which end is which, the sign of

        shape   mean(u^3) / mean(u^2)^(3/2)              the skewness along the axis, u from the centre
        look    -mean(d u) / mean(d) / mean(u^2)^(1/2)   `d` the distance from the ground's colour: the end that stands
                                                         out more goes up

    (Hu 1962, Visual pattern recognition by moment invariants, IRE Trans. Inf. Theory 8(2), section IV, fixes the
    rotation the same way). With `none` the angle is 0.
    """
    across, down = found.size[1] / found.cover.shape[1], found.size[0] / found.cover.shape[0]
    m = cv2.moments(found.cover)
    middle = m["m10"] / m["m00"], m["m01"] / m["m00"]  # OpenCV counts from the middle of the first pixel
    xx, yy = m["mu20"] / m["m00"] * across**2, m["mu02"] / m["m00"] * down**2
    xy = m["mu11"] / m["m00"] * across * down
    spread = math.hypot((xx - yy) / 2, xy)
    long, short = (xx + yy) / 2 + spread, max((xx + yy) / 2 - spread, 1e-12)
    axis = 0.5 * math.atan2(2 * xy, xx - yy)  # of the long axis, clockwise from x
    cos, sin = math.cos(axis) * across, math.sin(axis) * down
    if turn == "shape":
        cubes = m["mu30"] * cos**3 + m["mu03"] * sin**3
        cubes += 3 * (m["mu21"] * cos**2 * sin + m["mu12"] * cos * sin**2)
        side = cubes / m["m00"] / long**1.5
    elif turn == "look":
        c = cv2.moments(found.cover * found.contrast)
        there = c["m10"] / c["m00"] - middle[0], c["m01"] / c["m00"] - middle[1]
        side = -(there[0] * cos + there[1] * sin) / math.sqrt(long)
    else:
        side = 0.0
    angle = 0.0 if turn == "none" else math.degrees(axis) - 90 + (180 if side < 0 else 0)
    return Pose(
        angle=_round((angle + 180) % 360 - 180),
        centre=(_round((middle[0] + 0.5) * across), _round((middle[1] + 0.5) * down)),
        elongation=math.sqrt(long / short),
        asymmetry=abs(side),
    )


def extents(found: Foreground, pose: Pose) -> Canvas:
    """How far the upright part goes left, up, right and down of its centre, over sqrt(H W)."""
    (high, wide), (height, width) = found.cover.shape, found.size
    rows, columns = np.nonzero(found.cover > 0.5)
    points = np.stack([(columns + 0.5) * (width / wide), (rows + 0.5) * (height / high)])  # [2, n]
    x, y = _rotation(-pose.angle) @ (points - np.reshape(pose.centre, (2, 1))) / math.sqrt(height * width)
    return -float(x.min()), -float(y.min()), float(x.max()), float(y.max())


def placing(pose: Pose, *, scale: float, target: tuple[float, float]) -> np.ndarray:
    """The affine map [2, 3] that turns a part upright, scales it and puts its centre at `target` (x, y)."""
    linear = scale * _rotation(-pose.angle)
    shift = np.array(target) - linear @ np.array(pose.centre)
    return np.concatenate([linear, shift[:, None]], axis=1)


def warped(unit: np.ndarray, matrix: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The picture [H, W, C] float32 as the map `matrix` shows it, [h, w, C]; the border goes on outside the picture.

    Where the map shrinks, the picture is first averaged over areas, down to half again the resolution of the result, so
    that fine texture does not alias; then it is interpolated linearly, once.
    """
    scale = math.sqrt(abs(float(np.linalg.det(matrix[:, :2]))))
    before = min(1.0, 1.5 * scale)
    height, width = (max(1, round(side * before)) for side in unit.shape[:2])
    if (height, width) != unit.shape[:2]:
        matrix = matrix * np.array([unit.shape[1] / width, unit.shape[0] / height, 1.0])
        unit = cv2.resize(unit, (width, height), interpolation=cv2.INTER_AREA)
    found = cv2.warpAffine(
        unit, _centred(matrix), shape[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    found = found[..., None] if found.ndim == 2 else found  # OpenCV drops a single channel
    return found.clip(0.0, 1.0)


def _centred(matrix: np.ndarray) -> np.ndarray:
    """The map for OpenCV, which counts from the middle of the first pixel."""
    half = np.array([0.5, 0.5])
    return np.concatenate([matrix[:, :2], (matrix[:, :2] @ half + matrix[:, 2] - half)[:, None]], axis=1)


def _rotation(degrees: float) -> np.ndarray:
    """Clockwise where y points down, [2, 2]."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[cos, -sin], [sin, cos]])


def _round(value: float) -> float:
    return round(value, _DIGITS)
