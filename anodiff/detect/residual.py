"""How large a residual is, measured by what residuals of normal pictures look like."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from anodiff.detect.moments import Moments, finite
from anodiff.errors import DataError
from anodiff.learnt import Learnt


class ResidualSquares(Learnt):
    """The plain mean square over channels: learns nothing."""

    def learn(self, residuals: Iterable[Tensor]) -> None:
        """Learn nothing."""

    def forward(self, residual: Tensor) -> Tensor:
        """Maps [B, 1, h, w] of residuals [B, c, h, w]: `sum_c r_c^2 / c`."""
        return residual.square().mean(1, keepdim=True)  # [B, 1, h, w]


class ResidualVariance(Learnt):
    """Each channel by its own mean and variance on normals: `sum_c (r_c - m_c)^2 / v_c / c`, about 1 on
    normals.

    `floor`: the least variance of a channel, as a share of the mean variance.
    """

    def __init__(self, *, floor: float = 1e-3) -> None:
        super().__init__()
        self.floor = floor
        self.expect("mean", "scale")

    def learn(self, residuals: Iterable[Tensor]) -> None:
        """Learn from the residuals [B, c, h, w] of normal pictures, in one pass and from scratch."""
        seen = Moments()
        for block in residuals:
            seen.add(rows(block))
        if not seen.count:
            raise DataError("Expected residuals of normal pictures, got none: hold some good pictures out.")
        variance = seen.variance
        self.store("mean", seen.mean[:, None, None])  # [c, 1, 1]
        self.store("scale", variance.clamp_min(least(variance, self.floor)).rsqrt()[:, None, None])

    def forward(self, residual: Tensor) -> Tensor:
        """Maps [B, 1, h, w] of residuals [B, c, h, w]."""
        return (
            ((residual - self.learnt("mean")) * self.learnt("scale")).square().mean(1, keepdim=True)
        )  # [B, 1, h, w]


class ResidualCovariance(Learnt):
    """The squared Mahalanobis distance of a residual to those of normals, per channel: about 1 on normals.

        map = ||W (r - m)||^2 / c,   W = L^{-1/2} U^T,   U L U^T = (1 - a) S + a (tr S / c) I

    with m and S the mean and covariance over all positions of the normals' residuals (float64, one pass) and
    W applied as one 1x1 convolution. `shrinkage` = a in [0, 1], or None for the one of Ledoit & Wolf (2004,
    J. Multivar. Anal. 88), which takes neighbouring positions as independent and is therefore a small one;
    `floor` then holds the eigenvalues up, as a share of their mean, so that directions in which normals
    hardly vary do not rule the map.
    """

    def __init__(self, *, shrinkage: float | None = None, floor: float = 1e-3) -> None:
        super().__init__()
        self.shrinkage = shrinkage
        self.floor = floor
        self.expect("whiten", "shift")

    def learn(self, residuals: Iterable[Tensor]) -> None:
        """Learn from the residuals [B, c, h, w] of normal pictures, in one pass and from scratch."""
        seen = Scatter()
        for block in residuals:
            seen.add(rows(block))
        if not seen.count:
            raise DataError("Expected residuals of normal pictures, got none: hold some good pictures out.")
        mean, covariance = seen.mean, seen.covariance
        share = seen.ledoit_wolf() if self.shrinkage is None else self.shrinkage
        size = covariance.diagonal().mean()
        covariance = (1 - share) * covariance + share * size * torch.eye(len(mean), dtype=torch.float64)
        values, vectors = torch.linalg.eigh(covariance)
        whiten = values.clamp_min(least(values, self.floor)).rsqrt()[:, None] * vectors.T  # [c, c]
        self.store("whiten", whiten[:, :, None, None])  # [c, c, 1, 1]
        self.store("shift", -(whiten @ mean))  # [c]

    def forward(self, residual: Tensor) -> Tensor:
        """Maps [B, 1, h, w] of residuals [B, c, h, w]."""
        return (
            F.conv2d(residual, self.learnt("whiten"), self.learnt("shift")).square().mean(1, keepdim=True)
        )  # [B, 1, h, w]


class Scatter:
    """Mean, covariance and the fourth moment Ledoit-Wolf needs, of rows that come in blocks, in float64."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, block: Tensor) -> None:
        """Take in `block` [n, c] in float64."""
        if not len(block):
            return
        if not self.count:
            self._origin = block.mean(0)  # moments about a near point lose no digits
            c = block.shape[1]
            self._sum, self._outer = block.new_zeros(c), block.new_zeros(c, c)
            self._lengths, self._cubes = block.new_zeros(()), block.new_zeros(c)
        x = block - self._origin
        length = x.square().sum(1)  # [n]
        self.count += len(x)
        self._sum += x.sum(0)
        self._outer += x.T @ x
        self._lengths += length.square().sum()
        self._cubes += length @ x

    @property
    def mean(self) -> Tensor:
        """The mean of the rows [c]."""
        return self._origin + self._sum / self.count

    @property
    def covariance(self) -> Tensor:
        """The covariance of the rows [c, c], divided by their count."""
        m = self._sum / self.count
        return self._outer / self.count - torch.outer(m, m)

    def ledoit_wolf(self) -> float:
        """The share of the identity that lowers the expected squared error of the covariance most, in [0, 1].

        `min(1, pi / delta)` with `pi = (E|x|^4 - |S|^2) / n` and `delta = |S - (tr S / c) I|^2` (Ledoit &
        Wolf 2004, lemma 3.2 to 3.5); the fourth moment about the mean is expanded in moments about the
        origin.
        """
        n, m = self.count, self._sum / self.count
        mm = m @ m
        fourth = (
            self._lengths / n
            + 4 * (m @ (self._outer / n) @ m)
            - 4 * (m @ self._cubes) / n
            + 2 * mm * self._outer.trace() / n
            - 3 * mm.square()  # |m|^4 - 4 |m|^2 m.E[x], with E[x] = m
        )
        s = self.covariance
        delta = (s - s.diagonal().mean() * torch.eye(len(m), dtype=s.dtype)).square().sum()
        doubt = (fourth - s.square().sum()) / n
        return float((doubt / delta).clamp(0, 1)) if delta > 0 else 1.0


def rows(residual: Tensor) -> Tensor:
    """The vectors [B * h * w, c] of a residual [B, c, h, w], finite, in float64 on the CPU."""
    return finite(residual, "the residuals").movedim(1, -1).flatten(0, 2)


def least(values: Tensor, floor: float) -> float:
    """The least variance allowed: `floor` times the mean one, and never zero."""
    return max(floor * float(values.mean()), 1e-12)
