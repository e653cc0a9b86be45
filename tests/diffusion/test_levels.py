"""Grids: where they start, what they visit, and what they refuse."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from anodiff.diffusion.levels import Levels, column, karras, spaced
from anodiff.diffusion.schedule import table
from anodiff.errors import ConfigError, RefusalError

TABLE = table("linear")
DISCRETE = Levels(low=float(TABLE[0]), high=float(TABLE[-1]), table=TABLE)
CONTINUOUS = Levels(low=0.002, high=80.0)
ON_TABLE = ("trailing", "linspace", "quadratic", "leading")


@settings(max_examples=150, deadline=None)
@given(
    steps=st.integers(1, 1000),
    spacing=st.sampled_from([*ON_TABLE, "karras"]),
    share=st.floats(0, 1),
    continuous=st.booleans(),
)
def test_a_grid_descends_to_exactly_zero_and_starts_on_a_level(steps, spacing, share, continuous):
    """Trap 2: the level a picture is noised to is the first level denoised from."""
    levels = CONTINUOUS if continuous else DISCRETE
    start = math.exp((1 - share) * math.log(levels.low) + share * math.log(levels.high))
    start = min(max(start, levels.low), levels.high)
    try:
        grid = spaced(levels, steps, start=start, spacing=spacing)
    except ConfigError as error:
        assert "only" in str(error)  # noqa: PT017
        return
    assert grid.dtype == torch.float64
    assert len(grid) == steps + 1
    assert grid[-1] == 0
    assert (grid.diff() < 0).all()
    if not continuous and spacing != "karras":
        assert torch.isin(grid[:-1], TABLE).all()
    if spacing != "leading":
        nearest = start if continuous else float(TABLE[(TABLE / start).log().abs().argmin()])
        assert float(grid[0]) == pytest.approx(nearest, rel=1e-12)
    assert float(grid[0]) <= levels.high
    levels.check(grid[:-1])


@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace"])
@pytest.mark.parametrize("steps", [10, 50, 250])
def test_indices_equal_diffusers(spacing, steps):
    scheduler = DDIMScheduler(1000, timestep_spacing=spacing)
    scheduler.set_timesteps(steps)
    assert torch.equal(spaced(DISCRETE, steps, spacing=spacing)[:-1], TABLE[scheduler.timesteps])


@pytest.mark.parametrize("steps", [1, 7, 50, 333, 1000])
def test_leading_never_visits_the_top(steps):
    """Trap 3. The other spacings do."""
    for spacing in ("trailing", "linspace", "quadratic"):
        assert spaced(DISCRETE, steps, spacing=spacing)[0] == TABLE[-1]
    leading = spaced(DISCRETE, steps, spacing="leading")
    assert leading[-2] == TABLE[0]
    assert (leading[0] == TABLE[-1]) == (steps == 1000)


def test_partial_noise_at_250_starts_at_250():
    """Trap 2 with its published numbers: 25 steps from t = 250 begin at t = 250, not at 225."""
    grid = spaced(DISCRETE, 25, start=float(TABLE[250]))
    assert grid[0] == TABLE[250]
    off_grid = float((TABLE[250] * TABLE[251]).sqrt()) * 1.0001
    assert spaced(DISCRETE, 25, start=off_grid)[0] == TABLE[251]


def test_all_visits_every_level():
    assert torch.equal(spaced(DISCRETE, None, spacing="all")[:-1], TABLE.flip(0))
    assert len(spaced(DISCRETE, 100, start=float(TABLE[99]), spacing="all")) == 101
    with pytest.raises(ConfigError, match="visits 1000 levels"):
        spaced(DISCRETE, 50, spacing="all")


def test_quadratic_is_dense_where_noise_is_low():
    indices = DISCRETE.index(spaced(DISCRETE, 20, spacing="quadratic")[:-1])
    gaps = -indices.diff()
    assert (gaps.diff() <= 0).all()
    assert gaps[0] > 5 * gaps[-1]


def test_karras_grid():
    grid = karras(0.002, 80, 18)
    assert grid[0] == 80
    assert grid[-1] == 0.002
    assert (grid ** (1 / 7)).diff().std() < 1e-12
    assert karras(0.5, 2, 1).tolist() == [2]
    uniform = karras(1, 3, 3, rho=1)
    assert uniform.tolist() == pytest.approx([3, 2, 1])
    for bad in ((0, 1, 5), (2, 1, 5), (1, 1, 2), (1, 2, 0)):
        with pytest.raises(ConfigError, match="Karras"):
            karras(*bad)


def test_continuous_levels_keep_their_start_exactly():
    for spacing in ("trailing", "karras"):
        assert float(spaced(CONTINUOUS, 10, start=0.7, spacing=spacing)[0]) == 0.7


def test_a_denoiser_that_draws_refuses_levels_off_its_table():
    with pytest.raises(RefusalError, match="draws x0"):
        spaced(replace(DISCRETE, draws=True), 4, spacing="karras")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 1001}, "only 1000 noise levels"),
        ({"steps": 30, "start": float(TABLE[9])}, "only 10 noise levels"),
        ({"steps": 0}, "steps >= 1"),
        ({"steps": None}, "steps >= 1"),
        ({"steps": 5, "start": 500.0}, "outside the trained noise levels"),
        ({"steps": 5, "start": math.nan}, "outside the trained noise levels"),
        ({"steps": 5, "spacing": "cosine"}, "unknown spacing"),
    ],
)
def test_errors_say_what_to_do(arguments, message):
    with pytest.raises(ConfigError, match=message):
        spaced(DISCRETE, **arguments)


def test_index_is_the_nearest_by_ratio_and_stays_inside():
    t = torch.tensor([0, 1, 500, 999])
    assert torch.equal(DISCRETE.index(TABLE[t]), t)
    assert torch.equal(DISCRETE.index(TABLE[t].float()), t)
    assert DISCRETE.index(TABLE[500:501] * 1.0005)[0] == 500
    for outside in (0.0, float(TABLE[0]) * 0.9, float(TABLE[-1]) * 1.1, math.nan):
        with pytest.raises(RefusalError, match="noise levels from"):
            DISCRETE.index(torch.tensor([1.0, outside]))
    with pytest.raises(RefusalError, match="continuous"):
        CONTINUOUS.index(torch.tensor(1.0))


def test_column():
    like = torch.zeros(2, 3, 4, 5)
    assert column(torch.ones(2, dtype=torch.float64), like).shape == (2, 1, 1, 1)
    assert column(torch.ones(2, dtype=torch.float64), like).dtype == torch.float32
    assert column(torch.tensor(1.0, dtype=torch.float64), like).ndim == 0
