"""The predictor of a configuration: what is looked at, what is usual, and where the line is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from anodiff.codec.backbone import backbone
from anodiff.codec.feature import FeatureCodec
from anodiff.codec.fuse import fused
from anodiff.compose.codec import Codec, codec, source
from anodiff.compose.head import head
from anodiff.compose.model import classifier, critic, denoiser, labeller
from anodiff.compose.training import noise
from anodiff.cond import Cond
from anodiff.config import RunConfig, schema
from anodiff.detect import distance
from anodiff.detect.bylabel import CalibrationByLabel, ScorerByLabel, ThresholdByLabel
from anodiff.detect.calibrate import Calibration, GlobalCalibration, NoCalibration, PositionCalibration
from anodiff.detect.detail import Detail
from anodiff.detect.flow import FlowScorer
from anodiff.detect.headed import Headed
from anodiff.detect.heatmap import Smooth
from anodiff.detect.nearest import NearestScorer
from anodiff.detect.onestep import ResidualScorer, one_steps
from anodiff.detect.opinion import OpinionScorer
from anodiff.detect.pool import Maximum, Pool, TopShare
from anodiff.detect.predictor import Predictor
from anodiff.detect.repair import Repair
from anodiff.detect.resampled import Resampled
from anodiff.detect.residual import (
    ResidualCovariance,
    ResidualLaw,
    ResidualPosition,
    ResidualSquares,
    ResidualVariance,
)
from anodiff.detect.restore import Inversion, PartialNoise, Pulled, Restorer
from anodiff.detect.scorer import BoundScorer, Fused, RestorationScorer, Scorer
from anodiff.detect.steering import Steering
from anodiff.detect.surprise import Surprise
from anodiff.detect.threshold import Conformal, Quantile, Threshold
from anodiff.detect.walk import MeanShift
from anodiff.diffusion.classifier import NoisyClassifier
from anodiff.diffusion.gan import Critic
from anodiff.encode.label import number_of
from anodiff.errors import ConfigError
from anodiff.told import Teller


def predictor(
    config: RunConfig,
    *,
    target_fpr: float,
    shape: tuple[int, int],
    weights: str | None = None,
    ready: Codec | None = None,
) -> Predictor:
    """An untrained predictor; `weights=LEARNT` where a state dict with the backbone's is loaded next.

    Args:
        config: all that it depends on.
        target_fpr: the false-alarm rate of its thresholds.
        shape: working (height, width).
        weights: where the backbones' weights come from, in place of the configuration's word.
        ready: its codec, where it is there already.

    Raises:
        ConfigError: a score whose cells leave nothing around them in pictures of this shape.
    """
    z = ready or codec(config, weights=weights)
    model = denoiser(config, z.channels)
    size = (shape[0] // z.stride, shape[1] // z.stride)
    _check_cells(config, size)
    guide = classifier(config, z.channels, size, model.levels)
    judge = critic(config, z.channels)
    marker = head(config, z.channels)
    return Predictor(
        z,
        model,
        scorer(config, weights=weights, shift=_shift(config, guide), judge=judge, beside=z, marker=marker),
        wrap=steering(config, z, guide),
        labeller=labeller(config, weights=weights),
        tell=Teller(config).scoring(z),
        classifier=guide,
        critic=judge,
        head=marker,
        smooth=Smooth(config.calibration.smooth),
        calibration=_calibration(config),
        pool=_pool(config),
        threshold=_threshold(config, target_fpr),
        mask_threshold=_threshold(config, target_fpr),
        seed=config.seed,
        draw=noise(config),
    )


def steering(config: RunConfig, z: Codec, guide: NoisyClassifier | None) -> Steering:
    """What stands around the denoiser; a clamp where the range of codes is known, as that of pixels is."""
    plain = Steering(clamp=z.bounded, fixed=getattr(config.score, "latent", "drawn") == "fixed")
    match config.guidance:
        case schema.FreeGuidance(scale=scale, negative=negative):
            away = None if negative is None else _negative(negative, config)
            return replace(plain, free=scale, negative=away)
        case schema.ClassifierGuidance(scale=scale, form="score") if guide is not None:
            return replace(plain, log_prob=guide.log_prob, scale=scale)
    return plain


def _negative(name: str, config: RunConfig) -> Cond:
    """What to lead away from, one row: a label, or a text where the model reads words."""
    if isinstance(config.tokens, schema.Text):
        return Teller(config).worded([name])
    return Cond(label=torch.tensor([number_of(name, config.labels.classes)]))


def _shift(config: RunConfig, guide: NoisyClassifier | None) -> MeanShift | None:
    match config.guidance:
        case schema.ClassifierGuidance(scale=scale, form="mean") if guide is not None:
            return MeanShift(guide.log_prob, scale)
    return None


def scorer(
    config: RunConfig,
    *,
    weights: str | None = None,
    shift: MeanShift | None = None,
    judge: Critic | None = None,
    beside: Codec | None = None,
    marker: nn.Module | None = None,
) -> Scorer:
    """What is looked at, for each label by itself where the labels are kinds of parts.

    Args:
        config: its score, and what that depends on.
        weights: where a backbone's come from.
        shift: guidance in the form that moves a step's mean.
        judge: the discriminator, where the family has one.
        beside: makes the picture that a model reads beside the code, where `Repair` and `Detail` ask for it.
        marker: the learnt head, where the score asks for one.
    """
    learns = isinstance(config.score, schema.OneStep)
    count = len(config.labels.classes) if learns and _apart(config) else 0
    made = [_scorer(config, weights, shift, judge, beside, marker) for _ in range(max(1, count))]
    return ScorerByLabel(made) if count else made[0]


def _scorer(
    config: RunConfig,
    weights: str | None,
    shift: MeanShift | None,
    judge: Critic | None,
    beside: Codec | None,
    marker: nn.Module | None,
) -> Scorer:
    match config.score:
        case schema.OneStep() as s:
            return _heard(_one_step(s, config, beside, marker), judge, s.sigmas, s.draws, s.opinion)
        case schema.PartialNoise() as s:
            restorer = PartialNoise(
                s.levels,
                steps=s.steps,
                sampler=s.sampler,
                eta=s.eta,
                draws=s.draws,
                variance=s.variance,
                shift=shift,
            )
            if s.pull:
                restorer = Pulled(restorer, s.pull)
            found = _compared(restorer, s.distances, config, weights)
            return _heard(found, judge, s.levels, s.draws, s.opinion)
        case schema.Inversion() as s:
            return _compared(Inversion(s.level, steps=s.steps), s.distances, config, weights)
        case schema.Repair() as s:
            told = None if beside is None else Teller(config).repairing(beside)
            restorer = Repair(_repainted(s), cell=s.cell, masks=s.masks, beside=told)
            return _compared(restorer, s.distances, config, weights)
        case schema.Detail() as s:
            inner = PartialNoise((s.level,), steps=s.steps, sampler=s.sampler, eta=s.eta, draws=s.draws)
            told = None if beside is None else Teller(config).detailing(beside)
            return _compared(Detail(inner, factor=s.factor, beside=told), s.distances, config, weights)
        case schema.Bound() as s:
            bins = 256 if isinstance(config.codec, schema.PixelCodec) else None
            return BoundScorer(s.level, s.steps, variance=s.variance, bins=bins)
        case schema.Flow() as s:
            std = config.family.std if isinstance(config.family, schema.KarrasFamily) else 1.0
            return FlowScorer(s.low, s.high, s.steps, probes=s.probes, std=std)
        case schema.Opinion() as s:
            assert judge is not None  # the configuration refuses a family without one
            return OpinionScorer(judge, s.levels, draws=s.draws)


def _one_step(s: schema.OneStep, config: RunConfig, beside: Codec | None, marker: nn.Module | None) -> Scorer:
    """What one step leaves, the head's marks on it, and the nearest good places, as far as they are asked for."""
    groups, folds, coarse, kept = None, None, None, None
    if s.stages == "apart" and isinstance(beside, FeatureCodec):
        groups = beside.groups
        if s.unscored >= len(groups):
            raise ConfigError(
                f"score.unscored: {s.unscored} leaves none of the {len(groups)} stages of the codec to score by; take "
                f"{len(groups) - 1} at most."
            )
        folds, coarse = beside.folds, beside.coarse
        kept = folds if marker is None else None  # a head reads all stages at one size
    calibration = None if s.fuse == "mean" else Surprise()
    agree = s.fuse == "agreement"
    found = ResidualScorer(
        one_steps(s.sigmas, draws=s.draws),
        _law(s),
        groups=groups,
        folds=kept,
        first=s.unscored,
        calibration=calibration,
        geometric=agree,
        sharp=s.map == "sharp",
    )
    scored = len(found.heard)
    if marker is not None and isinstance(s.head, schema.LearnedHead):
        found = Headed(found, marker, weight=s.head.weight)
    if not s.nearest:
        return found
    seen = NearestScorer(
        s.nearest,
        groups=groups,
        folds=folds,
        coarse=coarse,
        first=s.unscored,
        calibration=calibration,
        geometric=agree,
        seed=config.seed,
    )
    weights = [scored, seen.width]  # each map counts as much
    return Fused([found, seen], calibration=NoCalibration(), weights=weights, geometric=agree, shared=True)


def _law(s: schema.OneStep) -> ResidualLaw:
    match s.residual:
        case "plain":
            return ResidualSquares()
        case "channel":
            return ResidualVariance(floor=s.floor)
        case "covariance":
            return ResidualCovariance(floor=s.floor)
        case "position":
            return ResidualPosition(floor=s.floor)


def _check_cells(config: RunConfig, size: tuple[int, int]) -> None:
    """Nothing, when cells to be hidden are smaller than the code; told before anything is trained."""
    match config.score:
        case schema.Repair(cell=cell) if cell >= max(size):
            raise ConfigError(
                f"score.cell: {cell} hides the whole code of {size[0]} x {size[1]} positions at once, with nothing "
                f"left to paint it from; take at most {max(size) - 1}, better a quarter of a side or less."
            )


def _repainted(s: schema.Repair) -> Restorer:
    """What paints the hidden cells: one walk down, or one whose steps are walked several times."""
    if s.resamples == 1:
        return PartialNoise((s.level,), steps=s.steps, sampler=s.sampler, eta=s.eta, draws=s.draws)
    eta = 1.0 if s.sampler == "ddpm" else s.eta
    return Resampled(s.level, steps=s.steps, resamples=s.resamples, eta=eta, draws=s.draws)


def _compared(
    restorer: Restorer, distances: Mapping[schema.Distance, float], config: RunConfig, weights: str | None
) -> RestorationScorer:
    return RestorationScorer(
        restorer,
        [_distance(name, config, weights) for name in distances],
        weights=list(distances.values()),
    )


def _heard(found: Scorer, judge: Critic | None, levels: Sequence[float], draws: int, weight: float) -> Scorer:
    """The scorer beside the discriminator's opinion at the same levels, where that has a weight."""
    if judge is None or not weight:
        return found
    return Fused([found, OpinionScorer(judge, levels, draws=draws)], weights=[1.0, weight])


def _distance(name: str, config: RunConfig, weights: str | None) -> distance.Distance:
    if name == "feature":
        kind = schema.FeatureCodec()
        return distance.Feature(
            fused(backbone(kind.backbone, (1, 2, 3), weights=source(weights or kind.weights)))
        )
    kinds: dict[str, type[distance.Distance]] = {
        "l1": distance.L1,
        "l2": distance.L2,
        "ssim": distance.SSIM,
        "ms_ssim": distance.MultiScaleSSIM,
        "gradient": distance.Gradient,
        "lab": distance.Lab,
        "latent": distance.Latent,
        "spread": distance.Spread,
    }
    return kinds[name]()


def _apart(config: RunConfig) -> bool:
    """Whether what is usual is learnt for each label by itself: where the labels are kinds of parts."""
    return isinstance(config.labels, schema.CategoryLabels)


def _calibration(config: RunConfig) -> Calibration | CalibrationByLabel:
    kinds = {"none": NoCalibration, "global": GlobalCalibration, "position": PositionCalibration}
    made = kinds[config.calibration.kind]
    return CalibrationByLabel([made() for _ in config.labels.classes]) if _apart(config) else made()


def _pool(config: RunConfig) -> Pool:
    return Maximum() if config.pool.kind == "maximum" else TopShare(config.pool.share)


def _threshold(config: RunConfig, target_fpr: float) -> Threshold | ThresholdByLabel:
    def one() -> Threshold:
        return Conformal(target_fpr) if config.threshold.kind == "conformal" else Quantile(1 - target_fpr)

    names = config.labels.classes
    return ThresholdByLabel([one() for _ in names], names) if _apart(config) else one()
