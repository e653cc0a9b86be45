"""A classifier of noisy rows: its loss, its limits, and everything a run is."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from small_run import TABLE, Dies, Killed, equal, final, table
from torch import nn
from torch.nn import functional

from anodiff.cond import Cond
from anodiff.diffusion.classifier import NoisyClassifier
from anodiff.diffusion.levels import Levels, column
from anodiff.errors import ConfigError, DataError
from anodiff.nets.classifier import Classifier
from anodiff.train.classification import CrossEntropy
from anodiff.train.fit import fit
from anodiff.train.importance import LossSecondMoment
from anodiff.train.objective import LogUniform
from anodiff.train.plan import Plan
from anodiff.train.source import Steps

MEANS = torch.tensor([[1.0, 0.5], [-0.5, 1.0], [0.0, -1.0]])
SPREAD = 0.3
OBJECTIVE = CrossEntropy(times=LogUniform(0.05, 3.0))
PLAN = Plan(steps=20, batch=12, learning_rate=1e-2, checkpoint_every=4)
LABELS = [0, 1, 2]


class Clouds:
    """Draws of a mixture of three round Gaussians in the plane, row i of the i-th, a fresh one each time."""

    def __len__(self):
        return 3

    def item(self, index, seed, /):
        generator = torch.Generator().manual_seed(seed)
        return (MEANS[index] + SPREAD * torch.randn(2, generator=generator)).view(2, 1, 1)


class Planar(nn.Module):
    """A tiny network with the interface of a real one."""

    classes = 3

    def __init__(self):
        super().__init__()
        layers = (nn.Linear(3, 32), nn.SiLU(), nn.Linear(32, 32), nn.SiLU(), nn.Linear(32, 3))
        self.layers = nn.Sequential(*layers)

    def forward(self, x, t, cond=None):
        assert cond is None or not self.training, "in training the conditions hold the answer"
        return self.layers(torch.cat([2 * x.flatten(1), 4 * t[:, None]], 1))


def classifier():
    torch.manual_seed(0)
    return NoisyClassifier(Planar(), Levels(low=0.05, high=3.0))


def ideal(y, sigma):
    """The log of the posterior of the mixture, which no classifier can beat."""
    apart = y.flatten(1)[:, None] - MEANS  # [B, 3, 2]
    return -apart.square().sum(2) / (2 * (SPREAD**2 + sigma.view(-1, 1) ** 2))


def run(folder, plan=PLAN, **options):
    net = classifier()
    return fit(net, Clouds(), plan, objective=OBJECTIVE, labels=LABELS, folder=folder, **options), net


def test_the_loss_is_minus_the_log_of_the_label_s_probability():
    g = torch.Generator().manual_seed(0)
    z, n = (torch.randn(4, 2, 1, 1, generator=g) for _ in range(2))
    sigma, label = torch.tensor([0.1, 0.5, 1.0, 2.0], dtype=torch.float64), torch.tensor([2, 0, 1, 1])
    net = classifier()
    y = z + sigma.float().view(-1, 1, 1, 1) * n
    p = net(y, sigma).softmax(1)
    expected = torch.stack([-p[row, label[row]].log() for row in range(4)])
    got = OBJECTIVE.loss(net, z, sigma, n, Cond(label=label))
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(got, -net.eval().log_prob(y, sigma, Cond(label=label)))
    net.train()
    kept = OBJECTIVE.loss(net, z, sigma, n, Cond(label=label, keep=torch.zeros(4, dtype=torch.bool)))
    assert torch.equal(kept, got)
    half = OBJECTIVE.loss(lambda y, sigma: net(y, sigma).bfloat16(), z, sigma, n, Cond(label=label))
    assert half.dtype == torch.float32
    with pytest.raises(ConfigError, match="knows the labels 0 to 2, but got 3"):
        OBJECTIVE.loss(net, z, sigma, n, Cond(label=label + 1))
    with pytest.raises(ConfigError, match="give labels, one a row"):
        OBJECTIVE.loss(net, z, sigma, n, Cond())


def test_training_reaches_the_posterior_of_the_mixture():
    net = classifier()
    test = Steps(Clouds(), Plan(steps=1, batch=6000, seed=99), OBJECTIVE, labels=LABELS)[0]
    sigma = OBJECTIVE.times(test.u)

    def score(model):
        with torch.no_grad():
            return OBJECTIVE.loss(model, test.z, sigma, test.n, Cond(label=test.label)).mean().item()

    untrained, least = score(net), score(lambda y, sigma: ideal(y, sigma.float()))
    plan = Plan(steps=250, batch=48, learning_rate=1e-2, seed=1)
    fit(net, Clouds(), plan, objective=OBJECTIVE, labels=LABELS)
    assert untrained > 1.5 * least
    assert least < score(net) < 1.05 * least
    with torch.no_grad():
        y = test.z + column(sigma, test.z) * test.n
        off = functional.softmax(net(y, sigma), 1) - functional.softmax(ideal(y, sigma.float()), 1)
    assert off.abs().mean() < 0.05


def test_a_run_of_a_classifier_is_kept_averaged_and_resumed_to_the_same_bits(tmp_path):
    outcome, net = run(tmp_path / "whole")
    state = final(tmp_path / "whole")
    assert (outcome.steps, outcome.stopped_by, len(table(tmp_path / "whole"))) == (20, "steps", 20)
    assert all(torch.equal(value, state.ema[name]) for name, value in net.state_dict().items())
    assert not all(torch.equal(value, state.ema[name]) for name, value in state.model.items())
    with pytest.raises(Killed):
        run(tmp_path / "cut", progress=Dies(11))
    again, _ = run(tmp_path / "cut", resume="auto")
    assert again.losses == outcome.losses
    assert equal(final(tmp_path / "cut"), state)
    short, _ = run(tmp_path / "short", replace(PLAN, steps=100_000, max_time=0.2))
    assert short.stopped_by == "time"
    assert final(tmp_path / "short").step == short.steps < 100_000


class Gratings:
    """Stripes down, stripes across, and both: 8 x 8, shifted by the seed."""

    def __len__(self):
        return 3

    def item(self, index, seed, /):
        shift = int(torch.randint(4, (), generator=torch.Generator().manual_seed(seed)))
        wave = torch.sin((torch.arange(8) + shift) * torch.pi / 2 + 0.7).sign()
        down, across = wave.expand(8, 8), wave[:, None].expand(8, 8)
        return (down, across, down * across)[index][None].clone()


@pytest.mark.parametrize("pool", ["attention", "adaptive", "spatial"])
def test_the_real_network_learns_through_its_pooling(pool):
    torch.manual_seed(0)
    net = Classifier(
        in_channels=1,
        classes=3,
        width=16,
        multipliers=(1, 2),
        blocks=1,
        attention=(1,),
        pool=pool,
        size=(8, 8),
    )
    low = TABLE[:40]
    levels = Levels(low=float(low[0]), high=float(low[-1]), table=low)
    objective = CrossEntropy(times=LossSecondMoment(low, bins=4, length=4))
    plan = Plan(steps=60, batch=12, learning_rate=5e-3)
    outcome = fit(NoisyClassifier(net, levels), Gratings(), plan, objective=objective, labels=LABELS)
    assert outcome.losses[0] == pytest.approx(math.log(3), abs=0.25)
    assert sum(outcome.losses[-10:]) < 0.85 * 10 * math.log(3)
    with pytest.raises(DataError, match="from 0 to 2, a class of the network"):
        fit(NoisyClassifier(net, levels), Gratings(), plan, objective=objective, labels=[0, 1, 3])


def test_what_a_classifier_cannot_learn_from_is_refused():
    with pytest.raises(ConfigError, match=r"condition_dropout is 0\.1, but a classifier is not conditional"):
        run(None, replace(PLAN, condition_dropout=0.1))
    with pytest.raises(ConfigError, match="learns the label of each row, but there are none"):
        fit(classifier(), Clouds(), PLAN, objective=OBJECTIVE)
    with pytest.raises(DataError, match="from 0 to 2, a class of the network, but that of row 1 is 3"):
        fit(classifier(), Clouds(), PLAN, objective=OBJECTIVE, labels=[0, 3, 1])
