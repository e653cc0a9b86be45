"""How far each place of a picture is from the nearest one that good parts have shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anodiff.cond import Cond
from anodiff.detect.blend import Blend
from anodiff.detect.calibrate import Calibration, GlobalCalibration
from anodiff.detect.moments import finite
from anodiff.detect.restore import Model
from anodiff.detect.scorer import Observation, Observations, Parts, Scorer
from anodiff.errors import ConfigError, DataError
from anodiff.learnt import Learnt

SHRINK = 2
"""Sides of the squares of positions that a place is the mean of, where the code is as fine as its finest stage:
neighbours say nearly the same."""

OFFERED = 8
"""Places looked at for each that is remembered."""

_DIRECTIONS = 48  # random ones, in which the places that differ most are looked for


class Memory(Learnt):
    """Places of good parts, and the squared distance of others to the nearest of them.

        D = min_k |z - b_k|^2 / c          for places z of c channels

    The places b_k are those that leave none of the good parts' far away: each is the one that is furthest from those
    before it (greedy k-centre; Sener & Savarese, arXiv:1708.00489; for anomalies PatchCore, arXiv:2106.08265, section
    3.2), among `OFFERED` times as many drawn evenly from all pictures.

    Args:
        count: places remembered, at most; fewer where good parts have not `OFFERED` times as many.
        seed: of what is drawn.
    """

    def __init__(self, count: int, *, seed: int = 0) -> None:
        super().__init__()
        if count < 1:
            raise ConfigError(f"Expected to remember 1 place or more, got {count}.")
        self.count = count
        self.seed = seed
        self.expect("places", "source")

    def learn(self, codes: Callable[[], Iterable[Tensor]]) -> None:
        """Learn from the codes [B, c, h, w] of good pictures, from scratch; `codes` is called twice.

        Raises:
            DataError: no picture, or numbers that are not finite.
        """
        sizes = [(len(block), block[0, 0].numel()) for block in codes()]
        pictures = sum(count for count, _ in sizes)
        if not pictures:
            raise DataError("Expected good pictures to remember places of, got none: hold some out.")
        count = min(self.count, max(1, sum(count * each for count, each in sizes) // OFFERED))
        draw = torch.Generator().manual_seed(self.seed)
        each = -(-OFFERED * count // pictures)
        offered, source = [], []
        for block in codes():
            for row in finite(block, "the codes").float():  # [c, h, w]
                places = row.flatten(1).T  # [h w, c]
                chosen = torch.randperm(len(places), generator=draw)[:each]
                offered.append(places[chosen.to(places.device)])
                source += [len(offered) - 1] * len(chosen)
        places = torch.cat(offered)
        kept = furthest(places, count, draw)
        self.store("places", places[kept])  # [n, c]
        self.store("source", torch.tensor(source, device=kept.device)[kept])  # [n], the picture each is from

    def forward(self, code: Tensor, *, without: Sequence[int] | None = None) -> Tensor:
        """The map [B, 1, h, w] of codes [B, c, h, w].

        Args:
            code: of any pictures.
            without: for each of them the number of a picture that was learnt from, whose places do not count.
        """
        if without is not None:
            rows = [self._distance(row, k) for row, k in zip(code.split(1), without, strict=True)]
        else:  # on a CPU one by one: a map does not depend on its neighbours to the last bit, and this is no slower
            rows = [self._distance(row) for row in code.split(1 if code.device.type == "cpu" else len(code))]
        return torch.cat(rows)

    def _distance(self, code: Tensor, without: int | None = None) -> Tensor:
        remembered, source = self.learnt("places"), self.learnt("source")
        z = code.movedim(1, -1).flatten(0, 2)  # [B h w, c]
        square = torch.addmm(remembered.square().sum(1), z, remembered.T, alpha=-2)  # [B h w, n]
        # One picture alone has nothing but its own places.
        if without is not None and bool((source != without).any()):
            square = square[:, source != without]
        # |z|^2 is the same for all places and so added last.
        nearest = (square.amin(1) + z.square().sum(1)).clamp_min(0) / z.shape[1]
        return nearest.view(len(code), 1, *code.shape[-2:])


def furthest(places: Tensor, count: int, draw: torch.Generator) -> Tensor:
    """Indices of at most `count` of the places [n, c]: each the furthest from those before it, by random projections.

    Projections keep distances well enough for that (Johnson & Lindenstrauss 1984), at a fraction of the cost.
    """
    if len(places) <= count:
        return torch.arange(len(places), device=places.device)
    directions = torch.randn(places.shape[1], _DIRECTIONS, generator=draw).to(places.device)
    flat = places @ directions
    chosen = [0]
    distance = (flat - flat[0]).square().sum(1)
    for _ in range(count - 1):
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, (flat - flat[chosen[-1]]).square().sum(1))
    return torch.tensor(chosen, device=places.device)


class NearestScorer(Scorer):
    """The distance of each place's code to the nearest remembered one, for each pair of stages; no denoiser is asked.

        D_g = min_k sum_{i in g} (z_i - b_ik)^2 / |g|          g: two neighbouring stages, so that both fit at once

    Each pair is compared at the positions of its deeper stage, of which there are fewest, and remembers places of its
    own. What is usual is learnt by leaving each good picture's own places out. Of a code that keeps no positions
    folded, maps have half the resolution.

    Args:
        count: places remembered of each pair, at most.
        groups: channels of each stage of a feature codec. None: all together.
        folds: of each group, the positions a side that lie in its channels, as in `ResidualScorer`. None: 1 for all.
        coarse: of each group, the positions of the code a side that one of the stage's own covers. None: 1 for all.
        first: the first group that is compared; those before it are left out.
        calibration: of each map before the mean; copied. With `Surprise` the mean is Fisher's.
        geometric: take the geometric mean.
        seed: of what is drawn.
    """

    def __init__(
        self,
        count: int,
        *,
        groups: Sequence[int] | None = None,
        folds: Sequence[int] | None = None,
        coarse: Sequence[int] | None = None,
        first: int = 0,
        calibration: Calibration | None = None,
        geometric: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.groups = groups
        stages = len(groups or (1,))
        self.folds = tuple(folds or (1,) * stages)
        self.coarse = tuple(coarse or (1,) * stages)
        self.pairs = tuple(pairwise(range(first, stages))) or ((first,),)
        self.width = len(self.pairs)
        made = nn.ModuleList(Memory(count, seed=seed) for _ in self.pairs)
        self.memories = cast("Sequence[Memory]", made)
        self.blend = Blend(self.width, calibration or GlobalCalibration(), geometric=geometric)

    @property
    def evaluations(self) -> int:
        """None."""
        return 0

    def observe(self, model: Model, image: Tensor, cond: Cond) -> Observation:
        """The code of each pair [B, c_g, h_g, w_g], in means over the positions that its deeper stage covers."""
        del cond
        z = model[1].encode(image)
        groups = (z,) if self.groups is None else z.split(tuple(self.groups), dim=1)
        if max(self.folds) > 1:
            groups = tuple(
                g if f == 1 else g.unflatten(1, (-1, f * f)).mean(2)
                for g, f in zip(groups, self.folds, strict=True)
            )
        least = SHRINK if max(self.folds) == 1 else 1
        found = []
        for pair in self.pairs:
            sides = max(least, *(self.coarse[k] for k in pair))
            joined = torch.cat([groups[k] for k in pair], dim=1)
            found.append(
                joined if sides == 1 else F.avg_pool2d(joined, sides, ceil_mode=True, count_include_pad=False)
            )
        return Observation(tuple(found))

    def weigh(self, parts: Parts) -> Tensor:
        """The map [B, 1, h, w], at the finest pair's positions."""
        return self.blend([memory(part) for memory, part in zip(self.memories, parts, strict=True)])

    def learn(self, observations: Observations) -> None:
        """Remember places, then learn what distances are usual."""
        for index, memory in enumerate(self.memories):
            memory.learn(lambda index=index: (parts[index] for parts in observations()))
        found = list(self._others(observations))  # small beside the observations
        self.blend.learn(lambda: found)

    def temper(self, strangers: Observations) -> None:
        """Correct how far distances are believed."""
        found = [[m(part) for m, part in zip(self.memories, parts, strict=True)] for parts in strangers()]
        self.blend.temper(lambda: found)

    def _others(self, observations: Observations) -> Iterator[list[Tensor]]:
        """The maps of the pictures that were learnt from, each as if it had not been."""
        first = 0
        for parts in observations():
            own = range(first, first + len(parts[0]))
            yield [m(part, without=own) for m, part in zip(self.memories, parts, strict=True)]
            first += len(own)
