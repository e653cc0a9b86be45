"""How well a model finds painted defects on held-out good pictures: how presets are compared without test labels.

    python benchmarks/self_test.py DATA MODEL [MODEL ...] [--strength .6] [-o OUT.json]

The held-out good pictures of each model (they taught its threshold, nothing else) are scored as they are and with each
kind of painted defect; DATA's test folder is not opened. All models must have been fitted on DATA with the same seed,
so that they held out the same pictures.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

import anodiff
from anodiff.data.image import prepare, read, to_unit
from anodiff.data.synthetic import KINDS, paint
from anodiff.detect.evaluate import Evaluation
from anodiff.gather import gather
from anodiff.metrics.pixel import PixelScores


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--strength", type=float, default=0.6, help="contrast of the painted defects")
    parser.add_argument("--most", type=int, default=120, help="painted pictures at most")
    parser.add_argument("-o", "--out", type=Path)
    args = parser.parse_args()
    found = {}
    for path in args.models:
        detector = anodiff.load(path)
        held = gather(args.data, detector.config).held
        evaluation = Evaluation(pixels=PixelScores())
        arrays = [read(picture) for picture in held]
        for result in detector.stream([to_bgr(array) for array in arrays]):
            evaluation.add(result, 0, np.zeros(result.shape, bool))
        pairs = [(number, kind) for number in range(len(held)) for kind in range(len(KINDS))]
        pairs = pairs[:: -(-len(pairs) // args.most)]
        for number, kind in pairs:
            array = arrays[number]
            channels = 3 if array.ndim == 3 else 1
            image = prepare(array, shape=array.shape[:2], channels=channels)
            painted, mask = paint(image, KINDS[kind], seed=100 * number + kind, strength=args.strength)
            evaluation.add(detector.predict(painted), 1, mask[0].numpy())
        metrics = evaluation.metrics(seed=0)
        found[path] = {key: vars(metrics[key]) for key in ("image_auroc", "pixel_auroc", "aupro_30")}
        found[path] |= {"good": len(held), "painted": len(pairs), "model_id": detector.model_id}
        print(path, json.dumps(found[path]))
    if args.out:
        args.out.write_text(json.dumps({"strength": args.strength, "models": found}, indent=1) + "\n")


def to_bgr(array: np.ndarray) -> np.ndarray:
    """An array as OpenCV gives it: what `stream` takes."""
    unit = to_unit(array)
    return unit[..., ::-1] if unit.ndim == 3 else unit


if __name__ == "__main__":
    main()
