"""The discriminator of patches: a picture in, a map of logits out, each of one patch."""

from __future__ import annotations

from torch import Tensor, nn

from anodiff.errors import ConfigError, DataError
from anodiff.nets.discriminator import leaky
from anodiff.nets.norm import group_norm

DEVIATION = 0.02
"""Of the first weights (arXiv:1611.07004, appendix 6.2)."""

WIDEST = 8
"""The most that the channels grow, in widths."""


class PatchDiscriminator(nn.Module):
    """PatchGAN: strided convolutions of 4 x 4 that judge whether each patch looks real.

    `layers` convolutions of stride 2, then one of stride 1 and one to a single channel, with widths of 1, 2, 4, 8 times
    the first and no norm behind the first. But for the norms, a logit sees 34 x 34 pixels with two layers, 70 x 70 with
    three. Sources: Isola et al., arXiv:1611.07004, appendix 6.1.2; latent diffusion has it too (arXiv:2112.10752,
    appendix G).

    Group norms of one row stand where the paper has batch norms: what is said of a picture must not depend on the
    pictures beside it, nor on whether they are real or rebuilt, and small batches have no statistics worth having.
    """

    def __init__(self, image_channels: int, width: int = 32, layers: int = 2, *, groups: int = 32) -> None:
        """Build the layers.

        Args:
            image_channels: Of the pictures.
            width: Channels behind the first convolution.
            layers: Convolutions of stride 2.
            groups: Upper bound of the groups of a normalisation.

        Raises:
            ConfigError: these do not make a network.
        """
        super().__init__()
        if image_channels < 1 or width < 1 or layers < 1:
            raise ConfigError(
                "a discriminator of patches needs image_channels, width and layers of 1 or more, got "
                f"{image_channels}, {width} and {layers}"
            )
        self.image_channels = image_channels
        self.layers = layers
        self.stem = nn.Conv2d(image_channels, width, 4, stride=2, padding=1)
        self.convs = nn.ModuleList()
        self.norms = nn.ModuleList()
        channels = width
        for i in range(1, layers + 1):
            outputs = width * min(2**i, WIDEST)
            stride = 2 if i < layers else 1
            self.convs.append(nn.Conv2d(channels, outputs, 4, stride=stride, padding=1))
            self.norms.append(group_norm(outputs, groups=groups))
            channels = outputs
        self.last = nn.Conv2d(channels, 1, 4, padding=1)
        for conv in (self.stem, *self.convs, self.last):
            nn.init.normal_(conv.weight, std=DEVIATION)  # pyright: ignore[reportArgumentType]
            nn.init.zeros_(conv.bias)  # pyright: ignore[reportArgumentType]

    @property
    def stride(self) -> int:
        """Pixels from one logit to the next, `2^layers`."""
        return 2**self.layers

    @property
    def sees(self) -> int:
        """Pixels a side that one logit looks at: 34 for two layers, 70 for three."""
        side = 1
        for stride in (1, 1, *[2] * self.layers):
            side = stride * (side - 1) + 4
        return side

    def forward(self, x: Tensor) -> Tensor:
        """The logits [B, 1, h, w], high where a patch looks real; h is `H / stride - 2`, rounded down.

        Args:
            x: pictures [B, C, H, W] in [-1, 1], sides of `3 stride` or more.

        Raises:
            DataError: other channels than promised, or a picture that is too small.
        """
        if x.ndim != 4 or x.shape[1] != self.image_channels:
            raise DataError(
                f"expected pictures [B, {self.image_channels}, H, W], got {list(x.shape)}: "
                "the discriminator and the autoencoder must have the same number of channels"
            )
        if min(x.shape[-2:]) < 3 * self.stride:
            raise DataError(
                f"a discriminator of patches with {self.layers} layers needs {3 * self.stride} pixels a side or more, "
                f"got {x.shape[-2]} x {x.shape[-1]}: take larger pictures or crops, or fewer layers"
            )
        h = leaky(self.stem(x))
        for conv, norm in zip(self.convs, self.norms, strict=True):
            h = leaky(norm(conv(h)))
        return self.last(h)
