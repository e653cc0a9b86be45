"""Whether a game with a critic goes wrong: what its figures say of the last steps, in words."""

from __future__ import annotations

import math
from collections.abc import Sequence

from anodiff.train.adversarial import FIGURES
from anodiff.train.autoencoding import FIGURES as REBUILT
from anodiff.train.record import Row

WINDOW = 100
"""Steps that a judgement looks back over; fewer say nothing."""

SATURATED = 0.9
"""The critic's mean probability of real pairs, less that of fake ones, above which it tells them apart too well."""

NARROW = 0.3
"""The share of the data's deviation below which drawn rows are called alike."""

SURE = 0.1
"""The hinge loss of a critic, 2 where it knows nothing, below which it tells pictures apart too well."""

UNUSED = 0.1
"""The share of a codebook below which the codes in use are called too few."""


def figures(rows: Sequence[Row], names: Sequence[str] = FIGURES) -> dict[str, float]:
    """The means of the last steps' figures by name, where there were any that are numbers."""
    return {name: sum(values) / len(values) for name, values in _numbers(rows, names).items()}


def _numbers(rows: Sequence[Row], names: Sequence[str]) -> dict[str, list[float]]:
    """The figures of the last steps that are numbers, by name, where there are any."""
    recent = [row.more for row in rows[-WINDOW:] if len(row.more) == len(names)]
    columns = zip(names, zip(*recent, strict=True), strict=False)
    found = {name: [value for value in values if math.isfinite(value)] for name, values in columns}
    return {name: values for name, values in found.items() if values}


def alarms(rows: Sequence[Row]) -> tuple[str, ...]:
    """What is wrong in the last `WINDOW` steps, a sentence each; nothing where all is well or steps are few.

    Two things are watched: a critic that is sure of every pair, at one level or at all, from which the generator learns
    no more there, and a generator that draws the same whatever its latent (mode collapse). The limits are judgements,
    not laws.
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
    elif now.get("gap", 0.0) > SATURATED:
        found.append(
            f"at one of its noise levels the critic tells real from drawn pairs nearly always (probabilities "
            f"{now['gap']:.2f} apart, {gap:.2f} over all levels): the generator learns little there; raise "
            "family.r1 or lower family.critic_rate"
        )
    if now.get("diversity", 1.0) < NARROW:
        found.append(
            f"what the chain draws varies {now['diversity']:.2f} times as much as the data: the generator "
            "may have collapsed; raise family.r1 or family.schedule.steps, or lower train.learning_rate"
        )
    return tuple(found)


def rebuilt_alarms(rows: Sequence[Row]) -> tuple[str, ...]:
    """What is wrong in the last `WINDOW` steps of an autoencoder, a sentence each; nothing where steps are few.

    Two things are watched: a codebook of which hardly any code is ever chosen (codebook collapse), and a critic that is
    sure of every place of every picture. The use of codes is counted anew after each revival, so the most that was
    seen counts, not the mean. The limits are judgements, not laws.
    """
    if len(rows) < WINDOW:
        return ()
    found = []
    seen = _numbers(rows, REBUILT)
    used = max(seen.get("used", [1.0]))
    if used < UNUSED:
        found.append(
            f"only {used:.0%} of the codes are in use: the codebook has collapsed; lower codec.codes, or train longer"
        )
    critic = seen.get("critic_loss", [])
    if len(critic) == WINDOW and sum(critic) / WINDOW < SURE:
        found.append(
            f"the critic tells pictures from reconstructions nearly always (hinge loss {sum(critic) / WINDOW:.2f} of "
            "2): it teaches the decoder little; lower codec.critic, or raise codec.start"
        )
    return tuple(found)
