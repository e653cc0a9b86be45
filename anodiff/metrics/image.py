"""How well one score a picture tells bad from good."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from anodiff.errors import DataError
from anodiff.metrics.curve import Curve, Floats, auroc, average_precision, f1_scores, f1max, fpr_at_tpr, trace


def checked(scores: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The scores as float64 [n] and the labels as bool [n], True = bad.

    Raises:
        DataError: lengths differ, a score is NaN or infinite, a label is neither 0 nor 1, or only one kind is
            there: no ranking metric is defined for a single class, so it is refused rather than answered with
            NaN.
    """
    score, label = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if score.ndim != 1 or score.shape != label.shape:
        raise DataError(
            f"expected one score and one label a picture, got shapes {score.shape} and {label.shape}"
        )
    if not np.isfinite(score).all():
        first = int(np.flatnonzero(~np.isfinite(score))[0])
        raise DataError(
            f"scores must be finite, but score {first} is {score[first]} "
            f"({int((~np.isfinite(score)).sum())} of {score.size} are not); leave out pictures that failed"
        )
    if not np.isin(label, (0, 1)).all():
        raise DataError(f"labels must be 0 (good) or 1 (bad), got {np.unique(label)[:5].tolist()}")
    bad = int(label.astype(bool).sum())
    if bad in (0, label.size):
        raise DataError(
            f"ranking metrics need good and bad pictures, got {label.size - bad} good and {bad} bad; "
            "evaluate on a test set that holds both"
        )
    return score, label.astype(bool)


def image_curve(scores: ArrayLike, labels: ArrayLike, *, weights: Floats | None = None) -> Curve:
    """The curve of the pictures' scores; every picture counts as one region.

    Args:
        scores: [n] finite, any range, higher = more anomalous.
        labels: [n] 0 = good, 1 = bad.
        weights: [..., n] how often each picture counts (the draws of a bootstrap); once if None.
    """
    score, label = checked(scores, labels)
    count = np.ones(score.size) if weights is None else weights
    order = np.argsort(score, kind="stable")[::-1]
    good, bad = order[~label[order]], order[label[order]]
    return trace(score[good], count[..., good], score[bad], count[..., bad], count[..., bad])


def fpr_at_95(curve: Curve) -> Floats:
    """The false-alarm rate at the highest threshold whose TPR is at least .95, without interpolation."""
    return fpr_at_tpr(curve, 0.95)


def fpr_at_all(curve: Curve) -> Floats:
    """The false-alarm rate at the highest threshold that lets no defect pass."""
    return fpr_at_tpr(curve, 1.0)


IMAGE: dict[str, Callable[[Curve], Floats]] = {
    "image_auroc": auroc,
    "image_ap": average_precision,
    "image_f1max": f1max,
    "fpr95": fpr_at_95,
    "overkill_at_zero_escapes": fpr_at_all,
}
"""The image metrics by name; each takes a `Curve`."""


def image_auroc(scores: ArrayLike, labels: ArrayLike) -> float:
    """The probability that a bad picture scores above a good one, ties counting one half, in [0, 1]."""
    return float(auroc(image_curve(scores, labels)))


def image_ap(scores: ArrayLike, labels: ArrayLike) -> float:
    """The average precision (area under the precision-recall steps, no interpolation), in [0, 1]."""
    return float(average_precision(image_curve(scores, labels)))


def image_f1max(scores: ArrayLike, labels: ArrayLike) -> float:
    """The largest F1 score of any threshold, in (0, 1]; `f1max_threshold` tells which."""
    return float(f1max(image_curve(scores, labels)))


def f1max_threshold(scores: ArrayLike, labels: ArrayLike) -> float:
    """The highest threshold of largest F1, where `score >= threshold` is called bad.

    It is chosen with the labels of the very pictures it is judged on: good for comparing, never for the line.
    """
    curve = image_curve(scores, labels)
    return float(curve.value[int(f1_scores(curve).argmax())])


def fpr95(scores: ArrayLike, labels: ArrayLike) -> float:
    """The share of good pictures called bad where 95 % of the bad are caught, in [0, 1]."""
    return float(fpr_at_95(image_curve(scores, labels)))


def overkill_at_zero_escapes(scores: ArrayLike, labels: ArrayLike) -> float:
    """The share of good parts rejected at the highest threshold that lets no defect pass, in [0, 1].

    That threshold is the lowest score of a bad part; good parts at or above it are rejected.
    """
    return float(fpr_at_all(image_curve(scores, labels)))


def roc(scores: ArrayLike, labels: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """False-alarm rate, true-alarm rate and threshold of the ROC curve's corners, from (0, 0) to (1, 1)."""
    score, label = checked(scores, labels)
    return roc_curve(label, score)


def pr(scores: ArrayLike, labels: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Recall, precision and threshold, from recall 0 (precision 1 by convention, threshold infinity) up."""
    score, label = checked(scores, labels)
    precision, recall, threshold = precision_recall_curve(label, score)
    return recall[::-1], precision[::-1], np.append(threshold, np.inf)[::-1]
