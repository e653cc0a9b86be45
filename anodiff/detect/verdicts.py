"""How unlike the rest the score of each picture is, told from the scores alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import false_discovery_control, t

RATE = 0.1
"""The share of good pictures among the named ones that is accepted, on average (false discovery rate)."""

FEWEST = 8
"""Pictures of one label at least, for a median and a deviation that mean something; fewer are not judged."""

TAUGHT, HELD = "train", "holdout"
"""The names of the splits that are always there."""

_ROUNDS = 10
_MAD = 1.4826  # times the median absolute deviation is the deviation of a normal law
_EFFICIENCY = (
    0.37  # n deviations taken by their median are as certain as .37 n squared ones (Huber 1981, ch. 5)
)

Floats = NDArray[np.float64]


Straight = Callable[[Floats, Floats], Floats]
"""(scores, those of the pictures that taught) -> values that are nearly normal above their median"""

Near = Callable[[Floats], list[Floats]]
"""Distances from the median -> those whose median may be the deviation, the fewest last"""


@dataclass(frozen=True)
class Law:
    """How scores of good pictures are told from others."""

    straight: Straight
    near: Near


@dataclass(frozen=True, eq=False)
class Verdicts:
    """What is said of each picture of one split, arrays [n]; NaN and 1 where there were too few to judge."""

    z: Floats
    p_value: Floats
    q_value: Floats

    def named(self, rate: float) -> list[int]:
        """The rows that are named at a false discovery rate, the surest first."""
        rows = np.flatnonzero(self.q_value <= rate)
        return [int(row) for row in rows[np.lexsort((-self.z[rows], self.q_value[rows]))]]


def verdicts(
    scores: Mapping[str, ArrayLike],
    labels: Mapping[str, ArrayLike | None] | None = None,
    *,
    rate: float = RATE,
    law: Law | None = None,
) -> dict[str, Verdicts]:
    """What is said of the pictures of each split: those that taught, those held out and those kept apart.

    Scores of normals are skewed; x are values made of them that are nearly normal, their logarithms if nothing else is
    asked for. With m the median and d = 1.4826 median |x - m|, both of which a few defects hardly move,

        z = (x - m) / d,    p = P(T > z / sqrt(1 + 1.57 / n)),    T Student's t with .37 k degrees of freedom,

    k of n distances give d, and q is the p-value after Benjamini and Hochberg (1995): naming all with q <= a, a share a
    at most of the named is good, on average, as far as the law holds. m and d are then taken anew without the named,
    until no more are. The conformal p-values beside it ask for no law (Bates et al. 2023, arXiv:2104.08279), but n
    held-out pictures leave them at 1 / (n + 1) or above, which no correction for hundreds of pictures gets past;
    defects among the held-out only raise them.

    Nothing but the conformal p-value that is said of other pictures looks at the held-out ones. A fit without the
    suspects among the others therefore still treats held-out pictures as strangers. What is said of a split that the
    networks never saw takes its own median, which is higher, and the deviation of it and of those that taught, or its
    own, whichever is larger.

    Args:
        scores: by the name of the split, [n] each. `TAUGHT`: those that taught, best by what others taught
            (`crossed_maps`); `HELD`: those held out; others: further pictures that the networks never saw.
        labels: likewise, [n] each, where the model has labels; each label is judged by itself.
        rate: a; pictures with q <= a are left out of m and d.
        law: of good pictures' scores; None: `LOGARITHMS`. Scores fused from surprises ask for `SURPRISES`, under which
            d is the larger of the above and 1.4826 times the median of x - m where x > m.
    """
    law = law or LOGARITHMS
    values = {split: _floats(given) for split, given in scores.items()}
    known = labels or {}
    kinds = {split: _kinds(len(given), known.get(split)) for split, given in values.items()}
    judged = [kind for kind in np.unique(kinds[TAUGHT]) if (kinds[TAUGHT] == kind).sum() >= FEWEST]
    rows = {kind: {split: own == kind for split, own in kinds.items()} for kind in judged}
    found = {split: _untold(len(given)) for split, given in values.items()}
    for of in rows.values():
        held = values[HELD][of[HELD]]
        for split, chosen in of.items():
            own = values[split][chosen]
            found[split].p_value[chosen] = _against_others(own) if split == HELD else _conformal(own, held)
    for _ in range(_ROUNDS):
        usual = {split: verdict.q_value > rate for split, verdict in found.items()}
        for of in rows.values():
            x = {split: law.straight(values[split][of[split]], values[TAUGHT][of[TAUGHT]]) for split in of}
            apart = {split: _apart(x[split], usual[split][of[split]]) for split in of if len(x[split])}
            for split, own in apart.items():
                parts = [own] if split == TAUGHT else [np.concatenate([apart[TAUGHT], own]), own]
                told = _tail(x[split], usual[split][of[split]], parts, law.near)
                found[split].z[of[split]], found[split].q_value[of[split]] = told
        for verdict in found.values():
            verdict.q_value[:] = _controlled(verdict.q_value)
        if all((usual[split] == (found[split].q_value > rate)).all() for split in found):
            break
    return found


def _untold(count: int) -> Verdicts:
    return Verdicts(np.full(count, np.nan), np.full(count, np.nan), np.ones(count))


def _kinds(count: int, label: ArrayLike | None) -> NDArray[np.int64]:
    return np.zeros(count, np.int64) if label is None else np.asarray(label, np.int64)


def _floats(scores: ArrayLike) -> Floats:
    return np.asarray(scores, dtype=np.float64)


def _logarithms(scores: Floats, taught: Floats) -> Floats:
    """The logarithms of scores, the lowest held up; themselves where many of those that taught are not positive."""
    if np.quantile(taught, 0.25) <= 0:  # a calibrated map may lie below what is usual
        return scores
    return np.log(np.maximum(scores, 1e-3 * np.median(taught)))


def _tempered(scores: Floats, taught: Floats) -> Floats:
    """`|s|^(3/4)` with the sign of s."""
    del taught
    return np.sign(scores) * np.abs(scores) ** 0.75


def _halves(apart: Floats) -> list[Floats]:
    """All distances, and those of the upper half alone."""
    return [np.abs(apart), apart[apart > 0]] if (apart > 0).any() else [np.abs(apart)]


LOGARITHMS = Law(_logarithms, lambda apart: [np.abs(apart)])
"""Of scores that are squared distances or sums of such."""

SURPRISES = Law(_tempered, _halves)
"""Of scores that are surprises, which are logarithms of chances already: many are next to nothing, so that logarithms
would have a far wider half below the median than above."""


def _apart(x: Floats, usual: NDArray[np.bool_]) -> Floats:
    """How far the usual ones of `x` lie from their median, upwards or downwards."""
    return x[usual] - np.median(x[usual])


def _tail(x: Floats, usual: NDArray[np.bool_], apart: list[Floats], near: Near) -> tuple[Floats, Floats]:
    """Robust z and the chance of one as high, of values `x` [n]; the widest of `apart` gives the deviation."""
    least = 1e-9 * max(1.0, float(np.abs(x).max()))  # equal scores differ by rounding alone
    deviation = max(least, *(_MAD * float(np.median(part)) for whole in apart for part in near(whole)))
    z = (x - np.median(x[usual])) / deviation
    doubt = np.sqrt(1 + np.pi / 2 / usual.sum())  # of the median: pi / 2 times that of the mean
    known = len(near(apart[0])[-1])
    return z, t.sf(z / doubt, max(1.0, _EFFICIENCY * known))


def _controlled(p: Floats) -> Floats:
    return false_discovery_control(p) if len(p) else p


def _conformal(scores: Floats, held: Floats) -> Floats:
    return (1 + len(held) - np.searchsorted(np.sort(held), scores, side="left")) / (len(held) + 1)


def _against_others(held: Floats) -> Floats:
    """The conformal p-value of each held-out picture against the others: itself is the one that is added."""
    return (len(held) - np.searchsorted(np.sort(held), held, side="left")) / len(held)
