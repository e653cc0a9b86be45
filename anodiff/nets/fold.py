"""Squares of pixels as channels, and back."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def folded(x: Tensor, patch: int) -> Tensor:
    """`x [B, C, H, W]` with squares of `patch` as channels, `[B, C * patch^2, ceil(H / patch), ceil(W / patch)]`.

    The right and lower edge are repeated where a side is no multiple of `patch`.
    """
    if patch == 1:
        return x
    x = F.pad(x, (0, -x.shape[-1] % patch, 0, -x.shape[-2] % patch), mode="replicate")
    return F.pixel_unshuffle(x, patch)


def unfolded(h: Tensor, patch: int, size: tuple[int, int]) -> Tensor:
    """`h [B, C * patch^2, h, w]` with its channels spread over squares, cropped to `size`: `[B, C, *size]`."""
    return F.pixel_shuffle(h, patch)[..., : size[0], : size[1]] if patch > 1 else h
