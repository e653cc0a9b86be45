"""A small real autoencoder and its critic: imported by the tests, run as a program by those that kill it."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from small_run import Stripes, _await
from torch import Tensor, nn

from anodiff.train.autoencoding import Autoencoding, Criticised
from anodiff.train.fit import Outcome, fit
from anodiff.train.plan import Plan
from anodiff.train.progress import Progress

PLAN = Plan(steps=8, batch=4, learning_rate=1e-3, warmup=2, checkpoint_every=2, accelerator="cpu")


def slopes_apart(x: Tensor, y: Tensor) -> Tensor:
    """How unlike the slopes of two pictures are, [B]: a difference of features without weights."""
    return (x.diff(dim=-1) - y.diff(dim=-1)).square().flatten(1).mean(1)


KL = Autoencoding(weight=1e-4, perceptual=0.3, features=slopes_apart, revive_every=3)
VQ = replace(KL, weight=1.0)
GOALS = {"kl": KL, "vq": VQ}


@dataclass(frozen=True, eq=False)
class Coded:
    """What pictures became."""

    z: Tensor
    penalty: Tensor


class Book(nn.Module):
    """A codebook with straight-through gradients that counts which codes are chosen."""

    counts: Tensor

    def __init__(self, codes: int, channels: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(codes, channels) / codes)
        self.register_buffer("counts", torch.zeros(codes, dtype=torch.int64))

    @property
    def used(self) -> float:
        return float((self.counts > 0).float().mean())

    def forward(self, h: Tensor) -> Coded:
        rows = h.movedim(1, -1)  # [B, h, w, c]
        index = torch.cdist(rows.flatten(0, -2).float(), self.vectors).argmin(1)
        if self.training:
            self.counts += torch.bincount(index, minlength=len(self.counts))
        chosen = self.vectors[index].view(rows.shape).movedim(-1, 1)
        loss = (chosen - h.detach()).square() + 0.25 * (chosen.detach() - h).square()
        return Coded(h + (chosen - h).detach(), loss.flatten(1).mean(1))

    @torch.no_grad()
    def revive(self, rows: Tensor, seed: int) -> int:
        dead = (self.counts == 0).nonzero()[:, 0]
        draw = torch.randint(len(rows), (len(dead),), generator=torch.Generator().manual_seed(seed))
        self.vectors[dead] = rows[draw]
        self.counts.zero_()
        return len(dead)


class Small(nn.Module):
    """One convolution down, two up; a Gaussian or a codebook between them."""

    def __init__(self, form: str, *, codes: int = 16) -> None:
        super().__init__()
        self.form = form
        self.down = nn.Conv2d(1, 8 if form == "kl" else 4, 2, stride=2)
        self.codebook = Book(codes, 4) if form == "vq" else None
        self.up = nn.ConvTranspose2d(4, 8, 2, stride=2)
        self.out = nn.Conv2d(8, 1, 3, padding=1)

    @property
    def last(self) -> nn.Parameter:
        return self.out.weight

    def encode(self, x: Tensor) -> Tensor:
        return self.down(x)[:, :4]

    def code(self, x: Tensor, noise: Callable[[Tensor], Tensor]) -> Coded:
        if self.codebook is not None:
            return self.codebook(self.encode(x))
        mean, spread = self.down(x).chunk(2, 1)
        penalty = (mean.square() + spread.exp() - 1 - spread).flatten(1).sum(1) / 2
        return Coded(mean + (spread / 2).exp() * noise(mean), penalty)

    def decode(self, z: Tensor) -> Tensor:
        return self.out(nn.functional.silu(self.up(z)))


class Pictures(Stripes):
    """Stripes between 0 and 1."""

    def item(self, index: int, seed: int, /) -> Tensor:
        return super().item(index, seed) / 2 + 0.5


def pair(form: str = "kl", *, seed: int = 0, critic: bool = True, codes: int = 16) -> Criticised:
    """A small autoencoder and critic with weights of `seed`."""
    torch.manual_seed(seed)
    judge = nn.Sequential(nn.Conv2d(1, 8, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(8, 1, 3, padding=1))
    return Criticised(Small(form, codes=codes), judge if critic else None)


def rebuild(
    folder: Path | None,
    plan: Plan = PLAN,
    *,
    form: str = "vq",
    resume: str | None = None,
    progress: Progress | None = None,
    **changes: Any,
) -> Outcome:
    """Train both, and say how it ended."""
    goal = replace(GOALS[form], **changes)
    return fit(pair(form), Pictures(), plan, objective=goal, folder=folder, resume=resume, progress=progress)


def hunt(folder: Path, plan: Plan, *, kills: int, seed: int, form: str) -> int:
    """Train to the end through `kills` forked processes that are SIGKILLed; how many were."""
    rng = random.Random(seed)
    killed = 0
    while True:
        child = os.fork()
        if child == 0:
            try:
                rebuild(folder, plan, resume="auto", form=form)
                os._exit(0)
            except BaseException as error:
                sys.stderr.write(f"{type(error).__name__}: {error}\n")
                os._exit(1)
        ended = _await(child, folder) if killed < kills else os.waitpid(child, 0)[1]
        if ended is None:
            time.sleep(rng.uniform(0, 0.05))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            killed += 1
        elif ended == 0:
            return killed
        else:
            raise SystemExit(f"a process failed with status {ended}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    where, options = Path(sys.argv[1]), json.loads(sys.argv[2])
    print(hunt(where, replace(PLAN, **options.pop("plan", {})), **options))
