"""What a model of normals would not have painted there: the residual of one denoising step, weighed by its law."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from anodiff.cond import Cond
from anodiff.detect.blend import Blend
from anodiff.detect.calibrate import Calibration, GlobalCalibration
from anodiff.detect.residual import ResidualLaw
from anodiff.detect.restore import Blank, Model, OneStep, Restorer, paint
from anodiff.detect.scorer import Maps, Observation, Observations, Parts, Scorer
from anodiff.detect.surprise import Surprise
from anodiff.errors import ConfigError


class ResidualScorer(Scorer):
    """The residual `z - z_hat` of one or more restorers, each weighed by its own law on normals.

    Each map is calibrated on normals before the mean is taken. Works in any codec's space; where the codec
    paints, the last restorer's picture comes along. Maps have the codec's resolution, of folded groups a finer one.

    Whether there is a defect and where it is are two questions. The score has to compare pictures, and does so best
    by what is usual at each place; the map has to compare places, which goes by one law for all of them, and gains
    from stages too fine to tell good pictures from bad ones. With `sharp` the second map is there:

        place = exp mean_k ln(-ln p_k),   p_k the p-value of group k's map under one law for all positions

    and asks the first restorer alone: at the lowest level, best at 0, where no noise blurs a place.

    Args:
        restorers: one a level, the lowest first where `sharp`.
        weigh_by: copied once a map.
        groups: channels that are weighed by themselves, such as those of each stage of a network; they sum to
            c. None: all together, one map a restorer.
        folds: of each group, the positions a side that lie in its channels (space to depth), as a feature codec folds
            those of its finer stages; they are unfolded before they are weighed. None: 1 for all.
        first: the first group that counts for the score; those before it show where only.
        calibration: of each map before the mean; copied likewise. With `Surprise` the mean is Fisher's.
        geometric: take the geometric mean, high where all maps agree; for maps of at least 0, as those of `Surprise`.
        sharp: make a map of its own that shows where.
    """

    def __init__(
        self,
        restorers: Sequence[Restorer],
        weigh_by: ResidualLaw,
        *,
        groups: Sequence[int] | None = None,
        folds: Sequence[int] | None = None,
        first: int = 0,
        calibration: Calibration | None = None,
        geometric: bool = False,
        sharp: bool = False,
    ) -> None:
        super().__init__()
        if not restorers:
            raise ConfigError("A residual scorer needs at least one restorer (one noise level), got none.")
        self.restorers = tuple(restorers)
        self.groups = None if groups is None else tuple(groups)
        each = len(self.groups or (1,))
        self.folds = tuple(folds) if folds is not None else (1,) * each
        if not 0 <= first < each or len(self.folds) != each:
            raise ConfigError(
                f"Expected a first group below {each} and as many folds, got {first} and {self.folds}."
            )
        self.width = len(self.restorers) * each
        self.heard = tuple(k for k in range(self.width) if k % each >= first)
        self.weighers = cast(
            "Sequence[ResidualLaw]", nn.ModuleList(copy.deepcopy(weigh_by) for _ in range(self.width))
        )
        self.blend = Blend(len(self.heard), calibration or GlobalCalibration(), geometric=geometric)
        self.sight = (
            Blend(each, Surprise(reach=0.0, usual=GlobalCalibration()), geometric=True) if sharp else None
        )

    @property
    def evaluations(self) -> int:
        """The sum over restorers."""
        return sum(restorer.evaluations for restorer in self.restorers)

    @property
    def places(self) -> bool:
        """Whether it is sharp."""
        return self.sight is not None

    def observe(self, model: Model, image: Tensor, cond: Cond) -> Observation:
        """The residuals [B, c, h, w], of each restorer one a group."""
        denoiser, codec = model
        z = codec.encode(image)  # [B, c, h, w]
        found = [restorer.estimate(denoiser, z, cond) for restorer in self.restorers]
        parts = tuple(part for z_hat in found for part in self._grouped(z - z_hat))
        return Observation(parts, paint(codec, found[-1]))

    def weigh(self, parts: Parts) -> Tensor:
        """The map [B, 1, h, w]."""
        return self.maps(parts).score

    def maps(self, parts: Parts) -> Maps:
        """The map of the score, and the one that shows where."""
        found = self._distances(parts)
        score = self.blend(self._heard(found))
        return Maps(score, score if self.sight is None else self.sight(self._sighted(found)))

    def learn(self, observations: Observations) -> None:
        """Learn each residual's law, then its map's calibration."""
        for index, weigher in enumerate(self.weighers):
            weigher.learn(parts[index] for parts in observations())
        # One channel each: small beside the residuals.
        found = [
            [weigher.left_out(part) for weigher, part in zip(self.weighers, parts, strict=True)]
            for parts in observations()
        ]
        self.blend.learn(lambda: (self._heard(maps) for maps in found))
        if self.sight is not None:
            self.sight.learn(lambda: (self._sighted(maps) for maps in found))

    def temper(self, strangers: Observations) -> None:
        """Correct the maps' calibrations."""
        found = [self._distances(parts) for parts in strangers()]
        self.blend.temper(lambda: (self._heard(maps) for maps in found))
        if self.sight is not None:
            self.sight.temper(lambda: (self._sighted(maps) for maps in found))

    def _distances(self, parts: Parts) -> list[Tensor]:
        return [weigher(part) for weigher, part in zip(self.weighers, parts, strict=True)]

    def _heard(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return [maps[k] for k in self.heard]

    def _sighted(self, maps: Sequence[Tensor]) -> Sequence[Tensor]:
        return maps[: len(self.folds)]

    def _grouped(self, residual: Tensor) -> list[Tensor]:
        """The residual divided into its groups of channels, each at its own size."""
        groups = [residual] if self.groups is None else residual.split(self.groups, dim=1)
        return [F.pixel_shuffle(g, f) if f > 1 else g for g, f in zip(groups, self.folds, strict=True)]


def one_steps(sigmas: Sequence[float], *, draws: int = 1) -> tuple[Restorer, ...]:
    """A restorer a level: the denoiser's estimate of x0 in one evaluation a draw, which a residual scorer compares.

    `r = z - D(z + sigma n; sigma)` is what the model of normals would not have painted there. At `draws` = 2 the noise
    is taken with both signs. At a level of 0 the residual is the code itself (`Blank`).
    """
    return tuple(OneStep(sigma, draws) if sigma > 0 else Blank() for sigma in sigmas)
