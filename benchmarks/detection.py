"""Fit and evaluate one configuration on many data sets through the command line, and write the table of the README.

    python benchmarks/detection.py --data ../shared/data -o benchmarks/results

Each data set is fitted in its own process with the same configuration, from its training pictures alone, then
evaluated. One JSON file a data set and seed keeps the numbers with seed, command, device and commit; `detection.md`
is the table made from them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

SETS = {
    "bottle": ("mvtec_ad/bottle", ()),
    "toothbrush": ("mvtec_ad/toothbrush", ()),
    "kolektor": ("kolektor_sdd/kolektorsdd", ()),
    "PIPED PA_BFT01_TL": ("piped/PA_BFT01_TL", ()),
    "PIPED PA_GLA01_TL": ("piped/PA_GLA01_TL", ()),
    "magnetic_tile (grouped)": ("magnetic_tile/manifest.csv", ("--split-column", "split_grouped")),
    "magnetic_tile (random)": ("magnetic_tile/manifest.csv", ("--split-column", "split_random")),
    "ELPV": ("elpv/manifest.csv", ()),
}
COLUMNS = ("image_auroc", "pixel_auroc", "aupro_30", "image_f1max", "overkill_at_zero_escapes")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the data sets")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/detection"), help="where models are kept")
    parser.add_argument("--preset", default="features")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.sets:
        for seed in args.seeds:
            one(name, seed, args)
    write_table(args.out)


def one(name: str, seed: int, args: argparse.Namespace) -> None:
    """Fit and evaluate one data set with one seed, unless its result is there already."""
    place, options = SETS[name]
    slug = f"{args.preset}-{name.split(' (')[0]}-{name.partition(' (')[2][:-1] or 'all'}-seed{seed}".replace(
        " ", "_"
    )
    result, run = args.out / f"{slug}.json", args.work / slug
    data = args.work / "elpv" / "manifest.csv" if name == "ELPV" else args.data / place
    if result.exists():
        return
    if name == "ELPV" and not data.exists():
        from anodiff.data.elpv import make_elpv

        make_elpv(data.parent)
    fit = ["fit", str(data), "-o", str(run), "--preset", args.preset, "--seed", str(seed), *options]
    evaluate = ["eval", str(run / "model.anodiff"), str(data), "-o", str(run / "eval"), *options]
    start = time.perf_counter()
    call(fit)
    seconds = time.perf_counter() - start
    call(evaluate)
    found = json.loads((run / "eval" / "metrics.json").read_text())
    environment = json.loads((run / "environment.json").read_text())
    shown = [f"anodiff {' '.join(part)}" for part in (fit, evaluate)]
    about = {"set": name, "preset": args.preset, "fit_seconds": round(seconds, 1), "commands": shown}
    about |= {key: environment[key] for key in ("git_commit", "torch", "platform", "cpu_count")}
    text = json.dumps(about | found, indent=1).replace(str(args.work), "RUNS").replace(str(args.data), "DATA")
    result.write_text(text + "\n")  # where things lay on this machine is nobody's business
    print(f"{name}, seed {seed}: " + ", ".join(f"{key} {cell(found, key)}" for key in COLUMNS), flush=True)


def call(arguments: list[str]) -> None:
    print("$ anodiff", *arguments, flush=True)
    subprocess.run([sys.executable, "-m", "anodiff", *arguments], check=True)


def cell(found: dict, key: str) -> str:
    if key not in found:
        return "-"
    entry = found[key]
    return f"{entry['value']:.3f} [{entry['low']:.3f}, {entry['high']:.3f}]"


def write_table(folder: Path) -> None:
    """`detection.md`, one line a data set, preset and seed."""
    lines = [
        "| set | preset | seed | image AUROC | pixel AUROC | AUPRO@.3 | F1-max | overkill at zero escapes | fit, s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for path in sorted(folder.glob("*-seed*.json")):
        found = json.loads(path.read_text())
        cells = [found["set"], found["preset"], str(found["seed"])]
        cells += [cell(found, key) for key in COLUMNS] + [f"{found['fit_seconds']:.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    (folder / "detection.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
