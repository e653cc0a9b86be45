"""Guidance as a caller words it: which label, how strongly, and away from what."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from anodiff.cond import Cond
from anodiff.config.conditions import ClassifierGuidance, Guidance
from anodiff.detect.predictor import Predictor
from anodiff.detect.steering import Steering
from anodiff.detect.walk import MeanShift
from anodiff.diffusion.classifier import NoisyClassifier
from anodiff.diffusion.denoiser import reads
from anodiff.encode.label import number_of
from anodiff.errors import ConfigError, RefusalError

Form = Literal["score", "mean"]
"""Classifier guidance by the score (arXiv:2105.05233, algorithm 2) or by the mean of a ddpm step (algorithm 1)."""


@dataclass(frozen=True, eq=False)
class Guiding:
    """What stands around the denoiser, and what moves the means of a ddpm step."""

    steering: Steering
    shift: MeanShift | None = None

    @property
    def sampler(self) -> Literal["ddim", "ddpm"]:
        """The usual one: ddpm where means are moved, which no other sampler does."""
        return "ddim" if self.shift is None else "ddpm"


def guiding(
    predictor: Predictor,
    names: Sequence[str],
    *,
    kept: Guidance | None = None,
    scale: float | None = None,
    negative: str | Cond | None = None,
    classifier_scale: float | None = None,
    form: Form | None = None,
    weaker: Predictor | None = None,
    weaker_scale: float = 2.0,
) -> Guiding:
    """The model's own guidance with what the caller words laid over it.

    Args:
        predictor: the model.
        names: of its labels; empty where it is not conditional.
        kept: the guidance of the model's configuration; None: only what stands around the denoiser.
        scale: of classifier-free guidance; 1 = the label alone, above = away from no label (or from `negative`).
        negative: name of a label to lead away from, or other conditions, one row.
        classifier_scale: of guidance by the model's classifier; 0 = none; None = that of `kept`.
        form: of guidance by the classifier; None = that of `kept`, or else "score".
        weaker: a weaker model of the same parts, to lead away from (autoguidance, arXiv:2406.02507).
        weaker_scale: of that; 1 = the model itself.

    Raises:
        ConfigError: a scale that is negative or not finite, or a label the model does not have.
        RefusalError: guidance the model cannot give.
    """
    own = predictor.wrap if isinstance(predictor.wrap, Steering) else Steering(clamp=predictor.codec.paints)
    for name, value in (
        ("scale", scale),
        ("classifier scale", classifier_scale),
        ("weaker scale", weaker_scale),
    ):
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise ConfigError(
                f"The {name} of a guidance should be a finite number of 0 or above, got {value}."
            )
    if (scale is not None or negative is not None) and not (names or reads(predictor.denoiser)):
        raise RefusalError(
            "Classifier-free guidance compares the model with and without a label, but this model was fitted without "
            "labels: leave the scale out, or fit with labels.kind=category or cluster (or tokens.kind, beside.kind)."
        )
    if scale is not None:
        own = replace(own, free=scale)
    if negative is not None:
        away = (
            negative if isinstance(negative, Cond) else Cond(label=torch.tensor([number_of(negative, names)]))
        )
        own = replace(own, negative=away)
        if own.free == 1:
            raise ConfigError("A negative label needs a scale other than 1, which uses the label alone.")
    shift = None
    if isinstance(kept, ClassifierGuidance):
        classifier_scale = kept.scale if classifier_scale is None else classifier_scale
        form = form or kept.form
    if classifier_scale is not None or form is not None:
        classifier = predictor.classifier
        if classifier_scale is None or not isinstance(classifier, NoisyClassifier):
            raise RefusalError(
                "Guidance by a classifier was asked for, but this model was fitted without one: leave its scale and "
                "form out, or fit with guidance.kind=classifier."
            )
        moves = form == "mean"
        own = replace(own, log_prob=classifier.log_prob, scale=0.0 if moves else classifier_scale)
        shift = MeanShift(classifier.log_prob, classifier_scale) if moves and classifier_scale else None
    if weaker is not None:
        if weaker.codec.channels != predictor.codec.channels or weaker.codec.stride != predictor.codec.stride:
            raise RefusalError(
                f"The weaker model works on {weaker.codec.channels} channels at stride {weaker.codec.stride}, this one "
                f"on {predictor.codec.channels} at stride {predictor.codec.stride}: fit both with the same codec."
            )
        own = replace(own, weaker=weaker.denoiser, auto=weaker_scale)
    return Guiding(own, shift)
