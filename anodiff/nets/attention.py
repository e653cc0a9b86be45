"""Attention, and the one seam through which its probabilities can be seen and edited."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from anodiff.cond import AttentionEdit
from anodiff.nets.blocks import joined
from anodiff.nets.norm import group_norm


@dataclass(frozen=True, kw_only=True)
class Seam:
    """What an attention layer reads besides its input: the tokens it looks at, and how its probabilities change."""

    tokens: Tensor | None = None  # [B, L, D]
    token_mask: Tensor | None = None  # [B, L] True where real; every row has at least one True
    token_gain: Tensor | None = None  # [B, L] factor on the probabilities of cross-attention
    token_boxes: Tensor | None = None  # [B, L, 4] the place that each token speaks of, see `Cond`
    edit: AttentionEdit | None = None  # (probs [B, heads, N, L], place, t [B]) -> probs
    t: Tensor | None = None  # [B] handed to `edit`; a denoiser's edit does not look at it


def heads_for(channels: int, *, heads: int | None, head_channels: int) -> int:
    """The number of heads: `heads` if given, else the most that divide evenly and leave `head_channels` to each.

    Source: arXiv:2105.05233, section 3 (64 channels a head is their best).
    """
    if heads is not None:
        return heads
    return next(n for n in range(max(channels // head_channels, 1), 0, -1) if channels % n == 0)


class Attention(nn.Module):
    """Multi-head attention, `softmax(Q K^T / sqrt(d)) V`, over its input or a second sequence (arXiv:1706.03762).

    Without an edit or a gain it runs `scaled_dot_product_attention`, which never holds the probabilities in memory;
    with one it computes them, hands them over and uses what comes back. Both ways agree within 1e-5.
    """

    def __init__(
        self,
        channels: int,
        *,
        heads: int,
        place: str,
        context: int | None = None,
        outputs: int | None = None,
    ) -> None:
        """Store the layers.

        Args:
            channels: Of the input; `heads` divides it.
            heads: Number of heads.
            place: The name of this layer, unique in its network; handed to edits.
            context: Channels of the second sequence (cross-attention); None: self-attention.
            outputs: Channels of the output; None: as the input.
        """
        super().__init__()
        self.heads = heads
        self.place = place
        self.context = context
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(context or channels, 2 * channels)
        self.out = nn.Linear(channels, outputs or channels)

    def forward(self, x: Tensor, seam: Seam, lean: Tensor | None = None) -> Tensor:
        """The attended values, `[B, N, outputs]`, for `x [B, N, C]`; `lean [B, N, L]` is added to the logits.

        Self-attention reads `seam.edit` and `seam.t` only; cross-attention reads the tokens, mask and gain too.
        `Cond.edit` speaks of a noise level; a network does not know one, so the third argument of an edit called
        here is `t`, the number the network was fed. A denoiser, which knows both, hands the network an edit that puts
        sigma there. The edit acts first, the gain after it, as in arXiv:2208.01626 (re-weighting); neither is
        normalised again.
        """
        cross = self.context is not None
        source = seam.tokens if cross else x  # [B, L, D]
        mask = seam.token_mask if cross else None
        gain = seam.token_gain if cross else None
        if source is None:
            raise ValueError(
                f"the cross-attention at {self.place!r} needs tokens [B, L, {self.context}], got none"
            )
        q = rearrange(self.query(x), "b n (h d) -> b h n d", h=self.heads)
        k, v = rearrange(self.key_value(source), "b l (two h d) -> two b h l d", two=2, h=self.heads)
        if mask is not None:
            mask = mask[:, None, None, :]  # [B, 1, 1, L]
        if lean is not None:
            shift = lean[:, None].to(q.dtype)  # [B, 1, N, L]
            mask = shift if mask is None else shift.masked_fill(~mask, -torch.inf)
        if seam.edit is None and gain is None:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        else:
            y = self._probabilities(q, k, mask, gain, seam) @ v
        return self.out(rearrange(y, "b h n d -> b n (h d)"))

    def _probabilities(
        self, q: Tensor, k: Tensor, mask: Tensor | None, gain: Tensor | None, seam: Seam
    ) -> Tensor:
        logits = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])  # [B, heads, N, L]
        if mask is not None:
            logits = logits.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else logits + mask
        probs = logits.softmax(dim=-1)
        if seam.edit is not None:
            t = seam.t if seam.t is not None else q.new_zeros(q.shape[0])
            probs = seam.edit(probs, self.place, t)
        return probs if gain is None else probs * gain[:, None, None, :].to(probs.dtype)


class AttentionBlock(nn.Module):
    """Attention over the positions of a map, then over the tokens if the network has any, each added to its input.

    Its layers are named `<place>.self` and `<place>.cross`. The output projections start at zero, so that the block
    starts as the identity (arXiv:2105.05233), or with `rescale` as the identity over `sqrt(2)` an addition.
    """

    def __init__(
        self,
        channels: int,
        *,
        heads: int,
        place: str,
        groups: int,
        token_channels: int = 0,
        eps: float = 1e-5,
        rescale: bool = False,
    ) -> None:
        super().__init__()
        self.rescale = rescale
        self.norm = group_norm(channels, groups=groups, eps=eps)
        self.attend = Attention(channels, heads=heads, place=f"{place}.self")
        nn.init.zeros_(self.attend.out.weight)
        self.cross: Attention | None = None
        self.cross_norm: nn.LayerNorm | None = None
        if token_channels:
            self.cross_norm = nn.LayerNorm(channels)
            self.cross = Attention(channels, heads=heads, place=f"{place}.cross", context=token_channels)
            nn.init.zeros_(self.cross.out.weight)

    def forward(self, h: Tensor, seam: Seam) -> Tensor:
        """The feature map `h [B, C, H, W]` with what was attended to added."""
        height = h.shape[-2]
        y = rearrange(h, "b c h w -> b (h w) c")
        normal = rearrange(self.norm(h), "b c h w -> b (h w) c")
        y = joined(y, self.attend(normal, seam), rescale=self.rescale)
        if self.cross is not None and self.cross_norm is not None:
            y = joined(y, self.cross(self.cross_norm(y), seam), rescale=self.rescale)
        return rearrange(y, "b (h w) c -> b c h w", h=height)
