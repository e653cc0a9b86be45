"""The bound and the hybrid as losses, against the paper's formulas in the coordinates of x written out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from small_run import PLAN, Stripes
from torch import nn
from torch.distributions import Normal, kl_divergence

from anodiff.diffusion.denoiser import EpsDenoiser, KarrasDenoiser, X0Denoiser
from anodiff.diffusion.schedule import table
from anodiff.errors import ConfigError, RefusalError
from anodiff.train.fit import fit
from anodiff.train.objective import EpsWeight, LogUniform, MinSNR, Objective, UniformTable
from anodiff.train.variational import Hybrid, Variational

T = 20
TABLE = table("linear", T)
TIMES = UniformTable(TABLE)
LEARNED = Variational(table=TABLE, times=TIMES, variance="learned")
SIMPLE = Objective(weight=EpsWeight(), times=TIMES)
HYBRID = Hybrid(simple=SIMPLE, bound=LEARNED)


class Halves(nn.Module):
    """A network with a parameter for its prediction and one for its variance, in one evaluation."""

    def __init__(self):
        super().__init__()
        self.mean = nn.Parameter(torch.tensor([0.8, 0.3], dtype=torch.float64))
        self.spread = nn.Parameter(torch.tensor([0.4, -0.2], dtype=torch.float64))
        self.calls = 0

    def forward(self, x, t, cond=None):
        self.calls += 1
        t = t.to(x.dtype).view(-1, 1, 1, 1) / T
        mean = torch.tanh(self.mean[0] * x) + self.mean[1] * t
        return torch.cat([mean, torch.sin(self.spread[0] * x + self.spread[1] * t)], 1)


def eps_denoiser():
    return EpsDenoiser(Halves(), TABLE, learned_variance=True)


@pytest.fixture
def rows():
    g = torch.Generator().manual_seed(0)
    z = torch.randint(0, 256, (T, 2, 3, 3), generator=g).double() / 127.5 - 1  # a row at each level
    z[0, 0, 0] = torch.tensor([-1.0, 1.0, 0.0])  # the open bins of the decoder
    return z, TABLE.clone(), torch.randn(T, 2, 3, 3, generator=g, dtype=torch.float64)


def by_hand(z, n, prediction, v, *, variance):
    """L_t of row t for t = 0..T-1, in bits a dimension: arXiv:2006.11239 eqs. 5-8 and 13, 2102.09672 eq. 15."""
    abar = 1 / (1 + TABLE**2)
    before = torch.cat([torch.ones(1, dtype=torch.float64), abar[:-1]])
    beta = 1 - abar / before
    tilde = beta * (1 - before) / (1 - abar)
    tilde[0] = tilde[1]  # the first entry is borrowed
    values = []
    for t in range(T):
        x_t = abar[t].sqrt() * z[t] + (1 - abar[t]).sqrt() * n[t]
        x0 = (x_t - (1 - abar[t]).sqrt() * prediction[t]) / abar[t].sqrt()
        share = (v[t] + 1) / 2
        model = {
            "small": tilde[t].expand_as(x0),
            "large": (tilde[1] if t == 0 else beta[t]).expand_as(x0),
            "learned": (share * beta[t].log() + (1 - share) * tilde[t].log()).exp(),
        }[variance]
        if t == 0:
            mean, width = x0.detach().numpy(), model.detach().sqrt().numpy()
            edges = [(z[t].numpy() + side / 255 - mean) / width for side in (1, -1)]
            upper = stats.norm.cdf(edges[0])
            lower = stats.norm.cdf(edges[1])
            upper[z[t].numpy() > 0.999] = 1
            lower[z[t].numpy() < -0.999] = 0
            values.append(torch.tensor(-np.log(upper - lower)).mean() / math.log(2))
            continue
        first = before[t].sqrt() * beta[t] / (1 - abar[t])
        second = (1 - beta[t]).sqrt() * (1 - before[t]) / (1 - abar[t])
        q = Normal(first * z[t] + second * x_t, tilde[t].sqrt())
        p = Normal(first * x0 + second * x_t, model.sqrt())
        values.append(kl_divergence(q, p).mean() / math.log(2))
    return torch.stack(values)


def halves(denoiser, z, sigma, n):
    x_t = (z + sigma.view(-1, 1, 1, 1) * n) / (1 + sigma**2).sqrt().view(-1, 1, 1, 1)
    return denoiser.net(x_t, torch.arange(T), None).chunk(2, 1)


@pytest.mark.parametrize("variance", ["small", "large", "learned"])
def test_the_variational_loss_is_the_paper_s_term_times_the_number_of_levels(rows, variance):
    z, sigma, n = rows
    denoiser = eps_denoiser()
    expected = T * by_hand(z, n, *halves(denoiser, z, sigma, n), variance=variance)
    got = replace(LEARNED, variance=variance).loss(denoiser, z, sigma, n)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)


def test_the_hybrid_is_the_simple_loss_and_a_thousandth_of_the_bound(rows):
    z, sigma, n = rows
    denoiser = eps_denoiser()
    prediction, v = halves(denoiser, z, sigma, n)
    term = by_hand(z, n, prediction, v, variance="learned")
    simple = (prediction - n).square().flatten(1).mean(1)
    denoiser.net.calls = 0
    got = HYBRID.loss(denoiser, z, sigma, n)
    assert denoiser.net.calls == 1
    torch.testing.assert_close(
        got, simple + T / 1000 * term, rtol=1e-9, atol=0
    )  # the published code's factor
    torch.testing.assert_close(got.mean(), simple.mean() + 0.001 * term.sum(), rtol=1e-9, atol=0)  # eq. 16's


def test_in_the_hybrid_the_mean_learns_from_the_simple_loss_and_the_variance_from_the_bound_alone(rows):
    denoiser = eps_denoiser()
    net = denoiser.net

    def gradient(objective):
        loss = objective.loss(denoiser, *rows).mean()
        return torch.autograd.grad(loss, (net.mean, net.spread), allow_unused=True)

    hybrid, simple, bound = gradient(HYBRID), gradient(SIMPLE), gradient(LEARNED)
    assert torch.equal(hybrid[0], simple[0])  # to the bit: no path at all
    torch.testing.assert_close(hybrid[1], 0.001 * bound[1], rtol=1e-12, atol=0)
    assert simple[1].abs().max() == 0
    assert bound[0].abs().min() > 0
    assert hybrid[1].abs().min() > 0
    stopped = replace(HYBRID, simple=replace(SIMPLE, weight=lambda sigma: 0 * sigma))
    assert gradient(stopped)[0].abs().max() == 0


def test_continuous_rows_have_no_term_at_the_lowest_level_and_a_finite_gradient(rows):
    z, sigma, n = rows
    denoiser = eps_denoiser()
    got = replace(LEARNED, bins=None).loss(denoiser, 30 * z, sigma, n)
    got.sum().backward()
    assert got[0] == 0
    assert (got[1:] > 0).all()
    assert denoiser.net.spread.grad.isfinite().all()
    whole = LEARNED.loss(denoiser, z, sigma, n)
    torch.testing.assert_close(replace(LEARNED, bins=None).loss(denoiser, z, sigma, n)[1:], whole[1:])


def test_single_precision_keeps_the_bound_from_the_lowest_to_the_highest_level(rows):
    z, sigma, n = rows
    denoiser = eps_denoiser()
    exact = LEARNED.loss(denoiser, z, sigma, n)
    single = LEARNED.loss(denoiser.float(), z.float(), sigma, n.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), exact, rtol=1e-4, atol=1e-5)


def test_levels_between_the_entries_have_no_term(rows):
    z, _, n = rows
    with pytest.raises(ConfigError, match="levels between the entries came; draw them by UniformTable"):
        LEARNED.loss(eps_denoiser(), z, TABLE * 0.97 + 0.01, n)


def fixed():
    return X0Denoiser(nn.Conv2d(1, 1, 1), TABLE)


OTHER = table("cosine", T)


@pytest.mark.parametrize(
    ("objective", "denoiser", "error", "said"),
    [
        (SIMPLE, eps_denoiser, RefusalError, "an error of x0 never trains it.*take the hybrid"),
        (LEARNED, fixed, RefusalError, "X0Denoiser has none; make it with learned_variance=True"),
        (HYBRID, fixed, RefusalError, "X0Denoiser has none; make it with learned_variance=True"),
        (replace(LEARNED, variance="small"), eps_denoiser, RefusalError, "'small' never trains"),
        (
            LEARNED,
            lambda: KarrasDenoiser(nn.Conv2d(1, 1, 1), std=0.5, low=0.01, high=10.0),
            RefusalError,
            "KarrasDenoiser has none: its levels are continuous; train it with the simple loss",
        ),
        (LEARNED, lambda: EpsDenoiser(Halves(), OTHER, learned_variance=True), ConfigError, "was made for has 20"),
        (replace(LEARNED, times=UniformTable(TABLE[::2])), eps_denoiser, ConfigError, "drawn from has 10 levels"),
        (replace(LEARNED, times=LogUniform(0.1, 1.0)), eps_denoiser, ConfigError, r"drawn by LogUniform\(low=0.1"),
        (
            replace(HYBRID, bound=replace(LEARNED, variance="large")),
            eps_denoiser,
            ConfigError,
            "'large' the hybrid loss trains no more than its simple part",
        ),
        (
            replace(HYBRID, simple=replace(SIMPLE, times=UniformTable(TABLE))),
            eps_denoiser,
            ConfigError,
            "hand both the same times and draw",
        ),
    ],
)  # fmt: skip
def test_what_would_train_nothing_or_something_else_is_refused_before_the_run(
    objective, denoiser, error, said
):
    with pytest.raises(error, match=said):
        fit(denoiser(), Stripes(), PLAN, objective=objective)


def test_the_loss_itself_refuses_a_denoiser_without_a_variance(rows):
    z, sigma, n = rows
    for objective in (LEARNED, HYBRID):
        with pytest.raises(RefusalError, match="learned variance"):
            objective.loss(X0Denoiser(lambda x, t, cond: x, TABLE), z, sigma, n)


def test_the_bound_with_the_small_variance_is_an_error_of_x0_with_the_paper_s_weight(rows):
    # 1/2 (snr_{t-1} - snr_t) |x0 - x0'|^2, arXiv:2107.00630 eq. 13.
    z, sigma, n = rows
    denoiser = X0Denoiser(lambda x, t, cond: torch.tanh(x), TABLE)
    weight = (TABLE[:-1] ** -2 - TABLE[1:] ** -2) / 2 / math.log(2)
    error = Objective(weight=MinSNR(math.inf), times=TIMES).loss(denoiser, z, sigma, n) * sigma**2
    got = Variational(table=TABLE, times=TIMES).loss(denoiser, z, sigma, n)
    torch.testing.assert_close(got[1:], T * weight * error[1:], rtol=1e-9, atol=0)
