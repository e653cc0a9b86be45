from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from anodiff.errors import DataError
from anodiff.report.case import Case
from anodiff.report.picture import data_uri, grid, outline, overlay, rgb, scale_of, shrunk, shrunk_map


def grey(value: int, shape: tuple[int, int] = (8, 8)) -> np.ndarray:
    return np.full((*shape, 3), value, np.uint8)


def test_a_map_at_its_low_end_leaves_the_picture_alone():
    image = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    np.testing.assert_array_equal(overlay(image, np.full((8, 9), 0.2), low=0.2, high=1.0), image)


def test_the_colour_of_a_pixel_does_not_depend_on_its_neighbours():
    quiet, loud = np.full((8, 8), 0.3), np.full((8, 8), 0.3)
    loud[4:] = 50.0
    first, second = (overlay(grey(100), heat, low=0.0, high=1.0) for heat in (quiet, loud))
    np.testing.assert_array_equal(first[:4], second[:4])
    assert (first[4:] != second[4:]).any()


def test_values_outside_the_range_look_like_its_ends():
    heat = np.array([[-5.0, 0.0, 1.0, 7.0, np.nan, np.inf]])
    drawn = overlay(grey(90, (1, 6)), heat, low=0.0, high=1.0)[0]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    np.testing.assert_array_equal(drawn[2], drawn[3])
    np.testing.assert_array_equal(drawn[4], drawn[1])
    np.testing.assert_array_equal(drawn[5], drawn[2])


def test_an_overlay_grows_with_the_map_and_leaves_its_inputs_alone():
    image, heat = grey(60, (1, 50)), np.linspace(0, 1, 50)[None]
    before = image.copy(), heat.copy()
    light = overlay(image, heat, low=0.0, high=1.0).astype(float) @ [0.299, 0.587, 0.114]
    assert light[0, -1] > light[0, 25] > light[0, 0]
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(heat, before[1])


def test_an_overlay_refuses_a_map_of_another_size_and_an_empty_range():
    with pytest.raises(DataError, match="shape"):
        overlay(grey(1), np.zeros((4, 4)), low=0, high=1)
    with pytest.raises(DataError, match="low < high"):
        overlay(grey(1), np.zeros((8, 8)), low=1, high=1)


def test_pictures_are_scaled_by_their_type_never_by_their_maximum():
    dark = np.full((4, 4), 1, np.uint8)
    assert rgb(dark).max() == 1
    assert rgb(np.full((4, 4, 1), 0.5, np.float32)).max() == 128
    with pytest.raises(DataError, match="uint16"):
        rgb(np.zeros((4, 4), np.uint16))
    with pytest.raises(DataError, match="expected"):
        rgb(np.zeros((4, 4, 4), np.uint8))


def case(heat: np.ndarray, *, label: int | None, score: float) -> Case:
    return Case("a", grey(0, heat.shape), heat.astype(np.float32), score, label)  # type: ignore[arg-type]


def test_the_scale_is_tied_to_the_threshold_and_to_good_pictures():
    good = case(np.r_[np.full((9, 9), 0.2), np.full((1, 9), 0.35)], label=0, score=0.35)
    bad = case(np.r_[np.full((9, 9), 0.4), np.full((1, 9), 30.0)], label=1, score=30.0)
    scale = scale_of([good, bad], 0.6)
    assert (scale.low, scale.high, scale.threshold) == pytest.approx((0.2, 0.8, 0.6))


def test_a_peak_lost_to_interpolation_does_not_change_the_unit():
    bad = case(np.r_[np.full((9, 9), 0.2), np.full((1, 9), 0.9)], label=1, score=1.0)
    assert scale_of([bad], 0.6).threshold == 0.6


def test_scores_in_another_unit_do_not_set_the_scale():
    good = case(np.linspace(0, 1, 100).reshape(10, 10), label=0, score=70.0)
    scale = scale_of([good], 80.0)
    assert scale.threshold is None
    assert scale.low == pytest.approx(0.5)
    assert 0.95 < scale.high <= 1


@pytest.mark.parametrize("heat", [np.zeros((4, 4)), np.full((4, 4), np.nan)])
def test_a_flat_or_void_map_still_has_a_scale(heat):
    scale = scale_of([case(heat, label=1, score=0.0)], None)
    assert scale.high > scale.low
    assert scale_of([], 0.5).high > scale_of([], 0.5).low


def test_a_two_pixel_find_survives_shrinking():
    heat = np.zeros((2000, 1500), np.float32)
    heat[777:779, 901] = 3.0
    small = shrunk_map(heat, side=256)
    assert small.shape == (256, 192)
    assert small.max() == 3.0
    assert np.unravel_index(small.argmax(), small.shape) == (99, 115)


def test_small_pictures_are_not_enlarged():
    image = grey(3, (40, 30))
    assert shrunk(image, side=256) is image
    assert shrunk(grey(3, (400, 1)), side=100).shape == (100, 1, 3)


def test_an_outline_runs_round_a_region_and_not_over_it():
    mask = np.zeros((100, 100), bool)
    mask[40:60, 30:70] = True
    drawn = outline(grey(128, (100, 100)), mask)
    changed = (drawn != 128).any(axis=2)
    assert changed.any()
    assert not changed[mask].any()
    rows, columns = np.nonzero(changed)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == pytest.approx((35, 64, 25, 74), abs=2)
    assert not (outline(grey(128), np.zeros((8, 8), bool)) != 128).any()


def test_an_outline_of_a_large_mask_falls_on_the_small_picture():
    mask = np.zeros((400, 800), bool)
    mask[160:240, 240:560] = True
    rows, columns = np.nonzero((outline(grey(128, (100, 200)), mask) != 128).any(axis=2))
    assert (rows.mean(), columns.mean()) == pytest.approx((49.5, 99.5), abs=1)


def test_a_contact_sheet_holds_every_picture_once_in_reading_order():
    sheet = grid(
        [grey(value, (10, 12)) for value in (10, 20, 30)] + [np.full((6, 6), 40, np.uint8)], columns=3, gap=2
    )
    assert sheet.shape == (2 * 12 + 2, 3 * 14 + 2, 3)
    assert [int((sheet == value).all(axis=2).sum()) for value in (10, 20, 30, 40)] == [120, 120, 120, 36]
    assert sheet[5, 5, 0] == 10
    assert sheet[5, 33, 0] == 30
    assert sheet[20, 8, 0] == 40
    with pytest.raises(DataError, match="found 0"):
        grid([], columns=3)


def test_an_inlined_picture_reads_back():
    image = np.zeros((20, 30, 3), np.uint8)
    image[:, 15:] = (250, 20, 20)
    head, body = data_uri(image).split(",")
    assert head == "data:image/jpeg;base64"
    back = np.asarray(Image.open(io.BytesIO(base64.b64decode(body))))
    assert np.abs(back.astype(int) - image).mean() < 4
