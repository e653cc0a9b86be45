import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anodiff.metrics.histogram import histogram, keys, values_of
from anodiff.metrics.sketch import FINE, Precision

ROUGH = Precision(depth=2.0**-7, growth=2.0**-5)
N = 60_000


def rank_errors(points, values):
    """(rank, error) of the number of values above and from every threshold worth trying."""
    tried = np.unique(
        np.concatenate([np.quantile(values, np.linspace(0, 1, 500)), points.value, values[:500]])
    )
    tried = tried.astype(np.float32)
    rising = np.sort(values)
    upto = np.append(0, np.cumsum(points.weight[0]))
    for side in ("left", "right"):
        true = values.size - np.searchsorted(rising, tried, side=side)
        seen = upto[points.value.size - np.searchsorted(points.value[::-1], tried, side=side)]
        yield true, np.abs(true - seen)


CASES = {
    "uniform": lambda r: r.random(N),
    "heavy outliers": lambda r: r.standard_cauchy(N) ** 3,
    "signed": lambda r: r.normal(size=N),
    "24 decades": lambda r: 10 ** r.uniform(-12, 12, N),
    "24 decades, both signs": lambda r: r.choice([-1, 1], N) * 10 ** r.uniform(-12, 12, N),
    "a narrow band far from 0": lambda r: 1000 + 1e-2 * r.random(N),
    "spikes inside a cell": lambda r: 1 + 1e-5 * r.integers(0, 50, N) + (r.random(N) < 0.01) * 1e-6,
    "half constant": lambda r: np.where(r.random(N) < 0.5, 0.25, r.random(N)),
    "denormal": lambda r: 1e-42 * r.random(N),
    "descending": lambda r: np.linspace(1, 0, N),
}


@pytest.mark.parametrize("case", CASES)
def test_every_rank_is_within_what_the_precision_allows(case):
    values = CASES[case](np.random.default_rng(0)).astype(np.float32)
    points = histogram(values, ROUGH)
    assert points.weight.sum() == N
    assert (np.diff(points.value) <= 0).all()
    for true, error in rank_errors(points, values):
        assert (error <= ROUGH.allowed(true, N)).all()
    for true, error in rank_errors(points, values):
        assert error[true < 1 / ROUGH.growth].max(initial=0) == 0  # the top is kept as it is
    cells = np.unique(keys(values) >> 16).size  # wide data occupies more cells than the precision asks for
    assert points.value.size < N / 20 + cells


@pytest.mark.parametrize("levels", [1, 2, 7, 256])
def test_few_distinct_values_are_counted_exactly(levels):
    values = np.random.default_rng(1).integers(0, levels, N).astype(np.float32) / 7 - 3
    points = histogram(values, ROUGH)
    value, count = np.unique(values, return_counts=True)
    np.testing.assert_array_equal(points.value, value[::-1])
    np.testing.assert_array_equal(points.weight[0], count[::-1])


def test_the_fine_precision_keeps_small_sets_exactly():
    values = np.random.default_rng(2).normal(size=16_000).astype(np.float32)
    points = histogram(values, FINE)
    np.testing.assert_array_equal(
        np.repeat(points.value, points.weight[0].astype(int)), np.sort(values)[::-1]
    )


def test_no_values_give_no_points():
    points = histogram(np.zeros(0, np.float32), ROUGH)
    assert points.value.size == 0
    assert points.weight.shape == (1, 0)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=50))
def test_keys_are_ordered_against_the_values_and_lead_back(numbers):
    values = np.array(numbers, dtype=np.float32)
    key = keys(values)
    np.testing.assert_array_equal(values_of(key), values)
    a, b = np.meshgrid(values, values)
    ka, kb = np.meshgrid(key, key)
    np.testing.assert_array_equal(a > b, ka < kb)
    np.testing.assert_array_equal(a == b, ka == kb)  # 0.0 and -0.0 among them
