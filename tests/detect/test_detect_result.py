from __future__ import annotations

import json
import math
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import torch

from anodiff.detect.predictor import Scored
from anodiff.detect.result import Result, unbatch
from anodiff.errors import ConfigError


def scored(peak: float = 5.0) -> Scored:
    heat = torch.zeros(2, 1, 8, 8)
    heat[1, 0, 2:4, 3:5] = peak
    return Scored(
        score=heat.amax((1, 2, 3)),
        p_value=torch.tensor([0.9, 0.05]),
        heat=heat,
        restored=torch.full((2, 3, 16, 16), 0.5),
        threshold=torch.ones(2, dtype=torch.float64),
        mask_threshold=torch.full((2,), 2.0, dtype=torch.float64),
        label=torch.tensor([1, 0]),
    )


def result(row: int = 1, peak: float = 5.0, **changes) -> Result:
    image = np.full((40, 60, 3), 100, dtype=np.uint8)
    found = unbatch(
        scored(peak), row, names=("lid", "nut"), shape=(40, 60), image=image, path="parts/a 1.png",
        model_id="m", timings_ms={"total": 1.5},
    )  # fmt: skip
    return replace(found, **changes)


def test_map_mask_and_regions_are_at_the_size_of_the_input() -> None:
    bad = result()
    assert bad.is_anomalous is True
    assert bad.category == bad.to_dict()["category"] == "lid"
    assert bad.heatmap.shape == bad.mask.shape == (40, 60)
    assert bad.heatmap.dtype == np.float32
    assert bad.mask.dtype == bool
    assert np.array_equal(bad.mask, bad.heatmap > 2)
    (region,) = bad.regions
    assert region.area == bad.mask.sum()
    x, y, w, h = region.bbox
    assert x <= 4 * 7.5 <= x + w  # the hot cells' common corner, 8 x 8 -> 40 x 60
    assert y <= 3 * 5 <= y + h
    assert bad.restored is not None
    assert bad.restored.shape == (40, 60, 3)
    assert bad.restored.dtype == np.uint8
    assert abs(int(bad.restored[0, 0, 0]) - 128) <= 1


def test_a_calm_picture_needs_no_resize() -> None:
    good = result(0)
    assert good.is_anomalous is False
    assert good.regions == ()
    assert not good.mask.any()
    assert good.mask.shape == (40, 60)
    assert "heatmap" not in vars(good)  # neither regions nor mask asked for it
    assert good.heatmap is good.heatmap  # made once


def test_a_result_has_no_truth_value() -> None:
    with pytest.raises(TypeError, match="is_anomalous"):
        bool(result())


def test_frozen_and_comparable() -> None:
    with pytest.raises(FrozenInstanceError):
        result().score = 0.0  # type: ignore[misc]
    assert result() == result()
    assert hash(result()) == hash(result())
    asked = result()
    _ = asked.heatmap
    assert asked == result()  # what was computed on the way does not count
    assert result() != result(peak=6.0)
    assert result() != "a result"
    assert Result.failed("broken", path="x") == Result.failed("broken", path="x")
    assert len({result(), result(), result(0, path="b")}) == 2


def test_a_failed_picture_is_neither_good_nor_bad() -> None:
    failed = Result.failed("The file is cut off.", path="a.png", threshold=1.0)
    assert math.isnan(failed.score)
    assert failed.is_anomalous is None
    assert failed.regions == ()
    record = json.loads(failed.to_json())
    assert record["score"] is None
    assert record["error"] == "The file is cut off."
    with pytest.raises(ConfigError, match="cut off"):
        _ = failed.heatmap


def test_a_score_that_is_no_number_never_passes_as_good() -> None:
    broken = scored()
    broken.score[1] = math.nan
    found = unbatch(broken, 1, names=("lid", "nut"), shape=(8, 8))
    assert found.is_anomalous is None
    assert found.error


def test_json_holds_plain_values() -> None:
    record = json.loads(result().to_json())
    assert record == result().to_dict()
    assert record["n_regions"] == 1
    assert record["max_region_area"] == record["regions"][0]["area"]
    assert (record["width"], record["height"]) == (60, 40)
    assert record["is_anomalous"] is True
    assert record["timings_ms"] == {"total": 1.5}


def test_overlay_colours_are_the_models_not_the_pictures() -> None:
    weak, strong = result(peak=2.5).overlay(), result(peak=25.0).overlay()
    assert weak.shape == (40, 60, 3)
    assert weak.dtype == np.uint8
    assert not np.array_equal(weak, strong)  # scaled by its own maximum, both would look alike
    assert np.array_equal(result(0).overlay()[0, 0], [100, 100, 100])
    image = np.full((40, 60), 7, dtype=np.uint8)
    assert result(image=None).overlay(image).shape == (40, 60, 3)
    with pytest.raises(ConfigError, match="did not keep"):
        result(image=None).overlay()
    with pytest.raises(ConfigError, match="uint8"):
        result().overlay(np.zeros((5, 5), dtype=np.float32))
    kept = result()
    kept.overlay()
    assert kept.image is not None
    assert (kept.image == 100).all()


def test_saved_files_can_be_read_back(tmp_path: Path) -> None:
    bad = result()
    written = bad.save(tmp_path / "new")
    assert {p.name for p in written} == {
        "a 1.json", "a 1_heatmap.tiff", "a 1_mask.png", "a 1_overlay.png", "a 1_restored.png",
    }  # fmt: skip
    assert np.array_equal(tifffile.imread(tmp_path / "new" / "a 1_heatmap.tiff"), bad.heatmap)
    mask = cv2.imread(str(tmp_path / "new" / "a 1_mask.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(mask > 0, bad.mask)
    overlay = cv2.imread(str(tmp_path / "new" / "a 1_overlay.png"))[..., ::-1]
    assert np.array_equal(overlay, bad.overlay())
    assert json.loads((tmp_path / "new" / "a 1.json").read_text())["score"] == 5.0
    assert [p.name for p in Result.failed("no").save(tmp_path, name="x")] == ["x.json"]
