"""From the maps of an encoder to the numbers of a class: three ways to leave the positions behind.

Source: Dhariwal & Nichol, arXiv:2105.05233, section 4 and table 14 (attention pooling is theirs).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from anodiff.nets.attention import Attention, Seam
from anodiff.nets.norm import group_norm, silu

Pooling = Literal["attention", "adaptive", "spatial"]
"""`AttentionPool`, `AdaptivePool` or `SpatialPool`."""


class AdaptivePool(nn.Module):
    """The mean over the positions of the last map, projected: `W mean(silu(gn(h)))`, `W` starting at zero."""

    def __init__(self, channels: int, classes: int, *, groups: int) -> None:
        super().__init__()
        self.norm = group_norm(channels, groups=groups)
        self.out = nn.Linear(channels, classes)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """The logits `[B, classes]`; reads the last of `maps`, `[B, channels, h, w]`, of any size."""
        return self.out(silu(self.norm(maps[-1])).mean(dim=(2, 3)))


class AttentionPool(nn.Module):
    """What one query sees of the last map: the mean of its positions attends to itself and to all of them.

    With `u = silu(gn(h))` as tokens and their mean before them, all with a learned position added, the answer to the
    mean's query is projected to the classes. The positions tie it to one size.
    Source: Radford et al., arXiv:2103.00020 (CLIP), section 2.4, with multi-head queries of 64 channels.
    """

    def __init__(
        self, channels: int, classes: int, *, size: tuple[int, int], heads: int, groups: int
    ) -> None:
        super().__init__()
        self.norm = group_norm(channels, groups=groups)
        self.position = nn.Parameter(torch.randn(1, size[0] * size[1] + 1, channels) / math.sqrt(channels))
        self.attend = Attention(channels, heads=heads, place="pool", context=channels, outputs=classes)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """The logits `[B, classes]`; reads the last of `maps`, `[B, channels, *size]`."""
        u = rearrange(silu(self.norm(maps[-1])), "b c h w -> b (h w) c")
        tokens = torch.cat([u.mean(dim=1, keepdim=True), u], dim=1) + self.position  # [B, 1 + h w, channels]
        return self.attend(tokens[:, :1], Seam(tokens=tokens))[:, 0]


class SpatialPool(nn.Module):
    """The means over the positions of every map, side by side, through two layers with a ReLU between."""

    def __init__(self, widths: Sequence[int], classes: int, *, hidden: int = 2048) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(sum(widths), hidden), nn.ReLU(), nn.Linear(hidden, classes))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """The logits `[B, classes]`; reads all of `maps`, each `[B, widths[i], h_i, w_i]`, of any sizes."""
        return self.mlp(torch.cat([h.mean(dim=(2, 3)) for h in maps], dim=1))
