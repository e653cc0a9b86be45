"""What callers hand in as a picture, brought to one form."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from anodiff.data.image import read
from anodiff.errors import DataError

Frame = np.ndarray
"""H x W or H x W x 3 in RGB, at the depth it came with."""


def frame(source: Any) -> Frame:
    """The picture `source` as an array in RGB, never the caller's own memory changed.

    A path is read; an array is H x W or H x W x 3 in **BGR**, as OpenCV gives it (uint8, uint16, or float in [0, 1]);
    a PIL picture and a tensor ([H, W], [1 or 3, H, W], uint8 or float in [0, 1]) are RGB.

    Raises:
        DataError: none of these, or a file that cannot be read.
    """
    if isinstance(source, str | os.PathLike):
        return read(source)
    if isinstance(source, np.ndarray):
        return _from_opencv(source)
    if hasattr(source, "convert") and hasattr(source, "getbands"):  # PIL, without importing it
        plain = source.mode in ("L", "I;16", "RGB")
        return np.asarray(source if plain else source.convert("RGB"))
    if hasattr(source, "detach"):  # a tensor, without importing torch
        return _from_tensor(source.detach().cpu().numpy())
    raise DataError(
        f"Expected a path, an array in BGR, a PIL picture or a tensor in RGB, got {type(source).__name__}."
    )


def _from_opencv(array: np.ndarray) -> Frame:
    if array.ndim == 2:
        return array
    if array.ndim == 3 and array.shape[2] == 1:
        return array[..., 0]
    if array.ndim == 3 and array.shape[2] in (3, 4):
        return array[..., 2::-1]  # BGR or BGRA -> RGB, a view
    raise DataError(f"Expected an array H x W or H x W x 3 (BGR), got the shape {array.shape}.")


def _from_tensor(array: np.ndarray) -> Frame:
    if array.ndim == 2:
        return array
    if array.ndim == 3 and array.shape[0] in (1, 3):
        return array[0] if array.shape[0] == 1 else array.transpose(1, 2, 0)  # [C, H, W] -> [H, W, C]
    raise DataError(f"Expected a tensor [H, W] or [1 or 3, H, W] in RGB, got the shape {array.shape}.")
