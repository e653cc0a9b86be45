"""Several maps made one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import cast

from torch import Tensor, nn

from anodiff.detect.calibrate import Calibration
from anodiff.detect.heatmap import to_size
from anodiff.errors import ConfigError

LEAST = 1e-6
"""Of a map before its logarithm is taken."""


class Blend(nn.Module):
    """The weighted mean of maps, each calibrated on normals before it is added.

        arithmetic: sum_i w_i m_i          geometric: exp sum_i w_i ln m_i,   for maps of at least 0

    A place is high in the geometric mean where all maps agree, in the arithmetic one where some map is high enough.

    Maps of several sizes are brought to the finest of them. `weights` default to equal ones and are
    normalised to sum to 1; `calibration` is copied once a map.
    """

    def __init__(
        self,
        count: int,
        calibration: Calibration,
        *,
        weights: Sequence[float] | None = None,
        geometric: bool = False,
    ) -> None:
        super().__init__()
        self.geometric = geometric
        self.weights = tuple(weights) if weights is not None else (1.0,) * count
        if len(self.weights) != count or min(self.weights, default=1) < 0 or sum(self.weights) <= 0:
            raise ConfigError(
                f"Expected {count} weights, none negative and not all zero, got {self.weights}."
            )
        copies = nn.ModuleList(copy.deepcopy(calibration) for _ in range(count))
        self.calibrations = cast("Sequence[Calibration]", copies)

    def learn(self, maps: Callable[[], Iterable[Sequence[Tensor]]]) -> None:
        """Calibrate each map; every call of `maps` goes once through the normals' maps, [B, 1, h, w] each."""
        for index, calibration in enumerate(self.calibrations):
            calibration.learn(row[index] for row in maps())

    def temper(self, strangers: Callable[[], Iterable[Sequence[Tensor]]]) -> None:
        """Correct each calibration by maps of normals that taught nothing, so that evidence which knows its normals by
        heart is not believed too much.
        """
        for index, calibration in enumerate(self.calibrations):
            calibration.temper(row[index] for row in strangers())

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """The blended map [B, 1, h, w] of one [B, 1, h_i, w_i] each."""
        finest = max((m.shape[-2:] for m in maps), key=lambda shape: shape[0] * shape[1])
        total = sum(self.weights)
        calibrated = [
            to_size(calibration(m), finest) for calibration, m in zip(self.calibrations, maps, strict=True)
        ]
        if self.geometric:
            calibrated = [m.clamp_min(LEAST).log() for m in calibrated]
        blended = [m * (weight / total) for m, weight in zip(calibrated, self.weights, strict=True)]
        mean = sum(blended[1:], blended[0])
        return mean.exp() if self.geometric else mean
