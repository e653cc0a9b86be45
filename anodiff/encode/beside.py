"""Pictures that stand beside the code: channels concatenated to what the network reads, `Cond.image`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from anodiff.codec.protocol import Codec
from anodiff.encode.holes import random_mask
from anodiff.errors import DataError, RefusalError
from anodiff.noise import PerImageNoise

GREY = 0.5
"""What an unknown pixel is set to."""


@dataclass(frozen=True)
class LowRes:
    """The picture at low resolution, for a model that adds detail (super-resolution).

    The small picture is concatenated to the code (arXiv:2112.10752, section 4.4, after arXiv:2104.07636).
    Noise is added to it, so that a model does not rely on what only this way of reducing leaves behind, and takes
    other small pictures as well (conditioning augmentation, arXiv:2106.15282, section 4).

    Args:
        factor: by which the picture's sides are reduced.
        noise: deviation of the noise, in units of the picture in [-1, 1]; 0: none.
    """

    factor: int
    noise: float

    def channels(self, codec: Codec) -> int:
        """Channels beside the code: those of the picture.

        Raises:
            RefusalError: the codec does not tell how many channels its pictures have.
        """
        found = getattr(codec, "image_channels", None)
        if found is None:
            raise RefusalError(
                "Expected a codec of pixels or of an autoencoder beside whose code a small picture can stand; "
                f"{type(codec).__name__} does not tell how many channels its pictures have."
            )
        return cast(int, found)

    def make(self, image: Tensor, size: tuple[int, int], seeds: Sequence[int]) -> Tensor:
        """The channels beside codes of `size` for training and scoring, [B, C, h, w].

        The picture is averaged over cells of `factor` x `factor` pixels, then goes through `from_small`.

        Args:
            image: [B, C, H, W] in [0, 1].
            size: (h, w) of the code.
            seeds: one a picture, for the noise.

        Raises:
            DataError: the picture is smaller than `factor`.
            ConfigError: another number of seeds than of pictures.
        """
        height, width = (side // self.factor for side in image.shape[-2:])
        if not height or not width:
            raise DataError(
                f"A picture of {image.shape[-2]} x {image.shape[-1]} px cannot be reduced by {self.factor}: give a "
                f"picture of {self.factor} px a side or more."
            )
        return self.from_small(_averaged(image, (height, width)), size, seeds)

    def from_small(self, small: Tensor, size: tuple[int, int], seeds: Sequence[int]) -> Tensor:
        """The channels beside codes of `size` for pictures that are small already, [B, C, h, w].

        `2 at_size(small) - 1 + noise n`, with `n` drawn from the seeds: row i depends on picture i and seed i alone,
        and shares no noise with what else is drawn from that seed.

        Args:
            small: [B, C, h0, w0] in [0, 1].
            size: (h, w) of the code.
            seeds: one a picture.

        Raises:
            ConfigError: another number of seeds than of pictures.
        """
        told = 2 * at_size(small, size) - 1  # [B, C, h, w]
        return told + self.noise * PerImageNoise([_own(seed) for seed in seeds])(told)


@dataclass(frozen=True)
class Masked:
    """The picture with parts hidden, and where, for a model that fills in (arXiv:2112.10752, section 4.5).

    `random_mask` draws what to hide in training.
    """

    def channels(self, codec: Codec) -> int:
        """Channels beside the code: those of a code and one for the mask."""
        return codec.channels + 1

    def make(self, codec: Codec, image: Tensor, mask: Tensor) -> Tensor:
        """The code of the picture whose unknown pixels are grey, and the share that is known, [B, c + 1, h, w].

        Args:
            codec: of the model.
            image: [B, C, H, W] in [0, 1].
            mask: [B, 1, H, W], True (or 1) where a pixel is known.

        Raises:
            DataError: a mask of another shape.
        """
        if mask.shape != (image.shape[0], 1, *image.shape[-2:]):
            raise DataError(
                f"Expected a mask [B, 1, H, W] for pictures {list(image.shape)}, got {list(mask.shape)}."
            )
        known = mask.to(image.dtype)
        z = codec.encode(torch.where(known > 0.5, image, GREY))  # [B, c, h, w]
        share = _averaged(known, (z.shape[-2], z.shape[-1]))  # [B, 1, h, w]
        return torch.cat([z, share.to(z.dtype)], dim=1)


@dataclass(frozen=True)
class Semantic:
    """A map of classes, one number a pixel (arXiv:2112.10752, section 4.3.2).

    Args:
        classes: how many there are.
    """

    classes: int

    def channels(self, codec: Codec) -> int:
        """Channels beside the code: one a class."""
        return self.classes

    def make(self, numbers: Tensor, size: tuple[int, int]) -> Tensor:
        """The share of each class in each position of the code, [B, classes, h, w]; they sum to 1.

        Args:
            numbers: [B, H, W] integers, 0 to classes - 1.
            size: (h, w) of the code.

        Raises:
            DataError: not integers of that shape, or a number that is no class.
        """
        if numbers.ndim != 3 or numbers.is_floating_point() or numbers.dtype == torch.bool:
            raise DataError(
                f"Expected a map of classes [B, H, W] of integers, got {list(numbers.shape)} of {numbers.dtype}."
            )
        if numbers.numel() and not (int(numbers.min()) >= 0 and int(numbers.max()) < self.classes):
            raise DataError(
                f"Expected a map of the numbers 0 to {self.classes - 1}, found {int(numbers.min())} to "
                f"{int(numbers.max())}: mend the map, or set beside.classes."
            )
        one_hot = F.one_hot(numbers.long(), self.classes).movedim(-1, 1).float()  # [B, classes, H, W]
        return at_size(one_hot, size)


def at_size(image: Tensor, size: tuple[int, int]) -> Tensor:
    """The picture [B, C, h, w] at `size`: an axis that shrinks is averaged, one that grows is interpolated linearly.

    An even picture stays what it is, and nothing leaves the range of the picture's values.
    """
    smaller = (min(size[0], image.shape[-2]), min(size[1], image.shape[-1]))
    image = _averaged(image, smaller)
    if smaller == size:
        return image
    return F.interpolate(image, size=size, mode="bilinear", align_corners=False)


def _averaged(image: Tensor, size: tuple[int, int]) -> Tensor:
    return image if image.shape[-2:] == size else F.adaptive_avg_pool2d(image, size)


def _own(seed: int) -> int:
    """A seed for the noise of a small picture; the code's own noise is drawn from `seed` itself."""
    digest = hashlib.blake2b(f"lowres|{seed}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


__all__ = ["GREY", "LowRes", "Masked", "Semantic", "at_size", "random_mask"]
