"""The density a denoiser gives to a point, by the probability-flow equation: its own likelihood, no bound.

`dy / dsigma = (y - D(y, sigma)) / sigma` carries the law of every level into that of the next; on the way the
logarithm of the density changes by the divergence of the flow:
`d log p / d ln sigma = -sum_i (1 - dD_i / dy_i)`. At the highest level the law is nearly a known Gaussian.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from anodiff.diffusion.denoiser import Denoiser
from anodiff.diffusion.levels import column
from anodiff.diffusion.sampling import hops, mend, needs_mean, step
from anodiff.errors import ConfigError, RefusalError
from anodiff.noise import NoiseSource

_BITS = 1 / math.log(2)

Solver = Literal["euler", "heun"]
"""First order with one evaluation a level; second order with two."""


@dataclass(frozen=True, eq=False)
class FlowLikelihood:
    """`-log2 p` of a batch under the flow, in bits a dimension of the codec's space.

    The two maps say where the bits come from. They sum to the joint density and are no densities of their own: the
    part of one place depends on what surrounds it.
    """

    prior_map: Tensor  # [B, 1, h, w], of the end point under the prior
    divergence_map: Tensor  # [B, 1, h, w], of the flow's divergence; negative where it widens the data
    end: Tensor  # [B, C, h, w], where the flow ended, at the highest level

    @property
    def flow_map(self) -> Tensor:
        """Both parts, [B, 1, h, w]; its mean over places is `total`."""
        return self.prior_map + self.divergence_map

    @property
    def total(self) -> Tensor:
        """Bits a dimension of each row, [B]."""
        return self.flow_map.mean((1, 2, 3))


def rademacher(noise: NoiseSource) -> NoiseSource:
    """The signs of a source, +1 or -1: the unit noise with which `log_likelihood` varies least."""

    def source(like: Tensor) -> Tensor:
        drawn = noise(like)
        return torch.ones_like(drawn).copysign(drawn)

    return source


def divergence(
    denoiser: Denoiser, y: Tensor, sigma: Tensor, *, probe: NoiseSource, probes: int
) -> tuple[Tensor, Tensor]:
    """The estimate of x0, and each element's `dD_i / dy_i` estimated without bias, both [B, C, h, w].

    `v_i (J^T v)_i`, averaged over `probes` draws of `v`, whose elements must have unit variance and be uncorrelated.
    One evaluation of the denoiser, `probes` passes backwards.

    Source: Skilling 1989, Hutchinson 1990; arXiv:2011.13456 eq. 40.
    """
    with torch.enable_grad():
        variable = y.detach().requires_grad_()
        x0 = denoiser(variable, sigma)
        total = torch.zeros_like(y)
        for left in reversed(range(probes)):
            v = probe(y)
            if x0.requires_grad:  # else x0 does not depend on y at all
                (pulled,) = torch.autograd.grad(x0, variable, v, retain_graph=left > 0, allow_unused=True)
                total = total if pulled is None else total + v * pulled
    return x0.detach(), total / probes


@torch.no_grad()
def log_likelihood(
    denoiser: Denoiser,
    x0: Tensor,
    sigmas: Tensor,
    *,
    probe: NoiseSource,
    probes: int = 1,
    solver: Solver = "heun",
    std: float = 1.0,
) -> FlowLikelihood:
    """`-log2 p` of `x0` in bits a dimension, with its map, by the probability-flow equation.

    What is returned is the density at `x0` of the law of the lowest positive level `low` of the grid, that is of
    `x0 + low n` with x0 from the model's data; no noise is added to `x0` and no rounding is undone. It is a density
    in the codec's space (z), so it may be negative, and it depends on that space's scale: for 8-bit pixels folded
    into [-1, 1] add `log2(127.5)` = 6.99 bits to compare it with `bound`.

    `-log p = 1/2 sum_i (log(2 pi s^2) + y_i^2 / s^2) - int sum_i (1 - dD_i / dy_i) dln sigma` in nats, with
    `s^2 = std^2 + sigma_max^2` and `y` the end of the flow. The path is walked by `solver`, the integral is the
    trapezoid's over `ln sigma`, whose integrand is flat at both ends. The path does not depend on the probes, which
    are drawn anew at each level: their errors average out over the levels.

    Costs one evaluation and `probes` passes backwards a level, with Heun another evaluation. Gradients are off
    outside. Conditions are bound by `Bind`.

    Args:
        denoiser: the model with its wrappers; it is differentiated.
        x0: [B, C, h, w].
        sigmas: [S + 1] descending, as `spaced` makes it; a last 0 is left out, since no direction is defined there.
        probe: source of the vectors v, unit variance and uncorrelated: `rademacher` of Gaussian noise, or the noise
            itself; never simplex or pyramid noise.
        probes: number of vectors a level.
        solver: of the path.
        std: deviation of the data, for the prior at the highest level; 1 = unit noise in variance-preserving
            coordinates, as in the bound.

    Raises:
        ConfigError: if fewer than two positive levels are given, `probes` is below 1, or a name is unknown.
        RefusalError: if the denoiser draws x0, or in inference mode.

    Source: Song 2021, arXiv:2011.13456 eq. 39; the flow in these coordinates arXiv:2206.00364 eq. 1.
    """
    needs_mean(denoiser, "the flow's likelihood")
    if torch.is_inference_mode_enabled():
        raise RefusalError(
            "a likelihood needs gradients, which torch.inference_mode forbids; use torch.no_grad"
        )
    if solver not in get_args(Solver):
        raise ConfigError(f"unknown solver {solver!r}: expected one of {', '.join(get_args(Solver))}")
    if probes < 1 or not (math.isfinite(std) and std >= 0):
        raise ConfigError(
            f"the flow's likelihood expects probes >= 1 and a finite std >= 0, got {probes} and {std}"
        )
    climb = [(here, above) for above, here in reversed(list(hops(sigmas))) if here > 0]
    if not climb:
        raise ConfigError(
            f"the flow's likelihood needs at least two levels above 0, got {sigmas.tolist()[:8]}; "
            "make the grid with `spaced` and two or more steps"
        )
    y, growth = x0, torch.zeros_like(x0)  # growth: int (1 - dD_i / dy_i) dln sigma
    sigma = climb[0][0]
    estimate, slope = divergence(denoiser, y, sigma, probe=probe, probes=probes)
    for sigma, above in climb:
        ahead = step(y, estimate, sigma, above)
        if solver == "heun":
            ahead = mend(y, estimate, ahead, denoiser(ahead, above), sigma, above)
        y = ahead
        estimate, slope_above = divergence(denoiser, y, above, probe=probe, probes=probes)
        growth = growth + (above / sigma).log() * (1 - (slope + slope_above) / 2)
        sigma, slope = above, slope_above
    square = std**2 + sigma.square()
    prior = ((2 * math.pi * square).log() + y.square() / column(square, y)) / 2
    return FlowLikelihood(
        prior_map=prior.mean(1, keepdim=True) * _BITS,
        divergence_map=-growth.mean(1, keepdim=True) * _BITS,
        end=y,
    )
