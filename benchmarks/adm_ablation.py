"""The switches of the ADM U-Net one by one, at equal training steps: table 1 of arXiv:2105.05233 in miniature.

    python benchmarks/adm_ablation.py [--data FOLDER] [--steps 400] [--seeds 0 1]

Each variant is trained on the same 32 x 32 crops with the same batches, then 256 crops are drawn (DDIM, 25 evaluations)
and held-out crops are bounded (a respaced grid of 25 levels, small variance). Without --data the crops are of the
textures that come with scikit-image.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import generation
import torch
from torch import Tensor

from anodiff.diffusion.denoiser import VDenoiser
from anodiff.diffusion.guidance import Clamp
from anodiff.diffusion.levels import spaced
from anodiff.diffusion.likelihood import bound
from anodiff.diffusion.sampling import ddim
from anodiff.diffusion.schedule import table
from anodiff.nets.unet import UNet
from anodiff.noise import PerImageNoise
from anodiff.train.objective import Objective, UniformTable, VWeight
from anodiff.train.plan import Plan

BASE: dict[str, Any] = {
    "width": 32,
    "multipliers": (1, 1.5, 2),
    "blocks": 1,
    "attention": (2,),
    "heads": 1,
    "resample": "conv",
    "rescale": False,
    "modulation": "adagn",
    "patch": 4,
    "groups": 8,
}
"""Levels of 8, 4 and 2 positions a side."""

VARIANTS: dict[str, dict[str, Any]] = {
    "base": {},
    "deeper: 2 blocks a level": {"blocks": 2},
    "wider: 38 channels": {"width": 38},
    "4 heads": {"heads": 4},
    "16 channels a head": {"heads": None, "head_channels": 16},
    "attention at 4 and 2": {"attention": (1, 2)},
    "attention at 8, 4 and 2": {"attention": (0, 1, 2)},
    "residual up and down": {"resample": "residual"},
    "rescaled by 1/sqrt 2": {"rescale": True},
    "addition instead of AdaGN": {"modulation": "add"},
    "all: heads of 16, attention at 4 and 2, residual": {
        "heads": None,
        "head_channels": 16,
        "attention": (1, 2),
        "resample": "residual",
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, help="a folder of real pictures; default: textures of scikit-image"
    )
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1))
    parser.add_argument("--only", nargs="+", choices=tuple(VARIANTS), default=tuple(VARIANTS))
    parser.add_argument("--keep", type=Path, help="a folder that keeps the trained weights")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    data, held = generation.folder(args.data) if args.data else generation.textures()
    name = args.data.name if args.data else "textures"
    judge = generation.Judge(data, held)
    found: dict[str, Any] = generation.about(
        seed=min(args.seeds),
        data=f"{name}: {generation.SIDE} x {generation.SIDE} crops",
        seeds=list(args.seeds),
        steps=args.steps,
        samples=args.samples,
        base=dict(BASE),
        floor=judge.floor(args.samples),
        variants={},
    )
    for variant in args.only:
        rows = found["variants"][variant] = []
        for seed in args.seeds:
            keep = args.keep and args.keep / f"ablation-{list(VARIANTS).index(variant)}-{seed}.pt"
            rows.append(measured(VARIANTS[variant], data, held, judge, args, seed=seed, keep=keep))
            print(variant, rows[-1], flush=True)
    generation.write(found, markdown(found), out=args.out, name=f"adm_ablation-{name}")


def measured(
    changes: dict[str, Any],
    data: generation.Patches,
    held: generation.Patches,
    judge: generation.Judge,
    args: argparse.Namespace,
    *,
    seed: int,
    keep: Path | None,
) -> dict[str, Any]:
    """One variant trained with one seed: distances, bound, operations and seconds a step."""
    torch.manual_seed(seed)
    net = UNet(in_channels=1, out_channels=1, **(BASE | changes)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    denoiser = VDenoiser(net, table("linear"))
    plan = Plan(
        steps=args.steps, batch=64, learning_rate=1e-3, warmup=min(40, args.steps - 1), ema=0.99, seed=seed
    )
    times = UniformTable(denoiser.table)
    training = generation.trained(denoiser, data, plan, Objective(weight=VWeight(), times=times), keep=keep)
    grid = spaced(denoiser.levels, 25)

    def draw(n: Tensor, first: int) -> Tensor:
        return ddim(Clamp(denoiser), grid[0] * n, grid)

    n = PerImageNoise(range(args.samples))(torch.zeros(args.samples, 1, generation.SIDE, generation.SIDE))
    image = generation.made(draw, n)
    crops, _ = held.drawn(256, seed=5)
    z = 2 * (crops * 255).round() / 255 - 1  # the bound counts 256 values of a pixel
    bits = bound(denoiser, z, grid, noise=PerImageNoise(range(len(z)))).total
    return {
        "seed": seed,
        **judge.row(judge.features(image)),
        "bits_per_dimension": float(bits.mean()),
        "loss": training["loss"],
        "mega_flops": round(generation.flops(net, torch.zeros(1, 1, 32, 32), torch.zeros(1)) / 1e6, 1),
        "parameters": sum(p.numel() for p in net.parameters()),
        "seconds_a_step": training["seconds"] / training["steps"],
    }


def markdown(found: dict[str, Any]) -> str:
    """Every seed's figures beside each other, and what a step costs."""
    key = f"FD[{generation.EXTRACTOR}]"
    seeds = " / ".join(map(str, found["seeds"]))
    lines = [
        f"| variant | {key}, seeds {seeds} | mean | bits/dim, seeds {seeds} | mean | loss, mean | MFLOP | s/step |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for variant, rows in found["variants"].items():
        cells = [variant]
        for name, digits in ((key, 1), ("bits_per_dimension", 3)):
            values = [row[name] for row in rows]
            cells += [
                " / ".join(f"{value:.{digits}f}" for value in values),
                f"{statistics.mean(values):.{digits}f}",
            ]
        cells += [
            f"{statistics.mean(row['loss'] for row in rows):.4f}",
            f"{rows[0]['mega_flops']:.0f}",
            f"{min(row['seconds_a_step'] for row in rows):.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines.append(f"| held-out real crops | {found['floor'][key]:.1f} | | | | | | |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
