"""What each family of models contributes to detection: one table from the published results, also where none helps.

    python benchmarks/contributions.py        # writes benchmarks/results/contributions.{md,json}

Nothing is fitted here. One representative of each family was named beforehand, not the best of its settings, for the
best of many on test labels would flatter. A value is the image AUROC with its 95 % bootstrap interval over pictures, of
the first seed; `gain` is the mean difference to the best method without diffusion, over the sets both have.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from anodiff.report.table import Table, markdown

RESULTS = Path(__file__).resolve().parent / "results"
SETS = ("bottle", "toothbrush", "kolektor", "PA_BFT01_TL", "PA_GLA01_TL", "magnetic_tile", "elpv")
FORMER = {
    "bottle": "bottle",
    "toothbrush": "toothbrush",
    "kolektor": "kolektor",
    "PIPED PA_BFT01_TL": "PA_BFT01_TL",
    "PIPED PA_GLA01_TL": "PA_GLA01_TL",
    "magnetic_tile (grouped)": "magnetic_tile",
    "ELPV": "elpv",
}
BENCH = {
    "thumbnails": ("none: nearest thumbnail", False),
    "pixel_gaussian": ("none: pixel mean and deviation", False),
    "padim": ("none: PaDiM", False),
    "patchcore": ("none: PatchCore", False),
    "codes": ("none: features weighed, no denoiser", False),
    "features": ("feature: preset `features`", True),
}
GUIDED = {
    "plain-DDPM": "pixel DDPM, one model of five sets",
    "plain-DDIM": "pixel DDIM, the same model",
    "classifier-free-scale_2": "guided, classifier-free, the same model",
    "classifier-DDIM_form-scale_1": "guided by a classifier, the same model",
    "bound_map-4_levels": "pixel DDPM, map of the bound, the same model",
}

Entry = tuple[str, bool, str, dict[str, float]]
"""(family and method, whether it diffuses, set, value with interval)"""


def entries(results: Path) -> Iterator[Entry]:
    """Every published figure that the table has, in its order."""
    cells = json.loads((results / "bench" / "detection" / "cells.json").read_text("utf-8"))
    done = [cell for cell in cells if cell["status"] == "done" and cell["seed"] == 0]
    for method, (name, diffuses) in BENCH.items():
        for cell in done:
            if cell["method"] == method:
                yield name, diffuses, cell["set"], cell["metrics"]["image_auroc"]
    for path in sorted((results / "fine").glob("*-seed0.json")):
        found = json.loads(path.read_text("utf-8"))
        if found["set"] in FORMER:
            yield "feature: preset `fine`", True, FORMER[found["set"]], found["image_auroc"]
    for slug, name in GUIDED.items():
        found = json.loads((results / "guided_detection" / f"{slug}-seed0.json").read_text("utf-8"))
        for place, metrics in found["sets"].items():
            yield name, True, place, metrics["image_auroc"]
    for path in sorted((results / "gan_detection").glob("*-seed0.json")):
        found = json.loads(path.read_text("utf-8"))
        yield "DDGAN of features", True, found["data"], found["routes"]["DDGAN, 1 from .954"]["image_auroc"]
    for path in sorted((results / "latent_detection").glob("*-seed0.json")):
        found = json.loads(path.read_text("utf-8"))
        yield (
            "latent, residual of codes",
            True,
            found["data"],
            found["routes"]["latent residual"]["image_auroc"],
        )


def table(found: list[Entry]) -> tuple[Table, list[dict[str, Any]]]:
    """The table and the same as rows of plain values."""
    names = list(dict.fromkeys((name, diffuses) for name, diffuses, _, _ in found))
    value = {(name, place): entry for name, _, place, entry in found}
    plain = [name for name, diffuses in names if not diffuses]
    best = {
        place: max((value[name, place]["value"] for name in plain if (name, place) in value), default=None)
        for place in SETS
    }
    rows, kept = [], []
    for name, diffuses in names:
        have = [place for place in SETS if (name, place) in value]
        gains = [value[name, place]["value"] - best[place] for place in have if best[place] is not None]
        gain = f"{sum(gains) / len(gains):+.3f}" if diffuses and gains else "-"
        rows.append((name, *(_cell(value.get((name, place))) for place in SETS), gain))
        kept.append(
            {"method": name, "diffuses": diffuses, "sets": {place: value[name, place] for place in have}}
        )
    return Table(("family and method", *SETS, "gain"), tuple(rows)), kept


def _cell(entry: dict[str, float] | None) -> str:
    if entry is None:
        return "-"
    return f"{entry['value']:.3f} [{entry['low']:.2f}, {entry['high']:.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    made, rows = table(list(entries(args.results)))
    (args.results / "contributions.md").write_text(markdown(made) + "\n", encoding="utf-8")
    (args.results / "contributions.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
