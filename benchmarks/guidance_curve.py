"""Guidance: its scale against precision, recall and FD, on normals that nobody labelled.

    python benchmarks/guidance_curve.py --data FOLDER [--steps 2000] [--clusters 8] [--samples 384]

4096 crops of the good pictures are clustered by k-means in the features of the frozen Lite0; the cluster of a crop is
its label. A conditional model (labels dropped at random) and a classifier of noisy crops are trained on them, then
sampled with labels in the proportions of the data and scales from 0 up, in four ways: classifier guidance of the
unconditional model in the DDIM form (the score) and in the DDPM form (the shifted mean), of the conditional model in
the DDIM form, and classifier-free guidance. See arXiv:2105.05233, section 4.3 and figure 4. Without --data the crops
are of the textures that come with scikit-image.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import generation
import matplotlib
import torch
from sampler_curve import model, train
from torch import Tensor

from anodiff.cond import Cond
from anodiff.diffusion.ancestral import ancestral
from anodiff.diffusion.classifier import NoisyClassifier
from anodiff.diffusion.denoiser import VDenoiser
from anodiff.diffusion.guidance import CFG, Bind, Clamp, Guide
from anodiff.diffusion.levels import spaced
from anodiff.diffusion.sampling import ddim
from anodiff.encode.label import Labeller
from anodiff.nets.classifier import Classifier
from anodiff.noise import PerImageNoise, gaussian
from anodiff.train.classification import CrossEntropy
from anodiff.train.objective import UniformTable
from anodiff.train.plan import Plan

SCALES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
CROPS = 4096


@dataclass(frozen=True, eq=False)
class Crops(generation.Patches):
    """Crops that stay as they are, so that each has a label of its own."""

    def crop(self, index: int, seed: int) -> Tensor:
        """Crop `index` itself, whatever the seed."""
        del seed
        return self.pictures[index]


def clustered(
    data: generation.Patches, judge: generation.Judge, count: int, *, seed: int
) -> tuple[Crops, Labeller]:
    """Fixed crops, labelled by the cluster of their features, and the labeller."""
    crops, _ = data.drawn(CROPS, seed=seed + 3)
    rows = torch.from_numpy(judge.features(crops)).float()
    labeller = Labeller(judge.pooled, count)
    labeller.cluster(rows, seed=seed)
    labels = labeller.of(rows)
    return Crops(list(crops), labels.tolist(), tuple(f"cluster {k}" for k in range(count))), labeller


def classifier(classes: int, denoiser: VDenoiser, *, seed: int) -> NoisyClassifier:
    torch.manual_seed(seed + 1)
    net = Classifier(
        in_channels=1,
        classes=classes,
        width=32,
        multipliers=(1, 1.5, 2),
        blocks=1,
        attention=(1,),
        head_channels=16,
        pool="attention",
        size=(generation.SIDE, generation.SIDE),
        patch=4,
    ).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return NoisyClassifier(net, denoiser.levels)


Way = Callable[[float, Tensor, Tensor, int], Tensor]
"""(scale, unit noise, labels, number of the first row) -> z"""


def ways(denoiser: VDenoiser, judge: NoisyClassifier, evaluations: int) -> dict[str, Way]:
    """The four ways of guidance."""
    grid = spaced(denoiser.levels, evaluations)

    def null(label: Tensor) -> Cond:  # the denoiser sees no label, the classifier does
        return Cond(label=label, keep=torch.zeros(len(label), dtype=torch.bool))

    def score(scale: float, n: Tensor, label: Tensor, first: int) -> Tensor:
        return ddim(Clamp(Bind(Guide(denoiser, judge.log_prob, scale), null(label))), grid[0] * n, grid)

    def both(scale: float, n: Tensor, label: Tensor, first: int) -> Tensor:
        return ddim(Clamp(Bind(Guide(denoiser, judge.log_prob, scale), Cond(label=label))), grid[0] * n, grid)

    def mean(scale: float, n: Tensor, label: Tensor, first: int) -> Tensor:
        noise = PerImageNoise(range(1_000_000 + first, 1_000_000 + first + len(n)))
        return ancestral(
            Clamp(denoiser),
            grid[0] * n,
            grid,
            noise=noise,
            variance="learned",
            log_prob=judge.log_prob,
            scale=scale,
            cond=null(label),
        )

    def free(scale: float, n: Tensor, label: Tensor, first: int) -> Tensor:
        return ddim(Clamp(Bind(CFG(denoiser, scale), Cond(label=label))), grid[0] * n, grid)

    return {
        "classifier, DDIM form": score,
        "classifier, DDPM form": mean,
        "classifier and condition, DDIM form": both,
        "classifier-free": free,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, help="a folder of real pictures; default: textures of scikit-image"
    )
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--classifier-steps", type=int, default=1500)
    parser.add_argument("--clusters", type=int, default=8)
    parser.add_argument("--samples", type=int, default=384)
    parser.add_argument("--evaluations", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a folder that keeps the trained weights")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--images", type=Path, help="a folder for the curve")
    args = parser.parse_args()
    seed = args.seed
    data, held = generation.folder(args.data) if args.data else generation.textures()
    name = args.data.name if args.data else "textures"
    judge = generation.Judge(data, held, seed=seed)
    crops, labeller = clustered(data, judge, args.clusters, seed=seed)
    sizes = torch.bincount(torch.tensor(crops.labels), minlength=args.clusters)
    print("clusters", sizes.tolist(), flush=True)
    denoiser = model(args.clusters, seed=seed)
    training = train(
        denoiser, crops, steps=args.steps, seed=seed, keep=args.keep and args.keep / f"denoiser-{name}.pt"
    )
    print(training, flush=True)
    noisy = classifier(args.clusters, denoiser, seed=seed)
    learning = generation.trained(
        noisy,
        crops,
        Plan(
            steps=args.classifier_steps,
            batch=64,
            learning_rate=3e-4,
            warmup=min(100, args.classifier_steps - 1),
            weight_decay=0.05,
            ema=0.998,
            seed=seed,
        ),
        CrossEntropy(times=UniformTable(denoiser.table), draw=gaussian),
        keep=args.keep and args.keep / f"classifier-{name}.pt",
        labels=crops.labels,
    )
    accuracy = right(noisy, labeller, judge, held, seed=seed)
    print(learning, accuracy, flush=True)
    found: dict[str, Any] = generation.about(
        seed=seed,
        data=f"{name}: {CROPS} crops of {generation.SIDE} x {generation.SIDE} in {args.clusters} clusters",
        cluster_sizes=sizes.tolist(),
        training=training,
        classifier=learning,
        classifier_accuracy_held_out=accuracy,
        samples=args.samples,
        evaluations=args.evaluations,
        floor=judge.floor(args.samples),
        curve={},
    )
    n = PerImageNoise(range(args.samples))(torch.zeros(args.samples, 1, generation.SIDE, generation.SIDE))
    order = torch.randperm(CROPS, generator=torch.Generator().manual_seed(seed))[: args.samples]
    labels = torch.tensor(crops.labels)[order]  # in the proportions of the data
    for way, draw in ways(denoiser, noisy, args.evaluations).items():
        rows = found["curve"][way] = []
        for scale in SCALES:
            start = time.perf_counter()
            image = generation.made(
                lambda part, first, s=scale, d=draw: d(s, part, labels[first : first + len(part)], first), n
            )
            features = judge.features(image)
            agree = float((labeller.of(torch.from_numpy(features).float()) == labels).float().mean())
            rows.append(
                {"scale": scale, "seconds": round(time.perf_counter() - start, 1), "agreement": agree}
            )
            rows[-1] |= judge.row(features)
            print(way, rows[-1], flush=True)
    stem = f"guidance_curve-{name}"
    generation.write(found, markdown(found), out=args.out, name=stem)
    if args.images:
        args.images.mkdir(parents=True, exist_ok=True)
        curve(found, args.images / f"{stem}.png")


def right(
    noisy: NoisyClassifier,
    labeller: Labeller,
    judge: generation.Judge,
    held: generation.Patches,
    *,
    seed: int,
) -> dict[str, float]:
    """The share of held-out crops that the classifier puts into the cluster their features are in, by noise level."""
    crops, _ = held.drawn(512, seed=seed + 4)
    truth = labeller.of(torch.from_numpy(judge.features(crops)).float())
    z = 2 * crops - 1
    noise = PerImageNoise(range(len(z)))(z)
    found = {}
    with torch.no_grad():
        for sigma in (0.05, 0.3, 1.0, 3.0, 10.0):
            logits = noisy(z + sigma * noise, torch.tensor(sigma, dtype=torch.float64))
            found[f"sigma {sigma}"] = float((logits.argmax(1) == truth).float().mean())
    return found


def markdown(found: dict[str, Any]) -> str:
    """Precision, recall, FD and agreement with the wanted cluster, by way and scale."""
    extractor = generation.EXTRACTOR
    lines = [
        f"| guidance | scale | precision[{extractor}] | recall | FD | KID | wanted cluster |",
        "|---|---|---|---|---|---|---|",
    ]

    def cells(row: dict[str, float]) -> str:
        digits = {"precision": 3, "recall": 3, "FD": 1, "KID": 1}
        return " | ".join(f"{row[f'{key}[{extractor}]']:.{count}f}" for key, count in digits.items())

    for way, rows in found["curve"].items():
        for row in rows:
            lines.append(f"| {way} | {row['scale']:g} | {cells(row)} | {row['agreement']:.2f} |")
    lines.append(f"| held-out real crops | | {cells(found['floor'])} | |")
    return "\n".join(lines) + "\n"


def curve(found: dict[str, Any], path: Path) -> None:
    """Precision, recall and FD against the scale, and precision against recall."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    extractor = generation.EXTRACTOR
    figure, axes = plt.subplots(1, 4, figsize=(13, 3.6), layout="constrained")
    for way, rows in found["curve"].items():
        by = {key: [row[f"{key}[{extractor}]"] for row in rows] for key in ("precision", "recall", "FD")}
        scale = [row["scale"] for row in rows]
        for axis, key in zip(axes, by, strict=False):
            axis.plot(scale, by[key], marker="o", ms=3.5, lw=1.4, label=way)
        axes[3].plot(by["recall"], by["precision"], marker="o", ms=3.5, lw=1.4)
    for axis, key in zip(axes, ("precision", "recall", "FD"), strict=False):
        axis.axhline(
            found["floor"][f"{key}[{extractor}]"], color="grey", ls="--", lw=1, label="held-out real crops"
        )
        axis.set(xlabel="scale", title=f"{key}[{extractor}]")
        axis.set_xscale("symlog", linthresh=0.5)
        axis.set_xticks(SCALES, [f"{s:g}" for s in SCALES])
        axis.minorticks_off()
    axes[2].set_yscale("log")
    axes[2].legend(fontsize=7)
    axes[3].set(xlabel="recall", ylabel="precision", title="fidelity against diversity")
    for axis in axes:
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
