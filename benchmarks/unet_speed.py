"""Times our U-Net beside diffusers' of the same architecture, and a sampling loop beside its bare network calls.

    python benchmarks/unet_speed.py             # with the threads torch takes by itself, then with one
    python benchmarks/unet_speed.py --small     # seconds instead of minutes, to see that it runs

With several threads it is the wall's time that counts; with one, the processor's, which other programs on the machine
disturb less.

Both networks hold the same layers at the same places, which is checked: equal nominal operations, and equal outputs
once the weights are copied. They run in one process, turn by turn, on the same input; each figure is a median over the
turns, each ratio the median of the ratios within a turn. Ours is laid out as the toolkit does (channels_last),
diffusers' as it comes and in channels_last too.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import diffusers
import torch
from diffusers import UNet2DModel
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from anodiff.cond import Cond
from anodiff.diffusion.denoiser import EpsDenoiser
from anodiff.diffusion.levels import spaced
from anodiff.diffusion.sampling import ddim
from anodiff.diffusion.schedule import table
from anodiff.nets.unet import UNet

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One architecture on one input."""

    side: int
    width: int
    multipliers: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...]
    batch: int

    @property
    def name(self) -> str:
        return f"{self.side} x {self.side} x 3, width {self.width}, batch {self.batch}"


CASES = (
    Case(side=64, width=64, multipliers=(1, 2, 2, 2), blocks=2, attention=(2, 3), batch=4),
    Case(side=32, width=128, multipliers=(1, 2, 2), blocks=2, attention=(1, 2), batch=4),
)
SMALL = (
    Case(side=16, width=32, multipliers=(1, 2), blocks=1, attention=(1,), batch=2),
    Case(side=8, width=64, multipliers=(1, 2), blocks=1, attention=(0,), batch=2),
)


class Twin(nn.Module):
    """diffusers' network behind our signature."""

    def __init__(self, net: UNet2DModel) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, t: Tensor, cond: Cond | None = None) -> Tensor:
        return self.net(x, t, return_dict=False)[0]


def pair(case: Case) -> tuple[UNet, Twin]:
    """Our network and diffusers' with the same weights."""
    torch.manual_seed(0)
    ours = UNet(
        in_channels=3,
        out_channels=3,
        width=case.width,
        multipliers=case.multipliers,
        blocks=case.blocks,
        attention=case.attention,
        head_channels=32,
    )
    levels = range(len(case.multipliers))
    theirs = UNet2DModel(
        in_channels=3,
        out_channels=3,
        block_out_channels=tuple(case.width * m for m in case.multipliers),
        layers_per_block=case.blocks,
        down_block_types=tuple("AttnDownBlock2D" if i in case.attention else "DownBlock2D" for i in levels),
        up_block_types=tuple(
            "AttnUpBlock2D" if i in case.attention else "UpBlock2D" for i in reversed(levels)
        ),
        attention_head_dim=32,
        add_attention=levels[-1] in case.attention,
        resnet_time_scale_shift="scale_shift",
        attn_norm_num_groups=32,
    )
    for parameter in ours.parameters():
        if not parameter.any():  # a layer that starts at zero hides what comes before it
            nn.init.normal_(parameter, std=0.02)
    copy_weights(ours, theirs)
    return ours, Twin(theirs)


def copy_weights(ours: UNet, theirs: UNet2DModel) -> None:
    """Give diffusers' layers our weights, walking both networks in the order they run."""

    def block(mine: nn.Module, other: nn.Module) -> None:
        for a, b in (("norm", "norm1"), ("conv", "conv1"), ("last", "conv2"), ("skip", "conv_shortcut")):
            state = getattr(mine, a).state_dict()
            if state:
                getattr(other, b).load_state_dict(state)
        other.time_emb_proj.load_state_dict(mine.adapt.affine.state_dict())

    def attention(mine: nn.Module, other: nn.Module) -> None:
        other.group_norm.load_state_dict(mine.norm.state_dict())
        other.to_q.load_state_dict(mine.attend.query.state_dict())
        other.to_out[0].load_state_dict(mine.attend.out.state_dict())
        for part, name in enumerate(("to_k", "to_v")):
            state = {k: v.chunk(2)[part] for k, v in mine.attend.key_value.state_dict().items()}
            getattr(other, name).load_state_dict(state)

    def stages(mine: list[nn.Module], others: nn.Module) -> None:
        for i, stage in enumerate(mine):
            block(stage.block, others.resnets[i])
            if stage.attention is not None:
                attention(stage.attention, others.attentions[i])

    n, levels = ours.blocks, ours.levels
    theirs.conv_in.load_state_dict(ours.encoder.stem.state_dict())
    theirs.time_embedding.linear_1.load_state_dict(ours.time.mlp[0].state_dict())
    theirs.time_embedding.linear_2.load_state_dict(ours.time.mlp[2].state_dict())
    for i, level in enumerate(theirs.down_blocks):
        stages(list(ours.encoder.down[i * n : (i + 1) * n]), level)
        if i < levels - 1:
            level.downsamplers[0].conv.load_state_dict(ours.encoder.shrink[i].conv.state_dict())
    block(ours.encoder.mid_in.block, theirs.mid_block.resnets[0])
    if ours.encoder.mid_in.attention is not None:
        attention(ours.encoder.mid_in.attention, theirs.mid_block.attentions[0])
    block(ours.encoder.mid_out, theirs.mid_block.resnets[1])
    for i, level in enumerate(theirs.up_blocks):
        stages(list(ours.up[i * (n + 1) : (i + 1) * (n + 1)]), level)
        if i < levels - 1:
            level.upsamplers[0].conv.load_state_dict(ours.grow[i].conv.state_dict())
    theirs.conv_norm_out.load_state_dict(ours.norm.state_dict())
    theirs.conv_out.load_state_dict(ours.last.state_dict())


def operations(net: nn.Module, case: Case, device: str) -> int:
    """The multiplications and additions of one forward call; on "meta" those of the architecture as it is written."""
    x = torch.zeros(case.batch, 3, case.side, case.side, device=device)
    if device == "cpu":
        x = x.contiguous(memory_format=torch.channels_last)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        copy.deepcopy(net).to(device)(x, torch.zeros(case.batch, device=device))
    return counter.get_total_flops()


def turns(
    calls: dict[str, Callable[[], object]], repeats: int, clock: Callable[[], float]
) -> dict[str, list]:
    """The seconds of every call in every turn, the first turn left out; the order is reversed at each turn."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for turn in range(repeats + 1):
        for name in names if turn % 2 else reversed(names):
            start = clock()
            calls[name]()
            if turn:
                found[name].append(clock() - start)
    return found


def forward(net: nn.Module, x: Tensor, t: Tensor) -> Callable[[], object]:
    def call() -> object:
        with torch.no_grad():
            return net(x, t)

    return call


def training(net: nn.Module, x: Tensor, t: Tensor) -> Callable[[], object]:
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-4, foreach=True)
    target = torch.randn_like(x)

    def call() -> None:
        optimiser.zero_grad(set_to_none=True)
        (net(x, t) - target).square().mean().backward()
        optimiser.step()

    return call


def compare(case: Case, repeats: int, clock: Callable[[], float]) -> dict:
    """Medians and ratios of a case."""
    ours, theirs = pair(case)
    nominal = operations(ours, case, "meta"), operations(theirs, case, "meta")
    if nominal[0] != nominal[1]:
        raise SystemExit(f"the networks are not of one architecture: {nominal} operations")
    plain = torch.randn(case.batch, 3, case.side, case.side)
    t = torch.full((case.batch,), 500.0)
    with torch.no_grad():
        difference = float((ours(plain, t) - theirs(plain, t)).abs().max() / theirs(plain, t).std())
    if difference > 1e-4:
        raise SystemExit(f"the networks are not of one architecture: outputs {difference} apart")
    last = plain.contiguous(memory_format=torch.channels_last)
    spent = operations(ours, case, "cpu")
    nets = {
        "ours": (ours.to(memory_format=torch.channels_last), last),
        "diffusers": (theirs, plain),
        "diffusers, channels_last": (copy.deepcopy(theirs).to(memory_format=torch.channels_last), last),
    }
    row = {
        "case": asdict(case),
        "name": case.name,
        "gflop": nominal[0] / 1e9,
        "gflop_ours_runs": spent / 1e9,
        "difference": difference,
    }
    for kind, make in (("forward", forward), ("training step", training)):
        for net, _ in nets.values():
            net.train(make is training)
        calls = {name: make(net, x, t) for name, (net, x) in nets.items()}
        found = turns(calls, repeats if kind == "forward" else max(repeats // 2, 3), clock)
        row[kind] = {name: 1e3 * statistics.median(seconds) for name, seconds in found.items()}
        row[f"{kind} ratio"] = {
            name: statistics.median(b / a for a, b in zip(found["ours"], found[name], strict=True))
            for name in found
            if name != "ours"
        }
        print(case.name, kind, row[kind], row[f"{kind} ratio"], flush=True)
    return row


def overhead(case: Case, steps: int, repeats: int, clock: Callable[[], float]) -> dict:
    """The share by which `ddim` takes longer than its network calls alone, batch 1."""
    net = pair(case)[0].to(memory_format=torch.channels_last).eval()
    denoiser = EpsDenoiser(net, table("linear"))
    sigmas = spaced(denoiser.levels, steps)
    x = torch.randn(1, 3, case.side, case.side).contiguous(memory_format=torch.channels_last)
    times = denoiser.levels.index(sigmas[:-1]).float()

    def bare() -> None:
        with torch.no_grad():
            for t in times:
                net(x, t[None])

    calls = {"bare": bare, "ddim": lambda: ddim(denoiser, sigmas[0] * x, sigmas)}
    found = turns(calls, repeats, clock)
    row = {name: 1e3 * statistics.median(seconds) for name, seconds in found.items()}
    row["overhead"] = statistics.median(b / a for a, b in zip(found["bare"], found["ddim"], strict=True)) - 1
    row |= {"name": f"{case.side} x {case.side} x 3, width {case.width}, batch 1", "steps": steps}
    print(row, flush=True)
    return row


def measure(cases: tuple[Case, ...], threads: int, repeats: int, steps: int) -> dict:
    """All figures with a number of threads."""
    torch.set_num_threads(threads)
    clock = time.thread_time if threads == 1 else time.perf_counter
    with open("/proc/loadavg") as file:
        load = float(file.read().split()[0])
    return {
        "threads": threads,
        "clock": "processor time" if threads == 1 else "wall time",
        "load": load,
        "networks": [compare(case, repeats, clock) for case in cases],
        "loops": [overhead(case, steps, max(repeats // 4, 3), clock) for case in (SMALL[0], cases[0])],
    }


def page(found: dict) -> str:
    """The results as Markdown."""
    lines = [
        "# Speed of the U-Net",
        "",
        "The same architecture with the same weights here and in diffusers, in one process, turn by turn, float32.",
        "Ratio: their time over ours, the median over the turns; above 1 ours is faster. The operations are those of",
        "the architecture; in brackets those that ours runs, which convolves an enlarged map without enlarging it.",
        "Four fifths of the time goes to convolutions that both hand to oneDNN: that bounds the ratio.",
        "",
        f"`{found['command']}` on {found['device']}, torch {found['torch']}, diffusers {found['diffusers']}, "
        f"Python {found['python']}.",
    ]
    for run in found["runs"]:
        lines += [
            "",
            f"## {run['threads']} thread{'s' * (run['threads'] > 1)}, {run['clock']}",
            "",
            f"The load of the machine by other programs was {run['load']:.1f} when it began.",
            "",
            "| network | GFLOP | call | ours ms | diffusers ms | ratio | diffusers channels_last ms | ratio |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for row in run["networks"]:
            for kind in ("forward", "training step"):
                ms, ratio = row[kind], row[f"{kind} ratio"]
                first, second = "diffusers", "diffusers, channels_last"
                lines.append(
                    f"| {row['name']} | {row['gflop']:.1f} ({row['gflop_ours_runs']:.1f}) | {kind} "
                    f"| {ms['ours']:.0f} | {ms[first]:.0f} | **{ratio[first]:.2f}** | {ms[second]:.0f} "
                    f"| {ratio[second]:.2f} |"
                )
        lines += [
            "",
            "What a sampling loop adds to its bare network calls (`ddim`, `EpsDenoiser`):",
            "",
            "| network | steps | calls alone ms | loop ms | overhead |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {row['name']} | {row['steps']} | {row['bare']:.0f} | {row['ddim']:.0f} "
            f"| {100 * row['overhead']:.1f} % |"
            for row in run["loops"]
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, nargs="+", help="default: torch's own number, then 1")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--out", type=Path, help="file name without its ending; default: results/unet_speed")
    args = parser.parse_args()
    command = f"python benchmarks/unet_speed.py --repeats {args.repeats}"
    if args.threads:
        command += " --threads " + " ".join(map(str, args.threads))
    found = {
        "command": command + (" --small" if args.small else ""),
        "device": f"{platform.machine()} CPU, {torch.backends.cpu.get_cpu_capability()}",
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "python": platform.python_version(),
        "runs": [],
    }
    out = args.out or RESULTS / "unet_speed"
    for threads in args.threads or dict.fromkeys((torch.get_num_threads(), 1)):
        run = measure(SMALL if args.small else CASES, threads, args.repeats, 5 if args.small else 50)
        found["runs"].append(run)
        out.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
        out.with_suffix(".md").write_text(page(found))


if __name__ == "__main__":
    main()
