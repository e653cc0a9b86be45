from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anodiff.detect.threshold import Conformal, Quantile, least_rate, normals_needed
from anodiff.errors import ConfigError, DataError

scores = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=30)


@given(held=scores, asked=scores)
def test_p_value_is_its_definition(held: list[float], asked: list[float]) -> None:
    rule = Quantile(0.5)
    rule.learn(torch.tensor(held))
    expected = [(1 + sum(h >= a for h in held)) / (len(held) + 1) for a in asked]
    torch.testing.assert_close(rule.p_value(torch.tensor(asked)), torch.tensor(expected))


@settings(max_examples=200)
@given(held=scores, rate=st.floats(0.01, 0.9), asked=scores)
def test_above_the_conformal_threshold_is_a_p_value_within_the_rate(
    held: list[float], rate: float, asked: list[float]
) -> None:
    rule = Conformal(rate)
    if rate < least_rate(len(held)):
        with pytest.raises(ConfigError):
            rule.learn(torch.tensor(held))
        return
    rule.learn(torch.tensor(held))
    flagged = torch.tensor(asked) > rule.value
    assert torch.equal(flagged, rule.p_value(torch.tensor(asked)).double() <= rate + 1e-7)


@pytest.mark.parametrize(("count", "rate"), [(19, 0.05), (39, 0.1), (25, 0.1)])
def test_false_alarm_rate_lies_in_its_binomial_band(count: int, rate: float) -> None:
    generator = torch.Generator().manual_seed(count)
    resamples = 4000
    drawn = torch.randn(resamples, count + 1, generator=generator).exp()  # any law will do
    alarms = 0
    for row in drawn:
        rule = Conformal(rate)
        rule.learn(row[:-1])
        alarms += bool(row[-1] > rule.value)
    exact = math.floor(rate * (count + 1) + 1e-9) / (count + 1)
    assert exact <= rate
    assert abs(alarms / resamples - exact) < 4 * math.sqrt(exact * (1 - exact) / resamples)


def test_a_rate_that_the_normals_cannot_support_is_refused_with_the_number_needed() -> None:
    with pytest.raises(ConfigError, match=r"0\.001 needs at least 999 .* there are 42"):
        Conformal(1e-3).learn(torch.randn(42))
    Conformal(1e-3).learn(torch.randn(999))
    with pytest.raises(ConfigError, match="999"):
        Conformal(1e-3).learn(torch.randn(998))
    assert normals_needed(0.05) == 19
    assert least_rate(normals_needed(0.05)) == pytest.approx(0.05)


def test_a_rate_lowered_after_learning_is_refused_too() -> None:
    rule = Conformal(0.1)
    rule.learn(torch.randn(20))
    rule.target_fpr = 0.01
    with pytest.raises(ConfigError, match="99"):
        _ = rule.value


def test_quantile_interpolates() -> None:
    rule = Quantile(0.9)
    rule.learn(torch.arange(11.0).flip(0))
    assert rule.value == pytest.approx(9.0)


def test_what_is_not_a_number_is_neither_learnt_nor_judged() -> None:
    rule = Quantile(0.9)
    with pytest.raises(DataError, match="finite"):
        rule.learn(torch.tensor([1.0, math.nan]))
    with pytest.raises(DataError, match="none"):
        rule.learn(torch.zeros(0))
    with pytest.raises(ConfigError, match="learnt nothing"):
        _ = rule.value
    rule.learn(torch.tensor([1.0, 2.0]))
    assert torch.isnan(rule.p_value(torch.tensor([math.nan]))).all()


def test_state_round_trip() -> None:
    rule, fresh = Conformal(0.1), Conformal(0.1)
    rule.learn(torch.randn(30))
    fresh.load_state_dict(rule.state_dict())
    assert fresh.value == rule.value
