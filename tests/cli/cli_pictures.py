"""Small pictures for the tests of the command, and how a command ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np


@dataclass(frozen=True)
class Said:
    """How a command ended."""

    code: int
    out: str
    err: str


Command = Callable[..., Said]


def picture(path: Path, *, seed: int = 0, size: tuple[int, int] = (64, 80), channels: int = 1) -> Path:
    """Write a picture of even grain."""
    shape = size if channels == 1 else (*size, channels)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(90, 160, shape, dtype=np.uint8))
    return path
