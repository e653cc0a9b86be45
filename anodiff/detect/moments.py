"""Running mean and variance in float64, over as many pictures as there are."""

from __future__ import annotations

import torch
from torch import Tensor

from anodiff.errors import DataError


def finite(values: Tensor, what: str) -> Tensor:
    """`values` themselves, in float64 on the CPU, once known to be finite; DataError otherwise."""
    if not torch.isfinite(values).all():
        raise DataError(
            f"Expected finite numbers in {what} of the normal pictures, found NaN or infinity: the training "
            "has probably diverged; train again with a lower `train.learning_rate`."
        )
    return values.detach().to("cpu", torch.float64)


class Moments:
    """Count, mean and sum of squared deviations of rows that come in blocks (Chan, Golub & LeVeque 1983)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros((), dtype=torch.float64)
        self.squares = torch.zeros((), dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        """Take in `rows` [n, ...]; the statistics are over the first axis."""
        if not rows.shape[0]:
            return
        mean = rows.mean(0)
        squares = (rows - mean).square().sum(0)
        count = self.count + rows.shape[0]
        delta = mean - self.mean
        self.squares = self.squares + squares + delta.square() * (self.count * rows.shape[0] / count)
        self.mean = self.mean + delta * (rows.shape[0] / count)
        self.count = count

    @property
    def variance(self) -> Tensor:
        """The mean squared deviation (divided by the count, 0 for one row)."""
        return self.squares / max(self.count, 1)
