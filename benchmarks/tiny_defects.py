"""What is found of small spots on a texture when pictures are worked at their own size, and at less.

    python benchmarks/tiny_defects.py -o benchmarks/results

Windows of 448 px of a photograph (CC0, from scikit-image), mirrored at random, each with its own brightness and grain.
Defects are two round spots of one diameter, darker, or lighter where the texture is dark, at random places. A model is
fitted on 40 good windows at each `data.size`; 24 other good ones and 24 with spots are scored. Writes
OUT/tiny_defects.json and OUT/tiny_defects.md.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import skimage.data

from anodiff.config import load
from anodiff.detector import Detector
from anodiff.metrics.curve import auroc
from anodiff.metrics.image import image_curve
from anodiff.report.table import Table, markdown, number

SIDE = 448
TRAIN, GOOD, BAD = 40, 24, 24


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--textures", nargs="+", default=["gravel", "brick"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[112, 224, 448])
    parser.add_argument("--diameters", type=int, nargs="+", default=[6, 10, 16], help="px of the picture")
    parser.add_argument("--preset", default="features")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="of the configuration")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    rows = [row for texture in args.textures for size in args.sizes for row in one(texture, size, args)]
    about = {"preset": args.preset, "overrides": args.set, "seed": args.seed, "rows": rows}
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "tiny_defects.json").write_text(json.dumps(about, indent=1) + "\n")
    (args.out / "tiny_defects.md").write_text(table(rows, args))
    print(table(rows, args))


def one(texture: str, size: int, args: argparse.Namespace) -> list[dict]:
    """The figures of one texture at one working size, a row a diameter."""
    rng = np.random.default_rng(args.seed)
    good = [window(texture, rng) for _ in range(TRAIN + GOOD)]
    words = [f"data.size={size}", f"seed={args.seed}", *args.set]
    config = load(preset=args.preset, overrides=words)
    start = time.perf_counter()
    detector = Detector(config=config, device=args.device).fit(good[:TRAIN])
    seconds = time.perf_counter() - start
    clean = [detector.predict(picture).score for picture in good[TRAIN:]]
    rows = []
    for diameter in args.diameters:
        drawn = np.random.default_rng([args.seed, diameter])
        bad = [spotted(window(texture, drawn), diameter, drawn) for _ in range(BAD)]
        start = time.perf_counter()
        scores = np.array(clean + [detector.predict(picture).score for picture in bad])
        each = (time.perf_counter() - start) / BAD
        found = float(auroc(image_curve(scores, np.arange(len(scores)) >= GOOD)))
        row = {"texture": texture, "size": size, "diameter": diameter, "image_auroc": found}
        rows.append(row | {"fit_seconds": round(seconds, 1), "score_ms": round(1e3 * each, 1)})
        print(row, flush=True)
    return rows


def window(texture: str, rng: np.random.Generator) -> np.ndarray:
    """A good picture, uint8 [448, 448, 3]."""
    photograph = getattr(skimage.data, texture)()
    y, x = rng.integers(0, np.array(photograph.shape) - SIDE)
    grey = photograph[y : y + SIDE, x : x + SIDE].astype(np.float64)
    grey = grey[:: rng.choice([-1, 1]), :: rng.choice([-1, 1])]
    grey = grey * rng.uniform(0.95, 1.05) + rng.normal(0, 3, grey.shape)
    return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def spotted(picture: np.ndarray, diameter: int, rng: np.random.Generator) -> np.ndarray:
    """The picture with two spots, each a third as bright as what is there, or the negative of that where it is dark."""
    picture = picture.copy()
    rows, columns = np.mgrid[:SIDE, :SIDE]
    for _ in range(2):
        y, x = rng.integers(diameter, SIDE - diameter, 2)
        spot = (rows - y) ** 2 + (columns - x) ** 2 < (diameter / 2) ** 2
        dark = picture[spot].mean() < 128
        third = picture[spot].astype(np.float64) * 0.3
        picture[spot] = (255 - third if dark else third).astype(np.uint8)
    return picture


def table(rows: list[dict], args: argparse.Namespace) -> str:
    """A row a texture and size, a column a diameter."""
    lines = []
    for texture in args.textures:
        for size in args.sizes:
            own = [row for row in rows if row["texture"] == texture and row["size"] == size]
            found = {row["diameter"]: row["image_auroc"] for row in own}
            fit, score = own[0]["fit_seconds"], np.median([row["score_ms"] for row in own])
            cells = (number(found[diameter]) for diameter in args.diameters)
            lines.append((texture, f"{size}", *cells, f"{fit:.0f}", f"{score:.0f}"))
    columns = ("texture", "data.size", *(f"{d} px" for d in args.diameters), "fit, s", "a score, ms")
    return markdown(Table(columns, tuple(lines), numeric=tuple(range(1, len(columns)))))


if __name__ == "__main__":
    main()
