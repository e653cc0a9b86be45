"""What step k is fed: every number of it is a pure function of the seed, the step and the row.

No generator is carried from step to step, so nothing has to be stored to resume, no worker can change the
order, and rank r of w devices takes the rows r, r + w, ... of the same global batch that one device would
take whole.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset

from anodiff.noise import PerImageNoise
from anodiff.train.objective import Goal, Noisy
from anodiff.train.plan import Plan
from anodiff.train.told import stacked

if TYPE_CHECKING:
    from anodiff.train.told import Told

ORDER, LEVEL, NOISE, AUGMENT, KEEP, NETWORK, REVIVE = range(7)  # purposes: no two draws share a key


class Items(Protocol):
    """Pictures, or their codes, by number."""

    def __len__(self) -> int: ...

    def item(self, index: int, seed: int, /) -> Tensor:
        """Row `index`, [c, h, w], augmented as a pure function of `seed`; all rows of one shape."""
        ...


class Batch(NamedTuple):
    """One rank's rows of one step."""

    z: Tensor  # [B, c, h, w] codec space, or [B, C, H, W] pixels where a codec follows
    u: Tensor  # [B] float64 in [0, 1), the quantiles of the noise levels in their law; stays on the CPU
    n: Tensor | None  # like z; None where a codec follows, whose shape is not known yet
    seeds: list[int]  # of each row's noise
    label: Tensor | None  # [B]
    keep: Tensor | None  # [B] False = the learned null
    told: dict[str, Tensor] | None = None  # further fields of `Cond` by name, each [B, ...]

    def to(self, device: torch.device) -> Batch:
        """The same rows on `device`; `u` stays on the CPU, where levels are looked up."""
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True)
            for name in ("z", "n", "label", "keep")
            if (value := getattr(self, name)) is not None
        }
        if self.told is not None:
            moved["told"] = {name: value.to(device, non_blocking=True) for name, value in self.told.items()}
        return self._replace(**moved)

    @property
    def conditions(self) -> dict[str, Any]:
        """The fields of `Cond` that the rows have, by name; empty where there are none."""
        found = {"label": self.label, "keep": self.keep, **(self.told or {})}
        return {name: value for name, value in found.items() if value is not None}


def key(seed: int, *counters: int) -> int:
    """A number in [0, 2^63) that depends on every argument and on nothing else (BLAKE2b)."""
    packed = struct.pack(f"<{1 + len(counters)}q", seed, *counters)
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little") >> 1


def uniform(seed: int, *counters: int) -> float:
    """A number in [0, 1) that depends on every argument and on nothing else."""
    return (key(seed, *counters) >> 10) * 2.0**-53


@lru_cache(maxsize=4)
def order(seed: int, epoch: int, count: int) -> Tensor:
    """The permutation of `count` rows in epoch `epoch`, [count]."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(key(seed, ORDER, epoch)))


def rows(seed: int, step: int, batch: int, count: int) -> list[int]:
    """The indices of the global batch of step `step`: `batch` consecutive places in the endless row of permutations."""
    places = range(step * batch, (step + 1) * batch)
    return [int(order(seed, place // count, count)[place % count]) for place in places]


class Steps(Dataset[Batch]):
    """The batches of one rank by step number; a `DataLoader` over `range(start, steps)` reads them ahead.

    Noise levels are stratified: row i of B takes the quantile (u + i / B) mod 1 of their law with one u a
    step (arXiv:2107.00630, appendix I.1); each row alone is as random as before, their mean is much less so.
    The law itself is applied where the step is taken, for it may depend on the losses before
    (`importance.py`), which a batch read ahead cannot know.
    """

    def __init__(
        self,
        data: Items,
        plan: Plan,
        objective: Goal,
        *,
        labels: Sequence[int] | None = None,
        told: Told | None = None,
        ahead: bool = True,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.data = data
        self.plan = plan
        self.objective = objective
        self.labels = labels
        self.told = told
        self.ahead = (
            ahead  # draw the noise here; where a codec follows it is drawn after it, from the same seeds
        )
        self.rank = rank
        self.world = world

    def __len__(self) -> int:
        return self.plan.steps

    def __getitem__(self, step: int) -> Batch:
        """This rank's rows of step `step`."""
        plan, seed = self.plan, self.plan.seed
        mine = range(self.rank, plan.batch, self.world)
        index = rows(seed, step, plan.batch, len(self.data))
        drawn = {row: key(seed, AUGMENT, step, row) for row in mine}
        z = torch.stack([self.data.item(index[row], drawn[row]) for row in mine])  # [B, c, h, w]
        start = uniform(seed, LEVEL, step)
        u = torch.tensor([(start + row / plan.batch) % 1 for row in mine], dtype=torch.float64)
        seeds = [key(seed, NOISE, step, row) for row in mine]
        label = keep = told = None
        if self.labels is not None:
            label = torch.tensor([int(self.labels[index[row]]) for row in mine])
        if self.told is not None:
            told = stacked([self.told(index[row], drawn[row]) for row in mine], [index[row] for row in mine])
        if plan.condition_dropout and not (label is None and told is None):
            keep = torch.tensor([uniform(seed, KEEP, step, row) >= plan.condition_dropout for row in mine])
        n = PerImageNoise(seeds, draw=cast("Noisy", self.objective).draw)(z) if self.ahead else None
        return Batch(z, u, n, seeds, label, keep, told)
