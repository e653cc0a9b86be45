"""Promised false-alarm rates hold, of pictures and of regions, as the exact law of split-conformal prediction says."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import betabinom

from anodiff.cond import Cond
from anodiff.detect import teaching
from anodiff.detect.bylabel import ThresholdByLabel
from anodiff.detect.calibrate import PositionCalibration
from anodiff.detect.heatmap import Smooth
from anodiff.detect.onestep import ResidualScorer, one_steps
from anodiff.detect.pool import TopShare
from anodiff.detect.predictor import Predictor, Scored
from anodiff.detect.regions import family_p_value, regions
from anodiff.detect.residual import ResidualCovariance
from anodiff.detect.result import unbatch
from anodiff.detect.threshold import Conformal
from anodiff.errors import ConfigError, DataError
from anodiff.metrics.false_alarms import Counted, false_alarms, flagged, rank

HELD, TESTED, RESAMPLES = 39, 40, 100


class Model(torch.nn.Module):
    """A closed-form denoiser in the coat of a network."""

    def __init__(self, law) -> None:
        super().__init__()
        self.law = law
        self.levels = law.levels
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, y: torch.Tensor, sigma: torch.Tensor, cond: Cond | None = None) -> torch.Tensor:
        return self.law(y, sigma, cond)


@pytest.fixture(scope="module")
def kept() -> dict:
    """What is made once."""
    return {}


@pytest.fixture
def judged(truth, normals, plain, kept) -> Scored:
    """What a fitted predictor says of 160 good pictures that it has not seen."""
    if not kept:
        predictor = Predictor(
            plain(),
            Model(truth),
            ResidualScorer(one_steps([0.5]), ResidualCovariance()),
            smooth=Smooth(0.5),
            calibration=PositionCalibration(),
            pool=TopShare(0.02),
            threshold=Conformal(0.1),
            mask_threshold=Conformal(0.1),
        )
        teaching.learn(predictor, lambda: iter([normals(16, seed=1)]), lambda: iter([normals(12, seed=2)]))
        kept["judged"] = predictor(normals(160, seed=3))
    return kept["judged"]


def band(alpha: float) -> tuple[float, float]:
    """Where the mean realised rate of all resamples lies in 999 of 1000 cases, by the exact law, if they were apart."""
    place = rank(HELD, alpha)
    law = betabinom(TESTED, place, HELD + 1 - place)
    width = 3.3 * law.std() / TESTED / math.sqrt(RESAMPLES)
    return law.mean() / TESTED - width, law.mean() / TESTED + width


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.2])
def test_the_realised_rate_of_pictures_and_of_regions_is_the_promised_one(judged, alpha: float) -> None:
    maxima = judged.heat.amax(dim=(1, 2, 3))
    generator = torch.Generator().manual_seed(0)
    pictures, shown, agreed = [], [], []
    for _ in range(RESAMPLES):
        order = torch.randperm(len(maxima), generator=generator)
        held, tested = order[:HELD], order[HELD : HELD + TESTED]
        rule, mask_rule = Conformal(alpha), Conformal(alpha)
        rule.learn(judged.score[held])
        mask_rule.learn(maxima[held])
        pictures.append(float((rule.p_value(judged.score[tested]) <= alpha + 1e-9).double().mean()))
        least = [
            min(
                (region.p_value for region in regions(heat, -math.inf, maxima=mask_rule.held.numpy())),
                default=1.0,
            )
            for heat in judged.heat[tested, 0].numpy()
        ]
        shown.append(np.mean(np.array(least) <= alpha + 1e-9))
        agreed.append(shown[-1] == float((maxima[tested] > mask_rule.value).double().mean()))
    low, high = band(alpha)
    assert low < np.mean(pictures) < high
    assert low < np.mean(shown) < high
    assert high < alpha + 0.03
    assert all(agreed)  # a region within the rate is a region that is shown


def test_the_test_above_would_notice_scores_that_were_learnt_from(judged) -> None:
    """A threshold learnt from flattering scores flags more than the band allows."""
    scores = judged.score
    rates = []
    for seed in range(RESAMPLES):
        order = torch.randperm(len(scores), generator=torch.Generator().manual_seed(seed))
        rule = Conformal(0.1)
        rule.learn(scores[order[:HELD]] * 0.95)
        rates.append(float((scores[order[HELD : HELD + TESTED]] > rule.value).double().mean()))
    assert np.mean(rates) > band(0.1)[1]


@given(
    maxima=st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=20),
    peak=st.integers(-6, 6).map(float),
)
def test_the_p_value_of_a_region_is_its_definition(maxima: list[float], peak: float) -> None:
    expected = (1 + sum(m >= peak for m in maxima)) / (len(maxima) + 1)
    assert family_p_value(peak, np.sort(maxima)) == expected


def test_regions_carry_their_p_value_into_files(judged) -> None:
    heat = torch.zeros(1, 1, 8, 8)
    heat[0, 0, 1, 1], heat[0, 0, 5, 5] = 9.0, 3.5
    one = dataclasses.replace(
        judged,
        score=torch.tensor([1.0]),
        p_value=torch.tensor([0.5]),
        heat=heat,
        restored=None,
        threshold=torch.tensor([2.0], dtype=torch.float64),
        mask_threshold=torch.tensor([3.0], dtype=torch.float64),
        maxima=[torch.tensor([1.0, 2.0, 3.0, 4.0])],
    )
    result = unbatch(one, 0, shape=(8, 8))
    assert [region.p_value for region in result.regions] == [1 / 5, 2 / 5]
    assert [region["p_value"] for region in json.loads(result.to_json())["regions"]] == [1 / 5, 2 / 5]
    unknown = unbatch(dataclasses.replace(one, maxima=()), 0, shape=(8, 8))
    assert [region["p_value"] for region in json.loads(unknown.to_json())["regions"]] == [None, None]


def test_a_region_is_compared_with_the_pictures_of_its_own_label() -> None:
    rule = ThresholdByLabel([Conformal(0.5), Conformal(0.5)], ("calm", "rough"))
    rule.learn(torch.tensor([1.0, 2.0, 10.0, 20.0]), torch.tensor([0, 0, 1, 1]))
    calm, rough = rule.held_of(torch.tensor([0, 1]))
    assert family_p_value(5.0, calm.numpy()) == 1 / 3
    assert family_p_value(5.0, rough.numpy()) == 1.0
    assert rule.counts == {"calm": 2, "rough": 2}


scores = st.lists(st.integers(-9, 9).map(float), min_size=1, max_size=25)


@given(held=scores, more=scores, rate=st.floats(0.02, 0.9))
def test_false_alarms_that_are_added_never_lower_the_threshold(held, more, rate: float) -> None:
    rule = Conformal(rate)
    if rate < 1 / (len(held) + 1):
        return
    rule.learn(torch.tensor(held))
    before = rule.value
    alarms = [score for score in more if score > before]
    if alarms:
        rule.add(torch.tensor(alarms))
        assert rule.count == len(held) + len(alarms)
        assert rule.value >= before


@given(held=scores, more=scores)
def test_adding_is_learning_from_all(held, more) -> None:
    rule, whole = Conformal(0.5), Conformal(0.5)
    rule.learn(torch.tensor(held))
    rule.add(torch.tensor(more))
    whole.learn(torch.tensor(held + more))
    assert torch.equal(rule.held, whole.held)


def test_labels_without_new_pictures_stay() -> None:
    rule = ThresholdByLabel([Conformal(0.5), Conformal(0.5)], ("calm", "rough"))
    rule.learn(torch.tensor([1.0, 2.0, 10.0, 20.0]), torch.tensor([0, 0, 1, 1]))
    rule.add(torch.tensor([30.0]), torch.tensor([1]))
    assert rule.counts == {"calm": 2, "rough": 3}
    assert rule.count == 2


def test_the_law_of_false_alarms_is_that_of_simulated_thresholds() -> None:
    random = np.random.default_rng(0)
    drawn = random.exponential(size=(20_000, HELD + TESTED))
    place = rank(HELD, 0.1)
    limit = np.sort(drawn[:, :HELD], axis=1)[:, HELD - place]
    alarms = (drawn[:, HELD:] > limit[:, None]).sum(1)
    for count in (0, 3, 8):
        found = false_alarms([Counted(count, TESTED, HELD)], promised=0.1)
        assert found.p_value == pytest.approx((alarms >= count).mean(), abs=0.012)
    low, high = np.quantile(alarms, [0.025, 0.975])
    assert (found.expected_low * TESTED, found.expected_high * TESTED) == (low, high)
    assert (found.value, found.n) == (8 / TESTED, TESTED)


def test_thresholds_of_two_labels_add_up() -> None:
    both = false_alarms([Counted(1, 10, 19), Counted(0, 10, 39)], promised=0.1)
    first = betabinom.pmf(np.arange(11), 10, 2, 18)
    second = betabinom.pmf(np.arange(11), 10, 4, 36)
    assert both.p_value == pytest.approx(1 - first[0] * second[0])
    assert both.value == pytest.approx(1 / 20)
    assert false_alarms([Counted(1, 10, 19), Counted(0, 0, 39)], promised=0.1).n == 10


def test_no_picture_and_no_promise_are_refused() -> None:
    with pytest.raises(DataError, match="at least one good picture"):
        flagged(0, 0)
    with pytest.raises(ConfigError, match="19 normals"):
        false_alarms([Counted(0, 10, 19)], promised=0.01)
