"""Stages of a feature codec: which of them score, which show where, and how their laws see them."""

from __future__ import annotations

import pytest
import torch

from anodiff import compose
from anodiff.config import load
from anodiff.detect.headed import Headed
from anodiff.detect.nearest import NearestScorer
from anodiff.detect.onestep import ResidualScorer
from anodiff.detect.residual import ResidualPosition
from anodiff.detect.scorer import Fused
from anodiff.errors import ConfigError

SIZE = (64, 64)


def made(*overrides: str):
    config = load(preset="features", overrides=["data.size=64", "codec.weights=random", *overrides])
    return compose.predictor(config, target_fpr=0.05, shape=SIZE)


def test_the_default_scores_by_three_stages_and_shows_where_by_four() -> None:
    predictor = made()
    fused = predictor.scorer
    assert isinstance(fused, Fused)
    step, near = fused.scorers
    assert isinstance(step, ResidualScorer)
    assert isinstance(near, NearestScorer)
    assert step.folds == (2, 2, 1, 1)
    assert step.heard == (1, 2, 3, 5, 6, 7)
    assert all(isinstance(law, ResidualPosition) for law in step.weighers)
    assert step.sight is not None
    assert len(step.sight.calibrations) == 4
    assert near.pairs == ((1, 2), (2, 3))
    assert near.coarse == (1, 1, 1, 2)
    assert fused.blend.weights == (6.0, 2.0)
    predictor.codec.light.learn([torch.rand(4, 3, *SIZE)])
    predictor.codec.whiten.settle(predictor.codec._moments(torch.rand(4, 3, *SIZE)))
    z = predictor.codec.encode(torch.rand(2, 3, *SIZE))
    assert z.shape[-2:] == (4, 4)
    assert z.shape[1] == predictor.codec.channels == sum(step.groups)


def test_one_map_asks_the_scoring_stages_alone() -> None:
    step = made("score.map=score").scorer.scorers[0]
    assert step.sight is None
    assert step.heard == (1, 2, 3, 5, 6, 7)


def test_a_head_reads_all_stages_at_the_codes_size() -> None:
    head = made("score.head.kind=learned").scorer.scorers[0]
    assert isinstance(head, Headed)
    assert head.inner.folds == (1, 1, 1, 1)


def test_some_stage_has_to_score() -> None:
    with pytest.raises(ConfigError, match=r"unscored: 4 leaves none of the 4 stages.*take 3 at most"):
        made("score.unscored=4")
