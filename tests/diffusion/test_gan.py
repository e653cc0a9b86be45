"""The chain of a denoising diffusion GAN: the paper's posterior, its real pairs, and what generator and critic see."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from anodiff.cond import Cond
from anodiff.diffusion.gan import Critic, DDGANDenoiser, FixedLatent, pair
from anodiff.diffusion.guidance import Bind
from anodiff.diffusion.levels import spaced
from anodiff.diffusion.sampling import ddim, step
from anodiff.diffusion.schedule import betas, table
from anodiff.errors import RefusalError
from anodiff.nets.discriminator import Discriminator
from anodiff.nets.generator import Generator
from anodiff.nets.unet import UNet
from anodiff.noise import PerImageNoise

F64 = torch.float64
LENGTHS = [2, 4, 8, 16]
TABLE = table("vp", 4)


def picture(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def paper(steps: int) -> tuple[list[float], list[float]]:
    """beta and abar of DDGAN by number, entry 0 of abar is that of x_0: plain floats, one formula a line."""
    low, high = 0.1, 20.0
    beta = [
        1 - math.exp(-low / steps - 0.5 * (high - low) * (2 * t - 1) / steps**2) for t in range(1, steps + 1)
    ]
    abar = [1.0]
    for b in beta:
        abar.append(abar[-1] * (1 - b))
    return beta, abar


@pytest.mark.parametrize("steps", LENGTHS)
def test_its_betas_are_the_papers(steps: int) -> None:
    """Twice: by the formula above, and as the integral of the rate between the ends of an interval.

    References: arXiv:2112.07804 section 4, and arXiv:2011.13456 eq. 32, written out
    """
    ours = betas("vp", steps)
    torch.testing.assert_close(ours, torch.tensor(paper(steps)[0], dtype=F64), rtol=0, atol=1e-14)

    def integral(u: float) -> float:  # of .1 + 19.9 u over [0, u]
        return 0.1 * u + 19.9 * u**2 / 2

    spent = [integral((i + 1) / steps) - integral(i / steps) for i in range(steps)]
    expected = torch.tensor([-math.expm1(-s) for s in spent], dtype=F64)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-14)
    signal = torch.tensor([math.exp(-integral((i + 1) / steps)) for i in range(steps)], dtype=F64)
    torch.testing.assert_close(1 / (1 + table("vp", steps) ** 2), signal, rtol=1e-11, atol=0)


@pytest.mark.parametrize("steps", LENGTHS)
def test_a_step_is_the_posterior_of_the_chain(steps: int) -> None:
    """Law: posterior; reference: arXiv:2006.11239 eq. 6 and 7 in x_t from the paper's betas, written out"""
    sigmas = table("vp", steps)
    beta, abar = paper(steps)
    x0, x_t, n = (picture(1, 2, 3, 3, seed=s) for s in range(3))
    zero = torch.zeros_like(n)
    for t in range(2, steps + 1):
        mean = math.sqrt(abar[t - 1]) * beta[t - 1] / (1 - abar[t]) * x0
        mean = mean + math.sqrt(1 - beta[t - 1]) * (1 - abar[t - 1]) / (1 - abar[t]) * x_t
        deviation = math.sqrt((1 - abar[t - 1]) / (1 - abar[t]) * beta[t - 1])
        level, below = sigmas[t - 1], sigmas[t - 2]
        down, scale = x_t / math.sqrt(abar[t]), math.sqrt(abar[t - 1])
        at_mean = scale * step(down, x0, level, below, eta=1, noise=zero)
        drawn = scale * step(down, x0, level, below, eta=1, noise=n)
        assert (at_mean - mean).abs().max() <= 1e-12
        assert (drawn - at_mean - deviation * n).abs().max() <= 1e-12
    last = step(x_t / math.sqrt(abar[1]), x0, sigmas[0], 0.0, eta=1, noise=n)
    assert torch.equal(last, x0)


@pytest.mark.parametrize("steps", LENGTHS)
def test_a_pair_is_two_neighbours_of_the_forward_chain(steps: int) -> None:
    """Law: step; reference: arXiv:2112.07804 eq. 1 in x_t from the paper's betas, written out"""
    sigmas = table("vp", steps)
    beta, abar = paper(steps)
    z, n, hop = (picture(2, 1, 3, 3, seed=s) for s in range(3))
    for t in range(1, steps + 1):
        below = sigmas[t - 2] if t > 1 else 0.0
        y_next, y = pair(z, n, hop, sigmas[t - 1], below)
        x_next = math.sqrt(abar[t - 1]) * z + math.sqrt(1 - abar[t - 1]) * n
        x = math.sqrt(1 - beta[t - 1]) * x_next + math.sqrt(beta[t - 1]) * hop
        assert (math.sqrt(abar[t - 1]) * y_next - x_next).abs().max() <= 1e-12
        assert (math.sqrt(abar[t]) * y - x).abs().max() <= 1e-12
        if t == 1:
            assert torch.equal(y_next, z)


def test_rows_of_a_pair_may_stand_at_different_levels() -> None:
    z, n, hop = (picture(4, 1, 2, 2, seed=s) for s in range(3))
    below = torch.cat([TABLE.new_zeros(1), TABLE[:-1]])
    together = pair(z, n, hop, TABLE, below)
    for i in range(4):
        alone = pair(z[i : i + 1], n[i : i + 1], hop[i : i + 1], TABLE[i], below[i])
        assert all(torch.allclose(a[i : i + 1], b, rtol=1e-14) for a, b in zip(together, alone, strict=True))


@pytest.mark.parametrize("i", [1, 2, 3])
def test_the_joint_law_of_a_pair(i: int) -> None:
    """Over rows of deviation .7: cov(y_next, y) = var(y_next) = .49 + sigma_next^2, and var(y) = .49 + sigma^2.

    Within five standard errors of each estimate; the product of the two, taken the wrong way, would be tens away.
    """
    count = 200_000
    z, n, hop = (picture(count, 1, 1, 1, seed=s) for s in range(3))
    y_next, y = (v.flatten() for v in pair(0.7 * z, n, hop, TABLE[i], TABLE[i - 1]))
    lower, upper = (0.49 + float(v) ** 2 for v in (TABLE[i - 1], TABLE[i]))
    for mine, expected, error in (
        ((y_next * y_next).mean(), lower, math.sqrt(2) * lower),
        ((y * y).mean(), upper, math.sqrt(2) * upper),
        ((y_next * y).mean(), lower, math.sqrt(lower * upper + lower**2)),
    ):
        assert abs(float(mine) - expected) <= 5 * error / math.sqrt(count)


def test_a_real_pair_and_a_pair_drawn_with_the_true_x0_have_one_law() -> None:
    """q(y_next | y, x0) at the x0 the pair came from gives the pair back, in law: what the game's fakes rest on."""
    count, sigma, below = 200_000, TABLE[2], TABLE[1]
    z, n, hop, fresh = (picture(count, 1, 1, 1, seed=s) for s in range(4))
    y_next, y = pair(0.7 * z, n, hop, sigma, below)
    drawn = step(y, 0.7 * z, sigma, below, eta=1, noise=fresh)
    for other in (y, z):
        real, fake = (torch.stack([v.flatten(), other.flatten()]).cov() for v in (y_next, drawn))
        scale = torch.outer(real.diagonal().sqrt(), real.diagonal().sqrt())
        assert ((real - fake).abs() / scale).max() <= 5 * math.sqrt(2 * 2 / count)


# ------------------------------------------------------------------ the generator


def denoiser(*, latent: int = 6) -> DDGANDenoiser:
    torch.manual_seed(0)
    unet = UNet(in_channels=2, out_channels=2, width=8, multipliers=(1, 2), blocks=1, groups=4, classes=3)
    return DDGANDenoiser(Generator(unet, latent=latent, hidden=16), TABLE, latent=latent).eval()


def drawn_with(seeds: list[int]) -> Cond:
    return Cond(noise=PerImageNoise(seeds))


def test_it_promises_a_draw_on_the_levels_of_its_table() -> None:
    model = denoiser()
    assert model.levels.draws
    assert model.levels.table is TABLE
    assert (model.levels.low, model.levels.high) == (float(TABLE[0]), float(TABLE[-1]))
    assert model.reads == frozenset({"label"})
    assert "table" not in model.state_dict()


@pytest.mark.parametrize("cond", [None, Cond(), Cond(label=torch.tensor([0, 1, 2]))])
def test_without_noise_it_is_refused(cond: Cond | None) -> None:
    with pytest.raises(RefusalError, match=r"brings no noise to draw with; give Cond\(noise=PerImageNoise"):
        denoiser()(torch.randn(3, 2, 8, 8), TABLE[1], cond)


@pytest.mark.parametrize("sigma", [0.0, float(TABLE[0]) / 2, float(TABLE[-1]) * 2, math.nan])
def test_a_level_outside_the_table_is_refused(sigma: float) -> None:
    with pytest.raises(RefusalError, match="were trained, but sigma"):
        denoiser()(torch.randn(3, 2, 8, 8), torch.tensor(sigma), drawn_with([1, 2, 3]))


@torch.no_grad()
def test_a_row_is_drawn_by_its_own_seed() -> None:
    model, y = denoiser().double(), picture(3, 2, 8, 8)
    sigma = TABLE[[1, 2, 0]]
    batch = model(y, sigma, drawn_with([5, 6, 7]))
    for i in range(3):
        alone = model(y[i : i + 1], sigma[i], drawn_with([5 + i]))
        torch.testing.assert_close(alone, batch[i : i + 1], rtol=0, atol=1e-10)
    turned = model(y.flip(0), sigma.flip(0), drawn_with([7, 6, 5])).flip(0)
    torch.testing.assert_close(turned, batch, rtol=0, atol=1e-10)
    other = model(y, sigma, drawn_with([5, 8, 7]))
    assert torch.equal(other[0], batch[0])
    assert (other[1] - batch[1]).abs().max() > 1e-2


def test_the_network_is_fed_x_t_the_index_and_the_latent_of_the_seeds() -> None:
    seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def net(x_t: Tensor, t: Tensor, w: Tensor, cond: Cond | None) -> Tensor:
        seen.append((x_t, t, w))
        return 2 * x_t

    y = picture(3, 1, 2, 2)
    x0 = DDGANDenoiser(net, TABLE, latent=5)(y, TABLE[[3, 0, 2]], drawn_with([1, 2, 3]))
    (x_t, t, w) = seen[0]
    abar = torch.tensor(paper(4)[1], dtype=F64)[[4, 1, 3]].reshape(-1, 1, 1, 1)
    torch.testing.assert_close(x_t, abar.sqrt() * y, rtol=1e-12, atol=0)
    assert torch.equal(x0, 2 * x_t)
    assert t.tolist() == [3.0, 0.0, 2.0]
    assert torch.equal(w, PerImageNoise([1, 2, 3])(torch.empty(3, 5, dtype=F64)))


@torch.no_grad()
def test_a_fixed_latent_gives_one_x0_for_one_y() -> None:
    model = denoiser().double()
    fixed = FixedLatent(model)
    y = picture(1, 2, 8, 8).expand(3, -1, -1, -1)
    expected = model(y[:1], TABLE[2], drawn_with([0]))
    for cond in (None, Cond(), drawn_with([4, 5, 6])):
        for _ in range(2):  # evaluation after evaluation
            x0 = fixed(y, TABLE[2], cond)
            torch.testing.assert_close(x0, expected.expand(3, -1, -1, -1), rtol=0, atol=1e-10)
    labelled = fixed(y, TABLE[2], Cond(label=torch.tensor([0, 1, 2])))
    assert (labelled[0] - labelled[1]).abs().max() > 1e-4  # other conditions go on
    assert fixed.levels.draws
    assert fixed.reads == model.reads


class Counted:
    """The posterior of x0 ~ N(mean, std^2) drawn with the latent, one number of it an element; calls are counted."""

    def __init__(self, table: Tensor, *, mean: float, std: float) -> None:
        self.table, self.mean, self.std = table, mean, std
        self.times: list[list[float]] = []

    def __call__(self, x_t: Tensor, t: Tensor, w: Tensor, cond: Cond | None) -> Tensor:
        self.times.append(t.unique().tolist())
        square = self.table[t.long()].square().to(x_t.dtype).reshape(-1, 1, 1, 1)
        y = x_t * (1 + square).sqrt()
        centre = (self.std**2 * y + square * self.mean) / (self.std**2 + square)
        return centre + (square * self.std**2 / (self.std**2 + square)).sqrt() * w.reshape(x_t.shape)


@pytest.mark.parametrize("steps", LENGTHS)
def test_the_chain_of_a_perfect_generator_draws_the_data_in_as_many_evaluations(steps: int) -> None:
    """10,000 numbers of N(.3, .5^2), within five standard errors, from however few levels."""
    grid = table("vp", steps)
    net = Counted(grid, mean=0.3, std=0.5)
    noise = PerImageNoise(range(100))
    model = Bind(DDGANDenoiser(net, grid, latent=100), Cond(noise=noise))
    sigmas = spaced(model.levels, None, spacing="all")
    start = torch.zeros(100, 1, 10, 10)
    made = ddim(model, sigmas[0] * noise(start), sigmas, eta=1.0, noise=noise)
    assert net.times == [[float(t)] for t in reversed(range(steps))]
    assert abs(float(made.mean()) - 0.3) <= 5 * 0.5 / 100
    assert abs(float(made.std()) / 0.5 - 1) <= 5 / math.sqrt(2 * 10_000)


# --------------------------------------------------------------------- the critic


def critic() -> Critic:
    torch.manual_seed(1)
    net = Discriminator(in_channels=2, width=8, multipliers=(1, 2), classes=3)
    return Critic(net, TABLE).eval()


@torch.no_grad()
def test_the_places_of_a_critic_add_up_to_its_logit() -> None:
    model = critic()
    y_next, y = torch.randn(3, 2, 8, 12), torch.randn(3, 2, 8, 12)
    for sigma in (TABLE[[0, 3, 1]], TABLE[2]):
        cond = Cond(label=torch.tensor([0, 2, 1]))
        places, logit = model.places(y_next, y, sigma, cond), model(y_next, y, sigma, cond)
        assert places.shape == (3, 1, 4, 6)
        assert logit.shape == (3,)
        torch.testing.assert_close(places.sum((1, 2, 3)), logit, rtol=1e-5, atol=1e-6)
        assert logit.std() > 0


def test_the_level_below_is_the_tables() -> None:
    model = critic()
    assert torch.equal(model.sigma_next(TABLE), torch.cat([TABLE.new_zeros(1), TABLE[:-1]]))
    below = model.sigma_next(TABLE.flip(0).float())
    assert below.dtype == F64  # a level keeps its digits, whatever it was asked with
    assert torch.equal(below, torch.cat([TABLE[:-1].flip(0), TABLE.new_zeros(1)]))
    assert model.sigma_next(TABLE[0]).shape == ()
    assert float(model.sigma_next(TABLE[0])) == 0.0
    assert float(model.sigma_next(TABLE[3])) == float(TABLE[2])
    with pytest.raises(RefusalError, match="were trained"):
        model.sigma_next(torch.tensor(0.0))


def test_a_critic_sees_both_over_their_own_signal_scale_and_the_upper_index() -> None:
    seen: list[tuple[Tensor, ...]] = []

    def net(x_next: Tensor, x: Tensor, t: Tensor, cond: Cond | None) -> Tensor:
        seen.append((x_next, x, t))
        return x_next.flatten(1).sum(1)

    y_next, y = picture(3, 1, 2, 2), picture(3, 1, 2, 2, seed=1)
    Critic(net, TABLE)(y_next, y, TABLE[[3, 0, 1]])
    x_next, x, t = seen[0]
    abar = torch.tensor(paper(4)[1], dtype=F64)
    torch.testing.assert_close(x, abar[[4, 1, 2]].sqrt().reshape(-1, 1, 1, 1) * y, rtol=1e-12, atol=0)
    torch.testing.assert_close(
        x_next, abar[[3, 0, 1]].sqrt().reshape(-1, 1, 1, 1) * y_next, rtol=1e-12, atol=0
    )
    assert torch.equal(x_next[1], y_next[1])  # the clean row itself
    assert t.tolist() == [3.0, 0.0, 1.0]


@pytest.mark.parametrize("std", [0.25, 3.0])
def test_data_of_another_deviation_are_the_same_data_in_other_units(std: float) -> None:
    """`D_std(std y, std sigma) = std D_1(y, sigma)`, and the critic thinks the same of both."""
    plain, judge = denoiser().double().eval(), critic().double().eval()
    scaled = DDGANDenoiser(plain.net, std * TABLE, latent=plain.latent, std=std)
    judge_of = Critic(judge.net, std * TABLE, std=std)
    y_next, y = picture(3, 2, 8, 8), picture(3, 2, 8, 8, seed=1)
    for sigma in TABLE:
        x0 = plain(y, sigma, drawn_with([1, 2, 3]))
        torch.testing.assert_close(
            scaled(std * y, std * sigma, drawn_with([1, 2, 3])), std * x0, atol=1e-12, rtol=1e-12
        )
        torch.testing.assert_close(
            judge_of(std * y_next, std * y, std * sigma), judge(y_next, y, sigma), atol=1e-12, rtol=1e-12
        )
