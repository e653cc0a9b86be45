"""Put defects among the good pictures and see whether a fit names them, and what it costs not to leave them out.

    python benchmarks/contaminated.py mvtec/bottle -o benchmarks/results/contaminated-bottle --share 0 0.05 0.1

Test defects, chosen by a seed, are copied among the good training pictures, in equal steps over the kinds of defects.
Each share is fitted with and without `--drop-suspects`, and evaluated on the test pictures that were not copied. The
names say which are defects; the fit does not know. OUT gets contaminated.json and contaminated.md.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

from anodiff.data.index import index, normals
from anodiff.data.table import rows_where

MARK = "defect_"
"""How the names of copied defects begin."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", help="part in MVTec layout")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument(
        "--share", type=float, nargs="+", default=[0.0, 0.05, 0.1], help="of defects among the good"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--preset", default="features")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="of the configuration")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/contaminated"), help="where pictures and models are kept"
    )
    args = parser.parse_args()
    rows = [one(share, seed, args) for share in args.share for seed in args.seeds]
    args.out.mkdir(parents=True, exist_ok=True)
    about = {"set": Path(args.data).name, "preset": args.preset, "overrides": args.set, "rows": rows}
    (args.out / "contaminated.json").write_text(json.dumps(about, indent=1) + "\n")
    (args.out / "contaminated.md").write_text(table(rows))
    print(table(rows))


def one(share: float, seed: int, args: argparse.Namespace) -> dict:
    """Fit one contaminated set twice, keeping and dropping the suspects."""
    place = args.work / f"{Path(args.data).name}-{share:g}-{seed}"
    copied = contaminate(args.data, place, share=share, seed=seed)
    found = {"share": share, "seed": seed, "defects": copied}
    for name, options in (("kept", []), ("dropped", ["--drop-suspects"])):
        run = place / name
        start = time.perf_counter()
        fit = ["fit", str(place / "part"), "-o", str(run), "--preset", args.preset, "--seed", str(seed)]
        fit += [*options, "--no-samples", "--device", args.device]
        call(fit + [word for key in args.set for word in ("--set", key)])
        seconds = time.perf_counter() - start
        call(
            [
                "eval",
                str(run / "model.anodiff"),
                str(place / "part"),
                "-o",
                str(run / "eval"),
                "--device",
                args.device,
            ]
        )
        metrics = json.loads((run / "eval" / "metrics.json").read_text())
        kept = ("image_auroc", "pixel_auroc", "aupro_30", "false_alarm_rate")
        found[name] = {key: metrics[key] for key in kept if key in metrics}
        found[name] |= {"escapes": escapes(run / "eval"), "fit_seconds": round(seconds, 1)}
        if name == "kept":
            found["suspects"] = suspects(run / "suspects.csv", copied)
    return found


def contaminate(data: str, place: Path, *, share: float, seed: int) -> int:
    """Copy the part to `place`/part with `share` of defects among its good training pictures; how many they are."""
    shutil.rmtree(place, ignore_errors=True)
    whole = index(data)
    good = list(normals(whole)["image"])
    bad = rows_where(whole, (whole["split"] == "test") & (whole["label"] == 1))
    draw = random.Random(seed)
    kinds = {kind: list(part["image"]) for kind, part in bad.groupby("defect")}
    for paths in kinds.values():
        draw.shuffle(paths)
    turns = [
        path
        for row in range(max(map(len, kinds.values())))
        for paths in kinds.values()
        for path in paths[row : row + 1]
    ]
    chosen = turns[: round(share * len(good) / (1 - share))]
    train = place / "part" / "train" / "good"
    train.mkdir(parents=True)
    for path in good:
        shutil.copy(path, train / Path(path).name)
    for number, path in enumerate(chosen):
        shutil.copy(path, train / f"{MARK}{number:03}{Path(path).suffix}")
    columns = ("image", "mask", "label", "defect", "split")
    for image, mask, _, defect, split in zip(*(whole[name] for name in columns), strict=True):
        if split != "test" or image in chosen:
            continue
        target = place / "part" / "test" / defect / Path(image).name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, target)
        if mask is not None:
            truth = place / "part" / "ground_truth" / defect / f"{target.stem}_mask.png"
            truth.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(mask, truth)
    return len(chosen)


def suspects(path: Path, copied: int) -> dict:
    """How many pictures were named, how many of them are defects, and which share of the defects that is."""
    with path.open(newline="") as file:
        names = [Path(row["image"]).name for row in csv.DictReader(file)]
    hits = sum(name.startswith(MARK) for name in names)
    return {
        "named": len(names),
        "defects": hits,
        "precision": hits / len(names) if names else None,
        "recall": hits / copied if copied else None,
    }


def escapes(folder: Path) -> float:
    """The share of defective test pictures that the model's own threshold lets pass."""
    with (folder / "predictions.csv").open(newline="") as file:
        labels = [row["label"] for row in csv.DictReader(file) if row["truth"] == "1" and row["label"]]
    return labels.count("0") / len(labels)


def call(arguments: list[str]) -> None:
    print("$ anodiff", *arguments, flush=True)
    subprocess.run([sys.executable, "-m", "anodiff", *arguments], check=True, stdout=subprocess.DEVNULL)


def table(rows: list[dict]) -> str:
    """The numbers as Markdown."""
    lines = [
        "| defects among the good | seed | named | of them defects | recall | image AUROC | after dropping | escapes | "
        "after dropping | false alarms | after dropping |",
        "|" + "---|" * 11,
    ]
    for row in rows:
        named, kept, dropped = row["suspects"], row["kept"], row["dropped"]
        cells = [
            f"{row['defects']} ({row['share']:.0%})",
            str(row["seed"]),
            str(named["named"]),
            str(named["defects"]),
        ]
        cells.append("-" if named["recall"] is None else f"{named['recall']:.2f}")
        cells += [f"{entry['image_auroc']['value']:.3f}" for entry in (kept, dropped)]
        cells += [f"{entry['escapes']:.2f}" for entry in (kept, dropped)]
        cells += [f"{entry['false_alarm_rate']['value']:.2f}" for entry in (kept, dropped)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
