"""False alarms among good pictures beside the number that a split-conformal threshold lets expect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor

import numpy as np
from scipy.stats import betabinom, binomtest

from anodiff.errors import ConfigError, DataError
from anodiff.metrics.bootstrap import Interval
from anodiff.metrics.curve import Floats


@dataclass(frozen=True)
class Counted:
    """The good pictures that one threshold judged."""

    alarms: int  # flagged
    pictures: int  # judged
    held: int  # held-out normals that the threshold was learnt from


@dataclass(frozen=True)
class FalseAlarms(Interval):
    """The share of good pictures flagged, its Wilson interval, and what the promised rate lets expect of so many.

    `expected_low` and `expected_high` hold at least 95 % of what a sound model shows on `n` good pictures; `p_value` is
    the chance of as many alarms or more.
    """

    promised: float
    expected_low: float
    expected_high: float
    p_value: float


def false_alarms(counted: Sequence[Counted], *, promised: float, level: float = 0.95) -> FalseAlarms:
    """The false alarms of good pictures, judged by one threshold or one a label, against their exact law.

    A threshold learnt from n held-out normals for the rate a flags what scores above their l-th largest score, with
    l = floor(a (n + 1)). Its rate on further normals is itself a draw, Beta(l, n + 1 - l) for scores without ties
    (Vovk 2012, arXiv:1209.2673, prop. 2; Angelopoulos & Bates 2021, arXiv:2107.07511, section 3.2), so that of m
    pictures

        K ~ BetaBinomial(m, l, n + 1 - l)        E K / m = l / (n + 1) <= a

    are flagged; ties only lower it. Thresholds of several labels are independent, their alarms add up.

    Args:
        counted: one entry a threshold.
        promised: the rate a.
        level: share of the law between the bounds, and of the interval.

    Raises:
        DataError: no good picture.
        ConfigError: a threshold from so few normals that it supports no such rate.
    """
    pictures = sum(group.pictures for group in counted)
    alarms = sum(group.alarms for group in counted)
    law = np.ones(1)
    for group in counted:
        if group.pictures:
            law = np.convolve(law, _law(group.pictures, group.held, promised))  # [sum m + 1]
    below = np.cumsum(law)
    share = flagged(alarms, pictures, level=level)
    return FalseAlarms(
        value=share.value,
        low=share.low,
        high=share.high,
        n=pictures,
        promised=promised,
        expected_low=_quantile(below, (1 - level) / 2) / pictures,
        expected_high=_quantile(below, (1 + level) / 2) / pictures,
        p_value=float(min(1.0, law[alarms:].sum())),
    )


def flagged(alarms: int, pictures: int, *, level: float = 0.95) -> Interval:
    """The share of pictures flagged and its Wilson interval; DataError without a picture."""
    if not pictures:
        raise DataError("A false-alarm rate needs at least one good picture that was scored, got none.")
    likely = binomtest(alarms, pictures).proportion_ci(level, method="wilson")
    return Interval(alarms / pictures, float(likely.low), float(likely.high), pictures)


def rank(held: int, rate: float) -> int:
    """The l of `false_alarms`: which of the largest scores of `held` normals is the threshold."""
    found = floor(rate * (held + 1) + 1e-9)
    if not 1 <= found <= held:
        raise ConfigError(
            f"A threshold from {held} normals stands for a rate between {1 / (held + 1):.3g} and "
            f"{held / (held + 1):.3g}, got {rate:g}."
        )
    return found


def _law(pictures: int, held: int, rate: float) -> Floats:
    """The chance [m + 1] of 0 to m alarms among m pictures."""
    place = rank(held, rate)
    return np.asarray(
        betabinom.pmf(np.arange(pictures + 1), pictures, place, held + 1 - place), dtype=np.float64
    )


def _quantile(below: Floats, share: float) -> int:
    """The least number of alarms whose cumulated chance [m + 1] reaches `share`."""
    return int(min(np.searchsorted(below, share - 1e-12), below.size - 1))
