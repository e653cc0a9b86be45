from __future__ import annotations

import pytest
import torch
from torch import Tensor

from anodiff.detect.calibrate import GlobalCalibration, NoCalibration, PositionCalibration
from anodiff.detect.heatmap import Smooth, array_to_size, to_size
from anodiff.detect.pool import Maximum, TopShare
from anodiff.errors import ConfigError, DataError


def smooth_field(size: int, low: float, high: float) -> Tensor:
    ramp = torch.linspace(0, 1, size)
    return low + (high - low) * (ramp[:, None] * ramp[None, :])


def position_maps(count: int, seed: int, size: int = 24) -> Tensor:
    """Maps [count, 1, size, size] whose mean and deviation differ from place to place."""
    generator = torch.Generator().manual_seed(seed)
    white = torch.randn(count, 1, size, size, generator=generator)
    return smooth_field(size, 0, 10) + smooth_field(size, 0.5, 3).flip(0) * white


@pytest.mark.parametrize(("reach", "low", "high"), [(0.0, 0.93, 1.07), (1.0, 0.8, 1.0)])
def test_position_calibration_makes_fresh_normals_alike_at_every_place(
    reach: float, low: float, high: float
) -> None:
    calibration = PositionCalibration(reach=reach)  # a reach counts the slope of the mean as spread
    calibration.learn(position_maps(60, seed=0).split(7))
    fresh = calibration(position_maps(400, seed=1))
    assert fresh.mean(0).abs().mean() < 0.12
    assert low < fresh.std(0).mean() < high
    assert fresh.std(0).max() < 1.5

    everywhere = GlobalCalibration()
    everywhere.learn([position_maps(60, seed=0)])
    assert everywhere(position_maps(400, seed=1)).mean(0).std() > 0.5  # what one law for all places leaves


@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_few_normals_do_not_light_up_fresh_ones(count: int) -> None:
    calibration = PositionCalibration()
    calibration.learn([position_maps(count, seed=0)])
    fresh = calibration(position_maps(300, seed=1))
    assert fresh.std() < 1.4  # unshrunk deviations of two pictures would give dozens
    assert fresh.abs().max() < 12


def test_one_normal_gives_the_global_calibration() -> None:
    maps = position_maps(1, seed=0)
    position, everywhere = PositionCalibration(), GlobalCalibration()
    position.learn([maps])
    everywhere.learn([maps])
    fresh = position_maps(3, seed=1)
    torch.testing.assert_close(position(fresh), everywhere(fresh), rtol=1e-4, atol=1e-4)


def test_streaming_equals_all_at_once() -> None:
    maps = position_maps(23, seed=0) + 1e4  # an offset that would eat float32's digits
    for kind in (GlobalCalibration, PositionCalibration):
        once, stream = kind(), kind()
        once.learn([maps])
        stream.learn(maps.split(4))
        torch.testing.assert_close(once.state_dict(), stream.state_dict())
    deviation = once.get_buffer("deviation")
    assert deviation.min() > 0.4


def test_a_row_does_not_know_its_neighbours() -> None:
    calibration = PositionCalibration()
    calibration.learn([position_maps(20, seed=0)])
    maps = position_maps(4, seed=1)
    hot = maps.clone()
    hot[3] += 1e6  # a maximum over the batch would dim the others
    for act in (calibration, lambda m: Smooth(1.5)(m), Maximum(), TopShare(0.1)):
        assert torch.equal(act(maps)[:3], act(hot)[:3])
        torch.testing.assert_close(act(maps)[1:2], act(maps[1:2]))


def test_scaling_a_map_scales_its_calibrated_contrast() -> None:
    # A min-max per picture would give the same map again.
    calibration = GlobalCalibration()
    calibration.learn([position_maps(20, seed=0)])
    maps = position_maps(1, seed=1)
    assert calibration(3 * maps).std() == pytest.approx(3 * float(calibration(maps).std()), rel=1e-4)


def test_constant_maps_stay_finite() -> None:
    for kind in (GlobalCalibration, PositionCalibration):
        calibration = kind()
        calibration.learn([torch.full((5, 1, 4, 4), 0.3)])
        assert torch.isfinite(calibration(torch.rand(1, 1, 4, 4))).all()


def test_refusals() -> None:
    position = PositionCalibration()
    with pytest.raises(ConfigError, match="learnt nothing"):
        position(torch.zeros(1, 1, 4, 4))
    with pytest.raises(DataError, match="none"):
        position.learn([])
    with pytest.raises(DataError, match="one size"):
        position.learn([torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 5, 4)])
    with pytest.raises(DataError, match="learning_rate"):
        GlobalCalibration().learn([torch.full((1, 1, 4, 4), torch.nan)])
    position.learn([torch.rand(3, 1, 4, 4)])
    with pytest.raises(ConfigError, match=r"\(4, 4\)"):
        position(torch.zeros(1, 1, 4, 5))
    with pytest.raises(ConfigError, match="share"):
        TopShare(0)(torch.zeros(1, 1, 4, 4))


def test_state_loads_into_a_fresh_one() -> None:
    learnt, fresh = PositionCalibration(), PositionCalibration()
    learnt.learn([position_maps(9, seed=0)])
    fresh.load_state_dict(learnt.state_dict())
    maps = position_maps(2, seed=1)
    assert torch.equal(learnt(maps), fresh(maps))


def test_no_calibration_is_the_identity() -> None:
    maps = position_maps(2, seed=0)
    calibration = NoCalibration()
    calibration.learn([maps])
    assert calibration(maps) is maps


def test_pools() -> None:
    maps = torch.arange(100.0).reshape(1, 1, 10, 10)
    assert Maximum()(maps).item() == 99
    assert TopShare(0.1)(maps).item() == pytest.approx(94.5)
    assert TopShare(1)(maps).item() == pytest.approx(49.5)
    assert TopShare(1e-9)(maps).item() == 99


@pytest.mark.parametrize("shape", [(17, 31), (64, 64), (5, 7), (16, 16), (3, 200)])
def test_a_map_never_rises_above_its_maximum_at_another_size(shape: tuple[int, int]) -> None:
    maps = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    sized = to_size(maps, shape)
    assert sized.shape == (3, 1, *shape)
    assert sized.max() <= maps.max() * (1 + 1e-6)
    assert sized.min() >= maps.min() * (1 - 1e-6)
    torch.testing.assert_close(torch.from_numpy(array_to_size(maps[1, 0].numpy(), shape)), sized[1, 0])


def test_smoothing_keeps_the_mean_and_works_on_tiny_maps() -> None:
    maps = torch.rand(2, 1, 32, 32)
    assert Smooth(2.0)(maps).std() < maps.std() / 2
    assert Smooth(0.0)(maps) is maps
    assert Smooth(4.0)(torch.rand(1, 1, 3, 3)).shape == (1, 1, 3, 3)
