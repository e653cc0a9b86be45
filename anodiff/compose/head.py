"""The head of a configuration, which marks evidence, and how it is trained."""

from __future__ import annotations

from dataclasses import replace

from anodiff.compose.codec import seeded
from anodiff.compose.training import plan
from anodiff.config import RunConfig, schema
from anodiff.nets.head import Head
from anodiff.train.marked import Marked
from anodiff.train.plan import Plan

WARMUP = 20
"""Steps of a head's training in which its learning rate rises, at most."""


def head(config: RunConfig, channels: int) -> Head | None:
    """An untrained head on the evidence of codes of `channels` channels, where the score asks for one."""
    score = config.score
    if not isinstance(score, schema.OneStep) or not isinstance(section := score.head, schema.LearnedHead):
        return None
    evidence = (len(score.sigmas) + 1) * channels  # a residual a level, and the code
    return seeded(config, lambda: Head(evidence, width=section.width, depth=section.depth))


def head_objective(config: RunConfig) -> Marked:
    """What the training of a head minimises; the same for all."""
    return Marked()


def head_plan(config: RunConfig, *, devices: int | str = 1, accelerator: str = "auto") -> Plan:
    """The numbers of a head's training."""
    section = getattr(config.score, "head", None)
    assert isinstance(section, schema.LearnedHead)  # there is a head to train
    run = plan(config, devices=devices, accelerator=accelerator)
    return replace(
        run,
        steps=section.steps,
        batch=section.batch,
        learning_rate=section.learning_rate,
        schedule="cosine",
        warmup=min(WARMUP, section.steps - 1),
        condition_dropout=0.0,
        precision="32-true",
    )
