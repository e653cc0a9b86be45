"""What a step costs in pixels and in latents of stride 4 and 8, at 256 px: time, operations and memory.

    python benchmarks/latent_cost.py [--out benchmarks/results]

One U-Net, the same but for its first and last layer, is trained on pictures [3, 256, 256], on codes [4, 64, 64] and on
codes [4, 32, 32]. A step is forward, backward and the optimiser's, of `--batch` rows; a sample is 50 evaluations of one
row, and of a latent model the decoder once. The three take turns within one process, times are medians; operations are
counted by torch; memory is the peak of a process of its own, less what it held before the step.
Source of the comparison: arXiv:2112.10752, section 4.1 and table 18.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import generation
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from anodiff.diffusion.denoiser import VDenoiser
from anodiff.diffusion.schedule import table
from anodiff.nets.autoencoder import Autoencoder
from anodiff.nets.unet import UNet
from anodiff.noise import gaussian
from anodiff.train.objective import Objective, UniformTable, VWeight

SIDE = 256
EVALUATIONS = 50
SPACES = {"pixels": (1, 3), "f = 4": (4, 4), "f = 8": (8, 4)}  # stride, channels


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--width", type=int, default=32, help="of the U-Net")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--memory-of", choices=list(SPACES), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory_of:
        print(json.dumps(peak(args.memory_of, args.width, args.batch)))
        return
    found: dict[str, Any] = generation.about(
        seed=0,
        data=f"noise, {SIDE} x {SIDE}",
        batch=args.batch,
        rounds=args.rounds,
        width=args.width,
        rows={},
    )
    works = {name: Work(name, args.width, args.batch) for name in SPACES}
    times: dict[str, dict[str, list[float]]] = {
        name: {"step": [], "evaluation": [], "decode": []} for name in works
    }
    for turn in range(args.rounds + 1):
        for name, work in works.items():
            for kind in times[name]:
                start = time.perf_counter()
                getattr(work, kind)()
                if turn:  # the first warms up
                    times[name][kind].append(time.perf_counter() - start)
    for name, work in works.items():
        seconds = {kind: median(values) for kind, values in times[name].items()}
        found["rows"][name] = {
            "seconds a training step": round(seconds["step"], 4),
            "seconds a sample": round(EVALUATIONS * seconds["evaluation"] + seconds["decode"], 3),
            "GFLOP a training step": round(flops(work.step) / 1e9, 2),
            "GFLOP a sample": round((EVALUATIONS * flops(work.evaluation) + flops(work.decode)) / 1e9, 1),
            "MB a training step": memory(name, args.width, args.batch),
        }
        print(name, found["rows"][name], flush=True)
    generation.write(found, markdown(found), out=args.out, name="latent_cost")


class Work:
    """One space: its network, and what is timed."""

    def __init__(self, name: str, width: int, batch: int) -> None:
        torch.manual_seed(0)
        stride, channels = SPACES[name]
        unet = UNet(
            in_channels=channels, out_channels=channels, width=width, multipliers=(1, 2, 2, 4), blocks=1,
            attention=(3,), transformer=1,
        ).to(memory_format=torch.channels_last)  # fmt: skip
        self.denoiser = VDenoiser(unet, table("scaled_linear_ldm"))
        self.objective = Objective(weight=VWeight(), times=UniformTable(self.denoiser.table), draw=gaussian)
        self.optimizer = torch.optim.AdamW(self.denoiser.parameters(), lr=1e-4, fused=True)
        side = SIDE // stride
        self.z = torch.randn(batch, channels, side, side).contiguous(memory_format=torch.channels_last)
        self.n = torch.randn_like(self.z)
        self.sigma = self.objective.times(torch.rand(batch, dtype=torch.float64))
        self.codec = None
        if stride > 1:
            levels = (1, 2, 2) if stride == 4 else (1, 2, 2, 2)
            self.codec = Autoencoder(image_channels=3, channels=channels, width=32, multipliers=levels)
            self.codec.eval().to(memory_format=torch.channels_last)

    def step(self) -> None:
        """One training step of the batch."""
        self.optimizer.zero_grad()
        self.objective.loss(self.denoiser, self.z, self.sigma, self.n).mean().backward()
        self.optimizer.step()

    @torch.no_grad()
    def evaluation(self) -> Tensor:
        """One evaluation of one row."""
        return self.denoiser(self.z[:1], self.sigma[:1])

    @torch.no_grad()
    def decode(self) -> Tensor:
        """One code made a picture."""
        return self.z[:1] if self.codec is None else self.codec.decode(self.z[:1])


def flops(work: Any) -> int:
    """Floating-point operations of a call, of convolutions and products of matrices."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def peak(name: str, width: int, batch: int) -> float:
    """MB that three training steps need beyond what the process held before, at their peak."""
    work = Work(name, width, batch)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew: getrusage would tell the parent's
    before = _status("VmRSS")
    for _ in range(3):
        work.step()
    return round((_status("VmHWM") - before) / 1024, 1)


def _status(key: str) -> int:
    """A figure of this process's memory, kB (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def memory(name: str, width: int, batch: int) -> float:
    """`peak` in a process of its own."""
    command = [sys.executable, __file__, "--memory-of", name, "--width", str(width), "--batch", str(batch)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def markdown(found: dict[str, Any]) -> str:
    """A line a figure, a column a space, with the ratio to pixels."""
    rows = found["rows"]
    lines = [f"| | {' | '.join(rows)} |", "|---" * (1 + len(rows)) + "|"]
    for key in rows["pixels"]:
        base = rows["pixels"][key]
        cells = [f"{row[key]:g} ({base / max(row[key], 1e-9):.1f} x less)" for row in rows.values()]
        cells[0] = f"{base:g}"
        lines.append(f"| {key} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
