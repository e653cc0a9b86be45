"""How surprising a map is, as p-values on normals: what makes evidence of different kinds comparable."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from anodiff.detect.calibrate import Calibration, PositionCalibration
from anodiff.detect.heatmap import blur
from anodiff.detect.moments import finite
from anodiff.errors import DataError

GRID = 256
"""Quantiles kept of the body of the law."""

BODY = 0.98
"""Share of the normals' values that the empirical law describes; the rest is its tail."""


class Surprise(Calibration):
    """`-ln p` of a map of positive values at each place, p its calibrated p-value on normals; at least 0.

        u = (ln blur(map) - mean_p) / deviation_p                    what is usual at each position, and around it
        p = P(U >= u) on normals, all positions together             empirical up to the `BODY` quantile t
        p = (1 - BODY) exp(-(u - t) / b),   b = mean of U - t above t                              beyond it

    The tail is the exponential one of peaks over a threshold (Pickands 1975; Davison & Smith 1990, shape 0), so that
    a place more unusual than any normal is still ranked. The mean of several such maps is Fisher's way to fuse p-values
    (Fisher 1925: -2 sum ln p), up to a factor: a kind of evidence whose normals have a heavy tail convinces less.

    Args:
        reach: deviation of the Gaussian over the map before it is judged, in its own cells.
        usual: mean and deviation of the logarithm; by default per position, for parts that lie alike. One for all
            positions ranks the places of a picture as the map does.
    """

    def __init__(self, *, reach: float = 1.0, usual: Calibration | None = None) -> None:
        super().__init__()
        self.reach = reach
        self.position = usual or PositionCalibration()
        self.expect("quantiles", "scale")

    def learn(self, maps: Iterable[Tensor]) -> None:
        """Learn from the maps [B, 1, h, w] of normal pictures, all of one size, from scratch.

        Raises:
            DataError: no map, or numbers that are not finite.
        """
        kept = [self._log(block) for block in maps]
        if not kept:
            raise DataError(
                "Expected maps of normal pictures to learn p-values from, got none: hold some out."
            )
        self.position.learn(kept)
        self._law(kept)

    def temper(self, maps: Iterable[Tensor]) -> None:
        """Learn the p-values anew from maps [B, 1, h, w] of normals that taught nothing so far; the positions stay."""
        if kept := [self._log(block) for block in maps]:
            self._law(kept)

    def _law(self, kept: Sequence[Tensor]) -> None:
        u = torch.cat([finite(self.position(block), "the maps").flatten() for block in kept]).sort().values
        places = torch.linspace(0, BODY, GRID, dtype=torch.float64) * (len(u) - 1)
        quantiles = u[places.long()]  # [GRID]
        excess = u[u > quantiles[-1]] - quantiles[-1]
        self.store("quantiles", quantiles)
        self.store("scale", (excess.mean() if len(excess) else u.new_tensor(1.0)).clamp_min(1e-3))

    def forward(self, maps: Tensor) -> Tensor:
        """The surprise [B, 1, h, w] of maps [B, 1, h, w]."""
        u = self.position(self._log(maps))
        quantiles, scale = self.learnt("quantiles"), self.learnt("scale")
        above = torch.searchsorted(quantiles, u.contiguous()).clamp(1, GRID - 1)  # the first quantile >= u
        low, high = quantiles[above - 1], quantiles[above]
        share = ((u - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
        body = -torch.log1p(-BODY * (above - 1 + share) / (GRID - 1))
        tail = (u - quantiles[-1]).clamp_min(0) / scale
        return body + tail

    def _log(self, maps: Tensor) -> Tensor:
        return blur(maps.clamp_min(1e-12).log(), self.reach)
