"""The layout of guided-diffusion's networks, read off the names and shapes of their tensors.

Source: the names as published with arXiv:2105.05233. `input_blocks` are counted through over all levels, each level's
blocks followed by what halves the size; `output_blocks` likewise, what doubles the size being the last layer of its
level's last block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from anodiff.errors import ConfigError
from anodiff.interop.dialect import Dialect, Place, Skeleton
from anodiff.interop.published import Kind
from anodiff.interop.tensors import Source, numbers

BLOCK = {
    "norm": "in_layers.0",
    "conv": "in_layers.2",
    "embed": "emb_layers.1",
    "second": "out_layers.0",
    "last": "out_layers.3",
    "skip": "skip_connection",
}
ATTENTION = {"norm": "norm", "out": "proj_out"}
TIME = ("0", "2")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What the tensors say of a network."""

    kind: Kind
    skeleton: Skeleton
    inputs: int  # channels of the first convolution
    outputs: int  # channels of the last, or classes
    width: int
    widths: tuple[int, ...]  # one a level
    classes: int | None

    @property
    def multipliers(self) -> tuple[float, ...]:
        """The widths over the first one's base, whole where they are."""
        return tuple(w // self.width if w % self.width == 0 else w / self.width for w in self.widths)


def prefix(place: Place, skeleton: Skeleton) -> str:
    """What guided-diffusion calls a place."""
    each = skeleton.blocks + 1
    second = 1 if place.part == "attention" else 0
    match place.spot:
        case "time":
            return "time_embed"
        case "label":
            return "label_emb"
        case "stem":
            return "input_blocks.0.0"
        case "down":
            return f"input_blocks.{1 + place.level * each + place.index}.{second}"
        case "shrink":
            return f"input_blocks.{(place.level + 1) * each}.0{'' if skeleton.residual else '.op'}"
        case "middle":
            return f"middle_block.{second or 2 * place.index}"
        case "up":
            return f"output_blocks.{(skeleton.levels - 1 - place.level) * each + place.index}.{second}"
        case "grow":
            number = (skeleton.levels - place.level) * each - 1
            layer = 2 if place.level in skeleton.attention else 1
            return f"output_blocks.{number}.{layer}{'' if skeleton.residual else '.conv'}"
        case "norm":
            return "out.0"
        case "last":
            return "out.2"


def sizes(source: Source) -> Sizes:
    """The sizes and the skeleton of the network that the tensors belong to.

    Raises:
        ConfigError: it has a part that our networks lack, or more than one layout has these tensors.
        ModelFileError: a tensor is missing.
    """
    width = source.shape("time_embed.0.weight")[1]
    stem = source.shape("input_blocks.0.0.weight")
    entries = len(numbers(source, "input_blocks"))
    if numbers(source, "input_blocks") != list(range(entries)):
        raise ConfigError(
            "conv_resample=False: a change of size without parameters has no place in our network"
        )
    ups = len(numbers(source, "output_blocks"))
    found = [s for s in (_up(source, ups) if ups else _down(source, entries)) if _fits(source, s, stem[0])]
    if len(found) != 1:
        raise ConfigError(
            f"{source.what}: {'no' if not found else 'more than one'} layout of levels and blocks has its "
            f"{entries} input blocks; expected a network of guided-diffusion with attention in the middle, whose "
            "levels have as many blocks each"
        )
    skeleton = found[0]
    classes = source.shape("label_emb.weight")[0] if skeleton.labels else None
    return Sizes(
        kind="unet" if ups else "classifier",
        skeleton=skeleton,
        inputs=stem[1],
        outputs=source.shape("out.2.weight")[0] if ups else 0,
        width=width,
        widths=_widths(source, skeleton),
        classes=classes,
    )


def dialect(skeleton: Skeleton, attending: object) -> Dialect:
    """The names of guided-diffusion for a network."""
    return Dialect(
        prefix=lambda place: prefix(place, skeleton),
        time=TIME,
        block=BLOCK,
        attention=ATTENTION,
        attending=attending,  # type: ignore[arg-type]
    )


def _up(source: Source, ups: int) -> Iterator[Skeleton]:
    """The one layout of a U-Net: its output blocks tell where a level ends."""
    grows = [n for n in range(ups) if _grows(source, n)]
    each = grows[0] + 1 if grows else ups
    yield _skeleton(source, levels=len(grows) + 1, blocks=each - 1, decoder=True)


def _down(source: Source, entries: int) -> Iterator[Skeleton]:
    """Every layout of a half U-Net: a block that halves the size has the names of any other."""
    for blocks in range(1, entries):
        if entries % (blocks + 1) == 0:
            yield _skeleton(source, levels=entries // (blocks + 1), blocks=blocks, decoder=False)


def _skeleton(source: Source, *, levels: int, blocks: int, decoder: bool) -> Skeleton:
    starts = [1 + i * (blocks + 1) for i in range(levels)]
    rows = source.shape("middle_block.0.emb_layers.1.weight")[0]
    channels = source.shape("middle_block.0.in_layers.2.weight")[0]
    return Skeleton(
        levels=levels,
        blocks=blocks,
        attention=frozenset(i for i, n in enumerate(starts) if f"input_blocks.{n}.1.qkv.weight" in source),
        middle="middle_block.1.qkv.weight" in source,
        residual=levels < 2 or f"input_blocks.{blocks + 1}.0.in_layers.0.weight" in source,
        modulation="adagn" if rows == 2 * channels else "add",
        labels="label_emb.weight" in source,
        decoder=decoder,
    )


def _fits(source: Source, s: Skeleton, stem: int) -> bool:
    """Whether the number of blocks, attention and the widths of the encoder are those of the layout."""
    if not s.middle or s.levels * (s.blocks + 1) != len(numbers(source, "input_blocks")):
        return False
    channels = stem
    for i in range(s.levels):
        wide = None
        for j in range(s.blocks):
            name = f"input_blocks.{1 + i * (s.blocks + 1) + j}"
            if f"{name}.0.in_layers.2.weight" not in source:
                return False
            outputs, inputs = source.shape(f"{name}.0.in_layers.2.weight")[:2]
            wide = wide or outputs
            attends = f"{name}.1.qkv.weight" in source
            if inputs != channels or outputs != wide or attends != (i in s.attention):
                return False
            channels = outputs
        if i == s.levels - 1:
            return True
        name = f"input_blocks.{(i + 1) * (s.blocks + 1)}"
        layer = f"{name}.0.in_layers.2.weight" if s.residual else f"{name}.0.op.weight"
        if layer not in source or source.shape(layer)[:2] != (channels, channels):
            return False
        if f"{name}.1.qkv.weight" in source:
            return False
    return True


def _grows(source: Source, number: int) -> bool:
    """Whether an output block ends in what doubles the size."""
    layers = numbers(source, f"output_blocks.{number}")
    last = f"output_blocks.{number}.{layers[-1]}"
    return layers[-1] > 0 and (f"{last}.conv.weight" in source or f"{last}.in_layers.0.weight" in source)


def _widths(source: Source, s: Skeleton) -> tuple[int, ...]:
    starts = (1 + i * (s.blocks + 1) for i in range(s.levels))
    return tuple(source.shape(f"input_blocks.{n}.0.in_layers.2.weight")[0] for n in starts)
