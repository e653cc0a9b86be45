"""How a network is trained: the numbers of one run, without any machinery."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from anodiff.errors import ConfigError

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")

TINY = 1e-3
"""Seconds of a run that no time is left for; it ends after one step."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The numbers of one training run; the outcome on a CPU is a function of them, the data and the first weights.

    `max_time`, `checkpoint_every`, `keep`, `devices`, `accelerator`, `strategy` and `workers` say how the run is
    carried out and may change between an interruption and its resumption; all others may not.
    """

    steps: int  # optimiser steps in all
    batch: int = 16  # pictures a step, over all devices
    learning_rate: float = 2e-4  # highest value
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: int = 0  # steps of linear rise
    weight_decay: float = 0.0  # AdamW (arXiv:1711.05101), on matrices and kernels only
    clip: float | None = 1.0  # largest gradient norm; None = free
    ema: float = 0.9999  # cap of the decay, reached slowly; 0 = the weights themselves
    condition_dropout: float = 0.0  # share of rows trained with the null condition (arXiv:2207.12598)
    seed: int = 0
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    max_time: float | None = None  # seconds over all resumptions; None = no end
    checkpoint_every: int = 250  # steps
    keep: tuple[int, ...] = ()  # steps after which the average is kept as it then stands
    devices: int | str = 1
    accelerator: str = "auto"
    strategy: str = "auto"
    workers: int = 0  # processes that read pictures ahead

    def check(self) -> None:
        """Nothing, or ConfigError that names the first number that makes no sense.

        Raises:
            ConfigError: a number outside its range.
        """
        rules = (
            ("steps", self.steps >= 1, "at least 1"),
            ("batch", self.batch >= 1, "at least 1"),
            ("learning_rate", 0 < self.learning_rate < math.inf, "above 0"),
            ("schedule", self.schedule in ("cosine", "constant"), "'cosine' or 'constant'"),
            ("warmup", 0 <= self.warmup < self.steps or self.warmup == 0, "from 0 to below train.steps"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, "0 or above"),
            ("clip", self.clip is None or self.clip > 0, "above 0, or null"),
            ("ema", 0 <= self.ema < 1, "from 0 to below 1"),
            ("condition_dropout", 0 <= self.condition_dropout < 1, "from 0 to below 1"),
            ("precision", self.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}"),
            ("max_time", self.max_time is None or self.max_time > 0, "seconds above 0, or null"),
            ("checkpoint_every", self.checkpoint_every >= 1, "at least 1"),
            ("keep", all(1 <= step <= self.steps for step in self.keep), "from 1 to train.steps each"),
            ("workers", self.workers >= 0, "0 or above"),
        )
        for name, holds, wanted in rules:
            if not holds:
                raise ConfigError(f"train.{name} must be {wanted}, got {getattr(self, name)!r}")


def in_turn(plans: Sequence[Plan], *, spent: float = 0.0) -> Plan:
    """The first of runs that follow each other and have `max_time` together, with its share of what is left of it.

    That share is the one its steps have of all to come: `max_time_0 = (max_time - spent) steps_0 / sum_j steps_j`.
    What a run leaves of its share is thereby dealt out to those after it.

    Args:
        plans: of the runs still to come, in their order.
        spent: seconds that those before them took.
    """
    first = plans[0]
    if first.max_time is None:
        return first
    left = max(first.max_time - spent, TINY)
    return replace(first, max_time=left * first.steps / sum(plan.steps for plan in plans))


def rate(plan: Plan, step: int) -> float:
    """The learning rate of step `step` (0-based): a linear rise, then half a cosine to zero, or flat.

    Source of the cosine: arXiv:1608.03983, eq. 5.
    A pure function of the step, so that a resumed run needs no schedule state.
    """
    if step < plan.warmup:
        return plan.learning_rate * (step + 1) / plan.warmup
    if plan.schedule == "constant":
        return plan.learning_rate
    share = (step - plan.warmup) / (plan.steps - plan.warmup)
    return plan.learning_rate * 0.5 * (1 + math.cos(math.pi * share))
