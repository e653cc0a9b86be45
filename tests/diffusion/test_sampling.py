"""Samplers: their laws, their order of convergence, and the law of what they draw."""

from __future__ import annotations

import time
from functools import cache

import pytest
import torch
from truth import Conditional, Drawing, Gaussian, Mixture, Pair, as_net, order

from anodiff.cond import Cond
from anodiff.diffusion.denoiser import EpsDenoiser
from anodiff.diffusion.guidance import CFG, Bind, Clamp, Inpaint
from anodiff.diffusion.levels import Levels, karras, spaced
from anodiff.diffusion.sampling import (
    ddim,
    dpmpp_2m,
    heun,
    interpolate,
    invert,
    one_step,
    repaint,
)
from anodiff.diffusion.schedule import abar_of, table
from anodiff.errors import ConfigError, RefusalError
from anodiff.noise import PerImageNoise, from_generator

TABLE = table("linear")
DISCRETE = Levels(low=float(TABLE[0]), high=float(TABLE[-1]), table=TABLE)
F64 = torch.float64


def source(seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return lambda like: torch.randn(like.shape, generator=generator, dtype=like.dtype)


def picture(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def test_the_last_step_lands_on_x0():
    """Trap 1: abar(-1) is 1."""
    truth = Mixture(levels=DISCRETE)
    seen = []
    sample = ddim(
        truth, picture(2, 1, 4, 4) * TABLE[-1], spaced(DISCRETE, 7), eta=0.5, watch=lambda *a: seen.append(a)
    )
    assert torch.equal(sample, seen[-1][2])
    assert len(seen) == 7


# --- order of convergence -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("sampler", "expected"), [(ddim, 1), (heun, 2), (dpmpp_2m, 2)])
def test_order_of_convergence_on_a_gaussian(sampler, expected):
    """Against the exact flow. Measured: ddim .99, heun 2.02, dpmpp_2m 2.02."""
    truth = Gaussian(0.3, 0.5)
    y = picture(1, 1, 8, 8) * 20 + 0.3
    exact = truth.flow(y, 20, 0.05)
    errors = [
        float((sampler(truth, y, karras(0.05, 20, steps + 1)) - exact).abs().max())
        for steps in (32, 64, 128, 256)
    ]
    assert order(errors) == pytest.approx(expected, abs=0.2)


@cache
def bent_flow() -> tuple[Mixture, torch.Tensor, torch.Tensor]:
    truth, y = Mixture(stds=(0.3, 0.25, 0.35)), picture(1, 1, 4, 4) * 5
    return truth, y, heun(truth, y, karras(0.1, 5, 2001))


@pytest.mark.parametrize(("sampler", "expected"), [(ddim, 1), (heun, 2), (dpmpp_2m, 2)])
def test_order_of_convergence_on_a_mixture(sampler, expected):
    """Against a fine Heun solution, where the flow bends. Measured: ddim 1.00, heun 2.01, dpmpp_2m 2.02."""
    truth, y, exact = bent_flow()
    errors = [
        float((sampler(truth, y, karras(0.1, 5, steps + 1)) - exact).abs().mean())
        for steps in (40, 80, 160, 320)
    ]
    assert order(errors) == pytest.approx(expected, abs=0.25)


def test_second_order_beats_first_at_equal_evaluations():
    truth = Gaussian(0.3, 0.5)
    y = picture(1, 1, 8, 8) * 20
    exact = truth.flow(y, 20, 0.05)
    error = {
        name: float((sampler(truth, y, karras(0.05, 20, steps + 1)) - exact).abs().max())
        for name, sampler, steps in (("ddim", ddim, 40), ("heun", heun, 20), ("dpmpp_2m", dpmpp_2m, 40))
    }
    assert error["heun"] < error["ddim"] / 3
    assert error["dpmpp_2m"] < error["ddim"] / 3


# --- the law of the samples
# -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "steps", "arguments"),
    [
        ("ddim", 200, {"eta": 0.0}),
        ("ddim", 200, {"eta": 0.5}),
        ("ddim", 200, {"eta": 1.0}),
        ("ddim", 1000, {"eta": 1.0, "variance": "large"}),
        ("heun", 100, {}),
        ("dpmpp_2m", 100, {}),
    ],
)
def test_samples_follow_the_mixture(name, steps, arguments):
    """Wasserstein-1 distance of 5,000 samples; as many true draws are .01 away themselves."""
    truth = Mixture(levels=DISCRETE)
    samplers = {"ddim": ddim, "heun": heun, "dpmpp_2m": dpmpp_2m}
    if name == "ddim":
        arguments = {**arguments, "noise": source(1)}
    grid = spaced(DISCRETE, steps)
    sample = samplers[name](truth, picture(50, 1, 10, 10) * grid[0], grid, **arguments)
    assert truth.distance(sample) < 0.02


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_a_denoiser_that_draws_is_exact_in_four_steps_at_any_eta(eta):
    """With x0 drawn from its posterior every eta keeps the next level's law; with the mean four steps fail."""
    vp = table("vp", 4)
    levels = Levels(low=float(vp[0]), high=float(vp[-1]), table=vp)
    truth = Mixture(levels=levels)
    grid = spaced(levels, 4)
    y = picture(100, 1, 10, 10) * grid[0]
    drawn = ddim(Drawing(truth, torch.Generator().manual_seed(3)), y, grid, eta=eta, noise=source(1))
    assert truth.distance(drawn) < 0.02
    assert truth.distance(ddim(truth, y, grid, eta=eta, noise=source(1))) > 0.06


@pytest.mark.parametrize("sampler", [heun, dpmpp_2m, invert])
def test_ode_samplers_refuse_a_denoiser_that_draws(sampler):
    drawing = Drawing(Mixture(levels=DISCRETE), torch.Generator())
    with pytest.raises(RefusalError, match="draws x0"):
        sampler(drawing, picture(1, 1, 2, 2), spaced(DISCRETE, 4))
    with pytest.raises(RefusalError, match="draws x0"):  # the promise travels through wrappers
        sampler(Clamp(drawing), picture(1, 1, 2, 2), spaced(DISCRETE, 4))


def test_learned_variance_must_have_been_learned():
    truth = Mixture(levels=DISCRETE)
    with pytest.raises(RefusalError, match="learned variance"):
        ddim(truth, picture(1, 1, 2, 2), spaced(DISCRETE, 4), eta=1, variance="learned")
    with pytest.raises(ConfigError, match="unknown variance"):
        ddim(truth, picture(1, 1, 2, 2), spaced(DISCRETE, 4), eta=1, variance="huge")  # type: ignore[arg-type]


# --- inversion, interpolation, repair
# ---------------------------------------------------------------------------


def test_invert_and_return_halves_its_error_when_steps_double():
    """Measured order: 1.0."""
    truth = Gaussian(0.2, 0.4, levels=Levels(low=0.002, high=80))
    x0 = 0.2 + 0.4 * picture(1, 1, 8, 8)
    errors = []
    for steps in (20, 40, 80, 160):
        grid = spaced(truth.levels, steps, start=5.0, spacing="karras")
        errors.append(float((ddim(truth, invert(truth, x0, grid), grid) - x0).abs().max()))
    assert errors[-1] < 0.03
    assert 0.8 < order(errors) < 1.3


def test_inversion_finds_the_flow():
    truth = Gaussian(0.2, 0.4, levels=Levels(low=0.002, high=80))
    x0 = 0.2 + 0.4 * picture(1, 1, 8, 8)
    y = invert(truth, x0, spaced(truth.levels, 1000, start=5.0))
    assert (y - truth.flow(x0, 0, 5.0)).abs().max() < 0.05


def test_inversion_with_a_table_starts_from_a_clean_picture():
    truth = Mixture(stds=(0.3, 0.3, 0.3))
    denoiser = EpsDenoiser(as_net(truth, TABLE, "eps"), TABLE)
    x0 = picture(1, 1, 8, 8) * 0.3
    grid = spaced(denoiser.levels, 200, start=1.0)
    assert (ddim(denoiser, invert(denoiser, x0, grid), grid) - x0).abs().max() < 0.02


def test_inversion_with_strong_guidance_does_not_return():
    """Trap 7, at equal steps."""
    x0 = -0.5 + 0.2 * picture(2, 1, 8, 8)
    grid = karras(0.002, 5, 40)
    errors = []
    for scale in (1.0, 7.5):
        guided = Bind(CFG(Conditional(), scale), Cond(label=torch.zeros(2, dtype=torch.long)))
        errors.append(float((ddim(guided, invert(guided, x0, grid), grid) - x0).abs().mean()))
    assert errors[1] > 5 * errors[0]


def test_interpolation_keeps_length_and_ends():
    a, b = picture(3, 2, 8, 8), picture(3, 2, 8, 8, seed=1)
    assert torch.allclose(interpolate(a, b, 0.0), a)
    assert torch.allclose(interpolate(a, b, 1.0), b)
    unit_a, unit_b = (v / v.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1) for v in (a, b))
    middle = interpolate(unit_a, unit_b, 0.3)
    assert torch.allclose(middle.flatten(1).norm(dim=1), torch.ones(3, dtype=F64))
    assert torch.allclose(interpolate(a, 2 * a, 0.5), 1.5 * a)
    mixed = torch.cat((a[:1], b[:1])), torch.cat((a[:1], a[:1]))
    assert torch.allclose(interpolate(*mixed, 0.4)[1], interpolate(b[:1], a[:1], 0.4)[0])


def test_repainting_brings_the_unknown_into_agreement_with_the_known():
    """Two pixels of correlation .9, the first known to be 1.5: the second should be 1.35 in the mean."""
    pair = Pair()
    known = torch.tensor([1.5, 0.0], dtype=F64).reshape(1, 1, 1, 2).expand(2000, 1, 1, 2)
    mask = torch.tensor([1.0, 0.0], dtype=F64).reshape(1, 1, 1, 2)
    grid = torch.cat((karras(0.02, 20, 20), torch.zeros(1, dtype=F64)))
    y = known + grid[0] * picture(2000, 1, 1, 2)
    denoiser = Inpaint(pair, known, mask)
    plain = ddim(denoiser, y, grid, eta=1, noise=source(1))
    again = repaint(denoiser, y, grid, resamples=8, jump=2, noise=source(1))
    assert torch.equal(plain[..., 0], known[..., 0])
    assert torch.equal(again[..., 0], known[..., 0])
    error = [abs(float(v[..., 1].mean()) - 1.35) for v in (plain, again)]
    assert error[1] < 0.1
    assert error[1] < error[0] / 2
    assert torch.equal(repaint(denoiser, y, grid, resamples=1, jump=3, noise=source(1)), plain)
    with pytest.raises(ConfigError, match="resamples"):
        repaint(denoiser, y, grid, resamples=0)


def test_one_step_is_the_denoiser_at_one_level():
    truth = Gaussian(0.1, 0.5)
    x0, n = picture(2, 1, 4, 4), picture(2, 1, 4, 4, seed=1)
    assert torch.allclose(
        one_step(truth, x0, 0.7, noise=lambda like: n), truth(x0 + 0.7 * n, torch.tensor(0.7))
    )


# --- conduct
# ----------------------------------------------------------------------------------------------------


def test_samples_do_not_depend_on_batch_or_order():
    truth = Mixture(levels=DISCRETE)
    grid = spaced(DISCRETE, 10, start=1.0)
    z = picture(5, 1, 6, 6).float()

    def restore(rows: list[int]) -> torch.Tensor:
        noise = PerImageNoise([10 + i for i in rows])
        return ddim(truth, z[rows] + grid[0] * noise(z[rows]), grid, eta=1, noise=noise)

    together = restore([0, 1, 2, 3, 4])
    assert torch.allclose(restore([3, 1, 4, 0, 2]), together[[3, 1, 4, 0, 2]], atol=1e-6)
    for i in range(5):
        assert torch.allclose(restore([i]), together[i : i + 1], atol=1e-6)


def test_no_clipping_happens_unless_wrapped():
    """Trap 5: latents and features reach beyond [-1, 1]; only Clamp cuts."""
    wide = Gaussian(4.0, 0.1, levels=DISCRETE)
    grid = spaced(DISCRETE, 20)
    y = picture(2, 1, 4, 4) * grid[0]
    for sampler in (ddim, heun, dpmpp_2m):
        assert (sampler(wide, y, grid) - 4).abs().max() < 0.5
        assert sampler(Clamp(wide), y, grid).max() <= 1


def test_samplers_make_no_graph_and_allow_one_inside():
    """Trap 32: no_grad, not inference mode."""
    weight = torch.ones((), requires_grad=True, dtype=F64)

    class Probe:
        levels = DISCRETE

        def __call__(self, y, sigma, cond=None):
            assert not torch.is_inference_mode_enabled()
            with torch.enable_grad():
                assert (weight * y).requires_grad
            return weight * y * 0.5

    grid = spaced(DISCRETE, 3)
    for sampler in (ddim, heun, dpmpp_2m, invert):
        result = sampler(Probe(), picture(1, 1, 2, 2), grid)
        assert not result.requires_grad
        assert not result.is_inference()


@pytest.mark.parametrize("bad", [[1.0], [1.0, 2.0, 0.0], [1.0, 1.0, 0.0], [2.0, 1.0, -0.1]])
def test_grids_must_descend(bad):
    for sampler in (ddim, heun, dpmpp_2m, invert):
        with pytest.raises(ConfigError, match="make it with `spaced`"):
            sampler(Gaussian(), picture(1, 1, 2, 2), torch.tensor(bad))


def test_watch_sees_every_evaluation():
    truth = Gaussian(levels=DISCRETE)
    grid = spaced(DISCRETE, 5)
    for sampler, count in ((ddim, 5), (heun, 9), (dpmpp_2m, 5), (invert, 5)):
        seen = []
        sampler(truth, picture(1, 1, 2, 2), grid, watch=lambda s, y, x0, seen=seen: seen.append((s, y, x0)))
        assert len(seen) == count
        for sigma, y, x0 in seen:
            assert torch.equal(x0, truth(y, torch.tensor(sigma, dtype=F64)))


def test_noise_is_drawn_only_where_it_is_added():
    calls = []
    noise = from_generator(torch.Generator().manual_seed(0))
    truth, grid = Gaussian(levels=DISCRETE), spaced(DISCRETE, 6)
    ddim(truth, picture(1, 1, 2, 2), grid, eta=1, noise=lambda like: calls.append(1) or noise(like))
    assert len(calls) == 5
    ddim(truth, picture(1, 1, 2, 2), grid, noise=lambda like: calls.append(1) or noise(like))
    assert len(calls) == 5


def test_the_loop_costs_little():
    """Below 1 ms a step on a busy machine (measured .06 ms): small against any network."""
    grid = spaced(DISCRETE, 100)

    class Idle:
        levels = DISCRETE

        def __call__(self, y, sigma, cond=None):
            return y

    y = torch.zeros(1, 1, 4, 4)
    best = min(_seconds(lambda: ddim(Idle(), y, grid, eta=1)) for _ in range(5))
    assert best / 100 < 1e-3


def _seconds(function) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def test_prior_of_the_table_is_nearly_pure_noise():
    assert abar_of(TABLE)[-1] < 5e-5
