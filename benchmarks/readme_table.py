"""The results tables of the README, made from published results, and the publishing of a bench.

    python benchmarks/readme_table.py                              # rewrites what stands between the markers
    python benchmarks/readme_table.py --check                      # exit 1 where the README says something else
    python benchmarks/readme_table.py --publish OUT detection      # from OUT of `anodiff bench`, as "detection"

A published bench is `cells.json` (every cell.json in one list), `audit.json`, `standings.json` (means, deviations and
intervals, and what is bold: those need the scores of the single pictures, which are not published) and `report.md`.
Means and deviations are computed again from the cells, and a table whose parts do not agree is not written.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anodiff.bench.finding import Finding, parsed
from anodiff.metrics.seeds import deviation
from anodiff.report.bench_summary import Spread, Summary
from anodiff.report.bench_table import spread
from anodiff.report.table import MISSING, Table, markdown

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "bench"
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
MAIN = "image_auroc"
WHERE = "aupro_30"
PLACE = re.compile(r"(?<![\w:/.<])(?:/[\w.@+ -]*\w|[A-Za-z]:\\[\w.@+\\ -]+)(?:/[\w.@+-]+)+/?")
"""An absolute path of two parts or more; an address such as https://host/a is none."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit 1 where the README differs"
    )
    parser.add_argument(
        "--publish", nargs=2, metavar=("OUT", "NAME"), help="copy a bench's results here first"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    args = parser.parse_args(arguments)
    if args.publish:
        for path in publish(Path(args.publish[0]), args.results / args.publish[1]):
            print(path)
    text = args.readme.read_text(encoding="utf-8")
    fresh = renewed(text, table_of(args.results))
    if args.check:
        if fresh != text:
            print(
                f"{args.readme.name} does not say what the results say: run python benchmarks/readme_table.py"
            )
        return int(fresh != text)
    args.readme.write_text(fresh, encoding="utf-8")
    return 0


def publish(folder: Path, target: Path) -> list[Path]:
    """The files of a published bench, written from the folder `anodiff bench` wrote, without paths of this machine."""
    from anodiff.bench.summary import summarise
    from anodiff.report.bench import text

    summary = summarise(folder)
    files = sorted(folder.glob("cells/*/*/seed*/cell.json"))
    audit = folder / "audit.json"
    parts = {
        "cells.json": _json([json.loads(file.read_text(encoding="utf-8")) for file in files]),
        "audit.json": _json(json.loads(audit.read_text(encoding="utf-8")) if audit.is_file() else {}),
        "standings.json": _json(standings(summary)),
        "report.md": bare(text(summary)),
    }
    target.mkdir(parents=True, exist_ok=True)
    for name, made in parts.items():
        (target / name).write_text(made, encoding="utf-8")
    return [target / name for name in parts]


def standings(summary: Summary) -> list[dict[str, Any]]:
    """One entry a set and method, and one a method for the mean over sets (`set` is null), image AUROC each."""
    found: list[dict[str, Any]] = [
        {"set": s.set, "method": s.method, "best": s.best, **vars(s.metrics[MAIN])} for s in summary.standings
    ]
    over = [{"set": None, "method": m, "best": False, **vars(s)} for m, s in summary.overall.items()]
    return [
        {
            key: None if isinstance(value, float) and math.isnan(value) else value
            for key, value in entry.items()
        }
        for entry in found + over
    ]


def table_of(results: Path) -> str:
    """The table of every published bench under its name, with the sentence that tells how to read it."""
    folders = sorted(path.parent for path in results.glob("*/standings.json"))
    if not folders:
        raise SystemExit(
            f"No published results in {results}: publish a bench first, with --publish OUT NAME."
        )
    parts = []
    for folder in folders:
        cells = [parsed(cell) for cell in json.loads((folder / "cells.json").read_text(encoding="utf-8"))]
        told = json.loads((folder / "standings.json").read_text(encoding="utf-8"))
        for entry in told:
            agree(entry, cells, folder.name)
        parts.append(f"{caption(cells, folder.name)}\n\n{markdown(headline(told, cells))}")
        drawn = outlines(told, cells)
        if drawn.rows:
            parts.append(
                "How well the maps draw the defects: AUPRO up to 30 % false pixels, mean ± deviation over the same "
                f"seeds; bold: the highest mean of a set.\n\n{markdown(drawn)}"
            )
    return "\n".join(parts)


def agree(entry: dict[str, Any], cells: Sequence[Finding], name: str) -> None:
    """Stop where mean, deviation or number of seeds are not those of the cells."""
    if entry["set"] is None:
        return
    own = [cell for cell in cells if (cell.set, cell.method) == (entry["set"], entry["method"]) and cell.done]
    values = [float(cell.metrics[MAIN]["value"]) for cell in own if MAIN in cell.metrics]
    said = _spread(entry)
    same = len(values) == said.seeds and math.isclose(sum(values) / len(values), said.mean, abs_tol=1e-9)
    if not same or not (len(values) == 1 or math.isclose(deviation(values), said.sd, abs_tol=1e-9)):
        raise SystemExit(
            f"{name}: standings.json has {spread(said)} over {said.seeds} seeds for {entry['method']} on "
            f"{entry['set']}, but cells.json has {[round(value, 4) for value in values]}. Publish the bench again."
        )


def headline(told: Sequence[dict[str, Any]], cells: Sequence[Finding]) -> Table:
    """One row a set, one column a method; bold as the report has it; a dash where a method has no result."""
    found = {(entry["set"], entry["method"]): entry for entry in told}
    methods = list(dict.fromkeys(entry["method"] for entry in told))
    sets = list(dict.fromkeys(entry["set"] for entry in told))
    rows, strong = [], []
    for place, name in enumerate(sets):
        row = [f"mean of {len(sets) - 1} sets" if name is None else f"{name}{_pictures(cells, name)}"]
        for column, method in enumerate(methods, 1):
            entry = found.get((name, method))
            row.append(MISSING if entry is None else spread(_spread(entry)))
            if entry is not None and entry["best"]:
                strong.append((place, column))
        rows.append(tuple(row))
    columns = ("set (good / defective)", *methods)
    return Table(columns, tuple(rows), tuple(range(1, len(columns))), frozenset(strong))


def outlines(told: Sequence[dict[str, Any]], cells: Sequence[Finding]) -> Table:
    """AUPRO: one row a set with masks, one column a method; the highest mean in bold."""
    methods = list(dict.fromkeys(entry["method"] for entry in told))
    rows, strong = [], []
    for name in dict.fromkeys(entry["set"] for entry in told if entry["set"] is not None):
        spreads = [_drawn(cells, name, method) for method in methods]
        means = [found.mean if found else -math.inf for found in spreads]
        if max(means) == -math.inf:
            continue
        strong += [(len(rows), column) for column, mean in enumerate(means, 1) if mean == max(means)]
        rows.append((name, *(spread(found) if found else MISSING for found in spreads)))
    columns = ("set", *methods)
    return Table(columns, tuple(rows), tuple(range(1, len(columns))), frozenset(strong))


def _drawn(cells: Sequence[Finding], name: str, method: str) -> Spread | None:
    """Mean and deviation over seeds, with no interval: that would need the single pictures."""
    own = [c for c in cells if (c.set, c.method) == (name, method) and c.done and WHERE in c.metrics]
    values = [float(c.metrics[WHERE]["value"]) for c in own]
    if not values or any(math.isnan(value) for value in values):
        return None
    mean = sum(values) / len(values)
    return Spread(mean, deviation(values), math.nan, math.nan, len(values), 0)


def caption(cells: Sequence[Finding], name: str) -> str:
    """What the table shows and where the rest lies."""
    seeds = ", ".join(str(seed) for seed in sorted({cell.seed for cell in cells}))
    devices = ", ".join(sorted({str(cell.about["device"]) for cell in cells if cell.about.get("device")}))
    done = sum(cell.done for cell in cells)
    where = f"benchmarks/results/bench/{name}"
    return (
        f"Image AUROC, mean ± deviation over seeds {seeds} and the 95 % interval for other pictures and other seeds; "
        f"bold: the best of a set and what a paired test cannot tell from it. {done} of {len(cells)} cells have a "
        f"result{f', on {devices}' if devices else ''}. Pixel metrics, costs, paired comparisons and the leak audit: "
        f"[{where}/report.md]({where}/report.md)."
    )


def renewed(text: str, table: str) -> str:
    """The README with the table between its markers."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise SystemExit(
            f"Expected {BEGIN} and after it {END} in the README, once each: put them where the table belongs."
        )
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{table.strip()}\n{END}{rest.partition(END)[2]}"


def bare(text: str) -> str:
    """The text with absolute paths cut down to their last part: where things lay on a machine is nobody's business."""
    return PLACE.sub(lambda found: re.split(r"[/\\]", found[0].rstrip("/"))[-1], text)


def _pictures(cells: Sequence[Finding], name: str) -> str:
    about = next((cell.about for cell in cells if cell.set == name and cell.done), {})
    good, bad = about.get("test_good"), about.get("test_defective")
    return "" if good is None or bad is None else f" ({good} / {bad})"


def _spread(entry: dict[str, Any]) -> Spread:
    def real(key: str) -> float:
        return math.nan if entry[key] is None else float(entry[key])

    return Spread(real("mean"), real("sd"), real("low"), real("high"), int(entry["seeds"]), int(entry["n"]))


def _json(value: object) -> str:
    return json.dumps(_bared(value), indent=1, ensure_ascii=False) + "\n"


def _bared(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _bared(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_bared(item) for item in value]
    return bare(value) if isinstance(value, str) else value


if __name__ == "__main__":
    sys.exit(main())
