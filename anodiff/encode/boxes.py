"""Boxes with classes as rows of numbers for `Cond.boxes`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from anodiff.data.boxes import Box, checked, read_boxes
from anodiff.errors import ConfigError, DataError

NOTHING = -1
"""The class of a place in which there is no box."""


@dataclass(frozen=True)
class Classes:
    """The classes a model knows, and how many boxes of a picture it reads.

    Args:
        names: of the classes; their order gives their numbers.
        most: boxes of a picture.
    """

    names: tuple[str, ...]
    most: int

    def row(self, boxes: Sequence[Box]) -> Tensor:
        """The boxes of one picture, float32 [most, 5]: class number, left, top, right, bottom; the rest is class -1.

        Raises:
            ConfigError: an unknown class, with those there are, or more boxes than `most`.
            DataError: sides that are not `0 <= left < right <= 1` and `0 <= top < bottom <= 1`.
        """
        if len(boxes) > self.most:
            raise ConfigError(
                f"The model reads {self.most} boxes of a picture at most, got {len(boxes)}. Leave some out, or fit "
                "with a larger tokens.most."
            )
        row = torch.zeros(self.most, 5)
        row[:, 0] = NOTHING
        for place, box in enumerate(boxes):
            name, *sides = checked(box, where=f"box {place + 1}")
            row[place] = torch.tensor([self.number(name), *sides])
        return row

    def rows(self, boxes: Sequence[Sequence[Box]]) -> Tensor:
        """The boxes of several pictures, [B, most, 5]; errors as `row`."""
        return torch.stack([self.row(row) for row in boxes]) if boxes else torch.empty(0, self.most, 5)

    def number(self, name: str) -> int:
        """The number of a class; ConfigError with the known ones where there is none of that name."""
        if name not in self.names:
            raise ConfigError(
                f"The model knows no class {name!r}; its classes are {', '.join(self.names) or 'none'}."
            )
        return self.names.index(name)


def read_layout(path: str | os.PathLike[str]) -> list[Box]:
    """The boxes of a .json file, `[["bolt", 0.1, 0.2, 0.3, 0.4], ...]`.

    Raises:
        DataError: the file cannot be read, or holds no box or something else.
    """
    found = read_boxes(Path(path))
    if not found:
        raise DataError(f"{path} holds no box; a layout has at least one.")
    return found
