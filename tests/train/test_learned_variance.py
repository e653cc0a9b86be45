"""A variance that is learned lowers the bound to what Gaussian data allow."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from anodiff.diffusion.denoiser import X0Denoiser
from anodiff.diffusion.likelihood import bound
from anodiff.diffusion.sampling import posterior_variance
from anodiff.train.fit import fit
from anodiff.train.importance import LossSecondMoment
from anodiff.train.objective import MinSNR, Objective, UniformTable
from anodiff.train.plan import Plan
from anodiff.train.variational import Hybrid, Variational

SPREAD = torch.tensor([1.0, 0.3]).view(2, 1, 1)  # of each channel
TABLE = torch.logspace(-1, 1, 6, dtype=torch.float64)  # few, so that the fixed variances are far from right


class Gaussian:
    """Fresh draws of N(0, SPREAD^2)."""

    def __len__(self):
        return 1

    def item(self, index, seed, /):
        return SPREAD * torch.randn(2, 1, 1, generator=torch.Generator().manual_seed(seed))


class Small(nn.Module):
    """For each level and channel a factor on the input, and a number for the variance."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.zeros(len(TABLE), 2))
        self.spread = nn.Parameter(torch.zeros(len(TABLE), 2))

    def forward(self, x, t, cond=None):
        place = t.long()
        return torch.cat([self.factor[place] * x.flatten(1), self.spread[place]], 1)[:, :, None, None]


class Ideal:
    """The posterior mean of the data, and the fraction that makes the reverse variance its true one."""

    def __init__(self):
        self.levels = X0Denoiser(Small(), TABLE).levels

    def __call__(self, y, sigma, cond=None):
        return self.moments(y, sigma, cond)[0]

    def moments(self, y, sigma, cond=None):
        square = float(sigma) ** 2
        left = SPREAD**2 * square / (SPREAD**2 + square)  # Var(x0 | y)
        i = int(self.levels.index(sigma))
        below = TABLE[i - 1] if i else torch.tensor(0.0)
        small, large = posterior_variance(sigma, below)
        true = small + (1 - below**2 / square) ** 2 * left
        fraction = (true / small).log() / (large / small).log() if i else torch.zeros(2, 1, 1)
        return SPREAD**2 / (SPREAD**2 + square) * y, fraction.float().expand_as(y)


def bits(denoiser, variance):
    g = torch.Generator().manual_seed(7)
    x0 = SPREAD * torch.randn(4000, 2, 1, 1, generator=g)
    grid = torch.cat([TABLE.flip(0), torch.zeros(1)])
    noise = lambda like: torch.randn(like.shape, generator=g)  # noqa: E731
    return float(bound(denoiser, x0, grid, noise=noise, variance=variance, bins=None).total.mean())


TIMES = {"uniform": UniformTable(TABLE), "adaptive": LossSecondMoment(TABLE)}


@pytest.mark.parametrize(("kind", "law"), [("hybrid", "uniform"), ("bound", "adaptive")])
def test_a_learned_variance_lowers_the_bound_below_the_fixed_ones(kind, law):
    times = TIMES[law]
    objective = learned = Variational(table=TABLE, times=times, variance="learned", bins=None)
    if kind == "hybrid":
        objective = Hybrid(simple=Objective(weight=MinSNR(5.0), times=times), bound=learned)
    denoiser = X0Denoiser(Small(), TABLE, learned_variance=True)
    fit(denoiser, Gaussian(), Plan(steps=200, batch=48, learning_rate=0.05, ema=0.99), objective=objective)
    best = bits(Ideal(), "learned")
    assert min(bits(Ideal(), "small"), bits(Ideal(), "large")) > best + 0.1
    small, large, ours = (bits(denoiser, variance) for variance in ("small", "large", "learned"))
    assert ours < min(small, large) - 0.1
    assert ours == pytest.approx(best, abs=0.02)
