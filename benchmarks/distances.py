"""One pixel model, its restorations measured by several distances: the numbers side by side, and a picture.

    python benchmarks/distances.py MODEL DATA -o OUT [--count 6]

MODEL is a fitted pixel model, DATA the part it was fitted on (MVTec layout). Each distance is calibrated anew on the
training normals and its threshold on the held-out ones; the restorations are the same for all. OUT gets distances.json,
distances.md and restorations.png (picture, restoration, and one map a distance, for the first defective pictures).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

import anodiff
from anodiff import compose
from anodiff.config import parse
from anodiff.data.image import read_mask
from anodiff.data.index import index
from anodiff.detect.evaluate import Evaluation
from anodiff.detect.result import Result
from anodiff.detector import Detector
from anodiff.fitting import MOST_TAUGHT, batches
from anodiff.gather import gather
from anodiff.metrics.pixel import PixelScores
from anodiff.report.picture import grid, overlay

NAMES = (("l1",), ("ssim",), ("ms_ssim",), ("lab",), ("feature",), ("feature", "ssim"))
SIDE = 128


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=6)
    args = parser.parse_args()
    detector = anodiff.load(args.model)
    table = index(args.data)
    test = table[table["split"] == "test"].reset_index(drop=True)
    shown = test.index[test["label"] == 1][:: max(1, int((test["label"] == 1).sum()) // args.count)][
        : args.count
    ]
    found, columns = {}, []
    for names in NAMES:
        name, distances = "+".join(names), dict.fromkeys(names, 1.0)
        start = time.perf_counter()
        results, metrics = judged(with_distances(detector, distances, args.data), test)
        found[name] = {key: vars(value) for key, value in metrics.items()}
        found[name]["seconds"] = round(time.perf_counter() - start, 1)
        columns.append([results[row] for row in shown])
        print(name, ", ".join(f"{key} {value.value:.3f}" for key, value in metrics.items()), flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    about = {"model_id": detector.model_id, "evaluations_per_image": detector.evaluations}
    about |= {"seed": detector.config.seed, "device": str(detector.device)}
    (args.out / "distances.json").write_text(json.dumps({**about, "distances": found}, indent=1) + "\n")
    (args.out / "distances.md").write_text(markdown(found))
    picture(columns, args.out / "restorations.png")


def with_distances(detector: Detector, distances: dict[str, float], data: Path) -> Detector:
    """The same networks, judged by other distances: calibration and threshold learnt anew."""
    config = detector.config.model_dump()
    config["score"]["distances"] = distances
    other = Detector(config=parse(config))
    good = gather(data, other.config)
    rate = detector.info["target_fpr"]
    predictor = compose.predictor(other.config, target_fpr=rate, shape=detector.shape)
    predictor.denoiser.load_state_dict(detector.predictor.denoiser.state_dict())
    taught = good.train[:: -(-len(good.train) // MOST_TAUGHT)]
    shape, device = detector.shape, other.device
    predictor.eval().to(device).learn(
        lambda: batches(taught, shape, other.config, device),
        lambda: batches(good.held, shape, other.config, device),
    )
    other.adopt(predictor, shape=shape, target_fpr=rate)
    return other


def judged(detector: Detector, test) -> tuple[list[Result], dict]:
    evaluation = Evaluation(pixels=PixelScores())
    results = []
    for result, row in zip(detector.stream(list(test["image"])), test.itertuples(), strict=True):
        mask = read_mask(row.mask) if isinstance(row.mask, str) else np.zeros(result.shape, bool)
        evaluation.add(result, row.label, mask)
        results.append(result)
    return results, evaluation.metrics(seed=0)


def markdown(found: dict) -> str:
    keys = ("image_auroc", "pixel_auroc", "aupro_30")
    lines = ["| distance | image AUROC | pixel AUROC | AUPRO@.3 |", "|---|---|---|---|"]
    for name, metrics in found.items():
        cells = [
            f"{m['value']:.3f} [{m['low']:.3f}, {m['high']:.3f}]" for m in (metrics[key] for key in keys)
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def picture(columns: list[list[Result]], path: Path) -> None:
    """One row a picture: the picture, its restoration, then a map a distance, each with one scale for all rows."""
    import cv2

    small = lambda image: cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)  # noqa: E731
    tiles = []
    for row in range(len(columns[0])):
        first = columns[0][row]
        tiles += [small(first.image), small(first.restored)]
        for results in columns:
            tiles.append(
                small(
                    overlay(first.image, results[row].heatmap, low=0.0, high=2 * results[row].mask_threshold)
                )
            )
    sheet = grid(tiles, columns=2 + len(columns))
    cv2.imwrite(str(path), sheet[..., ::-1])


if __name__ == "__main__":
    main()
