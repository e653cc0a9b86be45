"""The checkpoints that came with the guided-diffusion paper, and what their files do not say.

Source: Dhariwal & Nichol, arXiv:2105.05233, appendix I, and the flags in the read-me of their repository. Sizes are in
the tensors; the number of heads, the order of the rows of query, key and value, and the schedule are not.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

from anodiff.errors import ConfigError
from anodiff.interop.dialect import Order

Kind = Literal["unet", "upsampler", "classifier"]


@dataclass(frozen=True, kw_only=True)
class Published:
    """One architecture, and the names of the files that have it."""

    names: tuple[str, ...]
    kind: Kind
    size: int  # of the pictures, px
    width: int
    multipliers: tuple[float, ...]
    blocks: int
    attention: tuple[int, ...]  # sides of the maps that have it, px
    classes: int | None = 1000
    heads: int | None = None  # None: 64 channels a head
    order: Order = "legacy"
    schedule: Literal["linear", "cosine"] = "linear"
    dropout: float = 0.0

    @property
    def levels(self) -> frozenset[int]:
        """The levels with attention, 0 the finest."""
        sides = [self.size >> i for i in range(len(self.multipliers))]
        return frozenset(i for i, side in enumerate(sides) if side in self.attention)


_64 = (1, 2, 3, 4)
_128 = (1, 1, 2, 3, 4)
_256 = (1, 1, 2, 2, 4, 4)
_512 = (0.5, 1, 1, 2, 2, 4, 4)
_FINE = (32, 16, 8)
_LSUN = ("lsun_bedroom", "lsun_cat", "lsun_horse")
_FINETUNED = "512x512_diffusion_uncond_finetune_008100"  # by K. Crowson, from the labelled one


def _net(*names: str, size: int, multipliers: tuple[float, ...], **rest: object) -> Published:
    base = {"kind": "unet", "width": 256, "blocks": 2, "attention": _FINE}
    return Published(names=names, size=size, multipliers=multipliers, **{**base, **rest})  # type: ignore[arg-type]


def _classifier(size: int, multipliers: tuple[float, ...], **rest: object) -> Published:
    name = f"{size}x{size}_classifier"
    return _net(name, kind="classifier", size=size, width=128, multipliers=multipliers, **rest)


PUBLISHED: tuple[Published, ...] = (
    _net(
        "64x64_diffusion",
        size=64,
        width=192,
        multipliers=_64,
        blocks=3,
        order="new",
        schedule="cosine",
        dropout=0.1,
    ),
    _net("128x128_diffusion", size=128, multipliers=_128, heads=4),
    _net("256x256_diffusion", size=256, multipliers=_256),
    _net("256x256_diffusion_uncond", "lsun_horse_nodropout", size=256, multipliers=_256, classes=None),
    _net(*_LSUN, size=256, multipliers=_256, classes=None, dropout=0.1),
    _net("512x512_diffusion", size=512, multipliers=_512),
    _net(_FINETUNED, size=512, multipliers=_512, classes=None),
    _net("64_256_upsampler", kind="upsampler", size=256, width=192, multipliers=_256, heads=4),
    _net("128_512_upsampler", kind="upsampler", size=512, width=192, multipliers=_256, attention=(32, 16)),
    _classifier(64, _64, blocks=4, schedule="cosine"),
    _classifier(128, _128),
    _classifier(256, _256),
    _classifier(512, _512),
)
"""Every published file; those that differ in nothing but the dropout of their training stand beside each other."""


def named(name: str) -> Published:
    """The architecture of a published file.

    Raises:
        ConfigError: there is no such file.
    """
    known = {n: entry for entry in PUBLISHED for n in entry.names}
    name = name.removesuffix(".pt").removesuffix(".safetensors")
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ConfigError(f"no published network is called {name!r}{hint}; known: {', '.join(known)}")
    return known[name]
