"""From a map to the one number of its picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from anodiff.errors import ConfigError

Pool = Callable[[Tensor], Tensor]
"""Map [B, 1, h, w] -> score [B]; a row's score depends on that row alone."""


@dataclass(frozen=True)
class Maximum:
    """The highest value of the map: finds the smallest defects, and is moved by a single pixel."""

    def __call__(self, maps: Tensor) -> Tensor:
        """Scores [B] of maps [B, 1, h, w]."""
        return maps.amax(dim=(1, 2, 3))  # [B]


@dataclass(frozen=True)
class TopShare:
    """The mean of the highest `share` of the map, in (0, 1]; at least one pixel, and 1 is the plain mean."""

    share: float = 0.01

    def __call__(self, maps: Tensor) -> Tensor:
        """Scores [B] of maps [B, 1, h, w]."""
        if not 0 < self.share <= 1:
            raise ConfigError(
                f"The share of a map to pool must be in (0, 1], got {self.share}; .01 is a usual choice."
            )
        flat = maps.flatten(1)  # [B, h*w]
        count = max(1, round(self.share * flat.shape[1]))
        return flat.topk(count, dim=1, sorted=False).values.mean(1)  # [B]
