"""Which of the pictures given as good look unlike the rest, by name, and what a person should know of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from anodiff.detect.verdicts import HELD, RATE, TAUGHT, Verdicts


@dataclass(frozen=True)
class Suspect:
    """One picture that looks unlike the rest."""

    image: str  # as the table of pictures names it
    split: str  # train or holdout
    score: float
    z: float  # robust deviations above the median of its split
    p_value: float  # conformal, against the other held-out pictures; never below 1 / (n + 1)
    q_value: float  # the least false discovery rate at which it is named

    @property
    def reason(self) -> str:
        """Why it is named, for a person."""
        return (
            f"score {self.score:.4g}, {self.z:.1f} robust deviations above the median of its split; conformal p-value "
            f"{self.p_value:.3g} against the held-out pictures"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values by name."""
        return asdict(self)


@dataclass(frozen=True)
class Suspicion:
    """What came of a look at the pictures that a model was fitted on."""

    found: tuple[Suspect, ...]  # the surest first
    looked_at: int
    threshold: float  # the model's
    threshold_without: float | None = (
        None  # without the held-out ones among them; None: the same, or not known
    )

    @classmethod
    def of(cls, told: Mapping[str, Any], *, threshold: float) -> Suspicion:
        """What `to_dict` told of, with pictures by the name of their file alone."""
        return cls(tuple(Suspect(**entry) for entry in told["found"]), told["looked_at"], threshold)

    def without_held(self, threshold: float) -> Suspicion:
        """What is left to be said once the held-out suspects no longer teach the threshold, which is now another."""
        taught = tuple(suspect for suspect in self.found if suspect.split == TAUGHT)
        return Suspicion(taught, self.looked_at - self.held, threshold)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; pictures by the name of their file alone."""
        return {
            "looked_at": self.looked_at,
            "says": list(self.says),
            "found": [{**found.to_dict(), "image": PurePath(found.image).name} for found in self.found],
        }

    @property
    def held(self) -> int:
        """How many of the suspects were held out."""
        return sum(suspect.split == HELD for suspect in self.found)

    @property
    def says(self) -> tuple[str, ...]:
        """What a person should know, a sentence each; mostly nothing."""
        if not self.found:
            return ()
        one = len(self.found) == 1
        said = [
            f"{len(self.found)} of {self.looked_at} pictures given as good {'looks' if one else 'look'} unlike the "
            f"rest: look at {'it' if one else 'them'}, for a defect among the good ones teaches the model to overlook "
            "its like"
        ]
        if self.threshold_without is not None:
            said.append(
                f"the threshold rests on {self.held} held-out {'picture' if self.held == 1 else 'pictures'} of these: "
                f"it is {self.threshold:.4g}, and {self.threshold_without:.4g} without; what scores between the two "
                "passes as good"
            )
        return tuple(said)


def named(
    images: Mapping[str, list[str]],
    scores: Mapping[str, ArrayLike],
    found: Mapping[str, Verdicts],
    *,
    rate: float = RATE,
) -> tuple[Suspect, ...]:
    """The suspects of all splits, by the name of the split, the surest first; who was not held out was to train on."""
    suspects = []
    for split, verdict in found.items():
        values = np.asarray(scores[split], dtype=np.float64)
        suspects += [
            Suspect(
                image=images[split][row],
                split=HELD if split == HELD else TAUGHT,
                score=float(values[row]),
                z=round(float(verdict.z[row]), 3),
                p_value=float(verdict.p_value[row]),
                q_value=float(verdict.q_value[row]),
            )
            for row in verdict.named(rate)
        ]
    return tuple(sorted(suspects, key=lambda suspect: (suspect.q_value, -suspect.z)))
