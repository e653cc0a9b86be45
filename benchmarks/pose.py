"""Parts that lie at any angle: kept as they are, brought upright, or learnt at all angles.

    python benchmarks/pose.py ../shared/data -o benchmarks/results/pose --preset features

Every picture of a set, with its mask, is turned about its middle by a seeded angle, the border going on outside; bolts
are drawn at any angle and place. Each way to deal with it is fitted on the good training pictures and judged on the
test pictures:

    straight   pictures as they were taken, kept: what there is to win back (sets that are turned alone)
    keep       data.pose.kind=keep
    upright    data.pose.kind=upright
    augment    keep, with data.augment.rotate=180 in several draws of each picture

What `auto` would do is told beside it, with its figures. A set of textures has no part to bring upright, and the way is
left out there. OUT gets one JSON a set, way, preset and seed, which are not made twice, and README.md with the table.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from anodiff.complete import complete
from anodiff.config import RunConfig, load
from anodiff.data.hardware import Pose, draw, ground, outline
from anodiff.data.image import read, read_mask
from anodiff.data.index import index
from anodiff.data.synthetic import KINDS, paint
from anodiff.data.table import rows_where
from anodiff.detect.evaluate import Evaluation
from anodiff.detector import Detector
from anodiff.errors import ConfigError
from anodiff.gather import gather
from anodiff.metrics.pixel import PixelScores
from anodiff.version import __version__

SETS = {
    "toothbrush": "mvtec_ad/toothbrush",
    "PA_BFT01_TL": "piped/PA_BFT01_TL",
    "PA_GLA01_TL": "piped/PA_GLA01_TL",
    "bolts": None,  # drawn
}
WAYS = {
    "straight": ("data.pose.kind=keep",),
    "keep": ("data.pose.kind=keep",),
    "upright": ("data.pose.kind=upright",),
    "augment": ("data.pose.kind=keep", "data.augment.rotate=180"),
}
FIGURES = ("image_auroc", "pixel_auroc", "aupro_30")
COUNTS = {("train", "good"): 60, ("test", "good"): 30, ("test", "defect"): 45}  # of bolts
SIDE = 256  # of a picture of a bolt, px
SMALLEST = 0.0002  # of a painted defect, over the picture


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder that holds the data sets")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--preset", default="features")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="of the configuration")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--draws", type=int, default=8, help="turns of each picture that `augment` learns")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--work", type=Path, default=Path("runs/pose"), help="where turned pictures are kept")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.sets:
        for seed in args.seeds:
            turned = made(name, args.data, args.work / f"{name}-{seed}", seed=seed)
            for way in args.ways:
                straight = None if SETS[name] is None else args.data / str(SETS[name])
                place = straight if way == "straight" else turned
                if place is not None:
                    judge(name, way, place, seed, args)
    shown = table(args.out, args.preset)
    (args.out / "README.md").write_text(shown, encoding="utf-8")
    print(shown)


def made(name: str, data: Path, place: Path, *, seed: int) -> Path:
    """The folder of the set with every picture at an angle of its own, in MVTec layout."""
    done = place / "done"
    if not done.exists():
        if SETS[name] is None:
            bolts(place, seed=seed)
        else:
            turn(data / str(SETS[name]), place, seed=seed)
        done.touch()
    return place


def turn(source: Path, place: Path, *, seed: int) -> None:
    """Copy a set, each picture and its mask turned about the middle by a random angle."""
    rng = np.random.default_rng([seed, len(source.name)])
    for row in index(source).to_dict("records"):
        angle = float(rng.uniform(0, 360))
        name = Path(row["image"]).stem
        write(
            place / row["split"] / row["defect"] / f"{name}.png",
            rotated(read(row["image"]), angle, cv2.INTER_LINEAR, cv2.BORDER_REPLICATE),
        )
        if row["mask"] is not None:
            mask = read_mask(row["mask"]).astype(np.uint8) * 255
            target = place / "ground_truth" / row["defect"] / f"{name}_mask.png"
            write(target, rotated(mask, angle, cv2.INTER_NEAREST, cv2.BORDER_CONSTANT))


def rotated(image: np.ndarray, angle: float, interpolation: int, border: int) -> np.ndarray:
    """The picture turned about its middle by degrees."""
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
    return cv2.warpAffine(image, matrix, (width, height), flags=interpolation, borderMode=border)


def bolts(place: Path, *, seed: int) -> None:
    """Draw bolts of one kind at any angle and place, some with a painted defect."""
    for number, (split, defect) in enumerate([kind for kind, count in COUNTS.items() for _ in range(count)]):
        rng = np.random.default_rng([seed, number])
        shape = (SIDE, SIDE)
        shown, base = outline("bolt", rng), ground(rng, shape)
        x, y = rng.uniform(0.4 * SIDE, 0.6 * SIDE, size=2)
        pose = Pose(x=x, y=y, radius=0.33 * SIDE, turn=rng.uniform(0, 2 * np.pi))
        cover, colour = draw(shown, pose, "steel", shape=shape, rng=rng)
        image = base + cover[..., None] * (colour - base) + rng.normal(0, 0.008, size=(*shape, 1))
        image = image.clip(0, 1).astype(np.float32)
        if defect != "good":
            image, mask = marred(image, cover > 0.5, rng)
            write(place / "ground_truth" / defect / f"{number:03}_mask.png", mask.astype(np.uint8) * 255)
        write(place / split / defect / f"{number:03}.png", np.round(image * 255).astype(np.uint8))


def marred(image: np.ndarray, part: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The picture with a defect on its part, and where it is."""
    while True:
        kind, seed = KINDS[int(rng.integers(len(KINDS)))], int(rng.integers(2**31))
        painted, mask = paint(
            torch.from_numpy(image.transpose(2, 0, 1)), kind, seed=seed, strength=float(rng.uniform(0.4, 0.9))
        )
        there = mask[0].numpy() & part
        if there.mean() >= SMALLEST:
            return np.where(there[..., None], painted.numpy().transpose(1, 2, 0), image), there


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), image[..., ::-1] if image.ndim == 3 else image):
        raise SystemExit(f"{path} cannot be written")


def judge(name: str, way: str, place: Path, seed: int, args: argparse.Namespace) -> None:
    """Fit and evaluate one cell, unless its figures are there."""
    file = args.out / f"{name}-{way}-{args.preset}-seed{seed}.json"
    if file.exists():
        return
    words = [*WAYS[way], f"seed={seed}", *args.set]
    words += [f"data.draws={args.draws}"] if way == "augment" else []
    config = load(preset=args.preset, overrides=words)
    about: dict[str, Any] = {
        "set": name, "way": way, "seed": seed, "preset": args.preset, "overrides": words,
        "auto": auto(config, place) if way in ("straight", "keep") else None,
        "anodiff": __version__, "torch": torch.__version__, "platform": platform.platform(),
    }  # fmt: skip
    start = time.perf_counter()
    try:
        detector = Detector(config=config, device=args.device).fit(place)
    except ConfigError as error:
        about["refused"] = str(error)
    else:
        about |= {"fit_seconds": round(time.perf_counter() - start, 1)} | measured(detector, place, seed)
    file.write_text(json.dumps(about, indent=1) + "\n")
    print(name, way, seed, {key: about[key]["value"] for key in FIGURES if key in about}, flush=True)


def auto(config: RunConfig, place: Path) -> str:
    """What `data.pose.kind=auto` finds, in its own words."""
    asked = load(preset="tiny", overrides=[f"seed={config.seed}", "data.pose.kind=auto"])
    said: list[str] = []
    complete(asked, gather(place, asked), say=said.append)
    return said[0]


def measured(detector: Detector, place: Path, seed: int) -> dict[str, Any]:
    """Figures of the test pictures, and what one costs."""
    whole = index(place)
    test = rows_where(whole, whole["split"] == "test")
    evaluation, prepare, score = Evaluation(pixels=PixelScores()), [], []
    for row, result in zip(test.to_dict("records"), detector.stream(list(test["image"])), strict=True):
        evaluation.add(result, int(row["label"]), None if row["mask"] is None else read_mask(row["mask"]))
        prepare.append(result.timings_ms["prepare"])
        score.append(result.timings_ms["score"])
    return {
        **{key: vars(value) for key, value in evaluation.metrics(seed=seed).items()},
        "pose": detector.config.data.pose.model_dump(mode="json"),
        "shape": list(detector.shape),
        "device": str(detector.device),
        "train_steps": detector.config.train.steps,
        "prepare_ms_p50": round(float(np.median(prepare)), 2),
        "score_ms_p50": round(float(np.median(score)), 2),
    }


def table(folder: Path, preset: str) -> str:
    """One line a set and seed: image / pixel AUROC of each way."""
    cells = [json.loads(path.read_text()) for path in sorted(folder.glob(f"*-{preset}-seed*.json"))]
    by = {(cell["set"], cell["seed"], cell["way"]): cell for cell in cells}
    titles = ["as taken", "turned, keep", "turned, upright", "turned, augment"]
    lines = [
        "# Parts at any angle: image AUROC / pixel AUROC",
        "",
        "| set | seed | " + " | ".join(titles) + " |",
        "|" + "---|" * (2 + len(titles)),
    ]
    rows = sorted({key[:2] for key in by}, key=lambda key: (list(SETS).index(key[0]), key[1]))
    for name, seed in rows:
        shown = [figures(by.get((name, seed, way))) for way in WAYS]
        lines.append(f"| {name} | {seed} | " + " | ".join(shown) + " |")
    lines += ["", "What `auto` finds:", ""]
    for (name, seed, way), cell in sorted(by.items()):
        if cell["auto"]:
            lines.append(
                f"- {name}, {'as taken' if way == 'straight' else 'turned'}, seed {seed}: {cell['auto']}"
            )
    if cells:
        first = cells[0]
        steps = sorted({cell["train_steps"] for cell in cells if "train_steps" in cell})
        lines += ["", f"Preset {first['preset']}, training steps {steps}, anodiff {first['anodiff']}."]
    return "\n".join(lines) + "\n"


def figures(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return "-"
    if "refused" in cell:
        return "no part"
    return " / ".join(f"{cell[key]['value']:.3f}" for key in FIGURES[:2] if key in cell)


if __name__ == "__main__":
    main()
