"""Schedules against an independent implementation, their ends, and the terminal signal (traps 2 and 4 of the field)."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr

from anodiff.diffusion.schedule import (
    ZERO_SNR_SIGMA,
    Schedule,
    abar_of,
    betas,
    betas_of,
    sigmas_of,
    table,
    zero_terminal,
)
from anodiff.errors import ConfigError

ALL = get_args(Schedule)


@pytest.mark.parametrize(
    ("ours", "theirs", "first", "last"),
    [
        ("linear", "linear", 1e-4, 0.02),
        ("quadratic", "scaled_linear", 1e-4, 0.02),
        ("scaled_linear", "scaled_linear", 0.00085, 0.012),
        ("scaled_linear_ldm", "scaled_linear", 0.0015, 0.0195),
        ("sigmoid", "sigmoid", 1e-4, 0.02),
        ("cosine", "squaredcos_cap_v2", 1e-4, 0.02),
    ],
)
@pytest.mark.parametrize("steps", [1000, 50])
def test_betas_equal_diffusers(ours, theirs, first, last, steps):
    """Law: schedule; reference: diffusers DDPMScheduler.betas
    Why: their table is float32; relative to its largest beta
    """
    reference = DDPMScheduler(steps, beta_schedule=theirs, beta_start=first, beta_end=last).betas
    assert reference.dtype == torch.float32
    assert ((betas(ours, steps).float() - reference) / reference.max()).abs().max() <= 5e-7  # their float32


@pytest.mark.parametrize("name", ALL)
def test_tables_ascend_and_go_back_and_forth(name):
    """Law: schedule; reference: betas -> sigmas -> betas, and abar by its product"""
    sigmas = table(name, 1000)
    assert sigmas.dtype == torch.float64
    assert (sigmas.diff() > 0).all()
    assert (betas_of(sigmas) - betas(name, 1000)).abs().max() <= 1e-14
    abar = (1 - betas(name, 1000)).cumprod(0)
    assert ((abar_of(sigmas) - abar) / abar).abs().max() <= 1e-12
    assert (sigmas_of(betas_of(sigmas)) / sigmas - 1).abs().max() <= 1e-12


def test_landmarks_of_the_linear_schedule():
    sigmas = table("linear")
    assert [round(float(sigmas[t]), 2) for t in (99, 249, 499)] == [0.34, 0.95, 3.42]


def test_vp_is_the_integral_of_its_rate():
    """abar(i / T) = exp(-int_0^{i/T} (.1 + 19.9 s) ds), whatever T.

    Law: schedule; reference: exp(-integral of .1 + 19.9 s) in closed form
    """
    for steps in (4, 8, 1000):
        share = torch.arange(1, steps + 1, dtype=torch.float64) / steps
        expected = torch.exp(-0.1 * share - 19.9 * share.square() / 2)
        assert (abar_of(table("vp", steps)) / expected - 1).abs().max() <= 1e-12
    assert float(table("vp", 4)[0]) == pytest.approx(float(table("vp", 1000)[249]), rel=1e-12)


def test_cosine_betas_are_capped():
    assert betas("cosine").max() == 0.999


@pytest.mark.parametrize("name", ALL)
def test_only_the_rescaled_schedule_ends_without_signal(name):
    """A plain schedule keeps sqrt(abar) of the picture's mean at its last level, so brightness sticks near grey."""
    plain = table(name)
    assert abar_of(plain)[-1].sqrt() > 1e-5
    rescaled = zero_terminal(plain)
    assert rescaled[-1] == ZERO_SNR_SIGMA
    assert abar_of(rescaled)[-1].sqrt() < 1e-6
    assert rescaled[0] == plain[0]
    assert (rescaled.diff() > 0).all()


def test_scaled_linear_leaks_brightness():
    """Stable Diffusion's schedule still shows 7 % of a picture's mean at T-1."""
    assert float(abar_of(table("scaled_linear"))[-1].sqrt()) == pytest.approx(0.0683, abs=1e-3)


def test_zero_terminal_equals_diffusers():
    """Law: schedule; reference: diffusers rescale_zero_terminal_snr"""
    plain = betas("scaled_linear")
    reference = (1 - rescale_zero_terminal_snr(plain)).cumprod(0)
    assert (abar_of(zero_terminal(sigmas_of(plain))) - reference).abs().max() <= 1e-12


def test_errors_say_what_to_do():
    with pytest.raises(ConfigError, match="did you mean 'cosine'"):
        betas("cosin")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at least one step"):
        betas("linear", 0)
    with pytest.raises(ConfigError, match="leaves \\(0, 1\\)"):
        betas("linear", 10, last=1.5)
    with pytest.raises(ConfigError, match="no first and last"):
        betas("cosine", first=0.1)
    with pytest.raises(ConfigError, match="at least two levels"):
        zero_terminal(table("linear", 1))


def test_first_sigma_of_linear():
    assert float(table("linear")[0]) == pytest.approx(math.sqrt(1e-4 / (1 - 1e-4)), rel=1e-12)
