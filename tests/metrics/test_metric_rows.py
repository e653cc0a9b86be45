import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from anodiff.errors import DataError
from anodiff.metrics.curve import aupro, auroc
from anodiff.metrics.pixel import PixelScores
from anodiff.metrics.row import NAMES, curves, metrics, rows, to_json

IMAGE_NAMES = ["image_auroc", "image_ap", "image_f1max", "fpr95", "overkill_at_zero_escapes"]
PIXEL_NAMES = ["pixel_auroc", "pixel_ap", "aupro_30", "aupro_05"]


@pytest.fixture(scope="module")
def test_set():
    rng = np.random.default_rng(0)
    labels = np.arange(24) >= 12
    pixels, scores = PixelScores(), []
    for bad in labels:
        mask = np.zeros((48, 64), bool)
        if bad:
            mask[10:20, 30:35] = True
        score = rng.gamma(2, 1, mask.shape) + 2 * mask
        pixels.update(score, mask)
        scores.append(score.max())
    return np.array(scores), labels, pixels


def test_the_names_are_those_of_the_file_format():
    assert list(NAMES) == IMAGE_NAMES + PIXEL_NAMES


def test_all_metrics_are_there_and_pixel_ones_only_with_masks(test_set):
    scores, labels, pixels = test_set
    found = metrics(scores, labels, pixels, seed=0, draws=100)
    assert list(found) == IMAGE_NAMES + PIXEL_NAMES
    for one in found.values():
        assert 0 <= one.low <= one.value <= one.high <= 1
        assert one.n == 24
    assert list(metrics(scores, labels, seed=0, draws=20)) == IMAGE_NAMES
    no_masks = PixelScores()
    no_masks.update(np.ones((4, 4)), np.zeros((4, 4), bool))
    assert list(metrics(scores, labels, no_masks, seed=0, draws=20)) == IMAGE_NAMES


def test_json_is_strict_and_leads_back(test_set):
    scores, labels, pixels = test_set
    found = metrics(scores, labels, pixels, seed=3, draws=50)
    about = {"seed": np.int64(3), "data": Path("data/part"), "model_id": "ab12", "threshold": np.float32(0.5)}
    read = json.loads(to_json(found, **about, ms_p50=None, device="cpu"), parse_constant=pytest.fail)
    assert list(read) == [*NAMES, "seed", "data", "model_id", "threshold", "ms_p50", "device"]
    assert read["image_auroc"] == {
        "value": found["image_auroc"].value,
        "low": found["image_auroc"].low,
        "high": found["image_auroc"].high,
        "n": 24,
    }
    assert (read["seed"], read["data"], read["threshold"], read["ms_p50"]) == (3, "data/part", 0.5, None)


def test_json_refuses_numbers_it_does_not_have_and_names_given_twice(test_set):
    scores, labels, _ = test_set
    found = metrics(scores, labels, seed=0, draws=10)
    for wrong in (math.nan, math.inf, np.float32("nan")):
        with pytest.raises(DataError, match="finite numbers only"):
            to_json(found, threshold=wrong)
    with pytest.raises(DataError, match="fpr95"):
        to_json(found, fpr95=1.0)


def test_rows_are_long_and_keep_their_columns(test_set):
    scores, labels, pixels = test_set
    found = metrics(scores, labels, pixels, seed=0, draws=20)
    table = rows(found, data="part", method="ddpm", seed=0)
    assert list(table.columns) == ["data", "method", "seed", "metric", "value", "low", "high", "n"]
    assert table["metric"].tolist() == list(NAMES)
    both = pd.concat([table, rows(found, data="part", method="ddim", seed=1)])
    wide = both.pivot_table(index="method", columns="metric", values="value")
    assert wide.loc["ddim", "aupro_30"] == found["aupro_30"].value
    assert list(rows({}, data="part").columns) == ["data", "metric", "value", "low", "high", "n"]


def test_curves_are_thin_end_to_end_and_hold_the_areas(test_set):
    scores, labels, pixels = test_set
    table = curves(scores, labels, pixels, points=300)
    assert table["curve"].unique().tolist() == ["image_roc", "image_pr", "pixel_roc", "pro", "pixel_pr"]
    assert table.groupby("curve").size().max() <= 300
    curve = pixels.curve()
    for name, area in {"pixel_roc": auroc(curve), "pro": aupro(curve, 1.0)}.items():
        one = table[table["curve"] == name]
        assert (one["x"].iloc[0], one["y"].iloc[0], one["x"].iloc[-1], one["y"].iloc[-1]) == (0, 0, 1, 1)
        assert one["x"].is_monotonic_increasing
        assert one["y"].is_monotonic_increasing
        assert one["threshold"].is_monotonic_decreasing
        assert np.trapezoid(one["y"], one["x"]) == pytest.approx(float(area), abs=5e-3)
    recall = table[table["curve"] == "pixel_pr"]
    assert recall["x"].is_monotonic_increasing
    assert recall["x"].iloc[-1] == 1.0
    assert curves(scores, labels)["curve"].unique().tolist() == ["image_roc", "image_pr"]


def test_a_point_of_a_curve_is_what_its_threshold_gives(test_set):
    scores, labels, _ = test_set
    table = curves(scores, labels)
    for point in table[table["curve"] == "image_roc"].itertuples():
        assert point.x == pytest.approx((scores[~labels] >= point.threshold).mean())
        assert point.y == pytest.approx((scores[labels] >= point.threshold).mean())
