"""Charts as matplotlib figures, and their SVG for a page: in its theme, no ids that clash, no addresses.

Every function returns a `Figure` of its own; pyplot and its global state are never touched.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any, Literal
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from anodiff.report.table import quantity

# Light colours; in the page each becomes a CSS variable, so that a dark page recolours the same drawing.
INK, MUTED, GRID, PAPER = "#1b2431", "#5c6878", "#dfe4ea", "#fefefe"
GOOD, BAD = "#0b6cb3", "#cf540c"  # blue and vermilion: apart for all kinds of colour blindness
SERIES = ("#0b6cb4", "#cf540d", "#00815e", "#a8528c", "#8a6d00", "#3d7f99")
VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--line", PAPER: "--paper", GOOD: "--good", BAD: "--bad"}
VARIABLES |= {colour: f"--series-{index}" for index, colour in enumerate(SERIES)}
DASHES = ("-", "--", "-.", ":")
GOLDEN = (math.sqrt(5) - 1) / 2
MANY = 1500  # points above which a scatter is stored as pixels

_SVG = "{http://www.w3.org/2000/svg}"
_XLINK = "{http://www.w3.org/1999/xlink}href"


def roc_figure(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]], *, point: tuple[float, float] | None = None
) -> Figure:
    """Return the true against the false positive rate.

    Args:
        curves: Name to (fpr, tpr); several models share the axes.
        point: (fpr, tpr) at the threshold in use, drawn as a mark.
    """
    figure, axes = _square("good pictures rejected (FPR)", "defective pictures found (TPR)")
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=":")
    _lines(axes, curves)
    if point is not None:
        axes.plot(*point, marker="o", markersize=6, color=BAD, markeredgecolor=PAPER, linestyle="none",
                  label="at the threshold", clip_on=False, zorder=5)  # fmt: skip
    _legend(axes, loc="lower right", wanted=len(curves) > 1 or point is not None)
    return figure


def pr_figure(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]], *, prevalence: float | None = None
) -> Figure:
    """Return precision against recall.

    Args:
        curves: Name to (recall, precision).
        prevalence: Share of defective pictures, the precision of a guess; a dotted line.
    """
    figure, axes = _square("defective pictures found (recall)", "alarms that are right (precision)")
    if prevalence is not None:
        axes.axhline(prevalence, color=MUTED, linewidth=0.8, linestyle=":", label="guessing")
    _lines(axes, curves)
    _legend(axes, loc="lower left", wanted=len(curves) > 1 or prevalence is not None)
    return figure


def pro_figure(curves: Mapping[str, tuple[np.ndarray, np.ndarray]], *, limit: float = 0.3) -> Figure:
    """Return the mean per-region overlap against the false positive rate of pixels, up to `limit`."""
    figure, axes = _square("good pixels flagged (FPR)", "overlap averaged over regions")
    _lines(axes, curves)
    axes.set_xlim(-0.02 * limit, limit)
    _legend(axes, loc="lower right", wanted=len(curves) > 1)
    return figure


def histogram_figure(scores: np.ndarray, labels: np.ndarray, *, threshold: float | None = None) -> Figure:
    """Return how the scores of good and defective pictures are spread, as shares of each class.

    Args:
        scores: [N]; what is not finite is left out.
        labels: [N] 0, 1 or NaN for unknown.
        threshold: Drawn as a dashed line.
    """
    scores, labels = np.asarray(scores, float), np.asarray(labels, float)
    keep = np.isfinite(scores)
    scores, labels = scores[keep], labels[keep]
    figure, axes = canvas(5.2, 3.0)
    logarithmic = spread_wide(scores)
    edges = _edges(scores, threshold, logarithmic=logarithmic)
    classes = (("good", GOOD, labels == 0, "-"), ("defective", BAD, labels == 1, "--"),
               ("not labelled", MUTED, np.isnan(labels), "-"))  # fmt: skip
    for name, colour, chosen, dash in classes:
        count = int(chosen.sum())
        if count:
            axes.hist(scores[chosen], bins=list(edges), weights=np.full(count, 1 / count),
                      histtype="stepfilled",
                      facecolor=(colour, 0.25), edgecolor=colour, linestyle=dash,
                      linewidth=1.4, label=f"{name}, n = {count}")  # fmt: skip
    _score_axis(axes, threshold, logarithmic=logarithmic)
    axes.set_ylabel("share of its class")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    axes.margins(y=0.18)
    _legend(axes, loc="best", wanted=scores.size > 0)
    return figure


def strip_figure(
    scores: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[str],
    *,
    threshold: float | None = None,
    limit: int = 20,
) -> Figure:
    """Return one dot a picture, a row for each kind of defect, good ones on top; a bar marks the median.

    Args:
        scores: [N]; what is not finite is left out.
        labels: [N] 0, 1 or NaN.
        groups: N names of the rows.
        threshold: Drawn as a dashed line.
        limit: Rows at most; the rarest kinds are joined in one.
    """
    scores, labels, names = np.asarray(scores, float), np.asarray(labels, float), np.asarray(groups, object)
    keep = np.isfinite(scores)
    scores, labels, names = scores[keep], labels[keep], names[keep]
    names, rows = _rows(scores, labels, names, limit)
    figure, axes = canvas(5.2, 0.9 + 0.34 * max(len(rows), 1))
    for place, row in enumerate(rows):
        chosen = np.sort(scores[names == row])
        good = bool((labels[names == row] == 0).all())
        colour = GOOD if good else (MUTED if np.isnan(labels[names == row]).all() else BAD)
        # golden-ratio offsets spread neighbours in score apart without a random draw
        offset = (np.arange(len(chosen)) * GOLDEN % 1 - 0.5) * 0.56
        axes.scatter(chosen, place + offset, s=14 if len(chosen) < 200 else 6, color=colour, alpha=0.65,
                     marker="o" if good else "D", linewidths=0, rasterized=scores.size > MANY)  # fmt: skip
        axes.plot([np.median(chosen)] * 2, [place - 0.36, place + 0.36], color=INK, linewidth=1.6)
    axes.set_yticks(range(len(rows)), [f"{short(row)} ({int((names == row).sum())})" for row in rows],
                    parse_math=False)  # fmt: skip
    axes.set_ylim(max(len(rows), 1) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    _score_axis(axes, threshold, logarithmic=spread_wide(scores))
    return figure


def interval_figure(entries: Mapping[str, Mapping[str, Any]], *, title: str) -> Figure:
    """Return one dot with its interval for each model or category, for one metric.

    Args:
        entries: Name to `{"value", "low", "high", "n"}`.
        title: Name of the metric, printed at the axis.
    """
    figure, axes = canvas(3.5, max(3.3, 0.9 + 0.26 * len(entries)))
    for place, entry in enumerate(entries.values()):
        value, low, high = (_float(entry.get(key)) for key in ("value", "low", "high"))
        if math.isfinite(low) and math.isfinite(high):
            axes.plot([low, high], [place, place], color=GOOD, linewidth=2, solid_capstyle="butt")
        axes.plot([value], [place], marker="o", color=GOOD, markersize=6, linestyle="none")
    axes.set_yticks(range(len(entries)), [short(name, most=20) for name in entries], parse_math=False)
    axes.set_ylim(max(len(entries), 1) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.set_xlabel(title)
    return figure


def spread_wide(scores: np.ndarray) -> bool:
    """Return whether scores are positive and span more than two decades, so that a log axis shows more."""
    scores = scores[np.isfinite(scores)]
    return bool(scores.size and scores.min() > 0 and scores.max() > 100 * scores.min())


def svg(figure: Figure, *, name: str, label: str) -> Markup:
    """Return the figure as an `<svg>` to be put inside an HTML page.

    Colours become the page's CSS variables, ids carry `name`, metadata and name spaces (which hold outside
    addresses) are dropped, and text stays text.

    Args:
        figure: Any figure of this module.
        name: Unique in the page, letters, digits and hyphens.
        label: Read aloud by screen readers.
    """
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    text = buffer.getvalue()
    root = ElementTree.fromstring(text[text.index("<svg") :])
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    for parent in root.iter():
        for child in list(parent):
            if child.tag == f"{_SVG}metadata" or child.tag == f"{_SVG}style":
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        if _XLINK in element.attrib:
            element.attrib["href"] = element.attrib.pop(_XLINK)
        identity = element.attrib.pop("id", None)
        if identity in used:
            element.attrib["id"] = f"{name}-{identity}"
        for key, value in list(element.attrib.items()):
            if key == "href" and value.startswith("#"):
                value = f"#{name}-{value[1:]}"
            value = value.replace("url(#", f"url(#{name}-")
            element.attrib[key] = _themed(value) if key in ("style", "fill", "stroke") else value
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": label}
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # ElementTree escapes text and attributes


def _themed(style: str) -> str:
    for colour, variable in VARIABLES.items():
        style = style.replace(colour, f"var({variable})")
    return re.sub(r"'[^']*'(?:, *(?:'[^']*'|[\w-]+))*", "var(--font)", style)


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """Return an empty drawing of this size in inches, with axes as all drawings of a page have them."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="none")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(facecolor="none")
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED, labelcolor=INK, labelsize=8, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(MUTED)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_color(INK)
        axis.label.set_fontsize(8.5)
    return figure, axes


def _square(x: str, y: str) -> tuple[Figure, Axes]:
    figure, axes = canvas(3.5, 3.3)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.03)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    return figure, axes


def _lines(axes: Axes, curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    styles = zip(cycle(SERIES), (dash for dash in cycle(DASHES) for _ in SERIES), strict=False)
    for (name, (x, y)), (colour, dash) in zip(curves.items(), styles, strict=False):
        axes.plot(x, y, color=colour, linestyle=dash, linewidth=1.8, label=short(name))


def _legend(axes: Axes, *, loc: Literal["best", "lower left", "lower right"], wanted: bool) -> None:
    if wanted:
        handles = [*axes.lines, *axes.patches]
        named = {
            str(handle.get_label()): handle for handle in handles if str(handle.get_label())[:6] != "_child"
        }
        legend = axes.legend(list(named.values()), list(named), loc=loc, fontsize=7.5, frameon=True,
                             facecolor=PAPER, edgecolor=GRID, labelcolor=INK)  # fmt: skip
        for text in legend.get_texts():
            text.set_parse_math(False)  # a dollar in a file name is no formula


def _score_axis(axes: Axes, threshold: float | None, *, logarithmic: bool) -> None:
    axes.set_xlabel("score, higher = more anomalous" + (" (log)" if logarithmic else ""))
    if logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    if threshold is not None and (threshold > 0 or not logarithmic):
        axes.axvline(threshold, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.annotate(f" threshold {quantity(threshold)}", (threshold, 1), xycoords=("data", "axes fraction"),
                      va="bottom", ha="center", fontsize=7.5, color=INK, annotation_clip=False)  # fmt: skip


def _edges(scores: np.ndarray, threshold: float | None, *, logarithmic: bool) -> np.ndarray:
    values = np.append(scores, [] if threshold is None or (logarithmic and threshold <= 0) else [threshold])
    if values.size == 0:
        return np.linspace(0, 1, 2)
    low, high = float(values.min()), float(values.max())
    if not high > low:
        wide = max(abs(low) * 0.05, 1e-6)
        return np.linspace(low - wide, high + wide, 12)
    return np.geomspace(low, high, 31) if logarithmic else np.linspace(low, high, 31)


def _rows(
    scores: np.ndarray, labels: np.ndarray, names: np.ndarray, limit: int
) -> tuple[np.ndarray, list[str]]:
    kinds, counts = np.unique(names.astype(str), return_counts=True)
    names = names.astype(str).astype(object)
    if len(kinds) > limit:
        rare = kinds[np.argsort(-counts, kind="stable")[limit - 1 :]]
        rare = np.setdiff1d(rare, ["good"])
        names[np.isin(names.astype(str), rare)] = f"{len(rare)} rare kinds"
    present = sorted(set(names))

    def order(name: str) -> tuple[bool, float]:
        chosen = names == name
        return not bool((labels[chosen] == 0).all()), -float(np.median(scores[chosen]))

    return names, sorted(present, key=order)


def _float(value: Any) -> float:
    return math.nan if value is None else float(value)


def short(name: str, *, most: int = 28) -> str:
    """Return a name that finds room in a drawing, without characters that XML does not know."""
    name = "".join(mark if mark.isprintable() else " " for mark in name)
    return name if len(name) <= most else name[: most - 1] + "…"
