"""What a report is made of: scored pictures, a table of predictions, and which pictures are worth a look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import pandas as pd

from anodiff.errors import DataError

ROLES = ("weakest_defective", "strongest_good", "clearest_defective", "highest", "lowest")
"""Missed or nearly so; false alarms or nearly so; clear finds; the two ends of what has no label."""


@dataclass(frozen=True, eq=False)
class Case:
    """One scored picture with all that a panel shows of it.

    Attributes:
        name: Path as printed; the same text as in `Report.predictions.path`.
        image: [H, W, 3] uint8 RGB.
        heatmap: [H, W] float32, higher = more anomalous.
        score: The picture's score, comparable with the report's threshold.
        label: 0 good, 1 defective, None unknown.
        defect: Kind of the defect, None where there is none or it is not known.
        p_value: Share of good pictures expected to score as high, None where not calibrated.
        mask: [H, W] true where the picture is defective, None where not known.
        restored: [H, W, 3] uint8 RGB of the model's normal version, None where the model paints nothing.
        role: One of `ROLES`; None lets the report find it from the predictions.
    """

    name: str
    image: np.ndarray
    heatmap: np.ndarray
    score: float
    label: int | None = None
    defect: str | None = None
    p_value: float | None = None
    mask: np.ndarray | None = None
    restored: np.ndarray | None = None
    role: str | None = None


@dataclass(frozen=True, eq=False)
class Report:
    """All that one page tells of one model on one data set.

    Attributes:
        title: Heading.
        metrics: Name to `{"value", "low", "high", "n"}`, as mappings or dataclasses; may be empty.
        predictions: Columns `path, score` and, where known, `p_value, threshold, label, defect, error`.
        threshold: A picture is anomalous when its score is above it; None reads it from the predictions.
        curves: Long table with the columns `curve` (image_roc, image_pr, pro), `x`, `y`; None computes the
            first two from the predictions.
        cases: Pictures to show.
        settings: The configuration, plain values.
        environment: Versions, commit, command and so on.
        facts: Device, seed, evaluations_per_image, opinions_per_image, ms_p50, ms_p99 and so on.
        alarms: What looked wrong when the model was trained, a sentence each.
    """

    title: str
    metrics: Mapping[str, Any] = field(default_factory=dict)
    predictions: pd.DataFrame = field(default_factory=pd.DataFrame)
    threshold: float | None = None
    curves: pd.DataFrame | None = None
    cases: Sequence[Case] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    alarms: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class Scores:
    """The predictions as arrays without gaps, one entry a picture.

    Attributes:
        path: [N] text.
        score: [N] float64, NaN where there is none.
        label: [N] 0., 1. or NaN.
        kind: [N] text: "good", the kind of defect, "defective" where it is not told, or "not labelled".
        error: [N] text, "" for a picture that was scored; a score that is not finite counts as an error.
    """

    path: np.ndarray
    score: np.ndarray
    label: np.ndarray
    kind: np.ndarray
    error: np.ndarray

    def __len__(self) -> int:
        return len(self.path)

    def take(self, chosen: np.ndarray) -> Scores:
        """Return the entries at a boolean mask or at indices."""
        return Scores(*(getattr(self, column.name)[chosen] for column in fields(self)))

    @property
    def done(self) -> Scores:
        """The pictures that were scored."""
        return self.take(self.error == "")

    @property
    def labelled(self) -> Scores:
        """The pictures that were scored and have a label."""
        return self.take((self.error == "") & ~np.isnan(self.label))

    @property
    def both(self) -> bool:
        """Whether good and defective pictures are among the entries."""
        return bool((self.label == 0).any() and (self.label == 1).any())


def flagged(scores: np.ndarray, threshold: float | None) -> np.ndarray:
    """Return which scores [N] are anomalous: those strictly above the threshold; none without one."""
    return np.asarray(scores, float) > (np.inf if threshold is None else threshold)


def tidy(predictions: pd.DataFrame) -> Scores:
    """Return the predictions as `Scores`, in their order.

    Args:
        predictions: As written by scoring; missing columns and an empty table are allowed.

    Raises:
        DataError: A label is neither 0, 1 nor empty.
    """

    def column(name: str) -> list[Any]:
        values = predictions[name].tolist() if name in predictions else [None] * len(predictions)
        return [None if bool(pd.isna(value)) else value for value in values]

    def words(name: str) -> np.ndarray:
        return np.array(
            ["" if value is None else str(value).replace("\0", "�").strip() for value in column(name)],
            dtype=object,
        )

    score = np.array([_number(value) for value in column("score")], dtype=np.float64)
    label = np.array([_label(value) for value in column("label")], dtype=np.float64)
    kind, error = words("defect"), words("error")
    kind[(label == 1) & np.isin(kind, ["", "good"])] = "defective"
    kind[label == 0] = "good"
    kind[np.isnan(label) & (kind == "")] = "not labelled"
    error[~np.isfinite(score) & (error == "")] = "the score is not a finite number"
    return Scores(words("path"), score, label, kind, error)


def threshold_of(report: Report) -> float | None:
    """Return the report's threshold, else the one value of the predictions' column, else None."""
    if report.threshold is not None:
        return float(report.threshold) if np.isfinite(report.threshold) else None
    if "threshold" not in report.predictions:
        return None
    values = {_number(value) for value in report.predictions["threshold"].tolist()}
    values = {value for value in values if np.isfinite(value)}
    return values.pop() if len(values) == 1 else None


def pick_cases(predictions: pd.DataFrame, count: int = 4) -> pd.DataFrame:
    """Return the rows of the pictures worth a look, all columns kept, with their `role`.

    Labelled pictures: the lowest-scoring defective (missed first), the highest-scoring good (false alarms
    first), the highest-scoring defective. Pictures without a label: the highest and the lowest scores. No
    picture comes twice, failed ones never; equal scores are ordered by path.

    Args:
        predictions: As written by scoring.
        count: Pictures for each role.
    """
    table = tidy(predictions)
    rising = [row for row in np.lexsort((table.path.astype(str), table.score)) if not table.error[row]]
    bad = [row for row in rising if table.label[row] == 1]
    good = [row for row in rising if table.label[row] == 0]
    open_ = [row for row in rising if np.isnan(table.label[row])]
    chosen: dict[int, str] = {}  # row number in `predictions`
    for role, order in zip(ROLES, (bad, good[::-1], bad[::-1], open_[::-1], open_), strict=True):
        fresh = [row for row in order if row not in chosen][: max(count, 0)]
        chosen.update(dict.fromkeys(fresh, role))
    return predictions.iloc[list(chosen)].assign(role=list(chosen.values()))


def role_of(case: Case, roles: Mapping[str, str]) -> str:
    """Return a case's own role, else that of its name in `roles`, else one that fits its label."""
    if case.role is not None:
        if case.role not in ROLES:
            raise DataError(f"case {case.name!r}: expected a role of {', '.join(ROLES)}, found {case.role!r}")
        return case.role
    fallback = {1: "clearest_defective", 0: "strongest_good"}.get(-1 if case.label is None else case.label)
    return roles.get(case.name, fallback or "highest")


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def _label(value: Any) -> float:
    if value is None or value == "":
        return float("nan")
    number = _number(value)
    if number not in (0.0, 1.0):
        raise DataError(
            f"label: expected 0 (good), 1 (defective) or empty, found {value!r}; correct the predictions"
        )
    return number
