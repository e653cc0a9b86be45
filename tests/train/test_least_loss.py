"""A run on a mixture whose ideal denoiser is known."""

from __future__ import annotations

import torch
from torch import nn

from anodiff.diffusion.denoiser import KarrasDenoiser
from anodiff.diffusion.levels import column, level
from anodiff.train.fit import fit
from anodiff.train.objective import KarrasWeight, LogUniform, Objective
from anodiff.train.plan import Plan
from anodiff.train.source import Steps

MEANS = torch.tensor([[1.0, 0.5], [-0.5, 1.0], [0.0, -1.0]])
SPREAD = 0.2


class Mixture:
    """Draws of a mixture of three round Gaussians in the plane, a fresh one each time."""

    def __len__(self):
        return 3

    def item(self, index, seed, /):
        generator = torch.Generator().manual_seed(seed)
        return (MEANS[index] + SPREAD * torch.randn(2, generator=generator)).view(2, 1, 1)


def ideal(y, sigma, cond=None):
    """The posterior mean of the mixture: what no denoiser can beat."""
    total = column(SPREAD**2 + level(sigma) ** 2, y)
    apart = y[:, None] - MEANS[None, :, :, None, None]  # [B, 3, 2, 1, 1]
    share = (-apart.square().sum(2, keepdim=True) / (2 * total[:, None])).softmax(1)
    means = MEANS[None, :, :, None, None] + SPREAD**2 / total[:, None] * apart
    return (share * means).sum(1)


class Planar(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(5, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 2)
        )

    def forward(self, x, t, cond):
        t = 4 * t[:, None]
        return self.layers(torch.cat([2 * x.flatten(1), t, t.sin(), t.cos()], 1))[:, :, None, None]


def test_training_reaches_the_least_loss_there_is():
    std = float((MEANS.var(0, correction=0).mean() + SPREAD**2).sqrt())
    torch.manual_seed(0)
    net = KarrasDenoiser(Planar(), std=std, low=0.1, high=3.0)
    objective = Objective(weight=KarrasWeight(std), times=LogUniform(0.1, 3.0))
    test = Steps(Mixture(), Plan(steps=1, batch=6000, seed=99), objective)[0]

    def score(d):
        with torch.no_grad():
            return objective.loss(d, test.z, objective.times(test.u), test.n).mean().item()

    untrained, least = score(net), score(ideal)
    fit(net, Mixture(), Plan(steps=400, batch=64, learning_rate=1e-2, seed=1), objective=objective)
    assert untrained > 1.35 * least
    assert least < score(net) < 1.05 * least
