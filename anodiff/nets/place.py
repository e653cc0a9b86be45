"""Where the positions of a map lie, told to a network and held against boxes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from anodiff.nets.embed import OCTAVES, fourier

LEAN = 3.0
"""Added to the logit of a token at the positions it speaks of: e^3 = 20 times the attention at first."""

REST = (1.0, 1.0, 0.0, 0.0)
"""Stands for the box of a token that speaks of what lies in no box."""


def centres(height: int, width: int, device: torch.device) -> Tensor:
    """The centres of positions, row by row, [height * width, 2]: from left and from top, in shares of the sides."""
    down, along = ((torch.arange(n, device=device) + 0.5) / n for n in (height, width))
    rows, columns = torch.meshgrid(down, along, indexing="ij")
    return torch.stack([columns, rows], dim=-1).flatten(0, 1)


class PositionEmbedding(nn.Module):
    """Where each position of a map lies, as a learned vector: one linear map of `fourier` of its centre's coordinates.

    Coordinates are shares of the sides, so that a box and the positions in it are told in the same numbers.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(4 * OCTAVES, channels)

    def forward(self, height: int, width: int) -> Tensor:
        """The vectors [height * width, channels], row by row."""
        weight = self.linear.weight
        place = centres(height, width, weight.device)
        return self.linear(fourier(place).flatten(1).to(weight.dtype))


def leaning(boxes: Tensor, mask: Tensor | None, height: int, width: int) -> Tensor:
    """What is added to the logits of attention, [B, height * width, L]: `LEAN` where a position lies in a token's box.

    A model that is only told coordinates has to find out which positions a box holds, and a short training does not.
    Each position leans towards the tokens it lies in, as in arXiv:2211.01324 ("paint with words"), but in training too,
    so that what the model learns beside it is its own.

    Args:
        boxes: [B, L, 4] left, top, right, bottom; `REST`: the token speaks of what lies in no other's box.
        mask: [B, L] True where a token is real; the boxes of others hold nothing.
        height: of the map.
        width: of the map.
    """
    left, top, right, bottom = boxes[:, None].unbind(-1)  # [B, 1, L] each
    x, y = centres(height, width, boxes.device)[..., None].unbind(1)  # [N, 1] each
    within = (left <= x) & (x < right) & (top <= y) & (y < bottom)  # [B, N, L]
    if mask is not None:
        within = within & mask[:, None]
    rest = (right < left) & ~within.any(dim=-1, keepdim=True)
    return LEAN * (within | rest).to(boxes.dtype)
