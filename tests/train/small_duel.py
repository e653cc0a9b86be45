"""A small real game of generator and critic: imported by the tests, run as a program by those that kill it."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from small_run import Stripes, _await
from torch import Tensor

from anodiff.diffusion.gan import Critic, DDGANDenoiser
from anodiff.diffusion.schedule import table
from anodiff.nets.discriminator import Discriminator
from anodiff.nets.generator import Generator
from anodiff.nets.unet import UNet
from anodiff.train.adversarial import Adversarial, Adversaries
from anodiff.train.fit import Outcome, fit
from anodiff.train.objective import UniformTable
from anodiff.train.plan import Plan
from anodiff.train.progress import Progress

TABLE = table("vp", 4)
GAME = Adversarial(times=UniformTable(TABLE), r1=0.1, interval=3)
PLAN = Plan(steps=8, batch=4, learning_rate=1e-3, warmup=2, checkpoint_every=2, accelerator="cpu")


def players(
    seed: int = 0,
    *,
    table: Tensor = TABLE,
    spread: int = 4,
    dropout: float = 0.1,
    classes: int | None = None,
    bounded: bool = False,
) -> Adversaries:
    """A small generator and discriminator with weights of `seed`."""
    torch.manual_seed(seed)
    unet = UNet(
        in_channels=1,
        out_channels=1,
        width=8,
        multipliers=(1, 2),
        blocks=1,
        groups=4,
        dropout=dropout,
        classes=classes,
    )
    generator = Generator(unet, latent=4, layers=2, hidden=16, limit=1.0 if bounded else None)
    critic = Discriminator(in_channels=1, width=8, multipliers=(1, 2), classes=classes, spread=spread)
    return Adversaries(DDGANDenoiser(generator, table, latent=4), Critic(critic, table))


def play(
    folder: Path | None, plan: Plan = PLAN, *, resume: str | None = None, progress: Progress | None = None
) -> Outcome:
    """Train both, and say how it ended."""
    return fit(players(), Stripes(), plan, objective=GAME, folder=folder, resume=resume, progress=progress)


def hunt(folder: Path, plan: Plan, *, kills: int, seed: int) -> list[str]:
    """Train to the end through `kills` forked processes that are SIGKILLed; which files stood after each kill."""
    rng = random.Random(seed)
    seen: list[str] = []
    while True:
        child = os.fork()
        if child == 0:
            try:
                play(folder, plan, resume="auto")
                os._exit(0)
            except BaseException as error:
                sys.stderr.write(f"{type(error).__name__}: {error}\n")
                os._exit(1)
        ended = _await(child, folder) if len(seen) < kills else os.waitpid(child, 0)[1]
        if ended is None:
            time.sleep(rng.uniform(0, 0.05))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            seen.append(",".join(sorted(p.name for p in (folder / "checkpoints").iterdir())))
        elif ended == 0:
            return seen
        else:
            raise SystemExit(f"a process failed with status {ended}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    where, options = Path(sys.argv[1]), json.loads(sys.argv[2])
    print(json.dumps(hunt(where, replace(PLAN, **options.pop("plan", {})), **options)))
