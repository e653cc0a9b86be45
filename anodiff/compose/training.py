"""The training run of a configuration: what is minimised, over which levels, with what noise and numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from anodiff.compose.model import chain, levels_table
from anodiff.config import RunConfig, schema
from anodiff.data.augment import Augmentation
from anodiff.diffusion.levels import karras
from anodiff.errors import ConfigError
from anodiff.noise import NoiseDraw, gaussian, pyramid, simplex
from anodiff.train.adversarial import Adversarial
from anodiff.train.classification import CrossEntropy
from anodiff.train.importance import LossSecondMoment
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
from anodiff.train.variational import Hybrid, Variational


def objective(config: RunConfig) -> Objective | Variational | Hybrid | Adversarial:
    """What training minimises, or plays for."""
    train = config.train
    if isinstance(game := config.family, schema.DDGANFamily):
        return Adversarial(
            times=_times(config),
            r1=game.r1,
            reconstruction=game.reconstruction,
            interval=game.r1_every,
            critic_rate=game.critic_rate,
            momentum=game.momentum,
        )
    simple = Objective(weight=_weight(config), times=_times(config), draw=noise(config))
    if train.loss == "simple":
        return simple
    family = config.family
    assert isinstance(family, schema.DiscreteFamily)  # the configuration refuses any other
    bins = 256 if isinstance(config.codec, schema.PixelCodec) else None
    bound = Variational(
        table=levels_table(family.schedule),
        times=simple.times,
        draw=simple.draw,
        variance="learned" if family.variance == "learned" else "small",
        bins=bins,
    )
    return bound if train.loss == "vlb" else Hybrid(simple=simple, bound=bound)


def classifier_objective(config: RunConfig) -> CrossEntropy:
    """What the training of a classifier minimises: over all levels, with the denoiser's noise."""
    return CrossEntropy(times=_times(config), draw=noise(config))


def _weight(config: RunConfig) -> Weight:
    train, family = config.train, config.family
    std = family.std if isinstance(family, schema.KarrasFamily) else 0.5
    weights: dict[str, Weight] = {
        "eps": EpsWeight(),
        "v": VWeight(),
        "x0": X0Weight(),
        "edm": KarrasWeight(std),
        "min_snr": MinSNR(train.min_snr),
    }
    return weights[train.weight]


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
        condition_dropout=train.condition_dropout if config.conditional else 0.0,
        seed=config.seed,
        precision=train.precision,
        max_time=train.max_time,
        checkpoint_every=train.checkpoint_every,
        devices=devices,
        accelerator=accelerator,
        workers=train.workers,
    )


def classifier_plan(config: RunConfig, *, devices: int | str = 1, accelerator: str = "auto") -> Plan:
    """The numbers of the training of the classifier that guides."""
    assert isinstance(config.guidance, schema.ClassifierGuidance)
    net = config.guidance.net
    return replace(
        plan(config, devices=devices, accelerator=accelerator),
        steps=net.steps,
        learning_rate=net.learning_rate,
        weight_decay=net.weight_decay,
        warmup=min(config.train.warmup, net.steps - 1),
        condition_dropout=0.0,
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


def _times(config: RunConfig) -> Times:
    train, family = config.train, config.family
    first, second = train.time_range or (0.0, 0.0)
    match train.times:
        case "log_uniform":
            return LogUniform(first, second)
        case "log_normal" if isinstance(family, schema.KarrasFamily):
            return LogNormal(first, second, low=family.low, high=family.high)
        case "second_moment" if isinstance(family, schema.DiscreteFamily):
            return LossSecondMoment(levels_table(family.schedule), bins=min(family.schedule.steps, 50))
        case "table" if isinstance(family, schema.DDGANFamily):
            return UniformTable(chain(family))
        case "table":
            ladder = isinstance(family, schema.KarrasFamily)
            return UniformTable(
                karras(family.low, family.high, 1000).flip(0) if ladder else levels_table(family.schedule)
            )
    raise ConfigError(f"train.times: {train.times} needs a continuous family (family.kind: karras).")
