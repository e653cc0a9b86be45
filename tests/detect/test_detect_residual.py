from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf

from anodiff.detect.residual import ResidualCovariance, ResidualSquares, ResidualVariance, Scatter, rows
from anodiff.errors import ConfigError, DataError


def residuals(count: int, seed: int, offset: float = 0.0) -> torch.Tensor:
    """[count, 4, 6, 5] with strongly correlated channels."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.tensor([[1.0, 0, 0, 0], [0.95, 0.3, 0, 0], [0, 0, 0.1, 0], [0, 0.5, 0, 2.0]])
    white = torch.randn(count, 4, 6, 5, generator=generator)
    return torch.einsum("ij,bjhw->bihw", mix, white) + offset


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_streaming_moments_equal_numpy_and_ledoit_wolf_equals_scikit_learn(offset: float) -> None:
    data = residuals(7, 0, offset).double()
    scatter = Scatter()
    for block in data.split(2):
        scatter.add(rows(block))
    flat = rows(data).numpy()
    np.testing.assert_allclose(scatter.mean.numpy(), flat.mean(0), rtol=1e-12)
    np.testing.assert_allclose(scatter.covariance.numpy(), np.cov(flat.T, bias=True), atol=1e-8)
    assert scatter.ledoit_wolf() == pytest.approx(LedoitWolf().fit(flat).shrinkage_, rel=1e-6)


def test_few_rows_in_many_channels_shrink_as_scikit_learn_does() -> None:
    flat = torch.randn(6, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scatter = Scatter()
    scatter.add(flat)
    reference = LedoitWolf().fit(flat.numpy()).shrinkage_
    assert reference > 0.3
    assert scatter.ledoit_wolf() == pytest.approx(reference, rel=1e-9)


def test_map_is_the_mahalanobis_distance_per_channel() -> None:
    weigh = ResidualCovariance(shrinkage=0.0, floor=0.0)
    data = residuals(50, 0, 3.0)
    weigh.learn(data.split(8))
    fresh = residuals(2, 1, 3.0)
    flat = rows(data).numpy()
    precision = np.linalg.inv(np.cov(flat.T, bias=True))
    centred = rows(fresh).numpy() - flat.mean(0)
    expected = np.einsum("ni,ij,nj->n", centred, precision, centred) / 4
    np.testing.assert_allclose(weigh(fresh).movedim(1, -1).flatten().numpy(), expected, rtol=1e-3)


@pytest.mark.parametrize("weigh", [ResidualCovariance(shrinkage=0.0), ResidualVariance()])
def test_normals_are_about_one(weigh: ResidualCovariance | ResidualVariance) -> None:
    weigh.learn(residuals(60, 0, 2.0).split(8))
    assert weigh(residuals(60, 1, 2.0)).mean() == pytest.approx(1, abs=0.05)


def test_only_the_covariance_sees_channels_that_part_company() -> None:
    odd = torch.zeros(1, 4, 6, 5)
    odd[:, 0, 3, 2], odd[:, 1, 3, 2] = 1.0, -1.0  # each within its own spread, never so together
    height = {}
    for weigh in (ResidualCovariance(), ResidualVariance(), ResidualSquares()):
        weigh.learn([residuals(60, 0)])
        height[type(weigh)] = float(weigh(odd)[0, 0, 3, 2])
    assert height[ResidualCovariance] > 9
    assert height[ResidualVariance] < 1
    assert height[ResidualSquares] == pytest.approx(0.5)


def test_the_floor_holds_dead_channels_up() -> None:
    data = residuals(20, 0)
    data[:, 2] = 0
    for weigh in (ResidualCovariance(floor=1e-2), ResidualVariance(floor=1e-2)):
        weigh.learn([data])
        speck = torch.zeros(1, 4, 6, 5)
        speck[:, 2] = 0.1
        assert weigh(speck).max() < 2


def test_one_picture_is_enough_to_go_on() -> None:
    weigh = ResidualCovariance()
    weigh.learn([torch.randn(1, 40, 2, 2)])
    assert torch.isfinite(weigh(torch.randn(1, 40, 2, 2))).all()


def test_refusals_and_state() -> None:
    weigh = ResidualCovariance()
    with pytest.raises(ConfigError, match="learnt nothing"):
        weigh(torch.zeros(1, 4, 2, 2))
    with pytest.raises(DataError, match="none"):
        weigh.learn([])
    with pytest.raises(DataError, match="finite"):
        weigh.learn([torch.full((1, 4, 2, 2), torch.inf)])
    weigh.learn([residuals(9, 0)])
    fresh = ResidualCovariance()
    fresh.load_state_dict(weigh.state_dict())
    assert torch.equal(fresh(residuals(1, 1)), weigh(residuals(1, 1)))
