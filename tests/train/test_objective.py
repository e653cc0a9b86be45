"""Weights on the error of x0 against the plain losses they stand for; the laws of the noise levels."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from anodiff.diffusion.denoiser import EpsDenoiser, KarrasDenoiser, VDenoiser, X0Denoiser
from anodiff.diffusion.schedule import table
from anodiff.train.objective import (
    EpsWeight,
    KarrasWeight,
    LogNormal,
    LogUniform,
    MinSNR,
    Objective,
    UniformTable,
    VWeight,
    X0Weight,
)

TABLE = table("linear", 1000)
STD = 0.4


@pytest.fixture
def rows():
    g = torch.Generator().manual_seed(0)
    z, n = (torch.randn(16, 2, 3, 3, generator=g, dtype=torch.float64) for _ in range(2))
    sigma = TABLE[torch.randint(0, 1000, (16,), generator=g)]
    return z, n, sigma


def net(x, t, cond):
    return torch.tanh(1.7 * x) + 0.01 * t.view(-1, 1, 1, 1).cos()


def plain(prediction, target):
    return (prediction - target).square().flatten(1).mean(1)


def vp(z, n, sigma):
    """x_t, alpha and deviation of the variance-preserving family, computed the usual way round from abar."""
    abar = (1 / (1 + sigma**2)).view(-1, 1, 1, 1)
    return abar.sqrt() * z + (1 - abar).sqrt() * n, abar.sqrt(), (1 - abar).sqrt()


def index(sigma):
    return torch.searchsorted(TABLE, sigma).double()


def loss(weight, denoiser, z, n, sigma):
    return Objective(weight=weight, times=UniformTable(TABLE)).loss(denoiser, z, sigma, n)


def test_eps_weight_is_the_plain_loss_on_eps(rows):
    z, n, sigma = rows
    x_t, _, _ = vp(z, n, sigma)
    expected = plain(net(x_t, index(sigma), None), n)
    torch.testing.assert_close(
        loss(EpsWeight(), EpsDenoiser(net, TABLE), z, n, sigma), expected, rtol=1e-9, atol=0
    )


def test_v_weight_is_the_plain_loss_on_v(rows):
    z, n, sigma = rows
    x_t, alpha, dev = vp(z, n, sigma)
    expected = plain(net(x_t, index(sigma), None), alpha * n - dev * z)
    torch.testing.assert_close(
        loss(VWeight(), VDenoiser(net, TABLE), z, n, sigma), expected, rtol=1e-9, atol=0
    )


def test_x0_weight_is_the_plain_loss_on_x0(rows):
    z, n, sigma = rows
    x_t, _, _ = vp(z, n, sigma)
    expected = plain(net(x_t, index(sigma), None), z)
    torch.testing.assert_close(
        loss(X0Weight(), X0Denoiser(net, TABLE), z, n, sigma), expected, rtol=1e-12, atol=0
    )


def test_karras_weight_is_the_plain_loss_on_the_preconditioned_target(rows):
    z, n, sigma = rows
    s = sigma.view(-1, 1, 1, 1)
    root = (s**2 + STD**2).sqrt()
    y = z + s * n
    target = (z - STD**2 / root**2 * y) / (s * STD / root)  # what F must say, arXiv:2206.00364 eq. 8
    expected = plain(net(y / root, sigma.log() / 4, None), target)
    denoiser = KarrasDenoiser(net, std=STD, low=0.002, high=200.0)
    torch.testing.assert_close(loss(KarrasWeight(STD), denoiser, z, n, sigma), expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("target", ["x0", "eps", "v"])
def test_min_snr_is_the_paper_s_weight_of_each_target(rows, target):
    z, n, sigma = rows
    x_t, alpha, dev = vp(z, n, sigma)
    snr = sigma**-2
    capped = snr.clamp(max=5)
    family, goal, weight = {
        "x0": (X0Denoiser, z, capped),
        "eps": (EpsDenoiser, n, capped / snr),
        "v": (VDenoiser, alpha * n - dev * z, capped / (snr + 1)),
    }[target]
    expected = weight * plain(net(x_t, index(sigma), None), goal)
    got = loss(MinSNR(5.0), family(net, TABLE), z, n, sigma)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=0)
    assert (capped < snr).any()
    assert (capped == snr).any()


def test_the_gradient_of_the_weighted_loss_is_that_of_the_plain_one(rows):
    z, n, sigma = rows
    gain = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    x_t, _, _ = vp(z, n, sigma)
    ours = loss(EpsWeight(), EpsDenoiser(lambda x, t, cond: gain * x.tanh(), TABLE), z, n, sigma).mean()
    usual = plain(gain * x_t.tanh(), n).mean()
    (a,), (b,) = torch.autograd.grad(ours, gain), torch.autograd.grad(usual, gain)
    torch.testing.assert_close(a, b, rtol=1e-9, atol=0)


def test_float32_keeps_the_eps_loss_from_the_lowest_to_the_highest_level(rows):
    z, n, _ = rows
    sigma = TABLE[[0] * 8 + [999] * 8]
    exact = loss(EpsWeight(), EpsDenoiser(net, TABLE), z, n, sigma)
    single = loss(EpsWeight(), EpsDenoiser(net, TABLE), z.float(), n.float(), sigma)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), exact, rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    ("weight", "values"),
    [
        (X0Weight(), [1.0, 1.0, 1.0, 1.0]),
        (EpsWeight(), [16.0, 4.0, 1.0, 0.0625]),
        (VWeight(), [17.0, 5.0, 2.0, 1.0625]),
        (MinSNR(5.0), [5.0, 4.0, 1.0, 0.0625]),
        (MinSNR(1.0), [1.0, 1.0, 1.0, 0.0625]),
        (KarrasWeight(0.5), [20.0, 8.0, 5.0, 4.0625]),  # (sigma^2 + 1/4) / (sigma / 2)^2
    ],
)
def test_weights_at_levels_that_can_be_worked_out_in_the_head(weight, values):
    sigma = torch.tensor([0.25, 0.5, 1.0, 4.0], dtype=torch.float64)
    assert weight(sigma).tolist() == values
    z, x0 = torch.zeros(4, 1, 1, 2, dtype=torch.float64), torch.tensor([3.0, 1.0], dtype=torch.float64)
    objective = Objective(weight=weight, times=UniformTable(TABLE))  # a mean square error of 5 at each level
    assert objective.error(z, x0.expand(4, 1, 1, 2), sigma).tolist() == [5 * value for value in values]


GRID = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000


def test_uniform_table_visits_each_level_alike():
    sigma = UniformTable(TABLE)(GRID)
    levels, counts = sigma.unique(return_counts=True)
    assert torch.equal(levels, TABLE)
    assert counts.min() == counts.max() == 20
    edge = UniformTable(TABLE)(torch.tensor([0.0, 1 - 2.0**-53], dtype=torch.float64))
    assert torch.equal(edge, TABLE[[0, -1]])


def test_log_normal_has_the_law_of_its_name():
    sigma = LogNormal(-1.2, 1.2, low=1e-9, high=1e9)(GRID)
    assert stats.kstest(sigma.log().numpy(), "norm", args=(-1.2, 1.2)).statistic < 1e-4


def test_log_normal_is_finite_and_inside_its_ends_at_the_edges_of_the_interval():
    sigma = LogNormal()(torch.tensor([0.0, 0.5, 1 - 2.0**-53], dtype=torch.float64))
    assert sigma[0] == pytest.approx(0.002)
    assert sigma[1] == pytest.approx(math.exp(-1.2), rel=1e-3)
    assert sigma[2] == pytest.approx(80.0)


def test_log_uniform_is_uniform_in_the_logarithm():
    sigma = LogUniform(0.01, 50.0)(GRID)
    span = math.log(50.0 / 0.01)
    assert stats.kstest(sigma.log().numpy(), "uniform", args=(math.log(0.01), span)).statistic < 1e-4
