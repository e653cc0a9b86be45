"""The good pictures that a model's thresholds rest on: others in their place, or more of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from anodiff.batches import batches, digests, with_labels
from anodiff.config import RunConfig
from anodiff.data.dataset import Picture
from anodiff.data.index import index, normals
from anodiff.detect import teaching
from anodiff.detect.suspects import Suspicion
from anodiff.detect.threshold import least_rate
from anodiff.fitting import DEFAULT_RATE
from anodiff.frame import frame
from anodiff.gather import Gathered, Readable, label_numbers, readable
from anodiff.scoring import Scoring
from anodiff.selftest.report import tried, unjudged

THRESHOLD = "what the threshold rests on"
"""In warnings, that of which a picture that cannot be read is left out."""


def counted_anew(
    learnt: Scoring, good: Any, *, target_fpr: float | None = None, device: torch.device
) -> Scoring:
    """The model with thresholds from these good pictures alone.

    Args:
        learnt: the model.
        good: folder, part in MVTec layout (its train/good), manifest CSV, table of `data.index` (a picture of these
            that cannot be read is left out with a warning), what `gather.readable` kept of a table, or a list of
            pictures.
        target_fpr: the false-alarm rate; None: the usual one, or the least that the pictures support.
        device: where to.

    Raises:
        DataError: no good picture, none that can be read, or one of a list that cannot.
        ConfigError: a rate below 1 / (n + 1).
    """
    pictures, known = _pictures(good, learnt.config)
    fewest = len(pictures) if known is None else min(Counter(known).values())
    rate = target_fpr or max(DEFAULT_RATE, least_rate(fewest))
    config = _at(learnt.config, rate)
    predictor = learnt.rebuilt(config, rate).to(device)
    teaching.calibrate(predictor, lambda: with_labels(batches(pictures, learnt.shape, config, device), known))
    about = {name: value for name, value in learnt.about.items() if name not in ("added", "suspects")}
    about |= {"calibrated_on": len(pictures), "counted": list(digests(pictures, learnt.shape, config))}
    if told := learnt.about.get("suspects"):  # those that were trained on stay what they are
        threshold = predictor.threshold.value
        rest = Suspicion.of(told, threshold=threshold).without_held(threshold)
        about |= {"suspects": rest.to_dict()} if rest.found else {}
    about |= _tested(about)
    return replace(learnt, predictor=predictor, config=config, target_fpr=rate, about=about)


def counted_too(
    learnt: Scoring, good: Any, *, target_fpr: float | None = None, device: torch.device
) -> Scoring:
    """The model with thresholds from these good pictures too, beside those they rest on already.

    Pictures that are counted already, known again by what they show, are not counted twice.

    Args:
        learnt: the model.
        good: as of `counted_anew`.
        target_fpr: another false-alarm rate than the model's.
        device: where to.

    Raises:
        DataError: as `counted_anew`.
        ConfigError: a rate below 1 / (n + m + 1).
    """
    pictures, known = _pictures(good, learnt.config)
    rate = target_fpr or learnt.target_fpr
    config = _at(learnt.config, rate)
    counted = dict.fromkeys(learnt.about.get("counted", ()))  # keeps the order
    fresh = []
    for row, mark in enumerate(digests(pictures, learnt.shape, config)):
        if mark not in counted:
            fresh.append(row)
            counted[mark] = None
    predictor = learnt.rebuilt(config, rate).to(device)
    if fresh:
        new = [pictures[row] for row in fresh]
        labels = None if known is None else [known[row] for row in fresh]
        teaching.add(predictor, lambda: with_labels(batches(new, learnt.shape, config, device), labels))
    predictor.check()
    about = {**learnt.about, "added": learnt.about.get("added", 0) + len(fresh), "counted": list(counted)}
    about |= _tested(about)
    return replace(learnt, predictor=predictor, config=config, target_fpr=rate, about=about)


def counted_without(learnt: Scoring, left: Gathered, *, device: torch.device) -> Scoring:
    """The model with thresholds from the held-out pictures that are left, without the suspects among them.

    Where d of the n left out are good after all, the promised rate a becomes a + d (1 - a) / (n + 1) at most: what is
    the l-th largest score of those left is the (l + d)-th of all.

    Args:
        learnt: the model.
        left: the pictures of its fit, without those that are left out.
        device: where to.
    """
    asked = learnt.config.threshold.target_fpr
    found = counted_anew(learnt, Readable(left.held_rows), target_fpr=asked, device=device)
    about = {name: value for name, value in found.about.items() if name != "calibrated_on"}
    about |= {"held_out": len(left.held), "dropped": dict(left.dropped)}
    config, shape = learnt.config, learnt.shape
    known = label_numbers(config, left.held_rows)
    again = tried(
        found.predictor,
        lambda: with_labels(batches(left.held, shape, config, device), known),
        config,
        count=len(left.held),
        shape=shape,
    )
    about |= {} if again is None else {"selftest": {**about.get("selftest", {}), **again.to_dict()}}
    return replace(found, config=learnt.config, about=about)


def _tested(about: Mapping[str, Any]) -> dict[str, Any]:
    """The self-test of a model, if any, without what rested on its former threshold."""
    return {"selftest": unjudged(about["selftest"])} if "selftest" in about else {}


def _pictures(good: Any, config: RunConfig) -> tuple[Sequence[Picture], list[int] | None]:
    """Good pictures as a caller hands them in, and their labels where a table knows them."""
    if isinstance(good, str | Path | pd.DataFrame):
        good = readable(normals(index(good)), use=THRESHOLD)
    if isinstance(good, Readable):
        return list(good.rows["image"]), label_numbers(config, good.rows)
    return [item if isinstance(item, str) else frame(item) for item in good], None


def _at(config: RunConfig, rate: float) -> RunConfig:
    """The configuration with another false-alarm rate."""
    threshold = config.threshold.model_copy(update={"target_fpr": rate})
    return config.model_copy(update={"threshold": threshold})
