from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from anodiff.cond import Cond
from anodiff.detect.onestep import ResidualScorer, one_steps
from anodiff.detect.residual import ResidualCovariance, ResidualSquares
from anodiff.detect.surprise import BODY, Surprise
from anodiff.errors import ConfigError, DataError


def normal_maps(
    count: int, seed: int, *, freedom: int = 4, size: int = 12, scale: float = 1.0
) -> torch.Tensor:
    """Maps [count, 1, size, size] of independent chi-squared values over their degrees of freedom."""
    z = torch.randn(count, freedom, size, size, generator=torch.Generator().manual_seed(seed))
    return scale * z.square().mean(1, keepdim=True)


def test_the_p_values_of_fresh_normals_are_uniform() -> None:
    surprise = Surprise(reach=0)
    surprise.learn(normal_maps(80, 0).split(9))
    p = (-surprise(normal_maps(80, 1))).exp()
    for level in (0.5, 0.1, 0.02, 0.005):
        assert (p <= level).float().mean() == pytest.approx(level, rel=0.5)


def test_the_tail_goes_on_where_normals_end() -> None:
    surprise = Surprise(reach=0)
    surprise.learn([normal_maps(60, 0)])
    values = torch.tensor([0.1, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 40.0])
    found = surprise(values.view(-1, 1, 1, 1).expand(-1, 1, 12, 12))  # [8, 1, 12, 12]
    assert bool((found.diff(dim=0) >= 0).all())
    assert bool((found[5:].diff(dim=0) > 1).all())  # beyond any normal, and still ranked
    assert torch.isfinite(found).all()


def test_the_body_is_the_empirical_law() -> None:
    surprise = Surprise(reach=0)
    maps = normal_maps(200, 3)
    surprise.learn([maps])
    value = float(chi2.ppf(0.9, 4) / 4)
    found = surprise(torch.full((1, 1, 12, 12), value)).mean()
    assert float(found) == pytest.approx(-np.log(0.1), rel=0.1)
    assert BODY > 0.9


def test_scale_of_a_map_does_not_matter() -> None:
    one, other = Surprise(), Surprise()
    one.learn([normal_maps(30, 0)])
    other.learn([normal_maps(30, 0, scale=250.0)])
    torch.testing.assert_close(
        one(normal_maps(5, 1)), other(normal_maps(5, 1, scale=250.0)), rtol=1e-3, atol=1e-3
    )


def test_strangers_take_the_edge_off_what_is_known_by_heart() -> None:
    surprise = Surprise(reach=0)
    surprise.learn([normal_maps(40, 0, scale=0.3)])
    fresh = normal_maps(40, 1)
    proud = surprise(fresh).mean()
    surprise.temper([normal_maps(20, 2)])
    modest = surprise(fresh).mean()
    assert proud > 2 * modest
    assert float(modest) == pytest.approx(1.0, abs=0.15)  # the mean of -ln p for a uniform p


def test_it_wants_maps_and_finite_ones() -> None:
    with pytest.raises(DataError, match="got none"):
        Surprise().learn([])
    with pytest.raises(ConfigError, match="learnt nothing"):
        Surprise()(normal_maps(1, 0))
    bad = normal_maps(3, 0)
    bad[0, 0, 0, 0] = torch.nan
    with pytest.raises(DataError):
        Surprise().learn([bad])


def test_what_was_learnt_is_saved() -> None:
    surprise, again = Surprise(), Surprise()
    surprise.learn([normal_maps(10, 0)])
    again.load_state_dict(surprise.state_dict())
    torch.testing.assert_close(again(normal_maps(3, 1)), surprise(normal_maps(3, 1)))


def test_a_group_of_channels_is_weighed_by_its_own_law(truth, normals, plain, unit_noise) -> None:
    """A change in the one channel of its own group shows more than where it is one of three."""
    image = normals(3, seed=2)
    image[1, 2, 6:10, 6:10] += 0.25
    contrast = {}
    for groups in (None, (2, 1)):
        scorer = ResidualScorer(one_steps((0.4,)), ResidualCovariance(), groups=groups)
        model = (truth, plain())
        parts = [
            scorer.observe(model, batch, Cond(noise=unit_noise(len(batch), i))).parts
            for i, batch in enumerate(normals(48, seed=1).split(8))
        ]
        scorer.learn(lambda parts=parts: iter(parts))
        found = scorer(model, image, Cond(noise=unit_noise(3, 9)))
        assert len(scorer.weighers) == len(groups or (1,))
        assert scorer.width == len(groups or (1,))
        contrast[groups] = float(
            (found[1, 0, 6:10, 6:10].mean() - found[[0, 2]].mean()) / found[[0, 2]].std()
        )
    assert contrast[(2, 1)] > contrast[None] > 1


def test_groups_that_do_not_sum_up_are_refused(truth, normals, plain, unit_noise) -> None:
    scorer = ResidualScorer(one_steps((0.4,)), ResidualSquares(), groups=(2, 2))
    with pytest.raises(RuntimeError, match="split"):
        scorer.observe((truth, plain()), normals(2, seed=0), Cond(noise=unit_noise(2, 0)))


def test_a_scorer_of_stages_is_tempered(truth, normals, plain, unit_noise) -> None:
    scorer = ResidualScorer(one_steps((0.4,)), ResidualSquares(), groups=(2, 1), calibration=Surprise())
    model = (truth, plain())
    parts = scorer.observe(model, normals(16, seed=1), Cond(noise=unit_noise(16, 0))).parts
    loud = tuple(3 * part for part in parts)
    scorer.learn(lambda: iter([parts]))
    before = scorer.weigh(loud).mean()
    scorer.temper(lambda: iter([loud]))
    assert scorer.weigh(loud).mean() < before / 2


def test_at_level_zero_no_model_is_asked(truth, normals, plain, unit_noise) -> None:
    scorer, codec = ResidualScorer(one_steps((0.0,)), ResidualSquares()), plain()
    image = normals(3, seed=2)
    truth.calls = 0
    observed = scorer.observe((truth, codec), image, Cond(noise=unit_noise(3, 0)))
    assert truth.calls == scorer.evaluations == 0
    torch.testing.assert_close(observed.parts[0], codec.encode(image))
