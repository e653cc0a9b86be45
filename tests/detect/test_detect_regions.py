from __future__ import annotations

import numpy as np

from anodiff.detect.regions import regions


def test_boxes_areas_peaks_and_order() -> None:
    heat = np.zeros((20, 30), dtype=np.float32)
    heat[2:5, 3:7] = 2
    heat[3, 4] = 5
    heat[10:12, 20:25] = 7
    high, low = regions(heat, 1)
    assert (high.bbox, high.area, high.peak) == ((20, 10, 5, 2), 10, 7)
    assert (low.bbox, low.area, low.peak) == ((3, 2, 4, 3), 12, 5)
    assert set(low.polygon) == {(3, 2), (6, 2), (6, 4), (3, 4)}


def test_corners_touch() -> None:
    heat = np.eye(5, dtype=np.float32)
    (only,) = regions(heat, 0.5)
    assert only.area == 5


def test_the_threshold_itself_is_still_normal_and_nan_never_above() -> None:
    heat = np.ones((4, 4), dtype=np.float32)
    assert regions(heat, 1.0) == ()
    assert regions(np.full((4, 4), np.nan, dtype=np.float32), 0.0) == ()


def test_small_regions_are_left_out() -> None:
    heat = np.zeros((9, 9), dtype=np.float32)
    heat[1, 1] = 3
    heat[4:7, 4:7] = 2
    assert [r.area for r in regions(heat, 1, smallest=2)] == [9]
    assert [r.area for r in regions(heat, 1)] == [1, 9]


def test_a_region_in_the_hole_of_another_keeps_its_own_outline() -> None:
    heat = np.zeros((11, 11), dtype=np.float32)
    heat[1:10, 1:10] = 2
    heat[3:8, 3:8] = 0
    heat[5, 5] = 9
    inner, ring = regions(heat, 1)
    assert inner.polygon == ((5, 5),)
    assert ring.area == 81 - 25
    assert set(ring.polygon) == {(1, 1), (9, 1), (9, 9), (1, 9)}


def test_plain_values_only() -> None:
    heat = np.zeros((4, 4), dtype=np.float32)
    heat[1, 2] = 1
    found = regions(heat, 0)[0].to_dict()
    assert found == {"bbox": [2, 1, 1, 1], "polygon": [[2, 1]], "area": 1, "peak": 1.0, "p_value": None}
    assert type(found["peak"]) is float
