"""Squares cut from pictures at random, as rows for a trainer."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from torch import Tensor


class Rows(Protocol):
    """Pictures by number."""

    def __len__(self) -> int: ...

    def item(self, index: int, seed: int, /) -> Tensor:
        """Row `index`, [C, H, W], changed as a pure function of `seed`."""
        ...


class Crops:
    """One square of each picture, its place a pure function of the seed; the whole picture where it is smaller.

    Args:
        pictures: what is cut, all of one shape.
        side: of the squares, in pixels; None: whole pictures.
    """

    def __init__(self, pictures: Rows, side: int | None) -> None:
        self.pictures = pictures
        self.side = side

    def __len__(self) -> int:
        return len(self.pictures)

    def item(self, index: int, seed: int) -> Tensor:
        """The square of picture `index` that `seed` chooses, [C, side, side] (less where the picture is smaller)."""
        image = self.pictures.item(index, seed)
        if self.side is None:
            return image
        rng = np.random.default_rng([seed, 1])  # the picture's own change draws from `seed` alone
        top, left = (int(rng.integers(0, max(1, size - self.side + 1))) for size in image.shape[-2:])
        return image[:, top : top + self.side, left : left + self.side]
