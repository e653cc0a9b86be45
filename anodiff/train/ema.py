"""The moving average of the weights, which is what samples, scores and is stored."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

Pair = tuple[Tensor, Tensor]


def decay(step: int, *, cap: float) -> float:
    """The share of the old average kept after update `step` (0-based): min(cap, step / (step + 9)).

    At a constant cap the first weights weigh cap^steps: .61 after 5,000 steps of .9999. Here update 0 takes
    the weights as they are, and until the cap is reached the average reaches back over a fixed share of the
    run: 1 - 9 / k is, to first order, the power function (1 - 1 / k)^9 of EDM2 (arXiv:2312.02696, section
    3.1).
    """
    return min(cap, step / (step + 9))


class Ema(nn.Module):
    """A copy of `model` whose weights are the average over its course, in float32 whatever the course's type.

    average_k = d_k average_{k-1} + (1 - d_k) weights_k with d_k = `decay(k)`. A module inside the trained
    one, so it moves, is saved and is loaded with it; nothing is ever swapped.
    """

    def __init__(self, model: nn.Module, *, cap: float) -> None:
        super().__init__()
        self.cap = cap
        self.pairs: tuple[list[Pair], list[Pair]] | None = None
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        for weight in self.model.parameters():
            if weight.dtype in (torch.float16, torch.bfloat16):
                weight.data = weight.data.float()

    def train(self, mode: bool = True) -> Ema:
        """Itself, always in evaluation mode: the average is never trained."""
        return super().train(False)

    @torch.no_grad()
    def update(self, model: nn.Module, *, step: int) -> None:
        """Move the average towards the weights of `model` after optimiser step `step` (0-based).

        Buffers are copied. It must be the same model each time: its parts are looked up once.
        """
        if self.pairs is None:
            weights = zip(self.model.parameters(), model.parameters(), strict=True)
            buffers = zip(self.model.buffers(), model.buffers(), strict=True)
            self.pairs = (list(weights), list(buffers))
        share = 1 - decay(step, cap=self.cap)
        for average, weight in self.pairs[0]:
            average.lerp_(weight.to(average.dtype), share)
        for average, buffer in self.pairs[1]:
            average.copy_(buffer)

    @torch.no_grad()
    def give(self, model: nn.Module) -> None:
        """Write the average into `model`."""
        model.load_state_dict(self.model.state_dict())
