"""The residual block of a U-Net and its changes of size."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anodiff.nets.conv import Pointwise, enlarged
from anodiff.nets.fir import smoothed
from anodiff.nets.norm import AdaGN, AddGN, group_norm, silu

Modulation = Literal["adagn", "add"]
"""How time and label enter a block: scaling and shifting its second norm, or added before it."""
Pad = Literal["both", "after"]
"""Where a strided convolution sees zeros: one row and column on each side, or on the right and below alone."""
Filter = Literal["box", "fir"]
"""How a residual block changes the size: `resized`, or `smoothed` with a wider filter."""
Size = tuple[int, int]


def halved(size: Size) -> Size:
    """Half of a height and a width, rounded up."""
    return -(-size[0] // 2), -(-size[1] // 2)


def resized(h: Tensor, size: Size) -> Tensor:
    """The map `[B, C, *size]`: means of squares of two where it shrinks, nearest neighbours where it grows.

    An odd side's last square has one row or column only; `size` is `halved` of the map's, or the map's own, or the
    one that it was halved from.
    """
    height, width = h.shape[-2:]
    if (height, width) == size:
        return h
    if height >= size[0] and width >= size[1]:
        return F.avg_pool2d(h, 2, ceil_mode=True)
    return F.interpolate(h, size=size, mode="nearest")


def joined(shortcut: Tensor, y: Tensor, *, rescale: bool) -> Tensor:
    """`shortcut + y`, over `sqrt(2)` where asked, which keeps the variance of two that are alike (arXiv:2011.13456).

    Without gradients the sum is written over `y`, which nobody else may hold.
    """
    if torch.is_grad_enabled():
        total = shortcut + y
        return total * math.sqrt(0.5) if rescale else total
    y += shortcut
    return y.mul_(math.sqrt(0.5)) if rescale else y


class ResBlock(nn.Module):
    """Two convolutions beside a shortcut, the second after a norm driven by the embedding (arXiv:2105.05233).

    `h -> skip(h) + conv(drop(silu(adapt(conv(silu(gn(h))), embed))))`, `adapt` being `AdaGN` or `AddGN`. Called with
    a size, both branches are brought to it, the main one between its SiLU and its first convolution: the up- and
    downsampling block of BigGAN (arXiv:1809.11096, figure 15; arXiv:2011.13456, appendix H), `filter` telling how. The
    second convolution starts at zero, so that the block starts as its shortcut.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        embed: int,
        groups: int,
        dropout: float = 0.0,
        eps: float = 1e-5,
        modulation: Modulation = "adagn",
        rescale: bool = False,
        filter: Filter = "box",
    ) -> None:
        super().__init__()
        adapt = AdaGN if modulation == "adagn" else AddGN
        self.norm = group_norm(inputs, groups=groups, eps=eps)
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.adapt = adapt(outputs, embed, groups=groups, eps=eps)
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Identity() if inputs == outputs else Pointwise(inputs, outputs)
        self.rescale = rescale
        self.filter = filter
        nn.init.zeros_(self.last.weight)

    def forward(self, h: Tensor, embed: Tensor, size: Size | None = None) -> Tensor:
        """The map `[B, outputs, H, W]`, or `[B, outputs, *size]`.

        Args:
            h: `[B, inputs, H, W]`.
            embed: `[B, E]`, already through its SiLU.
            size: Half of `(H, W)` rounded up, or what that is half of; None: the size stays.
        """
        y = silu(self.norm(h))
        if size is None:
            y = self.conv(y)  # [B, outputs, *size]
        elif self.filter == "fir":
            y = self.conv(smoothed(y, size))
            h = smoothed(h, size)
        elif size[0] > h.shape[-2] or size[1] > h.shape[-1]:
            y = enlarged(y, self.conv, size)
            h = resized(h, size)
        else:
            y = self.conv(resized(y, size))
            h = resized(h, size)
        y = self.last(self.dropout(silu(self.adapt(y, embed))))
        return joined(self.skip(h), y, rescale=self.rescale)


class Downsample(nn.Module):
    """A strided convolution: half the height and width, rounded up."""

    def __init__(self, channels: int, *, pad: Pad = "both") -> None:
        super().__init__()
        self.pad = pad
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1 if pad == "both" else 0)

    def forward(self, h: Tensor, embed: Tensor, size: Size) -> Tensor:
        """The map `[B, C, *size]`; `size` is half of (H, W), rounded up, and the embedding is not read."""
        if self.pad == "after":  # the last window ends one beyond an even side, and two beyond an odd one
            h = F.pad(h, (0, 1 + h.shape[-1] % 2, 0, 1 + h.shape[-2] % 2))
        return self.conv(h)


class Upsample(nn.Module):
    """Nearest neighbours, then a convolution; the size is that of the map it will be joined with."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, h: Tensor, embed: Tensor, size: Size) -> Tensor:
        """The map `[B, C, *size]`; `size` is (2H, 2W), or one less a side, and the embedding is not read."""
        return enlarged(h, self.conv, size)
