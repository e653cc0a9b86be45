"""The generator: a noisy tensor, a time and a latent in, one of the many clean tensors they allow out."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anodiff.cond import Cond
from anodiff.errors import ConfigError
from anodiff.nets.blocks import ResBlock
from anodiff.nets.reader import Reader
from anodiff.nets.unet import UNet

SILU_GAIN = 1.6765
"""`1 / sqrt(E silu(g)^2)` for a standard normal g: what keeps a unit variance from one layer to the next."""


class MappingNetwork(nn.Module):
    """A latent as a style: brought to the sphere of radius sqrt(latent), then linear layers with a SiLU between two.

    The last layer has none: the U-Net's own SiLU stands behind the sum with time and label. Weights start with the
    variance that keeps that of a style at 1; with PyTorch's a style would hardly depend on its latent after four.
    Source: Karras et al., arXiv:1812.04948, section 2, and arXiv:1710.10196, section 4.2 (pixel norm).
    """

    def __init__(self, latent: int, outputs: int, *, layers: int, hidden: int) -> None:
        super().__init__()
        widths = [latent, *[hidden] * (layers - 1), outputs]
        made = [nn.Linear(a, b) for a, b in pairwise(widths)]
        for i, layer in enumerate(made):
            gain = SILU_GAIN if i else 1.0  # what comes in is the latent itself, of unit mean square
            nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.in_features))
            nn.init.zeros_(layer.bias)
        self.layers = nn.ModuleList(made)

    def forward(self, w: Tensor) -> Tensor:
        """The style `[B, outputs]` of `w [B, latent]`; a latent of 0 has no direction and stays 0."""
        h = w * torch.rsqrt(w.square().mean(dim=1, keepdim=True) + 1e-8)
        for i, layer in enumerate(self.layers):
            h = layer(F.silu(h) if i else h)
        return h


class Generator(nn.Module):
    """`G(x_t, t, w) -> x0`: a U-Net whose adaptive norms follow a latent `w` beside time and label.

    `x0 = unet(x, t, cond, style=mapping(w))`, bounded by tanh if limited. A denoiser's U-Net starts at zero, which a
    game has no use for: all fakes are alike, whatever the latent, and the zeros that its blocks end in keep the
    latent from the output altogether. So the output convolution and the second convolution of each block start at
    random instead, with PyTorch's own draw, wherever the U-Net that is handed in has them at zero still; one that
    has learnt is left as it is. Attention, which no latent needs to pass, goes on to start at zero.
    Source: Xiao, Kreis & Vahdat, arXiv:2112.07804, section 3.2 and the appendix's network structure.
    """

    def __init__(
        self,
        unet: UNet | Reader,
        *,
        latent: int,
        layers: int = 4,
        hidden: int = 256,
        limit: float | None = None,
    ) -> None:
        """Build the mapping network, and draw what the U-Net has at zero.

        Args:
            unet: The body; it becomes part of the generator.
            latent: Length of `w`.
            layers: Linear layers from the latent to the style.
            hidden: Their length between the first and the last.
            limit: What the output stays within on either side, `limit tanh(x / limit)`; None: anything.

        Raises:
            ConfigError: a number is below 1.
        """
        super().__init__()
        if min(latent, layers, hidden) < 1:
            raise ConfigError(
                f"a mapping network needs a latent, a layer and a width, got latent={latent}, layers={layers} "
                f"and hidden={hidden}: give at least 1 for each"
            )
        self.unet = unet
        self.latent = latent
        self.limit = limit
        self.mapping = MappingNetwork(latent, unet.embed, layers=layers, hidden=hidden)
        for conv in (unet.last, *(block.last for block in unet.modules() if isinstance(block, ResBlock))):
            if not conv.weight.any():
                conv.reset_parameters()

    @property
    def reads(self) -> frozenset[str]:
        """The fields of `Cond` that the U-Net was built for."""
        return self.unet.reads

    def read(self, cond: Cond) -> Cond:
        """The conditions with words or boxes read once, where the body reads any."""
        return self.unet.read(cond) if isinstance(self.unet, Reader) else cond

    @property
    def classes(self) -> int | None:
        """The number of labels; None: labels are not read."""
        return self.unet.classes

    @property
    def stride(self) -> int:
        """The side of the input that one position of the deepest level stands for."""
        return self.unet.stride

    @property
    def patch(self) -> int:
        """The side of the squares folded into channels."""
        return self.unet.patch

    def forward(self, x: Tensor, t: Tensor, w: Tensor, cond: Cond | None = None) -> Tensor:
        """A clean tensor `[B, out_channels, H, W]`, within its limit.

        Args:
            x: `[B, in_channels, H, W]`, noisy.
            t: `[B]` times, or one for all.
            w: `[B, latent]`, standard normal; the same w gives the same output.
            cond: The conditions, as the U-Net takes them.

        Raises:
            ConfigError: the latent or what the U-Net is given does not fit.
        """
        if w.shape != (x.shape[0], self.latent):
            raise ConfigError(
                f"expected a latent of shape [{x.shape[0]}, {self.latent}], got {list(w.shape)}: "
                "draw one row of the generator's length for each row of x"
            )
        x0 = self.unet(x, t, cond, style=self.mapping(w.to(x.dtype)))
        return x0 if self.limit is None else self.limit * (x0 / self.limit).tanh()
