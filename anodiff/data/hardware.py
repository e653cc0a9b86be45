"""Simple machine parts, drawn: outlines of washers, nuts, bolts, brackets and gears, in four finishes."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from anodiff.data.field import fbm, polygon

FINISHES = {
    "steel": (0.72, 0.74, 0.77),
    "brass": (0.86, 0.69, 0.24),
    "copper": (0.80, 0.43, 0.27),
    "blue": (0.20, 0.40, 0.86),
}
"""What a part may be made of or painted with, and its colour, RGB in [0, 1]."""

DARKEST = 0.5
"""The largest channel of a part's colour is nowhere below it, that of the ground nowhere above half of it."""

OVERSAMPLING = 4
"""Pixels a side that are drawn for one pixel of the picture."""


@dataclass(frozen=True, eq=False)
class Outline:
    """A part seen from above, in a square of side 2 around (0, 0), x to the right and y down."""

    body: np.ndarray  # [points, 2]
    holes: tuple[np.ndarray, ...] = ()
    thread: tuple[float, float] | None = None  # from and to which y there are grooves

    @property
    def reach(self) -> float:
        """The greatest distance of a point from (0, 0)."""
        return float(np.hypot(*self.body.T).max())


@dataclass(frozen=True, kw_only=True)
class Pose:
    """Where a part lies: its centre and the radius of the circle it fits in, and its turn in radians.

    In pixels, from the upper left corner of the picture.
    """

    x: float
    y: float
    radius: float
    turn: float

    def placed(self, points: np.ndarray, reach: float) -> np.ndarray:
        """The points of an outline in pixels, [points, 2]."""
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        return points @ np.array([[cos, sin], [-sin, cos]]) * (self.radius / reach) + (self.x, self.y)

    def bounds(self, outline: Outline) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the part in pixels."""
        points = self.placed(outline.body, outline.reach)
        (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
        return float(left), float(top), float(right), float(bottom)

    def moved(self, right: float, down: float) -> Pose:
        """The same pose, further right and further down."""
        return Pose(x=self.x + right, y=self.y + down, radius=self.radius, turn=self.turn)

    def scaled(self, factor: float) -> Pose:
        """The same place in a picture that is `factor` times as large."""
        return Pose(x=self.x * factor, y=self.y * factor, radius=self.radius * factor, turn=self.turn)


def draw(
    outline: Outline, pose: Pose, finish: str, *, shape: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """How much of each pixel the part covers, float32 [h, w] in [0, 1], and its colour there [h, w, 3] in [0, 1].

    The edge is bevelled and lit from the upper left, the face brushed; grooves are darker. The largest channel of a
    covered pixel's colour is `DARKEST` or more.

    Args:
        outline: of the part.
        pose: where it lies, in pixels of `shape`.
        finish: one of `FINISHES`.
        shape: (h, w).
        rng: the direction and the strength of the brushing.
    """
    left, top, right, bottom = pose.bounds(outline)
    rows = slice(
        max(0, int(top) - 2), min(shape[0], int(bottom) + 3)
    )  # all is drawn in a window around the part
    columns = slice(max(0, int(left) - 2), min(shape[1], int(right) + 3))
    inner = (rows.stop - rows.start, columns.stop - columns.start)
    cover, colour = np.zeros(shape, np.float32), np.zeros((*shape, 3), np.float32)
    cover[rows, columns], colour[rows, columns] = _drawn(
        outline, pose.moved(-columns.start, -rows.start), finish, inner, rng
    )
    return cover, colour


def outline(kind: str, rng: np.random.Generator) -> Outline:
    """The outline of a part of this class (`CLASSES`), its proportions a little different at every draw."""
    return _OUTLINES[kind](rng)


def ground(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """A dark, worn surface to put parts on, float32 [h, w, 3] in [0, `DARKEST` / 2]."""
    tint = rng.uniform(0.07, 0.14) * rng.uniform(0.85, 1.15, size=3)
    worn = 0.018 * fbm(rng, shape, coarse=int(rng.integers(3, 6)), octaves=4)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    turn = rng.uniform(0, np.pi)
    along = (x * np.cos(turn) + y * np.sin(turn)) * (64 / min(shape))
    lines = rng.uniform(0.0, 0.014) * np.sin(2 * np.pi * along / rng.uniform(3.5, 7.0))  # a mat's ribs
    surface = tint + (worn + lines)[..., None] + rng.normal(0, 0.006, size=(*shape, 1))
    return np.clip(surface, 0.02, DARKEST / 2).astype(np.float32)


def _drawn(
    outline: Outline, pose: Pose, finish: str, shape: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    large = (shape[0] * OVERSAMPLING, shape[1] * OVERSAMPLING)
    pose = pose.scaled(OVERSAMPLING).moved(-0.5, -0.5)  # OpenCV counts from the middle of the first pixel
    cover = polygon(pose.placed(outline.body, outline.reach), large)
    for hole in outline.holes:
        cover = cover * (1 - polygon(pose.placed(hole, outline.reach), large))
    shade, gloss = _light(cover, outline, pose, rng)
    colour = np.asarray(FINISHES[finish], np.float32) * shade[..., None]
    colour = np.clip(colour + gloss[..., None] * (1 - colour), 0.0, 1.0)
    weight = cv2.resize(cover, shape[::-1], interpolation=cv2.INTER_AREA)
    mixed = cv2.resize(colour * cover[..., None], shape[::-1], interpolation=cv2.INTER_AREA)
    colour = mixed / np.maximum(weight, 1e-6)[..., None]  # of what is covered alone
    brightest = np.maximum(colour.max(axis=2, keepdims=True), 1e-6)
    return weight, np.clip(colour * np.maximum(1.0, DARKEST / brightest), 0.0, 1.0)


def _light(
    cover: np.ndarray, outline: Outline, pose: Pose, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """What the colour is multiplied by, and how much white is added, [h, w] each."""
    y, x = np.mgrid[: cover.shape[0], : cover.shape[1]].astype(np.float32)
    x, y = x - pose.x, y - pose.y
    brushed, strength = rng.uniform(0, np.pi), rng.uniform(0.05, 0.11)
    across = (x * np.cos(brushed) + y * np.sin(brushed)) / pose.radius
    shade = 0.84 + strength * np.sin(3.2 * across + rng.uniform(0, 2 * np.pi)) - 0.06 * (x + y) / pose.radius
    bevel = 0.16 * pose.radius
    depth = cv2.distanceTransform((cover > 0.5).astype(np.uint8), cv2.DIST_L2, 5)
    height = cv2.GaussianBlur(np.minimum(depth, bevel) / bevel, (0, 0), 0.2 * bevel)
    slope_x = cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=3) / 8 * bevel
    slope_y = cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=3) / 8 * bevel
    facing = np.clip(
        (slope_x + slope_y) * np.sqrt(0.5), -1.0, 1.0
    )  # 1 where the slope looks to the upper left
    shade = shade + 0.26 * facing
    if outline.thread is not None:
        scale = pose.radius / outline.reach
        down = (y * np.cos(pose.turn) - x * np.sin(pose.turn)) / scale  # along the part's own y
        inside = (down > outline.thread[0]) & (down < outline.thread[1])
        shade = shade - 0.22 * inside * (0.5 - 0.5 * np.cos(2 * np.pi * (down - outline.thread[0]) / _PITCH))
    return shade, 0.35 * np.clip(facing, 0.0, 1.0) ** 2


_PITCH = 0.3  # of a bolt's thread, in units of an outline


def _ring(radius: float, *, x: float = 0.0, y: float = 0.0, points: int = 72) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], axis=1)


def _washer(rng: np.random.Generator) -> Outline:
    return Outline(_ring(1.0), (_ring(rng.uniform(0.52, 0.62)),))


def _nut(rng: np.random.Generator) -> Outline:
    return Outline(_ring(1.0, points=6), (_ring(rng.uniform(0.40, 0.48)),))


def _bolt(rng: np.random.Generator) -> Outline:
    """From the side: the head above, chamfered, and a threaded shaft with a blunt tip."""
    head, shaft, neck = rng.uniform(0.58, 0.66), rng.uniform(0.28, 0.33), rng.uniform(-0.6, -0.48)
    chamfer = 0.14
    right = [(head - chamfer, -1.0), (head, -1.0 + chamfer), (head, neck), (shaft, neck)]
    for top in np.arange(neck + _PITCH / 2, 0.85, _PITCH):  # grooves of the thread
        right += [(shaft, top - 0.07), (shaft - 0.07, top), (shaft, top + 0.07)]
    right += [(shaft, 0.9), (shaft - 0.1, 1.0)]
    left = [(-x, y) for x, y in reversed(right)]
    return Outline(np.array(right + left), thread=(neck, 0.95))


def _bracket(rng: np.random.Generator) -> Outline:
    """An angle with a hole in each arm."""
    arm, bore = rng.uniform(0.66, 0.78), rng.uniform(0.17, 0.21)
    inner = -0.9 + arm
    body = [(-0.9, -0.9), (inner, -0.9), (inner, 0.9 - arm), (0.9, 0.9 - arm), (0.9, 0.9), (-0.9, 0.9)]
    middle = -0.9 + arm / 2
    return Outline(np.array(body), (_ring(bore, x=middle, y=-0.5), _ring(bore, x=0.5, y=-middle)))


def _gear(rng: np.random.Generator) -> Outline:
    teeth, root = int(rng.integers(7, 10)), rng.uniform(0.68, 0.74)
    step = 2 * np.pi / teeth
    corners = ((-0.32, root), (-0.2, 1.0), (0.2, 1.0), (0.32, root))  # of a tooth: share of the step, radius
    body = [
        (radius * np.cos((tooth + share) * step), radius * np.sin((tooth + share) * step))
        for tooth in range(teeth)
        for share, radius in corners
    ]
    return Outline(np.array(body), (_ring(rng.uniform(0.24, 0.3)),))


_OUTLINES = {"bolt": _bolt, "bracket": _bracket, "gear": _gear, "nut": _nut, "washer": _washer}

CLASSES = tuple(_OUTLINES)
"""The classes of parts, in natural order."""
