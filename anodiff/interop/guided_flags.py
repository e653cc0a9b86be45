"""What the files of guided-diffusion do not say: heads, order of rows, schedule; from a published name or flags."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from anodiff.diffusion.schedule import table
from anodiff.errors import ConfigError
from anodiff.interop.dialect import Order
from anodiff.interop.guided_layout import Sizes
from anodiff.interop.published import PUBLISHED, Published, named

KNOWN = (
    *(
        "image_size",
        "large_size",
        "small_size",
        "num_channels",
        "num_res_blocks",
        "channel_mult",
        "class_cond",
    ),
    *(
        "num_heads",
        "num_head_channels",
        "num_heads_upsample",
        "use_new_attention_order",
        "attention_resolutions",
    ),
    *("use_scale_shift_norm", "resblock_updown", "dropout", "use_fp16", "use_checkpoint", "learn_sigma"),
    *("diffusion_steps", "noise_schedule", "timestep_respacing", "use_kl", "predict_xstart", "sigma_small"),
    *("rescale_timesteps", "rescale_learned_sigmas"),
    *("classifier_width", "classifier_depth", "classifier_attention_resolutions", "classifier_pool"),
    *("classifier_use_scale_shift_norm", "classifier_resblock_updown", "classifier_use_fp16"),
)
"""The flags of its scripts. Those that the tensors tell too are compared with them."""


@dataclass(frozen=True, kw_only=True)
class Unsaid:
    """What the tensors leave open."""

    heads: int | None  # None: `head_channels` to each
    head_channels: int = 64
    order: Order = "legacy"
    schedule: str = "linear"
    steps: int = 1000
    x0: bool = False  # it predicts x0, not the noise
    learned_variance: bool | None = None  # None: as the channels tell
    dropout: float = 0.0
    size: int | None = None  # of the pictures, px
    names: tuple[str, ...] = ()

    def table(self) -> Tensor:
        """The sigmas [T] it was trained for; a linear schedule is stretched to T steps."""
        if self.schedule == "linear":
            stretch = 1000 / self.steps
            return table("linear", self.steps, first=1e-4 * stretch, last=0.02 * stretch)
        return table("cosine", self.steps)


def unsaid(found: Sizes, config: str | Mapping[str, Any] | None) -> Unsaid:
    """What the tensors leave open, from a published name, from flags, or None: from the published file they match.

    Raises:
        ConfigError: nothing published matches and there are no flags, or they contradict the tensors.
    """
    if isinstance(config, Mapping):
        return _of_flags(found, config)
    if isinstance(config, str):
        entry = named(config)
        if not _matches(found, entry):
            raise ConfigError(f"these tensors are not those of {config!r}: {_difference(found, entry)}")
        return _of_published(entry, (entry,))
    entries = [entry for entry in PUBLISHED if _matches(found, entry)]
    if not entries:
        raise ConfigError(
            "this network is none of the published ones, and its file does not say its heads or its schedule; give "
            "the flags it was trained with: config={'num_head_channels': 64, 'noise_schedule': 'linear', ...}"
        )
    return _of_published(entries[0], entries)


def _of_published(entry: Published, alike: tuple[Published, ...] | list[Published]) -> Unsaid:
    return Unsaid(
        heads=entry.heads,
        order=entry.order,
        schedule=entry.schedule,
        dropout=entry.dropout,
        size=entry.size,
        names=tuple(name for one in alike for name in one.names),
    )


def _of_flags(found: Sizes, flags: Mapping[str, Any]) -> Unsaid:
    for key in flags:
        if key not in KNOWN:
            near = difflib.get_close_matches(str(key), KNOWN, n=1)
            raise ConfigError(f"unknown flag {key!r}{f'; did you mean {near[0]!r}?' if near else ''}")
    heads, head_channels = flags.get("num_heads"), flags.get("num_head_channels", -1)
    if found.kind == "classifier":  # its script knows no other
        heads, head_channels = None, 64
    elif head_channels != -1:
        heads = None
    elif heads is None:
        raise ConfigError(
            "config says neither num_heads nor num_head_channels, and the file cannot: give the one it was trained with"
        )
    steps, schedule = flags.get("diffusion_steps", 1000), flags.get("noise_schedule", "linear")
    if schedule not in ("linear", "cosine"):
        raise ConfigError(f"noise_schedule must be linear or cosine, got {schedule!r}")
    if flags.get("rescale_timesteps") and steps != 1000:
        raise ConfigError(
            f"rescale_timesteps with diffusion_steps={steps} feeds the network times between whole numbers, "
            "which our denoisers do not"
        )
    if flags.get("num_heads_upsample", -1) not in (-1, heads):
        raise ConfigError("num_heads_upsample: our networks have as many heads up as down; leave it at -1")
    _compare(found, flags)
    return Unsaid(
        heads=heads,
        head_channels=head_channels if heads is None else 64,
        order="new" if flags.get("use_new_attention_order") else "legacy",
        schedule=schedule,
        steps=steps,
        x0=bool(flags.get("predict_xstart")),
        learned_variance=flags.get("learn_sigma"),
        dropout=float(flags.get("dropout", 0.0)),
        size=flags.get("large_size", flags.get("image_size")),
    )


def _compare(found: Sizes, flags: Mapping[str, Any]) -> None:
    """Nothing, if the flags say what the tensors do."""
    s, half = found.skeleton, found.kind == "classifier"
    own = {
        "classifier_width" if half else "num_channels": found.width,
        "classifier_depth" if half else "num_res_blocks": s.blocks,
        "classifier_use_scale_shift_norm" if half else "use_scale_shift_norm": s.modulation == "adagn",
    }
    if s.levels > 1:
        own["classifier_resblock_updown" if half else "resblock_updown"] = s.residual
    if not half:
        own["class_cond"] = found.classes is not None
    for key, value in own.items():
        if key in flags and flags[key] != value:
            raise ConfigError(f"config says {key}={flags[key]!r}, but the tensors say {value!r}")
    size = flags.get("large_size", flags.get("image_size"))
    sides = flags.get("classifier_attention_resolutions" if half else "attention_resolutions")
    if size and sides:
        wanted = {int(size) // int(side) for side in str(sides).split(",")}
        levels = {i for i in range(s.levels) if 2**i in wanted}
        if levels != s.attention:
            raise ConfigError(
                f"config says attention at {sides} of {size}, levels {sorted(levels)}, but the tensors have it at "
                f"levels {sorted(s.attention)}"
            )


def _matches(found: Sizes, entry: Published) -> bool:
    return _difference(found, entry) == ""


def _difference(found: Sizes, entry: Published) -> str:
    """What distinguishes the tensors from a published file, as words; empty where nothing does."""
    s = found.skeleton
    upsampler, half = entry.kind == "upsampler", entry.kind == "classifier"
    pairs = {
        "kind": (found.kind, "classifier" if half else "unet"),
        "input channels": (found.inputs, 6 if upsampler else 3),
        "output channels": (found.outputs, 0 if half else 6),
        "width": (found.width, entry.width),
        "multipliers": (found.multipliers, entry.multipliers),
        "blocks a level": (s.blocks, entry.blocks),
        "levels with attention": (sorted(s.attention), sorted(entry.levels)),
        "classes": (found.classes, None if half else entry.classes),
        "residual changes of size": (s.residual, True),
        "modulation": (s.modulation, "adagn"),
    }
    return "; ".join(f"{name} {a}, not {b}" for name, (a, b) in pairs.items() if a != b)
