"""The report of a bench: one self-contained HTML page without a script, its tables as Markdown, a CSV of the cells."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from matplotlib.figure import Figure

from anodiff.report import bench_table as tables
from anodiff.report.bench_figure import Cost, forest_figure, trade_figure
from anodiff.report.bench_summary import Spread, Summary
from anodiff.report.document import document
from anodiff.report.figure import svg
from anodiff.report.page import Chart
from anodiff.report.table import MEANINGS, Table, html, markdown, title_of
from anodiff.run import write_text

MAIN = "image_auroc"
PIXELS = ("pixel_auroc", "aupro_30")
CURVES = {"evaluations": "against evaluations", "ms": "against latency"}


@dataclass(frozen=True)
class Part:
    """A table, drawings or plain text under a section's heading; folded ones open on a click."""

    title: str = ""
    note: str = ""
    table: Table | None = None
    charts: tuple[Chart, ...] = ()
    text: str = ""
    folded: bool = False

    @property
    def markup(self) -> Markup | None:
        """The table as HTML."""
        return None if self.table is None else html(self.table)


@dataclass(frozen=True)
class Section:
    """A heading, what to know of it, and its parts."""

    anchor: str
    title: str
    note: str
    parts: tuple[Part, ...]


def write(summary: Summary, folder: str | Path) -> list[Path]:
    """Write report.html, report.md and rows.csv into the folder and return their paths."""
    folder = Path(folder)
    texts = {"report.html": page, "report.md": text, "rows.csv": rows}
    for name, made in texts.items():
        write_text(folder / name, made(summary))
    return [folder / name for name in texts]


def page(summary: Summary) -> str:
    """Return the HTML page; what the bench does not hold is left out."""
    return document(
        "bench.html",
        title=summary.name,
        verdict=verdict(summary),
        notes=summary.notes,
        tiles=tuple(_tiles(summary)),
        sections=tuple(_sections(summary)),
    )


def text(summary: Summary) -> str:
    """Return the same in Markdown, without the drawings."""
    lines = [f"# {_harmless(summary.name)}", "", _harmless(verdict(summary)), ""]
    for note in summary.notes:
        lines += [f"> **Note.** {_harmless(note)}", ""]
    for section in _sections(summary):
        parts = [part for part in section.parts if part.table is not None or part.text]
        if not parts:
            continue
        lines += [f"## {section.title}", ""]
        lines += [_harmless(section.note), ""] if section.note else []
        for part in parts:
            lines += [f"### {part.title}", ""] if part.title else []
            lines += [part.note, ""] if part.note else []
            lines += [markdown(part.table)] if part.table is not None else []
            lines += ["```text", part.text, "```", ""] if part.text else []
    return "\n".join(lines).rstrip("\n") + "\n"


def rows(summary: Summary) -> str:
    """Return one line a cell as CSV, failed ones too; a column is empty where a cell has no such figure."""
    columns = list(dict.fromkeys(name for row in summary.rows for name in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(summary.rows)
    return out.getvalue()


def verdict(summary: Summary) -> str:
    """Return in a few sentences what the tables say, and no more."""
    seeds = f"{'seed' if len(summary.seeds) == 1 else 'seeds'} {', '.join(map(str, summary.seeds))}"
    said = [
        f"{_count(len(summary.methods), 'method')} on {_count(len(summary.sets), 'set')}, {seeds}; "
        f"{summary.done} of {_count(summary.total, 'cell')} {'has' if summary.total == 1 else 'have'} a result."
    ]
    if summary.overall:
        top = max(summary.overall, key=lambda method: summary.overall[method].mean)
        said.append(
            f"Highest mean image AUROC over the {len(summary.common)} sets: {top}, "
            f"{tables.spread(summary.overall[top])}."
        )
    best: dict[str, int] = {}
    for standing in summary.standings:
        best[standing.method] = best.get(standing.method, 0) + standing.best
    if any(best.values()):
        ranked = sorted(best, key=lambda method: -best[method])
        counts = [f"{method} on {best[method]}" for method in ranked if best[method]]
        counts[0] += f" of {_count(len(summary.sets), 'set')}"
        said.append(f"The best of a set, or not to be told from it: {', '.join(counts)}.")
    return " ".join(said)


def _tiles(summary: Summary) -> Iterator[tuple[str, str]]:
    yield "methods", str(len(summary.methods))
    yield "sets", str(len(summary.sets))
    yield "seeds", str(len(summary.seeds))
    yield "cells with a result", f"{summary.done} of {summary.total}"
    if summary.leaks:
        leaking = sum(leak.found for leak in summary.leaks)
        yield "sets with a leak", f"{leaking} of {len(summary.leaks)}"


def _sections(summary: Summary) -> Iterator[Section]:
    yield from _if_any("auroc", "Image AUROC", _headline_note(summary), _headline(summary))
    note = "Up and to the left is better. The bar is the 95 % interval; a line joins several step counts of one model."
    yield from _if_any("trade", "What accuracy costs", note, _trades(summary))
    note = (
        "Maps judged against masks at the pictures' own size. Mean ± deviation between seeds; for one seed, its 95 % "
        "interval over pictures. A set without masks has no row."
    )
    yield from _if_any("pixels", "Pixels", note, _metrics(summary, PIXELS))
    yield from _if_any("families", "What each family adds", _family_note(summary), _families(summary))
    yield from _if_any("pairs", "Paired comparisons", _pair_note(), _pairs(summary))
    note = (
        "One picture at a time, decoding included, after a warm-up; the median over sets and seeds, in brackets the "
        "smallest and largest where they differ by more than 5 %. Compare within one device only. A multiply-add "
        "counts as two operations."
    )
    yield from _if_any("cost", "Cost", note, [Part(table=tables.cost_table(summary))])
    note = (
        "Distances between samples and good pictures in the features of the named network, which are no FID unless it "
        "is the Inception of 2015; they depend on the count of samples, so compare equal counts only. Nearest: the "
        "distance of samples to the training pictures, as a share of that of held-out ones; well below 1 is copying."
    )
    yield from _if_any("samples", "Samples", note, [Part(table=tables.generation_table(summary))])
    note = (
        "Looked for before anything was fitted. Twins are pairs of the same picture, or of the same part, anywhere in "
        "the set; of a leaking pair one is in train and the other in test. Pictures that twins link are one group."
    )
    yield from _if_any("leaks", "Leak audit", note, [Part(table=tables.leak_table(summary))])
    parts = _metrics(summary, [key for key in MEANINGS if key not in (MAIN, *PIXELS)], folded=True)
    yield from _if_any("more", "More metrics", "Mean ± deviation between seeds.", parts)
    yield from _if_any("failed", "Cells without a result", "", [Part(table=tables.trouble_table(summary))])
    listed = Part("Commands", text="\n".join(summary.commands), folded=True)
    parts = [Part(table=tables.provenance_table(summary)), *([listed] if summary.commands else [])]
    yield from _if_any("made", "How this was made", "", parts)


def _if_any(anchor: str, title: str, note: str, parts: Sequence[Part]) -> Iterator[Section]:
    """The section, unless all its tables and drawings are empty."""
    full = tuple(
        part for part in parts if part.charts or part.text or (part.table is not None and part.table.rows)
    )
    if full:
        yield Section(anchor, title, note, full)


def _headline_note(summary: Summary) -> str:
    said = (
        "Chance that a defective picture scores above a good one. Mean ± deviation between seeds, in brackets the 95 % "
        "interval of the mean for other pictures and other seeds (pigeonhole bootstrap; of one seed: for other "
        "pictures). Bold: the best of a set, and what a paired test on the same pictures cannot tell from it at 5 %."
    )
    single = sorted({s.method for s in summary.standings if s.metrics[MAIN].seeds == 1})
    return said + (f" One seed only: {', '.join(single)}." if single and len(summary.seeds) > 1 else "")


def _headline(summary: Summary) -> list[Part]:
    found: dict[str, Mapping[str, Spread]] = {
        name: {s.method: s.metrics[MAIN] for s in summary.standings if s.set == name} for name in summary.sets
    }
    found = {name: by_method for name, by_method in found.items() if by_method}
    parts = [Part(table=tables.metric_table(summary, MAIN))]
    if found:
        note = "A dot and its 95 % interval for every method, a band for every set."
        figure = forest_figure(found, methods=summary.methods, title="image AUROC")
        parts.append(Part(charts=(_chart("forest", "All sets at a glance", note, figure),)))
    return parts


def _trades(summary: Summary) -> list[Part]:
    over = f"the {len(summary.common)} sets"
    parts = []
    for place, name in enumerate(["", *summary.sets]):
        trades = summary.trades.get(name, ())
        if not trades:
            continue
        title = name or f"Mean over {over}"
        charts = []
        for cost, against in CURVES.items():
            if cost == "ms" and not any(trade.here.ms == trade.here.ms for trade in trades):
                continue
            drawn = trade_figure(trades, methods=summary.methods, cost=_cost(cost), title="image AUROC")
            charts.append(_chart(f"{cost}-{place}", f"{title}, {against}", "", drawn))
        parts.append((name, Part(charts=tuple(charts))))
    shown = [part for name, part in parts if not name] or [part for _, part in parts[:1]]
    hidden = [chart for _, part in parts if part not in shown for chart in part.charts]
    folded = [Part("Each set by itself", charts=tuple(hidden), folded=True)] if hidden else []
    return [*shown, *folded]


def _cost(name: str) -> Cost:
    return "ms" if name == "ms" else "evaluations"


def _metrics(summary: Summary, names: Sequence[str], *, folded: bool = False) -> list[Part]:
    return [
        Part(
            title_of(name), f"{says[0].upper()}{says[1:]}.", tables.metric_table(summary, name), folded=folded
        )
        for name in names
        if (says := MEANINGS[name].says)
    ]


def _family_note(summary: Summary) -> str:
    bases = sorted({row.baseline for row in summary.contributions if row.baseline is not None})
    said = "The best method of each family on each set, chosen by this very table: a favour to families with many."
    return said + (
        f" Below, its difference to the best method without diffusion ({', '.join(bases)}), with the 95 % interval for "
        "other pictures and other seeds; bold where the interval lies above 0."
        if bases
        else ""
    )


def _families(summary: Summary) -> list[Part]:
    return [
        Part("Image AUROC of the best method", table=tables.family_table(summary)),
        Part("Gain over the best method without diffusion", table=tables.gain_table(summary)),
    ]


def _pair_note() -> str:
    return (
        "Image AUROC of the first less that of the second, on the same resamples of the same pictures. A set is won "
        "where the difference stands at 5 % after looking at all pairs of the set (Holm), for other pictures and other "
        "seeds alike; else it is a tie. The mean difference is over the sets that both finished."
    )


def _pairs(summary: Summary) -> list[Part]:
    note = (
        "The interval and p are those of the paired bootstrap over pictures, for the very models that were trained; "
        "the next p lets seeds vary too; the last is the larger of both, adjusted. Bold: told apart."
    )
    table = Part("Every set and pair", note, tables.pair_table(summary), folded=True)
    return [Part(table=tables.match_table(summary)), table]


def _chart(name: str, title: str, note: str, figure: Figure) -> Chart:
    return Chart(title, note, svg(figure, name=name, label=f"{title}. {note}".strip()), wide=True)


def _harmless(text: str) -> str:
    """The text for Markdown, where names from outside must not become markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
