import numpy as np
import pytest

from anodiff.metrics.sketch import FINE, Points, Precision, Sketch, cuts, pool, summarise

ROUGH = Precision(depth=2.0**-7, growth=2.0**-5)


def random_points(seed, size=20_000, spread=1.0):
    rng = np.random.default_rng(seed)
    value = np.sort(rng.gamma(2, spread, size).astype(np.float32))[::-1]
    share = 1 / rng.integers(1, 400, size)  # some items are a region of their own
    return Points(value, np.stack([np.ones(size), share]))


def worst(points, original, row):
    """(rank, error) of the weight above each original value."""
    true = np.append(0, np.cumsum(original.weight[row]))
    seen = np.append(0, np.cumsum(points.weight[row]))
    tried = np.unique(original.value)
    for side in ("left", "right"):
        t = true[original.value.size - np.searchsorted(original.value[::-1], tried, side=side)]
        s = seen[points.value.size - np.searchsorted(points.value[::-1], tried, side=side)]
        yield t, np.abs(t - s)


@pytest.mark.parametrize("total", [1, 31, 33, 1000, 1_000_000, 20_000_000])
@pytest.mark.parametrize("precision", [ROUGH, FINE])
def test_no_group_is_wider_than_allowed(total, precision):
    at = cuts(total, precision)
    width = np.diff(np.append(at, total))
    assert at[0] == 0
    assert (width > 0).all()
    assert (width <= precision.allowed(at, total)).all()
    assert at.size < 2 / precision.depth + np.log2(total + 2) / precision.growth


def test_a_summary_is_small_keeps_all_weight_and_moves_no_rank_too_far():
    original = random_points(0)
    points = summarise(original, ROUGH)
    assert points.value.size < original.value.size / 10
    np.testing.assert_allclose(points.weight.sum(axis=1), original.weight.sum(axis=1))
    for rank, error in worst(points, original, 0):
        assert (error <= np.maximum(ROUGH.allowed(rank, original.value.size) / 2, 0.5)).all()
    for _, error in worst(points, original, 1):
        assert error.max() <= ROUGH.depth * original.weight[1].sum() + 1e-9


def test_a_heavy_item_stays_alone():
    original = random_points(1)
    original.weight[1] = 1e-3
    original.weight[1, 7777] = 50.0  # far above the depth of all shares together
    points = summarise(original, ROUGH)
    heavy = points.weight[1].argmax()
    assert points.value[heavy] == original.value[7777]
    assert points.weight[1, heavy] == 50.0


def test_small_sets_are_left_as_they_are():
    original = random_points(2, size=100)
    assert summarise(original, ROUGH) is original


def test_a_sketch_stays_small_and_its_error_grows_with_the_number_of_carries_only():
    sketch, parts, sizes = Sketch(ROUGH, fan_in=4), [], []
    for part in range(64):
        raw = random_points(part, size=2000, spread=1.0 + part)  # the range drifts all the time
        parts.append(raw)
        sketch.push(summarise(raw, ROUGH))
        sizes.append(sketch.nbytes)
    assert sketch.carries == 3
    assert max(sizes[32:]) <= 1.6 * max(sizes[8:32])
    assert max(sizes) < sum(p.value.nbytes + p.weight.nbytes for p in parts) / 4
    original, points = pool(parts), pool(sketch.parts)
    np.testing.assert_allclose(points.weight.sum(axis=1), original.weight.sum(axis=1))
    rounds = 1 + sketch.carries
    for _, error in worst(points, original, 0):
        assert error.max() <= rounds * ROUGH.depth * original.value.size / 2
    for _, error in worst(points, original, 1):
        assert error.max() <= rounds * ROUGH.depth * original.weight[1].sum()


def test_pooling_orders_the_values_of_all_parts():
    whole = pool([random_points(3, size=50), random_points(4, size=70)])
    assert whole.value.size == 120
    assert (np.diff(whole.value) <= 0).all()
