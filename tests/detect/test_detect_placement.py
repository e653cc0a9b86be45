"""Maps and painted pictures go back to where the part lies."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from anodiff.detect.placement import Placement
from anodiff.detect.result import Result


def turned(degrees: float, *, scale: float, centre: tuple[float, float], seen: tuple[int, int]) -> np.ndarray:
    """The map that turns a picture about `centre`, which goes to the middle of what is seen."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    linear = scale * np.array([[cos, -sin], [sin, cos]])
    shift = np.array([seen[1] / 2, seen[0] / 2]) - linear @ np.array(centre)
    return np.concatenate([linear, shift[:, None]], axis=1)


@pytest.mark.parametrize("cells", [(16, 8), (64, 32), (256, 128)])
@pytest.mark.parametrize("degrees", [0, 37, 90, 200])
def test_a_peak_comes_back_to_where_it_was(cells: tuple[int, int], degrees: float) -> None:
    seen, size = (64, 32), (90, 120)
    matrix = turned(degrees, scale=0.8, centre=(70, 40), seen=seen)
    placement = Placement.of(matrix, seen)
    assert placement is not None
    y, x = np.mgrid[: cells[0], : cells[1]] + 0.5
    there = matrix @ [75, 52, 1]  # of pixels seen
    at = there[0] * cells[1] / seen[1], there[1] * cells[0] / seen[0]
    width = cells[0] / 16
    heat = (np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (2 * width**2)) - 3).astype(np.float32)
    back = placement.heat(heat, size, size)
    assert back.shape == size
    assert back.dtype == np.float32
    weight = np.clip(back - (-3 + 0.2), 0, None)
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    middle = (weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum()
    assert middle == pytest.approx((75, 52), abs=0.8)
    assert back.max() <= heat.max()
    assert back[0, 0] == heat.min()  # not seen


def test_a_map_can_be_drawn_at_the_size_of_a_mask() -> None:
    placement = Placement.of(turned(30, scale=0.5, centre=(60, 60), seen=(48, 48)), (48, 48))
    assert placement is not None
    heat = np.random.default_rng(0).normal(size=(24, 24)).astype(np.float32)
    result = Result(1.0, 0.1, 2.0, mask_threshold=0.0, shape=(120, 100), heat=heat, placement=placement)
    assert result.heatmap.shape == result.mask.shape == (120, 100)
    assert result.regions
    twice = result.heat_at((240, 200))
    halved = twice.reshape(120, 2, 100, 2).mean((1, 3))
    inside = cv2.erode((result.heatmap > heat.min()).astype(np.uint8), np.ones((5, 5))) > 0
    assert np.abs(halved - result.heatmap)[inside].mean() < 0.05
    assert np.corrcoef(halved[inside], result.heatmap[inside])[0, 1] > 0.99


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("own", [None, "grey", "colour"])
def test_what_was_painted_lies_in_the_picture(channels: int, own: str | None) -> None:
    placement = Placement.of(turned(45, scale=0.8, centre=(50, 40), seen=(32, 32)), (32, 32))
    picture = {
        None: None,
        "grey": np.full((80, 100), 9, np.uint8),
        "colour": np.full((80, 100, 3), 9, np.uint8),
    }[own]
    painted = np.full((32, 32, channels), 0.8, np.float32)
    heat = np.zeros((8, 8), np.float32)
    result = Result(
        1.0, 0.1, 2.0, shape=(80, 100), heat=heat, painted=painted, image=picture, placement=placement
    )
    restored = result.restored
    assert restored is not None
    assert restored.dtype == np.uint8
    assert restored.shape == ((80, 100) if channels == 1 else (80, 100, 3))
    assert (restored[40, 50] == 204).all()
    assert (restored[0, 0] == (204 if own is None else 9)).all()


def test_results_compare_by_placement_too() -> None:
    one, other = (
        Placement.of(turned(angle, scale=1, centre=(0, 0), seen=(8, 8)), (8, 8)) for angle in (0, 1)
    )
    made = [Result(1.0, 0.1, 2.0, placement=placement) for placement in (one, one, other, None)]
    assert made[0] == made[1]
    assert made[0] != made[2]
    assert made[0] != made[3]
    assert Placement.of(None, (8, 8)) is None
