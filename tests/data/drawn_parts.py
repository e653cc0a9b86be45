"""Pictures of single machine parts whose place and angle are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from anodiff.data.hardware import Pose, draw, ground, outline


@dataclass(frozen=True, eq=False)
class Drawn:
    image: np.ndarray  # [size, size, 3] uint8 RGB
    cover: np.ndarray  # [size, size] float32 in [0, 1]
    turn: float  # degrees clockwise
    centre: tuple[float, float]


def drawn(kind: str, seed: int, *, size: int = 96, light: bool = False, turn: float | None = None) -> Drawn:
    """A part of `kind` on a worn ground, dark or light; lying anyhow, or turned by `turn` in the middle."""
    rng = np.random.default_rng([seed, size])
    shown, base = outline(kind, rng), ground(rng, (size, size))
    base = np.clip(1.05 - base, 0, 1) if light else base
    centre = tuple(rng.uniform(0.4 * size, 0.6 * size, size=2)) if turn is None else (size / 2, size / 2)
    angle = rng.uniform(0, 360) if turn is None else turn
    pose = Pose(x=centre[0], y=centre[1], radius=0.3 * size, turn=np.radians(angle))
    cover, colour = draw(shown, pose, "blue" if light else "steel", shape=(size, size), rng=rng)
    image = base + cover[..., None] * (colour - base)
    return Drawn(np.round(image.clip(0, 1) * 255).astype(np.uint8), cover, angle, centre)


def apart(first: float, second: float) -> float:
    """Degrees between two angles, in [0, 180]."""
    return abs((first - second + 180) % 360 - 180)
