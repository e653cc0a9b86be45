"""The noise levels of a configuration: whether its score can ask them of its model, told before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from anodiff.compose.model import of_family
from anodiff.config import RunConfig, schema
from anodiff.diffusion.levels import Levels, level, spaced
from anodiff.errors import ConfigError, RefusalError

NEAR = 0.1
"""How far, by ratio, a level may lie from the entry it stands for where a model draws: its few levels are far apart,
and another one would be another score. A judgement; a table of hundreds has an entry near everything."""

LISTED = 16
"""Levels that a sentence names one by one."""


def levels_of(config: RunConfig) -> Levels:
    """What the denoiser of `config` will be trained for; no network is built."""
    return of_family(config, nn.Identity()).levels


def check_levels(config: RunConfig) -> None:
    """Nothing, when the model will have every noise level that its score asks for, and as many steps below.

    Raises:
        ConfigError: with the key, and the levels there are.
    """
    match config.score:
        case schema.Bound(steps=1, kind=kind) | schema.Flow(steps=1, kind=kind):
            raise ConfigError(f"score.steps: a {kind} lies between levels; take 2 or more, got 1.")
        case schema.Flow(low=low, high=high) if low >= high:
            raise ConfigError(f"score.low: {low:g} should lie below score.high: {high:g}.")
    known = levels_of(config)
    for key, asked, steps in _asked(config.score):
        where = f"score.{key}: {asked:g}"
        if not _has(known, asked):
            raise ConfigError(f"{where} is no noise level of this model, which has {_told(known)}.")
        try:
            spaced(known, steps, start=asked)
        except ConfigError as error:
            raise ConfigError(f"score.steps does not fit {where}: {error}.") from None


def _asked(score: schema.Score) -> Iterator[tuple[str, float, int]]:
    """Key and value of each noise level of a score, and the levels that its grid has from there down."""
    match score:
        case schema.OneStep(sigmas=sigmas):
            yield from (("sigmas", sigma, 1) for sigma in sigmas if sigma)
        case schema.PartialNoise(levels=starts, steps=steps):
            yield from (("levels", start, steps) for start in starts)
        case schema.Opinion(levels=starts):
            yield from (("levels", start, 1) for start in starts)
        case (
            schema.Inversion(level=start, steps=steps)
            | schema.Repair(level=start, steps=steps)
            | schema.Detail(level=start, steps=steps)
            | schema.Bound(level=start, steps=steps)
        ):
            yield "level", start, steps
        case schema.Flow(low=low, high=high):
            yield "low", low, 1
            yield "high", high, 1


def _has(known: Levels, asked: float) -> bool:
    try:
        known.check(asked)
    except RefusalError:
        return False
    if known.table is None or not known.draws:
        return True
    entry = float(known.table[known.index(level(asked))])
    return max(asked, entry) <= (1 + NEAR) * min(asked, entry)


def _told(known: Levels) -> str:
    # four digits: rounded so, a level is still inside the tolerance of `Levels.check` when it is typed in again
    if known.table is None:
        return (
            f"those from {known.low:.4g} to {known.high:.4g} (family.low, family.high); choose one of these"
        )
    origin = "family.schedule times family.std" if known.draws else "family.schedule"
    if len(known.table) > LISTED:
        return f"{len(known.table)} from {known.low:.4g} to {known.high:.4g} ({origin}); choose one between"
    *most, last = (f"{float(entry):.4g}" for entry in known.table)
    return f"{', '.join(most)} and {last} ({origin}); choose among these"
