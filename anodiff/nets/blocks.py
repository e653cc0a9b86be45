"""The residual block of a U-Net and its changes of size."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from anodiff.nets.norm import AdaGN, groups_for


class ResBlock(nn.Module):
    """Two convolutions beside a shortcut, the second after an AdaGN driven by the embedding (arXiv:2105.05233).

    `h -> skip(h) + conv(drop(silu(adagn(conv(silu(gn(h))), embed))))`. The second convolution starts at zero, so
    that the block starts as its shortcut.
    """

    def __init__(self, inputs: int, outputs: int, *, embed: int, groups: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups_for(inputs, groups), inputs)
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.adapt = AdaGN(outputs, embed, groups=groups)
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        nn.init.zeros_(self.last.weight)

    def forward(self, h: Tensor, embed: Tensor) -> Tensor:
        """The map `[B, outputs, H, W]` for `h [B, inputs, H, W]` and `embed [B, E]` (already through its SiLU)."""
        y = self.conv(F.silu(self.norm(h)))  # [B, outputs, H, W]
        y = self.last(self.dropout(F.silu(self.adapt(y, embed))))
        return self.skip(h) + y


class Downsample(nn.Module):
    """A strided convolution: half the height and width, rounded up."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        """The map `[B, outputs, ceil(H / 2), ceil(W / 2)]`."""
        return self.conv(h)


class Upsample(nn.Module):
    """Nearest neighbours, then a convolution; the size is that of the map it will be joined with."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)

    def forward(self, h: Tensor, size: tuple[int, int]) -> Tensor:
        """The map `[B, outputs, *size]`; `size` is (2H, 2W), or one less where that side was odd."""
        return self.conv(F.interpolate(h, size=size, mode="nearest"))
