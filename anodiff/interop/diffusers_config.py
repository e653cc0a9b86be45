"""The configuration of diffusers' `UNet2DModel` as the arguments of our U-Net."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anodiff.errors import ConfigError

_DEFAULTS: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "freq_shift": 0,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
    "mid_block_type": "UNetMidBlock2D",
    "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (224, 448, 672, 896),
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "downsample_padding": 1,
    "downsample_type": "conv",
    "upsample_type": "conv",
    "dropout": 0.0,
    "act_fn": "silu",
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "attn_norm_num_groups": None,
    "norm_eps": 1e-5,
    "resnet_time_scale_shift": "default",
    "add_attention": True,
    "class_embed_type": None,
    "num_class_embeds": None,
}
"""What a key that a file leaves out means."""

# Attention of a block, and what changes its size: a convolution, a residual block, or what the key of that name says.
_DOWN = {
    "DownBlock2D": (False, "conv"),
    "ResnetDownsampleBlock2D": (False, "resnet"),
    "AttnDownBlock2D": (True, "downsample_type"),
}
_UP = {
    "UpBlock2D": (False, "conv"),
    "ResnetUpsampleBlock2D": (False, "resnet"),
    "AttnUpBlock2D": (True, "upsample_type"),
}


def arguments_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of the U-Net that computes what the configuration's does.

    `center_input_sample` and `flip_sin_to_cos` are not among them: the first is a change of the input, the second one
    of the weights.

    Raises:
        ConfigError: no U-Net of ours does; the message names the key.
    """
    c = {**_DEFAULTS, **{key: value for key, value in config.items() if key in _DEFAULTS}}
    _refuse(c)
    widths = tuple(c["block_out_channels"])
    down = [_looked_up("down_block_types", name, _DOWN, c) for name in c["down_block_types"]]
    up = [
        _looked_up("up_block_types", name, _UP, c) for name in reversed(c["up_block_types"])
    ]  # the finest first
    if not len(down) == len(up) == len(widths):
        raise ConfigError(
            f"block_out_channels: {len(widths)} levels, but {len(down)} and {len(up)} block types; expected as many"
        )
    attention = tuple(i for i, (attends, _) in enumerate(down) if attends)
    if attention != tuple(i for i, (attends, _) in enumerate(up) if attends):
        raise ConfigError(
            "up_block_types: attention must stand on the same levels up as down (our network has one list of levels)"
        )
    changes = {change for _, change in down[:-1]} | {change for _, change in up[1:]}
    if len(changes) > 1:
        raise ConfigError(
            "downsample_type, upsample_type: every level must change its size alike, by convolutions or by residual "
            "blocks; this network mixes them"
        )
    inputs, outputs = c["in_channels"], c["out_channels"]
    upsampler = inputs == 2 * outputs  # latent diffusion's: the small picture follows x
    if inputs not in (outputs, 2 * outputs) and outputs != 2 * inputs:
        raise ConfigError(f"out_channels: {outputs} with in_channels {inputs} is no denoiser's")
    if upsampler and config.get("center_input_sample"):
        raise ConfigError("center_input_sample: not where the input is joined with a picture, centred too")
    return {
        "in_channels": outputs if upsampler else inputs,
        "out_channels": outputs,
        "cond_channels": outputs if upsampler else 0,
        "width": widths[0],
        "multipliers": tuple(w // widths[0] if w % widths[0] == 0 else w / widths[0] for w in widths),
        "blocks": c["layers_per_block"],
        "attention": attention,
        **_heads(c, [w for i, w in enumerate(widths) if i in attention]),
        "classes": c["num_class_embeds"],
        "dropout": c["dropout"],
        "groups": c["norm_num_groups"],
        "modulation": "adagn" if c["resnet_time_scale_shift"] == "scale_shift" else "add",
        "resample": "residual" if changes == {"resnet"} else "conv",
        "mid_attention": bool(c["add_attention"]),
        "eps": float(c["norm_eps"]),
        "frequency_shift": float(c["freq_shift"]),
        "pad": "both" if c["downsample_padding"] == 1 else "after",
    }


def _refuse(c: Mapping[str, Any]) -> None:
    """Nothing, unless a key asks for what our network lacks."""
    groups = c["attn_norm_num_groups"]
    if groups is None and c["resnet_time_scale_shift"] == "default":
        groups = c["norm_num_groups"]  # what it stands for there
    rules = (
        (
            "time_embedding_type",
            c["time_embedding_type"] != "positional",
            "sinusoids of a time, 'positional'",
        ),
        (
            "time_embedding_dim",
            c["time_embedding_dim"] not in (None, 4 * c["block_out_channels"][0]),
            "four times the first width",
        ),
        ("mid_block_type", c["mid_block_type"] != "UNetMidBlock2D", "'UNetMidBlock2D'"),
        ("mid_block_scale_factor", c["mid_block_scale_factor"] != 1, "1"),
        ("downsample_padding", c["downsample_padding"] not in (0, 1), "0 or 1"),
        ("act_fn", str(c["act_fn"]).lower() not in ("silu", "swish"), "'silu'"),
        (
            "resnet_time_scale_shift",
            c["resnet_time_scale_shift"] not in ("default", "scale_shift"),
            "'default' or 'scale_shift'",
        ),
        ("class_embed_type", c["class_embed_type"] is not None, "null, a table of labels"),
        (
            "attn_norm_num_groups",
            c["add_attention"] and groups != c["norm_num_groups"],
            f"{c['norm_num_groups']}, as norm_num_groups (our attention in the middle is normalised as any other)",
        ),
    )
    for key, bad, want in rules:
        if bad:
            raise ConfigError(f"{key}: {c[key]!r} has no counterpart in our U-Net; expected {want}")


def _looked_up(
    key: str, name: str, known: Mapping[str, tuple[bool, str]], c: Mapping[str, Any]
) -> tuple[bool, str]:
    """Whether a block has attention, and "conv" or "resnet" for what changes its size."""
    plain = name.removeprefix("UNetRes")
    if plain not in known:
        raise ConfigError(f"{key}: {name!r} has no counterpart in our U-Net; known: {', '.join(known)}")
    attends, change = known[plain]
    change = (c[change] or "conv") if change in c else change
    if change not in ("conv", "resnet"):
        raise ConfigError(
            f"{known[plain][1]}: {change!r} has no counterpart in our U-Net; known: conv, resnet"
        )
    return attends, change


def _heads(c: Mapping[str, Any], widths: list[int]) -> dict[str, Any]:
    """Heads of attention; `widths` are those of the levels that have it."""
    each = c["attention_head_dim"]
    if each is None:
        return {"heads": 1, "head_channels": 64}
    attended = {*widths, *([c["block_out_channels"][-1]] if c["add_attention"] else [])}
    if uneven := sorted(w for w in attended if w % each):
        raise ConfigError(
            f"attention_head_dim: {each} does not divide the {uneven[0]} channels of a level that has attention"
        )
    return {"heads": None, "head_channels": each}
