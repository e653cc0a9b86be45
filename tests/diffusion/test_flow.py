"""The flow's likelihood against the densities of Gaussians, its divergence exact in low dimension, its order."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal
from truth import Drawing, Gaussian, Mixture, Pair, order

from anodiff.diffusion.denoiser import EpsDenoiser
from anodiff.diffusion.flow import divergence, log_likelihood, rademacher
from anodiff.diffusion.guidance import Autoguide, Clamp, Guide
from anodiff.diffusion.levels import Levels, karras, spaced
from anodiff.diffusion.likelihood import bound
from anodiff.diffusion.sampling import heun
from anodiff.diffusion.schedule import table
from anodiff.errors import ConfigError, RefusalError
from anodiff.noise import PerImageNoise

F64 = torch.float64
TABLE = table("linear")
DISCRETE = Levels(low=float(TABLE[0]), high=float(TABLE[-1]), table=TABLE)


def picture(seed: int = 0, shape=(2, 2, 4, 4)) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def source(seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return lambda like: torch.randn(like.shape, generator=generator, dtype=like.dtype)


def signs(seed: int = 0):
    return rademacher(source(seed))


def basis():
    """The unit vectors in turn, scaled so that as many probes as dimensions give the trace exactly."""
    calls = 0

    def probe(like):
        nonlocal calls
        size = like[0].numel()
        vector = torch.zeros(size, dtype=like.dtype)
        vector[calls % size] = math.sqrt(size)
        calls += 1
        return vector.reshape(1, *like.shape[1:]).expand_as(like)

    return probe


def ladder(low: float, high: float, steps: int) -> torch.Tensor:
    """Steps of equal length in ln sigma."""
    return torch.logspace(math.log10(high), math.log10(low), steps + 1, dtype=F64)


def bits(law, x0: torch.Tensor) -> torch.Tensor:
    return -law.log_prob(x0).mean((1, 2, 3)) / math.log(2)


# --- closed forms
# -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("solver", "expected"), [("euler", 1), ("heun", 2)])
def test_the_error_on_a_gaussian_shrinks_with_the_solvers_order(solver, expected):
    """Measured: euler .98, heun 1.98."""
    truth, x0 = Gaussian(0.0, 0.5), 0.5 * picture()
    exact = bits(Normal(torch.tensor(0.0, dtype=F64), math.hypot(0.5, 0.02)), x0)
    errors = []
    for steps in (40, 80, 160, 320):
        ours = log_likelihood(truth, x0, ladder(0.02, 30, steps), probe=signs(), solver=solver, std=0.5)
        errors.append(float((ours.total - exact).abs().max()))
    assert order(errors) == pytest.approx(expected, abs=0.2)
    assert errors[-1] < (0.02 if solver == "euler" else 2e-4)


def test_a_gaussian_in_the_limit_of_many_steps():
    """100, 200, 400 and 800 steps, extrapolated to none left over (Richardson). Measured: 6.4e-11.

    Signs are exact for a Jacobian without off-diagonal entries, so only the steps' error is left.

    Law: likelihood; reference: density of N(0, s^2 + low^2) (torch.distributions)
    """
    truth, x0 = Gaussian(0.0, 0.5), 0.5 * picture(0, (3, 1, 2, 2))
    exact = bits(Normal(torch.tensor(0.0, dtype=F64), math.hypot(0.5, 0.02)), x0)
    grids = [ladder(0.02, 30, steps) for steps in (100, 200, 400, 800)]
    ours = [log_likelihood(truth, x0, grid, probe=signs(), std=0.5).total for grid in grids]
    for power in (2, 3, 4):
        ours = [fine + (fine - coarse) / (2**power - 1) for coarse, fine in pairwise(ours)]
    assert (ours[0] - exact).abs().max() <= 1e-9


def test_the_path_is_the_exact_flow():
    truth, x0 = Gaussian(0.2, 0.4), 0.2 + 0.4 * picture()
    ours = log_likelihood(truth, x0, ladder(0.01, 40, 600), probe=signs())
    assert torch.allclose(ours.end, truth.flow(x0, 0.01, 40), rtol=1e-3)


@pytest.mark.parametrize("rho", [0.0, 0.9, -0.5])
def test_correlated_pixels_have_their_joint_density(rho):
    """Off the diagonal the Jacobian is not zero; two unit vectors give its trace. Measured: 2e-4 bits.

    The prior knows nothing of the correlation; at sigma = 200 that costs less than the bound.
    """
    pair, low = Pair(rho), 0.02
    covariance = torch.tensor([[1.0, rho], [rho, 1.0]], dtype=F64)
    x0 = picture(0, (6, 1, 1, 2)) @ torch.linalg.cholesky(covariance).mT
    law = MultivariateNormal(torch.zeros(2, dtype=F64), covariance + low**2 * torch.eye(2, dtype=F64))
    exact = -law.log_prob(x0.flatten(1)) / 2 / math.log(2)
    ours = log_likelihood(pair, x0, ladder(low, 200, 400), probe=basis(), probes=2)
    assert (ours.total - exact).abs().max() < 1e-3


def test_a_mixture_has_the_density_of_its_law():
    """Where the flow bends, at places of every height of the density."""
    truth, low = Mixture(), 0.02
    x0 = torch.linspace(-1.1, 1.1, 45, dtype=F64).reshape(-1, 1, 1, 1)
    parts = [
        w * Normal(torch.tensor(m, dtype=F64), math.hypot(s, low)).log_prob(x0).exp()
        for m, s, w in zip(truth.means, truth.stds, truth.weights, strict=True)
    ]
    exact = -sum(parts).log2().flatten()
    ours = log_likelihood(truth, x0, ladder(low, 100, 800), probe=signs(), std=0.6).total
    assert (ours - exact).abs().max() < 0.01


def test_the_density_of_a_guided_gaussian():
    """Guidance inside is differentiated too: the guided law is a Gaussian of other mean and deviation."""
    m, s, r, c = 0.2, 0.5, 0.3, 0.9
    prior = Gaussian(m, s)

    def log_prob(y, sigma, cond):
        variance = r**2 + s**2 * sigma**2 / (s**2 + sigma**2)
        return (-((c - prior(y, sigma)) ** 2) / (2 * variance)).sum((1, 2, 3))

    precision = 1 / s**2 + 1 / r**2
    law = Gaussian((m / s**2 + c / r**2) / precision, precision**-0.5)
    x0, grid = 0.7 + 0.3 * picture(), ladder(0.02, 30, 60)
    guided = log_likelihood(Guide(prior, log_prob, 1.0), x0, grid, probe=signs())
    expected = log_likelihood(law, x0, grid, probe=signs())
    assert (guided.flow_map - expected.flow_map).abs().max() < 1e-10
    doubled = log_likelihood(Autoguide(law, law, 2.0), x0, grid, probe=signs())
    assert torch.allclose(doubled.total, expected.total)


# --- divergence
# ---------------------------------------------------------------------------------------------------


def small_net(x_t, t, cond=None):
    """Every output depends on every input."""
    mixed = torch.cos(x_t.flatten(1).cumsum(1)).reshape(x_t.shape)
    return 0.4 * torch.tanh(mixed + x_t.roll(1, -1)) * torch.cos(t / 400).reshape(-1, 1, 1, 1)


def exact_diagonal(denoiser, y, sigma):
    """d x0_i / d y_i from the whole Jacobian, row by row."""
    rows = []
    for i in range(len(y)):
        jacobian = torch.autograd.functional.jacobian(
            lambda v: denoiser(v.reshape(1, *y.shape[1:]), sigma).flatten(), y[i].flatten()
        )
        rows.append(jacobian.diagonal().reshape(y.shape[1:]))
    return torch.stack(rows)


def test_unit_vectors_give_the_trace_exactly():
    """As many probes as dimensions; element by element too.

    Law: likelihood; reference: diagonal of the whole Jacobian (torch.autograd.functional)
    """
    denoiser, y, sigma = EpsDenoiser(small_net, TABLE), picture(0, (2, 1, 2, 3)), TABLE[300]
    x0, ours = divergence(denoiser, y, sigma, probe=basis(), probes=6)
    assert (ours - exact_diagonal(denoiser, y, sigma)).abs().max() <= 1e-13
    assert torch.equal(x0, denoiser(y, sigma))
    assert not x0.requires_grad
    assert not ours.requires_grad


@pytest.mark.parametrize("probe", [source, signs])
def test_the_mean_of_many_probes_is_the_exact_divergence(probe):
    denoiser, y, sigma = EpsDenoiser(small_net, TABLE), picture(0, (1, 1, 2, 3)), TABLE[300]
    exact = exact_diagonal(denoiser, y, sigma)
    rows = 20_000
    many = y.expand(rows, -1, -1, -1)
    _, drawn = divergence(denoiser, many, sigma, probe=probe(1), probes=1)
    error = (drawn.mean(0) - exact[0]).abs()
    assert bool((error < 4.5 * drawn.std(0) / math.sqrt(rows)).all())
    _, averaged = divergence(denoiser, many[:4000], sigma, probe=probe(2), probes=4)
    assert float((averaged.std(0) / drawn.std(0)).median()) == pytest.approx(0.5, abs=0.05)


def test_signs_vary_less_than_gaussian_probes():
    truth, x0, grid = Gaussian(0.0, 0.5), 0.5 * picture(0, (16, 1, 4, 4)), ladder(0.02, 30, 40)
    exact = log_likelihood(truth, x0, grid, probe=basis(), probes=16).total
    assert (log_likelihood(truth, x0, grid, probe=signs()).total - exact).abs().max() < 1e-12
    assert (log_likelihood(truth, x0, grid, probe=source()).total - exact).abs().max() > 1e-3
    drawn = rademacher(source())(x0)
    assert set(drawn.unique().tolist()) == {-1.0, 1.0}


# --- as evidence
# --------------------------------------------------------------------------------------------------


def test_the_parts_add_up():
    ours = log_likelihood(Mixture(), picture(), ladder(0.02, 30, 20), probe=signs())
    assert ours.prior_map.shape == ours.divergence_map.shape == ours.flow_map.shape == (2, 1, 4, 4)
    assert torch.equal(ours.flow_map, ours.prior_map + ours.divergence_map)
    assert torch.allclose(ours.flow_map.mean((1, 2, 3)), ours.total)
    square = 1 + 30.0**2
    prior = Normal(torch.tensor(0.0, dtype=F64), math.sqrt(square)).log_prob(ours.end).mean(1, keepdim=True)
    assert torch.allclose(ours.prior_map, -prior / math.log(2))
    narrow = log_likelihood(Gaussian(0.0, 0.3), 0.3 * picture(), ladder(0.02, 30, 20), probe=signs())
    assert (narrow.divergence_map < 0).all()  # the flow widens it all the way


def test_unlikely_places_stand_out_in_the_map():
    x0 = torch.zeros(1, 1, 8, 8, dtype=F64)
    x0[..., 2:4, 5:7] = 0.8
    ours = log_likelihood(Gaussian(0.0, 0.1), x0, ladder(0.02, 30, 40), probe=signs(), std=0.1)
    odd = ours.flow_map[..., 2:4, 5:7]
    assert odd.min() > ours.flow_map.median() + 20
    assert ours.flow_map.flatten().topk(4).values.min() == odd.min()


def test_it_lies_below_the_bound_in_the_mean():
    """The bound of quantised data, against the density and the width of a bin: 8-bit values add log2(127.5).

    Measured: .05 bits apart, as in the own test of the bound.
    """
    std, levels = 0.3, DISCRETE
    x0 = torch.round((std * picture(0, (16, 1, 16, 16)).clamp(-3, 3) + 1) * 127.5) / 127.5 - 1
    truth = Gaussian(0.0, std, levels=levels)
    upper = bound(truth, x0, spaced(levels, None, spacing="all"), noise=source(1), variance="large").total
    flow = log_likelihood(truth, x0, spaced(levels, 200), probe=signs())
    exact = bits(Normal(torch.tensor(0.0, dtype=F64), std), x0)
    assert (flow.total - exact).abs().max() < 0.02
    gap = float((upper - flow.total).mean()) - math.log2(127.5)
    assert 0 < gap < 0.1


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_rows_do_not_depend_on_their_batch(solver):
    denoiser, x0 = EpsDenoiser(small_net, TABLE), 0.4 * picture(0, (3, 1, 4, 4))
    grid = spaced(DISCRETE, 6)

    def run(rows):
        probe = rademacher(PerImageNoise([7 + i for i in rows]))
        return log_likelihood(denoiser, x0[rows], grid, probe=probe, solver=solver).flow_map

    assert torch.allclose(run([2, 0]), run([0, 1, 2])[[2, 0]], rtol=0, atol=1e-12)


def test_float32_pictures_and_trained_parameters():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.conv = torch.nn.Conv2d(2, 2, 3, padding=1)

        def forward(self, x_t, t, cond):
            return self.conv(x_t)

    denoiser = EpsDenoiser(Net(), TABLE)
    grid = spaced(DISCRETE, 8)
    ours = log_likelihood(denoiser, 0.3 * picture().float(), grid, probe=signs())
    assert ours.flow_map.dtype == torch.float32
    assert not ours.flow_map.requires_grad
    assert denoiser.net.conv.weight.grad is None
    narrow = signs()
    exact = log_likelihood(
        denoiser.double(), 0.3 * picture(), grid, probe=lambda like: narrow(like.float()).double()
    )
    assert torch.allclose(ours.flow_map.double(), exact.flow_map, atol=1e-4)


def test_a_denoiser_that_ignores_its_input_has_no_divergence():
    class Blind:
        levels = DISCRETE

        def __call__(self, y, sigma, cond=None):
            return torch.zeros_like(y)

    ours = log_likelihood(Blind(), picture(), spaced(DISCRETE, 5), probe=signs())
    growth = math.log(float(TABLE[-1]) / float(spaced(DISCRETE, 5)[-2])) / math.log(2)
    assert torch.allclose(ours.divergence_map, torch.full_like(ours.divergence_map, -growth))


def test_the_final_zero_makes_no_difference():
    truth, x0, grid = Mixture(stds=(0.3, 0.25, 0.35)), 0.3 * picture(), karras(0.02, 30, 12)
    with_zero = torch.cat((grid, torch.zeros(1, dtype=F64)))
    a, b = (log_likelihood(truth, x0, g, probe=signs()).flow_map for g in (grid, with_zero))
    assert torch.equal(a, b)
    fine = karras(0.02, 30, 200)
    walked = heun(truth, log_likelihood(truth, x0, fine, probe=signs()).end, fine)
    assert torch.allclose(walked, x0, atol=1e-4)


def test_the_number_of_evaluations_is_as_promised():
    calls = []

    class Counting(Gaussian):
        def __call__(self, y, sigma, cond=None):
            calls.append(float(sigma))
            return super().__call__(y, sigma, cond)

    grid = ladder(0.1, 10, 6)
    log_likelihood(Counting(), picture(), grid, probe=signs(), solver="euler")
    assert len(calls) == 7
    assert calls == sorted(calls)
    log_likelihood(Counting(), picture(), grid, probe=signs())
    assert len(calls) == 7 + 13


def test_refusals():
    truth, x0, grid = Gaussian(levels=DISCRETE), picture(), spaced(DISCRETE, 4)
    with pytest.raises(RefusalError, match="draws x0"):
        log_likelihood(Clamp(Drawing(Mixture(levels=DISCRETE), torch.Generator())), x0, grid, probe=signs())
    with torch.inference_mode(), pytest.raises(RefusalError, match="inference_mode"):
        log_likelihood(truth, x0, grid, probe=signs())
    with pytest.raises(ConfigError, match="two levels above 0"):
        log_likelihood(truth, x0, spaced(DISCRETE, 1), probe=signs())
    with pytest.raises(ConfigError, match="probes >= 1"):
        log_likelihood(truth, x0, grid, probe=signs(), probes=0)
    with pytest.raises(ConfigError, match="finite std"):
        log_likelihood(truth, x0, grid, probe=signs(), std=float("inf"))
    with pytest.raises(ConfigError, match="unknown solver"):
        log_likelihood(truth, x0, grid, probe=signs(), solver="rk45")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="make it with `spaced`"):
        log_likelihood(truth, x0, grid.flip(0), probe=signs())
