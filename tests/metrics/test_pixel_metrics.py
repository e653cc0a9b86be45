import time

import numpy as np
import pytest
import slow
from sklearn.metrics import average_precision_score, roc_auc_score

from anodiff.errors import DataError
from anodiff.metrics.curve import aupro
from anodiff.metrics.pixel import EXACT, PIXEL, PixelScores
from anodiff.metrics.sketch import Precision


def gather(maps, masks, **options):
    scores = PixelScores(**options)
    for score, mask in zip(maps, masks, strict=True):
        scores.update(score, mask)
    return scores


def values(scores):
    curve = scores.curve()
    return {name: float(metric(curve)) for name, metric in PIXEL.items()}


def pictures(rng, count, size, *, largest=12):
    """Masks of which every second holds defects: rectangles, specks of one pixel, and diagonals."""
    for i in range(count):
        mask = np.zeros((size, size + 4 * (i % 3)), dtype=bool)  # sizes differ
        if i % 2:
            for _ in range(3):
                y, x = rng.integers(0, size - largest, 2)
                mask[y : y + rng.integers(1, largest), x : x + rng.integers(1, largest)] = True
            mask[0, 0] = True
            for k in range(6):
                mask[size - 1 - k, size - 8 + k] = True
        yield mask


def perfect(r, m):
    return np.where(m, 1.0, 0.0) + 0.1 * r.random(m.shape)


MAPS = {
    "overlapping": lambda r, m: r.gamma(2, 1, m.shape) + 2 * m * r.random(m.shape),
    "constant": lambda r, m: np.full(m.shape, 0.7),
    "two values": lambda r, m: (r.random(m.shape) < 0.2 + 0.5 * m).astype(float),
    "ties": lambda r, m: np.round(4 * (r.normal(size=m.shape) + m)) / 4,
    "perfect": perfect,
    "inverted": lambda r, m: -perfect(r, m),
    "heavy outliers": lambda r, m: r.standard_cauchy(m.shape) ** 3 + m,
    "24 decades": lambda r, m: 10 ** np.clip(r.uniform(-12, 12, m.shape) + 6 * m, -12, 12),
    "negative": lambda r, m: -1e3 - r.gamma(2, 1, m.shape) * (1 + 2 * ~m),
    "a narrow band": lambda r, m: 1000 + 1e-2 * (r.random(m.shape) + m * r.random(m.shape)),
    "mostly zero": lambda r, m: np.maximum(r.normal(size=m.shape) - 2 + 2 * m, 0),
}


@pytest.mark.parametrize("case", MAPS)
def test_small_sets_equal_the_slow_twins_and_sklearn(case):
    rng = np.random.default_rng(0)
    masks = list(pictures(rng, 4, 22, largest=6))
    maps = [MAPS[case](rng, m).astype(np.float32) for m in masks]
    found = values(gather(maps, masks))
    flat, labels = slow.flat(maps, masks)
    assert found["pixel_auroc"] == pytest.approx(slow.auroc(flat, labels), abs=1e-12)
    assert found["pixel_auroc"] == pytest.approx(roc_auc_score(labels, flat), abs=1e-12)
    assert found["pixel_ap"] == pytest.approx(slow.average_precision(flat, labels), abs=1e-12)
    assert found["pixel_ap"] == pytest.approx(average_precision_score(labels, flat), abs=1e-12)
    assert found["aupro_30"] == pytest.approx(slow.aupro(maps, masks, 0.3), abs=1e-12)
    assert found["aupro_05"] == pytest.approx(slow.aupro(maps, masks, 0.05), abs=1e-12)


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
def test_aupro_equals_anomalibs(limit):
    import torch
    from anomalib.metrics.aupro import _AUPRO

    rng = np.random.default_rng(1)
    masks = [m[:, :48] for m in pictures(rng, 8, 48)]
    for case in ("overlapping", "two values", "ties", "perfect", "constant"):
        maps = [MAPS[case](rng, m) for m in masks]
        highest = max(m.max() for m in maps)
        lowest = min(m.min() for m in maps)
        span = (highest - lowest) or 1.0
        maps = [((m - lowest) / span).astype(np.float32) for m in maps]  # theirs expects [0, 1]
        reference = _AUPRO(fpr_limit=limit)
        reference.update(torch.from_numpy(np.stack(maps)), torch.from_numpy(np.stack(masks)).int())
        ours = float(aupro(gather(maps, masks).curve(), limit))
        assert ours == pytest.approx(float(reference.compute()), abs=2e-5), case  # theirs adds up in float32


def stream(case, rng, count=14, size=300):
    masks = list(pictures(rng, count, size, largest=40))
    return [MAPS[case](rng, m).astype(np.float32) for m in masks], masks


@pytest.mark.parametrize("case", MAPS)
def test_the_error_stays_within_its_bound_when_every_point_stands_for_many(case):
    maps, masks = stream(case, np.random.default_rng(10), count=18, size=90)
    exact = gather(maps, masks)
    streamed = gather(maps, masks, exact=9_000, precision=Precision(depth=2.0**-9, growth=2.0**-6))
    assert streamed._good_sketch.carries == 1
    truth, found, bound = values(exact), values(streamed), streamed.error_bound()
    for name in PIXEL:
        assert abs(found[name] - truth[name]) <= bound[name] + 1e-12, name


@pytest.mark.parametrize("case", ["overlapping", "heavy outliers", "a narrow band", "ties"])
def test_the_streaming_summary_is_within_1e_4_of_the_exact_sort(case):
    maps, masks = stream(case, np.random.default_rng(2))
    exact, streamed = gather(maps, masks), gather(maps, masks, exact=400_000)
    assert exact.is_exact
    assert not streamed.is_exact
    assert exact.error_bound() == dict.fromkeys(PIXEL, 0.0)
    truth, found, bound = values(exact), values(streamed), streamed.error_bound()
    for name in PIXEL:
        assert abs(found[name] - truth[name]) <= min(bound[name], 1e-4) + 1e-12, name
        assert bound[name] <= 1e-4


@pytest.mark.parametrize("exact", [30_000, 100_000])
def test_a_range_that_drifts_costs_no_precision(exact):
    rng = np.random.default_rng(3)
    masks = list(pictures(rng, 16, 180, largest=30))
    maps = [10.0 ** (i - 8) * MAPS["overlapping"](rng, m) - 0.01 * i for i, m in enumerate(masks)]
    truth, streamed = values(gather(maps, masks)), gather(maps, masks, exact=exact)
    found = values(streamed)
    assert streamed._good_sketch.carries >= (1 if exact == 30_000 else 0)
    for name in PIXEL:
        assert found[name] == pytest.approx(truth[name], abs=1e-4)


def test_the_bounds_stay_below_1e_4_through_the_first_carry_of_auroc_and_ap():
    scores = PixelScores(exact=1)
    mask = np.eye(4, dtype=bool)
    for _ in range(9):
        scores.update(np.arange(16.0).reshape(4, 4), mask)
    assert scores._good_sketch.carries == 1
    bound = scores.error_bound()
    assert max(bound["pixel_auroc"], bound["pixel_ap"], bound["aupro_30"]) < 1e-4
    assert bound["aupro_05"] < 1.1e-4


def test_regions_touch_at_their_corners():
    mask = np.zeros((8, 8), bool)
    mask[1, 1] = mask[2, 2] = mask[3, 3] = True  # one region with 8 neighbours, three with 4
    mask[6, 6] = True
    scores = np.zeros((8, 8))
    scores[1, 1] = scores[2, 2] = scores[3, 3] = 1.0
    gathered = gather([scores], [mask])
    assert gathered.regions == 2
    # half the regions are found at no false alarm; the rest comes with everything at once, up a straight line
    assert float(aupro(gathered.curve(), 0.3)) == pytest.approx(0.5 + 0.5 * 0.3 / 2)


def test_the_curve_is_interpolated_at_the_limit_and_divided_by_it():
    # 10 good pixels, 1 bad: the bad one ties with the good ones of rank 3 to 6, so PRO climbs from .2 to .6
    scores = np.array([[9, 8, 5, 5, 5, 5, 3, 2, 1, 0, 5]], dtype=float)
    mask = np.array([[0] * 10 + [1]])
    curve = gather([scores], [mask]).curve()
    assert float(aupro(curve, 0.3)) == pytest.approx((0.1 * 0.25 / 2) / 0.3)  # at .3 it has climbed a quarter
    assert float(aupro(curve, 0.6)) == pytest.approx((0.4 / 2) / 0.6)
    assert float(aupro(curve, 0.2)) == 0.0


def test_a_small_region_counts_as_much_as_a_large_one():
    mask = np.zeros((40, 40), bool)
    mask[:20, :20] = True
    mask[30, 30] = True
    scores = np.where(mask, 1.0, 0.0)
    scores[30, 30] = -1.0  # the one-pixel region is missed
    found = values(gather([scores], [mask]))
    assert found["aupro_30"] == pytest.approx(0.5)
    assert found["pixel_auroc"] > 0.99


@pytest.mark.parametrize(("case", "area"), [("perfect", 1.0), ("inverted", 0.0)])
def test_perfect_and_inverted_maps(case, area):
    rng = np.random.default_rng(4)
    masks = list(pictures(rng, 4, 64))
    found = values(gather([MAPS[case](rng, m) for m in masks], masks))
    assert [found[n] for n in ("pixel_auroc", "aupro_30", "aupro_05")] == pytest.approx([area] * 3)


def test_only_the_order_of_scores_matters():
    rng = np.random.default_rng(5)
    masks = list(pictures(rng, 4, 40))
    maps = [np.round(MAPS["overlapping"](rng, m), 2).astype(np.float32) for m in masks]
    found = values(gather(maps, masks))
    for change in (lambda s: 1024 * s - 5000, lambda s: 2.0**-30 * s):
        assert values(gather([change(m.astype(float)) for m in maps], masks)) == pytest.approx(found)


def test_order_of_pictures_and_dtype_do_not_matter_and_inputs_are_left_alone():
    rng = np.random.default_rng(6)
    masks = list(pictures(rng, 6, 40))
    maps = [MAPS["ties"](rng, m) for m in masks]
    kept = [m.copy() for m in maps], [m.copy() for m in masks]
    found = values(gather(maps, masks))
    assert values(gather(maps[::-1], [255 * m.astype(np.uint8) for m in masks[::-1]])) == pytest.approx(found)
    assert values(gather([m.astype(np.float16) for m in maps], masks)) == pytest.approx(found)
    for now, before in zip((*maps, *masks), (*kept[0], *kept[1]), strict=True):
        np.testing.assert_array_equal(now, before)


def test_reading_the_curve_early_changes_nothing():
    maps, masks = stream("overlapping", np.random.default_rng(7), count=6, size=150)
    asked, whole = PixelScores(exact=50_000), gather(maps, masks, exact=50_000)
    for score, mask in zip(maps, masks, strict=True):
        asked.update(score, mask)
        if asked.regions:
            asked.curve()
    assert values(asked) == values(whole)


@pytest.mark.parametrize(
    ("scores", "mask", "says"),
    [
        (np.zeros((4, 4)), np.zeros((4, 5), bool), r"\(4, 4\) and \(4, 5\)"),
        (np.zeros((1, 4, 4)), np.zeros((1, 4, 4), bool), "one size"),
        (np.zeros((4, 4)), np.full((4, 4), 0.3), "interpolated mask"),
        (np.full((4, 4), np.nan), np.zeros((4, 4), bool), "16 of 16 pixels are NaN"),
        (np.full((4, 4), 1e300), np.zeros((4, 4), bool), "infinite or larger"),
    ],
)
def test_what_cannot_be_ranked_is_refused_with_a_sentence(scores, mask, says):
    gathered = PixelScores()
    with pytest.raises(DataError, match=says):
        gathered.update(scores, mask)
    assert gathered.pixels == 0


def test_masks_of_one_kind_only_are_refused():
    with pytest.raises(DataError, match="no defect pixel"):
        gather([np.ones((3, 3))], [np.zeros((3, 3), bool)]).curve()
    with pytest.raises(DataError, match="no good pixel"):
        gather([np.ones((3, 3))], [np.ones((3, 3), bool)]).curve()


def test_83_pictures_take_seconds_and_a_picture_keeps_few_kilobytes():
    maps, masks = stream("overlapping", np.random.default_rng(8), count=83, size=256)

    def seconds():
        start = time.process_time()
        aupro(gather(maps, masks).curve())
        return time.process_time() - start

    assert any(seconds() < 2.0 for _ in range(3))  # again if the machine was busy
    scores = gather(maps[:10], masks[:10])
    assert scores.is_exact
    assert max(p.nbytes for p in scores.pictures) < 20_000


@pytest.mark.slow
def test_100_million_pixels_in_constant_memory():
    rng = np.random.default_rng(9)
    noise = rng.gamma(2, 1, (1000, 1000)).astype(np.float32)
    scores, seen = PixelScores(), []
    for i in range(100):
        mask = np.zeros((1000, 1000), bool)
        mask[10 * (i % 50) : 10 * (i % 50) + 30, 200:240] = i % 2
        scores.update(np.roll(noise, 7919 * i) + mask, mask)
        seen.append(scores.nbytes)
    assert scores.pixels > EXACT
    assert max(seen) < 160e6  # 400 MB of maps alone
    assert max(seen[80:]) - max(seen[:21]) < 60e6
    assert 0.5 < values(scores)["pixel_auroc"] < 1.0
