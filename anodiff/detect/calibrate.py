"""What is usual for a map on normal pictures, so that maps of different origin can be compared and added.

Everything is learnt from normals beforehand and then fixed: a picture's map never depends on its own
extremes or on the pictures scored beside it.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from anodiff.detect.heatmap import blur
from anodiff.detect.moments import Moments, finite
from anodiff.errors import ConfigError, DataError
from anodiff.learnt import Learnt


class Calibration(Learnt):
    """A map after what is usual on normals is taken away: `(map - mean) / deviation`."""

    others = False
    """Whether it is best learnt from maps of normals that had no part in what the maps were made by."""

    def __init__(self) -> None:
        super().__init__()
        self.expect("mean", "deviation")

    def learn(self, maps: Iterable[Tensor]) -> None:
        """Learn from the maps [B, 1, h, w] of normal pictures, in one pass and from scratch."""
        raise NotImplementedError

    def temper(self, maps: Iterable[Tensor]) -> None:
        """Correct what was learnt, by maps [B, 1, h, w] of normals that taught nothing; most need no such thing."""

    def keep(self, mean: Tensor, deviation: Tensor) -> None:
        """Store what was learnt; a deviation of zero (constant maps) becomes a tiny one."""
        least = 1e-6 * float(mean.abs().max()) + 1e-12
        self.store("mean", mean)
        self.store("deviation", deviation.clamp_min(least))

    def forward(self, maps: Tensor) -> Tensor:
        """The calibrated maps [B, 1, h, w]: mean near 0 and deviation near 1 on normals."""
        mean, deviation = self.learnt("mean"), self.learnt("deviation")
        if mean.dim() and mean.shape != maps.shape[-2:]:
            raise ConfigError(
                f"The calibration was learnt on maps of {tuple(mean.shape)} positions, this one has "
                f"{tuple(maps.shape[-2:])}: score at the working size, or learn a global calibration."
            )
        return (maps - mean) / deviation


class NoCalibration(Calibration):
    """The map as it is."""

    def learn(self, maps: Iterable[Tensor]) -> None:
        """Learn nothing."""

    def forward(self, maps: Tensor) -> Tensor:
        """`maps` themselves."""
        return maps


class GlobalCalibration(Calibration):
    """One mean and one deviation for all positions of all normals' maps."""

    others = True

    def learn(self, maps: Iterable[Tensor]) -> None:
        """Learn from the maps [B, 1, h, w] of normal pictures, which may differ in size."""
        seen = Moments()
        for block in maps:
            seen.add(finite(block, "the maps").flatten())
        if not seen.count:
            raise DataError(
                "Expected maps of normal pictures to calibrate on, got none: hold some good pictures out."
            )
        self.keep(seen.mean, seen.variance.sqrt())


class PositionCalibration(Calibration):
    """A mean and a deviation per position, for parts that lie alike in every picture.

    The moments are first shared with the neighbourhood (a Gaussian of `reach` map pixels over the raw
    moments, which treats near positions as more samples), then shrunk, since n normals say little about one
    position:

        mean_p = g + w (m_p - g),   w = tau^2 / (tau^2 + s^2 / n)     (empirical Bayes, Efron & Morris 1973)
        var_p  = ((n - 1) v_p + d s^2) / (n - 1 + d) * (1 + 1 / n)    (moderated variance, Smyth 2004)

    with g the global mean, s^2 the pooled variance within a position, tau^2 the variance between positions
    and `prior` = d the number of pictures the pooled variance is worth; 1 + 1/n is the doubt about the mean
    itself. One picture alone tells nothing of the spread within a position and gives the global calibration.
    """

    def __init__(self, *, reach: float = 1.0, prior: float = 4.0) -> None:
        super().__init__()
        self.reach = reach
        self.prior = prior

    def learn(self, maps: Iterable[Tensor]) -> None:
        """Learn from the maps [B, 1, h, w] of normal pictures, all of one size."""
        seen = Moments()
        for block in maps:
            if seen.count and block.shape[-2:] != seen.mean.shape:
                raise DataError(
                    f"A calibration per position needs maps of one size, got {tuple(seen.mean.shape)} and "
                    f"then {tuple(block.shape[-2:])}: bring the pictures to one working size."
                )
            seen.add(finite(block, "the maps")[:, 0])
        n = seen.count
        if not n:
            raise DataError(
                "Expected maps of normal pictures to calibrate on, got none: hold some good pictures out."
            )
        centre = seen.mean.mean()
        total = seen.variance.mean() + seen.mean.var(correction=0)
        if n == 1:
            self.keep(centre.expand_as(seen.mean), total.sqrt().expand_as(seen.mean))
            return
        offset = seen.mean - centre  # [h, w]
        mean = self._shared(offset)
        variance = (self._shared(seen.squares / (n - 1) + offset.square()) - mean.square()).clamp_min(0)
        within = variance.mean()
        between = (mean.var(correction=0) - within / n).clamp_min(0)
        trust = between / (between + within / n).clamp_min(1e-300)
        variance = ((n - 1) * variance + self.prior * within) / (n - 1 + self.prior) * (1 + 1 / n)
        self.keep(centre + trust * mean, variance.sqrt())

    def _shared(self, field: Tensor) -> Tensor:
        return blur(field[None, None], self.reach)[0, 0]
