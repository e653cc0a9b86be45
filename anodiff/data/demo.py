"""A small data set from photographs that come with scikit-image, with painted defects."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from anodiff.data.image import read
from anodiff.data.synthetic import COARSE, KINDS, paint
from anodiff.errors import ConfigError, DataError

SIDE = 128
"""Pixels a side of every picture of the set."""

TILE = 64
"""Pixels of the photograph a side of what becomes one picture."""


@dataclass(frozen=True, kw_only=True)
class Photograph:
    """A photograph inside the scikit-image wheel."""

    file: str
    source: str


PHOTOGRAPHS = {
    "brick": Photograph(file="brick.png", source="https://cc0textures.com/view.php?tex=Bricks25, CC0"),
    "grass": Photograph(
        file="grass.png", source="https://www.deviantart.com/linolafett/art/Grass-01-434853879, CC0"
    ),
    "gravel": Photograph(file="gravel.png", source="https://cc0textures.com/view.php?tex=Gravel04, CC0"),
}


def make_demo(
    folder: str | os.PathLike[str],
    *,
    seed: int = 0,
    categories: Sequence[str] = tuple(PHOTOGRAPHS),
    train: int = 32,
    good: int = 12,
    bad: int = 20,
    kinds: Sequence[str] = COARSE,
) -> Path:
    """The folder just filled with categories in MVTec layout, 128 x 128 px PNG, masks exact.

    Every picture is a tile of one photograph, mirrored or not, with a little exposure and sensor noise of its own. No
    two pictures share a pixel of it, and chance decides which tile is trained on and which is tested with, so that
    good test pictures are as strange to a model as the good pictures it held out. Half of the defects are easy to
    see, half are subtle. No network: only files inside the installed scikit-image are read. Made anew with the same
    arguments, every file is the same to the byte.

    Args:
        folder: where to write; made if needed.
        seed: another seed, other crops and defects.
        categories: among `PHOTOGRAPHS`.
        train: good pictures for training, a category.
        good: good pictures for testing, a category.
        bad: defective pictures, a category, spread over the kinds.
        kinds: kinds of defect, among `synthetic.KINDS`.

    Raises:
        ConfigError: an unknown category or kind, a count below 1, or more pictures than a photograph has tiles (64).
        DataError: a photograph is missing from the installation, or the folder already holds one of the categories.
    """
    if unknown := [name for name in categories if name not in PHOTOGRAPHS]:
        raise ConfigError(f"Expected categories among {', '.join(PHOTOGRAPHS)}, got {', '.join(unknown)}.")
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ConfigError(f"Expected kinds of defect among {', '.join(KINDS)}, got {', '.join(unknown)}.")
    if min(train, good, bad) < 1 or not kinds or not categories:
        raise ConfigError(
            f"Expected at least one picture of each sort, got train={train}, good={good}, bad={bad}."
        )
    root = Path(os.path.abspath(folder))
    for name in categories:
        if (root / name).exists():
            raise DataError(f"{root / name} exists already. Remove it, or choose another folder.")
    for name in categories:
        _category(
            root / name, PHOTOGRAPHS[name], [seed, list(PHOTOGRAPHS).index(name)], (train, good, bad), kinds
        )
    (root / "README.md").write_text(_readme(categories, seed), encoding="utf-8")
    return root


def _category(
    root: Path, photograph: Photograph, seed: list[int], counts: tuple[int, int, int], kinds: Sequence[str]
) -> None:
    rng = np.random.default_rng(seed)
    train, good, bad = counts
    tiles = _tiles(photograph)
    if sum(counts) > len(tiles):
        raise ConfigError(
            f"{photograph.file} has {len(tiles)} tiles and {train} + {good} + {bad} pictures were asked for. Ask for "
            "fewer: no two pictures share a tile."
        )
    others = [_tiles(other) for other in PHOTOGRAPHS.values() if other != photograph]
    parts = iter([_part(tiles[number], rng) for number in rng.permutation(len(tiles))])
    for i in range(train):
        _write(root / "train" / "good" / f"{i:03}.png", next(parts))
    for i in range(good):
        _write(root / "test" / "good" / f"{i:03}.png", next(parts))
    for i in range(bad):
        kind = kinds[i % len(kinds)]
        easy = (i // len(kinds)) % 2 == 0
        strength = rng.uniform(0.75, 1.0) if easy else rng.uniform(0.25, 0.5)
        foreign = None
        if rng.random() < 0.5:
            other = others[i % len(others)]
            foreign = _tensor(_part(other[int(rng.integers(len(other)))], rng))
        painted, mask = paint(
            _tensor(next(parts)), kind, seed=int(rng.integers(2**31)), strength=strength, foreign=foreign
        )
        _write(root / "test" / kind / f"{i:03}.png", np.round(painted[0].numpy() * 255).astype(np.uint8))
        _write(root / "ground_truth" / kind / f"{i:03}_mask.png", mask[0].numpy().astype(np.uint8) * 255)


def _tiles(photograph: Photograph) -> list[np.ndarray]:
    """The photograph cut into tiles that share no pixel, uint8 [TILE, TILE] each."""
    import skimage.data

    # straight from the wheel: skimage.data.brick() may download a file that is not there
    file = Path(skimage.data.__file__).parent / photograph.file
    if not file.is_file():
        raise DataError(
            f"{photograph.file} is not among the files of scikit-image ({file.parent}). Reinstall it."
        )
    pixels = read(file)
    rows, columns = (range(0, side - TILE + 1, TILE) for side in pixels.shape[:2])
    return [pixels[top : top + TILE, left : left + TILE] for top in rows for left in columns]


def _part(tile: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A tile as a camera would give it, uint8 [SIDE, SIDE]: enlarged, with its own exposure and sensor noise."""
    shot = cv2.resize(tile, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    if rng.random() < 0.5:
        shot = shot[:, ::-1]
    shot = shot * rng.uniform(0.96, 1.04) + rng.normal(0, 1.5, size=shot.shape)
    return np.round(shot.clip(0, 255)).astype(np.uint8)


def _tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.astype(np.float32) / 255)[None]  # [1, H, W]


def _write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), pixels):
        raise DataError(f"{path} cannot be written. Check that there is room and that you may write there.")


def _readme(categories: Sequence[str], seed: int) -> str:
    sources = "\n".join(f"- {name}: {PHOTOGRAPHS[name].source}" for name in categories)
    return (
        "# Demo set\n\n"
        "Tiles of photographs that are distributed with scikit-image, with painted defects and exact masks.\n"
        f"Made by `anodiff data make-demo`, seed {seed}. Every picture is a tile of one photograph; no two share a\n"
        "pixel of it.\n\n"
        f"Sources, by scikit-image's own notes (`skimage.data`):\n\n{sources}\n\n"
        "All of them are in the public domain (CC0 1.0); so is this set.\n"
    )
