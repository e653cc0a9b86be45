"""Detection by a denoising diffusion GAN beside DDIM, by evaluations of the network a picture.

    python benchmarks/gan_detection.py --data ../shared/data -o benchmarks/results/gan_detection

For each set two models of the same frozen features are fitted with the same U-Net: a DDGAN of four levels, and a usual
one of a thousand. A step of the game costs more; the usual model takes so many more steps that both train for as much
CPU time, as measured first. Every route then looks with the same weights. Nothing is chosen: the noise levels are the
lowest three of the GAN's table for both, all routes are in the table, and test pictures are opened by the evaluation
alone.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import generation
import guided_detection as routes
import numpy as np
import pandas as pd
from real_sets import SETS

from anodiff.config import RunConfig, load
from anodiff.data.index import index
from anodiff.detector import Detector

LEVELS = (0.954, 3.413)  # the lower two of the four
TOP = 152.16  # the highest
FAMILIES: dict[str, tuple[str, ...]] = {
    "DDGAN": (
        "family={kind: ddgan, schedule: {name: vp, steps: 4}, r1: 0.5, r1_every: 4, reconstruction: 1.0,"
        " critic: {width: 64, multipliers: [1, 1.5], patch: 2}}",
        "train={times: table, learning_rate: 5.0e-4, clip: 10.0}",
        f"score={{kind: one_step, sigmas: [{LEVELS[0]}]}}",
    ),
    "usual": (
        "family={kind: x0, schedule: {name: linear, steps: 1000}}",
        "train={times: table, weight: min_snr}",
        f"score={{kind: one_step, sigmas: [{LEVELS[0]}]}}",
    ),
}


def restored(level: float, steps: int, **more: Any) -> dict[str, Any]:
    """Restoration from a level, compared in feature space."""
    return {"kind": "partial_noise", "levels": [level], "steps": steps, "distances": {"latent": 1.0}, **more}


ROUTES: dict[str, tuple[str, dict[str, Any]]] = {
    "DDIM, 1 from .954": ("usual", restored(LEVELS[0], 1)),
    "DDIM, 4 from .954": ("usual", restored(LEVELS[0], 4)),
    "DDIM, 10 from .954": ("usual", restored(LEVELS[0], 10)),
    "DDIM, 50 from .954": ("usual", restored(LEVELS[0], 50)),
    "DDIM, 4 from 3.41": ("usual", restored(LEVELS[1], 4)),
    "DDGAN, 1 from .954": ("DDGAN", restored(LEVELS[0], 1, eta=1.0)),
    "DDGAN, 1 from .954, latent fixed": ("DDGAN", restored(LEVELS[0], 1, eta=1.0, latent="fixed")),
    "DDGAN, 2 from 3.41": ("DDGAN", restored(LEVELS[1], 2, eta=1.0)),
    "DDGAN, 4 from 152": ("DDGAN", restored(TOP, 4, eta=1.0)),
    "DDGAN, 4 draws of 1 from .954": ("DDGAN", restored(LEVELS[0], 1, eta=1.0, draws=4)),
    "DDGAN, 4 draws, their spread": (
        "DDGAN", restored(LEVELS[0], 1, eta=1.0, draws=4, distances={"spread": 1.0}),
    ),
    "DDGAN, 1 from .954 + opinion": ("DDGAN", restored(LEVELS[0], 1, eta=1.0, opinion=1.0)),
    "discriminator's opinion at .954": ("DDGAN", {"kind": "opinion", "levels": [LEVELS[0]]}),
    "one step, usual": ("usual", {"kind": "one_step", "sigmas": [LEVELS[0]], "residual": "covariance"}),
    "one step, DDGAN": ("DDGAN", {"kind": "one_step", "sigmas": [LEVELS[0]], "residual": "covariance"}),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the data sets")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/gan_detection"), help="where models are kept")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=200, help="training steps of the GAN")
    parser.add_argument("--ratio", type=float, help="of the CPU time of a step; measured where not given")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    args.out.mkdir(parents=True, exist_ok=True)
    ratio = args.ratio
    for name in args.sets:
        file = args.out / f"{name}-seed{args.seed}.json"
        found = json.loads(file.read_text()) if file.exists() else {}
        if set(found.get("routes", ())) == set(ROUTES):
            continue
        place, column = SETS[name]
        table = index(args.data / place, split_column=column)
        table["category"] = name
        if ratio is None:
            ratio = costs(table)
            print(f"a step of the game costs {ratio:.2f} of a usual one", flush=True)
        steps = {"DDGAN": args.steps, "usual": round(args.steps * ratio)}
        models = {
            kind: routes.once(
                args.work / f"{kind}-{name}-{args.seed}.anodiff", config(kind, args.seed, steps[kind]), table
            )
            for kind in FAMILIES
        }
        found = generation.about(seed=args.seed, data=name, steps=steps, ratio=round(ratio, 2)) | {
            "routes": found.get("routes", {})
        }
        found["command"] = (
            f"python benchmarks/gan_detection.py --data DATA -o OUT --seed {args.seed} --steps {args.steps}"
            f" --ratio {ratio:.2f}"
        )
        found["alarms"] = models["DDGAN"].info.get("alarms", [])
        for label, (kind, score) in ROUTES.items():
            if label in found["routes"]:
                continue
            start = time.perf_counter()
            way = {"score": score, "guidance": {"kind": "none"}}
            told = routes.measured(routes.along(models[kind], way, table), table, seed=args.seed)
            by = told.pop("sets")[name]
            found["routes"][label] = told | {"model": kind} | by
            auroc = by["image_auroc"]["value"]
            print(f"{name}, {label}: {auroc:.3f}; {time.perf_counter() - start:.0f} s", flush=True)
            file.write_text(json.dumps(found, indent=1) + "\n")
        write_table(args.out)


def config(kind: str, seed: int, steps: int) -> RunConfig:
    return load(preset="fine", overrides=[*FAMILIES[kind], f"seed={seed}", f"train.steps={steps}"])


def costs(table: pd.DataFrame, *, rounds: int = 3, steps: int = 8) -> float:
    """The CPU time of a step of the game over that of a usual one: medians, the two in turn."""
    found: dict[str, list[float]] = {kind: [] for kind in FAMILIES}
    for _ in range(rounds):
        for kind, times in found.items():
            whole = []
            for count in (2, 2 + steps):  # their difference is free of reading and learning
                start = time.process_time()
                Detector(config=config(kind, 0, count)).fit(table)
                whole.append(time.process_time() - start)
            times.append((whole[1] - whole[0]) / steps)
    return median(found["DDGAN"]) / median(found["usual"])


def write_table(folder: Path) -> None:
    """`README.md` of the folder: a line a route, image / pixel AUROC of each set, the mean over seeds."""
    files = [json.loads(path.read_text()) for path in sorted(folder.glob("*-seed*.json"))]
    sets = [name for name in SETS if any(f["data"] == name for f in files)]
    lines = [
        f"| route | evaluations | ms | {' | '.join(sets)} | mean image AUROC |",
        "|" + "---|" * (4 + len(sets)),
    ]
    for route in ROUTES:
        cells, means, told = [], [], None
        for name in sets:
            rows = [f["routes"][route] for f in files if f["data"] == name and route in f["routes"]]
            if not rows:
                cells.append("-")
                continue
            told = rows[0]
            image = float(np.mean([row["image_auroc"]["value"] for row in rows]))
            pixel = [row["pixel_auroc"]["value"] for row in rows if "pixel_auroc" in row]
            means.append(image)
            cells.append(f"{image:.3f}" + (f" / {np.mean(pixel):.3f}" if pixel else ""))
        if told is not None:
            lines.append(
                f"| {route} | {told['evaluations_per_image']} | {told['ms_p50']:.0f} | {' | '.join(cells)} | "
                f"{np.mean(means):.3f} |"
            )
    (folder / "README.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
