"""What is usual, learnt for each label by itself: several kinds of parts in one model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from anodiff.cond import Cond
from anodiff.detect.calibrate import Calibration
from anodiff.detect.restore import Model
from anodiff.detect.scorer import Maps, Observation, Observations, Parts, Scorer
from anodiff.detect.threshold import Threshold
from anodiff.errors import ConfigError, DataError

Labelled = tuple[Tensor, Tensor]
"""Rows [B, ...] and the label [B] of each."""


class ScorerByLabel(Scorer):
    """One scorer a label, all of one kind: what a picture shows is weighed by the law of its own label's normals.

    An observation has one more part, the label [B].
    """

    def __init__(self, scorers: Sequence[Scorer]) -> None:
        super().__init__()
        self.scorers = cast("Sequence[Scorer]", nn.ModuleList(scorers))
        self.width = self.scorers[0].width + 1

    @property
    def evaluations(self) -> int:
        """Those of one scorer: a picture has one label."""
        return self.scorers[0].evaluations

    @property
    def opinions(self) -> int:
        """Those of one scorer, likewise."""
        return self.scorers[0].opinions

    def observe(self, model: Model, image: Tensor, cond: Cond) -> Observation:
        """What the first scorer observes, which depends on nothing learnt, and the label."""
        if cond.label is None:
            raise ConfigError("A scorer by label needs the label of each picture: Cond(label=...).")
        found = self.scorers[0].observe(model, image, cond)
        return Observation((*found.parts, cond.label), found.restored)

    def weigh(self, parts: Parts) -> Tensor:
        """The map [B, 1, h, w], each row weighed by its label's scorer."""
        *own, label = parts
        return _each(
            lambda k, rows: self.scorers[k].weigh(tuple(part[rows] for part in own)), label, len(self.scorers)
        )

    @property
    def places(self) -> bool:
        """Whether they have a map of their own that shows where."""
        return self.scorers[0].places

    def maps(self, parts: Parts) -> Maps:
        """Both maps, each row's by its label's scorer."""
        score = self.weigh(parts)
        if not self.places:
            return Maps(score, score)
        *own, label = parts
        place = _each(
            lambda k, rows: self.scorers[k].maps(tuple(part[rows] for part in own)).place,
            label,
            len(self.scorers),
        )
        return Maps(score, place)

    def learn(self, observations: Observations) -> None:
        """Teach each scorer with the pictures of its label."""
        for k, scorer in enumerate(self.scorers):
            scorer.learn(lambda k=k: self._of(k, observations))

    def temper(self, strangers: Observations) -> None:
        """Correct each scorer by the pictures of its label."""
        for k, scorer in enumerate(self.scorers):
            scorer.temper(lambda k=k: self._of(k, strangers))

    @staticmethod
    def _of(k: int, observations: Observations) -> Iterator[Parts]:
        for *own, label in observations():
            rows = label == k
            if bool(rows.any()):
                yield tuple(part[rows] for part in own)


class CalibrationByLabel(nn.Module):
    """One calibration a label."""

    def __init__(self, calibrations: Sequence[Calibration]) -> None:
        super().__init__()
        self.calibrations = cast("Sequence[Calibration]", nn.ModuleList(calibrations))

    @property
    def others(self) -> bool:
        """As each calibration."""
        return self.calibrations[0].others

    def learn(self, maps: Callable[[], Iterable[Labelled]]) -> None:
        """Teach each with the maps [B, 1, h, w] of its label's normals; one pass a label."""
        for k, calibration in enumerate(self.calibrations):
            calibration.learn(m[label == k] for m, label in maps() if bool((label == k).any()))

    def forward(self, maps: Tensor, label: Tensor) -> Tensor:
        """The calibrated maps [B, 1, h, w]."""
        return _each(lambda k, rows: self.calibrations[k](maps[rows]), label, len(self.calibrations))


def calibrated(calibration: Calibration | CalibrationByLabel, maps: Tensor, label: Tensor | None) -> Tensor:
    """The calibrated maps [B, 1, h, w], each by its label [B] where that is asked for."""
    if isinstance(calibration, CalibrationByLabel):
        assert label is not None  # a calibration by label comes with a labeller
        return calibration(maps, label)
    return calibration(maps)


def settle(
    calibration: Calibration | CalibrationByLabel,
    maps: Callable[[], Iterable[tuple[Tensor, Tensor | None]]],
) -> None:
    """Teach it with the maps [B, 1, h, w] of normals and the label [B] of each; each call goes once through them."""
    if isinstance(calibration, CalibrationByLabel):
        calibration.learn(lambda: ((m, label) for m, label in maps() if label is not None))
    else:
        calibration.learn(m for m, _ in maps())


class ThresholdByLabel(nn.Module):
    """One threshold a label, from the scores of its own held-out normals: the rate holds for each by itself."""

    def __init__(self, thresholds: Sequence[Threshold], names: Sequence[str]) -> None:
        super().__init__()
        self.thresholds = cast("Sequence[Threshold]", nn.ModuleList(thresholds))
        self.names = tuple(names)

    def learn(self, scores: Tensor, label: Tensor) -> None:
        """Learn from scores [n] of held-out normals and the label [n] of each; DataError for a label without any."""
        for k, threshold in enumerate(self.thresholds):
            own = scores[label == k]
            if not own.numel():
                raise DataError(
                    f"Expected held-out good pictures of {self.names[k]!r} to learn its threshold from, got none."
                )
            threshold.learn(own)

    def add(self, scores: Tensor, label: Tensor) -> None:
        """Take scores [m] of further normals in, each to those of its label [m]; labels without any stay."""
        for k, threshold in enumerate(self.thresholds):
            own = scores[label == k]
            if own.numel():
                threshold.add(own)

    def held_of(self, label: Tensor) -> list[Tensor]:
        """The scores of the held-out normals of each label [B], ascending, on the CPU."""
        held = [threshold.held for threshold in self.thresholds]
        return [held[k] for k in label.tolist()]

    @property
    def counts(self) -> dict[str, int]:
        """How many held-out normals each label's threshold rests on, by name."""
        return {name: len(t.held) for name, t in zip(self.names, self.thresholds, strict=True)}

    @property
    def count(self) -> int:
        """How many held-out normals the least of the thresholds rests on."""
        return min(self.counts.values())

    @property
    def values(self) -> dict[str, float]:
        """The threshold of each label by name."""
        return {name: t.value for name, t in zip(self.names, self.thresholds, strict=True)}

    @property
    def value(self) -> float:
        """The highest of all: above it a picture is anomalous whatever its label."""
        return max(self.values.values())

    def of(self, label: Tensor) -> Tensor:
        """The threshold [B] of each label [B], float64 on the CPU."""
        return torch.tensor([t.value for t in self.thresholds], dtype=torch.float64)[label.cpu()]

    def p_value(self, scores: Tensor, label: Tensor) -> Tensor:
        """Conformal p-values [B] against the held-out normals of each label, as `Threshold.p_value`."""
        return _each(lambda k, rows: self.thresholds[k].p_value(scores[rows]), label, len(self.thresholds))


def known(label: Tensor | None) -> Tensor:
    """The labels: whatever is by label comes with a model that has them."""
    assert label is not None
    return label


def _each(of: Callable[[int, Tensor], Tensor], label: Tensor, count: int) -> Tensor:
    """`of(k, rows of label k)` for every label there is, put back in the order of the batch."""
    found: Tensor | None = None
    for k in range(count):
        rows = label == k
        if not bool(rows.any()):
            continue
        part = of(k, rows)
        if found is None:
            found = part.new_empty(len(label), *part.shape[1:])
        found[rows] = part
    if found is None:
        raise ConfigError(f"Expected labels from 0 to {count - 1}, got {label.tolist()[:8]}.")
    return found
