"""What a predictor is taught by normals: what is usual for its scorer and its maps, then its thresholds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from anodiff.detect.bylabel import ThresholdByLabel, known, settle
from anodiff.detect.crossed import Crossed, Observed, all_labels, crossed_maps
from anodiff.detect.predictor import Images, Predictor
from anodiff.detect.scorer import Maps
from anodiff.errors import DataError

Seen = Callable[[], Iterable[Observed]]
"""Every call goes once through the observations of the same normals, in the same order."""


@dataclass(frozen=True, eq=False)
class Lesson:
    """The scores of the normals that were learnt from, in their order, on the CPU."""

    shown: Tensor  # [n] of those that taught what is usual, scored by what the others of them taught
    shown_label: Tensor | None  # [n] where the model has labels
    held: Tensor  # [m] of the held-out, which taught the thresholds alone
    held_label: Tensor | None  # [m] likewise
    apart: Tensor | None = None  # [k] of the strangers, which taught how far evidence is believed
    apart_label: Tensor | None = None  # [k] likewise


@dataclass(frozen=True, eq=False)
class Judged:
    """What normals were found to be, one row a picture."""

    score: Tensor  # [n]
    maximum: Tensor  # [n] of the calibrated map
    label: Tensor | None  # [n] where the model has labels


@torch.no_grad()
def learn(predictor: Predictor, normals: Images, held: Images, *, strangers: Images | None = None) -> Lesson:
    """Learn what is usual from `normals`, then the thresholds from `held`; their scores, to look for strangers.

    Scorer and calibration ask for many pictures and may take those the networks were trained on, as long as these
    are not learnt by heart. A threshold must come from scores of strangers: `held` taught nothing else, so that the
    stated rate is that of split-conformal prediction, without a correction. `strangers` are further normals the
    networks were not trained on: they correct how far each kind of evidence is believed.

    A global calibration is learnt from maps that a picture had no part in, wherever they can be had: a law learnt
    by heart leaves hardly anything of its own pictures, and the unit would be next to nothing.

    Raises:
        DataError: no picture, or numbers that are not finite.
        ConfigError: fewer held-out normals than the false-alarm rate needs.
    """
    observed = predictor.observed(normals)
    unknown = None if strangers is None else predictor.observed(strangers)

    others = predictor.calibration.others
    crossed = crossed_maps(
        observed,
        lambda observed: (_teach if others else teach)(predictor, observed, unknown),
        lambda parts, label: predictor.scorer.maps(parts) if others else predictor.maps(parts, label),
    )
    if crossed is not None and others:
        _teach(predictor, observed, unknown)
        shown, labels = _crossed(predictor, crossed), crossed.labels
        _settle(predictor, lambda: [(crossed.maps, crossed.labels)])
    else:
        teach(predictor, observed, unknown)
        if crossed is None:
            shown, labels = _scored(predictor, observed)
        else:
            shown, labels = predictor.pool(crossed.maps.score), crossed.labels
    apart, apart_label = (None, None) if unknown is None else _scored(predictor, unknown)
    found = calibrate(predictor, held)
    held_label = None if found.label is None else found.label.cpu()
    return Lesson(shown, labels, found.score.cpu(), held_label, apart, apart_label)


@torch.no_grad()
def teach(predictor: Predictor, observed: Seen, strangers: Seen | None = None) -> None:
    """Teach scorer and calibration what is usual, from scratch; thresholds stay as they are."""
    _teach(predictor, observed, strangers)
    _settle(predictor, lambda: ((predictor.scorer.maps(parts), label) for parts, label in observed()))


@torch.no_grad()
def calibrate(predictor: Predictor, held: Images) -> Judged:
    """Learn the thresholds alone, from normals that taught nothing else: split-conformal; what these were found."""
    found = _judged(predictor, held)
    for threshold, told in _ruled(predictor, found):
        threshold.learn(*told)
    return found


@torch.no_grad()
def add(predictor: Predictor, held: Images) -> Judged:
    """Take further normals that taught nothing in, beside those the thresholds rest on; what these were found."""
    found = _judged(predictor, held)
    for threshold, told in _ruled(predictor, found):
        threshold.add(*told)
    return found


def _ruled(predictor: Predictor, found: Judged) -> Iterator[tuple[Any, tuple[Tensor, ...]]]:
    """Each threshold with what it is taught: scores or maxima, and the labels where it is one by label."""
    for threshold, values in ((predictor.threshold, found.score), (predictor.mask_threshold, found.maximum)):
        by_label = isinstance(threshold, ThresholdByLabel)
        yield threshold, (values, known(found.label)) if by_label else (values,)


def _judged(predictor: Predictor, held: Images) -> Judged:
    scores, maxima, labels = [], [], []
    for batch in held():
        parts, label = predictor.look(batch)
        maps = predictor.maps(parts, label)
        scores.append(predictor.pool(maps.score))
        maxima.append(maps.place.amax(dim=(1, 2, 3)))
        labels.append(label)
    if not scores:
        raise DataError("Expected good pictures to learn the threshold from, got none: hold some out.")
    of = None if labels[0] is None else torch.cat([known(label) for label in labels])
    return Judged(torch.cat(scores), torch.cat(maxima), of)


def _teach(predictor: Predictor, observed: Seen, strangers: Seen | None) -> None:
    """Teach the scorer alone."""
    predictor.scorer.learn(lambda: (parts for parts, _ in observed()))
    if strangers is not None:
        predictor.scorer.temper(lambda: (parts for parts, _ in strangers()))


def _settle(predictor: Predictor, found: Callable[[], Iterable[tuple[Maps, Tensor | None]]]) -> None:
    """Learn what is usual for the maps; each call of `found` goes once through those of the normals."""
    smooth = predictor.smooth
    settle(predictor.calibration, lambda: ((smooth(maps.score), label) for maps, label in found()))
    if predictor.sight is not None:
        settle(predictor.sight, lambda: ((smooth(maps.place), label) for maps, label in found()))


def _crossed(predictor: Predictor, crossed: Crossed) -> Tensor:
    """The scores [n] of normals by what others taught, what is usual for the maps among it."""
    device = next(predictor.scorer.buffers(), torch.zeros(0)).device
    shown = torch.empty(len(crossed.fold))
    for fold in crossed.fold.unique():
        inside = crossed.fold == fold
        others = crossed.rows(~inside)
        _settle(predictor, lambda others=others: [others])
        maps, label = crossed.rows(inside)
        label = None if label is None else label.to(device)
        found = predictor.calibrated(Maps(*(one.to(device) for one in maps)), label)
        shown[inside] = predictor.pool(found.score).cpu()
    return shown


def _scored(predictor: Predictor, observed: Seen) -> tuple[Tensor, Tensor | None]:
    """The scores [n] and labels [n] of all that was observed, on the CPU."""
    found = [(predictor.pool(predictor.maps(parts, label).score).cpu(), label) for parts, label in observed()]
    return torch.cat([score for score, _ in found]), all_labels([label for _, label in found])
