"""The bound against closed forms: divergences, the decoder's normalisation, the entropy of a Gaussian."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from functools import cache

import pytest
import torch
from torch.distributions import Normal, kl_divergence
from truth import Drawing, Gaussian, Mixture, as_net

from anodiff.diffusion.denoiser import EpsDenoiser
from anodiff.diffusion.levels import Levels, spaced
from anodiff.diffusion.likelihood import bound, decoder_map, kl_map, prior_map, table_map, terms
from anodiff.diffusion.sampling import posterior_variance
from anodiff.diffusion.schedule import abar_of, betas, table
from anodiff.errors import ConfigError, RefusalError

F64 = torch.float64
TABLE = table("linear")
DISCRETE = Levels(low=float(TABLE[0]), high=float(TABLE[-1]), table=TABLE)


def picture(seed: int = 0, shape=(2, 3, 4, 4)) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64) * 0.4


def source(seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return lambda like: torch.randn(like.shape, generator=generator, dtype=like.dtype)


@cache
def papers_abar() -> list[Decimal]:
    """The running products of the float64 betas, in fifty digits."""
    products, product = [], Decimal(1)
    with localcontext(prec=50):
        for beta in betas("linear").tolist():
            product *= 1 - Decimal(beta)
            products.append(product)
    return products


@pytest.mark.parametrize("fraction", [None, 0.0, 0.4, 1.0])
@pytest.mark.parametrize("t", [1, 2, 50, 999])
def test_kl_equals_the_divergence_of_the_papers_gaussians(fraction, t):
    """In x_t, in fifty digits, for in float64 the reference itself cancels. Measured: 8.2e-15 relative.

    Law: VLB terms; reference: arXiv:2006.11239 eq. 5 to 7 in x_t, in 50-digit decimals
    """
    x0, x0_hat = picture(), picture(1)
    ours = kl_map(x0, x0_hat, TABLE[t], TABLE[t - 1], fraction=fraction)
    assert ours.shape == (2, 1, 4, 4)
    with localcontext(prec=50):
        beta, abar, before = Decimal(float(betas("linear")[t])), papers_abar()[t], papers_abar()[t - 1]
        tilde = (1 - before) / (1 - abar) * beta
        share = Decimal(fraction or 0.0)
        model = ((1 - share) * tilde.ln() + share * beta.ln()).exp()
        part = before.sqrt() * beta / (1 - abar)  # of x0 in the mean; x_t's part is common to both

        def nats(x: float, x_hat: float) -> Decimal:
            gap = part * (Decimal(x) - Decimal(x_hat))
            return ((model / tilde).ln() + tilde / model - 1 + gap**2 / model) / 2

        terms = [nats(a, b) for a, b in zip(x0.flatten().tolist(), x0_hat.flatten().tolist(), strict=True)]
        bits = [float(v / Decimal(2).ln()) for v in terms]
    expected = torch.tensor(bits, dtype=F64).reshape(x0.shape).mean(1, keepdim=True)
    assert ((ours - expected) / expected).abs().max() <= 1e-10


def test_kl_takes_a_level_a_row_and_a_fraction_a_pixel():
    x0, x0_hat, fraction = picture(), picture(1), picture(2).sigmoid()
    t = torch.tensor([5, 700])
    together = kl_map(x0, x0_hat, TABLE[t], TABLE[t - 1], fraction=fraction)
    for i in range(2):
        alone = kl_map(
            x0[i : i + 1], x0_hat[i : i + 1], TABLE[t[i]], TABLE[t[i] - 1], fraction=fraction[i : i + 1]
        )
        assert torch.allclose(together[i : i + 1], alone, rtol=1e-12)
    assert kl_map(x0, x0, TABLE[5], TABLE[4]).abs().max() == 0
    assert (together > 0).all()


@pytest.mark.parametrize("x0_hat", [-1.3, -0.999, 0.0, 0.3017, 1.0, 2.0])
@pytest.mark.parametrize("fraction", [None, 1.0, "learned"])
def test_decoder_probabilities_sum_to_one(x0_hat, fraction):
    """Over all 256 values, wherever the estimate lies. Measured: 1e-13."""
    values = torch.linspace(-1, 1, 256, dtype=F64).reshape(-1, 1, 1, 1)
    estimate = torch.full_like(values, x0_hat)
    chosen = torch.full_like(values, 0.3) if fraction == "learned" else fraction
    bits = decoder_map(values, estimate, TABLE[0], TABLE[1], fraction=chosen)
    assert float((-bits * math.log(2)).exp().sum()) == pytest.approx(1, abs=1e-10)
    assert bits.isfinite().all()


def test_decoder_equals_the_difference_of_two_tails():
    """With the borrowed deviation (trap 9): beta-tilde of t = 1 stands in for the zero of t = 0.

    Law: VLB terms; reference: arXiv:2006.11239 eq. 13 (torch.distributions)
    """
    beta = betas("linear")
    abar = (1 - beta).cumprod(0)
    borrowed = (beta[1] * (1 - abar[0]) / (1 - abar[1])).sqrt()
    x0 = torch.round(127.5 + 127.5 * picture().clamp(-0.9, 0.9)) / 127.5 - 1
    x0_hat = x0 + 0.01 * picture(1)
    law = Normal(x0_hat, borrowed)
    probability = law.cdf(x0 + 1 / 255) - law.cdf(x0 - 1 / 255)
    expected = -probability.log2().mean(1, keepdim=True)
    for fraction in (None, 1.0):
        ours = decoder_map(x0, x0_hat, TABLE[0], TABLE[1], fraction=fraction)
        assert (ours - expected).abs().max() <= 1e-9


def test_decoder_stays_finite_far_away_in_float32():
    x0 = torch.tensor([-1.0, 0.0, 1.0, 0.5]).reshape(-1, 1, 1, 1)
    x0_hat = torch.tensor([1.0, 1.0, -1.0, -1.0]).reshape(-1, 1, 1, 1).requires_grad_()
    bits = decoder_map(x0, x0_hat, TABLE[0], TABLE[1])
    bits.sum().backward()
    assert bits.isfinite().all()
    assert x0_hat.grad is not None
    assert x0_hat.grad.isfinite().all()
    assert (x0_hat.grad.abs() > 0).all()
    near = decoder_map(x0.double(), x0_hat.detach().double(), TABLE[0], TABLE[1])
    assert torch.allclose(bits.detach().double(), near, rtol=1e-3)


def test_prior_equals_the_divergence():
    """Law: VLB terms; reference: Gaussian divergence in x_t (torch.distributions)"""
    x0 = picture()
    abar = abar_of(TABLE)[-1]
    nats = kl_divergence(Normal(abar.sqrt() * x0, (1 - abar).sqrt()), Normal(torch.zeros_like(x0), 1.0))
    assert (prior_map(x0, TABLE[-1]) - nats.mean(1, keepdim=True) / math.log(2)).abs().max() <= 1e-12


def test_each_level_costs_what_the_gaussian_says():
    """E (x0 - x0_hat)^2 is the posterior variance, so every term's mean is known."""
    std = 0.3
    truth = Gaussian(0.0, std, levels=DISCRETE)
    x0 = std * torch.randn(64, 1, 16, 16, generator=torch.Generator().manual_seed(0), dtype=F64)
    grid = spaced(DISCRETE, 20)
    levels = list(terms(truth, x0, grid, noise=source(1), bins=None))
    assert len(levels) == 19
    for (sigma, term), sigma_next in zip(levels, grid[1:-1], strict=True):
        error = std**2 * sigma**2 / (std**2 + sigma**2)
        expected = 0.5 * (1 / sigma_next**2 - 1 / sigma**2) * error / math.log(2)
        assert float(term.mean()) == pytest.approx(float(expected), rel=0.05)


@pytest.mark.parametrize(("variance", "excess"), [("large", 0.1), ("small", 0.8)])
def test_the_bound_of_a_gaussian_is_its_entropy(variance, excess):
    """Quantised Gaussian data under its ideal denoiser: the bound lies above the entropy, little at T = 1000.

    Measured: entropy 7.299 bits; bound 7.346 with the large variance (near the true one where data is
        wider than
    noise) and 7.975 with the small one, as the closed form of the terms says (5.55 bits of them; 5.53
    measured).
    """
    std = 0.3
    generator = torch.Generator().manual_seed(0)
    x0 = (std * torch.randn(16, 1, 16, 16, generator=generator, dtype=F64)).clamp(-1, 1)
    x0 = torch.round((x0 + 1) * 127.5) / 127.5 - 1
    law = Normal(torch.tensor(0.0, dtype=F64), std)
    entropy = float(-(law.cdf(x0 + 1 / 255) - law.cdf(x0 - 1 / 255)).log2().mean())
    result = bound(
        Gaussian(0.0, std, levels=DISCRETE),
        x0,
        spaced(DISCRETE, None, spacing="all"),
        noise=source(1),
        variance=variance,
    )
    total = float(result.total.mean())
    assert entropy < total < entropy + excess
    sigma, sigma_next = result.sigmas[:-1], result.sigmas[1:]
    small, large = posterior_variance(sigma, sigma_next)
    model = large if variance == "large" else small
    error = std**2 * sigma**2 / (std**2 + sigma**2) * (1 - sigma_next**2 / sigma**2) ** 2
    nats = ((model / small).log() + small / model - 1 + error / model).sum() / 2
    assert float(result.per_level[:, 1:-1].sum(1).mean()) == pytest.approx(
        float(nats) / math.log(2), rel=0.01
    )
    assert result.bound_map.shape == (16, 1, 16, 16)
    assert result.per_level.shape == (16, 1001)
    assert len(result.sigmas) == 1000
    assert torch.allclose(result.per_level.sum(1), result.total)
    assert torch.allclose(result.bound_map.mean((1, 2, 3)), result.total)


def test_unlikely_places_stand_out_in_the_map():
    truth = Gaussian(0.0, 0.1, levels=DISCRETE)
    x0 = torch.zeros(1, 1, 8, 8, dtype=F64)
    x0[..., 2:4, 5:7] = 0.8
    result = bound(truth, x0, spaced(DISCRETE, 50), noise=source(0))
    odd = result.bound_map[..., 2:4, 5:7]
    assert odd.min() > 5 * result.bound_map.median()


def test_table_map_is_each_rows_term_and_its_gradient_is_finite():
    x0 = torch.round((picture().clamp(-1, 1) + 1) * 127.5) / 127.5 - 1
    x0 = x0.repeat(2, 1, 1, 1)
    x0_hat = (x0 + 0.05 * picture(1).repeat(2, 1, 1, 1)).requires_grad_()
    index = torch.tensor([0, 1, 400, 999])
    for fraction in (None, 1.0, torch.full_like(x0, 0.4)):
        rows = table_map(x0, x0_hat, TABLE, index, fraction=fraction)
        part = fraction[:1] if isinstance(fraction, torch.Tensor) else fraction
        assert torch.allclose(rows[:1], decoder_map(x0[:1], x0_hat[:1], TABLE[0], TABLE[1], fraction=part))
        for i in (1, 2, 3):
            t = index[i]
            alone = kl_map(x0[i : i + 1], x0_hat[i : i + 1], TABLE[t], TABLE[t - 1], fraction=part)
            assert torch.allclose(rows[i : i + 1], alone)
        (gradient,) = torch.autograd.grad(rows.sum(), x0_hat)
        assert gradient.isfinite().all()
        assert (gradient.flatten(1).abs().sum(1) > 0).all()


def test_table_map_estimates_the_bound():
    """T times its mean over a uniform index, plus the prior, is the bound."""
    small = table("linear", 8, last=0.5)
    levels = Levels(low=float(small[0]), high=float(small[-1]), table=small)
    truth = Gaussian(0.0, 0.3, levels=levels)
    x0 = 0.3 * torch.randn(512, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=F64)
    x0 = torch.round((x0.clamp(-1, 1) + 1) * 127.5) / 127.5 - 1
    index = torch.arange(8).repeat(64)
    y = x0 + small[index].reshape(-1, 1, 1, 1) * source(1)(x0)
    estimate = (
        8 * table_map(x0, truth(y, small[index]), small, index).mean() + prior_map(x0, small[-1]).mean()
    )
    whole = bound(truth, x0, spaced(levels, None, spacing="all"), noise=source(2)).total.mean()
    assert float(estimate) == pytest.approx(float(whole), rel=0.02)


def test_learned_variance_is_used():
    """A network whose fraction is 1 everywhere costs what the large variance costs, except at the decoder."""

    def net(x_t, t, cond):
        return torch.cat((as_net(Mixture(), TABLE, "eps")(x_t, t, cond), torch.ones_like(x_t)), 1)

    denoiser = EpsDenoiser(net, TABLE, learned_variance=True)
    grid = spaced(denoiser.levels, 10)
    x0 = picture()
    learned = bound(denoiser, x0, grid, noise=source(0), variance="learned").per_level
    large = bound(denoiser, x0, grid, noise=source(0), variance="large").per_level
    small = bound(denoiser, x0, grid, noise=source(0)).per_level
    assert torch.allclose(learned[:, :-1], large[:, :-1])
    assert not torch.allclose(learned[:, 1:-1], small[:, 1:-1])


@pytest.mark.parametrize("variance", ["small", "large", "learned"])
def test_the_bound_is_the_papers_sum_in_its_own_coordinates(variance):
    """L_T, every L_{t-1} and L_0 of a model with a learned fraction, the same noise, six steps.

    Law: VLB terms; reference: arXiv:2006.11239 eq. 5 and 13, 2102.09672 eq. 15 in x_t (torch.distributions)
    """
    beta = torch.linspace(0.05, 0.4, 6, dtype=F64)
    abar = (1 - beta).cumprod(0)
    sigmas = ((1 - abar) / abar).sqrt()
    x0 = torch.round((picture().clamp(-0.95, 0.95) + 1) * 127.5) / 127.5 - 1

    def net(x_t, t, cond=None):
        eps = torch.tanh(x_t + 0.1 * t.reshape(-1, 1, 1, 1))
        return torch.cat((eps, torch.sin(2 * x_t + t.reshape(-1, 1, 1, 1))), 1)

    unit, expected = source(7), []
    prior = kl_divergence(
        Normal(abar[-1].sqrt() * x0, (1 - abar[-1]).sqrt()), Normal(torch.zeros_like(x0), 1.0)
    )
    expected.append(prior)
    borrowed = beta[1] * (1 - abar[0]) / (1 - abar[1])
    for t in reversed(range(6)):
        x_t = abar[t].sqrt() * x0 + (1 - abar[t]).sqrt() * unit(x0)
        eps, v = net(x_t, torch.full((2,), float(t), dtype=F64)).chunk(2, 1)
        x0_hat = (x_t - (1 - abar[t]).sqrt() * eps) / abar[t].sqrt()
        before = abar[t - 1] if t else torch.tensor(1.0, dtype=F64)
        tilde = beta[t] * (1 - before) / (1 - abar[t]) if t else borrowed
        share = {"small": 0.0, "large": 1.0 if t else 0.0, "learned": (v + 1) / 2}[variance]
        model = torch.exp(share * beta[t].log() + (1 - share) * tilde.log())

        def mean(x, t=t, before=before, x_t=x_t):
            part = before.sqrt() * beta[t] / (1 - abar[t]) * x
            return part + (1 - beta[t]).sqrt() * (1 - before) / (1 - abar[t]) * x_t

        if t:
            expected.append(kl_divergence(Normal(mean(x0), tilde.sqrt()), Normal(mean(x0_hat), model.sqrt())))
        else:
            law = Normal(mean(x0_hat), model.sqrt())
            expected.append(-(law.cdf(x0 + 1 / 255) - law.cdf(x0 - 1 / 255)).log())
    nats = torch.stack([v.mean((1, 2, 3)) for v in expected], 1)
    denoiser = EpsDenoiser(net, sigmas, learned_variance=True)
    result = bound(
        denoiser, x0, spaced(denoiser.levels, None, spacing="all"), noise=source(7), variance=variance
    )
    assert ((result.per_level - nats / math.log(2)) / nats).abs().max() <= 1e-10
    assert torch.equal(result.prior, result.per_level[:, 0])
    assert torch.equal(result.decoder, result.per_level[:, -1])
    assert result.transitions.shape == (2, 5)
    assert (result.prior + result.transitions.sum(1) + result.decoder - result.total).abs().max() <= 1e-12


def test_the_terms_of_continuous_data_have_no_decoder():
    truth = Gaussian(0.0, 0.3, levels=DISCRETE)
    result = bound(truth, 0.3 * picture(), spaced(DISCRETE, 8), noise=source(), bins=None)
    assert result.transitions.shape == (2, 7)
    assert torch.equal(result.decoder, torch.zeros(2, dtype=F64))
    assert torch.allclose(result.prior + result.transitions.sum(1), result.total)
    assert len(result.sigmas) == 7


def test_refusals():
    x0, grid = picture(), spaced(DISCRETE, 4)
    with pytest.raises(RefusalError, match="draws x0"):
        bound(Drawing(Mixture(levels=DISCRETE), torch.Generator()), x0, grid, noise=source())
    with pytest.raises(RefusalError, match="learned variance"):
        bound(Mixture(levels=DISCRETE), x0, grid, noise=source(), variance="learned")
    with pytest.raises(ConfigError, match="final 0"):
        bound(Mixture(levels=DISCRETE), x0, grid[:-1], noise=source())
