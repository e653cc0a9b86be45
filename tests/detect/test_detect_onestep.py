"""Two maps of one look: one for the score, one that shows where."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F

from anodiff.cond import Cond
from anodiff.detect import teaching
from anodiff.detect.bylabel import ScorerByLabel
from anodiff.detect.calibrate import GlobalCalibration, NoCalibration
from anodiff.detect.heatmap import Smooth
from anodiff.detect.nearest import NearestScorer
from anodiff.detect.onestep import ResidualScorer, one_steps
from anodiff.detect.pool import TopShare
from anodiff.detect.predictor import Predictor
from anodiff.detect.residual import ResidualCovariance, ResidualPosition, ResidualSquares
from anodiff.detect.scorer import Fused, Maps
from anodiff.detect.surprise import Surprise
from anodiff.detect.threshold import Conformal
from anodiff.errors import ConfigError


def sharp(**changes) -> ResidualScorer:
    settings = {
        "groups": (1, 2),
        "first": 1,
        "calibration": Surprise(),
        "geometric": True,
        "sharp": True,
    }
    return ResidualScorer(one_steps((0.0, 0.4)), ResidualPosition(), **(settings | changes))


def observe(scorer, model, image, noise):
    return scorer.observe(model, image, Cond(noise=noise(len(image), 0))).parts


@pytest.fixture
def taught(truth, normals, plain, unit_noise):
    """`taught(scorer)` has learnt from 24 pictures; with the model it was asked about."""

    def teach(scorer):
        model = (truth, plain())
        parts = observe(scorer, model, normals(24, seed=1), unit_noise)
        scorer.learn(lambda: iter([parts]))
        return scorer, model

    return teach


def test_a_spot_in_a_stage_that_does_not_score_is_shown_and_not_scored(taught, normals, unit_noise) -> None:
    scorer, model = taught(sharp())
    assert scorer.places
    clean, image = normals(2, seed=2), normals(2, seed=2)
    image[:, 0, 6:9, 6:9] = 0.95  # the first channel is the first group, the one that shows where only
    before = scorer.maps(observe(scorer, model, clean, unit_noise))
    after = scorer.maps(observe(scorer, model, image, unit_noise))
    inside, outside = after.place[..., 6:9, 6:9], after.place[..., :4, :4]
    assert inside.mean() > 2 * outside.mean()
    assert inside.mean() > 2 * before.place[..., 6:9, 6:9].mean()
    # The level 0 is the code itself, where groups keep apart; at .4 the denoiser reads all channels.
    plain = ResidualScorer(one_steps((0.0,)), ResidualSquares(), groups=(1, 2), first=1)
    parts = observe(plain, model, image, unit_noise)
    plain.learn(lambda: iter([observe(plain, model, normals(24, seed=1), unit_noise)]))
    assert torch.equal(plain.weigh(parts), plain.weigh(observe(plain, model, clean, unit_noise)))


@dataclass(frozen=True)
class FoldedCodec:
    """The first channel folded 2 x 2 into four, the others in means of 2 x 2."""

    channels: int = 6
    stride: int = 2
    paints: bool = False
    bounded: bool = False

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        z = 2 * image - 1
        return torch.cat([F.pixel_unshuffle(z[:, :1], 2), F.avg_pool2d(z[:, 1:], 2)], dim=1)


def test_folded_groups_are_weighed_at_their_own_size(normals, unit_noise) -> None:
    image, model = normals(24, seed=3), (None, FoldedCodec())
    settings = {"groups": (4, 2), "calibration": Surprise(), "geometric": True, "sharp": True}
    scorer = ResidualScorer(one_steps((0.0,)), ResidualPosition(), folds=(2, 1), **settings)
    parts = observe(scorer, model, image, unit_noise)
    assert [tuple(part.shape) for part in parts] == [(24, 1, 16, 16), (24, 2, 8, 8)]
    torch.testing.assert_close(parts[0], 2 * image[:, :1] - 1)
    scorer.learn(lambda: iter([parts]))
    maps = scorer.maps(parts)
    assert maps.score.shape == maps.place.shape == (24, 1, 16, 16)
    near = NearestScorer(30, groups=(4, 2), folds=(2, 1))
    (code,) = observe(near, model, image, unit_noise)
    torch.testing.assert_close(code, F.avg_pool2d(2 * image - 1, 2))
    assert near.pairs == ((0, 1),)


def test_without_it_both_maps_are_one(taught, normals, unit_noise) -> None:
    scorer, model = taught(ResidualScorer(one_steps((0.4,)), ResidualCovariance()))
    maps = scorer.maps(observe(scorer, model, normals(2, seed=2), unit_noise))
    assert not scorer.places
    assert maps.score is maps.place


def test_by_one_law_the_places_of_a_map_keep_their_order() -> None:
    maps = torch.rand(6, 1, 9, 9, generator=torch.Generator().manual_seed(0)) + 0.1
    maps[..., :4] *= 30  # half of the picture varies more than the other
    law = Surprise(reach=0.0, usual=GlobalCalibration())
    law.learn([maps])
    found = law(maps[:1]).flatten()
    order = maps[0].flatten().argsort()
    assert bool((found[order].diff() >= 0).all())


def test_a_fusion_shows_where_by_the_scorer_that_can(taught, normals, unit_noise) -> None:
    near = NearestScorer(40, groups=(1, 2), first=1, calibration=Surprise(), geometric=True)
    both = Fused([near, sharp()], calibration=NoCalibration(), geometric=True)
    scorer, model = taught(both)
    parts = observe(scorer, model, normals(2, seed=2), unit_noise)
    assert parts[0].shape[1] == 2  # the first group is left out
    maps = scorer.maps(parts)
    assert scorer.places
    assert torch.equal(maps.place, scorer.scorers[1].maps(parts[1:]).place)
    assert torch.equal(maps.score, scorer.weigh(parts))
    with_plain = Fused([near, ResidualScorer(one_steps((0.4,)), ResidualSquares())])
    assert not with_plain.places


def test_each_label_shows_where_by_its_own_law(taught, normals, unit_noise, truth, plain) -> None:
    scorer = ScorerByLabel([sharp(), sharp()])
    label = torch.tensor([0, 1] * 12)
    image = normals(24, seed=1)
    cond = Cond(noise=unit_noise(24, 0), label=label)
    parts = scorer.observe((truth, plain()), image, cond).parts
    scorer.learn(lambda: iter([parts]))
    assert scorer.places
    maps = scorer.maps(parts)
    for k in (0, 1):
        own = scorer.scorers[k].maps(tuple(part[label == k] for part in parts[:-1]))
        assert torch.equal(maps.place[label == k], own.place)
        assert torch.equal(maps.score[label == k], own.score)


def test_strangers_correct_both(taught, normals, unit_noise) -> None:
    scorer, model = taught(sharp())
    loud = tuple(3 * part for part in observe(scorer, model, normals(16, seed=4), unit_noise))
    before = scorer.maps(loud)
    scorer.temper(lambda: iter([loud]))
    after = scorer.maps(loud)
    assert after.score.mean() < before.score.mean() / 2
    assert after.place.mean() < before.place.mean() / 2


def test_a_predictor_scores_by_one_map_and_draws_the_other(truth, normals, plain) -> None:
    def build() -> Predictor:
        return Predictor(
            plain(),
            truth,
            sharp(),
            smooth=Smooth(0.0),
            calibration=GlobalCalibration(),
            pool=TopShare(0.05),
            threshold=Conformal(0.1),
            mask_threshold=Conformal(0.1),
        )

    predictor = build()
    teaching.learn(predictor, lambda: normals(24, seed=1).split(6), lambda: normals(24, seed=7).split(6))
    image = normals(4, seed=2)
    found = predictor(image)
    maps = predictor.maps(predictor.observe(image).parts)
    assert isinstance(maps, Maps)
    assert torch.equal(found.heat, maps.place)
    assert torch.equal(found.score, predictor.pool(maps.score))
    tops = torch.cat([predictor(batch).heat.amax((1, 2, 3)) for batch in normals(24, seed=7).split(6)])
    torch.testing.assert_close(predictor.mask_threshold.held, tops.sort().values, rtol=1e-4, atol=1e-4)
    again = build()
    again.load_state_dict(copy.deepcopy(predictor.state_dict()))
    assert torch.equal(again(image).heat, found.heat)
    assert F.l1_loss(again(image).score, found.score) == 0


def test_groups_and_folds_have_to_agree() -> None:
    for changes in ({"first": 2}, {"folds": (1,)}, {"first": -1}):
        with pytest.raises(ConfigError, match="first group"):
            sharp(**changes)
