"""Random fields and shapes: the raw matter of painted defects."""

from __future__ import annotations

import cv2
import numpy as np


def fbm(rng: np.random.Generator, shape: tuple[int, int], *, coarse: int = 4, octaves: int = 4) -> np.ndarray:
    """Fractal noise float32 [h, w], mean 0, deviation 1: octaves of smooth value noise, each half as strong.

    Args:
        rng: where the randomness comes from.
        shape: (h, w).
        coarse: grid cells of the first octave along the shorter side; each next octave has twice as many.
        octaves: how many.
    """
    height, width = shape
    total = np.zeros(shape, np.float32)
    for octave in range(octaves):
        cells = coarse * 2**octave
        grid = tuple(max(2, round(cells * side / min(shape))) for side in shape)
        noise = rng.standard_normal(grid).astype(np.float32)
        total += 0.5**octave * cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return (total - total.mean()) / max(float(total.std()), 1e-6)


def region(
    rng: np.random.Generator, shape: tuple[int, int], *, area: float, rough: float = 0.35
) -> np.ndarray:
    """An irregular filled shape, float32 [h, w] in [0, 1] with anti-aliased edge, mostly inside the picture.

    A circle whose radius wavers as a short random Fourier series, stretched and turned.

    Args:
        rng: where the randomness comes from.
        shape: (h, w).
        area: of the shape as a share of the picture.
        rough: how far the radius wavers; 0 is an ellipse.
    """
    angle = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    waver = sum(
        rng.normal() / k * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in range(2, 7)
    )  # [96], lower frequencies stronger
    radius = np.clip(1 + rough * np.asarray(waver), 0.35, 1.9)
    stretch = rng.uniform(0.6, 1.0)
    outline = np.stack([radius * np.cos(angle), stretch * radius * np.sin(angle)], axis=1)  # [96, 2]
    turn = rng.uniform(0, 2 * np.pi)
    outline = outline @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    size = np.sqrt(area * shape[0] * shape[1] / (np.pi * stretch))
    return polygon(outline * size + centre(rng, shape, reach=size), shape)


def polygon(outline: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The filled polygon as float32 [h, w] in [0, 1]; `outline` [points, 2] holds x and y in pixels."""
    canvas = np.zeros(shape, np.uint8)
    cv2.fillPoly(canvas, [np.round(outline * 16).astype(np.int32)], 255, lineType=cv2.LINE_AA, shift=4)
    return canvas.astype(np.float32) / 255


def line(
    rng: np.random.Generator, shape: tuple[int, int], *, length: float, width: float, bend: float = 0.6
) -> np.ndarray:
    """A bent line that fades at its ends, float32 [h, w] in [0, 1].

    Args:
        rng: where the randomness comes from.
        shape: (h, w).
        length: in pixels.
        width: in pixels; below one pixel the line gets fainter instead.
        bend: deviation of its turns, in radians.
    """
    turn, bends = rng.uniform(0, 2 * np.pi), rng.normal(0, bend, size=3)
    along = np.linspace(0, 1, 64)
    heading = turn + bends[0] * along + bends[1] * along**2 + 0.15 * bends[2] * np.sin(9 * along)
    steps = np.stack([np.cos(heading), np.sin(heading)], axis=1) * length / 64
    points = np.cumsum(steps, axis=0)
    points += centre(rng, shape, reach=0.3 * length) - points.mean(axis=0)
    pressure = np.clip(np.minimum(along, 1 - along) * 6, 0.15, 1) * rng.uniform(0.75, 1.0, size=64)
    canvas = np.zeros(shape, np.float32)
    for i in range(63):  # piece by piece, because the pressure changes along the line
        piece = np.zeros(shape, np.uint8)
        ends = [tuple(int(v) for v in np.round(points[j] * 16)) for j in (i, i + 1)]
        cv2.line(piece, ends[0], ends[1], 255, max(1, round(width)), cv2.LINE_AA, 4)
        canvas = np.maximum(canvas, piece.astype(np.float32) / 255 * pressure[i])
    return canvas * min(1.0, max(width, 0.4))


def centre(rng: np.random.Generator, shape: tuple[int, int], *, reach: float) -> np.ndarray:
    """A random place [x, y] that keeps about `reach` pixels from the border where there is room."""
    room = [min(reach, 0.45 * side) for side in shape]
    y, x = (rng.uniform(edge, side - edge) for edge, side in zip(room, shape, strict=True))
    return np.array([x, y])
