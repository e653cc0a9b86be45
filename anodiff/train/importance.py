"""Levels drawn in proportion to the size of their losses: importance sampling that learns as it goes.

A law of levels has no state, `u -> sigma`. An adaptive law adds a history that the caller keeps: it draws with a
weight for each row that leaves the expected loss as it is under the law without history, and is told the
losses. The history is plain tensors, so a checkpoint holds it and a resumed run draws the same levels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeGuard

import torch
from torch import Tensor

from anodiff.diffusion.levels import Levels, level
from anodiff.errors import ConfigError
from anodiff.train.objective import Times

History = dict[str, Tensor]
"""What an adaptive law has seen, float64 and int64 tensors on the CPU; never changed in place."""


class Adaptive(Protocol):
    """A law of levels that learns from the losses of the run."""

    def __call__(self, u: Tensor) -> Tensor:
        """sigma [B] of the law without history, whose mean loss is what is minimised."""
        ...

    def begin(self) -> History:
        """The history of a run that has not begun; ConfigError where the law's numbers make no sense."""
        ...

    def draw(self, history: History, u: Tensor) -> tuple[Tensor, Tensor]:
        """sigma [B], and the weight [B] of each row's loss, for uniform `u` [B] in [0, 1)."""
        ...

    def learn(self, history: History, sigma: Tensor, losses: Tensor) -> History:
        """The history after the rows of one step: their levels [B] and their losses [B] before weighting."""
        ...


def adapts(times: Times) -> TypeGuard[Adaptive]:
    """Whether a law of levels has a history."""
    return hasattr(times, "begin")


@dataclass(frozen=True, eq=False)
class LossSecondMoment:
    """Improved DDPM's law: p_t in proportion to sqrt(E[L_t^2]), the last `length` losses of t standing for the mean.

    `p_t = (1 - floor) rms_t / sum_s rms_s + floor / T`, each row weighing `1 / (T p_t)`, so that the weighted
    mean has the expectation of the uniform one and, at the best p, the least variance. Uniform until every
    level has `length` losses. Source: arXiv:2102.09672 eq. 18 and section 3.3.

    With T = 1000 and batches of 16 that takes some thousands of steps, which short runs do not have. With
    fewer `bins` the T levels share that many histories, neighbours in one, and the mean square of a bin
    stands for all its levels; unbiased all the same. Losses are read after every step, so an accelerator is
    waited for.

    Args:
        table: [T] ascending float64, the levels.
        bins: number of histories, from 1 (uniform) to T; None = T, the paper's.
        length: losses kept in each, 10 in the paper.
        floor: share of the uniform law that is mixed in, so that no level is forgotten.
    """

    table: Tensor
    bins: int | None = None
    length: int = 10
    floor: float = 1e-3

    def __call__(self, u: Tensor) -> Tensor:
        """sigma [B], every entry alike, as before the first loss."""
        return self.table[self._places(u, self._even())]

    def begin(self) -> History:
        """No losses yet: `losses` [bins, length] and how many each bin has seen, `seen` [bins].

        Raises:
            ConfigError: a number outside its range.
        """
        rules = (
            (
                "bins",
                1 <= self._count <= len(self.table),
                f"from 1 to the {len(self.table)} levels of the table",
            ),
            ("length", self.length >= 1, "at least 1"),
            ("floor", 0 < self.floor <= 1, "above 0 and at most 1"),
        )
        for name, holds, wanted in rules:
            if not holds:
                raise ConfigError(f"LossSecondMoment's {name} must be {wanted}, got {getattr(self, name)!r}")
        return {
            "losses": torch.zeros(self._count, self.length, dtype=torch.float64),
            "seen": torch.zeros(self._count, dtype=torch.int64),
        }

    def draw(self, history: History, u: Tensor) -> tuple[Tensor, Tensor]:
        """sigma [B] by the inverse distribution function at `u` [B], and `1 / (T p)` [B]."""
        p = self.law(history)
        place = self._places(u, p)
        return self.table[place], 1 / (len(p) * p[place])

    def law(self, history: History) -> Tensor:
        """p of each level, [T] float64, sums to 1."""
        even = self._even()
        if bool((history["seen"] < self.length).any()):
            return even
        rms = history["losses"].square().mean(1).sqrt()[self._bin(torch.arange(len(even)))]  # [T]
        total = rms.sum()
        if not total > 0:  # all losses are 0, or one is no number and the run about to end
            return even
        return (1 - self.floor) * rms / total + self.floor * even

    def learn(self, history: History, sigma: Tensor, losses: Tensor) -> History:
        """The history after `losses` [B] at `sigma` [B], in the order of the rows; the oldest of a bin go."""
        kept, seen = history["losses"].clone(), history["seen"].clone()
        levels = Levels(low=float(self.table[0]), high=float(self.table[-1]), table=self.table)
        places = self._bin(levels.index(sigma)).tolist()
        for place, loss in zip(places, level(losses).tolist(), strict=True):
            kept[place, int(seen[place]) % self.length] = loss
            seen[place] += 1
        return {"losses": kept, "seen": seen}

    @property
    def _count(self) -> int:
        return len(self.table) if self.bins is None else self.bins

    def _bin(self, index: Tensor) -> Tensor:
        """The history of each level, [B]."""
        return index * self._count // len(self.table)

    def _even(self) -> Tensor:
        return torch.full((len(self.table),), 1 / len(self.table), dtype=torch.float64)

    def _places(self, u: Tensor, p: Tensor) -> Tensor:
        """The entries at the quantiles `u` of `p`, [B]."""
        # Clamped, for the sum of p may end a rounding below 1.
        return torch.searchsorted(p.cumsum(0), u, right=True).clamp(max=len(p) - 1)
