"""Pictures as arrays in [0, 1] and as tensors of the working shape; the one resize of the package."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np

from anodiff.data.decode import LIMIT_MPX, Header, decode, header
from anodiff.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

_TOLERANCE = 1e-3  # how far a float picture may leave [0, 1]: the overshoot of another program's resize


def read(path: str | os.PathLike[str], *, limit_mpx: float = LIMIT_MPX) -> np.ndarray:
    """The picture of a file in its own bit depth: H x W or H x W x 3 RGB; see `decode.decode`."""
    return decode(path, limit_mpx=limit_mpx)


def read_mask(path: str | os.PathLike[str]) -> np.ndarray:
    """The ground truth of a file, bool H x W at its own size: True where any channel is above 0.

    Masks are never resized: resizing a 10-pixel scratch and casting it back changes its area up to threefold.
    Resize the anomaly map to the mask instead.

    Of a folder of masks (several regions of one picture, as in MVTec LOCO) the union is returned.

    Raises:
        DataError: as `read`; masks of one folder that differ in size, or a folder without any.
    """
    if os.path.isdir(path):
        return _union(Path(path))
    array = decode(path)
    return np.asarray((array > 0).any(axis=2) if array.ndim == 3 else array > 0)


def known_mask(path: str | None, warn: Callable[[str], None]) -> np.ndarray | None:
    """The ground truth of a file as `read_mask`; None where there is none, or none can be read, as `warn` is told."""
    if path is None:
        return None
    try:
        return read_mask(path)
    except DataError as error:
        warn(f"a mask is left out: {error}")
        return None


def to_unit(array: np.ndarray) -> np.ndarray:
    """The picture as float32 H x W x C in [0, 1], C of 1 or 3.

    The type alone decides: uint8 / 255, uint16 / 65535, bool as 0 and 1, float as it is. The content never
    does, or a dark picture would be read as a bright one. A fourth (or second) channel is alpha and is
    dropped. The input is not modified.

    Raises:
        DataError: another type or shape; a float picture outside [0, 1] or with NaN.
    """
    array = np.asarray(array)
    array = array[..., None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4) or 0 in array.shape:
        raise DataError(
            f"Expected a picture H x W, H x W x 1 or H x W x 3, got an array of shape {array.shape}."
        )
    if array.shape[2] in (2, 4):
        array = array[..., :-1]
    if array.dtype == np.uint8:
        return array.astype(np.float32) / np.float32(255)
    if array.dtype == np.uint16:
        return array.astype(np.float32) / np.float32(65535)
    if array.dtype == np.bool_:
        return array.astype(np.float32)
    if array.dtype.kind == "f":
        return _checked(array.astype(np.float32))
    raise DataError(
        f"Expected a picture of uint8, uint16, bool or float in [0, 1], got {array.dtype}. "
        "Scale it to [0, 1] as float: which value means white is not known."
    )


def prepare(array: np.ndarray, *, shape: tuple[int, int], channels: int = 3) -> Tensor:
    """The picture as a float32 tensor [C, H, W] in [0, 1] at the working shape (H, W).

    The one resize: an axis that shrinks is averaged over the area of each new pixel (so fine texture does not
    alias), an axis that grows is interpolated linearly (so nothing leaves [0, 1]). Done in float, so 8-bit
    and 16-bit versions of a picture agree. Grey is 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601); its weights
    sum to one, so a grey picture and its three-channel copy agree.

    Args:
        array: H x W or H x W x C, RGB; see `to_unit`.
        shape: the working (height, width).
        channels: 1 or 3.
    """
    unit = _resized(channelled(to_unit(array), channels), shape)  # [H, W, C] or [H, W]
    return tensor(unit[..., None] if unit.ndim == 2 else unit)  # OpenCV drops a single channel


def channelled(unit: np.ndarray, channels: int) -> np.ndarray:
    """The picture H x W x C as one of 1 or 3 channels, see `prepare`."""
    if channels not in (1, 3):
        raise DataError(f"Expected 1 or 3 channels, got {channels}.")
    if unit.shape[2] == channels:
        return unit
    if channels == 3:
        return np.repeat(unit, 3, axis=2)
    return cv2.cvtColor(np.ascontiguousarray(unit), cv2.COLOR_RGB2GRAY)[..., None]


def tensor(unit: np.ndarray) -> Tensor:
    """The picture H x W x C as a tensor [C, H, W]."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(unit.transpose(2, 0, 1)))


def working_shape(
    sizes: Sequence[tuple[float, float]],
    *,
    size: int,
    multiple: int,
    aspect: Literal["keep", "square"] = "keep",
) -> tuple[int, int]:
    """The (height, width) a model works at: area about size^2, both sides multiples of `multiple`.

    With "keep" the aspect is the median of h/w over the training pictures; "square" is size x size.

    Args:
        sizes: (height, width) of the training pictures.
        size: side of a square of the wanted area, in pixels.
        multiple: what the network halves and the codec shrinks by.
        aspect: keep the pictures' aspect, or make them square.
    """
    if not sizes:
        raise DataError("Expected the size of at least one training picture, got none.")
    if size < 1 or multiple < 1:
        raise DataError(f"Expected a size and a multiple of at least 1, got {size} and {multiple}.")
    ratio = 1.0 if aspect == "square" else float(np.exp(np.median([math.log(h / w) for h, w in sizes])))
    sides = size * math.sqrt(ratio), size / math.sqrt(ratio)
    height, width = (max(multiple, round(side / multiple) * multiple) for side in sides)
    return height, width


def _union(folder: Path) -> np.ndarray:
    masks = [read_mask(child) for child in sorted(folder.iterdir()) if child.is_file()]
    if len({mask.shape for mask in masks}) != 1:
        raise DataError(
            f"Expected masks of one size in {folder}, found {sorted({mask.shape for mask in masks})}."
        )
    return np.logical_or.reduce(masks)


def _checked(unit: np.ndarray) -> np.ndarray:
    low, high = float(unit.min()), float(unit.max())
    if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):  # written so that NaN fails
        raise DataError(
            f"Expected a float picture in [0, 1] without NaN, got values from {low:g} to {high:g}. "
            "Divide by its white value, or pass uint8 or uint16."
        )
    return unit.clip(0.0, 1.0)


def _resized(unit: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    height, width = shape
    smaller = min(height, unit.shape[0]), min(width, unit.shape[1])
    if smaller != unit.shape[:2]:
        unit = cv2.resize(unit, smaller[::-1], interpolation=cv2.INTER_AREA)
    if smaller != (height, width):
        unit = cv2.resize(unit, (width, height), interpolation=cv2.INTER_LINEAR)
    return unit.clip(0.0, 1.0)  # rounding of the area weights


__all__ = [
    "Header",
    "channelled",
    "header",
    "prepare",
    "read",
    "read_mask",
    "tensor",
    "to_unit",
    "working_shape",
]
