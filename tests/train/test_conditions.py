"""What goes before the denoiser: labels, the null condition, a codec."""

from __future__ import annotations

import torch
from small_run import OBJECTIVE, PLAN, Stripes, denoiser, final
from torch import nn

from anodiff.cond import Cond
from anodiff.train.fit import fit
from anodiff.train.objective import LogUniform, Objective
from anodiff.train.plan import Plan


class Labelled(nn.Module):
    """The ideal denoiser of point masses, one a label, learned as a table."""

    def __init__(self):
        super().__init__()
        self.points = nn.Embedding(4, 2)  # the last is the null

    def forward(self, y, sigma, cond: Cond | None = None):
        row = cond.label if cond.keep is None else torch.where(cond.keep, cond.label, 3)
        return self.points(row)[:, :, None, None]


class Points:
    def __len__(self):
        return 6

    def item(self, index, seed, /):
        return torch.tensor([[0.0, 1.0], [1.0, 0.0], [-1.0, -1.0]])[index % 3].view(2, 1, 1)


def test_labels_and_the_null_reach_the_denoiser():
    net = Labelled()
    plan = Plan(steps=300, batch=6, learning_rate=0.1, condition_dropout=0.3)
    fit(
        net,
        Points(),
        plan,
        objective=Objective(weight=lambda s: s**0, times=LogUniform(1, 2)),
        labels=[0, 1, 2] * 2,
    )
    learnt = net.points.weight.detach()
    torch.testing.assert_close(
        learnt[:3], torch.tensor([[0.0, 1.0], [1.0, 0.0], [-1.0, -1.0]]), atol=0.02, rtol=0
    )
    torch.testing.assert_close(learnt[3], torch.zeros(2), atol=0.1, rtol=0)


class Doubling(nn.Module):
    """A codec with a shape of its own and a weight that must stay."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(2.0))
        self.modes = []

    def encode(self, image):
        self.modes.append((self.training, torch.is_grad_enabled()))
        return nn.functional.avg_pool2d(image, 2) * self.gain


def test_a_codec_goes_before_the_denoiser_and_is_not_trained(tmp_path):
    class Coded(Stripes):
        def item(self, index, seed, /):
            return nn.functional.avg_pool2d(super().item(index, seed), 2) * 2

    codec, one, other = Doubling(), denoiser(), denoiser()
    before = fit(one, Coded(), PLAN, objective=OBJECTIVE)
    after = fit(other, Stripes(), PLAN, objective=OBJECTIVE, codec=codec, folder=tmp_path)
    assert before.losses == after.losses
    assert codec.gain.item() == 2.0
    assert set(codec.modes) == {(False, False)}
    assert not any("gain" in name for name in final(tmp_path).model)
