"""How many modes a GAN finds with and without a diffusion chain: 25 Gaussians in the plane.

    python benchmarks/gan_toy.py [--levels 1 2 4 8] [--seeds 0 1 2]

The same generator and critic (three hidden layers each), the same steps, rates and penalty; only the length of the
chain differs, and with one level there is no chain: a GAN from noise. A mode counts as found when at least 20 of 2,500
samples lie within three deviations of it. Source of the game: arXiv:2112.07804; of the data: arXiv:1712.04086.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import generation
import matplotlib
import torch
from torch import Tensor, nn

from anodiff.cond import Cond
from anodiff.diffusion.gan import Critic, DDGANDenoiser
from anodiff.diffusion.guidance import Bind
from anodiff.diffusion.levels import spaced
from anodiff.diffusion.sampling import ddim
from anodiff.diffusion.schedule import table
from anodiff.noise import PerImageNoise
from anodiff.train.adversarial import Adversarial, Adversaries
from anodiff.train.ema import Ema
from anodiff.train.objective import UniformTable

SIDE, GAP, DEVIATION = 5, 2.0, 0.1
SAMPLES, FOUND = 2500, 20


@lru_cache(maxsize=1)
def centres() -> Tensor:
    """The means of the modes, [25, 2]."""
    line = (torch.arange(SIDE) - (SIDE - 1) / 2) * GAP
    return torch.cartesian_prod(line, line)


def points(count: int, *, generator: torch.Generator) -> Tensor:
    """`count` points of the mixture, as rows [count, 2, 1, 1]."""
    which = torch.randint(SIDE**2, (count,), generator=generator)
    noise = torch.randn(count, 2, generator=generator)
    return (centres()[which] + DEVIATION * noise)[:, :, None, None]


def _layers(inputs: int, outputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, width), nn.LeakyReLU(0.2),
        nn.Linear(width, width), nn.LeakyReLU(0.2),
        nn.Linear(width, width), nn.LeakyReLU(0.2),
        nn.Linear(width, outputs),
    )  # fmt: skip


def waves(p: Tensor) -> Tensor:
    """A point and its waves of three lengths, [B, 14]: layers alone learn steps as steep as these slowly."""
    return torch.cat([p, *(f(k * p) for k in (1.5, 3.0, 6.0) for f in (torch.sin, torch.cos))], dim=1)


class Plane(nn.Module):
    """A generator of points: (x_t, t, w) -> x0."""

    def __init__(self, levels: int, latent: int, width: int) -> None:
        super().__init__()
        self.time = nn.Embedding(levels, 16)
        self.layers = _layers(14 + 16 + latent, 2, width)

    def forward(self, x: Tensor, t: Tensor, w: Tensor, cond: Cond | None = None) -> Tensor:
        """x0, [B, 2, 1, 1]."""
        seen = torch.cat([waves(x.flatten(1)), self.time(t.long()), w], dim=1)
        return self.layers(seen)[:, :, None, None]


class Judge(nn.Module):
    """A discriminator of pairs of points: (x_{t-1}, x_t, t) -> logit."""

    def __init__(self, levels: int, width: int) -> None:
        super().__init__()
        self.time = nn.Embedding(levels, 16)
        self.layers = _layers(2 * 14 + 16, 1, width)

    def forward(self, x_next: Tensor, x: Tensor, t: Tensor, cond: Cond | None = None) -> Tensor:
        """The logits, [B]."""
        seen = torch.cat([waves(x_next.flatten(1)), waves(x.flatten(1)), self.time(t.long())], dim=1)
        return self.layers(seen)[:, 0]


def players(levels: int, *, seed: int, latent: int = 4, width: int = 128) -> Adversaries:
    """An untrained generator and critic on a chain of so many levels."""
    torch.manual_seed(seed)
    grid = table("vp", levels)
    return Adversaries(
        DDGANDenoiser(Plane(levels, latent, width), grid, latent=latent), Critic(Judge(levels, width), grid)
    )


def trained(
    levels: int,
    *,
    seed: int,
    steps: int,
    batch: int = 256,
    r1: tuple[float, float] = (1.0, 0.05),
    rate: float = 1e-3,
) -> Adversaries:
    """The averaged players after the game.

    The game is the package's own; only its course is plain here, for a step of these small networks takes less time
    than the noise of so many rows, each from its own seed. The penalty falls with the rate, from the first of `r1` to
    the second: a smooth critic leads the generator from mode to mode, a steep one tells what lies beside a mode.
    """
    model = players(levels, seed=seed)
    table = model.levels.table
    assert table is not None
    game = Adversarial(times=UniformTable(table), r1=r1[0], interval=1)
    generator = torch.Generator().manual_seed(seed)

    def noise(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator)

    cond = Cond(noise=noise)  # type: ignore[arg-type]
    ema = Ema(model, cap=0.999)
    courses = [
        torch.optim.Adam(player.parameters(), lr=rate, betas=(0.5, 0.9))
        for player in (model.critic, model.denoiser)
    ]
    for i in range(steps):
        left = 0.5 * (1 + math.cos(math.pi * i / steps))
        for course in courses:
            course.param_groups[0]["lr"] = rate * left
        game = replace(game, r1=r1[1] + (r1[0] - r1[1]) * left)
        u = torch.rand(batch, generator=generator, dtype=torch.float64)
        turn = game.turn(model, points(batch, generator=generator), game.times(u), noise)  # type: ignore[arg-type]
        with torch.no_grad():
            fake = game.drawn(model, turn, noise, cond)  # type: ignore[arg-type]
        loss, _ = game.critic_loss(model, turn, fake, cond, penalised=True)
        _learn(courses[0], loss)
        fake = game.drawn(model, turn, noise, cond)  # type: ignore[arg-type]
        _learn(courses[1], game.generator_loss(model, turn, fake, cond))
        ema.update(model, step=i)
    return ema.model  # type: ignore[return-value]


def _learn(course: torch.optim.Optimizer, loss: Tensor) -> None:
    course.zero_grad()
    loss.backward()
    course.step()


def drawn(model: Adversaries, *, count: int = SAMPLES, seed: int = 1) -> Tensor:
    """Samples of the chain, [count, 2]."""
    noise = PerImageNoise(range(seed * 1_000_000, seed * 1_000_000 + count))
    denoiser = Bind(model.denoiser, Cond(noise=noise))
    sigmas = spaced(denoiser.levels, None, spacing="all")
    y = sigmas[0].float() * noise(torch.zeros(count, 2, 1, 1))
    return ddim(denoiser, y, sigmas, eta=1.0, noise=noise).flatten(1)


def covered(points: Tensor) -> tuple[int, float]:
    """How many modes are found, and the share of samples within three deviations of any."""
    distance, nearest = torch.cdist(points, centres()).min(dim=1)
    good = distance < 3 * DEVIATION
    counts = torch.bincount(nearest[good], minlength=SIDE**2)
    return int((counts >= FOUND).sum()), float(good.float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--levels", type=int, nargs="+", default=(1, 4))
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2))
    parser.add_argument("--steps", type=int, default=12000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--images", type=Path, help="a folder for the plot")
    args = parser.parse_args()
    found: dict[str, Any] = generation.about(
        seed=args.seeds[0], data="25 Gaussians in the plane", steps=args.steps, samples=SAMPLES, rows=[]
    )
    del found["extractor"]  # nothing is extracted
    clouds = {}
    for levels in args.levels:
        for seed in args.seeds:
            start = time.perf_counter()
            model = trained(levels, seed=seed, steps=args.steps)
            made = drawn(model)
            modes, share = covered(made)
            clouds.setdefault(levels, made)
            row = {
                "levels": levels, "seed": seed, "modes": modes, "near a mode": round(share, 3),
                "seconds": round(time.perf_counter() - start, 1),
            }  # fmt: skip
            found["rows"].append(row)
            print(row, flush=True)
    generation.write(found, markdown(found), out=args.out, name="gan_toy")
    if args.images:
        args.images.mkdir(parents=True, exist_ok=True)
        plot(clouds, found, args.images / "gan_toy.png")


def markdown(found: dict[str, Any]) -> str:
    """Modes found by the length of the chain, a column a seed."""
    seeds = list(dict.fromkeys(row["seed"] for row in found["rows"]))
    lines = [
        f"| T | {' | '.join(f'seed {s}: modes (near one)' for s in seeds)} |",
        "|---" * (len(seeds) + 1) + "|",
    ]
    for levels in dict.fromkeys(row["levels"] for row in found["rows"]):
        rows = [row for row in found["rows"] if row["levels"] == levels]
        cells = [f"{row['modes']} ({row['near a mode']:.3f})" for row in rows]
        lines.append(f"| {levels} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def plot(clouds: dict[int, Tensor], found: dict[str, Any], path: Path) -> None:
    """The first seed's samples, a panel a length of the chain."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        1, len(clouds), figsize=(2.7 * len(clouds), 3.0), layout="constrained", squeeze=False
    )
    for cell, (levels, points) in zip(axes[0], clouds.items(), strict=True):
        modes = next(row["modes"] for row in found["rows"] if row["levels"] == levels)
        cell.scatter(*centres().T.tolist(), s=60, facecolors="none", edgecolors="#d62728", linewidths=0.8)
        cell.scatter(*points.T.tolist(), s=1.5, color="#1f77b4", alpha=0.5, linewidths=0)
        cell.set(xlim=(-5.5, 5.5), ylim=(-5.5, 5.5), xticks=[], yticks=[], aspect="equal")
        title = "one step: a GAN" if levels == 1 else f"T = {levels}"
        cell.set_title(f"{title}, {modes} of {SIDE**2} modes", fontsize=9)
    figure.savefig(path, dpi=130)
    plt.close(figure)


if __name__ == "__main__":
    main()
