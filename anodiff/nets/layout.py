"""The layout of a U-Net: which blocks stand on which level, and how each is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from anodiff.errors import ConfigError
from anodiff.nets.attention import AttentionBlock, Seam, heads_for
from anodiff.nets.blocks import Downsample, Filter, Modulation, Pad, ResBlock, Upsample
from anodiff.nets.transformer import SpatialTransformer

Resample = Literal["conv", "residual", "fir"]
"""How a level changes the size: one convolution, a residual block (BigGAN), or one with a smoothing filter."""


class Stage(nn.Module):
    """One residual block, followed by attention where its level has any."""

    def __init__(self, block: ResBlock, attention: AttentionBlock | SpatialTransformer | None) -> None:
        super().__init__()
        self.block = block
        self.attention = attention

    def forward(self, h: Tensor, embed: Tensor, seam: Seam) -> Tensor:
        """The map after the block, `[B, outputs, H, W]`."""
        h = self.block(h, embed)
        return h if self.attention is None else self.attention(h, seam)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The switches of a U-Net that its blocks share; `UNet` tells what each one means."""

    width: int
    multipliers: Sequence[float]
    blocks: int
    attention: Sequence[int] = ()
    heads: int | None = None
    head_channels: int = 64
    token_channels: int = 0
    dropout: float = 0.0
    groups: int = 32
    eps: float = 1e-5
    modulation: Modulation = "adagn"
    resample: Resample = "conv"
    rescale: bool = False
    mid_attention: bool | None = None
    pad: Pad = "both"
    transformer: int = 0
    positions: bool = False
    edge: int = 3

    def __post_init__(self) -> None:
        if not self.multipliers or self.blocks < 1:
            raise ConfigError(
                f"a network needs a level and a block on it, got multipliers={list(self.multipliers)} "
                f"and blocks={self.blocks}"
            )
        for name, known in (
            ("modulation", ("adagn", "add")),
            ("resample", ("conv", "residual", "fir")),
            ("pad", ("both", "after")),
        ):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        if bad := [i for i in self.attention if not 0 <= i < self.levels]:
            raise ConfigError(
                f"attention names levels {bad}, the network has levels 0..{self.levels - 1}: name those"
            )
        if self.token_channels and not self.attention and not self.mid_attention:
            raise ConfigError("token_channels is set but no level has attention: name levels in `attention`")
        if self.edge not in (1, 3):
            raise ConfigError(f"edge is the side of the first and last kernels, 1 or 3, got {self.edge}")
        if self.transformer < 0:
            raise ConfigError(
                f"transformer counts blocks, 0 for attention alone, got {self.transformer}: give 0 or more"
            )
        if self.positions and not self.transformer:
            raise ConfigError(
                "positions are told to spatial transformers, and there are none: set transformer to 1"
            )
        if self.transformer and not self.attention and not self.mid_attention:
            raise ConfigError("transformer is set but no level has attention: name levels in `attention`")

    @property
    def levels(self) -> int:
        """The number of levels."""
        return len(self.multipliers)

    @property
    def widths(self) -> tuple[int, ...]:
        """The channels of each level, `max(1, round(width * multiplier))`."""
        return tuple(max(1, round(self.width * m)) for m in self.multipliers)

    @property
    def embed(self) -> int:
        """The length of the embedding of time and label, four times the width."""
        return 4 * self.width

    def block(self, inputs: int, outputs: int, filter: Filter = "box") -> ResBlock:
        """A residual block; `filter` is read by one that changes the size."""
        return ResBlock(
            inputs,
            outputs,
            embed=self.embed,
            groups=self.groups,
            dropout=self.dropout,
            eps=self.eps,
            modulation=self.modulation,
            rescale=self.rescale,
            filter=filter,
        )

    def stage(self, inputs: int, outputs: int, level: int, place: str) -> Stage:
        """A residual block of `level`, with attention where that has any; `place` is what edits call it."""
        block = self.block(inputs, outputs)
        return Stage(block, self.attend(outputs, place) if level in self.attention else None)

    def middle(self, channels: int) -> Stage:
        """The first half of the middle, with attention as on the last level unless `mid_attention` tells."""
        attends = self.mid_attention
        if attends is None:
            attends = self.levels - 1 in self.attention
        return Stage(self.block(channels, channels), self.attend(channels, "mid") if attends else None)

    def attend(self, channels: int, place: str) -> AttentionBlock | SpatialTransformer:
        """An attention block, or a spatial transformer of `transformer` blocks where that is above 0.

        Raises:
            ConfigError: the heads do not divide the channels.
        """
        n = heads_for(channels, heads=self.heads, head_channels=self.head_channels)
        if channels % n:
            raise ConfigError(f"heads={n} must divide the {channels} channels at {place!r}: change either")
        if self.transformer:
            return SpatialTransformer(
                channels,
                heads=n,
                place=place,
                groups=self.groups,
                depth=self.transformer,
                token_channels=self.token_channels,
                eps=self.eps,
                rescale=self.rescale,
                positions=self.positions,
            )
        return AttentionBlock(
            channels,
            heads=n,
            place=place,
            groups=self.groups,
            token_channels=self.token_channels,
            eps=self.eps,
            rescale=self.rescale,
        )

    def smaller(self, channels: int) -> Downsample | ResBlock:
        """What halves the size; called with the map, the embedding and the new size."""
        return Downsample(channels, pad=self.pad) if self.resample == "conv" else self._change(channels)

    def larger(self, channels: int) -> Upsample | ResBlock:
        """What doubles the size; called with the map, the embedding and the new size."""
        return Upsample(channels) if self.resample == "conv" else self._change(channels)

    def _change(self, channels: int) -> ResBlock:
        return self.block(channels, channels, "fir" if self.resample == "fir" else "box")
