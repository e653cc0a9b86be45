"""The codec of a configuration, and what trains it where it is an autoencoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeVar

import torch
from torch import nn

from anodiff.codec.backbone import backbone
from anodiff.codec.feature import FeatureCodec
from anodiff.codec.fuse import fused
from anodiff.codec.latent import LatentCodec
from anodiff.codec.light import Light
from anodiff.codec.perceptual import Perceptual, lpips
from anodiff.codec.pixel import PixelCodec
from anodiff.codec.published import read_autoencoder
from anodiff.config import RunConfig, schema
from anodiff.nets.autoencoder import Autoencoder
from anodiff.nets.patches import PatchDiscriminator
from anodiff.train.autoencoding import Autoencoding, Criticised, Difference
from anodiff.train.plan import Plan

Codec = PixelCodec | FeatureCodec | LatentCodec
Net = TypeVar("Net", bound=nn.Module)

LEARNT = "learnt"
"""Stands for weights that come with the model file, so that no pretrained file is looked for."""


def codec(config: RunConfig, *, weights: str | None = None) -> Codec:
    """The codec of `config`; `weights` overrides where the backbone's, or the published autoencoder's, come from."""
    match config.codec:
        case schema.PixelCodec(patch=patch):
            return PixelCodec(config.data.channels, patch=patch)
        case schema.FeatureCodec() as c:
            found = backbone(c.backbone, c.stages, weights=source(weights or c.weights))
            return FeatureCodec(
                fused(found),
                whitening=c.whitening,
                floor=c.floor,
                local=c.local,
                stride=c.stride,
                fold=c.fold,
                light=_light(config, c.light),
            )
        case schema.LatentCodec() as c:
            net = autoencoder(config)
            if c.weights is not None and weights != LEARNT:
                net.load_state_dict(read_autoencoder(Path(c.weights)).state)
            return LatentCodec(net)


def _light(config: RunConfig, mode: Literal["keep", "equal", "auto"]) -> Light | None:
    """What brings pictures to the same light; of several kinds of parts some may be darker by nature, and `auto` leaves
    them so.
    """
    if mode == "keep" or (mode == "auto" and config.labels.kind != "none"):
        return None
    return Light(mode)


def autoencoder(config: RunConfig) -> Autoencoder:
    """An untrained autoencoder; its first weights are a function of the seed."""
    c = config.codec
    assert isinstance(c, schema.LatentCodec)
    return seeded(
        config,
        lambda: Autoencoder(
            image_channels=config.data.channels,
            channels=c.channels,
            width=c.width,
            multipliers=c.levels,
            blocks=c.blocks,
            attention=c.attention,
            form=c.form,
            codes=c.codes,
            groups=c.groups,
            shortcuts=c.shortcuts,
        ),
    )


def criticised(config: RunConfig, net: nn.Module) -> Criticised:
    """The autoencoder `net` and the discriminator that it is trained against, where it has one."""
    c = config.codec
    assert isinstance(c, schema.LatentCodec)
    if not c.adversarial:
        return Criticised(net)
    return Criticised(net, seeded(config, lambda: PatchDiscriminator(config.data.channels, width=c.critic)))


def autoencoding(config: RunConfig) -> Autoencoding:
    """What the training of an autoencoder is after."""
    c = config.codec
    assert isinstance(c, schema.LatentCodec)
    return Autoencoding(
        features=_difference(c) if c.perceptual else None,
        perceptual=c.perceptual,
        weight=c.kl if c.form == "kl" else 1.0,
        adversarial=c.adversarial,
        start=c.start,
    )


def codec_plan(config: RunConfig, plan: Plan) -> Plan:
    """The numbers of the training of an autoencoder, on the machine of `plan`."""
    c = config.codec
    assert isinstance(c, schema.LatentCodec)
    return replace(
        plan,
        steps=c.steps,
        batch=c.batch,
        learning_rate=c.learning_rate,
        warmup=min(config.train.warmup, c.steps - 1),
        weight_decay=0.0,
        condition_dropout=0.0,
        precision="32-true",
    )


def source(weights: str) -> str:
    """Where a backbone's weights come from: `random` where they are loaded with the model."""
    return "random" if weights == LEARNT else weights


def seeded(config: RunConfig, make: Callable[[], Net]) -> Net:
    """A network whose first weights are a function of the seed, in the layout that is faster on a CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return make().to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _difference(c: schema.LatentCodec) -> Difference:
    if c.lpips is not None:
        return lpips(Path(c.lpips))
    kind = schema.FeatureCodec()
    return Perceptual(fused(backbone(kind.backbone, (0, 1, 2), weights=kind.weights)))
