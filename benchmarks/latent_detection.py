"""Detection by latent diffusion: every route with the same weights, beside part A's presets.

    python benchmarks/latent_detection.py --data ../shared/data -o benchmarks/results/latent_detection

Pictures are worked at 128 px, as by the preset `pixels`. For each set one autoencoder (KL, stride 4) and one latent
model are fitted on the good pictures, and looked at in every way: restoration from partial noise compared in codes, in
pixels, in features and fused; inpaint and compare over a scanned grid; details re-imagined over kept low frequencies.
The presets `features` and `pixels` are fitted beside it.
What is usual is learnt from every fourth training picture, for time.
Nothing is chosen: levels are the same for all sets, all routes are in the table, and test pictures are opened by the
evaluation alone.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import gan_detection
import generation
import guided_detection as routes
import numpy as np

from anodiff.config import load
from anodiff.data.index import index

SETS = gan_detection.SETS
LEVEL = 0.95
HIGH = 3.4
MODELS = {
    "latent": (
        "configs/mvtec/latent.yaml",
        ("codec.steps={codec}", "train.steps={steps}", "data.size=128", "net.patch=1", "net.width=48"),
    ),
    "features": (None, ()),
    "pixels": ("pixels", ("train.steps={steps}",)),
}


def restored(**more: Any) -> dict[str, Any]:
    """Restoration from partial noise."""
    return {"kind": "partial_noise", "levels": [LEVEL], "steps": 10} | more


ROUTES: dict[str, tuple[str, dict[str, Any] | None]] = {
    "preset features": ("features", None),
    "preset pixels": ("pixels", None),
    "latent residual": ("latent", restored(distances={"latent": 1.0})),
    "decoded, L1": ("latent", restored(distances={"l1": 1.0})),
    "decoded, features": ("latent", restored(distances={"feature": 1.0})),
    "latent + decoded features": ("latent", restored(distances={"latent": 1.0, "feature": 1.0})),
    "latent residual, one step": ("latent", {"kind": "one_step", "sigmas": [LEVEL]}),
    "inpaint and compare, features": (
        "latent",
        {"kind": "repair", "cell": 8, "masks": 2, "level": HIGH, "steps": 10, "distances": {"feature": 1.0}},
    ),
    "detail re-imagined, features": (
        "latent",
        {"kind": "detail", "factor": 4, "level": HIGH, "steps": 10, "distances": {"feature": 1.0}},
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the data sets")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument(
        "--work", type=Path, default=Path("runs/latent_detection"), help="where models are kept"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=300, help="of the latent and the pixel model")
    parser.add_argument("--codec-steps", type=int, default=400)
    parser.add_argument("--routes", nargs="+", default=list(ROUTES), choices=list(ROUTES))
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.sets:
        file = args.out / f"{name}-seed{args.seed}.json"
        found = json.loads(file.read_text()) if file.exists() else {}
        if set(found.get("routes", ())) >= set(args.routes):
            continue
        place, column = SETS[name]
        table = index(args.data / place, split_column=column)
        table["category"] = name
        found = generation.about(
            seed=args.seed, data=name, steps=args.steps, codec_steps=args.codec_steps
        ) | {"routes": found.get("routes", {}), "fits": {}}
        found["command"] = (
            f"python benchmarks/latent_detection.py --data DATA -o OUT --seed {args.seed} --steps {args.steps}"
            f" --codec-steps {args.codec_steps}"
        )
        models: dict[str, Any] = {}
        for label, (kind, score) in ROUTES.items():
            if label in found["routes"] or label not in args.routes:
                continue
            if kind not in models:
                models[kind] = fitted(kind, args, name, table)
            found["fits"][kind] = models[kind].info["provenance"]
            start = time.perf_counter()
            way = (
                models[kind]
                if score is None
                else routes.along(
                    models[kind], {"score": score, "guidance": {"kind": "none"}}, table, every=4
                )
            )
            told = routes.measured(way, table, seed=args.seed)
            by = told.pop("sets")[name]
            found["routes"][label] = told | {"model": kind} | by
            print(
                f"{name}, {label}: {by['image_auroc']['value']:.3f}; {time.perf_counter() - start:.0f} s",
                flush=True,
            )
            file.write_text(json.dumps(found, indent=1) + "\n")
        write_table(args.out)


def fitted(kind: str, args: argparse.Namespace, name: str, table: Any) -> Any:
    """The model of a kind, fitted or read where it is kept."""
    source, overrides = MODELS[kind]
    filled = [text.format(codec=args.codec_steps, steps=args.steps) for text in overrides]
    preset = source if source in ("pixels", None) else None
    config = load(
        None if preset or source is None else source,
        preset=preset or (None if source else "features"),
        overrides=[*filled, f"seed={args.seed}"],
    )
    return routes.once(args.work / f"{kind}-{name}-{args.seed}.anodiff", config, table)


def write_table(folder: Path) -> None:
    """`README.md` of the folder: a line a route, image / pixel AUROC of each set, the mean over sets."""
    files = [json.loads(path.read_text()) for path in sorted(folder.glob("*-seed*.json"))]
    sets = [name for name in SETS if any(f["data"] == name for f in files)]
    lines = [
        f"| route | evaluations | ms | {' | '.join(sets)} | mean image AUROC |",
        "|" + "---|" * (4 + len(sets)),
    ]
    for route in ROUTES:
        rows = {f["data"]: f["routes"][route] for f in files if route in f["routes"]}
        if not rows:
            continue
        cells = [
            f"{rows[name]['image_auroc']['value']:.3f} / {rows[name]['pixel_auroc']['value']:.3f}"
            if name in rows
            else "-"
            for name in sets
        ]
        told = next(iter(rows.values()))
        mean = np.mean([row["image_auroc"]["value"] for row in rows.values()])
        ms = np.median([row["ms_p50"] for row in rows.values()])
        lines.append(
            f"| {route} | {told['evaluations_per_image']} | {ms:.0f} | {' | '.join(cells)} | {mean:.3f} |"
        )
    (folder / "README.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
