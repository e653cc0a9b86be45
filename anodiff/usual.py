"""What is usual: learnt by a predictor whose networks are trained, with its thresholds, and put to the test."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from anodiff.batches import batches, digests, with_labels
from anodiff.config import RunConfig
from anodiff.config.candidates import Candidate
from anodiff.data.dataset import Picture
from anodiff.detect import teaching
from anodiff.detect.bylabel import ThresholdByLabel
from anodiff.detect.predictor import Images, Predictor
from anodiff.detect.suspects import Suspicion, named
from anodiff.detect.teaching import Lesson
from anodiff.detect.threshold import Conformal, least_rate
from anodiff.detect.verdicts import HELD, LOGARITHMS, SURPRISES, TAUGHT, Law, verdicts
from anodiff.gather import Gathered, label_numbers
from anodiff.selftest.choice import Choice, choose, weighs_strangers
from anodiff.selftest.report import Report, tried

MOST_TAUGHT = 1000
"""Pictures at most, evenly chosen, from which scorer and calibration learn: more change little and take long."""


@dataclass(frozen=True, eq=False)
class Usual:
    """A predictor that knows what is usual, and what came to light while it learnt that."""

    predictor: Predictor
    choice: Choice  # of knobs that need no training
    report: Report | None  # what is found of painted defects
    suspicion: Suspicion  # which pictures look unlike the rest
    counted: tuple[str, ...]  # digests of the pictures that the thresholds rest on
    apart: int  # pictures to train on that no network saw, and that weighed evidence or candidates


def usual(
    predictor: Predictor,
    config: RunConfig,
    gathered: Gathered,
    strangers: Gathered | None,
    *,
    asked: Sequence[Candidate],
    labels: Sequence[int] | None,
    kept: Mapping[int, Mapping[str, Tensor]],
    shape: tuple[int, int],
    target_fpr: float,
    device: torch.device,
    say: Callable[[str], None] = lambda text: None,
) -> Usual:
    """What is usual of good pictures, learnt from those that networks were trained on; thresholds from those held out.

    Args:
        predictor: whose networks have learnt all they will.
        config: of the predictor.
        gathered: those trained on, and those held out.
        strangers: those to train on that no network saw, which weigh evidence or candidates; None: there are none.
        asked: configurations to choose from, that of the predictor first.
        labels: of those trained on, where the model has labels.
        kept: averages on the way of the training, by steps, for candidates that stop there.
        shape: working (height, width).
        target_fpr: the false-alarm rate of the thresholds.
        device: where it is learnt.
        say: is told what is being done.

    Raises:
        ConfigError, DataError: as `teaching.learn` and `choose`.
    """
    say("learning what is usual, and the threshold from the pictures held out")
    predictor.eval().to(device)
    places = _evenly(len(gathered.train), MOST_TAUGHT)
    shown = [gathered.train[k] for k in places]
    shown_labels = None if labels is None else [labels[k] for k in places]

    def of(rows: Sequence[Picture], known: Sequence[int] | None) -> Images:
        return lambda: with_labels(batches(rows, shape, config, device), known)

    normals = of(shown, shown_labels)
    held = of(gathered.held, label_numbers(config, gathered.held_rows))
    unknown, apart = None, 0
    if strangers is not None:
        unknown = of(strangers.train, label_numbers(config, strangers.train_rows))
        apart = len(strangers.train)
    choice = choose(
        asked, predictor, normals, unknown, kept=kept, count=apart, shape=shape, rate=target_fpr, say=say
    )
    predictor = choice.predictor
    fused = weighs_strangers(choice.config)
    lesson = teaching.learn(predictor, normals, held, strangers=unknown if fused else None)
    report = tried(predictor, held, choice.config, count=len(gathered.held), shape=shape, say=say)
    names = {split: list(rows["image"]) for split, rows in gathered.rows.items()}
    names[TAUGHT] = [names[TAUGHT][k] for k in places]
    names["apart"] = [] if strangers is None else list(strangers.train_rows["image"])
    counted = digests(gathered.held, shape, config)
    return Usual(
        predictor,
        choice,
        report,
        _suspicion(predictor, names, lesson, SURPRISES if fused else LOGARITHMS),
        counted,
        apart,
    )


def _suspicion(predictor: Predictor, names: Mapping[str, list[str]], lesson: Lesson, law: Law) -> Suspicion:
    """Which of the named pictures look unlike the rest, and what the threshold would be without them."""
    scores = {TAUGHT: lesson.shown, HELD: lesson.held}
    labels = {TAUGHT: lesson.shown_label, HELD: lesson.held_label, "apart": lesson.apart_label}
    if lesson.apart is not None:
        scores["apart"] = lesson.apart
    found = named(names, scores, verdicts(scores, labels, law=law))
    looked_at = sum(map(len, scores.values()))
    threshold = predictor.threshold
    without = None
    suspects = {suspect.image for suspect in found if suspect.split == HELD}
    if suspects and not isinstance(threshold, ThresholdByLabel):
        kept = lesson.held[[name not in suspects for name in names[HELD]]]
        again = copy.deepcopy(threshold)
        if isinstance(again, Conformal):
            again.target_fpr = max(again.target_fpr, least_rate(len(kept)))
        again.learn(kept)
        without = again.value if again.value < threshold.value else None
    return Suspicion(found, looked_at, threshold.value, without)


def _evenly(count: int, most: int) -> list[int]:
    """Places of at most `most` out of `count`, evenly chosen, in order."""
    taken = min(count, most)
    return [k * count // taken for k in range(taken)]
