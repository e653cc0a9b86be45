"""The discriminator: two neighbours of a noising chain in, one number out, high where they look real."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anodiff.cond import Cond
from anodiff.errors import ConfigError
from anodiff.nets.blocks import Size, halved, joined
from anodiff.nets.conv import Pointwise
from anodiff.nets.embed import LabelEmbedding, TimeEmbedding
from anodiff.nets.fir import smoothed
from anodiff.nets.fold import folded
from anodiff.nets.spread import Spread

SLOPE = 0.2
"""Of the leaky ReLU below zero (arXiv:2112.07804, appendix, network structure)."""


def leaky(h: Tensor) -> Tensor:
    """`h` where it is positive, a fifth of it elsewhere."""
    return F.leaky_relu(h, SLOPE)


def fresh(conv: nn.Conv2d, *, gain: float) -> nn.Conv2d:
    """`conv` with normal weights of standard deviation `gain / sqrt(fan_in)` and no bias, drawn in place.

    There is no norm to mend a poor scale: a gain of sqrt(2 / (1 + slope^2)) keeps the mean square behind a leaky
    ReLU, 1 that of a linear map (He et al., arXiv:1502.01852, section 2.2).
    """
    nn.init.normal_(conv.weight, std=gain / math.sqrt(conv.weight[0].numel()))
    nn.init.zeros_(conv.bias)  # pyright: ignore[reportArgumentType]
    return conv


GAIN = math.sqrt(2 / (1 + SLOPE**2))


class BareBlock(nn.Module):
    """Two convolutions beside a shortcut, without any norm, the embedding a bias between them.

    `h -> (skip(h) + conv2(leaky(conv1(leaky(h)) + W e))) / sqrt(2)`. Called with a size, both branches are brought to
    it by `smoothed`, the main one before its second convolution. Source: arXiv:2112.07804, appendix.
    """

    def __init__(self, inputs: int, outputs: int, *, embed: int) -> None:
        super().__init__()
        self.conv = fresh(nn.Conv2d(inputs, outputs, 3, padding=1), gain=GAIN)
        self.shift = nn.Linear(embed, outputs)
        self.last = fresh(nn.Conv2d(outputs, outputs, 3, padding=1), gain=GAIN)
        self.skip = nn.Identity() if inputs == outputs else fresh(Pointwise(inputs, outputs), gain=1)

    def forward(self, h: Tensor, embed: Tensor, size: Size | None = None) -> Tensor:
        """The map `[B, outputs, *size]`, or of the size it came in.

        Args:
            h: `[B, inputs, H, W]`.
            embed: `[B, E]`, already through its leaky ReLU.
            size: Half of `(H, W)` rounded up; None: the size stays.
        """
        y = leaky(self.conv(leaky(h)) + self.shift(embed)[:, :, None, None])  # [B, outputs, H, W]
        if size is not None:
            y, h = smoothed(y, size), smoothed(h, size)
        return joined(self.skip(h), self.last(y), rescale=True)


class Discriminator(nn.Module):
    """`D(x_{t-1}, x_t, t)`: residual blocks without norms, the spread of the batch, and a sum over places.

    Both neighbours are concatenated and enter through a 1 x 1 convolution; the first block of each further level
    halves the size, so that level `i` has `round(width * multipliers[i])` channels at `1 / (patch * 2^i)`. The end is
    `logit = sum_p (a . leaky(conv([h, spread]))_p + b)` over the places p of the last map, as in the paper: a mean
    would be so flat that the generator outruns it. Any height and width.

    In evaluation a row depends on nothing but itself, see `Spread`.
    Source: Xiao, Kreis & Vahdat, arXiv:2112.07804, section 4 and the appendix's network structure.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        width: int,
        multipliers: Sequence[float],
        blocks: int = 1,
        classes: int | None = None,
        patch: int = 1,
        spread: int = 4,
    ) -> None:
        """Build the layers.

        Args:
            in_channels: Of `x`; twice as many come in.
            width: Channels of the first level.
            multipliers: One a level.
            blocks: Residual blocks a level, that which halves the size among them.
            classes: Number of labels; None: labels are not read.
            patch: Side of the squares folded into channels at the input.
            spread: Rows that are compared at most, see `Spread`.

        Raises:
            ConfigError: these do not make a network.
        """
        super().__init__()
        if not multipliers or min(blocks, spread, patch, in_channels, width) < 1:
            raise ConfigError(
                f"a discriminator needs a level and at least 1 of everything, got multipliers={list(multipliers)}, "
                f"in_channels={in_channels}, width={width}, blocks={blocks}, patch={patch} and spread={spread}"
            )
        widths = [max(1, round(width * m)) for m in multipliers]
        embed = 4 * width
        self.in_channels = in_channels
        self.classes = classes or None
        self.patch = patch
        self.levels = len(widths)
        self.each = blocks

        self.time = TimeEmbedding(width, embed)
        self.label = LabelEmbedding(classes, embed) if classes else None
        self.stem = fresh(Pointwise(2 * in_channels * patch**2, widths[0]), gain=1)
        self.down = nn.ModuleList()
        channels = widths[0]
        for outputs in widths:
            for _ in range(blocks):
                self.down.append(BareBlock(channels, outputs, embed=embed))
                channels = outputs
        self.spread = Spread(spread)
        self.last = fresh(nn.Conv2d(channels + 1, channels, 3, padding=1), gain=1)
        self.out = fresh(Pointwise(channels, 1), gain=GAIN)

    @property
    def stride(self) -> int:
        """The side of the input that one place stands for, `patch * 2^(levels - 1)`."""
        return self.patch * 2 ** (self.levels - 1)

    @property
    def reads(self) -> frozenset[str]:
        """The fields of `Cond` it was built for: "label", or none."""
        return frozenset() if self.label is None else frozenset({"label"})

    def forward(self, x_next: Tensor, x: Tensor, t: Tensor, cond: Cond | None = None) -> Tensor:
        """The logit `[B]`, high where `x_next` looks like a real neighbour of `x`.

        Args:
            x_next: `[B, in_channels, H, W]`, the less noisy of the two.
            x: Shaped as `x_next`.
            t: `[B]` times of `x`, or one for all.
            cond: The conditions; only the label is read, and only where there are `classes`.

        Raises:
            ConfigError: the shapes or the labels do not fit.
        """
        return self.places(x_next, x, t, cond).sum(dim=(1, 2, 3))

    def places(self, x_next: Tensor, x: Tensor, t: Tensor, cond: Cond | None = None) -> Tensor:
        """Each place's share of the logit, `[B, 1, ceil(H / stride), ceil(W / stride)]`; they add up to it.

        Arguments and errors as of `forward`.
        """
        b = x.shape[0]
        h = self.stem(folded(self._pair(x_next, x), self.patch))  # [B, c, ceil(H / patch), ceil(W / patch)]
        embed = self.time(t.to(x.device).expand(b))
        if self.label is not None:
            cond = cond or Cond()
            embed = embed + self.label(cond.label, cond.keep, batch=b)
        embed = leaky(embed)
        for i, block in enumerate(self.down):
            smaller = i > 0 and i % self.each == 0
            h = block(h, embed, halved((h.shape[-2], h.shape[-1])) if smaller else None)
        return self.out(leaky(self.last(self.spread(h))))  # [B, 1, h, w]

    def _pair(self, x_next: Tensor, x: Tensor) -> Tensor:
        for name, value in (("x_next", x_next), ("x", x)):
            if value.ndim != 4 or value.shape[1] != self.in_channels:
                raise ConfigError(
                    f"expected {name} of shape [B, {self.in_channels}, H, W], got {list(value.shape)}: "
                    "the discriminator and the codec must have the same number of channels"
                )
        if x_next.shape != x.shape:
            raise ConfigError(
                f"expected two neighbours of one shape, got x_next {list(x_next.shape)} and x {list(x.shape)}: "
                "give both from one chain"
            )
        return torch.cat([x_next, x], dim=1)  # [B, 2 in_channels, H, W]
