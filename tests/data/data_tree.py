"""Small data sets the tests write for themselves."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np


def picture(path: Path, seed: int = 0, shape: tuple[int, ...] = (24, 32)) -> Path:
    """A file with a picture of smooth noise, different for every seed."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (6, 8, *shape[2:]), dtype=np.uint8)
    return write(path, cv2.resize(small, shape[1::-1], interpolation=cv2.INTER_CUBIC))


def write(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), array)
    return path


def mask(path: Path, mark: int, shape: tuple[int, int] = (24, 32)) -> Path:
    """A mask with `mark` pixels set: the number tells which picture it belongs to."""
    array = np.zeros(shape, np.uint8)
    array.ravel()[:mark] = 255
    return write(path, array)


def mvtec(root: Path, *, train: int = 4, bad: int = 3, ending: str = "_mask", good: str = "good") -> Path:
    """A part in MVTec layout whose i-th defective picture has a mask of i pixels."""
    for i in range(train):
        picture(root / "train" / good / f"{i}.png", i)
    picture(root / "test" / good / "0.png", 100)
    for i in range(1, bad + 1):
        picture(root / "test" / "scratch" / f"{i}.png", 200 + i)
        mask(root / "ground_truth" / "scratch" / f"{i}{ending}.png", i)
    return root
