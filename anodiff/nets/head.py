"""A small network that marks the defective places of evidence: everything known of a place in, one logit out."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anodiff.errors import DataError

PRIOR = 0.02
"""The share of defective places that an untrained head expects; a fair guess would begin by unlearning it."""


class Block(nn.Module):
    """`h + narrow(silu(widen(near(silu(h)))))`: a 3x3 kernel a channel, then two linear maps at each place.

    The last map starts at zero, so that the block starts as its shortcut. Without norms, whose statistics over the
    picture would let a large defect change what is said of the places far from it.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.near = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.widen = nn.Conv2d(width, 2 * width, 1)
        self.narrow = nn.Conv2d(2 * width, width, 1)
        nn.init.zeros_(self.narrow.weight)

    def forward(self, h: Tensor) -> Tensor:
        """The map [B, width, h, w] of one such."""
        return h + self.narrow(F.silu(self.widen(self.near(F.silu(h)))))


class Head(nn.Module):
    """The logit of a defect at each place, from all channels of evidence there and around it.

        x = clamp((evidence - mean) / deviation, -limit, limit)      by channel, as `settle` learnt them
        logit = leave(block(... block(enter(x))))                    enter, leave: linear at each place

    The clamp keeps evidence stronger than any that it was trained on inside what it knows. A place sees `depth`
    places around it. 944 channels of 32 x 32 places cost 0.13 GFLOP at the defaults.

    Args:
        channels: of the evidence.
        width: of the maps inside.
        depth: blocks.
        limit: of the standardised evidence, in deviations.
        dropout: share of the channels of evidence that are hidden while training, whole, so that no few of them decide.
    """

    def __init__(
        self, channels: int, *, width: int = 48, depth: int = 2, limit: float = 6.0, dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.limit = limit
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.ones(channels))
        self.dropout = nn.Dropout2d(dropout)
        self.enter = nn.Conv2d(channels, width, 1)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.leave = nn.Conv2d(width, 1, 1)
        nn.init.constant_(cast("Tensor", self.leave.bias), math.log(PRIOR / (1 - PRIOR)))

    @torch.no_grad()
    def settle(self, evidence: Iterable[Tensor]) -> None:
        """Learn each channel's mean and deviation from evidence [B, channels, h, w] of normals, in one pass (float64).

        Raises:
            DataError: there is none, or it is not finite.
        """
        count, total, squares = 0, torch.zeros(()), torch.zeros(())
        for block in evidence:
            rows = block.double().movedim(1, -1).flatten(0, -2)  # [B h w, channels]
            count, total, squares = count + len(rows), total + rows.sum(0), squares + rows.square().sum(0)
        if not count or not bool(squares.isfinite().all()):
            raise DataError(
                f"Expected finite evidence of normal pictures to standardise by, got {count} places of it; "
                "give good pictures, and check them."
            )
        mean = total / count
        deviation = (squares / count - mean.square()).clamp_min(0).sqrt()
        # A channel that never moves on normals is measured by the others' usual size, not by nothing.
        least = 1e-3 * float(deviation.median()) + 1e-12
        self.get_buffer("mean").copy_(mean)
        self.get_buffer("deviation").copy_(deviation.clamp_min(least))

    def forward(self, evidence: Tensor) -> Tensor:
        """The logits [B, 1, h, w] of evidence [B, channels, h, w]; above 0: more likely a defect than not."""
        mean, deviation = self.get_buffer("mean"), self.get_buffer("deviation")
        x = (evidence - mean[:, None, None]) / deviation[:, None, None]
        h = self.enter(self.dropout(x.clamp(-self.limit, self.limit)))
        for block in self.blocks:
            h = block(h)
        return self.leave(h)
