"""Poses: angles recovered, doubts told, pictures brought upright, and the choice whether to."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from drawn_parts import apart, drawn

from anodiff.data.field import fbm
from anodiff.data.foreground import Foreground, foreground
from anodiff.data.image import to_unit
from anodiff.data.pose import Pose, Upright, extents, placing, pose_of, warped
from anodiff.data.preparation import Preparation
from anodiff.data.survey import survey


def found_in(image: np.ndarray) -> Foreground:
    found = foreground(to_unit(image))
    assert found is not None
    return found


@pytest.mark.parametrize("light", [False, True])
@pytest.mark.parametrize("size", [64, 200])
def test_the_angle_is_recovered_within_three_degrees(size: int, light: bool) -> None:
    parts = [drawn("bolt", seed, size=size, light=light) for seed in range(40)]
    poses = [pose_of(found_in(part.image), "shape") for part in parts]
    errors = np.array([apart(pose.angle, part.turn) for pose, part in zip(poses, parts, strict=True)])
    assert np.mean(errors < 3) >= 0.95
    assert all(pose.doubt is None for pose in poses)


def test_pictures_that_are_not_square_have_square_pixels() -> None:
    part = drawn("bolt", 5, size=160, turn=35)
    wide = cv2.copyMakeBorder(part.image, 0, 0, 70, 70, cv2.BORDER_REPLICATE)
    pose = pose_of(found_in(wide), "shape")
    assert apart(pose.angle, 35) < 3
    assert pose.centre[0] == pytest.approx(pose_of(found_in(part.image), "shape").centre[0] + 70, abs=1.5)


def test_a_part_without_an_angle_says_so() -> None:
    disc = pose_of(found_in(drawn("washer", 0).image), "shape")
    assert "no main axis" in str(disc.doubt)
    rod = np.full((96, 96), 30, np.uint8)
    rod[20:76, 42:54] = 200
    pose = pose_of(found_in(rod), "shape")
    assert "two ends look alike" in str(pose.doubt)
    assert min(apart(pose.angle, 0), apart(pose.angle, 180)) < 0.5
    assert pose_of(found_in(rod), "none").angle == 0
    assert pose_of(found_in(rod), "none").centre == pytest.approx((48, 48), abs=0.05)


def test_ends_that_share_an_outline_are_told_apart_by_their_look() -> None:
    rod = np.full((96, 96), 30, np.uint8)
    rod[20:48, 42:54], rod[48:76, 42:54] = 250, 140  # the upper end stands out more
    assert apart(pose_of(found_in(rod), "look").angle, 0) < 0.5
    assert apart(pose_of(found_in(rod[::-1]), "look").angle, 180) < 0.5
    assert apart(pose_of(found_in(np.rot90(rod)), "look").angle, 270) < 0.5


def test_the_way_and_its_end() -> None:
    pose = Pose(angle=90, centre=(10.0, 20.0), elongation=2, asymmetry=1)
    matrix = placing(pose, scale=2, target=(50, 60))
    np.testing.assert_allclose(matrix @ [10, 20, 1], [50, 60])
    # what lies to the left of a part that is turned clockwise by 90 degrees is its lower end
    np.testing.assert_allclose(matrix @ [9, 20, 1], [50, 62], atol=1e-12)


def test_a_warp_that_turns_nothing_is_a_crop() -> None:
    image = to_unit(drawn("bolt", 0).image)
    matrix = np.array([[1.0, 0, -10], [0, 1.0, -20]])
    np.testing.assert_allclose(warped(image, matrix, (50, 60)), image[20:70, 10:70], atol=1e-6)


def test_upright_pictures_show_the_part_as_it_was_drawn_and_no_wedge() -> None:
    upright = Upright(canvas=(0.35, 0.35, 0.35, 0.4), turn="shape")
    ready = Preparation(shape=(96, 96), upright=upright)
    straight = ready.placed(drawn("bolt", 1, size=192, turn=0).image).image
    for turn in (40, 130, 222, 315):
        placed = ready.placed(drawn("bolt", 1, size=192, turn=turn).image)
        assert placed.matrix is not None
        # the light falls from the upper left whatever the angle, so the looks differ a little
        assert float((placed.image.mean(0) - straight.mean(0)).abs().mean()) < 0.05
        corners = placed.image[:, [0, 0, -1, -1], [0, -1, 0, -1]]
        assert float((corners - straight[:, :3, :3].mean()).abs().max()) < 0.08


def test_the_canvas_keeps_its_aspect_at_any_shape() -> None:
    upright = Upright(canvas=(0.3, 0.3, 0.3, 0.3), turn="none")
    placed = Preparation(shape=(64, 128), upright=upright).placed(drawn("nut", 0).image)
    assert placed.matrix is not None
    assert abs(float(np.linalg.det(placed.matrix[:, :2]))) == pytest.approx((64 / (0.6 * 96)) ** 2)
    assert placed.image.shape == (3, 64, 128)


def test_a_part_that_reaches_out_of_the_canvas_is_seen_whole() -> None:
    part = drawn("bolt", 0).image
    narrow = Preparation(shape=(64, 64), upright=Upright(canvas=(0.1, 0.1, 0.1, 0.1), turn="shape"))
    plain = Preparation(shape=(64, 64))
    placed = narrow.placed(part)
    assert placed.matrix is None
    assert (placed.image == plain(part)).all()


def test_a_second_part_is_not_cut_off() -> None:
    part = drawn("bolt", 0, turn=10).image
    found = survey(drawn("bolt", seed).image for seed in range(8)).upright
    assert found is not None
    ready = Preparation(shape=(64, 64), upright=found)
    assert ready.placed(part).matrix is not None
    assert ready.placed(np.concatenate([part, part], axis=1)).matrix is None


@pytest.mark.parametrize("channels", [1, 3])
def test_every_form_of_a_picture_is_placed_alike(channels: int) -> None:
    grey = cv2.cvtColor(drawn("bolt", 4, size=150).image, cv2.COLOR_RGB2GRAY)
    ready = Preparation(
        shape=(64, 48), channels=channels, upright=Upright(canvas=(0.35, 0.35, 0.35, 0.35), turn="shape")
    )
    first = ready.placed(grey)
    assert first.matrix is not None
    for form in (np.repeat(grey[..., None], 3, axis=2), grey.astype(np.uint16) * 257, grey / np.float32(255)):
        other = ready.placed(form)
        assert (other.matrix == first.matrix).all()
        np.testing.assert_allclose(other.image.numpy(), first.image.numpy(), atol=1e-6)


def test_what_lies_alike_is_kept_and_what_does_not_is_turned() -> None:
    anyhow = survey(drawn("bolt", seed).image for seed in range(16))
    assert anyhow.helps
    assert anyhow.upright is not None
    assert anyhow.upright.turn == "shape"
    assert "16 of 16" in anyhow.sentence
    placed = survey(drawn("bolt", seed, turn=20).image for seed in range(16))
    assert not placed.helps
    discs = survey(drawn("washer", seed).image for seed in range(16))
    assert discs.helps
    assert discs.upright is not None
    assert discs.upright.turn == "none"
    rng = np.random.default_rng(0)
    texture = [np.clip(0.5 + 0.15 * fbm(rng, (96, 96), coarse=6), 0, 1) for _ in range(8)]
    textures = survey(texture)
    assert not textures.helps
    assert textures.upright is None
    assert "0 of 8" in textures.sentence


def test_a_few_pictures_without_a_part_stop_the_choice() -> None:
    pictures = [drawn("bolt", seed).image for seed in range(16)]
    empty = [np.full((96, 96, 3), 30, np.uint8)] * 2
    found = survey([*pictures, *empty])
    assert (found.looked_at, found.clear) == (18, 16)
    assert not found.helps
    assert found.upright is not None  # for who asks for it outright


def test_the_canvas_holds_the_parts_and_is_never_a_sliver() -> None:
    def needle(turn: float) -> np.ndarray:
        image = np.full((128, 128), 30, np.uint8)
        axis = 50 * np.array([-np.sin(np.radians(turn)), np.cos(np.radians(turn))])
        ends = [tuple(np.round(64 + side * axis).astype(int).tolist()) for side in (-1, 1)]
        cv2.line(image, ends[0], ends[1], 220, 4)
        return cv2.circle(image, ends[0], 6, 220, -1)

    pictures = [needle(turn) for turn in np.linspace(0, 350, 12)]
    upright = survey(pictures).upright
    assert upright is not None
    assert upright.turn == "shape"
    height, width = upright.size
    assert height / width == pytest.approx(3, abs=0.01)
    for picture in pictures:
        found = found_in(picture)
        reach = extents(found, pose_of(found, upright.turn))
        assert all(side < limit for side, limit in zip(reach, upright.canvas, strict=True))
    square = survey(pictures, square=True).upright
    assert square is not None
    assert square.size[0] == pytest.approx(square.size[1], abs=1e-3)
