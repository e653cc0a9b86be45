"""Cards: the pictures of a report as panels, with verdict, score and p-value."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from anodiff.errors import DataError
from anodiff.report.case import ROLES, Case, Report, flagged, pick_cases, role_of, threshold_of, tidy
from anodiff.report.figure import spread_wide
from anodiff.report.picture import Scale, data_uri, outline, overlay, rgb, shrunk, shrunk_map
from anodiff.report.table import number, quantity

SIDE = 256  # px of a panel's longer side
PANELS = (
    40  # so many panels at full size keep the page below 3 MB, even of pure noise; more are drawn smaller
)

ROLE_TITLES = {
    "weakest_defective": ("Missed or nearly missed", "The defective pictures with the lowest scores."),
    "strongest_good": ("False alarms or nearly", "The good pictures with the highest scores."),
    "clearest_defective": ("Clearest finds", "The defective pictures with the highest scores."),
    "highest": ("Highest scores", "The most anomalous of the pictures without a label."),
    "lowest": ("Lowest scores", "The most normal of the pictures without a label."),
}


@dataclass(frozen=True)
class Panel:
    """One picture of a case."""

    caption: str
    source: str


@dataclass(frozen=True)
class Card:
    """A case as printed: its panels, its verdict, and where its score lies, in percent of the bar."""

    name: str
    kind: str
    verdict: str
    tone: str
    score: str
    p_value: str
    fill: float
    mark: float | None
    panels: tuple[Panel, ...]


def groups_of(
    report: Report, scale: Scale, *, side: int, most: int | None
) -> Iterator[tuple[str, str, tuple[Card, ...]]]:
    """Yield heading, note and cards of each role that has pictures.

    Args:
        report: Its cases are drawn; its predictions tell their roles where they do not.
        scale: Colours of all maps.
        side: px of a panel's longer side.
        most: Cases of each role at most, None for all.
    """
    by_role = _by_role(report)
    bar = Bar.of(report)
    for role in ROLES:
        cases = by_role.get(role, [])[:most]
        if cases:
            title, note = ROLE_TITLES[role]
            yield title, note, tuple(_card(case, scale, bar, side=side) for case in cases)


@dataclass(frozen=True)
class Bar:
    """The range of all scores of a report, and where one lies in it."""

    low: float
    high: float
    threshold: float | None
    logarithmic: bool

    @classmethod
    def of(cls, report: Report) -> Bar:
        """Return the range that holds all finite scores and the threshold."""
        limit = threshold_of(report)
        scores = [case.score for case in report.cases] + tidy(report.predictions).score.tolist()
        values = np.array([*scores, *([] if limit is None else [limit])], dtype=float)
        values = values[np.isfinite(values)]
        low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
        return cls(low, high, limit, spread_wide(values))

    def place(self, score: float) -> float:
        """Return where a score lies, in percent of the bar."""
        if not math.isfinite(score) or not self.high > self.low:
            return 0.0
        if self.logarithmic:
            part = math.log(max(score, self.low) / self.low) / math.log(self.high / self.low)
        else:
            part = (score - self.low) / (self.high - self.low)
        return round(100 * min(max(part, 0.0), 1.0), 1)


def side_of(reports: Sequence[Report], *, most: int | None = None) -> int:
    """Return the px of a panel's longer side at which the whole page stays small."""
    panels = 0
    for report in reports:
        for cases in _by_role(report).values():
            panels += sum(2 + (case.restored is not None) for case in cases[:most])
    return max(64, min(SIDE, int(SIDE * math.sqrt(PANELS / max(panels, 1)))))


def _by_role(report: Report) -> dict[str, list[Case]]:
    picked = pick_cases(report.predictions, max(len(report.cases), 1))
    roles = dict(zip(tidy(picked).path, picked["role"], strict=True))
    found: dict[str, list[Case]] = {}
    for case in report.cases:
        found.setdefault(role_of(case, roles), []).append(case)
    for role, cases in found.items():
        cases.sort(key=lambda case: case.score, reverse=role not in ("weakest_defective", "lowest"))
    return found


def _card(case: Case, scale: Scale, bar: Bar, *, side: int) -> Card:
    above = bool(flagged(np.array(case.score), bar.threshold))
    if bar.threshold is None:
        said, tone = "no threshold", "calm"
    elif case.label is None:
        said, tone = ("called anomalous", "warm") if above else ("called normal", "calm")
    elif case.label == 1:
        said, tone = ("found", "right") if above else ("missed", "wrong")
    else:
        said, tone = ("false alarm", "wrong") if above else ("passed", "right")
    kind = {0: "good", 1: case.defect or "defective"}.get(
        -1 if case.label is None else case.label, "not labelled"
    )
    return Card(
        name=case.name,
        kind=kind,
        verdict=said,
        tone=tone,
        score=quantity(case.score),
        p_value="" if case.p_value is None or math.isnan(case.p_value) else number(case.p_value),
        fill=bar.place(case.score),
        mark=None if bar.threshold is None else bar.place(bar.threshold),
        panels=tuple(_panels(case, scale, side=side)),
    )


def _panels(case: Case, scale: Scale, *, side: int) -> Iterator[Panel]:
    picture = rgb(case.image)
    for what, array in (("map", case.heatmap), ("mask", case.mask)):
        if array is not None and array.shape != picture.shape[:2]:
            raise DataError(
                f"case {case.name!r}: expected a {what} of the picture's shape {picture.shape[:2]}, "
                f"found {array.shape}"
            )
    small = shrunk(picture, side=side)
    yield Panel("picture", data_uri(small))
    if case.restored is not None:
        yield Panel("restored", data_uri(shrunk(rgb(case.restored), side=side)))
    heat = overlay(small, shrunk_map(case.heatmap, side=side), low=scale.low, high=scale.high)
    if case.mask is None or not np.any(case.mask):
        yield Panel("anomaly map", data_uri(heat))
    else:
        yield Panel("map, true outline", data_uri(outline(heat, case.mask)))
