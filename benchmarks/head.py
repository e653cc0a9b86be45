"""A learnt head beside the residual: does what it learns on painted defects find real ones?

    python benchmarks/head.py ../shared/data -o benchmarks/results/head --sets bottle toothbrush

Each set is fitted on its good training pictures and judged on its test pictures, once a weight of the head: 0 is the
score without one, 1 a map that is half of each, a very large one the head alone. Beside the figures of the real defects
stand those of painted ones on good pictures that no network saw. A set is one of those named here, a folder below DATA,
or a manifest. OUT gets one JSON a set, weight, preset and seed, which are not made twice, and README.md with the table.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from real_sets import SETS

from anodiff import artefact
from anodiff.config import load
from anodiff.data.image import read_mask
from anodiff.data.index import index
from anodiff.data.table import rows_where
from anodiff.detect.evaluate import Evaluation
from anodiff.detector import Detector
from anodiff.gather import gather
from anodiff.metrics.pixel import PixelScores
from anodiff.version import __version__

FIGURES = ("image_auroc", "pixel_auroc")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--weights", nargs="+", type=float, default=[0.0, 0.5, 1.0])
    parser.add_argument("--preset", default="features")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="of the configuration"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.sets:
        for seed in args.seeds:
            for weight in args.weights:
                judge(name, weight, seed, args)
    (args.out / "README.md").write_text(table(args.out, args.preset))


def judge(name: str, weight: float, seed: int, args: argparse.Namespace) -> None:
    """Fit and evaluate one cell, unless its figures are there."""
    file = args.out / f"{name.replace('/', '_')}-{weight:g}-{args.preset}-seed{seed}.json"
    if file.exists():
        return
    place, column = SETS.get(name, (name, "split"))
    # Without a head the map is, to the bit, that of a head of weight 0: there is none to train then.
    head = [f"score.head={{kind: learned, weight: {weight!r}}}"] if weight else []
    further = [word for word in args.set if weight or not word.startswith("score.head.")]
    words = [f"seed={seed}", "score.fuse=fisher", *head, *further]
    config = load(preset=args.preset, overrides=words)
    start = time.perf_counter()
    good = gather(args.data / place, config, split_column=column)
    detector = Detector(config=config, device=args.device).fit(good)
    seconds = time.perf_counter() - start
    test = index(args.data / place, split_column=column)
    test = rows_where(test, test["split"] == "test")
    evaluation, spent = Evaluation(pixels=PixelScores()), []
    for row, result in zip(test.to_dict("records"), detector.stream(list(test["image"])), strict=True):
        evaluation.add(result, int(row["label"]), None if row["mask"] is None else read_mask(row["mask"]))
        spent.append(result.timings_ms["score"])
    about = {
        "set": name, "weight": weight, "seed": seed, "preset": args.preset, "overrides": words,
        **{key: vars(value) for key, value in evaluation.metrics(seed=seed).items()},
        "head": provenance(detector).get("head"),
        "fit_seconds": round(seconds, 1), "score_ms_p50": round(float(np.median(spent)), 2),
        "device": str(detector.device), "model_id": detector.model_id,
        "anodiff": __version__, "torch": torch.__version__, "platform": platform.platform(),
    }  # fmt: skip
    file.write_text(json.dumps(about, indent=1) + "\n")
    print(name, weight, seed, {key: about[key]["value"] for key in FIGURES if key in about}, flush=True)


def provenance(detector: Detector) -> dict[str, Any]:
    """Where a detector comes from, as its file tells it."""
    with tempfile.TemporaryDirectory() as folder:
        return artefact.read_header(detector.save(Path(folder) / "model.anodiff"))["provenance"]


def table(folder: Path, preset: str) -> str:
    """One line a set and seed: image / pixel AUROC at each weight, and of the head on painted defects."""
    cells = [json.loads(path.read_text()) for path in sorted(folder.glob(f"*-{preset}-seed*.json"))]
    weights = sorted({cell["weight"] for cell in cells})
    by = {(cell["set"], cell["seed"], cell["weight"]): cell for cell in cells}
    titles = ["without" if not weight else f"weight {weight:g}" for weight in weights]
    lines = [
        "# A learnt head beside the residual: image AUROC / pixel AUROC",
        "",
        "| set | seed | " + " | ".join(titles) + " | the head, painted defects |",
        "|" + "---|" * (3 + len(titles)),
    ]
    for name, seed in sorted({key[:2] for key in by}):
        row = [by.get((name, seed, weight)) for weight in weights]
        heads = [cell["head"] for cell in row if cell is not None and cell["head"] is not None]
        shown = [figures(cell) for cell in row]
        lines.append(f"| {name} | {seed} | " + " | ".join(shown) + f" | {painted(heads)} |")
    told = sorted({f"anodiff {cell['anodiff']}, torch {cell['torch']}, {cell['device']}" for cell in cells})
    lines += ["", f"Preset {preset}; {'; '.join(told)}. Painted: means over kinds, of pictures / of places."]
    return "\n".join(lines) + "\n"


def figures(cell: dict[str, Any] | None) -> str:
    return "-" if cell is None else " / ".join(f"{cell[key]['value']:.3f}" for key in FIGURES if key in cell)


def painted(heads: list[dict[str, Any]]) -> str:
    if not heads or "image_auroc" not in heads[-1]:
        return "-"
    return " / ".join(
        f"{np.mean(list(heads[-1][key].values())):.3f}" for key in ("image_auroc", "place_auroc")
    )


if __name__ == "__main__":
    main()
