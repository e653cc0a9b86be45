"""The codec of an autoencoder: its codes, shifted and scaled as a denoiser wants them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from anodiff.codec.protocol import by_row, whole_cells
from anodiff.codec.whiten import ChannelMoments
from anodiff.errors import DataError, RefusalError
from anodiff.learnt import Learnt


class Autoencodes(Protocol):
    """An autoencoder, as far as it is a codec."""

    image_channels: int
    channels: int
    stride: int

    def encode(self, x: Tensor) -> Tensor:
        """The codes [B, c, H / stride, W / stride] of pictures [B, C, H, W] in [-1, 1]."""
        ...

    def decode(self, z: Tensor) -> Tensor:
        """The pictures [B, C, h stride, w stride] of codes, nominally in [-1, 1]."""
        ...


class LatentCodec(Learnt):
    """The codes of an autoencoder with mean 0 and deviation 1 over all normals; it paints (arXiv:2112.10752).

    `z = (encode(2 image - 1) - shift) scale`, with one `shift` and one `scale` for all channels and places: the mean,
    and one over the standard deviation (appendix G there, "rescaling"). They are measured over all good pictures, not
    over one batch, and are kept with the weights. Codes have no bounds: estimates are never clamped.

    Attributes:
        scale: [] one over the deviation; empty until learnt.
        shift: [] the mean; empty until learnt.
    """

    paints = True
    bounded = False
    scale: Tensor
    shift: Tensor

    def __init__(self, net: nn.Module) -> None:
        """Store `net`, as `Autoencodes`; whoever trains a denoiser behind it freezes it."""
        super().__init__()
        self.net = net
        self.expect("scale", "shift")

    @property
    def autoencoder(self) -> Autoencodes:
        """The network as what it is."""
        return cast("Autoencodes", self.net)

    @property
    def image_channels(self) -> int:
        """Channels of the pictures."""
        return self.autoencoder.image_channels

    @property
    def channels(self) -> int:
        """Channels of `z`."""
        return self.autoencoder.channels

    @property
    def stride(self) -> int:
        """Pixels a side of one position of `z`, f of the paper."""
        return self.autoencoder.stride

    @torch.no_grad()
    def learn(self, images: Iterable[Tensor]) -> None:
        """Nothing; scale and shift are those of good pictures, in one pass, float64 and constant memory.

        The result does not depend on how the pictures are divided into batches.

        Args:
            images: batches [B, C, H, W] in [0, 1].

        Raises:
            DataError: there is none, or the codes are not finite or all the same.
        """
        moments: ChannelMoments | None = None
        for image in images:
            for code in self._codes(image):  # [c, h, w]
                seen = ChannelMoments.of(code.reshape(1, 1, -1, 1))
                moments = seen if moments is None else moments + seen
        if moments is None:
            raise DataError("expected at least one good picture to learn the scale of codes from, got none")
        mean, variance = moments.mean[0], moments.covariance[0, 0]
        if not bool(torch.isfinite(mean) & torch.isfinite(variance)):
            raise DataError(
                "expected finite codes, got NaN or infinity: look for such values in the pictures, or train the "
                "autoencoder with a smaller learning rate"
            )
        if float(variance) <= 0:
            raise DataError(
                "the codes of all good pictures are one and the same number, so that they have no scale: the "
                "autoencoder has learnt nothing, train it longer"
            )
        self.store("shift", mean)
        self.store("scale", variance.rsqrt())

    def encode(self, image: Tensor) -> Tensor:
        """The codes `z [B, c, H / stride, W / stride]` of pictures `[B, C, H, W]` in [0, 1].

        On a CPU picture by picture, so that a picture's code is the same to the last bit in any batch.

        Raises:
            ConfigError: scale and shift are not learnt yet.
            DataError: other channels than promised, or a side that is no multiple of the stride.
        """
        return (self._codes(image) - self.learnt("shift")) * self.learnt("scale")

    def decode(self, z: Tensor) -> Tensor:
        """The pictures `[B, C, H, W]` of codes, nominally in [0, 1], not clipped.

        Raises:
            ConfigError: scale and shift are not learnt yet.
            RefusalError: the codes are of another codec.
        """
        if z.ndim != 4 or z.shape[1] != self.channels:
            raise RefusalError(
                f"expected codes [B, {self.channels}, h, w] of this autoencoder, got {list(z.shape)}: codes of another "
                "codec cannot be painted with it, encode the pictures anew"
            )
        h = z / self.learnt("scale") + self.learnt("shift")
        return (by_row(h, self.autoencoder.decode) + 1.0) / 2.0

    def shrink(self, mask: Tensor) -> Tensor:
        """The mask `[B, 1, H / stride, W / stride]` of the positions known whole, with all eight neighbours.

        The convolutions around the halvings of a position look into the cells beside it, and most of what they see
        lies there. They see further, and norms and attention see the whole picture, though weakly; that reach is not
        counted, for it would leave nothing known.
        """
        return whole_cells(mask, self.stride, reach=1)

    def _codes(self, image: Tensor) -> Tensor:
        """The codes as the network has them."""
        if image.ndim != 4 or image.shape[1] != self.image_channels:
            raise DataError(
                f"expected pictures [B, {self.image_channels}, H, W], got {list(image.shape)}: "
                "convert them, or take an autoencoder for their number of channels"
            )
        if min(image.shape[-2:]) < self.stride:
            raise DataError(
                f"the autoencoder makes one code of {self.stride} x {self.stride} pixels, got pictures of "
                f"{image.shape[-2]} x {image.shape[-1]}: take larger ones, or a smaller codec.stride"
            )
        if image.shape[-2] % self.stride or image.shape[-1] % self.stride:
            raise DataError(
                f"expected sides that are multiples of {self.stride} pixels, got {image.shape[-2]} x "
                f"{image.shape[-1]}: resize the pictures to such a size, or take a smaller codec.stride"
            )
        return by_row(image, lambda row: self.autoencoder.encode(2.0 * row - 1.0))
