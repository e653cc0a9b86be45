"""One self-contained HTML page about one model, or several side by side: no script, no outside address."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from markupsafe import Markup
from scipy.stats import binomtest

from anodiff.errors import DataError
from anodiff.report import figure as charts
from anodiff.report.card import Card, groups_of, side_of
from anodiff.report.case import Report, flagged, threshold_of, tidy
from anodiff.report.curve import curves_of, kind_auroc, operating_point
from anodiff.report.document import document
from anodiff.report.picture import Scale, gradient, scale_of
from anodiff.report.promise import promise
from anodiff.report.table import (
    MISSING,
    Table,
    cell,
    checked,
    comparison_table,
    html,
    interval,
    metric_table,
    number,
    pairs_table,
    percent,
    quantity,
    share,
    title_of,
)  # fmt: skip

ERRORS = 50  # failed pictures listed by name

FACT_TITLES = {
    "evaluations_per_image": "network evaluations a picture",
    "opinions_per_image": "discriminator evaluations a picture",
    "ms_p50": "ms a picture, median",
    "ms_p99": "ms a picture, 99 %",
}

BESIDE_OPINIONS = {"evaluations_per_image": "generator evaluations a picture"}
"""In place of those, for a model that asks its discriminator too."""


@dataclass(frozen=True)
class Chart:
    """A drawing with its heading and one sentence on how to read it."""

    title: str
    note: str
    svg: Markup
    wide: bool = False


@dataclass(frozen=True)
class View:
    """One report made ready for the template; everything is text, numbers or escaped markup."""

    anchor: str
    title: str
    verdict: str
    alarms: tuple[str, ...]
    tiles: tuple[tuple[str, str], ...]
    metrics: Markup | None
    kinds: Markup | None
    charts: tuple[Chart, ...]
    groups: tuple[tuple[str, str, tuple[Card, ...]], ...]
    scale: tuple[str, str, str, float | None] | None  # low, high, threshold as text; its place in percent
    settings: str
    facts: Markup | None
    environment: Markup | None
    errors: Markup | None
    failed: str


def render(report: Report) -> str:
    """Return the page about one report.

    Missing parts (labels, masks, restorations, curves, cases) leave their section out; they are no error.

    Raises:
        DataError: A table lacks a column or a picture and its map differ in shape; the message names it.
    """
    return _page(report.title, [_view(report, anchor="r0", side=side_of([report]), most=None)], None, ())


def render_many(reports: Sequence[Report]) -> str:
    """Return one page with all reports: numbers and curves side by side first, then each on its own.

    Panels are drawn smaller, and fewer of each role are kept, the more reports there are.
    """
    if not reports:
        raise DataError("report: expected one report or more, found none")
    most = max(1, round(8 / len(reports))) if len(reports) > 1 else None
    side = side_of(reports, most=most)
    views = [_view(report, anchor=f"r{index}", side=side, most=most) for index, report in enumerate(reports)]
    names = _distinct([report.title for report in reports])
    table = comparison_table([(name, report.metrics) for name, report in zip(names, reports, strict=True)])
    compared = html(table) if len(table.columns) > 1 else None
    return _page(f"{len(reports)} reports side by side", views, compared, tuple(_shared(names, reports)))


def write(report: Report, path: str | Path) -> Path:
    """Write the page about one report and return its path; missing folders are made."""
    return _store(render(report), path)


def write_many(reports: Sequence[Report], path: str | Path) -> Path:
    """Write the page with all reports and return its path; missing folders are made."""
    return _store(render_many(reports), path)


def verdict(report: Report) -> str:
    """Return in one sentence what the numbers say, and no more than they say."""
    table, limit = tidy(report.predictions), threshold_of(report)
    if not len(table):
        return "No picture was scored."
    done = table.done
    hit = flagged(done.score, limit)
    bad, good, open_ = done.label == 1, done.label == 0, np.isnan(done.label)

    def of(chosen: np.ndarray) -> str:
        return share(int((hit & chosen).sum()), int(chosen.sum()))

    parts = []
    if limit is None:
        parts.append(f"{len(done)} pictures were scored; there is no threshold, so none is called anomalous")
    elif len(done):
        finds = []
        if bad.any():
            finds.append(f"finds {of(bad)} defective pictures")
        if good.any():
            finds.append(f"rejects {of(good)} good ones")
        if open_.any():
            finds.append(f"calls {of(open_)} pictures without a label anomalous")
        parts.append(f"At the threshold {quantity(limit)} the model {' and '.join(finds)}")
    metrics = checked(report.metrics)
    if "image_auroc" in metrics:
        parts.append(f"image AUROC {interval(metrics['image_auroc'])}")
    if "false_alarm_rate" in metrics and (said := promise(metrics["false_alarm_rate"])):
        parts.append(said)
    failed = len(table) - len(done)
    if failed:
        parts.append(f"{failed} {'picture' if failed == 1 else 'pictures'} could not be scored")
    return "; ".join(parts) + "."


def defect_table(report: Report) -> Table:
    """Return one row a kind of defect: count, how many found (Wilson 95 % interval), AUROC against good."""
    table, limit = tidy(report.predictions).labelled, threshold_of(report)
    rows = []
    for kind in sorted(set(table.kind)):
        part = table.take(table.kind == kind)
        hits, good = int(flagged(part.score, limit).sum()), bool((part.label == 0).all())
        found, between = MISSING, MISSING
        if limit is not None:
            likely = binomtest(hits, len(part)).proportion_ci(method="wilson")
            found = share(hits, len(part))
            between = f"[{number(likely.low, digits=2)}, {number(likely.high, digits=2)}]"
        auroc = MISSING if good else number(kind_auroc(table, kind))
        rows.append(
            (not good, kind, str(len(part)), found, between, quantity(float(np.median(part.score))), auroc)
        )
    ordered = tuple(row[1:] for row in sorted(rows, key=lambda row: (row[0], row[1])))
    columns = ("Kind", "n", "Above the threshold", "95 % interval", "Median score", "AUROC")
    return Table(columns, ordered, numeric=(1, 2, 3, 4, 5))


def _page(title: str, views: Sequence[View], compared: Markup | None, shared: Sequence[Chart]) -> str:
    return document(
        "page.html", title=title, views=views, compared=compared, shared=shared, gradient=gradient()
    )


def _store(text: str, path: str | Path) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", errors="replace")  # a path may hold bytes that are no UTF-8
    return path


def _view(report: Report, *, anchor: str, side: int, most: int | None) -> View:
    table = tidy(report.predictions)
    failed = table.take(table.error != "")
    listed = Table(("Picture", "Why"), tuple(zip(failed.path[:ERRORS], failed.error[:ERRORS], strict=True)))
    kinds = defect_table(report)
    settings = yaml.safe_dump(_plain(report.settings), sort_keys=False, allow_unicode=True)
    scale = scale_of(report.cases, threshold_of(report))
    return View(
        anchor=anchor,
        title=report.title,
        verdict=verdict(report),
        alarms=tuple(report.alarms),
        tiles=tuple(_tiles(report)),
        metrics=html(metric_table(report.metrics)) if report.metrics else None,
        kinds=html(kinds) if kinds.rows else None,
        charts=tuple(_charts(report, anchor)),
        groups=tuple(groups_of(report, scale, side=side, most=most)),
        scale=_scale_text(scale) if report.cases else None,
        settings=settings if report.settings else "",
        facts=html(pairs_table(report.facts)) if report.facts else None,
        environment=html(pairs_table(report.environment)) if report.environment else None,
        errors=html(listed) if listed.rows else None,
        failed=f"{len(failed)} of {len(table)} pictures could not be scored"
        + (f"; the first {ERRORS} are listed." if len(failed) > ERRORS else "."),
    )


def _tiles(report: Report) -> Iterator[tuple[str, str]]:
    metrics = checked(report.metrics)
    for name in ("image_auroc", "pixel_auroc", "aupro_30"):
        if name in metrics:
            yield title_of(name), interval(metrics[name], count=False).split(" ", 1)[0]
    point = operating_point(tidy(report.predictions), threshold_of(report))
    if point is not None:
        yield "defective found", percent(point[1])
        yield "good rejected", percent(point[0])
    titles = FACT_TITLES | (BESIDE_OPINIONS if report.facts.get("opinions_per_image") else {})
    for name, title in titles.items():
        if report.facts.get(name) is not None:
            value = report.facts[name]
            yield title, quantity(value) if isinstance(value, float) else cell(value)


def _charts(report: Report, anchor: str) -> Iterator[Chart]:
    table, limit, curves = tidy(report.predictions).done, threshold_of(report), curves_of(report)

    def chart(name: str, title: str, note: str, figure: Any, *, wide: bool = False) -> Chart:
        return Chart(title, note, charts.svg(figure, name=f"{anchor}-{name}", label=f"{title}. {note}"), wide)

    if "roc" in curves:
        figure = charts.roc_figure({"": curves["roc"]}, point=operating_point(table, limit))
        yield chart("roc", "ROC", "Closer to the upper left corner is better.", figure)
    if "pr" in curves:
        labels = table.labelled.label
        figure = charts.pr_figure({"": curves["pr"]}, prevalence=labels.mean() if labels.size else None)
        yield chart("pr", "Precision and recall", "Closer to the upper right corner is better.", figure)
    if "pro" in curves:
        figure = charts.pro_figure({"": curves["pro"]})
        note = "Each defect region counts the same, small or large."
        yield chart("pro", "Per-region overlap", note, figure)
    if len(table):
        figure = charts.histogram_figure(table.score, table.label, threshold=limit)
        note = "Right of the dashed line a picture is called anomalous."
        yield chart("hist", "Scores", note if limit is not None else "", figure, wide=True)
        figure = charts.strip_figure(table.score, table.label, table.kind.tolist(), threshold=limit)
        yield chart("strip", "Scores by kind", "One dot a picture, a bar at the median.", figure, wide=True)


def _shared(names: Sequence[str], reports: Sequence[Report]) -> Iterator[Chart]:
    curves = {name: curves_of(report) for name, report in zip(names, reports, strict=True)}
    roc, pr = (
        {name: lines[kind] for name, lines in curves.items() if kind in lines} for kind in ("roc", "pr")
    )
    if 1 < len(roc) <= 12:  # more lines cannot be told apart
        note = "All ROC curves on the same axes."
        yield Chart("ROC", note, charts.svg(charts.roc_figure(roc), name="shared-roc", label=note))
    if 1 < len(pr) <= 12:
        note = "All precision-recall curves on the same axes."
        yield Chart(
            "Precision and recall", note, charts.svg(charts.pr_figure(pr), name="shared-pr", label=note)
        )
    first = next((key for report in reports for key in checked(report.metrics)), None)
    if first is not None:
        found = {name: checked(report.metrics) for name, report in zip(names, reports, strict=True)}
        entries = {name: metrics[first] for name, metrics in found.items() if first in metrics}
        note = "A dot and its 95 % interval; where intervals overlap widely there is no clear difference."
        figure = charts.interval_figure(entries, title=title_of(first))
        yield Chart(title_of(first), note, charts.svg(figure, name="shared-first", label=note))


def _scale_text(scale: Scale) -> tuple[str, str, str, float | None]:
    if scale.threshold is None:
        return quantity(scale.low), quantity(scale.high), "", None
    place = 100 * (scale.threshold - scale.low) / (scale.high - scale.low)
    return quantity(scale.low), quantity(scale.high), quantity(scale.threshold), round(place, 1)


def _distinct(names: Sequence[str]) -> list[str]:
    return [
        name if names.count(name) == 1 else f"{name} ({names[: index + 1].count(name)})"
        for index, name in enumerate(names)
    ]


def _plain(value: Any) -> Any:
    """Return the value as YAML's safe writer takes it: mappings, lists, numbers, text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
