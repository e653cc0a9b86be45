"""Parity with the schedulers of diffusers in float64: the same network, the same noise, whole chains.

The largest differences measured stand beside each case; the bound is 1e-10.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

from anodiff.diffusion.denoiser import EpsDenoiser, VDenoiser, X0Denoiser
from anodiff.diffusion.guidance import Clamp
from anodiff.diffusion.levels import spaced
from anodiff.diffusion.sampling import ddim, dpmpp_2m
from anodiff.diffusion.schedule import betas, sigmas_of, table, zero_terminal

F64 = torch.float64
FAMILIES = {"epsilon": EpsDenoiser, "v_prediction": VDenoiser, "sample": X0Denoiser}


def net(x_t, t, cond=None):
    """Any smooth function of both inputs, so that a wrong time or scale shows."""
    return 0.7 * torch.tanh(1.3 * x_t + torch.cos(t / 150).reshape(-1, 1, 1, 1)) + 0.2 * x_t


def wide_net(x_t, t, cond=None):
    """With a second half for a learned variance."""
    return torch.cat((net(x_t, t), torch.sin(3 * x_t + t.reshape(-1, 1, 1, 1) / 99)), 1)


def draw(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(like.shape, generator=generator, dtype=like.dtype)


def start(shape=(2, 3, 4, 5)) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=F64)


def in_float64(scheduler, schedule="linear"):
    """diffusers keeps its tables in float32; its formulas are dtype-free, so the tables are widened."""
    scheduler.betas = betas(schedule)
    scheduler.alphas = 1 - scheduler.betas
    scheduler.alphas_cumprod = scheduler.alphas.cumprod(0)
    if hasattr(scheduler, "final_alpha_cumprod"):
        scheduler.final_alpha_cumprod = torch.tensor(1.0, dtype=F64)
    scheduler.one = torch.tensor(1.0, dtype=F64)
    return scheduler


def reference_chain(scheduler, steps, network, x_t, **arguments):
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        out = network(x_t, torch.full((len(x_t),), float(t), dtype=F64))
        x_t = scheduler.step(out, t, x_t, **arguments).prev_sample
    return x_t


def to_levels(x_t: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    return x_t * (1 + sigma.square()).sqrt()


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("prediction", FAMILIES)
@pytest.mark.parametrize("spacing", ["trailing", "leading"])
def test_ddim(eta, prediction, spacing):
    """Measured, worst of eta 0, .5, 1: 2.3e-13 for epsilon, 3.6e-15 for v, 7.4e-15 for x0.

    Law: DDIM; reference: diffusers DDIMScheduler
    """
    scheduler = in_float64(
        DDIMScheduler(1000, prediction_type=prediction, clip_sample=False, timestep_spacing=spacing)
    )
    expected = reference_chain(
        scheduler, 50, net, start(), eta=eta, generator=torch.Generator().manual_seed(5)
    )
    denoiser = FAMILIES[prediction](net, table("linear"))
    grid = spaced(denoiser.levels, 50, spacing=spacing)
    # diffusers draws at its last step too, with deviation 0; the numbers before are the same
    generator = torch.Generator().manual_seed(5)
    sample = ddim(
        denoiser, to_levels(start(), grid[0]), grid, eta=eta, noise=lambda like: draw(like, generator)
    )
    assert (sample - expected).abs().max() <= 1e-10


@pytest.mark.parametrize(
    ("ours", "theirs"), [("small", "fixed_small"), ("large", "fixed_large"), ("learned", "learned_range")]
)
@pytest.mark.parametrize("steps", [50, 1000])
def test_ddpm(ours, theirs, steps):
    """Ancestral sampling with each variance, all steps and respaced. Measured: 3.3e-13 (50 steps), 9.8e-12 (1000).

    "leading" here, because only a grid that ends at t = 0 makes diffusers leave out the noise of its last
    step.

    Law: posterior; reference: diffusers DDPMScheduler, all three variances
    """
    scheduler = in_float64(DDPMScheduler(1000, variance_type=theirs, clip_sample=False))
    network = wide_net if ours == "learned" else net
    expected = reference_chain(scheduler, steps, network, start(), generator=torch.Generator().manual_seed(5))
    denoiser = EpsDenoiser(network, table("linear"), learned_variance=ours == "learned")
    grid = spaced(denoiser.levels, steps, spacing="leading")
    generator = torch.Generator().manual_seed(5)
    sample = ddim(
        denoiser,
        to_levels(start(), grid[0]),
        grid,
        eta=1,
        noise=lambda like: draw(like, generator),
        variance=ours,
    )
    assert (sample - expected).abs().max() <= 1e-10


def test_ddpm_with_clamped_x0():
    """Clipping in pixel space, over a whole chain. Measured: 1.7e-14.

    Law: posterior; reference: diffusers DDPMScheduler(clip_sample=True)
    """
    scheduler = in_float64(DDPMScheduler(1000, clip_sample=True))
    expected = reference_chain(scheduler, 100, net, start(), generator=torch.Generator().manual_seed(5))
    denoiser = Clamp(EpsDenoiser(net, table("linear")))
    grid = spaced(denoiser.levels, 100, spacing="leading")
    generator = torch.Generator().manual_seed(5)
    y = to_levels(start(), grid[0])
    sample = ddim(denoiser, y, grid, eta=1, noise=lambda like: draw(like, generator))
    assert (sample - expected).abs().max() <= 1e-10


@pytest.mark.parametrize("prediction", FAMILIES)
@pytest.mark.parametrize("steps", [10, 40])
def test_dpmpp_2m(prediction, steps):
    """Their update formulas, driven here in float64, as their `step` rounds to float32. Measured: 8.5e-14.

    Law: solvers; reference: diffusers DPMSolverMultistepScheduler, its update formulas in float64
    """
    scheduler = DPMSolverMultistepScheduler(
        1000,
        prediction_type=prediction,
        solver_order=2,
        timestep_spacing="trailing",
        final_sigmas_type="zero",
    )
    scheduler.set_timesteps(steps)
    denoiser = FAMILIES[prediction](net, table("linear"))
    grid = spaced(denoiser.levels, steps)
    assert torch.allclose(scheduler.sigmas.double(), grid, rtol=2e-4)  # their float32 tables
    scheduler.sigmas = grid
    x_t, outputs = start(), []
    for i, t in enumerate(scheduler.timesteps):
        scheduler._step_index = i
        out = net(x_t, torch.full((len(x_t),), float(t), dtype=F64))
        outputs = [*outputs, scheduler.convert_model_output(out, sample=x_t)][-2:]
        if len(outputs) < 2 or i == steps - 1:
            x_t = scheduler.dpm_solver_first_order_update(outputs[-1], sample=x_t)
        else:
            x_t = scheduler.multistep_dpm_solver_second_order_update(outputs, sample=x_t)
    sample = dpmpp_2m(denoiser, to_levels(start(), grid[0]), grid)
    assert (sample - x_t).abs().max() <= 1e-10


def test_dpmpp_2m_as_a_whole_in_their_precision():
    """The untouched scheduler from end to end, float32 inside. Measured: 6.8e-7.

    Law: solvers; reference: diffusers DPMSolverMultistepScheduler, untouched
    Why: their scheduler rounds to float32 inside; its formulas in float64 are the row beside
    """
    scheduler = DPMSolverMultistepScheduler(1000, prediction_type="v_prediction", timestep_spacing="trailing")
    expected = reference_chain(scheduler, 25, net, start())
    denoiser = VDenoiser(net, table("linear"))
    grid = spaced(denoiser.levels, 25)
    assert (dpmpp_2m(denoiser, to_levels(start(), grid[0]), grid) - expected).abs().max() <= 1e-5


def test_zero_terminal_chain():
    """v prediction on the rescaled schedule, against their DDIM with an exactly zero last abar. Measured: 8.1e-7.

    Law: DDIM; reference: diffusers DDIMScheduler with an exactly zero last abar
    Why: what the stand-in 2^20 for an infinite sigma leaves
    """
    scheduler = DDIMScheduler(
        1000,
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        clip_sample=False,
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
    )
    rescaled = zero_terminal(table("scaled_linear"))
    scheduler.alphas_cumprod = 1 / (1 + rescaled.square())
    scheduler.alphas_cumprod[-1] = 0
    scheduler.final_alpha_cumprod = torch.tensor(1.0, dtype=F64)
    expected = reference_chain(scheduler, 25, net, start())
    denoiser = VDenoiser(net, rescaled)
    grid = spaced(denoiser.levels, 25)
    sample = ddim(denoiser, to_levels(start(), grid[0]), grid)
    assert (sample - expected).abs().max() <= 1e-5


def test_ddgan_posterior_coefficients():
    """One step of four on the VP schedule in the paper's symbols (arXiv:2112.07804 eq. 4). Measured: 4.4e-16.

    Law: posterior; reference: arXiv:2112.07804 eq. 4 in x_t, written out
    """
    abar = (1 - betas("vp", 4)).cumprod(0)
    sigmas = sigmas_of(betas("vp", 4))
    x0, x_t, n = start(), start().flip(0), start().flip(1)
    for before, now in pairwise(range(4)):
        beta = 1 - abar[now] / abar[before]
        mean = abar[before].sqrt() * beta / (1 - abar[now]) * x0
        mean = mean + (1 - beta).sqrt() * (1 - abar[before]) / (1 - abar[now]) * x_t
        expected = mean + (beta * (1 - abar[before]) / (1 - abar[now])).sqrt() * n
        grid = torch.stack((sigmas[now], sigmas[before]))

        class Fixed:
            levels = X0Denoiser(net, sigmas).levels

            def __call__(self, y, sigma, cond=None):
                return x0

        y = ddim(Fixed(), to_levels(x_t, sigmas[now]), grid, eta=1, noise=lambda like: n)
        assert (y * abar[before].sqrt() - expected).abs().max() <= 1e-12
