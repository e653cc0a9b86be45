"""The foreground: found on every ground and in every kind of file, and not found where there is none."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from drawn_parts import drawn

from anodiff.data.field import fbm
from anodiff.data.foreground import foreground
from anodiff.data.hardware import CLASSES
from anodiff.data.image import to_unit


def overlap(cover: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union, the holes of the truth filled."""
    outlines, _ = cv2.findContours((truth > 0.5).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    solid = cv2.drawContours(np.zeros(truth.shape, np.uint8), outlines, -1, 1, cv2.FILLED) > 0
    found = cover > 0.5
    return float((found & solid).sum() / (found | solid).sum())


@pytest.mark.parametrize("light", [False, True])
@pytest.mark.parametrize("kind", CLASSES)
def test_parts_are_found_on_dark_and_light_grounds(kind: str, light: bool) -> None:
    for seed in range(8):
        part = drawn(kind, seed, light=light)
        found = foreground(to_unit(part.image))
        assert found is not None
        assert overlap(found.cover, part.cover) > 0.9


def test_light_that_falls_off_to_one_side_is_no_part() -> None:
    part = drawn("bolt", 1)
    fall = np.linspace(0.0, 0.35, 96)[None, :, None]
    image = to_unit(part.image) * 0.6 + fall
    found = foreground(image.astype(np.float32))
    assert found is not None
    assert overlap(found.cover, part.cover) > 0.85


def test_every_form_of_a_picture_has_the_same_foreground() -> None:
    image = drawn("bolt", 3).image
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    base = foreground(to_unit(grey))
    assert base is not None
    forms = {
        "three channels": np.repeat(grey[..., None], 3, axis=2),
        "16 bit": grey.astype(np.uint16) * 257,
        "float": grey.astype(np.float32) / np.float32(255),
    }
    for name, form in forms.items():
        found = foreground(to_unit(form))
        assert found is not None, name
        np.testing.assert_allclose(found.cover, base.cover, atol=1e-3, err_msg=name)


def test_holes_are_filled_and_specks_left_out() -> None:
    part = drawn("washer", 0, turn=0)
    image = part.image.copy()
    image[4:6, 4:6] = 255
    found = foreground(to_unit(image))
    assert found is not None
    assert found.cover[48, 48] == 1
    assert found.cover[:8, :8].max() < 0.5


def test_there_is_no_part_in_textures_empty_and_full_pictures() -> None:
    rng = np.random.default_rng(0)
    texture = np.clip(0.5 + 0.15 * fbm(rng, (96, 96), coarse=6), 0, 1)[..., None]
    stripes = np.repeat((0.5 + 0.4 * np.sin(np.arange(96) / 3))[None, :, None], 96, axis=0)
    empty = drawn("bolt", 0).image * 0 + rng.integers(28, 34, (96, 96, 3)).astype(np.uint8)
    full = np.full((96, 96, 3), 30, np.uint8)
    full[:, :88] = 200  # a part that reaches over three of the four borders
    speck = np.full((96, 96, 3), 30, np.uint8)
    speck[40:46, 40:46] = 200  # less than a hundredth of the picture
    pictures = {
        "texture": texture.astype(np.float32),
        "stripes": stripes.astype(np.float32),
        "noise": to_unit(empty),
        "one colour": np.full((96, 96, 3), 0.5, np.float32),
        "full": to_unit(full),
        "speck": to_unit(speck),
        "few pixels": to_unit(drawn("bolt", 0).image[:5]),
    }
    for name, picture in pictures.items():
        assert foreground(picture) is None, name


def test_the_size_of_the_picture_is_kept_and_looked_at_small() -> None:
    large = cv2.resize(drawn("bolt", 2).image, (500, 300), interpolation=cv2.INTER_CUBIC)
    found = foreground(to_unit(large))
    assert found is not None
    assert found.size == (300, 500)
    assert found.cover.shape == found.picture.shape[:2] == (77, 128)
