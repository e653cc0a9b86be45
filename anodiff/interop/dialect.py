"""One list of the places of our U-Net, and how another program names and shapes what stands there.

Most tensors are copied under another name. Three are computed: the affine part of a block's second norm goes into
the modulation (`folded`), query, key and value of one matrix are sorted by what they are (`sorted_qkv`), and the
label table gets a row of zeros for "no label".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from anodiff.interop.tensors import Source
from anodiff.nets.blocks import Modulation

Part = Literal["time", "label", "conv", "norm", "block", "attention"]
Spot = Literal["time", "label", "stem", "down", "shrink", "middle", "up", "grow", "norm", "last"]
Order = Literal["legacy", "new"]
"""How the rows of one query-key-value matrix are laid out: head by head (q, k, v of the first, then of the next), or
all queries, then all keys, then all values."""


@dataclass(frozen=True, kw_only=True)
class Skeleton:
    """What stands where in a network, without its sizes."""

    levels: int
    blocks: int
    attention: frozenset[int]
    middle: bool = True  # attention there
    residual: bool = False  # blocks that change the size, in place of convolutions
    modulation: Modulation = "adagn"
    labels: bool = False
    decoder: bool = True  # False: the down half alone


@dataclass(frozen=True)
class Place:
    """Something with parameters, its prefix in our state dict, and where it stands."""

    part: Part
    ours: str
    spot: Spot
    level: int = 0
    index: int = 0


def places(skeleton: Skeleton) -> Iterator[Place]:
    """Every place of a network, in the order of its run."""
    s = skeleton
    change: Part = "block" if s.residual else "conv"
    tail = "" if s.residual else ".conv"
    yield Place("time", "time.mlp", "time")
    if s.labels:
        yield Place("label", "label.table", "label")
    yield Place("conv", "encoder.stem", "stem")
    for i in range(s.levels):
        for j in range(s.blocks):
            stage = f"encoder.down.{i * s.blocks + j}"
            yield Place("block", f"{stage}.block", "down", i, j)
            if i in s.attention:
                yield Place("attention", f"{stage}.attention", "down", i, j)
        if i < s.levels - 1:
            yield Place(change, f"encoder.shrink.{i}{tail}", "shrink", i)
    yield Place("block", "encoder.mid_in.block", "middle", 0, 0)
    if s.middle:
        yield Place("attention", "encoder.mid_in.attention", "middle", 0, 0)
    yield Place("block", "encoder.mid_out", "middle", 0, 1)
    if not s.decoder:
        return
    for k, i in enumerate(reversed(range(s.levels))):
        for j in range(s.blocks + 1):
            stage = f"up.{k * (s.blocks + 1) + j}"
            yield Place("block", f"{stage}.block", "up", i, j)
            if i in s.attention:
                yield Place("attention", f"{stage}.attention", "up", i, j)
        if i:
            yield Place(change, f"grow.{k}{tail}", "grow", i)
    yield Place("norm", "norm", "norm")
    yield Place("conv", "last", "last")


@dataclass(frozen=True)
class Projections:
    """Query, key and value of an attention layer, weights [C, C] and biases [C]."""

    query: tuple[Tensor, Tensor]
    key: tuple[Tensor, Tensor]
    value: tuple[Tensor, Tensor]


class Attending(Protocol):
    """How another program keeps query, key and value."""

    def __call__(self, source: Source, prefix: str) -> Projections:
        """The projections of the layer at `prefix`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """The names of another program: prefix of a place, then what it calls our layers there."""

    prefix: Callable[[Place], str]
    time: tuple[str, str]  # the two linear layers
    block: Mapping[
        str, str
    ]  # norm, conv, embed (the linear layer of the embedding), second (norm), last, skip
    attention: Mapping[str, str]  # norm, out
    attending: Attending


def translated(source: Source, skeleton: Skeleton, dialect: Dialect) -> dict[str, Tensor]:
    """Our state dict of the layers in `places`, from the tensors of another program.

    Raises:
        ModelFileError: a tensor is missing.
    """
    ours: dict[str, Tensor] = {}
    for place in places(skeleton):
        theirs = dialect.prefix(place)
        match place.part:
            case "time":
                found = _pair(source, f"{theirs}.{dialect.time[0]}", "0")
                found |= _pair(source, f"{theirs}.{dialect.time[1]}", "2")
            case "label":
                rows = source[f"{theirs}.weight"]  # [K, E]
                found = {"weight": torch.cat([rows, torch.zeros_like(rows[:1])])}  # [K + 1, E]
            case "block":
                found = _block(source, theirs, dialect.block, skeleton.modulation)
            case "attention":
                found = _attention(source, theirs, dialect)
            case _:
                found = {kind: source[f"{theirs}.{kind}"] for kind in ("weight", "bias")}
        ours |= {f"{place.ours}.{name}": tensor.contiguous() for name, tensor in found.items()}
    return ours


def folded(weight: Tensor, bias: Tensor, gain: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """Weight [2C, E] and bias [2C] of the one linear layer that does what an affine norm and a modulation do.

    With `[s, b] = W e + c` another program computes `(gain n + offset) (1 + s) + b` of the normalised map `n`; ours
    is `n (1 + s') + b'`, hence `s' = gain s + gain - 1` and `b' = offset s + offset + b`. Computed in float64, and
    exact where the gain is 1 and the offset 0.

    Args:
        weight: [2C, E] W, the rows of the scale before those of the shift.
        bias: [2C] c.
        gain: [C] the norm's own weight.
        offset: [C] the norm's own bias.
    """
    scale_w, shift_w = weight.double().chunk(2)  # [C, E] each
    scale_b, shift_b = bias.double().chunk(2)  # [C] each
    g, o = gain.double(), offset.double()
    w = torch.cat([g[:, None] * scale_w, o[:, None] * scale_w + shift_w])
    b = torch.cat([g * scale_b + (g - 1), o * scale_b + o + shift_b])
    return w.to(weight.dtype), b.to(bias.dtype)


def sorted_qkv(rows: Tensor, *, heads: int, order: Order) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value, [C, ...] each, of the rows [3C, ...] of one matrix or bias."""
    if order == "legacy":
        rows = rows.unflatten(0, (heads, 3, -1)).transpose(0, 1).flatten(0, 2)  # [3 heads d, ...]
    query, key, value = rows.chunk(3)
    return query, key, value


def mixed_qkv(query: Tensor, key: Tensor, value: Tensor, *, heads: int, order: Order) -> Tensor:
    """The rows [3C, ...] of one matrix or bias; the inverse of `sorted_qkv`."""
    rows = torch.cat([query, key, value])
    if order == "legacy":
        rows = rows.unflatten(0, (3, heads, -1)).transpose(0, 1).flatten(0, 2)
    return rows


def _pair(source: Source, theirs: str, ours: str) -> dict[str, Tensor]:
    return {f"{ours}.{kind}": source[f"{theirs}.{kind}"] for kind in ("weight", "bias")}


def _block(
    source: Source, theirs: str, names: Mapping[str, str], modulation: Modulation
) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for layer in ("norm", "conv", "last"):
        found |= _pair(source, f"{theirs}.{names[layer]}", layer)
    if f"{theirs}.{names['skip']}.weight" in source:
        found |= _pair(source, f"{theirs}.{names['skip']}", "skip")
    embed = _pair(source, f"{theirs}.{names['embed']}", "adapt.shift")
    second = _pair(source, f"{theirs}.{names['second']}", "adapt.norm")
    if modulation == "add":
        return found | embed | second
    weight, bias = folded(*embed.values(), *second.values())
    return found | {"adapt.affine.weight": weight, "adapt.affine.bias": bias}


def _attention(source: Source, theirs: str, dialect: Dialect) -> dict[str, Tensor]:
    names, p = dialect.attention, dialect.attending(source, theirs)
    found = _pair(source, f"{theirs}.{names['norm']}", "norm")
    for i, kind in enumerate(("weight", "bias")):
        found[f"attend.query.{kind}"] = p.query[i]
        found[f"attend.key_value.{kind}"] = torch.cat([p.key[i], p.value[i]])
    out = source[f"{theirs}.{names['out']}.weight"]
    found["attend.out.weight"] = out.flatten(1)  # [C, C], a convolution of width 1 elsewhere
    found["attend.out.bias"] = source[f"{theirs}.{names['out']}.bias"]
    return found
