"""The row a test set gives in a table of results: all metrics, their JSON, and the curves behind them."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from anodiff.errors import DataError
from anodiff.metrics.bootstrap import Interval, image_intervals, pixel_intervals
from anodiff.metrics.curve import Floats
from anodiff.metrics.image import IMAGE, pr, roc
from anodiff.metrics.pixel import PIXEL, PixelScores

NAMES = (*IMAGE, *PIXEL)
"""All metrics in the order of tables: image first, then pixel."""


def metrics(
    scores: ArrayLike, labels: ArrayLike, pixels: PixelScores | None = None, *, seed: int, draws: int = 1000
) -> dict[str, Interval]:
    """All metrics of a test set by name, each with its 95 % bootstrap interval over pictures.

    The names are those of `NAMES`; the pixel metrics are absent where there are no masks, that is where
    `pixels` is None or holds no defect region.

    Args:
        scores: [n] one finite score a picture, higher = more anomalous, any range.
        labels: [n] 0 = good, 1 = bad.
        pixels: the maps and masks taken in so far.
        seed: of the bootstrap.
        draws: number of resamples.

    Raises:
        DataError: scores are not finite, or good or bad pictures are missing.
    """
    found = image_intervals(scores, labels, draws=draws, seed=seed)
    if pixels is not None and pixels.regions:
        found |= pixel_intervals(pixels, draws=draws, seed=seed)
    return found


def to_json(found: Mapping[str, Interval], **about: object) -> str:
    """The text of metrics.json: `{"image_auroc": {"value", "low", "high", "n"}, ..., "seed": 0, ...}`.

    Args:
        found: metrics by name.
        about: further keys: `seed, data, model_id, threshold, evaluations_per_image, ms_p50, ms_p99, device`.

    Raises:
        DataError: a further key bears the name of a metric, or a number is NaN or infinite (JSON has no such
            numbers).
    """
    clash = sorted(set(found) & set(about))
    if clash:
        raise DataError(f"these keys are names of metrics and cannot be given twice: {', '.join(clash)}")
    record = {name: vars(interval) for name, interval in found.items()} | about
    try:
        return json.dumps(record, indent=2, allow_nan=False, default=_plain) + "\n"
    except ValueError as error:
        raise DataError(
            f"metrics.json holds finite numbers only ({error}); write null for a number that is not known"
        ) from error


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    return str(value)  # paths, devices, dates


def rows(found: Mapping[str, Interval], **about: object) -> pd.DataFrame:
    """One line a metric for rows.csv: the columns of `about` (data, category, method, seed ...), then the
    metric.

    Columns: `*about, metric, value, low, high, n`; long format, so tables of many runs are concatenated.
    """
    lines = [{**about, "metric": name, **vars(interval)} for name, interval in found.items()]
    return pd.DataFrame(lines, columns=[*about, "metric", "value", "low", "high", "n"])


def curves(
    scores: ArrayLike, labels: ArrayLike, pixels: PixelScores | None = None, *, points: int = 500
) -> pd.DataFrame:
    """The curves for curves.csv, at most `points` points each: columns `curve, x, y, threshold`.

    `image_roc` and `pixel_roc`: x false-alarm rate, y true-alarm rate; `image_pr` and `pixel_pr`: x recall, y
    precision; `pro`: x false-alarm rate, y mean overlap over regions. Items at or above the threshold are
    called bad; the first point of a ROC curve calls nothing bad, its threshold is infinite.
    """
    found = {"image_roc": roc(scores, labels), "image_pr": pr(scores, labels)}
    if pixels is not None and pixels.regions:
        curve = pixels.curve()
        good, bad = curve.good, curve.bad[-1]
        corners = (
            np.stack([curve.above, curve.upto], axis=-1).ravel() / good
        )  # [2 k] before and after each value
        rate = np.concatenate([[0.0], corners, [1.0]])
        threshold = np.concatenate([[np.inf], np.repeat(curve.value.astype(np.float64), 2), [-np.inf]])
        for name, gain in {"pixel_roc": curve.bad / bad, "pro": curve.share / curve.share[-1]}.items():
            before = np.append(0.0, gain[:-1])
            height = np.concatenate([[0.0], np.stack([before, gain], axis=-1).ravel(), [1.0]])
            found[name] = (rate, height, threshold)
        found["pixel_pr"] = (curve.bad / bad, curve.bad / (curve.bad + curve.upto), curve.value)
    return pd.concat(
        [_thinned(name, x, y, threshold, points) for name, (x, y, threshold) in found.items()],
        ignore_index=True,
    )


def _thinned(name: str, x: Floats, y: Floats, threshold: Floats, points: int) -> pd.DataFrame:
    """Points about equally far apart along the curve, both ends among them."""
    along = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    keep = np.arange(x.size)
    if x.size > points:
        keep = np.unique(np.searchsorted(along, np.linspace(0.0, along[-1], points - 1)))
        keep = np.unique(np.append(keep.clip(0, x.size - 1), x.size - 1))
    return pd.DataFrame({"curve": name, "x": x[keep], "y": y[keep], "threshold": threshold[keep]})
