"""The spatial transformer: attention over a map and over tokens, each with its own norm, and a feed-forward."""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from anodiff.nets.attention import Attention, Seam
from anodiff.nets.blocks import joined
from anodiff.nets.conv import Pointwise
from anodiff.nets.norm import group_norm
from anodiff.nets.place import PositionEmbedding, leaning


class GEGLU(nn.Module):
    """A gated feed-forward, `(u * gelu(g)) W + b`, with `u` and `g` the halves of one linear map of the input.

    `u`, `g` have `factor` times the input's channels. Source: Shazeer, arXiv:2002.05202, eq. 6, with biases as in
    arXiv:2112.10752, appendix E.2.1.
    """

    def __init__(self, channels: int, *, factor: int = 4) -> None:
        super().__init__()
        self.gated = nn.Linear(channels, 2 * factor * channels)
        self.out = nn.Linear(factor * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """The output `[..., C]` for `x [..., C]`; each position by itself."""
        u, g = self.gated(x).chunk(2, dim=-1)  # [..., factor * C] each
        return self.out(u * F.gelu(g))


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention if there are tokens, and `GEGLU`, each after a LayerNorm and added to its input.

    Its attention layers are named `<place>.self` and `<place>.cross`. Source: arXiv:2112.10752, table 16.
    """

    def __init__(self, channels: int, *, heads: int, place: str, token_channels: int = 0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.attend = Attention(channels, heads=heads, place=f"{place}.self")
        self.cross_norm: nn.LayerNorm | None = None
        self.cross: Attention | None = None
        if token_channels:
            self.cross_norm = nn.LayerNorm(channels)
            self.cross = Attention(channels, heads=heads, place=f"{place}.cross", context=token_channels)
        self.feed_norm = nn.LayerNorm(channels)
        self.feed = GEGLU(channels)

    def forward(self, y: Tensor, seam: Seam, lean: Tensor | None = None) -> Tensor:
        """The sequence `[B, N, C]` for `y [B, N, C]`; `lean [B, N, L]` is added to the logits of cross-attention."""
        y = joined(y, self.attend(self.norm(y), seam), rescale=False)
        if self.cross is not None and self.cross_norm is not None:
            y = joined(y, self.cross(self.cross_norm(y), seam, lean), rescale=False)
        return joined(y, self.feed(self.feed_norm(y)), rescale=False)


class SpatialTransformer(nn.Module):
    """A map as a sequence of its positions through `depth` transformer blocks, added to the map.

    `h + out(blocks(enter(norm(h))))`, with a group norm and two convolutions of 1 x 1. Takes the place of an
    `AttentionBlock`. Its attention layers are named `<place>.<i>.self` and `<place>.<i>.cross`, i = 0 the first
    block. `out` starts at zero, so that it starts as the identity.

    With `rescale` the sum with the map is divided by `sqrt(2)`, as every sum of the U-Net's own maps then is. The
    sums inside are not: each branch there starts with a norm, and what they add up to passes `out` before it meets
    the map. Source: Rombach et al., arXiv:2112.10752, appendix E.2.1, table 16.

    With `positions`, which the paper has not, each position is told where it lies before the first block. Without,
    only the zeros around convolutions tell, and a short training does not find out which positions lie in a box.
    Where tokens speak of places, positions lean towards those they lie in (`place.leaning`).
    """

    def __init__(
        self,
        channels: int,
        *,
        heads: int,
        place: str,
        groups: int,
        depth: int = 1,
        token_channels: int = 0,
        eps: float = 1e-5,
        rescale: bool = False,
        positions: bool = False,
    ) -> None:
        """Build the layers.

        Args:
            channels: Of the map; `heads` divides it.
            heads: Of every attention layer.
            place: The name of this transformer, unique in its network.
            groups: Upper bound of the groups of the norm.
            depth: Number of blocks.
            token_channels: Channels of the tokens; 0: no cross-attention.
            eps: Added to the variances of the group norm; the LayerNorms have PyTorch's 1e-5.
            rescale: Whether the sum with the map is divided by `sqrt(2)`.
            positions: Whether positions are told where they lie.
        """
        super().__init__()
        self.rescale = rescale
        self.norm = group_norm(channels, groups=groups, eps=eps)
        self.enter = Pointwise(channels, channels)
        self.position = PositionEmbedding(channels) if positions else None
        self.blocks = nn.ModuleList(
            TransformerBlock(channels, heads=heads, place=f"{place}.{i}", token_channels=token_channels)
            for i in range(depth)
        )
        self.out = Pointwise(channels, channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, h: Tensor, seam: Seam) -> Tensor:
        """The feature map `[B, C, H, W]` for `h [B, C, H, W]`, as it lies in memory."""
        height, width = h.shape[-2:]
        y = rearrange(self.enter(self.norm(h)), "b c h w -> b (h w) c")
        if self.position is not None:
            y = y + self.position(height, width)
        lean = None
        if seam.token_boxes is not None:
            lean = leaning(seam.token_boxes, seam.token_mask, height, width)
        for block in self.blocks:
            y = block(y, seam, lean)
        return joined(h, self.out(rearrange(y, "b (h w) c -> b c h w", h=height)), rescale=self.rescale)
