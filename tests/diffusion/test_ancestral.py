"""Classifier guidance in the DDPM form: the paper's algorithm in its own symbols, and the guided law in the limit."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from truth import Conditional, Drawing, Gaussian, Mixture, order

from anodiff.cond import Cond
from anodiff.diffusion.ancestral import ancestral
from anodiff.diffusion.classifier import NoisyClassifier
from anodiff.diffusion.denoiser import EpsDenoiser
from anodiff.diffusion.guidance import Bind, Clamp, Guide
from anodiff.diffusion.levels import Levels, karras, spaced
from anodiff.diffusion.sampling import ddim, dpmpp_2m, heun, invert, repaint
from anodiff.diffusion.schedule import abar_of, table
from anodiff.errors import ConfigError, RefusalError

F64 = torch.float64
TABLE = table("linear")
DISCRETE = Levels(low=float(TABLE[0]), high=float(TABLE[-1]), table=TABLE)
M, S, R, C = 0.2, 0.5, 0.3, 0.9  # data N(M, S^2), classifier p(c | x0) = N(C; x0, R^2)
PRECISION = 1 / S**2 + 1 / R**2
GUIDED_MEAN, GUIDED_STD = (M / S**2 + C / R**2) / PRECISION, PRECISION**-0.5


def picture(seed: int = 0, shape=(2, 2, 4, 4)) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def source(seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return lambda like: torch.randn(like.shape, generator=generator, dtype=like.dtype)


def wide_net(x_t, t, cond=None):
    """Noise and a fraction, any smooth functions of both inputs."""
    eps = 0.7 * torch.tanh(1.3 * x_t + torch.cos(t / 150).reshape(-1, 1, 1, 1)) + 0.2 * x_t
    return torch.cat((eps, torch.sin(3 * x_t + t.reshape(-1, 1, 1, 1) / 99)), 1)


def log_p_x(x, abar):
    """log p(c | x_t), any smooth function of x_t and its level."""
    return (torch.sin(2 * x) - abar.sqrt() * x.square()).sum((1, 2, 3))


def log_prob(y, sigma, cond):
    """The same in y."""
    abar = abar_of(sigma)
    return log_p_x(y * abar.sqrt(), abar)


def noisy(y, sigma, cond):
    """p(c | y) of the Gaussian data: N(c; E[x0 | y], r^2 + Var[x0 | y])."""
    variance = R**2 + S**2 * sigma**2 / (S**2 + sigma**2)
    return (-((C - Gaussian(M, S)(y, sigma)) ** 2) / (2 * variance)).sum((1, 2, 3))


def algorithm_1(steps: list[int], x_t, *, variance: str, s: float, noise):
    """arXiv:2105.05233 algorithm 1 on a respaced chain, all in the paper's symbols."""
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=F64)
    full = (1 - betas).cumprod(0)
    for t, before in pairwise([*reversed(steps), None]):
        abar, abar_before = full[t], torch.tensor(1.0, dtype=F64) if before is None else full[before]
        alpha = abar / abar_before  # of the respaced chain
        beta = 1 - alpha
        tilde = (1 - abar_before) / (1 - abar) * beta
        eps, v = wide_net(x_t, torch.full((len(x_t),), float(t), dtype=F64)).chunk(2, 1)
        mean = (x_t - beta / (1 - abar).sqrt() * eps) / alpha.sqrt()  # DDPM eq. 11
        if before is None:
            return mean
        share = (v + 1) / 2
        sigma = {
            "small": tilde,
            "large": beta,
            "learned": torch.exp(share * beta.log() + (1 - share) * tilde.log()),
        }[variance]
        leaf = x_t.clone().requires_grad_()
        (slope,) = torch.autograd.grad(log_p_x(leaf, abar).sum(), leaf)
        x_t = mean + s * sigma * slope + sigma**0.5 * noise(x_t)
    raise AssertionError("a chain has steps")


@pytest.mark.parametrize("variance", ["small", "large", "learned"])
@pytest.mark.parametrize("steps", [[99, 399, 699, 999], [0, 1, 2, 3, 40], list(range(19, 1000, 20))])
def test_ddpm_form_is_the_papers_algorithm(variance, steps):
    """Whole respaced chains with guidance of strength 1.5.

    Law: guidance; reference: arXiv:2105.05233 algorithm 1 in x_t, written out
    """
    denoiser = EpsDenoiser(wide_net, TABLE, learned_variance=True)
    if variance != "learned":
        denoiser = EpsDenoiser(lambda *a: wide_net(*a)[:, :2], TABLE)
    x_t = picture()
    expected = algorithm_1(steps, x_t, variance=variance, s=1.5, noise=source(3))
    grid = torch.cat((TABLE[steps].flip(0), torch.zeros(1, dtype=F64)))
    y = x_t / abar_of(grid[0]).sqrt()
    ours = ancestral(denoiser, y, grid, noise=source(3), variance=variance, log_prob=log_prob, scale=1.5)
    assert ((ours - expected) / expected.abs().max()).abs().max() <= 1e-12
    plain = ancestral(denoiser, y, grid, noise=source(3), variance=variance)
    assert (plain - ours).abs().max() > 1e-3


@pytest.mark.parametrize("variance", ["small", "large", "learned"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_without_guidance_it_is_ddim_at_eta_one(variance, dtype):
    """Law: DDIM; reference: ddim(eta=1), bit for bit"""
    net = wide_net if variance == "learned" else lambda *a: wide_net(*a)[:, :2]
    denoiser = EpsDenoiser(net, TABLE, learned_variance=variance == "learned")
    grid = spaced(DISCRETE, 20)
    y = (picture() * grid[0]).to(dtype)
    expected = ddim(denoiser, y, grid, eta=1, noise=source(1), variance=variance)
    difference = ancestral(denoiser, y, grid, noise=source(1), variance=variance) - expected
    assert difference.abs().max() <= 1e-15
    off = ancestral(denoiser, y, grid, noise=source(1), variance=variance, log_prob=log_prob, scale=0.0)
    assert torch.equal(off, expected)


def quiet(like):
    return torch.zeros_like(like)


def ends(form: str, steps: int) -> float:
    """The mean of the guided samples at their end: everything is linear, so noise of zero carries the mean."""
    truth = Gaussian(M, S, levels=Levels(low=0.01, high=80))
    grid = torch.cat((karras(0.01, 80, steps), torch.zeros(1, dtype=F64)))
    y = torch.zeros(1, 1, 1, 1, dtype=F64)
    if form == "ddim":
        return float(ddim(Guide(truth, noisy, 1.0), y, grid))
    if form == "ddpm by Guide":
        return float(ancestral(Guide(truth, noisy, 1.0), y, grid, noise=quiet))
    return float(ancestral(truth, y, grid, noise=quiet, log_prob=noisy, scale=1.0, variance=form))  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["small", "large"])
def test_ddpm_form_nears_the_guided_law_as_steps_grow(form):
    """First order, from below: the shift of a step is smaller than its share. Orders: 1.01 small, .89 large."""
    errors = [abs(ends(form, steps) - GUIDED_MEAN) for steps in (100, 200, 400, 800)]
    assert 0.85 < order(errors) < 1.2
    assert errors[-1] < 0.01


def test_both_forms_end_at_the_same_mean():
    means = [ends(form, 800) for form in ("ddim", "ddpm by Guide", "small", "large")]
    assert max(means) - min(means) < 0.015
    assert abs(means[0] - GUIDED_MEAN) < 0.01


@pytest.mark.parametrize("variance", ["small", "large"])
def test_guided_samples_have_the_guided_deviation(variance):
    truth = Gaussian(M, S, levels=Levels(low=0.01, high=80))
    grid = torch.cat((karras(0.01, 80, 300), torch.zeros(1, dtype=F64)))
    y = grid[0] * picture(0, (1, 1, 100, 100))
    sample = ancestral(truth, y, grid, noise=source(1), variance=variance, log_prob=noisy, scale=1.0)
    assert float(sample.mean()) == pytest.approx(GUIDED_MEAN, abs=0.03)
    assert float(sample.std()) == pytest.approx(GUIDED_STD, abs=0.02)


SAMPLERS = {
    "ddim 0": lambda d, y, g: ddim(d, y, g),
    "ddim .5": lambda d, y, g: ddim(d, y, g, eta=0.5, noise=source(1)),
    "ddim 1": lambda d, y, g: ddim(d, y, g, eta=1, noise=source(1)),
    "ddim 1 large": lambda d, y, g: ddim(d, y, g, eta=1, noise=source(1), variance="large"),
    "heun": heun,
    "dpmpp_2m": dpmpp_2m,
    "ancestral": lambda d, y, g: ancestral(d, y, g, noise=source(1)),
    "repaint": lambda d, y, g: repaint(d, y, g, resamples=2, jump=20, noise=source(1)),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_ddim_form_reaches_the_guided_law_under_every_sampler(name):
    """`Guide` makes of the Gaussian's denoiser that of the guided law, so any sampler draws from it."""
    guided = Guide(Gaussian(M, S, levels=Levels(low=0.01, high=80)), noisy, 1.0)
    grid = torch.cat((karras(0.01, 80, 100), torch.zeros(1, dtype=F64)))
    sample = SAMPLERS[name](guided, grid[0] * picture(0, (1, 1, 60, 60)), grid)
    assert not sample.requires_grad
    assert float(sample.mean()) == pytest.approx(GUIDED_MEAN, abs=0.02)
    assert float(sample.std()) == pytest.approx(GUIDED_STD, abs=0.03)


def test_the_ddim_form_is_invertible():
    guided = Guide(Gaussian(M, S, levels=Levels(low=0.01, high=80)), noisy, 1.0)
    x0, grid = 0.7 + 0.2 * picture(), torch.cat((karras(0.01, 5, 200), torch.zeros(1, dtype=F64)))
    assert (ddim(guided, invert(guided, x0, grid), grid) - x0).abs().max() < 0.03


@pytest.mark.parametrize("name", ["heun", "dpmpp_2m"])
def test_ode_samplers_refuse_a_guided_denoiser_that_draws(name):
    drawing = Guide(Drawing(Mixture(levels=DISCRETE), torch.Generator()), noisy, 1.0)
    with pytest.raises(RefusalError, match="draws x0"):
        SAMPLERS[name](drawing, picture(), spaced(DISCRETE, 4))
    for runs in ("ddim 0", "ddim 1", "ancestral"):
        assert SAMPLERS[runs](drawing, picture(), spaced(DISCRETE, 4)).isfinite().all()


def test_ddim_form_over_a_whole_chain():
    """eta = 0, twelve levels.

    Law: guidance; reference: arXiv:2105.05233 algorithm 2 in x_t, written out
    """
    steps, x_t, scale = list(range(49, 600, 50)), picture(), 1.0
    full = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=F64)).cumprod(0)
    expected = x_t
    for t, before in pairwise([*reversed(steps), None]):
        abar, abar_before = full[t], torch.tensor(1.0, dtype=F64) if before is None else full[before]
        leaf = expected.clone().requires_grad_()
        (slope,) = torch.autograd.grad(log_p_x(leaf, abar).sum(), leaf)
        eps = wide_net(expected, torch.full((2,), float(t), dtype=F64))[:, :2]
        eps = eps - scale * (1 - abar).sqrt() * slope
        x0 = (expected - (1 - abar).sqrt() * eps) / abar.sqrt()
        expected = abar_before.sqrt() * x0 + (1 - abar_before).sqrt() * eps
    guided = Guide(EpsDenoiser(lambda *a: wide_net(*a)[:, :2], TABLE), log_prob, scale)
    grid = torch.cat((TABLE[steps].flip(0), torch.zeros(1, dtype=F64)))
    ours = ddim(guided, x_t / abar_of(grid[0]).sqrt(), grid)
    assert ((ours - expected) / expected.abs().max()).abs().max() <= 1e-11


def test_conditions_reach_the_denoiser_and_the_classifier():
    cond, seen = Cond(label=torch.tensor([0, 1])), []

    def asked(y, sigma, c):
        seen.append(c)
        return y.sum((1, 2, 3)) * 0

    inner = Conditional(levels=DISCRETE)
    grid = spaced(DISCRETE, 30)
    y = grid[0] * picture()
    sample = ancestral(inner, y, grid, noise=source(1), log_prob=asked, scale=1.0, cond=cond)
    assert torch.equal(sample, ancestral(Bind(inner, cond), y, grid, noise=source(1)))
    assert len(seen) == 29  # the last step has no variance to be shifted by
    assert all(c is cond for c in seen)


def test_watch_sees_every_level():
    seen = []
    ancestral(
        Gaussian(levels=DISCRETE),
        picture(),
        spaced(DISCRETE, 6),
        noise=source(),
        watch=lambda *a: seen.append(a),
    )
    assert [round(v[0], 6) for v in seen] == [round(float(v), 6) for v in spaced(DISCRETE, 6)[:-1]]


def test_rows_do_not_depend_on_their_batch():
    x, grid = picture(0, (3, 1, 4, 4)), spaced(DISCRETE, 8, start=2.0)
    noises = [picture(i, (3, 1, 4, 4)) for i in range(8)]

    def run(rows):
        left = iter(noises)
        return ancestral(
            Clamp(Mixture(levels=DISCRETE)),
            x[rows],
            grid,
            noise=lambda like: next(left)[rows],
            log_prob=log_prob,
            scale=2.0,
        )

    assert torch.allclose(run([2, 0]), run([0, 1, 2])[[2, 0]], rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [float("inf"), float("-inf"), float("nan")])
def test_a_scale_that_is_no_number_is_refused(scale):
    with pytest.raises(ConfigError, match="finite number"):
        ancestral(
            Gaussian(levels=DISCRETE),
            picture(),
            spaced(DISCRETE, 4),
            noise=source(),
            log_prob=noisy,
            scale=scale,
        )


def test_other_refusals():
    truth, y, grid = Gaussian(levels=DISCRETE), picture(), spaced(DISCRETE, 4)
    with pytest.raises(ConfigError, match="log_prob is missing"):
        ancestral(truth, y, grid, noise=source(), scale=1.0)
    with pytest.raises(RefusalError, match="learned variance"):
        ancestral(truth, y, grid, noise=source(), variance="learned")
    with pytest.raises(ConfigError, match="unknown variance"):
        ancestral(truth, y, grid, noise=source(), variance="huge")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="make it with `spaced`"):
        ancestral(truth, y, grid.flip(0), noise=source())
    classifier = NoisyClassifier(lambda x, t, cond: torch.zeros(2, 3), Levels(low=0.1, high=1.0))
    with pytest.raises(RefusalError, match="classifier knows noise levels"):
        ancestral(truth, y, grid, noise=source(), log_prob=classifier.log_prob, scale=1.0)
    with torch.inference_mode(), pytest.raises(RefusalError, match="inference_mode"):
        ancestral(truth, y, grid, noise=source(), log_prob=noisy, scale=1.0)
