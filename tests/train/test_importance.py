"""Levels that follow the losses: the law, its weights, and its history through kills."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from small_run import PLAN, Dies, Killed, Stripes, denoiser, equal, final, run, table
from torch import Tensor, nn

from anodiff.diffusion.levels import column
from anodiff.errors import ConfigError
from anodiff.noise import gaussian
from anodiff.train import checkpoint
from anodiff.train.fit import fit
from anodiff.train.importance import LossSecondMoment, adapts
from anodiff.train.objective import EpsWeight, Objective, UniformTable
from anodiff.train.source import Steps

TABLE = torch.tensor([0.1, 0.2, 0.5, 1.0, 2.0, 5.0], dtype=torch.float64)
LOSSES = torch.tensor([9.0, 0.3, 2.0, 0.05, 1.0, 4.0], dtype=torch.float64)  # of each level
GRID = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000


def taught(law, *losses):
    """The history after each level had these losses, one a step."""
    history = law.begin()
    for row in losses:
        history = law.learn(history, law.table, torch.as_tensor(row, dtype=torch.float64))
    return history


def test_the_law_is_the_root_mean_square_of_the_last_losses():
    # Level 0 had 3 and 4, so sqrt(12.5); the 100 before is forgotten. arXiv:2102.09672 eq. 18.
    law = LossSecondMoment(TABLE, length=2, floor=0.1)
    history = taught(law, [100.0] * 6, [3.0, 1.0, 0.0, 2.0, 0.0, 0.0], [4.0, 1.0, 2.0, 0.0, 0.0, 6.0])
    rms = torch.tensor([12.5, 1.0, 2.0, 2.0, 0.0, 18.0], dtype=torch.float64).sqrt()
    torch.testing.assert_close(law.law(history), 0.9 * rms / rms.sum() + 0.1 / 6, rtol=1e-12, atol=0)
    sigma, weight = law.draw(history, GRID)
    for level, p in zip(TABLE, law.law(history), strict=True):
        here = sigma == level
        assert here.double().mean() == pytest.approx(float(p), abs=1e-5)
        torch.testing.assert_close(weight[here], (1 / (6 * p)).expand(int(here.sum())))


def test_it_is_uniform_until_every_level_has_enough_losses():
    law = LossSecondMoment(TABLE, length=3)
    history = taught(law, LOSSES, LOSSES)
    history = law.learn(history, TABLE[:5], LOSSES[:5])
    sigma, weight = law.draw(history, GRID)
    assert torch.equal(sigma, UniformTable(TABLE)(GRID))
    assert torch.equal(weight, torch.ones_like(weight))
    assert torch.equal(law(GRID), sigma)
    history = law.learn(history, TABLE[5:], LOSSES[5:])
    assert not torch.equal(law.draw(history, GRID)[0], sigma)


@pytest.mark.parametrize("bins", [None, 6, 4, 2, 1])
def test_the_weighted_mean_is_the_uniform_mean(bins):
    law = LossSecondMoment(TABLE, bins=bins, length=1)
    history = taught(law, 2 * LOSSES.flip(0))  # a wrong guess is as unbiased as a right one
    g = torch.Generator().manual_seed(0)
    u = torch.rand(400_000, generator=g, dtype=torch.float64)
    sigma, weight = law.draw(history, u)
    drawn = weight * LOSSES[torch.searchsorted(TABLE, sigma)]
    error = drawn.std() / len(u) ** 0.5
    assert abs(drawn.mean() - LOSSES.mean()) < 4 * error
    sigma, weight = law.draw(history, GRID)
    exact = (weight * LOSSES[torch.searchsorted(TABLE, sigma)]).mean()
    assert float(exact) == pytest.approx(float(LOSSES.mean()), rel=2e-3)


def test_the_right_history_leaves_hardly_any_variance():
    law = LossSecondMoment(TABLE, length=1)
    sigma, weight = law.draw(taught(law, LOSSES), GRID)
    drawn = weight * LOSSES[torch.searchsorted(TABLE, sigma)]
    assert drawn.var() < 0.01 * LOSSES.var()


def test_the_levels_of_a_bin_share_a_history_and_count_by_their_number():
    law = LossSecondMoment(TABLE[:5], bins=2, length=2, floor=1e-9)  # 3 levels and 2
    history = law.begin()
    for sigma, loss in ((0.1, 1.0), (0.5, 7.0), (2.0, 2.0), (1.0, 1.0)):
        history = law.learn(history, torch.tensor([sigma], dtype=torch.float64), torch.tensor([loss]))
    first, second = 25.0**0.5, 2.5**0.5
    expected = torch.tensor([first] * 3 + [second] * 2, dtype=torch.float64)
    torch.testing.assert_close(law.law(history), expected / expected.sum(), rtol=1e-6, atol=0)


def test_losses_of_nothing_or_no_number_fall_back_to_uniform():
    law = LossSecondMoment(TABLE, length=1)
    for loss in (0.0, torch.nan):
        torch.testing.assert_close(law.law(taught(law, [loss] * 6)), torch.full_like(TABLE, 1 / 6))


def test_a_history_is_not_changed_by_what_comes_after():
    law = LossSecondMoment(TABLE, length=1)
    before = taught(law, LOSSES)
    kept = {name: value.clone() for name, value in before.items()}
    law.learn(before, TABLE, 5 * LOSSES)
    assert all(torch.equal(kept[name], value) for name, value in before.items())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bins": 0}, "bins must be from 1 to the 6 levels"),
        ({"bins": 7}, "bins must be from 1 to the 6 levels of the table, got 7"),
        ({"length": 0}, "length must be at least 1"),
        ({"floor": 0.0}, "floor must be above 0"),
    ],
)
def test_numbers_without_sense_are_refused_before_an_earlier_run_is_cleared(tmp_path, changes, said):
    (tmp_path / "metrics.csv").write_text("of an earlier run")
    objective = Objective(weight=EpsWeight(), times=LossSecondMoment(TABLE, **changes))
    with pytest.raises(ConfigError, match=said):
        fit(denoiser(), Stripes(), PLAN, objective=objective, folder=tmp_path)
    assert (tmp_path / "metrics.csv").exists()


@dataclass(frozen=True)
class Known:
    """A loss that depends on the level alone, so that its mean is known."""

    times: LossSecondMoment
    draw: Callable = gaussian

    def loss(self, model, z: Tensor, sigma: Tensor, n: Tensor, cond=None) -> Tensor:
        level = column(LOSSES[torch.searchsorted(TABLE, sigma)], z).flatten()
        return level * (1 + 0 * model.weight.sum())


def test_a_run_draws_by_its_losses_and_records_the_uniform_mean(tmp_path):
    plan = replace(PLAN, steps=60, batch=6, checkpoint_every=1000)
    law = LossSecondMoment(TABLE, length=4)
    losses = fit(nn.Linear(1, 1), Stripes(), plan, objective=Known(law), folder=tmp_path).losses
    history = final(tmp_path).law
    torch.testing.assert_close(history["losses"], LOSSES[:, None].expand(6, 4), rtol=1e-6, atol=0)
    # Four stratified steps fill the history; from then on each row's weighted loss is nearly the mean.
    assert losses[:4] == pytest.approx([float(LOSSES.mean())] * 4)
    assert losses[4:] == pytest.approx([float(LOSSES.mean())] * 56, rel=0.05)
    source = Steps(Stripes(), plan, Known(law))
    drawn = [law.draw(history, source[step].u)[0] for step in range(4, 60)]
    expected = torch.bincount(torch.searchsorted(TABLE, torch.cat(drawn)), minlength=6)
    assert torch.equal(history["seen"] - 4, expected)


@pytest.mark.parametrize("step", [5, 15])  # the histories are full after step 8
def test_a_run_that_died_before_or_after_the_warm_up_ends_with_the_same_bits(tmp_path, whole_adaptive, step):
    with pytest.raises(Killed):
        run(tmp_path, adaptive=True, progress=Dies(step))
    cut = final(tmp_path)
    assert cut.step == step - 1
    assert (int(cut.law["seen"].min()) < 8) == (step < 8)
    run(tmp_path, adaptive=True, resume="auto")
    assert equal(final(tmp_path), final(whole_adaptive))
    assert [r["loss"] for r in table(tmp_path)] == [r["loss"] for r in table(whole_adaptive)]


def test_the_law_changes_the_run_after_the_warm_up_and_not_before(whole, whole_adaptive):
    ours, uniform = ([r["loss"] for r in table(folder)] for folder in (whole_adaptive, whole))
    assert ours[:8] == uniform[:8]
    assert ours[8:] != uniform[8:]
    assert final(whole).law == {}


def test_a_checkpoint_of_another_law_is_refused(tmp_path, whole_adaptive):
    state = final(whole_adaptive)
    with pytest.raises(ConfigError, match=r"objective\.times was LossSecondMoment.*now UniformTable"):
        run(whole_adaptive, resume="auto")
    assert equal(final(whole_adaptive), state)
    assert len(checkpoint.found(whole_adaptive / "checkpoints")) == 2


def test_a_law_says_whether_it_has_a_history():
    assert adapts(LossSecondMoment(TABLE))
    assert not adapts(UniformTable(TABLE))
