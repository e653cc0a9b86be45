"""Quality of samples against evaluations of the network: DDPM, DDIM, Heun and DPM-Solver++ on one trained model.

    python benchmarks/sampler_curve.py [--data FOLDER] [--steps 2000] [--samples 256]

One class-conditional model with a learned variance is trained on 32 x 32 crops, then sampled by each sampler from the
same initial noise and for the same classes. Without --data the crops are of the textures that come with scikit-image;
a FOLDER (MVTec layout, or a manifest) gives its good pictures, halved and grey. Measured in the features of the frozen
Lite0 against crops that were trained on; the floor is what as many real crops of held-out places score.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import generation
import matplotlib
import torch
from torch import Tensor

from anodiff.cond import Cond
from anodiff.diffusion.denoiser import Denoiser, VDenoiser
from anodiff.diffusion.guidance import Bind, Clamp
from anodiff.diffusion.levels import Spacing, spaced
from anodiff.diffusion.sampling import ddim, dpmpp_2m, heun
from anodiff.diffusion.schedule import table
from anodiff.nets.unet import UNet
from anodiff.noise import PerImageNoise
from anodiff.train.objective import Objective, UniformTable, VWeight
from anodiff.train.plan import Plan
from anodiff.train.variational import Hybrid, Variational

EVALUATIONS = (1, 2, 4, 10, 25, 50, 100, 1000)
SHOWN = ("DDPM", "DDIM", "Heun, Karras grid", "DPM-Solver++(2M), Karras grid")
TOP = 20.0  # start of the Karras grids, some 70 deviations of the data

Sampler = Callable[[Denoiser, Tensor, int, int], Tensor]
"""(denoiser, unit noise [B, 1, h, w], evaluations, number of the first row) -> z"""


def model(classes: int, *, seed: int, attention: tuple[int, ...] = (2,)) -> VDenoiser:
    """An untrained class-conditional model of 32 x 32 grey crops."""
    torch.manual_seed(seed)
    net = UNet(
        in_channels=1,
        out_channels=2,
        classes=classes,
        width=32,
        multipliers=(1, 1.5, 2),
        blocks=1,
        attention=attention,
        patch=2,
        groups=8,  # not one channel each: a small network needs its contrasts
    ).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return VDenoiser(net, table("linear"), learned_variance=True)


def train(
    denoiser: VDenoiser, data: generation.Patches, *, steps: int, seed: int, keep: Path | None
) -> dict[str, Any]:
    plan = Plan(
        steps=steps,
        batch=64,
        learning_rate=1e-3,
        warmup=min(100, steps - 1),
        ema=0.998,
        condition_dropout=0.15,
        seed=seed,
    )
    times = UniformTable(denoiser.table)
    objective = Hybrid(
        simple=Objective(weight=VWeight(), times=times),
        bound=Variational(table=denoiser.table, times=times, variance="learned"),
    )
    return generation.trained(denoiser, data, plan, objective, keep=keep, labels=data.labels)


def ancestral(
    denoiser: Denoiser, n: Tensor, evaluations: int, first: int, *, variance: str = "small"
) -> Tensor:
    grid = spaced(denoiser.levels, evaluations)
    noise = PerImageNoise(range(1_000_000 + first, 1_000_000 + first + len(n)))
    return ddim(denoiser, grid[0] * n, grid, eta=1.0, noise=noise, variance=variance)  # type: ignore[arg-type]


def deterministic(
    denoiser: Denoiser,
    n: Tensor,
    evaluations: int,
    first: int,
    *,
    walk: Callable[..., Tensor],
    spacing: Spacing = "trailing",
) -> Tensor:
    del first
    steps = (
        (evaluations + 1) // 2 if walk is heun else evaluations
    )  # two evaluations a step, the last but one
    # From the top of the table, where nothing of a picture is left, a Karras grid would spend its first steps in vain.
    start = TOP if spacing == "karras" else None
    grid = spaced(denoiser.levels, steps, start=start, spacing=spacing)
    return walk(denoiser, grid[0] * n, grid)


SAMPLERS: dict[str, Sampler] = {
    "DDPM": ancestral,
    "DDPM, learned variance": partial(ancestral, variance="learned"),
    "DDIM": partial(deterministic, walk=ddim),
    "DDIM, Karras grid": partial(deterministic, walk=ddim, spacing="karras"),
    "Heun, Karras grid": partial(deterministic, walk=heun, spacing="karras"),
    "DPM-Solver++(2M)": partial(deterministic, walk=dpmpp_2m),
    "DPM-Solver++(2M), Karras grid": partial(deterministic, walk=dpmpp_2m, spacing="karras"),
}
LONG = ("DDPM", "DDIM", "Heun, Karras grid", "DPM-Solver++(2M), Karras grid")  # shown at 1000 evaluations too


def evaluated(name: str, evaluations: int) -> int | None:
    """How often `name` really calls the network when given `evaluations`; None: not in the table."""
    if evaluations > 100 and name not in LONG:
        return None
    if name.startswith("Heun"):
        return None if evaluations == 2 else 2 * ((evaluations + 1) // 2) - 1
    return evaluations


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, help="a folder of real pictures; default: textures of scikit-image"
    )
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--evaluations", type=int, nargs="+", default=EVALUATIONS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a file that keeps the trained weights")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--images", type=Path, help="a folder for curve and picture grid")
    args = parser.parse_args()
    data, held = generation.folder(args.data) if args.data else generation.textures()
    name = args.data.name if args.data else "textures"
    denoiser = model(len(data.classes), seed=args.seed)
    training = train(denoiser, data, steps=args.steps, seed=args.seed, keep=args.keep)
    print(training, flush=True)
    judge = generation.Judge(data, held, seed=args.seed)
    found: dict[str, Any] = generation.about(
        seed=args.seed,
        data=f"{name}: {generation.SIDE} x {generation.SIDE} crops, classes {', '.join(data.classes)}",
        training=training,
        samples=args.samples,
        network_flops=generation.flops(denoiser.net, torch.zeros(1, 1, 32, 32), torch.zeros(1)),
        floor=judge.floor(args.samples),
    )
    n = PerImageNoise(range(args.samples))(torch.zeros(args.samples, 1, generation.SIDE, generation.SIDE))
    labels = torch.arange(args.samples) % len(data.classes)
    found["curve"] = {sampler: [] for sampler in SAMPLERS}
    stem, pictures = f"sampler_curve-{name}", {}
    for evaluations in args.evaluations:
        for sampler, draw in SAMPLERS.items():
            real = evaluated(sampler, evaluations)
            if real is None:
                continue
            start = time.perf_counter()

            def one(part: Tensor, first: int, draw=draw, evaluations=evaluations) -> Tensor:
                steered = Clamp(Bind(denoiser, Cond(label=labels[first : first + len(part)])))
                return draw(steered, part, evaluations, first)

            image = generation.made(one, n)
            row = {
                "evaluations": real,
                "asked": evaluations,
                "seconds": round(time.perf_counter() - start, 1),
            }
            found["curve"][sampler].append(row | judge.row(judge.features(image)))
            pictures[sampler, evaluations] = image[: len(data.classes)].clone()
            print(sampler, found["curve"][sampler][-1], flush=True)
        generation.write(found, markdown(found), out=args.out, name=stem)  # the last numbers take the longest
        if args.images:
            args.images.mkdir(parents=True, exist_ok=True)
            curve(found, args.images / f"{stem}.png")
            grid(pictures, args.evaluations, args.images / f"{stem.replace('curve', 'grid')}.png")


def markdown(found: dict[str, Any]) -> str:
    """FD and KID of every sampler at every number of evaluations."""
    asked = sorted({row["asked"] for rows in found["curve"].values() for row in rows})
    floor = found["floor"]
    lines = []
    for metric, digits in (("FD", 1), ("KID", 1)):
        key = f"{metric}[{generation.EXTRACTOR}]"
        lines += [
            f"| {key} after evaluations | {' | '.join(map(str, asked))} |",
            "|---" * (len(asked) + 1) + "|",
        ]
        for sampler, rows in found["curve"].items():
            by = {row["asked"]: row for row in rows}
            cells = []
            for count in asked:
                row = by.get(count)
                note = "" if row is None or row["evaluations"] == count else f" ({row['evaluations']})"
                cells.append("-" if row is None else f"{row[key]:.{digits}f}{note}")
            lines.append(f"| {sampler} | {' | '.join(cells)} |")
        lines += [f"| held-out real crops | {' | '.join([f'{floor[key]:.{digits}f}'] * len(asked))} |", ""]
    return "\n".join(lines)


def curve(found: dict[str, Any], path: Path) -> None:
    """FD against evaluations, both axes logarithmic."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    key = f"FD[{generation.EXTRACTOR}]"
    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    for (sampler, rows), mark in zip(found["curve"].items(), "osdD^vP", strict=False):
        axes.plot(
            [r["evaluations"] for r in rows], [r[key] for r in rows], marker=mark, ms=4, lw=1.4, label=sampler
        )
    axes.axhline(found["floor"][key], color="grey", ls="--", lw=1, label="held-out real crops")
    axes.set(
        xscale="log", yscale="log", xlabel="evaluations of the network", ylabel=f"{key}, lower is better"
    )
    axes.set_xticks(EVALUATIONS, [str(v) for v in EVALUATIONS])
    axes.set_yticks(levels := (30, 100, 300, 1000), [str(v) for v in levels])
    axes.minorticks_off()
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def grid(pictures: dict[tuple[str, int], Tensor], evaluations: list[int], path: Path) -> None:
    """One column a number of evaluations, one row a sampler and class, the same noise everywhere."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        len(SHOWN),
        len(evaluations),
        figsize=(1.05 * len(evaluations) + 0.6, 3.0 * len(SHOWN)),
        layout="constrained",
    )
    for line, sampler in zip(axes, SHOWN, strict=True):
        for cell, count in zip(line, evaluations, strict=True):
            cell.axis("off")
            if (sampler, count) in pictures:
                column = torch.cat(list(pictures[sampler, count][:, 0]), dim=0).clamp(0, 1)
                cell.imshow(column.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            if sampler == SHOWN[0]:
                cell.set_title(str(count), fontsize=9)
        line[0].text(
            -0.15, 0.5, sampler, rotation=90, va="center", ha="right", fontsize=9, transform=line[0].transAxes
        )
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
