"""Painted pictures as files, and all of them on one sheet."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def hang(folder: Path, pictures: Iterable[np.ndarray], *, count: int) -> None:
    """Write folder/0000.png ... as they come, and folder/grid.png.

    Args:
        folder: is there already.
        pictures: uint8 [h, w, C] of one size, at least one.
        count: how many come.
    """
    from anodiff.cli.predictions import png

    width = max(4, len(str(count - 1)))
    kept = []
    for number, picture in enumerate(pictures):
        png(folder / f"{number:0{width}}.png", picture)
        kept.append(picture)
    png(folder / "grid.png", grid(kept))


def grid(pictures: list[np.ndarray]) -> np.ndarray:
    """The pictures [h, w, C] in rows, as near to a square as their number allows, 2 white pixels between them."""
    import numpy as np

    columns = int(np.ceil(np.sqrt(len(pictures))))
    rows = -(-len(pictures) // columns)
    height, width, channels = pictures[0].shape
    sheet = np.full((rows * (height + 2) - 2, columns * (width + 2) - 2, channels), 255, dtype=np.uint8)
    for number, picture in enumerate(pictures):
        top, left = number // columns * (height + 2), number % columns * (width + 2)
        sheet[top : top + height, left : left + width] = picture
    return sheet
