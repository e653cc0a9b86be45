"""Noise: unit variance, smoothness, and rows that depend on nothing but their own seed."""

from __future__ import annotations

import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anodiff.errors import ConfigError
from anodiff.noise import PerImageNoise, content_seed, from_generator, gaussian, pyramid, simplex

DRAWS = {"gaussian": gaussian, "simplex": simplex(), "pyramid": pyramid()}


@pytest.fixture(params=DRAWS)
def draw(request):
    return DRAWS[request.param]


def test_variance_is_one_at_every_pixel(draw):
    """The law over draws, not a per-map normalisation: 4000 maps, standard error of a variance 2-3 %."""
    generator = torch.Generator().manual_seed(1)
    maps = torch.cat([draw(generator, (10, 9, 7)) for _ in range(400)])
    variance = maps.var(0)
    assert abs(variance.mean() - 1) < 0.05
    assert variance.min() > 0.85
    assert variance.max() < 1.15
    assert maps.mean(0).abs().max() < 0.12


@pytest.mark.parametrize("octaves", [1, 3])
def test_simplex_variance_does_not_hang_on_octaves(octaves):
    draw = simplex(octaves, frequency=0.3)
    value = draw(torch.Generator().manual_seed(2), (40, 64, 64)).var()
    assert abs(value - 1) < 0.03


def test_simplex_is_smooth_and_follows_its_frequency():
    """Neighbours of one octave agree; the mean square slope grows with the square of the frequency."""
    slopes = []
    for frequency in (1 / 64, 1 / 32):
        maps = simplex(1, frequency=frequency)(torch.Generator().manual_seed(3), (64, 128, 128))
        slopes.append(maps.diff(dim=-1).square().mean().sqrt())
        assert maps.diff(dim=-1).abs().max() < 16 * frequency
    assert 1.8 < slopes[1] / slopes[0] < 2.2


def test_simplex_has_no_seams():
    """Across the edges of the triangles the curvature stays small: a wrong corner would leave a jump."""
    maps = simplex(1, frequency=1 / 50)(torch.Generator().manual_seed(4), (4, 200, 200))
    assert maps.diff(n=2, dim=-1).abs().max() < 0.05
    assert maps.diff(n=2, dim=-2).abs().max() < 0.05


def test_simplex_is_isotropic():
    maps = simplex(1, frequency=1 / 16)(torch.Generator().manual_seed(5), (64, 96, 96))
    across, down = maps.diff(dim=-1).var(), maps.diff(dim=-2).var()
    diagonal = (
        (maps[..., 1:, 1:] - maps[..., :-1, :-1]).var(),
        (maps[..., 1:, :-1] - maps[..., :-1, 1:]).var(),
    )
    assert abs(across / down - 1) < 0.05
    assert abs(diagonal[0] / diagonal[1] - 1) < 0.05


def test_maps_of_one_draw_differ(draw):
    maps = draw(torch.Generator().manual_seed(6), (2, 3, 64, 64)).flatten(0, 1).flatten(1)
    correlation = torch.corrcoef(maps) - torch.eye(6)
    assert correlation.abs().max() < 0.75  # coarse octaves leave few degrees of freedom in 64 pixels
    assert correlation.mean().abs() < 0.2


def test_pyramid_with_one_scale_is_white():
    one = pyramid(1)(torch.Generator().manual_seed(7), (2, 5, 6))
    assert torch.allclose(one, gaussian(torch.Generator().manual_seed(7), (2, 5, 6)))


@settings(max_examples=25, deadline=None)
@given(seeds=st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=6), data=st.data())
def test_a_row_depends_on_its_seed_alone(seeds, data):
    order = data.draw(st.permutations(range(len(seeds))))
    full, mixed = PerImageNoise(seeds), PerImageNoise([seeds[i] for i in order])
    for _ in range(2):
        rows = full(torch.zeros(len(seeds), 2, 3, 5))
        assert torch.equal(rows[list(order)], mixed(torch.zeros(len(seeds), 2, 3, 5)))
    alone = PerImageNoise([seeds[0]])
    alone(torch.zeros(1, 2, 3, 5))
    assert torch.equal(alone(torch.zeros(1, 2, 3, 5))[0], rows[0])


def test_rows_alone_and_in_a_batch_agree_for_every_draw(draw):
    full = PerImageNoise([5, 6, 7], draw=draw)(torch.zeros(3, 2, 16, 12))
    for i, seed in enumerate((5, 6, 7)):
        assert torch.equal(full[i], PerImageNoise([seed], draw=draw)(torch.zeros(1, 2, 16, 12))[0])


def test_successive_calls_are_fresh_and_repeatable(draw):
    like = torch.zeros(2, 1, 32, 32)
    first, second = PerImageNoise([1, 2], draw=draw), PerImageNoise([1, 2], draw=draw)
    a, b = first(like), first(like)
    assert not torch.equal(a, b)
    assert torch.equal(a, second(like))
    assert torch.equal(b, second(like))
    # neighbouring seeds and calls share nothing: seed 2 at call 0 is not seed 1 at call 1
    assert not torch.equal(a[1], b[0])


def test_dtype_follows_like_and_numbers_do_not():
    wide = PerImageNoise([3])(torch.zeros(1, 1, 4, 4, dtype=torch.float64))
    assert wide.dtype == torch.float64
    assert torch.equal(wide.float(), PerImageNoise([3])(torch.zeros(1, 1, 4, 4)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_numbers_do_not_depend_on_the_device(draw):
    here = PerImageNoise([3, 4], draw=draw)(torch.zeros(2, 1, 8, 8))
    there = PerImageNoise([3, 4], draw=draw)(torch.zeros(2, 1, 8, 8, device="cuda"))
    assert torch.equal(here, there.cpu())


def test_seed_count_must_match():
    with pytest.raises(ConfigError, match="2 seeds but was asked for a batch of 3"):
        PerImageNoise([1, 2])(torch.zeros(3, 1, 4, 4))


def test_from_generator_continues():
    source = from_generator(torch.Generator().manual_seed(1))
    like = torch.zeros(2, 1, 4, 4)
    a, b = source(like), source(like)
    assert not torch.equal(a, b)
    assert torch.equal(a, from_generator(torch.Generator().manual_seed(1))(like))


@pytest.mark.parametrize("bad", [{"octaves": 0}, {"persistence": 0}, {"frequency": -1}])
def test_simplex_refuses_nonsense(bad):
    with pytest.raises(ConfigError, match="simplex"):
        simplex(**bad)


def test_pyramid_refuses_nonsense():
    with pytest.raises(ConfigError, match="pyramid"):
        pyramid(0)


def test_content_seed_follows_content_and_seed():
    image = torch.rand(3, 8, 9, generator=torch.Generator().manual_seed(0))
    seed = content_seed(image, 0)
    assert seed == content_seed(image.clone(), 0)
    assert 0 <= seed < 2**63
    assert seed != content_seed(image, 1)
    changed = image.clone()
    changed[1, 2, 3] += 0.02
    assert seed != content_seed(changed, 0)
    assert seed != content_seed(image.mT, 0)
    assert content_seed(torch.zeros(1, 4, 2), 0) != content_seed(torch.zeros(1, 2, 4), 0)


def test_content_seed_ignores_bit_depth_memory_and_dtype():
    levels = torch.randint(0, 256, (3, 6, 5), generator=torch.Generator().manual_seed(0))
    eight, sixteen = levels.float() / 255, (levels * 257).float() / 65535
    strided = (levels.permute(1, 2, 0).contiguous().float() / 255).permute(2, 0, 1)
    assert content_seed(eight, 7) == content_seed(sixteen, 7) == content_seed(strided, 7)
    assert content_seed(eight, 7) == content_seed(eight.double(), 7)


def test_content_seed_takes_one_picture():
    with pytest.raises(ConfigError, match="one picture"):
        content_seed(torch.zeros(2, 3, 4, 4), 0)


@pytest.mark.parametrize("make", [simplex, pyramid])
def test_a_draw_travels_to_other_processes(make) -> None:
    draw = make()
    again = pickle.loads(pickle.dumps(draw))
    same = [d(torch.Generator().manual_seed(3), (2, 16, 24)) for d in (draw, again)]
    assert torch.equal(*same)
