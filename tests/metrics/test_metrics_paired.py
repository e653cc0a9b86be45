"""Differences on the same pictures agree with DeLong's closed form; intervals over seeds hold what they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from anodiff.errors import DataError
from anodiff.metrics.paired import difference, holm, paired, resampled, whole_auroc
from anodiff.metrics.seeds import crossed, deviation, over_seeds, summarised


def delong(first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> tuple[float, float, float]:
    """Difference of two AUROCs, its standard error and two-sided p; the placements of DeLong et al. 1988, eq. 3-7."""
    bad, good = labels == 1, labels == 0

    def placements(score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        wins = (score[bad][:, None] > score[good]) + 0.5 * (score[bad][:, None] == score[good])
        return wins.mean(axis=1), wins.mean(axis=0)

    (b1, g1), (b2, g2) = placements(first), placements(second)
    value = b1.mean() - b2.mean()
    error = math.sqrt(np.var(b1 - b2, ddof=1) / bad.sum() + np.var(g1 - g2, ddof=1) / good.sum())
    return value, error, float(2 * norm.sf(abs(value) / error))


def two(seed: int, *, gap: float, n: int = 150) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of two methods that see much the same in the same pictures, the second `gap` worse."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) >= n // 3
    shared = rng.normal(size=n)
    first = shared + 0.6 * rng.normal(size=n) + 1.3 * labels
    second = shared + 0.6 * rng.normal(size=n) + (1.3 - gap) * labels
    return np.round(first, 2), np.round(100 * second, 0), labels.astype(int)  # other scale; ties


@pytest.mark.parametrize("gap", [0.0, 0.3, 0.9])
def test_interval_and_p_agree_with_delong(gap):
    first, second, labels = two(3, gap=gap)
    value, error, p = delong(first, second, labels)
    found = paired(first, second, labels, draws=8000, seed=0)
    assert found.value == pytest.approx(value, abs=1e-12)
    assert found.value == pytest.approx(roc_auc_score(labels, first) - roc_auc_score(labels, second))
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(error, rel=0.06)
    assert found.p == pytest.approx(p, abs=0.03)
    assert found.n == 150
    assert (found.p < 0.05) == (not found.low <= 0 <= found.high)


def test_what_both_see_in_a_picture_cancels():
    first, second, labels = two(5, gap=0.3)
    found = paired(first, second, labels, draws=2000, seed=0)
    apart = resampled(first, labels, draws=2000, seed=1)[0] - resampled(second, labels, draws=2000, seed=2)[0]
    assert found.high - found.low < 0.75 * np.ptp(np.quantile(apart, [0.025, 0.975]))


def test_under_no_difference_p_is_small_as_often_as_it_says():
    rng = np.random.default_rng(0)
    small = []
    for _ in range(150):
        labels = np.arange(60) >= 24
        shared = rng.normal(size=60) + labels
        pair = shared + 0.7 * rng.normal(size=(2, 60))
        small.append(paired(pair[0], pair[1], labels, draws=200, seed=1).p < 0.1)
    assert 0.04 < np.mean(small) < 0.18


def test_swapping_the_methods_changes_the_sign_alone():
    first, second, labels = two(7, gap=0.4)
    one, other = (paired(a, b, labels, draws=500, seed=2) for a, b in ((first, second), (second, first)))
    assert (one.value, one.low, one.high, one.p) == pytest.approx(
        (-other.value, -other.high, -other.low, other.p)
    )


def test_a_method_does_not_differ_from_itself_nor_perfect_from_perfect():
    first, _, labels = two(1, gap=0.0)
    same = paired(first, 3 * first + 1, labels, draws=300, seed=0)
    assert (same.value, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)
    perfect = paired(labels, labels * 2.0, labels, draws=300, seed=0)
    assert (perfect.value, perfect.p) == (0.0, 1.0)


def test_p_is_never_zero():
    labels = np.arange(40) >= 20
    assert paired(labels, -1.0 * labels, labels, draws=99, seed=0).p == pytest.approx(2 / 100)


def test_seeds_are_averaged_on_each_resample():
    first, second, labels = two(9, gap=0.2)
    rows = np.stack([first, second, 0.5 * first + second])
    drawn = resampled(rows, labels, draws=400, seed=4)
    value = whole_auroc(rows, labels)
    expected = difference(value[:2].mean() - value[2], drawn[:2].mean(axis=0), drawn[2], n=labels.size)
    assert paired(rows[:2], rows[2], labels, draws=400, seed=4) == expected


def test_methods_on_other_pictures_are_refused():
    with pytest.raises(DataError, match=r"same pictures, got 4 and 3"):
        paired([1.0, 2, 3, 4], [1.0, 2, 3], [0, 1, 0, 1], seed=0)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def trainings(
    rng: np.random.Generator, *, seeds: int, n: int, between: float
) -> tuple[np.ndarray, np.ndarray]:
    """Scores [seeds, n] of trainings whose skill varies by `between`, on pictures they find similarly hard."""
    labels = np.arange(n) >= n // 2
    skill = 1.2 + between * rng.normal(size=(seeds, 1))
    return rng.normal(size=n) + 0.5 * rng.normal(size=(seeds, n)) + skill * labels, labels.astype(int)


def test_one_seed_is_the_interval_over_pictures():
    scores, labels = trainings(np.random.default_rng(0), seeds=1, n=80, between=0.0)
    found = over_seeds(scores, labels, draws=500, seed=3)
    drawn = resampled(scores, labels, draws=500, seed=3)[0]
    assert [found.low, found.high] == pytest.approx(np.quantile(drawn, [0.025, 0.975]))
    assert math.isnan(found.deviation)
    assert (found.seeds, found.n) == (1, 80)


def test_mean_and_deviation_are_those_of_the_seeds():
    scores, labels = trainings(np.random.default_rng(1), seeds=4, n=60, between=0.5)
    each = [roc_auc_score(labels, row) for row in scores]
    found = over_seeds(scores, labels, draws=500, seed=3)
    assert found.mean == pytest.approx(np.mean(each))
    assert found.deviation == pytest.approx(np.std(each, ddof=1)) == deviation(each)
    assert found.low < found.mean < found.high
    assert found == over_seeds(scores, labels, draws=500, seed=3)


def test_the_variance_is_that_of_pictures_and_of_seeds():
    rng = np.random.default_rng(2)
    seeds, pictures = 0.02 * rng.normal(size=(4, 1)), 0.01 * rng.normal(size=40_000)
    drawn = 0.8 + seeds + pictures
    found = crossed(drawn, seed=0)
    assert found.var() == pytest.approx(pictures.var() + seeds.var(ddof=1) / 4, rel=0.03)


def test_an_interval_over_seeds_covers_where_one_over_pictures_does_not():
    """Many benches of three seeds each, whose true mean over all seeds and pictures is known from a huge one."""
    rng = np.random.default_rng(3)
    total = 1.2 / np.sqrt(2 * (1 + 0.25) + 0.5**2)  # a bad score less a good one is normal, skill included
    truth = norm.cdf(total)
    held, narrow = [], []
    for turn in range(120):
        scores, labels = trainings(rng, seeds=3, n=200, between=0.5)
        drawn = resampled(scores, labels, draws=120, seed=turn)
        both = summarised(whole_auroc(scores, labels), crossed(drawn, seed=turn), n=200)
        low, high = np.quantile(drawn.mean(axis=0), [0.025, 0.975])
        held.append(both.low <= truth <= both.high)
        narrow.append(low <= truth <= high)
    assert np.mean(held) > 0.78
    assert np.mean(held) > np.mean(narrow) + 0.1
