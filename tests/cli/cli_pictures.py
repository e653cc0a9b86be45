"""Small pictures for the tests of the command, spoilt ones among them, and how a command ended."""

from __future__ import annotations

import struct
import zlib
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


def bomb(path: Path) -> None:
    """A PNG of 40,000 x 40,000 pixels in a few bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "bomb.png": (bomb, "above the limit of 200 million"),
    "cut.png": (lambda path: path.write_bytes(picture(path).read_bytes()[:900]), "truncated or damaged"),
    "text.png": (lambda path: path.write_text("not a picture\n"), "not a picture"),
    "zero.png": (lambda path: path.write_bytes(b""), "empty (0 bytes)"),
}
"""How to spoil a picture of that name, and what is said of it."""
