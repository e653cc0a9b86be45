"""How far each place of a picture is from the nearest one that good parts have shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from anodiff.cond import Cond
from anodiff.detect.blend import Blend
from anodiff.detect.calibrate import Calibration, GlobalCalibration
from anodiff.detect.moments import finite
from anodiff.detect.restore import Model
from anodiff.detect.scorer import Observation, Observations, Parts, Scorer
from anodiff.errors import ConfigError, DataError
from anodiff.learnt import Learnt

SHRINK = 2
"""Sides of the squares of positions that a place is the mean of: neighbours say nearly the same."""

OFFERED = 8
"""Places looked at for each that is remembered."""

_DIRECTIONS = 48  # random ones, in which the places that differ most are looked for


class Memory(Learnt):
    """Places of good parts, and the squared distances of others to the nearest of them.

        D_g = min_k sum_{i in g} (z_i - b_ik)^2 / |g|          for each set g of channels

    The `count` places b_k are those that leave none of the good parts' far away: each is the one that is furthest from
    those before it (greedy k-centre; Sener & Savarese, arXiv:1708.00489; for anomalies PatchCore, arXiv:2106.08265,
    section 3.2), among `OFFERED` times as many drawn evenly from all pictures.

    Args:
        count: places remembered, at most.
        groups: channels of each stage. None: all together.
        seed: of what is drawn.
    """

    def __init__(self, count: int, *, groups: Sequence[int] | None = None, seed: int = 0) -> None:
        super().__init__()
        if count < 1:
            raise ConfigError(f"Expected to remember 1 place or more, got {count}.")
        self.count = count
        self.groups = None if groups is None else tuple(groups)
        self.seed = seed
        self.expect("places", "source")

    @property
    def sets(self) -> tuple[tuple[int, ...], ...]:
        """The stages whose channels make up each distance: neighbours in pairs, so that both have to fit at once."""
        stages = range(len(self.groups or (1,)))
        return tuple(pairwise(stages)) or (tuple(stages),)

    def learn(self, codes: Callable[[], Iterable[Tensor]]) -> None:
        """Learn from the codes [B, c, h, w] of good pictures, from scratch; `codes` is called twice.

        Raises:
            DataError: no picture, or numbers that are not finite.
        """
        pictures = sum(len(block) for block in codes())
        if not pictures:
            raise DataError("Expected good pictures to remember places of, got none: hold some out.")
        draw = torch.Generator().manual_seed(self.seed)
        each = -(-OFFERED * self.count // pictures)
        offered, source = [], []
        for block in codes():
            for row in finite(block, "the codes").float():  # [c, h, w]
                places = row.flatten(1).T  # [h w, c]
                chosen = torch.randperm(len(places), generator=draw)[:each]
                offered.append(places[chosen.to(places.device)])
                source += [len(offered) - 1] * len(chosen)
        places = torch.cat(offered)
        kept = furthest(places, self.count, draw)
        self.store("places", places[kept])  # [n, c]
        self.store("source", torch.tensor(source, device=kept.device)[kept])  # [n], the picture each is from

    def forward(self, code: Tensor, *, without: Sequence[int] | None = None) -> list[Tensor]:
        """The maps [B, 1, h, w] of codes [B, c, h, w], one a set.

        Args:
            code: of any pictures.
            without: for each of them the number of a picture that was learnt from, whose places do not count.
        """
        if without is not None:
            rows = [self._distances(row, k) for row, k in zip(code.split(1), without, strict=True)]
        else:  # on a CPU one by one: a map does not depend on its neighbours to the last bit, and this is no slower
            rows = [self._distances(row) for row in code.split(1 if code.device.type == "cpu" else len(code))]
        return [torch.cat(maps) for maps in zip(*rows, strict=True)]

    def _distances(self, code: Tensor, without: int | None = None) -> list[Tensor]:
        remembered, source = self.learnt("places"), self.learnt("source")
        groups = self.groups or (code.shape[1],)
        z = code.movedim(1, -1).flatten(0, 2)  # [B h w, c]
        pairs = list(zip(z.split(groups, dim=1), remembered.split(groups, dim=1), strict=True))
        own = [a.square().sum(1) for a, _ in pairs]  # [B h w], the same for all places and so added last
        squares = [torch.addmm(b.square().sum(1), a, b.T, alpha=-2) for a, b in pairs]  # [B h w, n]
        # One picture alone has nothing but its own places.
        if without is not None and bool((source != without).any()):
            squares = [square[:, source != without] for square in squares]
        found = []
        for stages in self.sets:
            total = sum((squares[k] for k in stages[1:]), squares[stages[0]])
            nearest = (total.amin(1) + sum(own[k] for k in stages)).clamp_min(0) / sum(
                groups[k] for k in stages
            )
            found.append(nearest.view(len(code), 1, *code.shape[-2:]))
        return found


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

    What is usual is learnt by leaving each good picture's own places out. Maps have half the codec's resolution; of a
    code that keeps positions folded, its own.

    Args:
        count: places remembered.
        groups: channels of each stage of a feature codec. None: all together.
        folds: of each group, the positions a side that lie in its channels, as in `ResidualScorer`. None: 1 for all.
        first: the first group that is compared; those before it are left out.
        calibration: of each map before the mean; copied. With `Surprise` the mean is Fisher's.
        geometric: take the geometric mean.
        seed: of what is drawn.
    """

    width = 1

    def __init__(
        self,
        count: int,
        *,
        groups: Sequence[int] | None = None,
        folds: Sequence[int] | None = None,
        first: int = 0,
        calibration: Calibration | None = None,
        geometric: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.groups = groups
        self.folds = tuple(folds or (1,) * len(groups or (1,)))
        self.first = first
        each = [g // f**2 for g, f in zip(groups or (), self.folds, strict=False)][first:]
        self.memory = Memory(count, groups=each or None, seed=seed)
        self.blend = Blend(len(self.memory.sets), calibration or GlobalCalibration(), geometric=geometric)

    @property
    def evaluations(self) -> int:
        """None."""
        return 0

    def observe(self, model: Model, image: Tensor, cond: Cond) -> Observation:
        """The code in means of squares: [B, c, h / 2, w / 2], or [B, c, h, w] where it is folded."""
        del cond
        z = model[1].encode(image)
        groups = ((z,) if self.groups is None else z.split(tuple(self.groups), dim=1))[self.first :]
        if max(self.folds) == 1:
            z = torch.cat(groups, dim=1)
            return Observation((F.avg_pool2d(z, SHRINK, ceil_mode=True, count_include_pad=False),))
        folds = self.folds[self.first :]
        means = [g.unflatten(1, (-1, f * f)).mean(2) for g, f in zip(groups, folds, strict=True)]
        return Observation((torch.cat(means, dim=1),))

    def weigh(self, parts: Parts) -> Tensor:
        """The map [B, 1, h / 2, w / 2]."""
        return self.blend(self.memory(parts[0]))

    def learn(self, observations: Observations) -> None:
        """Remember places, then learn what distances are usual."""
        self.memory.learn(lambda: (code for (code,) in observations()))
        found = list(self._others(observations))  # small beside the observations
        self.blend.learn(lambda: found)

    def temper(self, strangers: Observations) -> None:
        """Correct how far distances are believed."""
        found = [self.memory(code) for (code,) in strangers()]
        self.blend.temper(lambda: found)

    def _others(self, observations: Observations) -> Iterator[list[Tensor]]:
        """The maps of the pictures that were learnt from, each as if it had not been."""
        first = 0
        for (code,) in observations():
            yield self.memory(code, without=range(first, first + len(code)))
            first += len(code)
