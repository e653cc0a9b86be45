"""One model for several kinds of parts, and every way to look with it: the table of detection by route.

    python benchmarks/guided_detection.py --data ../shared/data -o benchmarks/results/guided_detection

Fits one pixel model, conditional on the kind of part, with a classifier of noisy pictures beside it, and one feature
model. Each route (plain, classifier-free, classifier-guided in both forms, pulled, bound, flow, ...) shares those
weights: what is usual for it is learnt anew from the training normals, its thresholds from the held-out ones. The
noise level and the distances of all restorations are chosen once, by defects painted on held-out normals
(self_test-SEED.json); nothing under a test folder is opened before the evaluation. All scales and weights that were
tried are in the table.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from real_sets import SETS as REAL

from anodiff import compose
from anodiff.config import RunConfig, load, parse
from anodiff.data.image import prepare, read, read_mask
from anodiff.data.index import index
from anodiff.data.synthetic import COARSE, paint
from anodiff.data.table import rows_where
from anodiff.detect import teaching
from anodiff.detect.evaluate import Evaluation
from anodiff.detector import Detector
from anodiff.fitting import batches, with_labels
from anodiff.gather import gather, label_numbers, labelled
from anodiff.metrics.pixel import PixelScores
from anodiff.train.progress import progress
from anodiff.version import __version__

SETS = {name: place for name, place in REAL.items() if name != "magnetic_tile"}
PIXELS = (
    "data={size: 128, aspect: square}",
    "labels={kind: category}",
    "net={kind: unet, width: 48, multipliers: [1, 2, 2], blocks: 1, attention: [2]}",
    "family={kind: x0, schedule: {name: linear, steps: 1000}}",
    "guidance={kind: classifier, scale: 1.0, net: {steps: 300}}",
    "score={kind: partial_noise, levels: [0.95], steps: 5, distances: {lab: 1.0, feature: 1.0}}",
)
CHOICES = [
    {"levels": [level], "distances": distances}
    for level in (0.34, 0.95)
    for distances in ({"lab": 1.0}, {"feature": 1.0}, {"lab": 1.0, "feature": 1.0})
]
FEATURES = ("data.aspect=square",)


def route(score: dict[str, Any] | None = None, guidance: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"score": score or {}, "guidance": guidance or {"kind": "none"}}


ROUTES: dict[str, dict[str, Any]] = {
    "plain, DDIM": route(),
    "plain, DDPM": route({"sampler": "ddpm"}),
    "classifier-free, scale 2": route(guidance={"kind": "free", "scale": 2.0}),
    "classifier-free, scale 4": route(guidance={"kind": "free", "scale": 4.0}),
    "classifier, DDIM form, scale 1": route(guidance={"kind": "classifier", "scale": 1.0}),
    "classifier, DDIM form, scale 4": route(guidance={"kind": "classifier", "scale": 4.0}),
    "classifier, DDPM form, scale 4": route(
        {"sampler": "ddpm"}, {"kind": "classifier", "scale": 4.0, "form": "mean"}
    ),
    "pulled, weight 0.5": route({"pull": 0.5}),
    "pulled, weight 1": route({"pull": 1.0}),
    "pulled, weight 2": route({"pull": 2.0}),
    "bound map, 4 levels": route({"kind": "bound", "level": 0.95, "steps": 4}),
    "flow map, 4 levels": route({"kind": "flow", "low": 0.1, "high": 0.95, "steps": 4}),
    "one-step error": route({"kind": "one_step", "sigmas": [0.5]}),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the data sets")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument(
        "--work", type=Path, default=Path("runs/guided_detection"), help="where models are kept"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1000, help="training steps of the pixel model")
    parser.add_argument("--feature-steps", type=int, default=300, help="training steps of the feature models")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--routes", nargs="+", default=list(ROUTES), choices=list(ROUTES))
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    args.out.mkdir(parents=True, exist_ok=True)
    table = together(args.data, args.sets)
    pixels = load(preset="pixels", overrides=[*PIXELS, f"seed={args.seed}", f"train.steps={args.steps}"])
    fitted = once(args.work / f"pixels-{args.seed}.anodiff", pixels, table)
    chosen = choose(fitted, table, args.out / f"self_test-{args.seed}.json")
    for name in args.routes:
        way = {"score": {**chosen, **ROUTES[name]["score"]}, "guidance": ROUTES[name]["guidance"]}
        if "kind" in ROUTES[name]["score"]:
            way["score"] = ROUTES[name]["score"]
        judge(name, lambda way=way: along(fitted, way, table, every=2), table, args)
    for name, labels in (("feature model, conditional", "category"), ("feature model, one for all", "none")):
        overrides = [
            *FEATURES,
            f"seed={args.seed}",
            f"train.steps={args.feature_steps}",
            f"labels.kind={labels}",
        ]
        config = load(preset="fine", overrides=overrides)
        file = args.work / f"features-{labels}-{args.seed}.anodiff"
        judge(name, lambda config=config, file=file: once(file, config, table), table, args)
    write_table(args.out)


def together(data: Path, names: list[str]) -> pd.DataFrame:
    """One table of all sets, the name of each as the category."""
    tables = []
    for name in names:
        place, column = SETS[name]
        part = index(data / place, split_column=column)
        part["category"] = name
        tables.append(part)
    return pd.concat(tables, ignore_index=True)


def once(file: Path, config: RunConfig, table: pd.DataFrame) -> Detector:
    """The detector of a configuration, fitted unless its file is there."""
    import anodiff

    if not file.exists():
        detector = Detector(config=config)
        start = time.perf_counter()
        detector.fit(table, progress=progress("train"), say=lambda text: print(text, flush=True))
        print(f"{file.name}: fitted in {time.perf_counter() - start:.0f} s", flush=True)
        detector.save(file)
    return anodiff.load(file)


def along(fitted: Detector, way: dict[str, Any], table: pd.DataFrame, *, every: int = 1) -> Detector:
    """The same weights looking another way, with what is usual learnt anew from every so many training normals."""
    values = fitted.config.model_dump()
    score = way["score"]
    values["score"] = score if "kind" in score else {**values["score"], **score}
    values["guidance"] = way["guidance"]
    config = parse(values)
    target_fpr = fitted.info["target_fpr"]
    predictor = compose.predictor(config, target_fpr=target_fpr, shape=fitted.shape, weights="auto")
    for part in ("codec", "denoiser", "classifier", "labeller", "critic"):
        mine, theirs = getattr(predictor, part), getattr(fitted.predictor, part)
        if mine is not None:
            mine.load_state_dict(theirs.state_dict())
    predictor.eval().to(fitted.device)
    good = gather(table, config)
    config = labelled(config, good)

    def images(pictures: Any, rows: pd.DataFrame) -> Any:
        labels = label_numbers(config, rows)
        return with_labels(batches(pictures, fitted.shape, config, fitted.device), labels)

    taught = good.train[::every], good.train_rows.iloc[::every]
    teaching.learn(predictor, lambda: images(*taught), lambda: images(good.held, good.held_rows))
    return Detector(config=config).adopt(predictor, shape=fitted.shape, target_fpr=target_fpr)


def choose(fitted: Detector, table: pd.DataFrame, file: Path) -> dict[str, Any]:
    """The level and distances that find painted defects on held-out normals best, kept in `file`."""
    if not file.exists():
        found = []
        for score in CHOICES:
            detector = along(fitted, route(score), table, every=6)
            by_set = self_test(detector, table)
            found.append({"score": score, "mean": float(np.mean(list(by_set.values()))), "sets": by_set})
            print("self-test", json.dumps(found[-1]), flush=True)
        file.write_text(json.dumps(found, indent=1) + "\n")
    return max(json.loads(file.read_text()), key=lambda entry: entry["mean"])["score"]


def self_test(detector: Detector, table: pd.DataFrame, *, most: int = 8) -> dict[str, float]:
    """Image AUROC of painted defects against the same held-out normals, by set."""
    held = gather(table, detector.config).held_rows
    found = {}
    for category in sorted(set(held["category"])):
        evaluation = Evaluation()
        paths = list(held["image"][held["category"] == category])[:most]
        for number, path in enumerate(paths):
            array = read(path)
            image = prepare(array, shape=array.shape[:2], channels=3 if array.ndim == 3 else 1)
            evaluation.add(detector.predict(path, label=category), 0)
            for kind in (number % len(COARSE), (number + 3) % len(COARSE)):
                painted, _ = paint(image, COARSE[kind], seed=100 * number + kind, strength=0.6)
                evaluation.add(detector.predict(painted, label=category), 1)
        found[category] = evaluation.metrics(seed=0, draws=1)["image_auroc"].value
    return found


def judge(name: str, make: Any, table: pd.DataFrame, args: argparse.Namespace) -> None:
    """Learn and evaluate one route, unless its numbers are there."""
    file = args.out / (name.replace(", ", "-").replace(" ", "_") + f"-seed{args.seed}.json")
    if file.exists():
        return
    start = time.perf_counter()
    detector = make()
    ready = time.perf_counter()
    found = measured(detector, table, seed=args.seed)
    about = {
        "route": name, "seed": args.seed, "steps": detector.config.train.steps, "device": str(detector.device),
        "learn_seconds": round(ready - start, 1),
        "anodiff": __version__, "torch": torch.__version__, "platform": platform.platform(),
        "command": f"python benchmarks/guided_detection.py --data DATA -o OUT --seed {args.seed} --steps {args.steps}",
    }  # fmt: skip
    file.write_text(json.dumps(about | found, indent=1) + "\n")
    shown = ", ".join(f"{key} {value['image_auroc']['value']:.3f}" for key, value in found["sets"].items())
    print(f"{name}: {shown}; {time.perf_counter() - start:.0f} s", flush=True)


def measured(detector: Detector, table: pd.DataFrame, *, seed: int) -> dict[str, Any]:
    """Metrics of the test pictures of every category by itself, with what a picture costs."""
    found: dict[str, Any] = {}
    ms: list[float] = []
    alarms = [0, 0]
    for category in sorted(set(table["category"])):
        test = rows_where(table, (table["split"] == "test") & (table["category"] == category))
        labels = [category] * len(test) if detector.labels else None
        evaluation = Evaluation(pixels=PixelScores())
        for row, result in zip(
            test.to_dict("records"), detector.stream(list(test["image"]), labels=labels), strict=True
        ):
            evaluation.add(result, int(row["label"]), None if row["mask"] is None else read_mask(row["mask"]))
            ms.append(sum(result.timings_ms.values()))
            if not row["label"]:
                alarms[0] += bool(result.is_anomalous)
                alarms[1] += 1
        found[category] = {key: vars(value) for key, value in evaluation.metrics(seed=seed).items()}
    return {
        "evaluations_per_image": detector.evaluations,
        "ms_p50": round(float(np.median(ms)), 2),
        "false_alarm_rate": alarms[0] / alarms[1],
        "target_fpr": detector.info["target_fpr"],
        "sets": found,
    }


def write_table(folder: Path) -> None:
    """`README.md` of the folder: one line a route and seed, image / pixel AUROC of each set."""
    files = [json.loads(path.read_text()) for path in sorted(folder.glob("*-seed*.json"))]
    order = [*ROUTES, "feature model, conditional", "feature model, one for all"]
    files.sort(key=lambda f: (order.index(f["route"]), f["seed"]))
    sets = [name for name in SETS if any(name in f["sets"] for f in files)]
    lines = [
        "| route | seed | evaluations | ms | " + " | ".join(sets) + " | mean image AUROC |",
        "|" + "---|" * (5 + len(sets)),
    ]
    for found in files:
        cells, values = [], []
        for name in sets:
            metrics = found["sets"].get(name)
            if metrics is None:
                cells.append("-")
                continue
            values.append(metrics["image_auroc"]["value"])
            pixel = metrics.get("pixel_auroc")
            cells.append(f"{values[-1]:.3f}" + (f" / {pixel['value']:.3f}" if pixel else ""))
        lines.append(
            f"| {found['route']} | {found['seed']} | {found['evaluations_per_image']} | {found['ms_p50']:.0f} | "
            + " | ".join(cells)
            + f" | {np.mean(values):.3f} |"
        )
    (folder / "README.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
