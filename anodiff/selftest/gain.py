"""What candidates gain over the first by painted defects, and whether that is more than chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anodiff.config.candidates import Candidate
from anodiff.metrics.bootstrap import Interval
from anodiff.selftest.trial import Trial

DRAWS = 500
"""Resamples of the good pictures behind the noise of a gain."""

LEVEL = 0.95
"""Probability that no candidate replaces the configuration where none is better."""

TINY = 1e-9
"""Differences as small come from sums in another order."""


@dataclass(frozen=True)
class Compared:
    """A candidate and what it found."""

    name: str
    changes: Mapping[str, Any]
    image_auroc: float
    pixel_auroc: float
    gain: Interval  # of the mean of the two over that of the configuration as it was; bounds for all candidates at once

    @property
    def mean(self) -> float:
        """What candidates are compared by: the plain mean of the two."""
        return (self.image_auroc + self.pixel_auroc) / 2

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as a model file keeps them."""
        return {
            "name": self.name,
            "image_auroc": self.image_auroc,
            "pixel_auroc": self.pixel_auroc,
            "mean": self.mean,
            "gain": {"value": self.gain.value, "low": self.gain.low, "high": self.gain.high},
        }


def judged(asked: Sequence[Candidate], trials: Sequence[Trial], *, seed: int) -> tuple[list[Compared], int]:
    """What each candidate found, and the number of the one that is taken: the first, unless another is surely better.

    For candidate j with gain D_j over the first, and D*_j, s_j its draws over resampled good pictures and their
    deviation, it replaces the first where

        D_j > c s_j,    c = the 95 % quantile of max_j (D*_j - D_j) / s_j

    so that among many candidates without a gain one is taken in 5 % of cases at most (White 2000,
    doi:10.1111/1468-0262.00152, studentised as in Romano & Wolf 2005, doi:10.1111/j.1468-0262.2005.00615.x). Of several
    the largest gain is taken.

    Args:
        asked: the candidates.
        trials: of each, on the same painted pictures.
        seed: of the resampling.
    """
    every = np.ones((1, trials[0].score.size))
    drawn = trials[0].draws(draws=DRAWS, seed=seed)  # of the same good pictures for all
    figures = [found.figures(every) for found in trials]
    mean = np.array([_mean(found)[0] for found in figures])
    draws = np.stack([_mean(found.figures(drawn)) for found in trials])  # [m, draws]
    gain, gains = mean - mean[0], draws - draws[0]
    bound = _bounds(gain, gains)
    better = np.flatnonzero(gain > bound + TINY)
    best = int(better[np.argmax(gain[better])]) if better.size else 0
    compared = [
        Compared(
            name=candidate.name,
            changes=candidate.changes,
            image_auroc=float(found["image_auroc"][0]),
            pixel_auroc=float(found["pixel_auroc"][0]),
            gain=Interval(float(g), float(g - b), float(g + b), trials[0].score.size),
        )
        for candidate, found, g, b in zip(asked, figures, gain, bound, strict=True)
    ]
    return compared, best


def _bounds(gain: NDArray[np.float64], gains: NDArray[np.float64]) -> NDArray[np.float64]:
    """How large each gain [m] may be by chance, from its draws [m, draws]: `c s_j`, see `choose`."""
    off = gains - gain[:, None]
    off = np.where(np.abs(off) < TINY, 0.0, off)
    deviation = off.std(axis=1)
    moved = deviation > 0
    if not moved.any():
        return np.zeros(gain.shape)
    highest = (off[moved] / deviation[moved, None]).max(axis=0)  # [draws]
    return max(0.0, float(np.quantile(highest, LEVEL))) * deviation


def _mean(figures: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    return (figures["image_auroc"] + figures["pixel_auroc"]) / 2
