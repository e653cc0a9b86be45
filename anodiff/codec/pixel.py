"""The codec of pixels: from [0, 1] to [-1, 1], with small squares folded into channels if asked for."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from anodiff.codec.protocol import whole_cells
from anodiff.errors import ConfigError, DataError


class PixelCodec(nn.Module):
    """Pixels as a code, `z = 2 image - 1` (arXiv:2006.11239, section 3.3), folded by `patch`; it paints, exactly."""

    paints = True
    bounded = True

    def __init__(self, image_channels: int, *, patch: int = 1) -> None:
        """Store the shape.

        Args:
            image_channels: Channels of the pictures.
            patch: Side of the squares folded into channels (space to depth); 1: none.
        """
        super().__init__()
        self.image_channels = image_channels
        self.patch = patch
        if image_channels < 1 or patch < 1:
            raise ConfigError(f"image_channels and patch must be 1 or more, got {image_channels} and {patch}")

    @property
    def channels(self) -> int:
        """Channels of `z`, `image_channels * patch^2`."""
        return self.image_channels * self.patch**2

    @property
    def stride(self) -> int:
        """`patch`."""
        return self.patch

    def encode(self, image: Tensor) -> Tensor:
        """The code `z [B, C * patch^2, H / patch, W / patch]` of pictures `[B, C, H, W]` in [0, 1], within [-1, 1].

        Raises:
            DataError: other channels than promised, or a side that is not a multiple of `patch`.
        """
        if image.ndim != 4 or image.shape[1] != self.image_channels:
            raise DataError(
                f"expected pictures [B, {self.image_channels}, H, W], got {list(image.shape)}: "
                "convert them, or build the codec for their number of channels"
            )
        if image.shape[-2] % self.patch or image.shape[-1] % self.patch:
            raise DataError(
                f"expected sides that are multiples of {self.patch}, got {image.shape[-2]} x {image.shape[-1]}: "
                "resize the pictures to such a size, or choose patch=1"
            )
        return F.pixel_unshuffle(2.0 * image - 1.0, self.patch)

    def decode(self, z: Tensor) -> Tensor:
        """The pictures `[B, C, H, W]` of codes `z`, not clipped: the exact inverse of `encode`."""
        return (F.pixel_shuffle(z, self.patch) + 1.0) / 2.0

    def shrink(self, mask: Tensor) -> Tensor:
        """The mask `[B, 1, H / patch, W / patch]` of the squares of which every pixel is known."""
        return whole_cells(mask, self.patch)
