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
from anodiff.data.synthetic import KINDS, paint
from anodiff.errors import ConfigError, DataError

SIDE = 256
"""Pixels a side of every picture of the set."""


@dataclass(frozen=True, kw_only=True)
class Photograph:
    """A photograph inside the scikit-image wheel, and how parts are cut from it."""

    file: str
    zoom: float  # the photograph is enlarged by this before parts are cut
    source: str


PHOTOGRAPHS = {
    "brick": Photograph(
        file="brick.png", zoom=1.5, source="https://cc0textures.com/view.php?tex=Bricks25, CC0"
    ),
    "grass": Photograph(
        file="grass.png", zoom=1.5, source="https://www.deviantart.com/linolafett/art/Grass-01-434853879, CC0"
    ),
    "gravel": Photograph(
        file="gravel.png", zoom=1.5, source="https://cc0textures.com/view.php?tex=Gravel04, CC0"
    ),
}


def make_demo(
    folder: str | os.PathLike[str],
    *,
    seed: int = 0,
    categories: Sequence[str] = tuple(PHOTOGRAPHS),
    train: int = 48,
    good: int = 12,
    bad: int = 24,
    kinds: Sequence[str] = KINDS,
) -> Path:
    """The folder just filled with categories in MVTec layout, 256 x 256 px PNG, masks exact.

    Every picture is a crop of one photograph, mirrored or not, with a little exposure and sensor noise of
    its own. Crops for training come from its left part and crops for testing from the right: no pixel is in
    both. Half of the defects are easy to see, half are subtle. No network: only files inside the installed
    scikit-image are read. Made anew with the same arguments, every file is the same to the byte.

    Args:
        folder: where to write; made if needed.
        seed: another seed, other crops and defects.
        categories: among `PHOTOGRAPHS`.
        train: good pictures for training, a category.
        good: good pictures for testing, a category.
        bad: defective pictures, a category, spread over the kinds.
        kinds: kinds of defect, among `synthetic.KINDS`.

    Raises:
        ConfigError: an unknown category or kind, or a count below 1.
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
    left, right = _halves(photograph)
    others = [_halves(other)[0] for other in PHOTOGRAPHS.values() if other != photograph]
    train, good, bad = counts
    for i in range(train):
        _write(root / "train" / "good" / f"{i:03}.png", _part(left, rng))
    for i in range(good):
        _write(root / "test" / "good" / f"{i:03}.png", _part(right, rng))
    for i in range(bad):
        kind = kinds[i % len(kinds)]
        easy = (i // len(kinds)) % 2 == 0
        strength = rng.uniform(0.75, 1.0) if easy else rng.uniform(0.25, 0.5)
        part = _tensor(_part(right, rng))
        foreign = _tensor(_part(others[i % len(others)], rng)) if rng.random() < 0.5 else None
        painted, mask = paint(part, kind, seed=int(rng.integers(2**31)), strength=strength, foreign=foreign)
        _write(root / "test" / kind / f"{i:03}.png", np.round(painted[0].numpy() * 255).astype(np.uint8))
        _write(root / "ground_truth" / kind / f"{i:03}_mask.png", mask[0].numpy().astype(np.uint8) * 255)


def _halves(photograph: Photograph) -> tuple[np.ndarray, np.ndarray]:
    """The photograph's two regions: (for training, for testing), enlarged, uint8 [h, w]."""
    import skimage.data

    # straight from the wheel: skimage.data.brick() may download a file that is not there
    file = Path(skimage.data.__file__).parent / photograph.file
    if not file.is_file():
        raise DataError(
            f"{photograph.file} is not among the files of scikit-image ({file.parent}). Reinstall it."
        )
    pixels = read(file)
    cut, zoom = round(pixels.shape[1] * 0.6), photograph.zoom
    left, right = (
        cv2.resize(side, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC)
        for side in (pixels[:, :cut], pixels[:, cut:])  # enlarged apart, so that no pixel mixes both
    )
    return left, right


def _part(region: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A crop as a camera would give it, uint8 [256, 256]: its own place, exposure and sensor noise."""
    top, left = (int(rng.integers(0, side - SIDE + 1)) for side in region.shape)
    crop = region[top : top + SIDE, left : left + SIDE].astype(np.float32)
    if rng.random() < 0.5:  # both sides of a photograph with perspective then lean the same ways
        crop = crop[:, ::-1]
    shot = crop * rng.uniform(0.96, 1.04) + rng.normal(0, 1.5, size=crop.shape)
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
        "Crops of photographs that are distributed with scikit-image, with painted defects and exact masks.\n"
        f"Made by `anodiff data make-demo`, seed {seed}. Training crops come from the left 60 % of a photograph,\n"
        "test crops from the rest.\n\n"
        f"Sources, by scikit-image's own notes (`skimage.data`):\n\n{sources}\n\n"
        "All of them are in the public domain (CC0 1.0); so is this set.\n"
    )
