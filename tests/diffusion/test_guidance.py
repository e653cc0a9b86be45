"""Wrappers against closed forms, against the papers' own update rules, and in stacks."""

from __future__ import annotations

import itertools

import pytest
import torch
from truth import Conditional, Drawing, Gaussian, Mixture, as_net

from anodiff.cond import Cond
from anodiff.diffusion.denoiser import EpsDenoiser, X0Denoiser
from anodiff.diffusion.guidance import CFG, Autoguide, Bind, Clamp, Guide, Inpaint, Pull
from anodiff.diffusion.levels import Levels, spaced
from anodiff.diffusion.sampling import ddim, dpmpp_2m, heun, invert
from anodiff.diffusion.schedule import abar_of, table
from anodiff.errors import RefusalError

F64 = torch.float64
TABLE = table("linear")
DISCRETE = Levels(low=float(TABLE[0]), high=float(TABLE[-1]), table=TABLE)
T = torch.tensor([10, 500])
SIGMA, ABAR = TABLE[T], abar_of(TABLE[T]).reshape(-1, 1, 1, 1)


def picture(seed: int = 0, shape=(2, 2, 4, 4)) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def log_normal(target: float, spread: float):
    """log p(c | x) = -sum (x - target)^2 / (2 spread^2), up to a constant."""
    return lambda x, sigma, cond: -((x - target) ** 2).sum((1, 2, 3)) / (2 * spread**2)


# --- classifier guidance
# --------------------------------------------------------------------------------------


def test_guide_gives_the_posterior_of_a_gaussian_and_its_classifier():
    """N(m, s^2) under p(c | x0) = N(c; x0, r^2) is Gaussian again; the noisy classifier is known. Measured: 2.2e-16.

    Law: guidance; reference: posterior of a Gaussian under a Gaussian classifier
    """
    m, s, r, c = 0.2, 0.5, 0.3, 0.9
    prior = Gaussian(m, s)
    precision = 1 / s**2 + 1 / r**2
    posterior = Gaussian((m / s**2 + c / r**2) / precision, precision**-0.5)

    def log_prob(y, sigma, cond):  # p(c | y) = N(c; E[x0 | y], r^2 + Var[x0 | y])
        square = sigma.reshape(-1, 1, 1, 1) ** 2
        variance = r**2 + s**2 * square / (s**2 + square)
        return (-((c - prior(y, sigma)) ** 2) / (2 * variance)).sum((1, 2, 3))

    y = picture()
    guided = Guide(prior, log_prob, 1.0)(y, SIGMA)
    assert (guided - posterior(y, SIGMA)).abs().max() <= 1e-13


def test_guide_is_the_papers_score_form():
    """eps' = eps - sqrt(1 - abar) grad_{x_t} log p, differentiated in x_t. Measured: 3.6e-16 relative.

    Law: guidance; reference: arXiv:2105.05233 eq. 14 in x_t, written out
    """
    eps_net = as_net(Mixture(), TABLE, "eps")
    x_t = picture()

    def log_prob_x_t(x):
        return -(x.tanh() ** 2 * 3 + x).sum((1, 2, 3))

    variable = x_t.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(log_prob_x_t(variable).sum(), variable)
    eps = eps_net(x_t, T, None) - 2.5 * (1 - ABAR).sqrt() * gradient
    expected = (x_t - (1 - ABAR).sqrt() * eps) / ABAR.sqrt()

    def log_prob(y, sigma, cond):
        return log_prob_x_t(y * abar_of(sigma).sqrt().reshape(-1, 1, 1, 1))

    guided = Guide(EpsDenoiser(eps_net, TABLE), log_prob, 2.5)(x_t / ABAR.sqrt(), SIGMA)
    assert ((guided - expected) / expected.abs().max()).abs().max() <= 1e-13


def test_guide_through_the_denoiser():
    """The chain rule by hand: for a Gaussian dx0/dy = s^2 / (s^2 + sigma^2).

    Law: guidance; reference: the chain rule by hand for a Gaussian
    """
    truth, y = Gaussian(0.0, 0.5), picture()
    square = SIGMA.reshape(-1, 1, 1, 1) ** 2
    x0 = truth(y, SIGMA)
    expected = x0 + 0.7 * square * -(x0 - 0.9) / 0.4**2 * 0.25 / (0.25 + square)
    guided = Guide(truth, log_normal(0.9, 0.4), 0.7, through=True)(y, SIGMA)
    assert (guided - expected).abs().max() <= 1e-12


def test_guide_works_inside_samplers_and_moves_samples():
    grid = spaced(DISCRETE, 50)
    truth = Gaussian(0.0, 0.5, levels=DISCRETE)
    y = picture(shape=(8, 1, 8, 8)) * grid[0]
    guided = Guide(truth, log_normal(0.8, 0.5), 1.0, through=True)
    for sampler in (ddim, heun, dpmpp_2m):
        sample = sampler(guided, y, grid)
        assert not sample.requires_grad
        assert 0.2 < float(sample.mean()) < 0.8


def test_guide_refuses_inference_mode():
    """Trap 32."""
    guided = Guide(Gaussian(), log_normal(0.0, 1.0), 1.0)
    with torch.inference_mode(), pytest.raises(RefusalError, match="inference_mode"):
        guided(picture(), SIGMA)


def test_guide_leaves_its_input_alone():
    y = picture()
    Guide(Gaussian(), log_normal(0.0, 1.0), 1.0)(y, SIGMA)
    assert not y.requires_grad


# --- classifier-free guidance
# -----------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_cfg_is_its_line_in_eps(scale):
    """eps_ref + scale (eps_cond - eps_ref), the published form. Measured: 8.9e-16.

    Law: guidance; reference: arXiv:2207.12598 eq. 6 in eps, written out
    """
    inner, y = Conditional(), picture()
    cond = Cond(label=torch.tensor([0, 1]))
    eps = [(y - inner(y, SIGMA, c)) / SIGMA.reshape(-1, 1, 1, 1) for c in (cond, cond.null())]
    expected = y - SIGMA.reshape(-1, 1, 1, 1) * (eps[1] + scale * (eps[0] - eps[1]))
    assert (CFG(inner, scale)(y, SIGMA, cond) - expected).abs().max() <= 1e-11


def test_cfg_one_is_the_inner_denoiser_in_one_evaluation():
    calls = []

    class Counting(Conditional):
        def __call__(self, y, sigma, cond=None):
            calls.append(1)
            return super().__call__(y, sigma, cond)

    y, cond = picture(), Cond(label=torch.tensor([0, 1]))
    assert torch.equal(CFG(Counting(), 1.0)(y, SIGMA, cond), Conditional()(y, SIGMA, cond))
    assert len(calls) == 1
    CFG(Counting(), 2.0)(y, SIGMA, cond)
    assert len(calls) == 3


def test_cfg_with_a_negative_condition():
    """Law: guidance; reference: the same line with the negative condition, written out"""
    inner, y = Conditional(), picture()
    good, bad = Cond(label=torch.tensor([0, 0])), Cond(label=torch.tensor([1, 1]))
    away = CFG(inner, 2.0, reference=bad)(y, SIGMA, good)
    expected = 2 * inner(y, SIGMA, good) - inner(y, SIGMA, bad)
    assert (away - expected).abs().max() <= 1e-13


def test_cfg_needs_a_condition():
    with pytest.raises(RefusalError, match="Bind"):
        CFG(Conditional(), 2.0)(picture(), SIGMA)


def test_bind_supplies_and_yields():
    inner, y = Conditional(), picture()
    zero, one = Cond(label=torch.tensor([0, 0])), Cond(label=torch.tensor([1, 1]))
    bound = Bind(inner, zero)
    assert torch.equal(bound(y, SIGMA), inner(y, SIGMA, zero))
    assert torch.equal(bound(y, SIGMA, one), inner(y, SIGMA, one))


# --- pull, inpaint, clamp
# ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [0.0, 1.0, 4.0])
def test_pull_is_ddads_update(weight):
    """eps' = eps - w sqrt(1 - abar) (target_t - x_t) with the target noised by eps. Measured: 1.0e-14.

    Law: guidance; reference: arXiv:2305.15956 eq. 6 to 8 in x_t, written out
    """
    eps_net, x_t, target = as_net(Mixture(), TABLE, "eps"), picture(), picture(1)
    eps = eps_net(x_t, T, None)
    target_t = ABAR.sqrt() * target + (1 - ABAR).sqrt() * eps
    pulled = eps - weight * (1 - ABAR).sqrt() * (target_t - x_t)
    expected = (x_t - (1 - ABAR).sqrt() * pulled) / ABAR.sqrt()
    ours = Pull(EpsDenoiser(eps_net, TABLE), target, weight)(x_t / ABAR.sqrt(), SIGMA)
    assert (ours - expected).abs().max() <= 1e-12


def test_pull_draws_a_restoration_towards_its_target():
    target = torch.full((1, 1, 4, 4), 0.6, dtype=F64)
    grid = spaced(DISCRETE, 20, start=2.0)
    distances = []
    for weight in (0.0, 0.5, 1.0):
        denoiser = Pull(Gaussian(-0.5, 0.2, levels=DISCRETE), target, weight)
        distances.append(
            float((ddim(denoiser, target + grid[0] * picture(2, (1, 1, 4, 4)), grid) - target).abs().mean())
        )
    assert distances[0] > distances[1] > distances[2]


def test_inpaint_keeps_what_is_known_exactly():
    known, mask = picture(1).float(), torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0)) > 0.5
    x0 = Inpaint(Mixture(), known, mask)(picture().float(), SIGMA)
    keep = mask.expand_as(x0)
    assert torch.equal(x0[keep], known[keep])
    assert torch.equal(x0[~keep], Mixture()(picture().float(), SIGMA)[~keep])


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_inpaint_holds_the_known_part_at_the_law_of_its_noised_self(eta):
    """What RePaint draws anew at every step: mean known, deviation sigma."""
    known = torch.full((400, 1, 4, 4), 0.4, dtype=F64)
    grid = spaced(DISCRETE, 30)
    seen = []
    generator = torch.Generator().manual_seed(3)
    ddim(
        Inpaint(Mixture(levels=DISCRETE), known, torch.ones(1, 1, 1, 1)),
        known + grid[0] * picture(4, (400, 1, 4, 4)),
        grid,
        eta=eta,
        noise=lambda like: torch.randn(like.shape, generator=generator, dtype=like.dtype),
        watch=lambda sigma, y, x0: seen.append((sigma, y)),
    )
    for sigma, y in seen:
        assert abs(float((y - known).std()) / sigma - 1) < 0.05


def test_clamp():
    x0 = Clamp(X0Denoiser(lambda x, t, c: 3 * x, TABLE), low=-0.5, high=2.0)(picture(), SIGMA)
    assert x0.min() == -0.5
    assert x0.max() == 2.0


# --- stacks
# -----------------------------------------------------------------------------------------------------


def wrappers(inner):
    y = picture()
    cond = Cond(label=torch.tensor([0, 1]))
    return {
        "bind": lambda d: Bind(d, cond),
        "cfg": lambda d: CFG(d, 2.0),
        "autoguide": lambda d: Autoguide(d, Mixture(levels=d.levels), 1.5),
        "guide": lambda d: Guide(d, log_normal(0.0, 1.0), 0.1),
        "pull": lambda d: Pull(d, y, 0.5),
        "inpaint": lambda d: Inpaint(d, y, torch.ones(2, 1, 4, 4)),
        "clamp": Clamp,
    }


def test_every_wrapper_forwards_levels_and_the_promise_to_draw():
    drawing = Drawing(Mixture(levels=DISCRETE), torch.Generator())
    for wrap in wrappers(drawing).values():
        assert wrap(drawing).levels.draws
        assert wrap(drawing).levels.table is TABLE


def test_neutral_wrappers_change_nothing():
    inner, y, cond = Conditional(), picture(), Cond(label=torch.tensor([0, 1]))
    plain = inner(y, SIGMA, cond)
    neutral = [
        CFG(inner, 1.0),
        Autoguide(inner, Mixture(), 1.0),
        Guide(inner, log_normal(0.0, 1.0), 0.0),
        Pull(inner, y, 0.0),
        Inpaint(inner, y, torch.zeros(2, 1, 4, 4)),
        Clamp(inner, -1e9, 1e9),
        Bind(inner, cond),
    ]
    for wrapped in neutral:
        assert torch.equal(wrapped(y, SIGMA, cond), plain)


def test_every_wrapper_forwards_a_learned_variance():
    def net(x_t, t, cond):
        shift = 0.0 if cond is None or cond.label is None else cond.label.reshape(-1, 1, 1, 1) * 0.1
        return torch.cat((x_t * 0.5 + shift, x_t * 0 + 0.5), 1)

    family = EpsDenoiser(net, TABLE, learned_variance=True)
    cond = Cond(label=torch.tensor([0, 1]))
    for wrap in wrappers(family).values():
        x0, fraction = wrap(family).moments(picture(), SIGMA, cond)
        assert torch.equal(fraction, torch.full_like(fraction, 0.75))
        assert torch.equal(x0, wrap(family)(picture(), SIGMA, cond))
    with pytest.raises(RefusalError, match="none"):
        Clamp(Gaussian()).moments(picture(), SIGMA)


@pytest.mark.parametrize(
    "names",
    [*itertools.permutations(["cfg", "pull", "clamp"], 2), ("guide", "inpaint"), ("autoguide", "guide")],
)
@pytest.mark.parametrize("sampler", [ddim, heun, dpmpp_2m, invert])
def test_stacks_run_in_any_order_under_any_sampler(names, sampler):
    inner = Conditional(levels=DISCRETE)
    make = wrappers(inner)
    stack = make["bind"](make[names[1]](make[names[0]](inner)))
    sample = sampler(stack, picture() * 2, spaced(DISCRETE, 5, start=2.0))
    assert sample.shape == (2, 2, 4, 4)
    assert sample.isfinite().all()


def test_the_recommended_stack():
    make = wrappers(None)
    denoiser = Conditional(levels=DISCRETE)
    for name in ("cfg", "autoguide", "guide", "bind", "pull", "inpaint", "clamp"):
        denoiser = make[name](denoiser)
    sample = ddim(denoiser, picture() * 2, spaced(DISCRETE, 5, start=2.0), eta=1)
    assert sample.abs().max() <= 1
