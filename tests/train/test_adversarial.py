"""The two losses of the game, by hand; its penalty; what it refuses; and how the width of draws is told."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from small_duel import GAME, players
from small_run import PLAN, Stripes, denoiser
from small_run import TABLE as LONG
from torch import Tensor, nn

from anodiff.cond import Cond
from anodiff.diffusion.gan import Critic, DDGANDenoiser
from anodiff.diffusion.schedule import table
from anodiff.errors import ConfigError, RefusalError
from anodiff.noise import PerImageNoise, simplex
from anodiff.train.adversarial import Adversarial, Adversaries, Turn, diversity
from anodiff.train.fit import fit
from anodiff.train.objective import UniformTable

F64 = torch.float64
TABLE = table("vp", 4)
SIGMA = TABLE[[0, 3, 1, 2, 2]]
BELOW = torch.cat([TABLE.new_zeros(1), TABLE[:-1]])[[0, 3, 1, 2, 2]]


def picture(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


class Linear(nn.Module):
    """D = a . x_{t-1} + b . x_t + c t + q / 2 |x_{t-1}|^2."""

    def __init__(self, q: float = 0.0) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor([0.5, -1.0, 2.0, 0.25], dtype=F64))
        self.b = nn.Parameter(torch.tensor([-0.2, 0.3, 0.0, 1.0], dtype=F64))
        self.c = nn.Parameter(torch.tensor(0.1, dtype=F64))
        self.q = q

    def forward(self, x_next: Tensor, x: Tensor, t: Tensor, cond: Cond | None = None) -> Tensor:
        x_next, x = x_next.flatten(1), x.flatten(1)
        return x_next @ self.a + x @ self.b + self.c * t + self.q / 2 * x_next.square().sum(1)


class Gain(nn.Module):
    """x0 = g x_t + mean of w."""

    def __init__(self) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.tensor(0.7, dtype=F64))

    def forward(self, x_t: Tensor, t: Tensor, w: Tensor, cond: Cond | None = None) -> Tensor:
        return self.g * x_t + w.mean(1)[:, None, None, None]


def pair_of(q: float = 0.0) -> Adversaries:
    return Adversaries(DDGANDenoiser(Gain(), TABLE, latent=3), Critic(Linear(q), TABLE))


def turned(model: Adversaries, game: Adversarial) -> tuple[Turn, Tensor, Cond]:
    """A turn of five rows, the lower members of its fakes, and the conditions."""
    noise = PerImageNoise([1, 2, 3, 4, 5])
    cond = Cond(noise=noise)
    turn = game.turn(model, picture(5, 1, 2, 2), SIGMA, noise)
    return turn, game.drawn(model, turn, noise, cond), cond


def logit(net: Any, y_next: Tensor, y: Tensor) -> Tensor:
    """By hand, with abar and index of each row."""
    abar, abar_next = (1 / (1 + s.square()) for s in (SIGMA, BELOW))
    t = torch.tensor([0, 3, 1, 2, 2], dtype=F64)
    x_next = abar_next.sqrt()[:, None] * y_next.flatten(1)
    return (
        x_next @ net.a
        + abar.sqrt()[:, None] * y.flatten(1) @ net.b
        + net.c * t
        + net.q / 2 * (x_next**2).sum(1)
    )


def test_a_turn_and_its_fakes_are_the_chains_with_the_rows_own_noise() -> None:
    model = pair_of()
    turn, fake, _ = turned(model, GAME)
    noise = PerImageNoise([1, 2, 3, 4, 5])
    z = picture(5, 1, 2, 2)
    n, hop, w, up = noise(z), noise(z), noise(torch.empty(5, 3, dtype=F64)), noise(z)
    s, b = (v.reshape(-1, 1, 1, 1) for v in (SIGMA, BELOW))
    torch.testing.assert_close(turn.y_next, z + b * n, rtol=1e-13, atol=0)
    torch.testing.assert_close(turn.y, z + b * n + (s**2 - b**2).sqrt() * hop, rtol=1e-13, atol=1e-13)
    assert torch.equal(turn.sigma, SIGMA)
    assert torch.equal(turn.sigma_next, BELOW)
    x0 = 0.7 * turn.y / (1 + s**2).sqrt() + w.mean(1).reshape(-1, 1, 1, 1)
    mean = b**2 / s**2 * turn.y + (1 - b**2 / s**2) * x0
    torch.testing.assert_close(fake, mean + (b**2 * (1 - b**2 / s**2)).sqrt() * up, rtol=1e-11, atol=1e-11)
    assert fake.requires_grad


def test_both_losses_are_those_by_hand() -> None:
    """Law: non-saturating losses; reference: arXiv:2112.07804 eq. 5 with log-sigmoids, written out"""
    model = pair_of(q=0.3)
    turn, fake, cond = turned(model, GAME)
    net = model.critic.net
    real, false = logit(net, turn.y_next, turn.y), logit(net, fake, turn.y)
    loss, told = GAME.critic_loss(model, turn, fake.detach(), cond, penalised=False)
    expected = -torch.log(1 / (1 + (-real).exp())).mean() - torch.log(1 - 1 / (1 + (-false).exp())).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    assert set(told) == {"real", "fake", "gap"}
    torch.testing.assert_close(told["real"], (1 / (1 + (-real).exp())).mean(), rtol=1e-12, atol=0)
    torch.testing.assert_close(told["fake"], (1 / (1 + (-false).exp())).mean(), rtol=1e-12, atol=0)
    gaps = [
        (told_real - told_fake).mean()
        for told_real, told_fake in (
            (real.sigmoid()[turn.sigma == s], false.sigmoid()[turn.sigma == s]) for s in turn.sigma.unique()
        )
    ]
    torch.testing.assert_close(told["gap"], torch.stack(gaps).max(), rtol=1e-12, atol=0)
    won = GAME.generator_loss(model, turn, fake, cond)
    torch.testing.assert_close(won, -torch.log(1 / (1 + (-false).exp())).mean(), rtol=1e-12, atol=0)


def test_the_error_of_x0_counts_in_deviations_of_the_data() -> None:
    wide = Adversaries(
        DDGANDenoiser(Gain(), 4 * TABLE, latent=3, std=4.0), Critic(Linear(0.0), 4 * TABLE, std=4.0)
    )
    x0, z = picture(2, 1, 2, 2), picture(2, 1, 2, 2, seed=1)
    game = replace(GAME, reconstruction=0.5)
    expected = (
        0.5 * sum(abs(a - b) for a, b in zip(x0.flatten().tolist(), z.flatten().tolist(), strict=True)) / 8
    )
    torch.testing.assert_close(game.error(pair_of(), x0, z).item(), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(game.error(wide, 4 * x0, 4 * z).item(), expected, rtol=1e-12, atol=0)


def test_the_generators_gradient_passes_the_step_and_the_critic() -> None:
    """d loss / d g by hand: sigmoid(-D) a, through x_{t-1} = sqrt(abar_{t-1}) (1 - k) x0 with x0 = g x_t."""
    model = pair_of()
    turn, fake, cond = turned(model, GAME)
    (slope,) = torch.autograd.grad(GAME.generator_loss(model, turn, fake, cond), model.denoiser.net.g)
    net = model.critic.net
    s, b = SIGMA[:, None], BELOW[:, None]
    moved = (1 - b**2 / s**2) / (1 + b**2).sqrt() * turn.y.flatten(1) / (1 + s**2).sqrt()  # of x_{t-1} by g
    by_hand = -(torch.sigmoid(-logit(net, fake, turn.y))[:, None] * moved * net.a).sum(1).mean()
    torch.testing.assert_close(slope, by_hand, rtol=1e-11, atol=0)


@pytest.mark.parametrize("q", [0.0, 0.3])
def test_the_penalty_is_by_the_networks_input(q: float) -> None:
    """grad_{x_{t-1}} D = a + q x_{t-1}: linear critics have |a|^2 at every level, without any 1 + sigma_next^2.

    Law: R1; reference: arXiv:2112.07804 eq. 5 and arXiv:1801.04406 eq. 9, the gradient of a quadratic form by hand
    """
    model = pair_of(q)
    game = replace(GAME, r1=0.5, interval=7)
    turn, fake, cond = turned(model, game)
    plain, _ = game.critic_loss(model, turn, fake.detach(), cond, penalised=False)
    loss, told = game.critic_loss(model, turn, fake.detach(), cond, penalised=True)
    net = model.critic.net
    x_next = turn.y_next.flatten(1) / (1 + BELOW.square()).sqrt()[:, None]
    penalty = (net.a + q * x_next).square().sum(1).mean()
    torch.testing.assert_close(told["r1"], penalty.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(loss - plain, 7 * 0.5 / 2 * penalty, rtol=1e-12, atol=0)
    assert not told["r1"].requires_grad
    with_, without = (torch.autograd.grad(v, net.a)[0] for v in (loss, plain))  # it teaches the critic
    torch.testing.assert_close(
        with_ - without, 7 * 0.5 * (net.a + q * x_next.mean(0)), rtol=1e-11, atol=1e-12
    )


def test_over_its_interval_the_penalty_does_not_depend_on_it() -> None:
    model = pair_of(q=0.3)
    turn, fake, cond = turned(model, GAME)
    found = []
    for interval in (1, 3, 5, 15):
        game = replace(GAME, r1=0.5, interval=interval)
        losses = [
            game.critic_loss(model, turn, fake.detach(), cond, penalised=i % interval == 0)[0]
            for i in range(15)
        ]
        found.append(torch.stack(losses).mean())
    assert len({float(v.detach()) for v in losses}) == 2
    torch.testing.assert_close(torch.stack(found), found[0].expand(4), rtol=1e-12, atol=0)


def test_the_critics_turn_leaves_no_gradient_on_the_row_of_the_pair() -> None:
    model = pair_of()
    turn, fake, cond = turned(model, GAME)
    loss, _ = GAME.critic_loss(model, turn, fake.detach(), cond, penalised=True)
    loss.backward()
    assert model.denoiser.net.g.grad is None
    assert turn.y_next.grad is None
    assert not turn.y_next.requires_grad
    assert all(weight.grad is not None for weight in model.critic.parameters())


# --------------------------------------------------------------------- refusals


def test_one_model_alone_cannot_play() -> None:
    with pytest.raises(RefusalError, match=r"against a critic \(Adversaries\), not a EpsDenoiser"):
        GAME.check(denoiser(), PLAN, None)
    with pytest.raises(RefusalError, match="Adversaries"):
        fit(denoiser(), Stripes(), PLAN, objective=replace(GAME, times=UniformTable(LONG)))


def test_half_precision_is_refused_where_the_penalty_leaves_its_range() -> None:
    with pytest.raises(RefusalError, match="train with precision 32-true or bf16-mixed"):
        fit(players(), Stripes(), replace(PLAN, precision="16-mixed"), objective=GAME)
    for precision in ("32-true", "bf16-mixed"):
        GAME.check(players(), replace(PLAN, precision=precision), None)


def test_noise_that_is_not_gaussian_is_refused() -> None:
    with pytest.raises(RefusalError, match="latent are Gaussian; leave draw out"):
        fit(players(), Stripes(), PLAN, objective=replace(GAME, draw=simplex()))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"r1": -0.1}, r"r1 of the adversarial loss must be 0 or above, got -0\.1"),
        ({"r1": math.nan}, "r1 .* got nan"),
        ({"r1": math.inf}, "r1 .* got inf"),
        ({"interval": 0}, "interval of the adversarial loss must be at least 1, got 0"),
        ({"critic_rate": 0.0}, r"critic_rate of the adversarial loss must be above 0, got 0\.0"),
        ({"momentum": (0.5, 1.0)}, r"momentum .* from 0 to below 1, got \(0\.5, 1\.0\)"),
    ],
)
def test_numbers_without_sense_are_refused(changes: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        fit(players(), Stripes(), PLAN, objective=replace(GAME, **changes))


# -------------------------------------------------------------------- diversity


class Posterior(nn.Module):
    """x0 drawn from its posterior where the data are N(mean, std^2) at every element, a latent number each."""

    def __init__(self, *, mean: float, std: float, share: float = 1.0) -> None:
        super().__init__()
        self.mean, self.std, self.share = mean, std, share

    def forward(self, x_t: Tensor, t: Tensor, w: Tensor, cond: Cond | None = None) -> Tensor:
        square = TABLE[t.long()].square().to(x_t.dtype).reshape(-1, 1, 1, 1)
        total = self.std**2 + square
        centre = (self.std**2 * x_t * (1 + square).sqrt() + square * self.mean) / total
        return centre + (square * self.std**2 / total).sqrt() * w.view_as(x_t)


class Constant(nn.Module):
    """The same picture, whatever it sees."""

    def forward(self, x_t: Tensor, t: Tensor, w: Tensor, cond: Cond | None = None) -> Tensor:
        return torch.full_like(x_t, 0.4)


def told(net: nn.Module, rows: int, *, std: float = 0.6) -> float:
    z = 0.3 + std * picture(rows, 1, 8, 8).float()
    noise = PerImageNoise(range(rows))
    return float(diversity(DDGANDenoiser(net, TABLE, latent=64), z, noise, Cond(noise=noise)))


@pytest.mark.parametrize("rows", [2, 16, 64])
def test_a_model_that_draws_as_widely_as_the_data_has_a_diversity_of_one(rows: int) -> None:
    """The deviation of 64 (rows - 1) degrees of freedom, twice: five standard errors of the ratio."""
    error = 1 / math.sqrt(64 * (rows - 1))
    assert abs(told(Posterior(mean=0.3, std=0.6), rows) - 1) <= 5 * error
    assert abs(told(Posterior(mean=0.3, std=0.3), rows) - 0.5) <= 5 * error  # half as wide


def test_a_model_that_always_draws_the_same_has_none() -> None:
    assert told(Constant(), 16) <= 1e-6


def test_the_chain_starts_from_noise_alone() -> None:
    """Rows of whatever size set the measure and nothing else: what is drawn does not know them."""
    usual, huge = (told(Posterior(mean=0.3, std=0.6), 16, std=std) for std in (0.6, 6e4))
    assert huge * 1e5 == pytest.approx(usual, rel=1e-4)


def test_one_row_says_nothing() -> None:
    assert math.isnan(told(Posterior(mean=0.3, std=0.6), 1))


def test_rows_that_are_all_alike_do_not_divide_by_zero() -> None:
    assert math.isfinite(told(Posterior(mean=0.3, std=0.6), 8, std=0.0))
