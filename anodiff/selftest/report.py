"""What a fitted predictor finds of painted defects, by kind and strength and over all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anodiff.config import RunConfig
from anodiff.data.synthetic import KINDS
from anodiff.detect.predictor import Images, Predictor
from anodiff.errors import DataError
from anodiff.metrics.bootstrap import Interval, percentiles
from anodiff.selftest.choice import Choice
from anodiff.selftest.painting import Painting, planned
from anodiff.selftest.trial import Trial, learnt, observed, trial

DRAWS = 400
"""Resamples behind an interval."""

HALF = 0.5
"""A strength counts as found where this share of its painted pictures, and of every stronger one's, is above the
threshold."""

Row = tuple[str, str, float | None, str, float, float | None, float | None, int]
"""part, name, strength, metric, value, low, high, n: a line of selftest.csv."""


@dataclass(frozen=True)
class Figures:
    """How well some of the painted pictures were found."""

    painted: int
    image_auroc: float
    pixel_auroc: float
    aupro_30: float
    found: float  # share above the threshold
    found_from: float | None = (
        None  # the least strength that is found, see `HALF`; None: not even the strongest
    )


@dataclass(frozen=True)
class Report:
    """The outcome of a self-test.

    Attributes:
        clean: good pictures that were painted on.
        threshold: of the predictor; the highest, where each label has its own.
        overall: the figures over all painted pictures, with intervals from resampling the good pictures.
        found_from: the least strength that is found, over all kinds.
        kinds: the figures of each kind of defect.
        strengths: those of each strength.
    """

    clean: int
    threshold: float
    overall: Mapping[str, Interval]
    found_from: float | None
    kinds: Mapping[str, Figures]
    strengths: Mapping[float, Figures]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as a model file keeps them."""
        return {
            "clean": self.clean,
            "painted": sum(figures.painted for figures in self.kinds.values()),
            "threshold": self.threshold,
            **{
                name: {"value": value.value, "low": value.low, "high": value.high}
                for name, value in self.overall.items()
            },
            "found_from": self.found_from,
            "kinds": {kind: vars(figures) for kind, figures in self.kinds.items()},
            "strengths": {f"{strength:g}": vars(figures) for strength, figures in self.strengths.items()},
        }


def tried(
    predictor: Predictor,
    held: Images,
    config: RunConfig,
    *,
    count: int,
    shape: tuple[int, int],
    say: Callable[[str], None] = lambda text: None,
) -> Report | None:
    """How well the predictor finds defects painted on `held`; None where the configuration asks for no self-test.

    Nothing is learnt here. Of pictures that are too small to be painted on, and where a painted picture has no finite
    score, it is told why there is no report, in place of an error that would cost the fit.

    Args:
        predictor: fitted, with its thresholds.
        held: good pictures that taught the thresholds and nothing else.
        config: of the predictor.
        count: of them.
        shape: height and width of them.
        say: is told what is being done.
    """
    if config.selftest.kind == "none":
        return None
    try:
        defects = planned(
            count, config.selftest, shape=shape, evaluations=predictor.evaluations, seed=config.seed
        )
        say(f"looking for {len(defects)} defects painted on the pictures held out")
        painting = Painting(held, defects)
        found = trial(
            predictor,
            painting,
            observed(predictor, painting.clean()),
            observed(predictor, painting.painted()),
            limit=learnt(predictor),
        )
    except DataError as error:
        say(f"no self-test: {error}")
        return None
    return report(found, threshold=predictor.threshold.value, seed=config.seed)


def report(found: Trial, *, threshold: float, seed: int) -> Report:
    """The figures of a trial, and their intervals over all."""
    kind = np.array([defect.kind for defect in found.defects])
    strength = np.array([defect.strength for defect in found.defects])
    drawn = found.figures(found.draws(draws=DRAWS, seed=seed))
    clean = len(set(found.base.tolist()))
    whole = found.of(np.ones(len(found.defects), dtype=bool))
    overall = {name: percentiles(whole[name], drawn[name], level=0.95, n=found.score.size) for name in whole}
    return Report(
        clean=clean,
        threshold=threshold,
        overall=overall,
        found_from=_least(found.found, strength),
        kinds={
            name: _figures(found, kind == name, _least(found.found[kind == name], strength[kind == name]))
            for name in KINDS
            if (kind == name).any()
        },
        strengths={float(value): _figures(found, strength == value) for value in np.unique(strength)},
    )


def told(found: Report | None, choice: Choice) -> dict[str, Any]:
    """What a model file keeps, under `selftest`; nothing where nothing was tried."""
    kept = {} if found is None else found.to_dict()
    kept |= {"choice": choice.to_dict()} if choice.compared else {}
    return {"selftest": kept} if kept else {}


def unjudged(kept: Mapping[str, Any]) -> dict[str, Any]:
    """A self-test as `told` keeps it without what rests on a threshold that is no longer that of the model."""
    return {
        name: unjudged(value) if isinstance(value, Mapping) else value
        for name, value in kept.items()
        if name not in ("threshold", "found", "found_from")
    }


def rows(kept: Mapping[str, Any]) -> Iterator[Row]:
    """A self-test as `told` keeps it, in long format: what was found, then the candidates compared."""
    if "kinds" in kept:
        yield from _found(kept)
    choice = kept.get("choice", {})
    for entry in choice.get("candidates", ()):
        for metric in ("image_auroc", "pixel_auroc", "mean"):
            yield "candidate", entry["name"], None, metric, entry[metric], None, None, choice["painted"]
        gain = entry["gain"]
        yield "candidate", entry["name"], None, "gain", *gain.values(), choice["painted"]


def _found(kept: Mapping[str, Any]) -> Iterator[Row]:
    for metric in ("image_auroc", "pixel_auroc", "aupro_30", "found"):
        yield "all", "", None, metric, *kept[metric].values(), kept["painted"]
    for part, place in (("strength", kept["strengths"]), ("kind", kept["kinds"])):
        for name, figures in place.items():
            kind, strength = ("", float(name)) if part == "strength" else (name, None)
            for metric, value in figures.items():
                if metric != "painted" and value is not None:
                    yield part, kind, strength, metric, value, None, None, figures["painted"]


def _figures(found: Trial, chosen: NDArray[np.bool_], least: float | None = None) -> Figures:
    return Figures(painted=int(chosen.sum()), **found.of(chosen), found_from=least)


def _least(found: NDArray[np.bool_], strength: NDArray[np.float64]) -> float | None:
    """The least strength from which on at least half are found."""
    least = None
    for value in np.unique(strength)[::-1]:
        if found[strength == value].mean() < HALF:
            break
        least = float(value)
    return least
