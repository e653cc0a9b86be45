"""Learned variance on respaced chains, quadratic DDIM grids and inversion, against diffusers and the papers."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from diffusers import DDIMInverseScheduler, DDPMScheduler
from test_sampler_parity import FAMILIES, draw, in_float64, net, start, to_levels, wide_net

from anodiff.diffusion.denoiser import EpsDenoiser
from anodiff.diffusion.levels import Levels, spaced
from anodiff.diffusion.sampling import between, ddim, invert, posterior_variance, step
from anodiff.diffusion.schedule import betas, table

F64 = torch.float64
TABLE = table("linear")
DISCRETE = Levels(low=float(TABLE[0]), high=float(TABLE[-1]), table=TABLE)
ABAR = (1 - betas("linear")).cumprod(0)


def source(seed: int = 5):
    generator = torch.Generator().manual_seed(seed)
    return lambda like: draw(like, generator)


def time(t: int, like: torch.Tensor) -> torch.Tensor:
    return torch.full((len(like),), float(t), dtype=F64)


def indices(grid: torch.Tensor) -> list[int]:
    return DISCRETE.index(grid[grid > 0]).tolist()


@pytest.mark.parametrize(("now", "before"), [(999, 979), (999, 499), (40, 20), (20, 0), (1, 0)])
def test_the_fraction_is_read_again_for_the_steps_own_beta(now, before):
    """Beta and beta-tilde of the jump between two visited times, not those of the full table.

    Law: learned variance; reference: arXiv:2102.09672 eq. 15 and section 4 in x_t, written out
    """
    fraction = torch.linspace(0, 1, 11, dtype=F64)
    beta = 1 - ABAR[now] / ABAR[before]
    tilde = (1 - ABAR[before]) / (1 - ABAR[now]) * beta
    expected = torch.exp(fraction * beta.log() + (1 - fraction) * tilde.log())
    ours = between(*posterior_variance(TABLE[now], TABLE[before]), fraction) * ABAR[before]
    assert (ours / expected - 1).abs().max() <= 1e-11


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("steps", [4, 20, 100])
def test_learned_range_on_respaced_grids(spacing, steps):
    """Every level of the chain but the last step, where diffusers adds noise unless t = 0.

    Law: learned variance; reference: diffusers DDPMScheduler(variance_type="learned_range")
    """
    scheduler = in_float64(
        DDPMScheduler(1000, variance_type="learned_range", clip_sample=False, timestep_spacing=spacing)
    )
    scheduler.set_timesteps(steps)
    generator, x_t = torch.Generator().manual_seed(5), start()
    for t in scheduler.timesteps[:-1]:
        x_t = scheduler.step(wide_net(x_t, time(t, x_t)), t, x_t, generator=generator).prev_sample
    grid = spaced(DISCRETE, steps, spacing=spacing)[:-1]
    assert indices(grid) == scheduler.timesteps.tolist()
    denoiser = EpsDenoiser(wide_net, TABLE, learned_variance=True)
    y = ddim(denoiser, to_levels(start(), grid[0]), grid, eta=1, noise=source(), variance="learned")
    assert (y * (1 + grid[-1].square()).rsqrt() - x_t).abs().max() <= 1e-10


@pytest.mark.parametrize("spacing", ["quadratic", "linspace"])
@pytest.mark.parametrize("variance", ["small", "large", "learned"])
def test_ancestral_chain_on_uneven_grids(spacing, variance):
    """The whole chain to x0 where the jumps differ in length.

    Law: posterior; reference: arXiv:2006.11239 eq. 7 and 2102.09672 eq. 15 on the respaced betas in x_t, written out
    """
    grid = spaced(DISCRETE, 12, spacing=spacing)
    unit, x_t = source(), start()
    for now, before in pairwise([*indices(grid), None]):
        abar = ABAR[now]
        abar_before = torch.tensor(1.0, dtype=F64) if before is None else ABAR[before]
        beta = 1 - abar / abar_before
        tilde = (1 - abar_before) / (1 - abar) * beta
        eps, v = wide_net(x_t, time(now, x_t)).chunk(2, 1)
        x0 = (x_t - (1 - abar).sqrt() * eps) / abar.sqrt()
        mean = abar_before.sqrt() * beta / (1 - abar) * x0
        mean = mean + (1 - beta).sqrt() * (1 - abar_before) / (1 - abar) * x_t
        share = {"small": 0.0, "large": 1.0, "learned": (v + 1) / 2}[variance]
        x_t = mean
        if before is not None:
            x_t = mean + torch.exp(share * beta.log() + (1 - share) * tilde.log()).sqrt() * unit(x_t)
    learned = variance == "learned"
    denoiser = EpsDenoiser(
        wide_net if learned else lambda *a: wide_net(*a)[:, :3], TABLE, learned_variance=learned
    )
    ours = ddim(denoiser, to_levels(start(), grid[0]), grid, eta=1, noise=source(), variance=variance)
    assert (ours - x_t).abs().max() <= 1e-11


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", [10, 50])
def test_ddim_on_quadratic_grids(eta, steps):
    """The whole chain, with the paper's sigma_tau(eta).

    Law: DDIM; reference: arXiv:2010.02502 eq. 12 and 16 in x_t, written out
    """
    grid = spaced(DISCRETE, steps, spacing="quadratic")
    visited = indices(grid)
    assert visited[0] == 999
    assert visited[-1] == 0
    lengths = [a - b for a, b in pairwise(visited)]
    assert lengths[0] > 3 * lengths[-2]
    unit, x_t = source(), start()
    for now, before in pairwise([*visited, None]):
        abar = ABAR[now]
        abar_before = torch.tensor(1.0, dtype=F64) if before is None else ABAR[before]
        eps = net(x_t, time(now, x_t))
        deviation = (
            eta * ((1 - abar_before) / (1 - abar)).clamp(min=0).sqrt() * (1 - abar / abar_before).sqrt()
        )
        x0 = (x_t - (1 - abar).sqrt() * eps) / abar.sqrt()
        x_t = abar_before.sqrt() * x0 + (1 - abar_before - deviation**2).clamp(min=0).sqrt() * eps
        if eta > 0 and before is not None:
            x_t = x_t + deviation * unit(x_t)
    denoiser = EpsDenoiser(net, TABLE)
    ours = ddim(denoiser, to_levels(start(), grid[0]), grid, eta=eta, noise=source())
    assert (ours - x_t).abs().max() <= 1e-11


@pytest.mark.parametrize("prediction", FAMILIES)
def test_inversion_step(prediction):
    """Each step up from where the chain stands, the network's output the same.

    Law: inversion; reference: diffusers DDIMInverseScheduler.step
    """
    scheduler = DDIMInverseScheduler(
        1000, prediction_type=prediction, clip_sample=False, timestep_spacing="trailing"
    )
    scheduler.alphas_cumprod = ABAR
    scheduler.set_timesteps(20)
    denoiser, x = FAMILIES[prediction](net, TABLE), start()
    for before, now in pairwise(scheduler.timesteps.tolist()):
        y = to_levels(x, TABLE[before])
        up = step(y, denoiser(y, TABLE[before]), TABLE[before], TABLE[now]) * ABAR[now].sqrt()
        x = scheduler.step(net(x, time(before, x)), now, x).prev_sample
        assert (up - x).abs().max() <= 1e-11


def test_inversion_over_a_whole_chain():
    """From a noisy input at the lowest level to the highest, by the equation read backwards.

    Law: inversion; reference: arXiv:2010.02502 eq. 13 in x_t, written out
    """
    grid = spaced(DISCRETE, 40, spacing="leading")[:-1]
    x_t = start()
    for now, above in pairwise(indices(grid.flip(0))):
        eps = net(x_t, time(now, x_t))
        ratio = [((1 - ABAR[t]) / ABAR[t]).sqrt() for t in (now, above)]
        x_t = ABAR[above].sqrt() * (x_t / ABAR[now].sqrt() + (ratio[1] - ratio[0]) * eps)
    ours = invert(EpsDenoiser(net, TABLE), to_levels(start(), grid[-1]), grid) * ABAR[indices(grid)[0]].sqrt()
    assert (ours - x_t).abs().max() <= 1e-11
