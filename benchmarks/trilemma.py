"""Quality, diversity and speed of samples: a denoising diffusion GAN beside DDIM and DDPM, equally long in training.

    python benchmarks/trilemma.py [--data FOLDER --side 64] [--minutes 15] [--seeds 0 1 2]

Both kinds have the same U-Net and learn from the same crops. A step of the game costs more than a step of the usual
loss; how much is measured first, the two in turn, and the usual model takes so many more steps. Without --data the
crops are 32 x 32 of the textures that come with scikit-image. The first seed is compared; all seeds of the GAN are
trained and measured, to see whether any of them collapses. Source: arXiv:2112.07804, figure 1 and table 1.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import generation
import matplotlib
import torch
from torch import Tensor, nn

from anodiff.cond import Cond
from anodiff.diffusion.denoiser import Denoiser, VDenoiser
from anodiff.diffusion.gan import Critic, DDGANDenoiser
from anodiff.diffusion.guidance import Bind, Clamp
from anodiff.diffusion.levels import spaced
from anodiff.diffusion.sampling import ddim, dpmpp_2m
from anodiff.diffusion.schedule import table
from anodiff.nets.discriminator import Discriminator
from anodiff.nets.generator import Generator
from anodiff.nets.unet import UNet
from anodiff.noise import PerImageNoise
from anodiff.train.adversarial import Adversarial, Adversaries
from anodiff.train.fit import fit
from anodiff.train.objective import Objective, UniformTable, VWeight
from anodiff.train.plan import Plan

LEVELS = 4
LATENT = 64
TOP = 20.0  # start of the Karras grid, as in sampler_curve.py
BATCH = 32
RATES = {"DDGAN": 5e-4, "DDGAN with error": 5e-4, "DDPM": 1e-3}

Draw = Callable[[Tensor, int], Tensor]
"""(unit noise [B, 1, h, w], number of the first row) -> z"""


def unet(channels: int, patch: int, *, resample: str) -> UNet:
    return UNet(
        in_channels=channels, out_channels=channels, width=32, multipliers=(1, 2), blocks=1, attention=(1,),
        patch=patch, groups=8, resample=resample,  # type: ignore[arg-type]
    )  # fmt: skip


def deviation(data: generation.Patches) -> float:
    """That of crops in [-1, 1], to two digits: how much noise drowns them."""
    return round(float((2 * data.drawn(512, seed=3)[0]).std()), 2)


def usual(patch: int, *, seed: int) -> tuple[VDenoiser, Objective]:
    """An untrained model of a thousand levels, and its loss."""
    torch.manual_seed(seed)
    denoiser = VDenoiser(unet(1, patch, resample="conv"), table("linear"))
    return denoiser, Objective(weight=VWeight(), times=UniformTable(denoiser.table))


def players(
    patch: int, std: float, *, seed: int, reconstruction: float = 0.0
) -> tuple[Adversaries, Adversarial]:
    """An untrained generator with its critic, and their game."""
    torch.manual_seed(seed)
    grid = std * table("vp", LEVELS)
    generator = Generator(unet(1, patch, resample="fir"), latent=LATENT, limit=1 / std)
    judge = Discriminator(in_channels=1, width=32, multipliers=(1, 2, 2), patch=patch)
    game = Adversarial(times=UniformTable(grid), r1=0.5, interval=4, reconstruction=reconstruction)
    return Adversaries(
        DDGANDenoiser(generator, grid, latent=LATENT, std=std), Critic(judge, grid, std=std)
    ), game


def plan(kind: str, steps: int, *, seed: int) -> Plan:
    return Plan(
        steps=steps,
        batch=BATCH,
        learning_rate=RATES[kind],
        warmup=min(100, steps - 1),
        ema=0.998,
        clip=1.0 if kind == "DDPM" else 10.0,
        seed=seed,
    )


def cost(patch: int, data: generation.Patches, *, rounds: int = 5, steps: int = 12) -> dict[str, float]:
    """CPU seconds of a training step of either kind: the median of runs of `steps`, the two in turn."""
    found: dict[str, list[float]] = {"DDGAN": [], "DDPM": []}
    for _ in range(rounds):
        for kind, make in (("DDGAN", partial(players, std=1.0)), ("DDPM", usual)):
            model, objective = make(patch, seed=0)
            start = time.process_time()
            fit(model, data, plan(kind, steps, seed=0), objective=objective)
            found[kind].append((time.process_time() - start) / steps)
    return {kind: round(median(times), 4) for kind, times in found.items()}


def learnt(
    kind: str,
    model: nn.Module,
    objective: Any,
    data: generation.Patches,
    steps: int,
    *,
    seed: int,
    keep: Path | None,
) -> dict[str, Any]:
    """How `model` was trained, read from `keep` where the same training is kept there."""
    file = None if keep is None else keep / f"{kind}-{data.classes[0]}-{data.side}-{seed}.pt"
    start = time.process_time()
    told = generation.trained(model, data, plan(kind, steps, seed=seed), objective, keep=file)
    print(kind, seed, told, f"{time.process_time() - start:.0f} CPU s", flush=True)
    return told


def chain(denoiser: Denoiser, n: Tensor, first: int) -> Tensor:
    """The chain of a denoiser that draws, one evaluation a level."""
    sigmas = spaced(denoiser.levels, None, spacing="all")
    noise = PerImageNoise(range(1_000_000 + first, 1_000_000 + first + len(n)))
    return ddim(Bind(denoiser, Cond(noise=noise)), sigmas[0] * n, sigmas, eta=1.0, noise=noise)


def walked(denoiser: Denoiser, n: Tensor, first: int, *, evaluations: int, kind: str) -> Tensor:
    """Samples of the usual model by a sampler of `kind`."""
    denoiser = Clamp(denoiser)
    if kind == "DPM-Solver++":
        grid = spaced(denoiser.levels, evaluations, start=TOP, spacing="karras")
        return dpmpp_2m(denoiser, grid[0] * n, grid)
    grid = spaced(denoiser.levels, evaluations)
    if kind == "DDIM":
        return ddim(denoiser, grid[0] * n, grid)
    noise = PerImageNoise(range(1_000_000 + first, 1_000_000 + first + len(n)))
    return ddim(denoiser, grid[0] * n, grid, eta=1.0, noise=noise)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, help="a folder of real pictures; default: textures of scikit-image"
    )
    parser.add_argument("--side", type=int, default=32, help="of a crop, px")
    parser.add_argument("--patch", type=int, default=2, help="space-to-depth of both networks")
    parser.add_argument("--minutes", type=float, default=15, help="of training a model, roughly")
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--long", type=int, default=1000, help="evaluations of DDPM")
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2))
    parser.add_argument("--steps", type=int, nargs=2, help="of DDGAN and DDPM, instead of minutes")
    parser.add_argument(
        "--reconstruction", type=float, nargs="+", default=(0.0, 1.0), help="weights of the error of x0"
    )
    parser.add_argument("--keep", type=Path, help="a folder that keeps the trained weights")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--images", type=Path, help="a folder for the figure and the pictures")
    args = parser.parse_args()
    side = args.side
    data, held = generation.folder(args.data, side=side) if args.data else generation.textures(side=side)
    name = args.data.name if args.data else "textures"
    seconds = cost(args.patch, data) if not args.steps else {}
    steps = args.steps or [int(60 * args.minutes / seconds[kind]) for kind in ("DDGAN", "DDPM")]
    print(seconds, steps, flush=True)
    found: dict[str, Any] = generation.about(
        seed=args.seeds[0],
        data=f"{name}: {side} x {side} crops",
        samples=args.samples,
        seconds_a_step=seconds,
        training={},
        rows=[],
        seeds=[],
    )
    judge = generation.Judge(data, held, seed=args.seeds[0])
    found["floor"] = judge.floor(args.samples)
    stem, pictures = f"trilemma-{name}", {}

    def measure(label: str, draw: Draw, evaluations: int, **more: Any) -> dict[str, Any]:
        n = PerImageNoise(range(args.samples))(torch.zeros(args.samples, 1, side, side))
        start = time.perf_counter()
        image = generation.made(draw, n)
        taken = time.perf_counter() - start
        pictures[label] = image[:12].clone()
        row = {
            "sampler": label,
            "evaluations": evaluations,
            "ms a picture": round(1e3 * taken / args.samples, 2),
        }
        row |= more | judge.row(judge.features(image))
        print(row, flush=True)
        return row

    for weight, seed in product(args.reconstruction, args.seeds):
        kind = "DDGAN with error" if weight else "DDGAN"
        label = f"{kind}, seed {seed}"
        model, game = players(args.patch, deviation(data), seed=seed, reconstruction=weight)
        told = learnt(kind, model, game, data, steps[0], seed=seed, keep=args.keep)
        found["training"][label] = told
        row = measure(label, partial(chain, model.denoiser), LEVELS)
        found["seeds"].append(row | {"alarms": told.get("alarms", [])})
        if seed == args.seeds[0]:
            found["rows"].append(replaced(row, kind))
            if args.images:
                args.images.mkdir(parents=True, exist_ok=True)
                walk(model.denoiser, side, args.images / f"ddgan_chain-{name}.png")
            pictures[f"{kind} {LEVELS}"] = pictures[label]
        generation.write(found, markdown(found), out=args.out, name=stem)
    denoiser, objective = usual(args.patch, seed=args.seeds[0])
    found["training"]["DDPM"] = learnt(
        "DDPM", denoiser, objective, data, steps[1], seed=args.seeds[0], keep=args.keep
    )
    runs = [
        ("DDIM", 4),
        ("DDIM", 10),
        ("DDIM", 50),
        ("DPM-Solver++", 4),
        ("DPM-Solver++", 10),
        ("DDPM", args.long),
    ]
    for kind, evaluations in runs:
        draw = partial(walked, denoiser, evaluations=evaluations, kind=kind)
        found["rows"].append(replaced(measure(f"{kind} {evaluations}", draw, evaluations), kind))
        generation.write(found, markdown(found), out=args.out, name=stem)
        if args.images:
            args.images.mkdir(parents=True, exist_ok=True)
            plot(found, args.images / f"{stem}.png")
    if args.images:
        sheet(pictures, data.drawn(36, seed=9)[0][::3], args.images / f"trilemma_samples-{name}.png")


class Watched:
    """A denoiser that remembers what it was shown and what it drew."""

    def __init__(self, inner: DDGANDenoiser) -> None:
        self.inner = inner
        self.levels = inner.levels
        self.shown: list[tuple[Tensor, Tensor]] = []

    def __call__(self, y: Tensor, sigma: Tensor, cond: Cond | None = None) -> Tensor:
        x0 = self.inner(y, sigma, cond)
        self.shown.append((self.inner.seen(y, torch.as_tensor(sigma)), x0))
        return x0


@torch.no_grad()
def walk(denoiser: DDGANDenoiser, side: int, path: Path, *, count: int = 8) -> None:
    """The chain as a picture: a column a sample, from noise down; what is shown to the generator, and what it draws."""
    watched = Watched(denoiser)
    chain(watched, PerImageNoise(range(count))(torch.zeros(count, 1, side, side)), 0)
    names = [f"{name}{LEVELS - i}" for i in range(LEVELS) for name in ("seen: x", "drawn from x")]
    rows = [part for shown, x0 in watched.shown for part in ((shown + 3) / 6, (x0 + 1) / 2)]
    strips(dict(zip(names, rows, strict=True)), path)


def strips(rows: dict[str, Tensor], path: Path) -> None:
    """Pictures [n, 1, h, w] in [0, 1], a named row each."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(len(rows), 1, figsize=(7.6, 0.75 * len(rows)), layout="constrained")
    figure.get_layout_engine().set(rect=(0.08, 0, 0.92, 1))  # type: ignore[union-attr]
    for line, (name, row) in zip(axes, rows.items(), strict=True):
        framed = torch.nn.functional.pad(row[:, 0].clamp(0, 1), (1, 1, 1, 1), value=1.0)
        line.imshow(
            torch.cat(list(framed), dim=1).numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest"
        )
        line.text(-0.01, 0.5, name, ha="right", va="center", fontsize=8, transform=line.transAxes)
        line.set_xticks([])
        line.set_yticks([])
    figure.savefig(path, dpi=110)
    plt.close(figure)


def replaced(row: dict[str, Any], sampler: str) -> dict[str, Any]:
    return row | {"sampler": sampler}


METRICS = tuple(f"{name}[{generation.EXTRACTOR}]" for name in ("FD", "KID", "precision", "recall"))


def markdown(found: dict[str, Any]) -> str:
    """Every sampler's figures, then the GAN's by seed."""
    lines = [
        f"| sampler | evaluations | ms a picture | {' | '.join(METRICS)} |",
        "|---" * (3 + len(METRICS)) + "|",
    ]

    def cells(row: dict[str, Any]) -> str:
        return " | ".join(f"{row[key]:.{1 if key[0] in 'FK' else 3}f}" for key in METRICS)

    lines += [
        f"| {row['sampler']} | {row['evaluations']} | {row['ms a picture']} | {cells(row)} |"
        for row in found["rows"]
    ]
    lines += [f"| held-out real crops | - | - | {cells(found['floor'])} |", ""]
    lines += [f"| DDGAN | {' | '.join(METRICS)} | alarms |", "|---" * (2 + len(METRICS)) + "|"]
    lines += [
        f"| {row['sampler']} | {cells(row)} | {'; '.join(row['alarms']) or 'none'} |"
        for row in found["seeds"]
    ]
    return "\n".join(lines) + "\n"


def plot(found: dict[str, Any], path: Path) -> None:
    """The trilemma: quality against time, and quality against diversity, a point a sampler."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9.2, 3.9), layout="constrained")
    colours = {
        "DDGAN": "#d62728",
        "DDGAN with error": "#ff7f0e",
        "DDIM": "#1f77b4",
        "DPM-Solver++": "#2ca02c",
        "DDPM": "#7f7f7f",
    }
    fd, precision, recall = METRICS[0], METRICS[2], METRICS[3]
    for row in found["rows"]:
        colour, label = colours[row["sampler"]], f"{row['sampler']} {row['evaluations']}"
        left.scatter(row["ms a picture"], row[fd], color=colour, s=36)
        left.annotate(label, (row["ms a picture"], row[fd]), (5, 4), textcoords="offset points", fontsize=8)
        right.scatter(row[recall], row[precision], color=colour, s=36)
        if row[recall] + row[precision] > 0.01:  # the others lie on each other, where nothing is
            right.annotate(
                label, (row[recall], row[precision]), (5, 4), textcoords="offset points", fontsize=8
            )
    left.axhline(found["floor"][fd], color="grey", ls="--", lw=1)
    left.set(
        xscale="log",
        yscale="log",
        yticks=[],
        xticks=[],
        xlabel="ms a picture",
        ylabel=f"{fd}, lower is better",
    )
    right.scatter(found["floor"][recall], found["floor"][precision], color="black", marker="*", s=60)
    right.annotate(
        "held-out real", (found["floor"][recall], found["floor"][precision]), (-10, 6),
        textcoords="offset points", fontsize=8, ha="right",
    )  # fmt: skip
    left.set_yticks(ticks := (30, 100, 200, 300, 500), [str(v) for v in ticks])
    left.set_xticks(ticks := (10, 30, 100, 300, 1000), [str(v) for v in ticks])
    left.minorticks_off()
    right.set(xlabel=f"{recall}: diversity", ylabel=f"{precision}: quality")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.margins(0.15)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def sheet(pictures: dict[str, Tensor], real: Tensor, path: Path) -> None:
    """A row a sampler, the same initial noise in each column, real crops last."""
    strips({label: made for label, made in pictures.items() if ", seed" not in label} | {"real": real}, path)


if __name__ == "__main__":
    main()
