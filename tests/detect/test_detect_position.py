"""The law of residuals by position."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.covariance import OAS

from anodiff.detect.residual import ResidualCovariance, ResidualPosition, oracle_share, rows
from anodiff.errors import ConfigError, DataError

CHANNELS, SIZE = 4, (6, 5)


def placed(count: int, seed: int, *, apart: float = 3.0) -> torch.Tensor:
    """[count, 4, 6, 5]: correlated channels around a mean of each position's own, `apart` times as wide."""
    mean = apart * torch.randn(1, CHANNELS, *SIZE, generator=torch.Generator().manual_seed(99))
    mix = torch.tensor([[1.0, 0, 0, 0], [0.9, 0.4, 0, 0], [0, 0, 0.5, 0], [0, 0.5, 0, 2.0]])
    white = torch.randn(count, CHANNELS, *SIZE, generator=torch.Generator().manual_seed(seed))
    return torch.einsum("ij,bjhw->bihw", mix, white) + mean


def test_it_is_the_distance_within_positions() -> None:
    """With many pictures: the position's own mean, and the covariance pooled over positions."""
    data, fresh = placed(300, 0, apart=30.0).double(), placed(5, 1, apart=30.0).double()
    law = ResidualPosition(shrinkage=0.0, floor=0.0)
    law.learn(data.float().split(64))
    mean = data.mean(0)
    within = np.cov(rows(data - mean).numpy().T, bias=True)
    away = rows(fresh - mean).numpy()
    expected = np.einsum("ni,ij,nj->n", away, np.linalg.inv(within), away) / CHANNELS
    np.testing.assert_allclose(law(fresh.float()).movedim(1, -1).flatten().numpy(), expected, rtol=5e-3)


def test_normals_are_about_one_and_a_part_out_of_place_is_seen() -> None:
    by_position, by_all = ResidualPosition(), ResidualCovariance()
    for law in (by_position, by_all):
        law.learn(placed(60, 0).split(8))
    fresh = placed(60, 1)
    assert by_position(fresh).mean() == pytest.approx(1, abs=0.1)
    moved = fresh.roll(2, dims=-1)  # what is usual elsewhere
    assert by_position(moved).mean() > 5
    assert by_all(moved).mean() < 1.2


def test_where_position_says_nothing_it_is_the_plain_law() -> None:
    data, fresh = placed(40, 0, apart=0.0), placed(10, 1, apart=0.0)
    by_position, by_all = ResidualPosition(shrinkage=0.0), ResidualCovariance(shrinkage=0.0)
    for law in (by_position, by_all):
        law.learn([data])
    assert by_position.trust.max() < 0.5
    assert torch.corrcoef(torch.stack([by_position(fresh).flatten(), by_all(fresh).flatten()]))[0, 1] > 0.98


def test_a_picture_left_out_is_one_that_never_taught_a_mean() -> None:
    """Against teaching again without it; the covariance is that of all."""
    data = placed(12, 0)
    law = ResidualPosition(shrinkage=0.0, floor=0.0)
    law.learn([data])
    found = law.left_out(data)
    full = law.trust  # trust is nearly 1 here, so the mean of the others is what counts
    assert full.min() > 0.9
    for i in (0, 7):
        others = data[[k for k in range(12) if k != i]]
        away = data[i] - (
            law.centre[:, None, None] + full[:, None, None] * (others.mean(0) - law.centre[:, None, None])
        )
        expected = (law.whiten @ away.flatten(1)).square().mean(0).view(SIZE)
        torch.testing.assert_close(found[i, 0], expected, rtol=1e-4, atol=1e-4)
    assert found.mean() > law(data).mean()
    fresh = law(placed(200, 5)).mean()
    assert abs(found.mean() - fresh) < abs(law(data).mean() - fresh)


def test_one_picture_tells_no_position_from_another() -> None:
    law = ResidualPosition()
    law.learn([placed(1, 0)])
    assert not law.trust.any()
    assert torch.isfinite(law(placed(2, 1))).all()
    assert torch.isfinite(law.left_out(placed(1, 0))).all()


@pytest.mark.parametrize("count", [6, 40, 4000])
def test_the_share_of_the_identity_is_that_of_scikit_learn(count: int) -> None:
    mix = torch.randn(12, 12, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    flat = (
        torch.randn(count, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64) @ mix
    ).numpy()
    found = oracle_share(torch.from_numpy(np.cov(flat.T, bias=True)), count)
    assert found == pytest.approx(OAS().fit(flat).shrinkage_, rel=0.15)


def test_codes_that_are_white_over_all_keep_what_varies_within_positions() -> None:
    """The covariance over all positions is the identity; what is left within them is not, and is not made so."""
    data = placed(80, 0)
    flat = rows(data)
    values, vectors = torch.linalg.eigh(torch.cov(flat.T))
    white = torch.einsum(
        "ij,bjhw->bihw", (vectors * values.rsqrt()) @ vectors.T, data.double() - flat.mean(0)[:, None, None]
    ).float()
    law = ResidualPosition()
    law.learn([white])
    scales = torch.linalg.svdvals(law.whiten)
    assert scales.max() / scales.min() > 2


def test_refusals_and_state() -> None:
    law = ResidualPosition()
    with pytest.raises(ConfigError, match="learnt nothing"):
        law(placed(1, 0))
    with pytest.raises(DataError, match="none"):
        law.learn([])
    with pytest.raises(DataError, match="finite"):
        law.learn([torch.full((1, 4, 2, 2), torch.inf)])
    with pytest.raises(DataError, match=r"one size.*\(6, 5\).*\(3, 5\)"):
        law.learn([placed(2, 0), placed(2, 0)[:, :, :3]])
    law.learn([placed(9, 0)])
    with pytest.raises(ConfigError, match="working size"):
        law(placed(1, 0)[:, :, :3])
    fresh = ResidualPosition()
    fresh.load_state_dict(law.state_dict())
    assert torch.equal(fresh(placed(2, 1)), law(placed(2, 1)))
