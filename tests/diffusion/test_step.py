"""The one step: its law, the papers' posteriors and variances, and its way back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anodiff.diffusion.levels import Levels
from anodiff.diffusion.sampling import (
    between,
    posterior_variance,
    step,
)
from anodiff.diffusion.schedule import table
from anodiff.errors import ConfigError

TABLE = table("linear")
DISCRETE = Levels(low=float(TABLE[0]), high=float(TABLE[-1]), table=TABLE)
F64 = torch.float64


def picture(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


@settings(max_examples=100, deadline=None)
@given(sigma=st.floats(1e-3, 1e3), share=st.floats(0, 1), eta=st.floats(0, 1))
def test_a_step_with_the_true_x0_keeps_the_law_of_the_next_level(sigma, share, eta):
    """down^2 + up^2 = sigma_next^2, read off the step itself; and x0 stays where it is."""
    sigma_next = share * sigma
    zero, one = torch.zeros(1, 1, 1, 1, dtype=F64), torch.ones(1, 1, 1, 1, dtype=F64)
    down = step(sigma * one, zero, sigma, sigma_next, eta=eta, noise=zero)
    up = step(zero, zero, sigma, sigma_next, eta=eta, noise=one)
    assert float(down**2 + up**2) == pytest.approx(sigma_next**2, rel=1e-9, abs=1e-18)
    assert float(step(one, one, sigma, sigma_next, eta=eta, noise=zero)) == pytest.approx(1)


@pytest.mark.parametrize("t", [1, 2, 100, 999])
def test_eta_one_is_the_ddpm_posterior(t):
    """Written out in the paper's own symbols (arXiv:2006.11239 eq. 6 and 7). Measured: 6.9e-13.

    Law: step; reference: arXiv:2006.11239 eq. 6 and 7 in x_t, written out
    """
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=F64)
    abar = (1 - betas).cumprod(0)
    x0, x_t, n = picture(1, 2, 3, 3), picture(1, 2, 3, 3, seed=1), picture(1, 2, 3, 3, seed=2)
    mean = abar[t - 1].sqrt() * betas[t] / (1 - abar[t]) * x0
    mean = mean + (1 - betas[t]).sqrt() * (1 - abar[t - 1]) / (1 - abar[t]) * x_t
    variance = (1 - abar[t - 1]) / (1 - abar[t]) * betas[t]
    y = step(x_t / abar[t].sqrt(), x0, TABLE[t], TABLE[t - 1], eta=1, noise=n)
    assert (y * abar[t - 1].sqrt() - (mean + variance.sqrt() * n)).abs().max() <= 1e-12


def test_variances_are_the_papers():
    """Law: posterior; reference: arXiv:2006.11239 eq. 7 in x_t, written out"""
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=F64)
    abar = (1 - betas).cumprod(0)
    small, large = posterior_variance(TABLE[1:], TABLE[:-1])
    tilde = betas[1:] * (1 - abar[:-1]) / (1 - abar[1:])
    assert (small * abar[:-1] / tilde - 1).abs().max() <= 1e-11
    assert (large * abar[:-1] / betas[1:] - 1).abs().max() <= 1e-11
    assert (between(small, large, 0.5) / (small * large).sqrt() - 1).abs().max() <= 1e-13


@pytest.mark.parametrize("fraction", [0.0, 0.3, 1.0])
def test_fraction_replaces_the_deviation_and_not_the_mean(fraction):
    """Law: learned variance; reference: arXiv:2102.09672 eq. 15 in y, written out"""
    y, x0, n = (picture(2, 1, 3, 3, seed=s) for s in range(3))
    sigma, sigma_next = TABLE[[500, 30]], TABLE[[499, 10]]
    mean = step(y, x0, sigma, sigma_next, eta=1, noise=torch.zeros_like(n))
    drawn = step(y, x0, sigma, sigma_next, eta=1, noise=n, fraction=torch.full_like(y, fraction))
    small, large = posterior_variance(sigma, sigma_next)
    deviation = (small.log() * (1 - fraction) + large.log() * fraction).exp().sqrt().reshape(-1, 1, 1, 1)
    assert (drawn - mean - deviation * n).abs().max() <= 1e-12
    last = step(y, x0, TABLE[0], 0.0, eta=1, noise=n, fraction=fraction)
    assert torch.equal(last, x0)


def test_upwards_is_the_way_back():
    """Law: step; reference: the step down after the step up"""
    y, x0 = picture(1, 1, 4, 4), picture(1, 1, 4, 4, seed=1)
    up = step(y, x0, 0.5, 3.0)
    assert (step(up, x0, 3.0, 0.5) - y).abs().max() <= 1e-14
    assert torch.equal(
        step(y, x0, 0.5, 3.0, eta=1, noise=torch.zeros_like(y)), step(y, x0, 0.5, 3.0, eta=1, noise=y * 0)
    )


def test_rows_may_stand_at_different_levels():
    y, x0, n = (picture(3, 2, 4, 4, seed=s) for s in range(3))
    sigma, sigma_next = torch.tensor([0.1, 2.0, 30.0]), torch.tensor([0.0, 1.0, 29.0])
    together = step(y, x0, sigma, sigma_next, eta=0.7, noise=n)
    for i in range(3):
        alone = step(y[i : i + 1], x0[i : i + 1], sigma[i], sigma_next[i], eta=0.7, noise=n[i : i + 1])
        assert torch.allclose(together[i : i + 1], alone, rtol=1e-12, atol=1e-12)


def test_step_says_what_is_missing():
    y = picture(1, 1, 2, 2)
    with pytest.raises(ConfigError, match="give unit noise"):
        step(y, y, 1.0, 0.5, eta=1)
    with pytest.raises(ConfigError, match="eta must lie"):
        step(y, y, 1.0, 0.5, eta=1.5, noise=y)
    assert torch.equal(step(y, 2 * y, 1.0, 0.0, eta=1), 2 * y)
