"""The average against its closed form."""

from __future__ import annotations

import torch
from torch import nn

from anodiff.train.ema import Ema, decay


def course(steps, *, cap, dtype=torch.float64):
    """The average after a known course of weights, and the course."""
    model = nn.Linear(3, 2).to(dtype)
    ema = Ema(model, cap=cap)
    g = torch.Generator().manual_seed(1)
    seen = []
    for step in range(steps):
        with torch.no_grad():
            model.weight.copy_(torch.randn(2, 3, generator=g, dtype=torch.float64))
        seen.append(model.weight.detach().double().clone())
        ema.update(model, step=step)
    return ema.model.weight, torch.stack(seen)


def test_average_is_the_weighted_sum_of_its_course():
    average, seen = course(40, cap=0.7)
    kept = torch.tensor([decay(k, cap=0.7) for k in range(40)], dtype=torch.float64)
    after = torch.cat([kept.flip(0).cumprod(0).flip(0)[1:], torch.ones(1, dtype=torch.float64)])
    weights = (1 - kept) * after
    assert abs(weights.sum() - 1) < 1e-12
    torch.testing.assert_close(average, (weights.view(-1, 1, 1) * seen).sum(0), rtol=1e-12, atol=1e-12)


def test_the_first_weights_leave_a_short_run():
    # At a constant .9999 they would keep 97 % of the average after 300 steps.
    left = 1.0
    for step in range(300):
        left *= decay(step, cap=0.9999)
    assert left == 0.0
    assert decay(299, cap=0.9999) < 0.98
    assert decay(10**7, cap=0.9999) == 0.9999


def test_cap_zero_is_the_weights_themselves():
    average, seen = course(5, cap=0.0)
    assert torch.equal(average, seen[-1])


def test_half_precision_weights_are_averaged_in_single():
    average, seen = course(400, cap=0.99, dtype=torch.bfloat16)
    assert average.dtype == torch.float32
    expected = torch.zeros_like(seen[0])
    for step, weight in enumerate(seen):
        expected = expected.lerp(weight, 1 - decay(step, cap=0.99))
    torch.testing.assert_close(average.double(), expected, rtol=1e-5, atol=1e-6)


def test_buffers_follow_and_the_average_is_never_trained():
    model = nn.BatchNorm1d(2)
    ema = Ema(model, cap=0.9).train()
    model(torch.randn(8, 2))
    ema.update(model, step=0)
    assert torch.equal(ema.model.running_mean, model.running_mean)
    assert not ema.model.training
    assert not any(weight.requires_grad for weight in ema.parameters())
    fresh = nn.BatchNorm1d(2)
    ema.give(fresh)
    assert torch.equal(fresh.running_mean, model.running_mean)
