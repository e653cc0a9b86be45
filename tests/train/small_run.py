"""A small real training run: imported by the tests, run as a program by those that need processes of their own."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from anodiff.diffusion.denoiser import EpsDenoiser
from anodiff.diffusion.schedule import table
from anodiff.nets.unet import UNet
from anodiff.train import checkpoint
from anodiff.train.fit import Outcome, fit
from anodiff.train.importance import LossSecondMoment
from anodiff.train.objective import EpsWeight, Objective, UniformTable
from anodiff.train.plan import Plan
from anodiff.train.progress import Progress, Silent

TABLE = table("vp", 100)
OBJECTIVE = Objective(weight=EpsWeight(), times=UniformTable(TABLE))
# Four stratified rows a step fill the four histories of eight in eight steps of the 24.
ADAPTIVE = replace(OBJECTIVE, times=LossSecondMoment(TABLE, bins=4, length=8))
PLAN = Plan(
    steps=24, batch=4, learning_rate=1e-3, warmup=4, weight_decay=0.01, checkpoint_every=2, accelerator="cpu"
)


class Stripes:
    """Striped 8 x 8 pictures; the seed shifts them, so augmentation is part of what must be repeatable."""

    def __len__(self) -> int:
        return 11

    def item(self, index: int, seed: int, /) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        shift = torch.rand((), generator=generator)
        return torch.sin(torch.arange(8) * (index + 1) / 3 + 6 * shift).expand(1, 8, 8).clone()


def denoiser(seed: int = 0, *, dropout: float = 0.0) -> nn.Module:
    """A small U-Net that predicts eps, with weights of `seed`."""
    torch.manual_seed(seed)
    net = UNet(
        in_channels=1, out_channels=1, width=8, multipliers=(1, 2), blocks=1, attention=(1,), dropout=dropout
    )
    return EpsDenoiser(net, TABLE)


def run(
    folder: Path | None,
    plan: Plan = PLAN,
    *,
    resume: str | None = None,
    dropout: float = 0.1,
    adaptive: bool = False,
    progress: Progress | None = None,
) -> Outcome:
    """Train, and say how it ended."""
    objective = ADAPTIVE if adaptive else OBJECTIVE
    net = denoiser(dropout=dropout)
    return fit(net, Stripes(), plan, objective=objective, folder=folder, resume=resume, progress=progress)


class Killed(BaseException):
    """Passes through everything, as a kill does: nothing is saved on the way."""


class Dies(Silent):
    """Ends this process's run at a certain step, without a word to it."""

    def __init__(self, step: int) -> None:
        self.step = step

    def update(self, step: int, loss: float, seconds: float) -> None:
        if step == self.step:
            raise Killed


def table(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def final(folder):
    return checkpoint.latest(folder / "checkpoints")


def equal(a, b):
    """Whether two states hold the same bits in all their tensors, the optimiser's too."""
    moments = [
        torch.equal(torch.as_tensor(mine["state"][i][name]), torch.as_tensor(value))
        for mine, other in zip(a.optimizers, b.optimizers, strict=True)
        for i, entry in other["state"].items()
        for name, value in entry.items()
    ]
    assert len(moments) > 10
    weights = [
        torch.equal(getattr(a, part)[k], v) for part in ("model", "ema") for k, v in getattr(b, part).items()
    ]
    laws = [torch.equal(a.law[k], v) for k, v in b.law.items()]
    return all(moments) and all(weights) and all(laws) and a.law.keys() == b.law.keys()


def hunt(folder: Path, plan: Plan, *, kills: int, seed: int, adaptive: bool) -> list[str]:
    """Train to the end through `kills` processes that are SIGKILLed; which files stood after each kill.

    Processes are forked from this one, which has imported everything and run no kernel yet: a kill then hits
    the training and not the imports.
    """
    rng = random.Random(seed)
    seen = []
    while True:
        child = os.fork()
        if child == 0:
            try:
                run(folder, plan, resume="auto", adaptive=adaptive)
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


def _await(child: int, folder: Path) -> int | None:
    """None once `child` has saved a checkpoint, for without one it would get nowhere; its status if it ended."""
    before = _newest(folder)
    while _newest(folder) == before:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        time.sleep(0.002)
    return None


def _newest(folder: Path) -> str:
    return max((p.name for p in folder.glob("checkpoints/*.ckpt")), default="")


if __name__ == "__main__":
    torch.set_num_threads(1)
    verb, where, options = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
    chosen = replace(PLAN, **options.pop("plan", {}))
    if verb == "hunt":
        print(json.dumps(hunt(where, chosen, **options)))
    else:
        outcome = run(where, chosen, **options)
        print(json.dumps([outcome.steps, outcome.stopped_by, outcome.losses]))
