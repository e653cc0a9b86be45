"""Closed-form models of normals, so that what a detector should find is known beforehand."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from anodiff.cond import Cond
from anodiff.diffusion.levels import Levels, level
from anodiff.noise import PerImageNoise


@dataclass(eq=False)
class GaussianTruth:
    """The ideal denoiser of independent places whose channels are N(mean, covariance): E[x0 | y], exactly."""

    mean: Tensor  # [c]
    covariance: Tensor  # [c, c]
    levels: Levels
    calls: int = 0

    def gain(self, sigma: float) -> Tensor:
        """S (S + sigma^2 I)^-1  # [c, c]."""
        eye = torch.eye(len(self.mean), dtype=torch.float64)
        return self.covariance @ torch.linalg.inv(self.covariance + sigma**2 * eye)

    def __call__(self, y: Tensor, sigma: Tensor, cond: Cond | None = None) -> Tensor:
        self.calls += 1
        self.levels.check(sigma)
        gain = self.gain(float(level(sigma).flatten()[0])).to(y)
        mean = self.mean.to(y)[:, None, None]
        return mean + torch.einsum("ij,bjhw->bihw", gain, y - mean)


@dataclass(frozen=True)
class PlainCodec:
    """The picture itself as z; `paints` as asked for."""

    channels: int = 3
    stride: int = 1
    paints: bool = True
    bounded: bool = False

    def encode(self, image: Tensor) -> Tensor:
        return 2 * image - 1

    def decode(self, z: Tensor) -> Tensor:
        assert self.paints
        return (z + 1) / 2

    def shrink(self, mask: Tensor) -> Tensor:
        return mask


def noise(count: int, seed: int = 0) -> PerImageNoise:
    return PerImageNoise([seed * 1000 + i for i in range(count)])


@pytest.fixture
def truth() -> GaussianTruth:
    """Three correlated channels around (.1, -.2, .3)."""
    covariance = torch.tensor([[0.05, 0.04, 0.0], [0.04, 0.05, 0.0], [0.0, 0.0, 0.02]], dtype=torch.float64)
    return GaussianTruth(
        mean=torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64),
        covariance=covariance,
        levels=Levels(0.01, 20.0),
    )


@pytest.fixture
def normals(truth: GaussianTruth):
    """`normals(count, seed, size)` draws pictures [count, 3, size, size] of that law, clipped to [0, 1]."""

    def draw(count: int, seed: int = 0, size: int = 16) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        root = torch.linalg.cholesky(truth.covariance).float()
        white = torch.randn(count, 3, size, size, generator=generator)
        z = truth.mean.float()[:, None, None] + torch.einsum("ij,bjhw->bihw", root, white)
        return ((z + 1) / 2).clamp(0, 1)

    return draw


@pytest.fixture
def unit_noise():
    """`unit_noise(count, seed)`: per-picture noise."""
    return noise


@pytest.fixture
def plain() -> type[PlainCodec]:
    return PlainCodec


@pytest.fixture
def gaussian_truth() -> type[GaussianTruth]:
    return GaussianTruth
