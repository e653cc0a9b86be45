import numpy as np
import pytest
import slow
from sklearn.metrics import roc_auc_score

from anodiff.errors import ConfigError, DataError
from anodiff.metrics import image
from anodiff.metrics.bootstrap import (
    Interval,
    PixelTable,
    image_intervals,
    interval,
    multiplicities,
    percentiles,
    pixel_intervals,
)
from anodiff.metrics.image import IMAGE
from anodiff.metrics.pixel import PIXEL, PixelScores


def both_kinds(seed, good=60, bad=40, apart=1.0):
    rng = np.random.default_rng(seed)
    scores = np.concatenate([rng.normal(size=good), rng.normal(size=bad) + apart])
    return np.round(scores, 1), np.arange(good + bad) >= good  # rounded: ties


def test_draws_keep_the_number_of_good_and_bad():
    _, labels = both_kinds(0)
    drawn = np.concatenate(list(multiplicities(labels, draws=300, seed=1)))
    assert drawn.shape == (300, 100)
    assert (drawn[:, labels].sum(axis=1) == 40).all()
    assert (drawn[:, ~labels].sum(axis=1) == 60).all()
    assert (drawn == 0).mean() == pytest.approx(np.exp(-1), abs=0.02)


@pytest.mark.parametrize("name", IMAGE)
def test_all_draws_at_once_equal_one_after_the_other(name):
    scores, labels = both_kinds(2)
    metric = getattr(image, name)
    at_once = interval(metric, scores, labels, draws=200, seed=3)
    one_by_one = interval(lambda s, y: metric(s, y), scores, labels, draws=200, seed=3)
    assert vars(at_once) == pytest.approx(vars(one_by_one), abs=1e-12)
    assert at_once.value == pytest.approx(metric(scores, labels))
    assert at_once == image_intervals(scores, labels, draws=200, seed=3)[name]
    assert at_once.low <= at_once.value <= at_once.high
    assert at_once.n == 100


def test_the_vectorised_auroc_equals_the_slow_twin_on_repeated_pictures():
    scores, labels = both_kinds(4, 15, 10)
    for times in next(multiplicities(labels, draws=30, seed=5)):
        curve = image.image_curve(scores, labels, weights=times[None])
        s, y = np.repeat(scores, times.astype(int)), np.repeat(labels, times.astype(int))
        assert IMAGE["image_auroc"](curve)[0] == pytest.approx(slow.auroc(s, y), abs=1e-12)
        assert IMAGE["image_ap"](curve)[0] == pytest.approx(slow.average_precision(s, y), abs=1e-12)


def test_a_foreign_metric_is_called_once_a_draw():
    scores, labels = both_kinds(6)
    theirs = interval(lambda s, y: float(roc_auc_score(y, s)), scores, labels, draws=50, seed=7)
    ours = interval(image.image_auroc, scores, labels, draws=50, seed=7)
    assert vars(theirs) == pytest.approx(vars(ours), abs=1e-12)


def test_the_seed_decides_and_batches_of_draws_do_not_change_it(monkeypatch):
    scores, labels = both_kinds(8)
    first = interval(image.image_auroc, scores, labels, draws=200, seed=9)
    assert interval(image.image_auroc, scores, labels, draws=200, seed=9) == first
    assert interval(image.image_auroc, scores, labels, draws=200, seed=10) != first
    monkeypatch.setattr("anodiff.metrics.bootstrap.BATCH", 1)
    drawn = list(multiplicities(labels, draws=5, seed=9))
    assert [len(batch) for batch in drawn] == [1] * 5


def test_the_width_agrees_with_the_known_deviation_of_auroc():
    """Hanley & McNeil 1982: the standard error of an AUROC."""
    scores, labels = both_kinds(11, 200, 150)
    found = interval(image.image_auroc, scores, labels, draws=2000, seed=0)
    a, good, bad = found.value, 200, 150
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    error = np.sqrt((a * (1 - a) + (bad - 1) * (q1 - a * a) + (good - 1) * (q2 - a * a)) / (good * bad))
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    from scipy.stats import norm

    truth = norm.cdf(1 / np.sqrt(2))  # P(N(1, 1) > N(0, 1))
    covered = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        scores = np.concatenate([rng.normal(size=80), rng.normal(size=80) + 1])
        found = interval(image.image_auroc, scores, np.arange(160) >= 80, draws=300, level=0.9, seed=seed)
        covered += found.low <= truth <= found.high
    assert 0.82 <= covered / 200 <= 0.97


def test_a_wider_level_gives_a_wider_interval_and_perfect_separation_none():
    scores, labels = both_kinds(12)
    wide = interval(image.image_auroc, scores, labels, level=0.99, seed=0)
    narrow = interval(image.image_auroc, scores, labels, level=0.5, seed=0)
    assert wide.high - wide.low > narrow.high - narrow.low
    assert interval(image.image_auroc, [0, 1, 2, 3], [0, 0, 1, 1], seed=0) == Interval(1.0, 1.0, 1.0, 4)


def some_pixels(count=30, size=64, **options):
    rng = np.random.default_rng(13)
    data, scores = [], PixelScores(**options)
    for i in range(count):
        mask = np.zeros((size, size), bool)
        if i % 3 == 0:
            y, x = rng.integers(0, size - 20, 2)
            mask[y : y + rng.integers(2, 20), x : x + rng.integers(2, 20)] = True
            mask[1, 1] = True
        # pictures differ in brightness and in how well their defects show: pixels of one picture are no sample
        score = rng.gamma(2, 1, mask.shape) + rng.normal(scale=0.4) + mask * rng.uniform(0, 5)
        scores.update(score, mask)
        data.append((score, mask))
    return data, scores


def test_resampled_pictures_move_pixel_metrics_as_if_their_pixels_were_sorted_again():
    data, scores = some_pixels()
    label = np.array([m.any() for _, m in data])
    drawn = next(multiplicities(label, draws=15, seed=14))
    table = PixelTable.of(scores.pictures)
    rough, every = table.curve(drawn), table.curve(np.ones((1, label.size)))
    whole = scores.curve()
    for k, times in enumerate(drawn.astype(int)):
        again = PixelScores()
        for (score, mask), often in zip(data, times, strict=True):
            for _ in range(often):
                again.update(score, mask)
        curve = again.curve()
        for name, metric in PIXEL.items():
            moved = metric(rough)[k] - metric(every)[0]
            assert moved == pytest.approx(float(metric(curve) - metric(whole)), abs=2e-3), name
            assert metric(rough)[k] == pytest.approx(float(metric(curve)), abs=5e-3), name


def test_pixel_intervals_are_centred_on_the_exact_value_and_wide_as_pictures_differ():
    _, scores = some_pixels()
    found = pixel_intervals(scores, draws=300, seed=15)
    curve = scores.curve()
    for name, metric in PIXEL.items():
        one = found[name]
        assert one.value == float(metric(curve))
        assert 0 <= one.low < one.value < one.high <= 1
        assert one.n == 30
    # 10 defective pictures say much less than their 122,880 pixels: Hanley & McNeil on pixels would give .01
    assert found["pixel_auroc"].high - found["pixel_auroc"].low > 0.05
    assert pixel_intervals(scores, draws=300, seed=15) == found
    assert pixel_intervals(scores, draws=300, seed=16) != found


def test_pixel_intervals_work_on_streamed_summaries():
    _, exact = some_pixels()
    _, streamed = some_pixels(exact=20_000)
    a, b = pixel_intervals(exact, draws=100, seed=1), pixel_intervals(streamed, draws=100, seed=1)
    for name in PIXEL:
        assert vars(a[name]) == pytest.approx(vars(b[name]), abs=1e-3)


def test_pixel_intervals_of_few_distinct_values_and_defective_pictures_only():
    scores = PixelScores()
    for i in range(6):
        mask = np.zeros((10, 10), bool)
        mask[2:5, 2:5] = True
        scores.update(np.where(mask, i % 2, 0), mask)
    found = pixel_intervals(scores, draws=50, seed=0)
    assert found["pixel_auroc"].value == pytest.approx(0.75)
    assert found["pixel_auroc"].low < 0.75 < found["pixel_auroc"].high


def test_nonsense_is_refused():
    scores, labels = both_kinds(16)
    with pytest.raises(ConfigError, match="at least one draw"):
        interval(image.image_auroc, scores, labels, draws=0, seed=0)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        percentiles(0.5, np.zeros(3), level=95, n=3)
    with pytest.raises(DataError, match="good and bad"):
        interval(lambda s, y: 0.0, scores, np.zeros(100), seed=0)
