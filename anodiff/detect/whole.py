"""How usual a picture is as a whole: the means and deviations of its features, whatever lies where."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from anodiff.cond import Cond
from anodiff.detect.calibrate import GlobalCalibration
from anodiff.detect.residual import ResidualCovariance, ResidualVariance
from anodiff.detect.restore import Model
from anodiff.detect.scorer import Observation, Observations, Parts, Scorer
from anodiff.detect.surprise import Surprise
from anodiff.errors import DataError

FOLDS = 5
"""Parts of the normals; what distances are usual is learnt from each by what the others taught."""

BODY = 0.9
"""Share of the distances that the empirical law describes: there is one a picture, not one a place."""


class WholeScorer(Scorer):
    """One number for the whole picture, the same at every place: how surprising the statistics of its features are.

        s = (mean_1 ... mean_c, deviation_1 ... deviation_c)     over positions, each scaled by how normals vary in it
        D = (s - m)^T S^-1 (s - m) / 2c                          S shrunk after Ledoit and Wolf
        map = -ln P(D' >= D) on normals                          D' of normals by what the others taught (`FOLDS`)

    The highest places of a map tell a defect that lies somewhere. What lies everywhere and is strong nowhere, as uneven
    light on a surface, a darker cell or another grain, moves the mean of a picture's features instead, over which the
    chance of single places cancels. First and second moments of deep features as what a picture looks like as a whole:
    Huang & Belongie, arXiv:1703.06868; a Gaussian of pooled features to detect: Rippel et al., arXiv:2005.14140.

    Args:
        stages: from a code [B, c, h, w] to the maps [B, c_i, h_i, w_i] whose statistics are taken; of features those
            before whitening, in which what varies together counts once. None: the code itself.
        first: the first of them that counts.
    """

    width = 1

    def __init__(self, stages: Callable[[Tensor], Sequence[Tensor]] | None = None, *, first: int = 0) -> None:
        super().__init__()
        self.stages = stages or _alone
        self.first = first
        self.law = _Gaussian()
        self.surprise = Surprise(reach=0.0, usual=GlobalCalibration(), body=BODY)

    @property
    def evaluations(self) -> int:
        """None."""
        return 0

    def observe(self, model: Model, image: Tensor, cond: Cond) -> Observation:
        """The statistics [B, 2 c, 1, 1]."""
        del cond
        maps = list(self.stages(model[1].encode(image)))
        return Observation((statistics(maps[min(self.first, len(maps) - 1) :]),))

    def weigh(self, parts: Parts) -> Tensor:
        """The surprise [B, 1, 1, 1]."""
        return self.surprise(self.law(parts[0]))

    def learn(self, observations: Observations) -> None:
        """Learn what distances are usual, each by what other pictures taught, then the law from all."""
        seen = [part for (part,) in observations()]
        if not seen:
            raise DataError("Expected good pictures to learn what is usual from, got none: hold some out.")
        found = torch.cat(seen)  # [n, 2 c, 1, 1]
        fold = torch.arange(len(found), device=found.device) % FOLDS
        usual = []
        for k in range(min(FOLDS, len(found))):
            others = found[fold != k] if len(found) > 1 else found
            self.law.learn(others)
            usual.append(self.law(found[fold == k]))
        self.surprise.learn(usual)
        self.law.learn(found)


class _Gaussian(nn.Module):
    """Statistics of pictures, each scaled by what it varies, and their squared Mahalanobis distance per number."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = ResidualVariance(floor=1e-6)
        self.covariance = ResidualCovariance()

    def learn(self, rows: Tensor) -> None:
        """Learn from the statistics [n, d, 1, 1] of normals, from scratch."""
        self.scale.learn([rows])
        self.covariance.learn([self._scaled(rows)])

    def forward(self, rows: Tensor) -> Tensor:
        """The distances [B, 1, 1, 1]."""
        return self.covariance(self._scaled(rows))

    def _scaled(self, rows: Tensor) -> Tensor:
        return (rows - self.scale.learnt("mean")) * self.scale.learnt("scale")


def statistics(maps: Sequence[Tensor]) -> Tensor:
    """Mean and deviation over the positions of each channel of maps [B, c_i, h_i, w_i]: [B, 2 sum c_i, 1, 1]."""
    flat = [m.flatten(2) for m in maps]
    found = [f.mean(2) for f in flat] + [f.std(2, correction=0) for f in flat]
    return torch.cat(found, dim=1)[:, :, None, None]


def _alone(z: Tensor) -> Sequence[Tensor]:
    return (z,)
