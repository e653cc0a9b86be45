"""A made-up set of pictures of machine parts, told in words, in boxes and in maps."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from anodiff.data.boxes import Box, written
from anodiff.data.hardware import CLASSES, FINISHES, Pose, draw, ground, outline
from anodiff.data.manifest import write_manifest
from anodiff.data.table import GOOD, table_of
from anodiff.errors import ConfigError, DataError

BRIGHT = 0.36
"""A pixel whose largest channel, in [0, 1], is above this belongs to a part; the ground is darker."""

_TEST_EVERY = 5  # one picture of so many is for testing
_LENGTHS = {1: (0.40, 0.66), 2: (0.34, 0.48), 3: (0.30, 0.40), 4: (0.28, 0.36)}  # of a part, over the side
_GAP = 2 / 64  # between the boxes of two parts, and to the border, over the side
_TRIES = 60


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a picture."""

    kind: str
    finish: str
    box: Box

    @property
    def centre(self) -> tuple[float, float]:
        """x and y of its box's centre, in [0, 1]."""
        _, left, top, right, bottom = self.box
        return (left + right) / 2, (top + bottom) / 2


def make_parts(
    folder: str | os.PathLike[str], *, count: int = 400, size: int = 64, seed: int = 0, most: int = 4
) -> Path:
    """The manifest just written, with `count` pictures of machine parts beside it: `images/`, `maps/`, `manifest.csv`.

    Every picture shows 1 to `most` parts on a dark ground, apart from each other: bolts, brackets, gears, nuts and
    washers of steel, brass, copper or painted blue. Besides the usual columns, the manifest has

    | column | meaning |
    |---|---|
    | caption | "two steel bolts and a brass washer", from left to right; one part alone is also told its place |
    | boxes | JSON, `[["bolt", left, top, right, bottom], ...]` in shares of the side, from left to right |
    | map | a picture of numbers: 0 the ground, k the k-th of `hardware.CLASSES` |

    All are good parts of one category; every fifth picture is for testing. Parts and ground are told apart by
    brightness alone (`BRIGHT`). Picture i depends on seed, size, most and i, not on `count`; made anew with the same
    arguments, every file is the same to the byte.

    Args:
        folder: where to write; made if needed.
        count: pictures.
        size: side of a picture in pixels, at least 32.
        seed: another seed, other pictures.
        most: parts a picture, 1 to 4.

    Raises:
        ConfigError: a number out of its range.
        DataError: the folder holds such a set already, or cannot be written to.
    """
    if count < 1 or size < 32 or not 1 <= most <= max(_LENGTHS) or seed < 0:
        raise ConfigError(
            f"Expected count >= 1, size >= 32, most from 1 to {max(_LENGTHS)} and seed >= 0; "
            f"got count={count}, size={size}, most={most}, seed={seed}."
        )
    root = Path(os.path.abspath(folder))
    manifest = root / "manifest.csv"
    for there in (manifest, root / "images", root / "maps"):
        if there.exists():
            raise DataError(f"{there} exists already. Remove it, or choose another folder.")
    rows = []
    for number in range(count):
        image, numbers, parts = picture(np.random.default_rng([seed, number]), size=size, most=most)
        path, drawn = root / "images" / f"{number:05}.png", root / "maps" / f"{number:05}.png"
        _write(path, image[..., ::-1])
        _write(drawn, numbers)
        rows.append(
            {
                "image": str(path),
                "category": "parts",
                "split": "test" if number % _TEST_EVERY == _TEST_EVERY - 1 else "train",
                "defect": GOOD,
                "label": 0,
                "caption": caption(parts),
                "boxes": written([part.box for part in parts]),
                "map": str(drawn),
            }
        )
    return write_manifest(table_of(rows), manifest)


def picture(
    rng: np.random.Generator, *, size: int, most: int = 4
) -> tuple[np.ndarray, np.ndarray, tuple[Part, ...]]:
    """One picture of parts: RGB uint8 [size, size, 3], the map of classes uint8 [size, size], the parts left to right.

    A part whose box would touch another's is tried elsewhere, and left out when there is no room for it.
    """
    shape = (size, size)
    image, numbers = ground(rng, shape), np.zeros(shape, np.uint8)
    parts: list[Part] = []
    wanted = int(rng.integers(1, most + 1))
    for _ in range(wanted):
        kind, finish = str(rng.choice(CLASSES)), str(rng.choice(list(FINISHES)))
        shown = outline(kind, rng)
        radius = rng.uniform(*_LENGTHS[wanted]) * size / 2
        for _ in range(_TRIES):
            x, y = rng.uniform(radius + _GAP * size, size - radius - _GAP * size, size=2)
            pose = Pose(x=x, y=y, radius=radius, turn=rng.uniform(0, 2 * np.pi))
            if all(_apart(pose.bounds(shown), other.box, size) for other in parts):
                break
        else:
            continue
        cover, colour = draw(shown, pose, finish, shape=shape, rng=rng)
        image = image * (1 - 0.55 * _shadow(cover, size))[..., None]
        image = image + cover[..., None] * (colour - image)
        numbers[cover > 0.5] = CLASSES.index(kind) + 1
        parts.append(Part(kind=kind, finish=finish, box=_box(kind, cover > 0.5)))
    image = image + rng.normal(0, 0.008, size=image.shape)
    pixels = np.round(image.clip(0, 1) * 255).astype(np.uint8)
    return pixels, numbers, tuple(sorted(parts, key=lambda part: part.centre))


def caption(parts: Sequence[Part]) -> str:
    """The parts in words: "a brass washer at the top left", "two steel bolts and a blue gear"."""
    if len(parts) == 1:
        return f"a {parts[0].finish} {parts[0].kind} {_place(*parts[0].centre)}"
    counts = Counter(f"{part.finish} {part.kind}" for part in parts)
    words = [f"a {name}" if n == 1 else f"{_NUMBERS[n]} {_plural(name)}" for name, n in counts.items()]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


_NUMBERS = {2: "two", 3: "three", 4: "four"}


def _plural(name: str) -> str:
    return f"{name}s"  # true of all CLASSES


def _place(x: float, y: float) -> str:
    across = "left" if x < 0.42 else "right" if x > 0.58 else ""
    down = "top" if y < 0.42 else "bottom" if y > 0.58 else ""
    if down:
        return f"at the {down} {across}".rstrip()
    return f"on the {across}" if across else "in the middle"


def _shadow(cover: np.ndarray, size: int) -> np.ndarray:
    """Below and to the right of a part, [h, w] in [0, 1]."""
    offset = 1.6 * size / 64
    moved = cv2.warpAffine(cover, np.array([[1, 0, offset], [0, 1, offset]], np.float32), cover.shape[::-1])
    return cv2.GaussianBlur(moved, (0, 0), 0.9 * size / 64)


def _apart(bounds: tuple[float, float, float, float], box: Box, size: int) -> bool:
    """Whether there is a gap between bounds in pixels and a box."""
    left, top, right, bottom = (side / size for side in bounds)
    _, there_left, there_top, there_right, there_bottom = box
    return (
        max(left - there_right, there_left - right) > _GAP
        or max(top - there_bottom, there_top - bottom) > _GAP
    )


def _write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), pixels):
        raise DataError(f"{path} cannot be written. Check that there is room and that you may write there.")


def _box(kind: str, inside: np.ndarray) -> Box:
    high, wide = inside.shape
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    left, right = float(columns[0]) / wide, float(columns[-1] + 1) / wide
    return (
        kind,
        round(left, 4),
        round(float(rows[0]) / high, 4),
        round(right, 4),
        round((rows[-1] + 1) / high, 4),
    )
