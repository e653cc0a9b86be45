"""Points of the curves a report draws: given by the evaluation, or found from scores and labels."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import precision_recall_curve, roc_auc_score, roc_curve

from anodiff.errors import DataError
from anodiff.report.case import Report, Scores, flagged, tidy

Curve = tuple[np.ndarray, np.ndarray]
POINTS = 400  # more cannot be seen on the page


def curves_of(report: Report) -> dict[str, Curve]:
    """Return x and y by name: `roc` and `pr` of pictures, `pro` and others as given; empty where unknown.

    Raises:
        DataError: `report.curves` lacks one of the columns `curve`, `x`, `y`.
    """
    if report.curves is not None:
        missing = {"curve", "x", "y"} - set(report.curves.columns)
        if missing:
            raise DataError(f"curves: expected the columns curve, x, y; missing {', '.join(sorted(missing))}")
        names = report.curves["curve"].astype(str).to_numpy()
        x, y = (report.curves[axis].to_numpy(dtype=np.float64, na_value=np.nan) for axis in ("x", "y"))
        usable = np.isfinite(x) & np.isfinite(y)
        rows = {name: usable & (names == name) for name in dict.fromkeys(names)}
        return {
            name.removeprefix("image_"): thinned(x[row], y[row])
            for name, row in rows.items()
            if row.sum() > 1
        }
    table = tidy(report.predictions).labelled
    if not table.both:
        return {}
    fpr, tpr, _ = roc_curve(table.label, table.score)
    precision, recall, _ = precision_recall_curve(table.label, table.score)
    return {"roc": thinned(fpr, tpr), "pr": thinned(recall[::-1], precision[::-1])}


def operating_point(table: Scores, threshold: float | None) -> tuple[float, float] | None:
    """Return (false positive rate, true positive rate) at the threshold, None where either is unknown."""
    table = table.labelled
    if threshold is None or not table.both:
        return None
    hit = flagged(table.score, threshold)
    return float(hit[table.label == 0].mean()), float(hit[table.label == 1].mean())


def kind_auroc(table: Scores, kind: str) -> float:
    """Return the AUROC of one kind of defect against all good pictures, NaN where there are none."""
    table = table.labelled
    table = table.take((table.label == 0) | (table.kind == kind))
    return float(roc_auc_score(table.label, table.score)) if table.both else float("nan")


def thinned(x: np.ndarray, y: np.ndarray, *, points: int = POINTS) -> Curve:
    """Return at most about `points` of the curve's points, spaced evenly along its length, both ends kept."""
    if len(x) <= points:
        return x, y
    span = [max(float(np.ptp(values)), 1e-12) for values in (x, y)]
    walked = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(x) / span[0], np.diff(y) / span[1]))])
    keep = np.unique(np.searchsorted(walked, np.linspace(0, walked[-1], points)).clip(0, len(x) - 1))
    keep = np.union1d(keep, [0, len(x) - 1])
    return x[keep], y[keep]
