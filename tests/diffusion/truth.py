"""Laws whose ideal denoiser is known in closed form."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from anodiff.cond import Cond
from anodiff.diffusion.levels import Levels, column, level

EVERYWHERE = Levels(low=1e-3, high=100.0)


@dataclass(frozen=True, eq=False)
class Gaussian:
    """x0 ~ N(mean, std^2) at every element: E[x0 | y] = (std^2 y + sigma^2 mean) / (std^2 + sigma^2)."""

    mean: Tensor | float = 0.0
    std: float = 1.0
    levels: Levels = EVERYWHERE

    def __call__(self, y: Tensor, sigma: Tensor, cond: Cond | None = None) -> Tensor:
        square = column(level(sigma).square(), y)
        return (self.std**2 * y + square * self.mean) / (self.std**2 + square)

    def flow(self, y: Tensor, sigma: float, sigma_next: float) -> Tensor:
        """The probability-flow ODE's exact solution from sigma to sigma_next."""
        ratio = (self.std**2 + sigma_next**2) / (self.std**2 + sigma**2)
        return self.mean + (y - self.mean) * ratio**0.5


@dataclass(frozen=True, eq=False)
class Mixture:
    """x0 ~ sum_k weight_k N(mean_k, std_k^2) at every element, independently."""

    means: tuple[float, ...] = (-0.8, 0.1, 0.7)
    stds: tuple[float, ...] = (0.1, 0.05, 0.15)
    weights: tuple[float, ...] = (0.3, 0.2, 0.5)
    levels: Levels = EVERYWHERE

    def _parts(self, y: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Responsibilities, posterior means and posterior variances, component last."""
        means, stds, weights = (y.new_tensor(v) for v in (self.means, self.stds, self.weights))
        square = column(level(sigma).square(), y)
        square = square.unsqueeze(-1) if square.ndim else square
        total = stds.square() + square
        gap = y.unsqueeze(-1) - means
        share = (weights.log() - total.log() / 2 - gap.square() / (2 * total)).softmax(-1)
        return share, means + stds.square() / total * gap, stds.square() * square / total

    def __call__(self, y: Tensor, sigma: Tensor, cond: Cond | None = None) -> Tensor:
        share, means, _ = self._parts(y, sigma)
        return (share * means).sum(-1)

    def distance(self, sample: Tensor) -> float:
        """Wasserstein-1 distance between a sample and the law."""
        points = np.linspace(-3, 3, 20001)
        cdf = sum(
            w * stats.norm.cdf(points, m, s)
            for w, m, s in zip(self.weights, self.means, self.stds, strict=True)
        )
        n = sample.numel()
        quantiles = np.interp((np.arange(n) + 0.5) / n, cdf, points)
        return float(np.abs(np.sort(sample.flatten().numpy()) - quantiles).mean())


@dataclass(frozen=True, eq=False)
class Drawing:
    """A denoiser that draws x0 from the mixture's posterior instead of giving its mean, as a GAN generator does."""

    mixture: Mixture
    generator: torch.Generator

    @property
    def levels(self) -> Levels:
        return replace(self.mixture.levels, draws=True)

    def __call__(self, y: Tensor, sigma: Tensor, cond: Cond | None = None) -> Tensor:
        share, means, variances = self.mixture._parts(y, sigma)
        pick = torch.multinomial(share.reshape(-1, share.shape[-1]), 1, generator=self.generator)
        pick = pick.reshape(*y.shape, 1)
        noise = torch.randn(y.shape, generator=self.generator, dtype=y.dtype)
        std = variances.expand_as(means).gather(-1, pick).squeeze(-1).sqrt()
        return means.gather(-1, pick).squeeze(-1) + std * noise


@dataclass(frozen=True, eq=False)
class Pair:
    """Two neighbouring pixels [B, 1, 1, 2] ~ N(0, [[1, rho], [rho, 1]])."""

    rho: float = 0.9
    levels: Levels = field(default=EVERYWHERE)

    def __call__(self, y: Tensor, sigma: Tensor, cond: Cond | None = None) -> Tensor:
        covariance = torch.tensor([[1.0, self.rho], [self.rho, 1.0]], dtype=y.dtype)
        gain = covariance @ torch.linalg.inv(covariance + float(sigma) ** 2 * torch.eye(2, dtype=y.dtype))
        return y @ gain.mT


@dataclass(frozen=True, eq=False)
class Conditional:
    """x0 | label ~ N(mean_label, std^2); the null condition is a wider Gaussian."""

    means: tuple[float, ...] = (-0.5, 0.5)
    std: float = 0.2
    levels: Levels = EVERYWHERE

    def __call__(self, y: Tensor, sigma: Tensor, cond: Cond | None = None) -> Tensor:
        if cond is None or cond.label is None or (cond.keep is not None and not bool(cond.keep.any())):
            return Gaussian(0.0, 0.6)(y, sigma)
        means = y.new_tensor(self.means)[cond.label].reshape(-1, 1, 1, 1)
        return Gaussian(means, self.std)(y, sigma)


def as_net(truth, table: Tensor, kind: str):
    """The network of `kind` that a perfect training on `table` would give, as a function of (x_t, t, cond)."""

    def net(x_t: Tensor, t: Tensor, cond: Cond | None) -> Tensor:
        sigma = table[t.long()]
        scale = column((1 + sigma.square()).sqrt(), x_t)
        y = x_t * scale
        x0 = truth(y, sigma, cond)
        eps = (y - x0) / column(sigma, y)
        if kind == "x0":
            return x0
        return eps if kind == "eps" else (eps - column(sigma, y) * x0) / scale

    return net


def order(errors: list[float]) -> float:
    """The order of convergence from errors at successively halved steps (least squares)."""
    return float(np.polyfit(np.arange(len(errors)), -np.log2(errors), 1)[0])
