"""Pictures as a PyTorch data set."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from anodiff.data.image import read
from anodiff.data.pose import Upright
from anodiff.data.preparation import Preparation
from anodiff.errors import ConfigError

Picture = str | np.ndarray
"""A file, or a picture in memory: H x W or H x W x 3 in RGB, as `image.read` gives it."""

Augment = Callable[[Tensor, Sequence[int]], Tensor]
"""(image [B, C, H, W], one seed a row) -> [B, C, H, W]"""


class ImageSet(Dataset[Tensor]):
    """Pictures as float32 tensors [C, H, W] in [0, 1] at one working shape.

    The set is as long as `draws` passes over the pictures: item k shows picture k mod n in its augmentation
    k div n, and is a pure function of (pictures, seed, k). Neither order, workers nor batch change it.

    Args:
        pictures: files or arrays.
        shape: working (height, width).
        channels: 1 or 3.
        upright: the pose that parts are brought to; None leaves pictures as they are.
        augment: changes a picture at random, given a seed; see `augment.Augmentation`.
        draws: passes with different augmentation.
        seed: another seed, other augmentations.
        cache: keep prepared pictures in memory in this type, None to read them anew each time. uint8 rounds to 1/255
            and float16 to about 1/2048; the rounded value is what every access gives, the first one too.
    """

    def __init__(
        self,
        pictures: Sequence[Picture],
        *,
        shape: tuple[int, int],
        channels: int = 3,
        upright: Upright | None = None,
        augment: Augment | None = None,
        draws: int = 1,
        seed: int = 0,
        cache: torch.dtype | None = None,
    ) -> None:
        self.pictures = pictures
        self.shape = shape
        self.preparation = Preparation(shape=shape, channels=channels, upright=upright)
        self.augment = augment
        self.draws = draws
        self.seed = seed
        self.cache = cache
        self._kept: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.pictures) * self.draws

    def __getitem__(self, k: int) -> Tensor:
        if not 0 <= k < len(self):
            raise IndexError(f"item {k} of {len(self)}")
        return self.item(k % len(self.pictures), k // len(self.pictures))

    def item(self, index: int, draw: int) -> Tensor:
        """Picture `index` in its augmentation `draw`, [C, H, W].

        Raises:
            DataError: the picture cannot be read; the message names the file.
        """
        image = self._plain(index)
        if self.augment is None:
            return image
        return self.augment(image[None], [item_seed(self.seed, index, draw)])[0]

    def _plain(self, index: int) -> Tensor:
        if self.cache is None:
            return self._prepared(index)
        if index not in self._kept:
            self._kept[index] = _packed(self._prepared(index), self.cache)
        return _unpacked(self._kept[index])

    def _prepared(self, index: int) -> Tensor:
        picture = self.pictures[index]
        array = read(picture) if isinstance(picture, str) else picture
        return self.preparation(array)


def item_seed(seed: int, index: int, draw: int) -> int:
    """A 63-bit seed that (seed, index, draw) determine and that shares nothing with its neighbours'."""
    digest = hashlib.blake2b(f"{seed}/{index}/{draw}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _packed(image: Tensor, kind: torch.dtype) -> Tensor:
    if kind == torch.uint8:
        return (image * 255).round().to(torch.uint8)
    if kind.is_floating_point:
        return image.to(kind)
    raise ConfigError(f"Expected to cache pictures as uint8 or a float type, got {kind}.")


def _unpacked(kept: Tensor) -> Tensor:
    if kept.dtype == torch.uint8:
        return kept.to(torch.float32) / 255
    return kept.to(torch.float32, copy=True)  # the caller may write into it
