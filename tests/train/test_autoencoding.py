"""The loss of an autoencoder by hand, the weight of its critic, and what is refused."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest
import torch
from small_rebuild import KL, PLAN, VQ, Pictures, pair, rebuild, slopes_apart
from small_run import denoiser
from torch import nn

from anodiff.errors import ConfigError, RefusalError
from anodiff.train.adversarial import Adversarial
from anodiff.train.autoencoding import LARGEST, places
from anodiff.train.checkpoint import describe
from anodiff.train.collapse import WINDOW, rebuilt_alarms
from anodiff.train.fit import COURSES, fit
from anodiff.train.marked import Marked
from anodiff.train.record import Row

NAN = math.nan
F64 = torch.float64


def picture(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


# ---------------------------------------------------------------------- the loss


def test_the_error_is_l1_and_the_weighted_difference_of_features():
    """Law: L1 + w P; reference: the sums written out over three pixels a row."""
    x = torch.tensor([[[[0.0, 1.0, -1.0]]], [[[0.5, 0.5, 0.5]]]], dtype=F64)
    y = torch.tensor([[[[0.5, 1.0, 0.0]]], [[[0.5, 0.5, 0.5]]]], dtype=F64)
    loss, told = replace(KL, perceptual=2.0).error(x, y)
    l1, apart = (0.5 + 0 + 1) / 6, ((0.5**2 + 1**2) / 2) / 2
    assert told["l1"].item() == pytest.approx(l1, rel=1e-12)
    assert told["perceptual"].item() == pytest.approx(apart, rel=1e-12)
    assert loss.item() == pytest.approx(l1 + 2 * apart, rel=1e-12)
    bare, told = replace(KL, perceptual=0.0, features=None).error(x, y)
    assert set(told) == {"l1"}
    assert bare.item() == pytest.approx(l1, rel=1e-12)


def test_the_critics_loss_is_the_hinge():
    """2 for one that says nothing, 0 for one that is sure, by hand between."""
    x, y = torch.tensor([[2.0, 0.5]]), torch.tensor([[-3.0, 0.25]])
    same = nn.Identity()
    assert KL.critic_loss(torch.zeros_like, x, y).item() == 2
    assert KL.critic_loss(lambda v: 5 * v.sign() * torch.ones_like(v), x.abs(), -y.abs()).item() == 0
    assert KL.critic_loss(same, x, y).item() == pytest.approx((0 + 0.5) / 2 + (0 + 1.25) / 2)


def test_with_its_weight_the_critic_pulls_at_the_last_weight_as_strongly_as_the_error():
    """Law: arXiv:2012.09841 eq. 7; reference: gradients of both parts by autograd, their lengths compared."""
    model = pair("kl").double()
    last, x = model.autoencoder.last, picture(3, 1, 8, 8)
    x_hat = model.autoencoder.decode(picture(3, 4, 4, 4, seed=1))
    for strength in (1.0, 30.0):
        error, _ = KL.error(x, x_hat)
        adversarial = -strength * model.critic(x_hat).mean()
        slopes = [torch.autograd.grad(part, last, retain_graph=True)[0] for part in (error, adversarial)]
        weight = KL.adaptive(*slopes)
        assert weight.item() == pytest.approx(float(slopes[0].norm() / (slopes[1].norm() + 1e-4)), rel=1e-6)
        assert not weight.requires_grad
        assert 0.99 < float((weight * slopes[1]).norm() / slopes[0].norm()) < 1
    assert KL.adaptive(torch.ones(3), torch.zeros(3)).item() == LARGEST
    assert KL.adaptive(torch.zeros(3), torch.ones(3)).item() == 0


@pytest.mark.parametrize(
    ("start", "steps", "first"), [(0.5, 8, 4), (0.0, 8, 0), (0.99, 3, 2), (0.999, 1, 0), (0.25, 10, 2)]
)
def test_the_critic_begins_after_a_share_of_the_steps_however_few_they_are(start, steps, first):
    goal = replace(KL, start=start)
    assert [goal.plays(i, steps) for i in range(steps)] == [i >= first for i in range(steps)]
    assert not replace(goal, adversarial=0.0).plays(steps - 1, steps)


def test_places_are_the_vectors_of_codes():
    z = picture(2, 3, 4, 5)
    assert torch.equal(places(z)[1 * 20 + 2 * 5 + 4], z[1, :, 2, 4])
    assert places(z).shape == (40, 3)


# --------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weight": -1.0}, r"weight of an autoencoder must be 0 or above, got -1\.0"),
        ({"weight": NAN}, "weight .* got nan"),
        ({"perceptual": math.inf}, "perceptual .* got inf"),
        ({"adversarial": -0.5}, r"adversarial .* got -0\.5"),
        ({"start": 1.0}, r"start .* from 0 to below 1, a share of the steps, got 1\.0"),
        ({"start": 50_001}, "start .* got 50001"),
        ({"critic_rate": 0.0}, r"critic_rate .* above 0, got 0\.0"),
        ({"momentum": (0.5, 1.0)}, r"momentum .* got \(0\.5, 1\.0\)"),
        ({"revive_every": 0}, "revive_every .* at least 1, got 0"),
        ({"features": None}, r"perceptual of an autoencoder is 0\.3, but there are no features to compare"),
    ],
)
def test_numbers_without_sense_are_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        rebuild(None, **changes)


def test_a_critic_and_its_weight_go_together():
    with pytest.raises(RefusalError, match=r"adversarial of an autoencoder is 0\.5, but there is no critic"):
        fit(pair(critic=False), Pictures(), PLAN, objective=KL)
    with pytest.raises(RefusalError, match=r"is 0\.0, but its critic would never be trained"):
        fit(pair(), Pictures(), PLAN, objective=replace(KL, adversarial=0.0))


def test_other_models_and_half_precision_are_refused():
    with pytest.raises(RefusalError, match=r"\(Criticised\), not a EpsDenoiser"):
        fit(denoiser(), Pictures(), PLAN, objective=KL)
    with pytest.raises(RefusalError, match="train with precision 32-true or bf16-mixed"):
        rebuild(None, replace(PLAN, precision="16-mixed"))


class Codec:
    """Any."""

    def encode(self, image):
        return image


@pytest.mark.parametrize(
    "given",
    [
        {"labels": [0] * 11},
        {"told": lambda row, seed: {"words": torch.zeros(2, dtype=torch.int64)}},
        {"codec": Codec()},
    ],
)
def test_what_an_autoencoder_is_not_shown_is_refused(given):
    with pytest.raises(ConfigError, match="pictures and nothing else; leave labels, told and codec out"):
        fit(pair(), Pictures(), PLAN, objective=KL, **given)
    with pytest.raises(ConfigError, match="no condition to drop"):
        rebuild(None, replace(PLAN, condition_dropout=0.1))


# ------------------------------------------------------------------ the fingerprint


def test_every_objective_names_a_course_there_is():
    assert {KL.course, Adversarial.course, Marked.course} | {"descent"} == set(COURSES)


def test_modules_are_told_by_their_weights():
    torch.manual_seed(0)
    one, other = nn.Linear(2, 2), nn.Linear(2, 2)
    assert describe(one) == describe(one)
    assert describe(one) != describe(other)
    other.load_state_dict(one.state_dict())
    assert describe(one) == describe(other)
    assert len(describe(one)) < 40
    assert describe(slopes_apart) == "slopes_apart()"
    assert describe(VQ) != describe(KL)
    for goal in (KL, Adversarial):
        assert "course" not in {field.name for field in fields(goal)}  # checkpoints of before go on


# ------------------------------------------------------------------------- alarms


def rows(count, *, used=0.6, critic=1.5):
    """Rows as they are recorded; the count of codes begins anew every 50 steps."""
    more = [
        (0.1, 0.2, 0.3, NAN if critic is NAN else 0.1, NAN if critic is NAN else 1.0, critic)
        for _ in range(count)
    ]
    return [Row(i + 1, 0.3, 1e-4, i / 10, (*m, used * (i % 50 + 1) / 50)) for i, m in enumerate(more)]


def test_healthy_and_young_runs_give_no_alarm():
    assert rebuilt_alarms(rows(WINDOW)) == ()
    assert rebuilt_alarms(rows(WINDOW - 1, used=0.0, critic=0.0)) == ()
    assert rebuilt_alarms(rows(WINDOW, used=NAN, critic=NAN)) == ()  # neither codebook nor critic
    assert (
        rebuilt_alarms(rows(WINDOW, used=0.12)) == ()
    )  # the most that was seen, though its mean is half of it
    assert rebuilt_alarms([*rows(60, critic=NAN), *rows(60, critic=0.0)]) == ()  # it has played 60 steps
    assert rebuilt_alarms([Row(i, 0.1, 1e-3, 1.0) for i in range(2 * WINDOW)]) == ()


def test_a_codebook_that_is_not_used_and_a_critic_that_is_sure_are_told():
    (alarm,) = rebuilt_alarms(rows(WINDOW, used=0.05))
    assert alarm.startswith("only 5% of the codes are in use: the codebook has collapsed; lower codec.codes")
    (alarm,) = rebuilt_alarms(rows(WINDOW, critic=0.04))
    assert "(hinge loss 0.04 of 2)" in alarm
    assert len(rebuilt_alarms([*rows(300), *rows(WINDOW, used=0.01, critic=0.0)])) == 2
    assert rebuilt_alarms([*rows(300, used=0.01, critic=0.0), *rows(WINDOW)]) == ()
