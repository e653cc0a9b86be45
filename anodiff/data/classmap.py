"""Maps of classes: pictures whose values are numbers, one class a pixel."""

from __future__ import annotations

import os
from typing import Any

import cv2
import numpy as np
import pandas as pd

from anodiff.data.decode import decode
from anodiff.errors import DataError


def class_maps(table: pd.DataFrame, *, column: str = "map") -> list[str]:
    """The path of each row's map.

    Args:
        table: as `data.index` gives it, where paths of files beside a manifest are absolute.
        column: where the paths are.

    Raises:
        DataError: no such column, or a row without a map; the message names its picture.
    """
    if column not in table:
        raise DataError(
            f"Expected maps of classes in a column {column!r}, but there is none; columns: "
            f"{', '.join(map(str, table.columns))}."
        )
    paths = [_text(value) for value in table[column]]
    for image, path in zip(table["image"], paths, strict=True):
        if not path:
            raise DataError(
                f"{image} has no map of classes in the column {column!r}: give every picture one."
            )
    return paths


def read_classes(path: str | os.PathLike[str], *, shape: tuple[int, int]) -> np.ndarray:
    """The numbers of a map at a working shape, int64 [h, w].

    The value of a pixel is its class: 0, 1, 2, ..., not grey levels. Each new pixel takes the number of the one in its
    middle, for the mean of two classes is no class.

    Args:
        path: a grey picture of 8 or 16 bit.
        shape: (h, w).

    Raises:
        DataError: the file cannot be read, or is no grey picture of whole numbers.
    """
    numbers = decode(path)
    if numbers.ndim != 2 or numbers.dtype.kind != "u":
        raise DataError(
            f"{path}: expected a map of classes, a grey picture of 8 or 16 bit whose values are class numbers; got "
            f"shape {numbers.shape} of {numbers.dtype}."
        )
    resized = cv2.resize(numbers, shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return resized.astype(np.int64)


def _text(value: Any) -> str:
    return "" if value is None or value != value else str(value)  # NaN differs from itself
