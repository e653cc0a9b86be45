"""From a configuration to objects: the one place that knows both sides."""

from __future__ import annotations

from collections.abc import Callable

import torch

from anodiff.codec.backbone import backbone
from anodiff.codec.feature import FeatureCodec
from anodiff.codec.fuse import fused
from anodiff.codec.pixel import PixelCodec
from anodiff.config import RunConfig, schema
from anodiff.data.augment import Augmentation
from anodiff.detect import distance
from anodiff.detect.calibrate import Calibration, GlobalCalibration, NoCalibration, PositionCalibration
from anodiff.detect.heatmap import Smooth
from anodiff.detect.pool import Maximum, Pool, TopShare
from anodiff.detect.predictor import Predictor, bare
from anodiff.detect.residual import ResidualCovariance, ResidualSquares, ResidualVariance
from anodiff.detect.restore import Inversion, PartialNoise
from anodiff.detect.scorer import BoundScorer, OneStepError, RestorationScorer, Scorer
from anodiff.detect.threshold import Conformal, Quantile, Threshold
from anodiff.diffusion.denoiser import EpsDenoiser, KarrasDenoiser, VDenoiser, X0Denoiser
from anodiff.diffusion.guidance import Clamp
from anodiff.diffusion.levels import karras
from anodiff.diffusion.schedule import table, zero_terminal
from anodiff.errors import ConfigError
from anodiff.nets.unet import UNet
from anodiff.noise import NoiseDraw, gaussian, pyramid, simplex
from anodiff.train.objective import (
    EpsWeight,
    KarrasWeight,
    LogNormal,
    LogUniform,
    MinSNR,
    Objective,
    Times,
    UniformTable,
    VWeight,
    Weight,
    X0Weight,
)
from anodiff.train.plan import Plan

Codec = PixelCodec | FeatureCodec
Family = EpsDenoiser | VDenoiser | X0Denoiser | KarrasDenoiser

LEARNT = "learnt"
"""Stands for weights that come with the model file, so that no pretrained file is looked for."""


def codec(config: RunConfig, *, weights: str | None = None) -> Codec:
    """The codec of `config`; `weights` overrides where the backbone's come from."""
    match config.codec:
        case schema.PixelCodec(patch=patch):
            return PixelCodec(config.data.channels, patch=patch)
        case schema.FeatureCodec() as c:
            found = backbone(c.backbone, c.stages, weights=_source(weights or c.weights))
            return FeatureCodec(fused(found), whitening=c.whitening, floor=c.floor, local=c.local)


def denoiser(config: RunConfig, channels: int) -> Family:
    """An untrained denoiser of `channels` channels; its first weights are a function of the seed."""
    net = config.net
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        unet = UNet(
            in_channels=channels,
            out_channels=channels,
            width=net.width,
            multipliers=net.multipliers,
            blocks=net.blocks,
            attention=net.attention,
            heads=net.heads,
            dropout=net.dropout,
            patch=net.patch,
        ).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # the faster layout on a CPU
    match config.family:
        case schema.KarrasFamily(std=std, low=low, high=high):
            return KarrasDenoiser(unet, std=std, low=low, high=high)
        case schema.DiscreteFamily(kind=kind):
            family = {"eps": EpsDenoiser, "v": VDenoiser, "x0": X0Denoiser}[kind]
            return family(unet, _table(config.family.schedule))


def objective(config: RunConfig) -> Objective:
    """What training minimises."""
    train, family = config.train, config.family
    std = family.std if isinstance(family, schema.KarrasFamily) else 0.5
    weights: dict[str, Weight] = {
        "eps": EpsWeight(),
        "v": VWeight(),
        "x0": X0Weight(),
        "edm": KarrasWeight(std),
        "min_snr": MinSNR(train.min_snr),
    }
    return Objective(weight=weights[train.weight], times=_times(config), draw=noise(config))


def plan(config: RunConfig, *, devices: int | str = 1, accelerator: str = "auto") -> Plan:
    """The numbers of the training run."""
    train = config.train
    return Plan(
        steps=train.steps,
        batch=train.batch,
        learning_rate=train.learning_rate,
        schedule=train.decay,
        warmup=min(train.warmup, train.steps - 1),
        weight_decay=train.weight_decay,
        clip=train.clip,
        ema=train.ema,
        seed=config.seed,
        precision=train.precision,
        max_time=train.max_time,
        checkpoint_every=train.checkpoint_every,
        devices=devices,
        accelerator=accelerator,
        workers=train.workers,
    )


def augmentation(config: RunConfig) -> Augmentation | None:
    """The random changes of training pictures; None where all are switched off."""
    chosen = config.data.augment.model_dump()
    return Augmentation(**chosen) if any(chosen.values()) else None


def noise(config: RunConfig) -> NoiseDraw:
    """The law of the noise, for the trainer and the restorer alike."""
    draws: dict[str, Callable[[], NoiseDraw]] = {
        "gaussian": lambda: gaussian,
        "simplex": simplex,
        "pyramid": pyramid,
    }
    return draws[config.train.noise]()


def predictor(config: RunConfig, *, target_fpr: float, weights: str | None = None) -> Predictor:
    """An untrained predictor; `weights="random"` where a state dict with the backbone's is loaded next."""
    z = codec(config, weights=weights)
    return Predictor(
        z,
        denoiser(config, z.channels),
        scorer(config, weights=weights),
        wrap=Clamp if z.paints else bare,  # the range is known in pixels alone
        smooth=Smooth(config.calibration.smooth),
        calibration=_calibration(config),
        pool=_pool(config),
        threshold=_threshold(config, target_fpr),
        mask_threshold=_threshold(config, target_fpr),
        seed=config.seed,
        draw=noise(config),
    )


def scorer(config: RunConfig, *, weights: str | None = None) -> Scorer:
    """What is looked at."""
    match config.score:
        case schema.OneStep() as s:
            weigh = {
                "plain": ResidualSquares,
                "channel": lambda: ResidualVariance(floor=s.floor),
                "covariance": lambda: ResidualCovariance(floor=s.floor),
            }[s.residual]()
            return OneStepError(s.sigmas, weigh, draws=s.draws)
        case schema.PartialNoise() as s:
            restorer = PartialNoise(s.levels, steps=s.steps, sampler=s.sampler, eta=s.eta, draws=s.draws)
        case schema.Inversion() as s:
            restorer = Inversion(s.level, steps=s.steps)
        case schema.Bound() as s:
            bins = 256 if isinstance(config.codec, schema.PixelCodec) else None
            return BoundScorer(s.level, s.steps, variance=s.variance, bins=bins)
    return RestorationScorer(
        restorer,
        [_distance(name, config, weights) for name in s.distances],
        weights=list(s.distances.values()),
    )


def _distance(name: str, config: RunConfig, weights: str | None) -> distance.Distance:
    if name == "feature":
        kind = schema.FeatureCodec()
        return distance.Feature(
            fused(backbone(kind.backbone, (1, 2, 3), weights=_source(weights or kind.weights)))
        )
    kinds: dict[str, type[distance.Distance]] = {
        "l1": distance.L1,
        "l2": distance.L2,
        "ssim": distance.SSIM,
        "ms_ssim": distance.MultiScaleSSIM,
        "gradient": distance.Gradient,
        "lab": distance.Lab,
        "latent": distance.Latent,
    }
    return kinds[name]()


def _source(weights: str) -> str:
    return "random" if weights == LEARNT else weights


def _table(config: schema.Schedule) -> torch.Tensor:
    found = table(config.name, config.steps)
    return zero_terminal(found) if config.zero_terminal_snr else found


def _times(config: RunConfig) -> Times:
    train, family = config.train, config.family
    first, second = train.time_range or (0.0, 0.0)
    match train.times:
        case "log_uniform":
            return LogUniform(first, second)
        case "log_normal" if isinstance(family, schema.KarrasFamily):
            return LogNormal(first, second, low=family.low, high=family.high)
        case "table":
            ladder = isinstance(family, schema.KarrasFamily)
            return UniformTable(
                karras(family.low, family.high, 1000).flip(0) if ladder else _table(family.schedule)
            )
    raise ConfigError(f"train.times: {train.times} needs a continuous family (family.kind: karras).")


def _calibration(config: RunConfig) -> Calibration:
    kinds = {"none": NoCalibration, "global": GlobalCalibration, "position": PositionCalibration}
    return kinds[config.calibration.kind]()


def _pool(config: RunConfig) -> Pool:
    return Maximum() if config.pool.kind == "maximum" else TopShare(config.pool.share)


def _threshold(config: RunConfig, target_fpr: float) -> Threshold:
    return Conformal(target_fpr) if config.threshold.kind == "conformal" else Quantile(1 - target_fpr)
