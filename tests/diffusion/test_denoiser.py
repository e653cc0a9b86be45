"""Parameterisations: the same truth through every target, the network's inputs, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from truth import Gaussian, Mixture, as_net

from anodiff.cond import Cond
from anodiff.diffusion.denoiser import EpsDenoiser, KarrasDenoiser, VDenoiser, X0Denoiser, moments
from anodiff.diffusion.levels import Levels, spaced
from anodiff.diffusion.sampling import ddim
from anodiff.diffusion.schedule import abar_of, table, zero_terminal
from anodiff.errors import RefusalError

TABLE = table("linear")
FAMILIES = {"eps": EpsDenoiser, "v": VDenoiser, "x0": X0Denoiser}


def noisy(batch: int = 6, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    t = torch.tensor([0, 1, 100, 500, 998, 999])[:batch]
    y = torch.randn(batch, 2, 3, 4, generator=generator, dtype=dtype)
    return y * (1 + TABLE[t].reshape(-1, 1, 1, 1).to(dtype)), TABLE[t]


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_target_gives_the_same_x0(kind):
    """Another scaling, the same mean: a perfect eps, v or x0 network is one denoiser.

    Law: parameterisation; reference: the ideal denoiser of a mixture in closed form
    """
    truth = Mixture()
    y, sigma = noisy()
    x0 = FAMILIES[kind](as_net(truth, TABLE, kind), TABLE)(y, sigma)
    # eps loses sigma / |x0| digits at the top level, as every eps network does
    assert (x0 - truth(y, sigma)).abs().max() <= 1e-12


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_network_sees_unit_variance_and_the_original_index(kind):
    """Trap 6: in a respaced chain the network is still fed the index of the full table."""
    seen = []

    def net(x_t, t, cond):
        seen.append((float(x_t.std()), t.clone(), t.dtype))
        return torch.zeros_like(x_t)

    denoiser = FAMILIES[kind](net, TABLE)
    grid = spaced(denoiser.levels, 4)
    ddim(denoiser, grid[0] * torch.randn(3, 1, 32, 32, generator=torch.Generator().manual_seed(1)), grid)
    assert [t.tolist() for _, t, _ in seen] == [[v] * 3 for v in (999, 749, 499, 249)]
    assert seen[0][0] == pytest.approx(1, abs=0.03)
    assert all(dtype == torch.float32 for *_, dtype in seen)


def test_scaling_is_the_variance_preserving_one():
    """Law: parameterisation; reference: x_t = sqrt(abar) y, written out"""
    y, sigma = noisy()
    inputs = []
    X0Denoiser(lambda x_t, t, cond: inputs.append(x_t) or x_t, TABLE)(y, sigma)
    assert (inputs[0] - y * abar_of(sigma).sqrt().reshape(-1, 1, 1, 1)).abs().max() <= 1e-15


def test_a_level_between_two_entries_feeds_the_nearest_index_and_scales_exactly():
    truth = Gaussian(0.2, 0.5)
    sigma = (TABLE[500] * TABLE[501]).sqrt() * 1.0001
    times = []

    def net(x_t, t, cond):
        times.append(float(t[0]))
        return torch.zeros_like(x_t)

    y = torch.ones(1, 1, 2, 2, dtype=torch.float64)
    assert torch.equal(EpsDenoiser(net, TABLE)(y, sigma), y)
    assert times == [501]
    assert truth(y, sigma).shape == y.shape


def test_karras_preconditioning_by_its_defining_properties():
    """Unit-variance inputs, unit-variance targets, and the smallest c_out (arXiv:2206.00364 appendix B.6).

    Law: parameterisation; reference: the ideal denoiser of a Gaussian in closed form
    """
    std, sigma = 0.7, torch.tensor([0.01, 0.5, 30.0], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    x0 = std * torch.randn(3, 1, 300, 300, generator=generator, dtype=torch.float64)
    n = torch.randn(3, 1, 300, 300, generator=generator, dtype=torch.float64)
    y = x0 + sigma.reshape(-1, 1, 1, 1) * n
    seen = {}

    def net(x, t, cond):
        seen.update(x=x, t=t)
        return torch.zeros_like(x)

    denoiser = KarrasDenoiser(net, std=std, low=0.002, high=80)
    skipped = denoiser(y, sigma)
    assert (seen["x"].std((1, 2, 3)) - 1).abs().max() < 0.01
    assert torch.allclose(seen["t"], sigma.log() / 4)
    c_out = (
        KarrasDenoiser(lambda x, t, c: torch.ones_like(x), std=std, low=0.002, high=80)(y, sigma) - skipped
    )
    target = (x0 - skipped) / c_out
    assert (target.std((1, 2, 3)) - 1).abs().max() < 0.01
    # c_skip is the Gaussian's own denoiser, which leaves the network the least to do
    assert (skipped - Gaussian(0.0, std)(y, sigma)).abs().max() <= 1e-14
    assert denoiser.levels.low == 0.002
    assert denoiser.levels.table is None


def test_learned_variance_splits_the_output():
    def net(x_t, t, cond):
        return torch.cat((torch.zeros_like(x_t), torch.full_like(x_t, -0.5)), 1)

    y, sigma = noisy()
    denoiser = EpsDenoiser(net, TABLE, learned_variance=True)
    x0, fraction = denoiser.moments(y, sigma)
    assert torch.equal(x0, y)
    assert torch.equal(denoiser(y, sigma), y)
    assert (fraction == 0.25).all()
    assert fraction.shape == y.shape


def test_moments_are_refused_where_none_were_learned():
    y, sigma = noisy()
    with pytest.raises(RefusalError, match="'small' or 'large'"):
        moments(EpsDenoiser(lambda x, t, c: x, TABLE), y, sigma)
    with pytest.raises(RefusalError, match="Gaussian has none"):
        moments(Gaussian(), y, sigma)


def test_noise_prediction_is_refused_without_terminal_signal():
    """Trap 4: at zero signal-to-noise eps says nothing about x0, while v and x0 stay exact."""
    rescaled = zero_terminal(TABLE)
    y = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * float(rescaled[-1])
    with pytest.raises(RefusalError, match="predict v or x0"):
        EpsDenoiser(lambda x, t, c: x, rescaled)(y, rescaled[-1])
    for kind in ("v", "x0"):
        truth = Gaussian(0.3, 0.2)
        x0 = FAMILIES[kind](as_net(truth, rescaled, kind), rescaled)(y.double(), rescaled[-1])
        assert (x0 - 0.3).abs().max() < 1e-6


def test_zero_terminal_v_chain_keeps_brightness_in_float32():
    """Trap 4 end to end: dark and bright pictures come out dark and bright from a grid whose top sigma is 1e6."""
    rescaled = zero_terminal(table("scaled_linear"))
    for mean in (-0.9, 0.9):
        denoiser = VDenoiser(as_net(Gaussian(mean, 0.05), rescaled, "v"), rescaled)
        grid = spaced(denoiser.levels, 50)
        y = grid[0] * torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        sample = ddim(denoiser, y, grid)
        assert sample.dtype == torch.float32
        assert abs(float(sample.mean()) - mean) < 0.01


@pytest.mark.parametrize("sigma", [0.005, 200.0])
def test_levels_outside_the_table_are_refused(sigma):
    y = torch.zeros(2, 1, 4, 4)
    with pytest.raises(RefusalError, match="were trained"):
        EpsDenoiser(lambda x, t, c: x, TABLE)(y, torch.tensor([1.0, sigma]))


@pytest.mark.parametrize("kind", [*FAMILIES, "karras"])
def test_gradients_reach_the_network_in_float32(kind):
    net = Affine()
    if kind == "karras":
        denoiser = KarrasDenoiser(net, std=0.5, low=0.002, high=80)
    else:
        denoiser = FAMILIES[kind](net, TABLE)
    y, sigma = noisy(dtype=torch.float32)
    x0 = denoiser(y, sigma, Cond(label=torch.zeros(6, dtype=torch.long)))
    assert x0.dtype == torch.float32
    x0.square().mean().backward()
    assert net.weight.grad is not None
    assert net.weight.grad.abs() > 0
    assert denoiser.levels.table is None or denoiser.levels.table.dtype == torch.float64
    assert list(denoiser.state_dict()) == ["net.weight"]


def test_tables_keep_their_digits_when_a_model_is_halved():
    denoiser = EpsDenoiser(Affine(), TABLE).half()
    assert denoiser.levels.table is TABLE
    y = torch.ones(1, 1, 2, 2, dtype=torch.float16)
    assert denoiser(y, TABLE[100]).dtype == torch.float16


def test_rows_do_not_depend_on_their_batch():
    """Law: parameterisation; reference: the same rows one by one"""
    truth = Mixture()
    denoiser = EpsDenoiser(as_net(truth, TABLE, "eps"), TABLE)
    y, sigma = noisy()
    together = denoiser(y, sigma)
    for i in range(len(y)):
        assert torch.equal(together[i], denoiser(y[i : i + 1], sigma[i : i + 1])[0])
        assert (together[i] - denoiser(y[i : i + 1], sigma[i])[0]).abs().max() <= 1e-12


def test_levels_are_plain_data():
    levels = Levels(low=0.1, high=1.0)
    assert not levels.draws
    with pytest.raises(AttributeError):
        levels.low = 0.2  # type: ignore[misc]


class Affine(nn.Module):
    """The smallest network with a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))

    def forward(self, x_t, t, cond):
        return self.weight * x_t
