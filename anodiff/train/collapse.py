"""Whether a game of generator and critic goes wrong: what its figures say of the last steps, in words."""

from __future__ import annotations

import math
from collections.abc import Sequence

from anodiff.train.adversarial import FIGURES
from anodiff.train.record import Row

WINDOW = 100
"""Steps that a judgement looks back over; fewer say nothing."""

SATURATED = 0.9
"""The critic's mean probability of real pairs, less that of fake ones, above which it tells them apart too well."""

NARROW = 0.3
"""The share of the data's deviation below which drawn rows are called alike."""


def figures(rows: Sequence[Row]) -> dict[str, float]:
    """The means of the last steps' figures by name, where there were any that are numbers."""
    recent = [row.more for row in rows[-WINDOW:] if len(row.more) == len(FIGURES)]
    found = {}
    for name, values in zip(FIGURES, zip(*recent, strict=True), strict=False):
        numbers = [value for value in values if math.isfinite(value)]
        if numbers:
            found[name] = sum(numbers) / len(numbers)
    return found


def alarms(rows: Sequence[Row]) -> tuple[str, ...]:
    """What is wrong in the last `WINDOW` steps, a sentence each; nothing where all is well or steps are few.

    Two things are watched: a critic that is sure of every pair, from which the generator learns no more, and a
    generator that draws the same whatever its latent (mode collapse). The limits are judgements, not laws.
    """
    if len(rows) < WINDOW:
        return ()
    now = figures(rows)
    found = []
    gap = now.get("real", 0.0) - now.get("fake", 0.0)
    if gap > SATURATED:
        found.append(
            f"the critic tells real from drawn pairs nearly always (probability {now['real']:.2f} against "
            f"{now['fake']:.2f}): the generator learns little; raise family.r1 or lower family.critic_rate"
        )
    if now.get("diversity", 1.0) < NARROW:
        found.append(
            f"what the chain draws varies {now['diversity']:.2f} times as much as the data: the generator "
            "may have collapsed; raise family.r1 or family.schedule.steps, or lower train.learning_rate"
        )
    return tuple(found)
