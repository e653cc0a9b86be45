"""The drawings of a bench's report: intervals of all methods on all sets, and accuracy against cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from anodiff.report.bench_summary import Spread, Step, Trade
from anodiff.report.figure import INK, MUTED, PAPER, SERIES, canvas, short

MARKS = ("o", "s", "D", "^", "v", "P", "X", "h")  # a second sign beside the colour
Cost = Literal["evaluations", "ms"]
AXIS = {
    "evaluations": "evaluations of a denoiser a picture (0: there is none)",
    "ms": "ms a picture, median (log)",
}


def looks(methods: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return colour and mark of each method, the same in all drawings of a page."""
    return {
        method: (colour, mark)
        for method, colour, mark in zip(methods, cycle(SERIES), cycle(MARKS), strict=False)
    }


def forest_figure(found: Mapping[str, Mapping[str, Spread]], *, methods: Sequence[str], title: str) -> Figure:
    """Return one band a set, in it one dot and interval a method.

    Args:
        found: Set to method to figure.
        methods: Their order, from the top of each band down.
        title: Of the horizontal axis.
    """
    look, line = looks(methods), 0.9 / max(len(methods), 1)
    figure, axes = canvas(7.4, 1.15 + len(found) * max(0.34, 0.115 * len(methods)))
    for place, by_method in enumerate(found.values()):
        if place % 2 == 0:
            axes.axhspan(place - 0.5, place + 0.5, color=MUTED, alpha=0.07, linewidth=0)
        for row, method in enumerate(methods):
            spread = by_method.get(method)
            if spread is None:
                continue
            colour, mark = look[method]
            y = place - 0.45 + (row + 0.5) * line
            if math.isfinite(spread.low) and math.isfinite(spread.high):
                axes.plot(
                    [spread.low, spread.high], [y, y], color=colour, linewidth=1.6, solid_capstyle="butt"
                )
            axes.plot([spread.mean], [y], marker=mark, color=colour, markersize=5, markeredgecolor=PAPER,
                      markeredgewidth=0.6, linestyle="none", clip_on=False)  # fmt: skip
    for method in methods:
        colour, mark = look[method]
        axes.plot([], [], marker=mark, color=colour, markersize=5, linewidth=1.6, label=short(method))
    axes.set_yticks(range(len(found)), [short(name, most=22) for name in found], parse_math=False)
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(_share))
    axes.set_xlabel(title)
    _beneath(figure, axes)
    return figure


def trade_figure(
    trades: Sequence[Trade], *, methods: Sequence[str], cost: Cost, title: str, wide: bool = True
) -> Figure:
    """Return accuracy against cost: one dot and interval a method, and its line where it was tried at several steps.

    Evaluations start at 0, which a plain logarithm has no place for: below 1 the axis is linear.

    Args:
        trades: Methods on one set, or over sets; those without the cost are left out.
        methods: All methods of the page, for the same colours everywhere.
        cost: What is on the horizontal axis.
        title: Of the vertical axis.
        wide: Whether the drawing takes half of the page, else a third.
    """
    look = looks(methods)
    figure, axes = canvas(*((5.2, 4.0) if wide else (3.5, 3.3)))
    shown = []
    for trade in trades:
        x = _cost(trade.here, cost)
        if not math.isfinite(x):
            continue
        colour, mark = look[trade.method]
        line = [(_cost(step, cost), step.auroc) for step in trade.steps if math.isfinite(_cost(step, cost))]
        if line:
            axes.plot(*zip(*line, strict=True), color=colour, linewidth=1.4, marker=".", markersize=5)
            shown += [step[0] for step in line]
        if math.isfinite(trade.low) and math.isfinite(trade.high):
            axes.plot([x, x], [trade.low, trade.high], color=colour, linewidth=1.2, alpha=0.55)
        axes.plot([x], [trade.here.auroc], marker=mark, color=colour, markersize=7, markeredgecolor=PAPER,
                  linestyle="none", label=short(trade.method), clip_on=False, zorder=4)  # fmt: skip
        shown.append(x)
    _cost_axis(axes, shown, cost)
    axes.set_ylabel(title)
    axes.yaxis.set_major_formatter(FuncFormatter(_share))
    axes.margins(y=0.06)
    _beneath(figure, axes)
    return figure


def _cost(step: Step, cost: Cost) -> float:
    return step.evaluations if cost == "evaluations" else step.ms


def _cost_axis(axes: Axes, shown: Sequence[float], cost: Cost) -> None:
    axes.set_xlabel(AXIS[cost])
    low, high = (min(shown), max(shown)) if shown else (1.0, 1.0)
    if cost == "evaluations":
        axes.set_xscale("symlog", linthresh=1, linscale=0.5)
        axes.set_xlim(min(low, 1) - 0.25 if low < 1 else 0.8, max(high * 1.35, 1.5))
    else:
        axes.set_xscale("log")
        axes.set_xlim(low / 1.6, high * 1.6)
    ticks = [tick for tick in _ticks(high) if low * 0.6 <= tick <= high * 1.6]
    if cost == "evaluations":
        ticks = [tick for tick in ticks if tick == 0 or tick >= 1]
    axes.set_xticks(ticks if len(ticks) > 1 else sorted({*ticks, low, high}))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", labelcolor=INK)


def _ticks(high: float) -> list[float]:
    """0, then 1, 2, 5 of every decade from .1, or 1 and 3 where there are many."""
    decades = range(-1, max(1, math.ceil(math.log10(max(high, 1)))) + 1)
    marks = (1, 2, 5) if len(decades) < 5 else (1, 3)
    return [0.0, *(mark * 10.0**decade for decade in decades for mark in marks)]


def _share(value: float, _: object) -> str:
    text = f"{value:.3f}".rstrip("0").rstrip(".")
    return text[1:] if text.startswith("0.") else text


def _beneath(figure: Figure, axes: Axes) -> None:
    """The legend in rows under the drawing, where it hides no point."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        columns = min(len(labels), 4 if figure.get_figwidth() > 4 else 2)
        found = figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=7.5,
                              frameon=False, labelcolor=INK)  # fmt: skip
        for text in found.get_texts():
            text.set_parse_math(False)  # a dollar in a name is no formula
