"""Scorers: from a picture and a model of normals to a map of what is not normal.

A scorer works in two halves. `observe` runs the networks and depends on nothing learnt from normals by the
scorer; `weigh` turns what was observed into a map with what was learnt, and is cheap. Learning, and scoring
normals as if they had not been learnt from, can so be repeated over observations that were made once.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from anodiff.cond import Cond
from anodiff.detect.blend import Blend
from anodiff.detect.calibrate import Calibration, GlobalCalibration
from anodiff.detect.distance import Distance
from anodiff.detect.encoded import Encoded
from anodiff.detect.restore import Model, Restorer, source
from anodiff.diffusion.guidance import Bind
from anodiff.diffusion.levels import spaced
from anodiff.diffusion.likelihood import terms
from anodiff.diffusion.sampling import Variance
from anodiff.errors import ConfigError

Parts = tuple[Tensor, ...]
"""What a scorer observed, one row a picture in each tensor."""

Observations = Callable[[], Iterable[Parts]]
"""Every call goes once through the observations of the normals, in the same order."""


class Maps(NamedTuple):
    """The two maps that a scorer makes of what was observed; one and the same where it makes no difference."""

    score: Tensor  # [B, 1, h, w] whose highest values make the picture's score: whether there is a defect
    place: Tensor  # [B, 1, h', w'] where it is


@dataclass(frozen=True, eq=False)
class Observation:
    """What one batch showed: the parts to be weighed, and the restoration where there is one."""

    parts: Parts
    restored: Tensor | None = None  # [B, C, H, W] in [0, 1]


class Scorer(nn.Module):
    """`(model, image, cond) -> map` [B, 1, h, w], higher = more anomalous; each states its resolution."""

    width: int
    """How many parts an observation has."""

    @property
    @abstractmethod
    def evaluations(self) -> int:
        """Evaluations of the denoiser a picture."""

    @property
    def opinions(self) -> int:
        """Evaluations of a critic a picture."""
        return 0

    @abstractmethod
    def observe(self, model: Model, image: Tensor, cond: Cond) -> Observation:
        """What the model shows of `image` [B, C, H, W] in [0, 1]."""

    @abstractmethod
    def weigh(self, parts: Parts) -> Tensor:
        """The map [B, 1, h, w] of what was observed."""

    @property
    def places(self) -> bool:
        """Whether it has a map of its own that shows where."""
        return False

    def maps(self, parts: Parts) -> Maps:
        """The map of `weigh`, and the one that shows where."""
        found = self.weigh(parts)
        return Maps(found, found)

    def learn(self, observations: Observations) -> None:
        """Learn from normals, from scratch; scorers that learn nothing do nothing."""

    def temper(self, strangers: Observations) -> None:
        """Correct what was learnt by normals that the networks were not trained on; most scorers need no such thing."""

    def forward(self, model: Model, image: Tensor, cond: Cond) -> Tensor:
        """The map [B, 1, h, w] of `image` [B, C, H, W] in [0, 1]."""
        return self.weigh(self.observe(model, image, cond).parts)


class RestorationScorer(Scorer):
    """One restoration measured by one or more distances; at the finest resolution among their maps.

    Each map is calibrated globally on normals before the weighted mean is taken.
    """

    def __init__(
        self, restorer: Restorer, distances: Sequence[Distance], *, weights: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        if not distances:
            raise ConfigError("A restoration scorer needs at least one distance, got none.")
        self.restorer = restorer
        self.distances = tuple(distances)
        self.networks = nn.ModuleList(
            d for d in self.distances if isinstance(d, nn.Module)
        )  # moved and saved with us
        self.width = len(self.distances)
        self.blend = Blend(self.width, GlobalCalibration(), weights=weights)

    @property
    def evaluations(self) -> int:
        """Those of the restorer."""
        return self.restorer.evaluations

    def observe(self, model: Model, image: Tensor, cond: Cond) -> Observation:
        """The maps, one a distance."""
        restoration = self.restorer(model, image, cond)
        return Observation(tuple(distance(restoration) for distance in self.distances), restoration.image_hat)

    def weigh(self, parts: Parts) -> Tensor:
        """The map [B, 1, h, w]."""
        return self.blend(parts)

    def learn(self, observations: Observations) -> None:
        """Learn each map's calibration."""
        self.blend.learn(observations)


class BoundScorer(Scorer):
    """The variational bound's terms at each place, in bits a dimension, summed over levels; codec resolution.

    The grid has `steps` levels from `level` down, each with one evaluation: what it would cost to describe
    the picture with the model of normals, below the chosen noise level. `bins` is the number of values a
    channel can take (256 for pixels) and adds the decoder's term at the lowest level; None for latents and
    features, which are continuous. Learns nothing. Source: arXiv:2006.11239 eq. 5, by place.
    """

    width = 1

    def __init__(
        self, level: float, steps: int, *, variance: Variance = "small", bins: int | None = None
    ) -> None:
        super().__init__()
        self.level = level
        self.steps = steps
        self.variance: Variance = variance
        self.bins = bins

    @property
    def evaluations(self) -> int:
        """One a level; the lowest has a term with `bins` only."""
        return self.steps if self.bins is not None else self.steps - 1

    def observe(self, model: Model, image: Tensor, cond: Cond) -> Observation:
        """The summed terms [B, 1, h, w]."""
        denoiser, codec = model
        z = codec.encode(image)  # [B, c, h, w]
        grid = spaced(denoiser.levels, self.steps, start=self.level)
        found = terms(
            Bind(denoiser, cond), z, grid, noise=source(cond), variance=self.variance, bins=self.bins
        )
        return Observation((torch.stack([term for _, term in found]).sum(0),))

    def weigh(self, parts: Parts) -> Tensor:
        """The map [B, 1, h, w]."""
        return parts[0]


class Fused(Scorer):
    """The weighted mean of other scorers' maps, each calibrated on normals before it is added; the finest
    resolution. Where is shown by the first of them that has a map of its own for that.

    Args:
        scorers: what is looked at.
        calibration: copied once a scorer.
        weights: of the scorers; equal ones by default.
        geometric: take the geometric mean, high where all agree; for maps of at least 0.
        shared: encode a batch once for all scorers; for scorers that encode the pictures they are given and no others.
    """

    def __init__(
        self,
        scorers: Sequence[Scorer],
        *,
        calibration: Calibration | None = None,
        weights: Sequence[float] | None = None,
        geometric: bool = False,
        shared: bool = False,
    ) -> None:
        super().__init__()
        self.shared = shared
        if not scorers:
            raise ConfigError("A fusion needs at least one scorer, got none.")
        self.scorers = cast("Sequence[Scorer]", nn.ModuleList(scorers))
        self.width = sum(scorer.width for scorer in scorers)
        self.blend = Blend(
            len(scorers), calibration or GlobalCalibration(), weights=weights, geometric=geometric
        )

    @property
    def evaluations(self) -> int:
        """The sum over scorers."""
        return sum(scorer.evaluations for scorer in self.scorers)

    @property
    def opinions(self) -> int:
        """The sum over scorers."""
        return sum(scorer.opinions for scorer in self.scorers)

    def observe(self, model: Model, image: Tensor, cond: Cond) -> Observation:
        """The parts of all scorers, one after the other; the first restoration among them."""
        if self.shared:
            denoiser, codec = model
            model = (denoiser, Encoded(codec, codec.encode(image)))
        found = [scorer.observe(model, image, cond) for scorer in self.scorers]
        restored = next((o.restored for o in found if o.restored is not None), None)
        return Observation(sum((o.parts for o in found), ()), restored)

    @property
    def places(self) -> bool:
        """Whether one of the scorers has a map of its own that shows where."""
        return any(scorer.places for scorer in self.scorers)

    def weigh(self, parts: Parts) -> Tensor:
        """The map [B, 1, h, w]."""
        return self.blend(self._maps(parts))

    def maps(self, parts: Parts) -> Maps:
        """The fused map, and the one that shows where."""
        found = [scorer.maps(own) for scorer, own in zip(self.scorers, self._split(parts), strict=True)]
        score = self.blend([maps.score for maps in found])
        shown = (maps.place for maps, scorer in zip(found, self.scorers, strict=True) if scorer.places)
        return Maps(score, next(shown, score))

    def learn(self, observations: Observations) -> None:
        """Teach each scorer, then calibrate its map."""
        for index, scorer in enumerate(self.scorers):
            scorer.learn(lambda index=index: (self._split(parts)[index] for parts in observations()))
        self.blend.learn(lambda: (self._maps(parts) for parts in observations()))

    def temper(self, strangers: Observations) -> None:
        """Correct each scorer, then its map's calibration."""
        for index, scorer in enumerate(self.scorers):
            scorer.temper(lambda index=index: (self._split(parts)[index] for parts in strangers()))
        self.blend.temper(lambda: (self._maps(parts) for parts in strangers()))

    def _maps(self, parts: Parts) -> list[Tensor]:
        return [scorer.weigh(own) for scorer, own in zip(self.scorers, self._split(parts), strict=True)]

    def _split(self, parts: Parts) -> list[Parts]:
        split, start = [], 0
        for scorer in self.scorers:
            split.append(parts[start : start + scorer.width])
            start += scorer.width
        return split
