"""The networks of guided-diffusion written down a second time: their tensors, and what is computed with them.

After the description in arXiv:2105.05233 and the published names. Nothing of anodiff's networks is used: a layout is a
list of layers, a network is a function of a state dict, and attention runs head by head.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Twin:
    """A network of guided-diffusion, in the words of its flags."""

    image_size: int
    num_channels: int
    channel_mult: tuple[float, ...]
    num_res_blocks: int
    attention: tuple[int, ...]  # resolutions
    inputs: int = 3
    outputs: int = 6
    num_classes: int | None = None
    num_heads: int | None = None
    num_head_channels: int | None = None
    resblock_updown: bool = True
    scale_shift: bool = True
    new_order: bool = False
    pool: str | None = None  # a classifier's

    def heads(self, channels: int) -> int:
        if self.num_head_channels is None:
            assert self.num_heads is not None
            return self.num_heads
        return channels // self.num_head_channels

    def small(self, width: int, **changes: object) -> Twin:
        """The same layers, narrow, for a small picture and few labels."""
        heads = {"num_head_channels": self.num_head_channels and 16}
        classes = {"num_classes": self.num_classes and 5}
        return replace(self, num_channels=width, **{**heads, **classes, **changes})


HEADS_OF_64 = {"num_head_channels": 64}
M64, M128, M256 = (1, 2, 3, 4), (1, 1, 2, 3, 4), (1, 1, 2, 2, 4, 4)
M512 = (0.5, 1, 1, 2, 2, 4, 4)
ALL = (32, 16, 8)


def net(size: int, width: int, mult: tuple[float, ...], **rest: object) -> Twin:
    base = {"num_res_blocks": 2, "attention": ALL, **rest}
    return Twin(image_size=size, num_channels=width, channel_mult=mult, **base)  # type: ignore[arg-type]


def classifier(size: int, mult: tuple[float, ...], **rest: object) -> Twin:
    return net(size, 128, mult, outputs=1000, pool="attention", **HEADS_OF_64, **rest)


# The model and classifier flags of the read-me, one entry a file.
FILES: dict[str, Twin] = {
    "64x64_diffusion": net(64, 192, M64, num_res_blocks=3, num_classes=1000, new_order=True, **HEADS_OF_64),
    "128x128_diffusion": net(128, 256, M128, num_classes=1000, num_heads=4),
    "256x256_diffusion": net(256, 256, M256, num_classes=1000, **HEADS_OF_64),
    "256x256_diffusion_uncond": net(256, 256, M256, **HEADS_OF_64),
    "512x512_diffusion": net(512, 256, M512, num_classes=1000, **HEADS_OF_64),
    "512x512_diffusion_uncond_finetune_008100": net(512, 256, M512, **HEADS_OF_64),
    "64_256_upsampler": net(256, 192, M256, inputs=6, num_classes=1000, num_heads=4),
    "128_512_upsampler": net(512, 192, M256, inputs=6, num_classes=1000, attention=(32, 16), **HEADS_OF_64),
    "64x64_classifier": classifier(64, M64, num_res_blocks=4),
    "128x128_classifier": classifier(128, M128),
    "256x256_classifier": classifier(256, M256),
    "512x512_classifier": classifier(512, M512),
    "lsun_bedroom": net(256, 256, M256, **HEADS_OF_64),
    "lsun_cat": net(256, 256, M256, **HEADS_OF_64),
    "lsun_horse": net(256, 256, M256, **HEADS_OF_64),
    "lsun_horse_nodropout": net(256, 256, M256, **HEADS_OF_64),
}

Layer = tuple[str, str, int, int]  # kind, name, channels in, channels out
Entry = list[Layer]


def layout(twin: Twin) -> tuple[list[Entry], Entry, list[Entry], list[int]]:
    """Input blocks, middle, output blocks, and the channels that the input blocks leave behind."""
    stem = int(twin.channel_mult[0] * twin.num_channels)
    into: list[Entry] = [[("conv", "input_blocks.0.0", twin.inputs, stem)]]
    left, now, side = [stem], stem, twin.image_size
    for level, mult in enumerate(twin.channel_mult):
        wide = int(mult * twin.num_channels)
        for _ in range(twin.num_res_blocks):
            at = f"input_blocks.{len(into)}"
            into.append([("res", f"{at}.0", now, wide)])
            if side in twin.attention:
                into[-1].append(("attention", f"{at}.1", wide, wide))
            now = wide
            left.append(now)
        if level < len(twin.channel_mult) - 1:
            at = f"input_blocks.{len(into)}.0"
            into.append(
                [("res down", at, now, now) if twin.resblock_updown else ("down", f"{at}.op", now, now)]
            )
            left.append(now)
            side //= 2
    middle: Entry = [
        ("res", "middle_block.0", now, now),
        ("attention", "middle_block.1", now, now),
        ("res", "middle_block.2", now, now),
    ]
    out: list[Entry] = []
    stack = list(left)
    for level in range(len(twin.channel_mult) - 1, -1, -1):
        wide = int(twin.channel_mult[level] * twin.num_channels)
        for i in range(twin.num_res_blocks + 1):
            at = f"output_blocks.{len(out)}"
            entry: Entry = [("res", f"{at}.0", now + stack.pop(), wide)]
            now = wide
            if side in twin.attention:
                entry.append(("attention", f"{at}.1", now, now))
            if level and i == twin.num_res_blocks:
                name = f"{at}.{len(entry)}"
                entry.append(
                    ("res up", name, now, now) if twin.resblock_updown else ("up", f"{name}.conv", now, now)
                )
                side *= 2
            out.append(entry)
    return into, middle, out, left


def shapes(twin: Twin) -> dict[str, tuple[int, ...]]:
    """Every tensor of the file, and its shape."""
    found: dict[str, tuple[int, ...]] = {}

    def add(name: str, *shape: int) -> None:
        found[f"{name}.weight"] = shape
        found[f"{name}.bias"] = shape[:1]

    embed = 4 * twin.num_channels
    add("time_embed.0", embed, twin.num_channels)
    add("time_embed.2", embed, embed)
    if twin.num_classes:
        found["label_emb.weight"] = (twin.num_classes, embed)
    into, middle, out, left = layout(twin)
    for kind, name, i, o in _layers([*into, middle, *([] if twin.pool else out)]):
        if kind in ("conv", "down", "up"):
            add(name, o, i, 3, 3)
        elif kind == "attention":
            add(f"{name}.norm", i)
            add(f"{name}.qkv", 3 * i, i, 1)
            add(f"{name}.proj_out", i, i, 1)
        else:
            add(f"{name}.in_layers.0", i)
            add(f"{name}.in_layers.2", o, i, 3, 3)
            add(f"{name}.emb_layers.1", (1 + twin.scale_shift) * o, embed)
            add(f"{name}.out_layers.0", o)
            add(f"{name}.out_layers.3", o, o, 3, 3)
            if i != o:
                add(f"{name}.skip_connection", o, i, 1, 1)
    last = middle[-1][3]
    match twin.pool:
        case None:
            add("out.0", left[0])
            add("out.2", twin.outputs, left[0], 3, 3)
        case "attention":
            side = twin.image_size >> (len(twin.channel_mult) - 1)
            add("out.0", last)
            found["out.2.positional_embedding"] = (last, side**2 + 1)
            add("out.2.qkv_proj", 3 * last, last, 1)
            add("out.2.c_proj", twin.outputs, last, 1)
        case "adaptive":
            add("out.0", last)
            add("out.3", twin.outputs, last, 1, 1)
        case "spatial":
            add("out.0", 2048, sum(left) + last)
            add("out.2", twin.outputs, 2048)
    return found


def drawn(twin: Twin, *, dtype: torch.dtype = torch.float32, seed: int = 0) -> dict[str, Tensor]:
    """A state dict of random numbers, none of which has no effect."""
    g = torch.Generator().manual_seed(seed)
    found = {}
    for name, shape in shapes(twin).items():
        size = 1 / math.sqrt(math.prod(shape[1:])) if len(shape) > 1 else 0.2
        tensor = torch.randn(shape, generator=g, dtype=torch.float64) * size
        if len(shape) == 1 and name.endswith("weight"):
            tensor = tensor + 1  # of a norm
        found[name] = tensor.float().to(dtype)
    return found


def run(twin: Twin, state: dict[str, Tensor], x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
    """What the network computes."""

    def affine(name: str, h: Tensor) -> Tensor:
        return F.linear(h, state[f"{name}.weight"], state[f"{name}.bias"])

    def conv(name: str, h: Tensor, **options: int) -> Tensor:
        return F.conv2d(h, state[f"{name}.weight"], state[f"{name}.bias"], **options)

    def normal(name: str, h: Tensor) -> Tensor:
        return F.group_norm(h, 32, state[f"{name}.weight"], state[f"{name}.bias"], 1e-5)

    def res(name: str, h: Tensor, change: str) -> Tensor:
        u = F.silu(normal(f"{name}.in_layers.0", h))
        if change == "down":
            h, u = F.avg_pool2d(h, 2), F.avg_pool2d(u, 2)
        elif change == "up":
            h, u = (F.interpolate(m, scale_factor=2, mode="nearest") for m in (h, u))
        u = conv(f"{name}.in_layers.2", u, padding=1)
        e = affine(f"{name}.emb_layers.1", F.silu(emb))[:, :, None, None]
        if twin.scale_shift:
            scale, shift = e[:, : u.shape[1]], e[:, u.shape[1] :]
            u = normal(f"{name}.out_layers.0", u) * (1 + scale) + shift
        else:
            u = normal(f"{name}.out_layers.0", u + e)
        u = conv(f"{name}.out_layers.3", F.silu(u), padding=1)
        return u + (conv(f"{name}.skip_connection", h) if f"{name}.skip_connection.weight" in state else h)

    def attended(rows: Tensor, heads: int, *, new: bool) -> Tensor:
        """[B, 3C, N] -> [B, C, N], a head at a time."""
        c = rows.shape[1] // 3
        d, done = c // heads, []
        for k in range(heads):
            starts = (
                (k * d, c + k * d, 2 * c + k * d) if new else (3 * k * d, 3 * k * d + d, 3 * k * d + 2 * d)
            )
            q, key, v = (rows[:, s : s + d] for s in starts)  # [B, d, N] each
            weight = (q.transpose(1, 2) @ key / math.sqrt(d)).softmax(-1)  # [B, N, N]
            done.append(v @ weight.transpose(1, 2))
        return torch.cat(done, 1)

    def row(name: str, h: Tensor) -> Tensor:
        return F.conv1d(h, state[f"{name}.weight"], state[f"{name}.bias"])

    def attention(name: str, h: Tensor) -> Tensor:
        flat = normal(f"{name}.norm", h).flatten(2)
        seen = attended(row(f"{name}.qkv", flat), twin.heads(h.shape[1]), new=twin.new_order)
        return h + row(f"{name}.proj_out", seen).reshape(h.shape)

    def layer(kind: str, name: str, h: Tensor) -> Tensor:
        match kind:
            case "conv":
                return conv(name, h, padding=1)
            case "down":
                return conv(name, h, padding=1, stride=2)
            case "up":
                return conv(name, F.interpolate(h, scale_factor=2, mode="nearest"), padding=1)
            case "attention":
                return attention(name, h)
            case _:
                return res(name, h, kind.removeprefix("res").strip())

    half = twin.num_channels // 2
    angle = t.float()[:, None] * torch.exp(-math.log(10_000) * torch.arange(half, dtype=torch.float32) / half)
    emb = affine("time_embed.0", torch.cat([angle.cos(), angle.sin()], 1).to(x.dtype))
    emb = affine("time_embed.2", F.silu(emb))
    if twin.num_classes:
        assert y is not None
        emb = emb + state["label_emb.weight"][y]

    into, middle, out, _ = layout(twin)
    h, left = x, []
    for entry in into:
        for kind, name, _, _ in entry:
            h = layer(kind, name, h)
        left.append(h)
    for kind, name, _, _ in middle:
        h = layer(kind, name, h)
    match twin.pool:
        case "adaptive":
            mean = F.silu(normal("out.0", h)).mean((2, 3))
            return affine_of(state, "out.3", mean)
        case "spatial":
            means = torch.cat([m.mean((2, 3)) for m in [*left, h]], 1)
            return affine("out.2", F.relu(affine("out.0", means)))
        case "attention":
            u = F.silu(normal("out.0", h)).flatten(2)
            u = torch.cat([u.mean(2, keepdim=True), u], 2) + state["out.2.positional_embedding"]
            seen = attended(row("out.2.qkv_proj", u), twin.heads(h.shape[1]), new=True)
            return row("out.2.c_proj", seen)[:, :, 0]
    for entry in out:
        h = torch.cat([h, left.pop()], 1)
        for kind, name, _, _ in entry:
            h = layer(kind, name, h)
    return conv("out.2", F.silu(normal("out.0", h)), padding=1)


def affine_of(state: dict[str, Tensor], name: str, h: Tensor) -> Tensor:
    """A convolution of one pixel, on a map of one."""
    return F.conv2d(h[:, :, None, None], state[f"{name}.weight"], state[f"{name}.bias"])[:, :, 0, 0]


def _layers(entries: list[Entry]) -> Iterator[Layer]:
    for entry in entries:
        yield from entry
