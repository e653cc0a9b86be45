"""How large a residual is, measured by what residuals of normal pictures look like."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from anodiff.detect.moments import Moments, finite
from anodiff.errors import ConfigError, DataError
from anodiff.learnt import Learnt


class ResidualLaw(Learnt):
    """A map of residuals of any picture, larger where they are less like those of normal ones."""

    def learn(self, residuals: Iterable[Tensor]) -> None:
        """Learn from the residuals [B, c, h, w] of normal pictures, in one pass and from scratch."""
        raise NotImplementedError

    def left_out(self, residual: Tensor) -> Tensor:
        """The maps of residuals that were learnt from, as if each had not been; most laws see no difference."""
        return self(residual)


class ResidualSquares(ResidualLaw):
    """The plain mean square over channels: learns nothing."""

    def learn(self, residuals: Iterable[Tensor]) -> None:
        """Learn nothing."""

    def forward(self, residual: Tensor) -> Tensor:
        """Maps [B, 1, h, w] of residuals [B, c, h, w]: `sum_c r_c^2 / c`."""
        return residual.square().mean(1, keepdim=True)  # [B, 1, h, w]


class ResidualVariance(ResidualLaw):
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


class ResidualCovariance(ResidualLaw):
    """The squared Mahalanobis distance of a residual to those of normals, per channel: about 1 on normals.

        map = ||W (r - m)||^2 / c,   W = L^{-1/2} U^T,   U L U^T = (1 - a) S + a (tr S / c) I

    with m and S the mean and covariance over all positions of the normals' residuals (float64, one pass) and
    W applied at every position. `shrinkage` = a in [0, 1], or None for the one of Ledoit & Wolf (2004,
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
        whiten = whitening(covariance, share, self.floor)  # [c, c]
        self.store("whiten", whiten[:, :, None, None])  # [c, c, 1, 1]
        self.store("shift", -(whiten @ mean))  # [c]

    def forward(self, residual: Tensor) -> Tensor:
        """Maps [B, 1, h, w] of residuals [B, c, h, w]."""
        return squares(self.learnt("whiten").flatten(1), residual, self.learnt("shift")[:, None])


class ResidualPosition(ResidualLaw):
    """The squared Mahalanobis distance to what is usual at the same position, per channel: about 1 on normals.

        map = ||W (r - m_p)||^2 / c,    m_p = g + t (mean_p - g),    t = tau^2 / (tau^2 + s^2 / n)

    with g the mean over all positions, mean_p that of position p over n pictures, s^2 a channel's variance within
    positions, tau^2 that between them (empirical Bayes; Efron & Morris 1973), and W whitening the covariance within
    positions, one for all of them as in Fisher's discriminant (1936). Parts that lie alike are compared place by place
    (as PaDiM does, arXiv:2011.08785, with a covariance for each); on textures, where position says nothing, t is near 0
    and the law is that of `ResidualCovariance`, whose floor it has.

    Args:
        shrinkage: share of the identity in the covariance. None: `oracle_share`.
        floor: least eigenvalue, as a share of their mean.
    """

    def __init__(self, *, shrinkage: float | None = None, floor: float = 1e-3) -> None:
        super().__init__()
        self.shrinkage = shrinkage
        self.floor = floor
        self.expect("mean", "centre", "trust", "others", "whiten")

    def learn(self, residuals: Iterable[Tensor]) -> None:
        """Learn from the residuals [B, c, h, w] of normal pictures, all of one size, in one pass and from scratch."""
        seen, scatter = Moments(), Scatter()
        for block in residuals:
            if seen.count and block.shape[1:] != seen.mean.shape:
                raise DataError(
                    f"A law per position needs residuals of one size, got {tuple(seen.mean.shape[1:])} and then "
                    f"{tuple(block.shape[-2:])}: bring the pictures to one working size."
                )
            seen.add(finite(block, "the residuals"))
            scatter.add(rows(block))
        n = seen.count
        if not n:
            raise DataError("Expected residuals of normal pictures, got none: hold some good pictures out.")
        centre = scatter.mean  # [c]
        offset = seen.mean.flatten(1) - centre[:, None]  # [c, h w]
        trust = torch.zeros_like(centre)
        if n > 1:
            doubt = seen.squares.flatten(1).mean(1) / (n - 1) / n  # s^2 / n, [c]
            between = (offset.square().mean(1) - doubt).clamp_min(0)
            trust = between / (between + doubt).clamp_min(1e-300)
        away = (1 - trust)[:, None] * offset  # of a position's mean from m_p
        positions = offset.shape[1]
        covariance = scatter.covariance - (offset @ offset.T - away @ away.T) / positions
        share = oracle_share(covariance, scatter.count) if self.shrinkage is None else self.shrinkage
        self.store("mean", (centre[:, None] + trust[:, None] * offset).view(seen.mean.shape))
        self.store("centre", centre)
        self.store("trust", trust)
        self.store("others", torch.tensor([n - 1.0]))
        self.store("whiten", whitening(covariance, share, self.floor))

    def forward(self, residual: Tensor) -> Tensor:
        """Maps [B, 1, h, w] of residuals [B, c, h, w].

        Raises:
            ConfigError: nothing was learnt yet, or of another size.
        """
        mean = self.learnt("mean")
        if mean.shape[-2:] != residual.shape[-2:]:
            raise ConfigError(
                f"The law was learnt at {tuple(mean.shape[-2:])} positions, this residual has "
                f"{tuple(residual.shape[-2:])}: score at the working size, or take residual: covariance."
            )
        return squares(self.learnt("whiten"), residual - mean)

    def left_out(self, residual: Tensor) -> Tensor:
        """The maps of residuals that were learnt from, each by the mean of the others at its positions.

        `m_p` without r is `m_p - t (r - mean_p) / (n - 1)`; the covariance, learnt at all positions, stays.
        """
        mean, trust = self.learnt("mean"), self.learnt("trust")[:, None, None]
        centre = self.learnt("centre")[:, None, None]
        pulled = trust * (residual - centre) - (mean - centre)  # t (r - mean_p)
        return squares(self.learnt("whiten"), residual - mean + pulled / self.learnt("others").clamp_min(1))


def oracle_share(covariance: Tensor, count: int) -> float:
    """The share of the identity that comes nearest to the best one of a normal law, in [0, 1].

        a = min(1, ((1 - 2 / c) tr S^2 + (tr S)^2) / ((n + 1 - 2 / c) (tr S^2 - (tr S)^2 / c)))

    with S [c, c] the covariance of n rows: oracle-approximating shrinkage (Chen et al. 2010, arXiv:0907.4698, eq. 23).
    """
    c = len(covariance)
    squared, trace = covariance.square().sum(), covariance.trace().square()
    spread = (count + 1 - 2 / c) * (squared - trace / c)
    return float((((1 - 2 / c) * squared + trace) / spread).clamp(0, 1)) if spread > 0 else 1.0


def whitening(covariance: Tensor, share: float, floor: float) -> Tensor:
    """`W = L^{-1/2} U^T` [c, c] of `U L U^T = (1 - a) S + a (tr S / c) I`, with L at least `floor` of its mean."""
    size = covariance.diagonal().mean()
    eye = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
    values, vectors = torch.linalg.eigh((1 - share) * covariance + share * size * eye)
    return values.clamp_min(least(values, floor)).rsqrt()[:, None] * vectors.T


def squares(whiten: Tensor, residual: Tensor, shift: Tensor | float = 0.0) -> Tensor:
    """Maps [B, 1, h, w] of residuals [B, c, h, w]: `||W r + shift||^2 / c`, with a shift [c, 1]."""
    seen = whiten @ residual.flatten(2) + shift  # [B, c, h w]
    return seen.square().mean(1).view(len(residual), 1, *residual.shape[-2:])


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
