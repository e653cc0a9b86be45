"""Pictures from words: does a model paint what its caption names, and what does the scale of guidance trade?

    python benchmarks/words.py --data ../shared/data [--steps 1500] [--images docs/images]

One latent model of six kinds of real parts and three textures is trained on captions alone ("a photo of a bottle"); no
label is given. Its samples are named by a classifier that has nothing to do with it: a logistic regression on features
of a frozen network, learnt from real pictures, as they are and slightly blurred, and checked on others of them.
Diversity is the mean distance of features between samples of one caption, over that of real pictures of the kind.
"""

from __future__ import annotations

import argparse
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import generation
import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from anodiff.codec.backbone import backbone
from anodiff.codec.fuse import fused
from anodiff.codec.pooled import Pooled
from anodiff.config import load
from anodiff.data.demo import make_demo
from anodiff.data.image import prepare, read
from anodiff.data.index import index, normals
from anodiff.detector import Detector
from anodiff.detector import load as detector_of
from anodiff.guiding import guiding
from anodiff.painting import paint
from anodiff.tasks.asked import Asked, conditions

SETS = {
    "bottle": ("mvtec_ad/bottle", "split"),
    "toothbrush": ("mvtec_ad/toothbrush", "split"),
    "commutator": ("kolektor_sdd/kolektorsdd", "split"),
    "yellow paper": ("piped/PA_BFT01_TL", "split"),
    "grey paper": ("piped/PA_GLA01_TL", "split"),
    "magnetic tile": ("magnetic_tile/manifest.csv", "split_grouped"),
}
STUFF = ("yellow paper", "grey paper", "brick", "grass", "gravel")
SIDE = 64
BLUR = 0.7  # px
MOST = 48  # pictures of a kind
SCALES = (1.0, 2.0, 4.0, 8.0)
AUTOENCODER = (
    "codec.channels=16",
    "codec.steps=1500",
    "codec.batch=8",
    "codec.learning_rate=2.0e-3",
    "codec.adversarial=0",
    "codec.perceptual=0.3",
)
"""Codes of 4 numbers a position, as elsewhere, lose the grain of grass, glass and gravel: of real pictures, encoded and
painted again, the judge named .57 right."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the data sets")
    parser.add_argument("--work", type=Path, default=Path("runs/words"), help="where the model is kept")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--count", type=int, default=32, help="samples of a caption and scale")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--images", type=Path, help="a folder for the pictures")
    args = parser.parse_args()
    table = pictures(args.data, args.work)
    kinds = list(dict.fromkeys(table["category"]))
    file = args.work / f"words-{args.steps}-{args.seed}.anodiff"
    if file.exists():
        detector = detector_of(file)
    else:
        config = load(
            "configs/parts/text.yaml",
            overrides=[
                f"train.steps={args.steps}",
                f"seed={args.seed}",
                "data.aspect=square",
                "data.holdout=0.1",
                "net.attention=[1]",
                *AUTOENCODER,
            ],
        )
        folder = args.work / f"words-{args.steps}-{args.seed}"
        detector = Detector(config=config).fit(
            table,
            folder=folder,
            resume="auto" if folder.exists() else None,
            say=lambda text: print(text, flush=True),
        )
        detector.save(file)
    judge = Judge(table, kinds)
    found: dict[str, Any] = generation.about(
        seed=args.seed, data="six kinds of parts, three textures", steps=args.steps, samples=args.count
    )
    found |= {"kinds": kinds, "judge on real held-out pictures": round(judge.real, 4)}
    through = judge.through(detector, table, kinds)
    found |= {"through the autoencoder": through, "rows": []}
    print("through the autoencoder", through, flush=True)
    sheets = {}
    for scale in SCALES:
        agree, spread, row = [], [], []
        for number, kind in enumerate(kinds):
            made = samples(detector, kind, scale, args.count, args.seed)
            features = judge.features(made)
            agree.append(float((judge.model.predict(features) == number).mean()))
            spread.append(judge.spread(features, number))
            row.append(made[:2])
        sheets[f"scale {scale:g}"] = [picture for pair in row for picture in pair]
        found["rows"].append(
            {
                "scale": scale,
                "agreement": round(float(np.mean(agree)), 4),
                "least of a kind": round(min(agree), 4),
                "diversity": round(float(np.mean(spread)), 3),
                "by kind": dict(zip(kinds, agree, strict=True)),
            }
        )
        print(found["rows"][-1], flush=True)
        generation.write(found, markdown(found), out=args.out, name="words")
    if args.images:
        args.images.mkdir(parents=True, exist_ok=True)
        sheet(sheets, args.images / "words.png")


def pictures(data: Path, work: Path) -> pd.DataFrame:
    """Good training pictures of every kind, each with its caption."""
    if not (work / "textures").exists():
        make_demo(work / "textures")
    places = SETS | {kind: (str(work / "textures" / kind), "split") for kind in ("brick", "grass", "gravel")}
    parts = []
    for kind, (place, column) in places.items():
        table = normals(index(data / place if kind in SETS else place, split_column=column))
        table = table.iloc[:: -(-len(table) // MOST)].copy()
        table["category"] = kind
        table["caption"] = caption(kind)
        parts.append(table)
    return pd.concat(parts, ignore_index=True)


def caption(kind: str) -> str:
    """What is said of a picture of a kind."""
    return f"a photo of {'' if kind in STUFF else 'a '}{kind}"


def samples(detector: Detector, kind: str, scale: float, count: int, seed: int) -> list[np.ndarray]:
    """`count` pictures uint8 [h, w, C] of a caption."""
    return list(
        paint(
            detector.predictor,
            detector.shape,
            count=count,
            steps=25,
            sampler="dpmpp_2m",
            seed=seed,
            batch=16,
            device=detector.device,
            cond_of=conditions(detector.config, Asked(prompt=caption(kind)), detector.device),
            guided=guiding(detector.predictor, detector.labels, scale=scale),
        )
    )


class Judge:
    """Names the kind of a picture by features of a frozen network that the model never used."""

    def __init__(self, table: pd.DataFrame, kinds: list[str]) -> None:
        self.pooled = Pooled(fused(backbone("tf_efficientnet_lite0", (2, 3))))
        small = [self._small(path) for path in table["image"]]
        rows = self.features(small)
        soft = self.features([cv2.GaussianBlur(picture, (0, 0), BLUR) for picture in small])
        labels = np.array([kinds.index(kind) for kind in table["category"]])
        apart = np.arange(len(labels)) % 4 == 3
        self.model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        self.model.fit(np.concatenate([rows[~apart], soft[~apart]]), np.tile(labels[~apart], 2))
        self.real = float((self.model.predict(rows[apart]) == labels[apart]).mean())
        self.spreads = [self._mean_distance(rows[labels == number]) for number in range(len(kinds))]

    def through(self, detector: Detector, table: pd.DataFrame, kinds: list[str]) -> dict[str, float]:
        """The share of real pictures of each kind named right once encoded and painted again: no sample does better."""
        found = {}
        codec = detector.predictor.codec
        for number, kind in enumerate(kinds):
            small = np.stack([self._small(path) for path in table["image"][table["category"] == kind]])
            image = torch.from_numpy(small).movedim(-1, 1).float().to(detector.device) / 255
            with torch.no_grad():
                again = torch.cat([codec.decode(codec.encode(part)) for part in image.split(32)])
            rows = (again.clamp(0, 1) * 255).round().byte().movedim(1, -1).cpu().numpy()
            found[kind] = round(float((self.model.predict(self.features(list(rows))) == number).mean()), 4)
        return found

    def features(self, pictures: list[np.ndarray]) -> np.ndarray:
        """Features [n, d] of pictures uint8 [h, w, C]."""
        image = torch.stack([prepare(picture, shape=(SIDE, SIDE), channels=3) for picture in pictures])
        with torch.no_grad():
            return torch.cat([self.pooled(part) for part in image.split(32)]).double().numpy()

    def spread(self, features: np.ndarray, number: int) -> float:
        """The mean distance between samples over that between real pictures of the kind."""
        return self._mean_distance(features) / self.spreads[number]

    @staticmethod
    def _mean_distance(rows: np.ndarray) -> float:
        rows = rows[:64]
        return float(np.mean([np.linalg.norm(a - b) for a, b in combinations(rows, 2)]))

    @staticmethod
    def _small(path: str) -> np.ndarray:
        small = prepare(read(path), shape=(SIDE, SIDE), channels=3)
        return (small * 255).round().byte().movedim(0, -1).numpy()


def markdown(found: dict[str, Any]) -> str:
    """A line a scale."""
    lines = ["| scale | agreement | least of a kind | diversity |", "|---|---|---|---|"]
    lines += [
        f"| {row['scale']:g} | {row['agreement']:.3f} | {row['least of a kind']:.3f} | {row['diversity']:.2f} |"
        for row in found["rows"]
    ]
    return "\n".join(lines) + "\n"


def sheet(rows: dict[str, list[np.ndarray]], path: Path) -> None:
    """A named row of pictures each."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(len(rows), 1, figsize=(11, 0.75 * len(rows)), layout="constrained")
    figure.get_layout_engine().set(rect=(0.06, 0, 0.94, 1))  # type: ignore[union-attr]
    for line, (name, row) in zip(axes, rows.items(), strict=True):
        line.imshow(
            np.concatenate([np.pad(p, ((1, 1), (1, 1), (0, 0)), constant_values=255) for p in row], axis=1)
        )
        line.text(-0.005, 0.5, name, ha="right", va="center", fontsize=8, transform=line.transAxes)
        line.axis("off")
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
