"""Group normalisation for any number of channels, plain and driven by an embedding."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def groups_for(channels: int, groups: int) -> int:
    """The largest number of groups, not above `groups`, that divides `channels`."""
    return next(n for n in range(min(groups, channels), 0, -1) if channels % n == 0)


def group_norm(channels: int, *, groups: int, eps: float = 1e-5) -> nn.GroupNorm:
    """A group normalisation of at most `groups` groups, with an affine part of its own."""
    return nn.GroupNorm(groups_for(channels, groups), channels, eps=eps)


def silu(h: Tensor) -> Tensor:
    """`h sigmoid(h)`; without gradients it is written over `h`, which nobody else may hold: a norm's output."""
    return F.silu(h, inplace=not torch.is_grad_enabled())


class AdaGN(nn.Module):
    """Adaptive group normalisation, `y_s GN(h) + y_b` with `y_s = 1 + scale` and `y_b` linear in the embedding.

    Source: Dhariwal & Nichol, arXiv:2105.05233, section 3. GN itself has no parameters: the affine part is `y_s, y_b`.
    """

    def __init__(self, channels: int, embed: int, *, groups: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.groups = groups_for(channels, groups)
        self.eps = eps
        self.affine = nn.Linear(embed, 2 * channels)

    def forward(self, h: Tensor, embed: Tensor) -> Tensor:
        """The normalised, scaled and shifted map, shaped as `h [B, C, H, W]`, for `embed [B, E]`."""
        b, c, height, width = h.shape
        scale, shift = self.affine(embed).chunk(2, dim=1)  # [B, C] each
        if h.is_contiguous():
            # One pass over memory instead of three: the rows laid side by side are one picture of B*C channels,
            # whose affine parameters may then differ from row to row.
            rows = h.reshape(1, b * c, height, width)
            y = F.group_norm(rows, b * self.groups, (1 + scale).reshape(-1), shift.reshape(-1), self.eps)
            return y.reshape(b, c, height, width)
        y = F.group_norm(h, self.groups, eps=self.eps)
        scale, shift = 1 + scale[:, :, None, None], shift[:, :, None, None]
        out = None if torch.is_grad_enabled() else y  # what nobody else holds is written over
        return torch.addcmul(shift, y, scale, out=out)


class AddGN(nn.Module):
    """Group normalisation of the map plus the embedding, `GN(h + W e + b)`, with an affine part of its own.

    Source: Ho et al., arXiv:2006.11239, appendix B: how the time enters a block of DDPM.
    """

    def __init__(self, channels: int, embed: int, *, groups: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.shift = nn.Linear(embed, channels)
        self.norm = group_norm(channels, groups=groups, eps=eps)

    def forward(self, h: Tensor, embed: Tensor) -> Tensor:
        """The shifted and normalised map, shaped as `h [B, C, H, W]`, for `embed [B, E]`."""
        return self.norm(h + self.shift(embed)[:, :, None, None])
