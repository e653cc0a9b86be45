"""A published autoencoder, `AutoencoderKL` of diffusers, as the options and weights of ours."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from anodiff.errors import ConfigError, ModelFileError

FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors")
"""Names of the weights, the first that is there."""

_DEFAULTS: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",),
    "up_block_types": ("UpDecoderBlock2D",),
    "block_out_channels": (64,),
    "layers_per_block": 1,
    "act_fn": "silu",
    "latent_channels": 4,
    "norm_num_groups": 32,
    "scaling_factor": 0.18215,
    "shift_factor": None,
    "use_quant_conv": True,
    "use_post_quant_conv": True,
    "mid_block_add_attention": True,
}
"""What a key means that the file leaves out."""

_IDLE = {"sample_size", "force_upcast", "latents_mean", "latents_std"}
"""Keys that change no layer: sizes of tiles, the precision of pipelines, scales that are measured anew here."""

_BLOCK = (("norm", "norm1"), ("conv", "conv1"), ("second", "norm2"), ("last", "conv2"))
_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""What the layers of an attention are called in old files, and in today's."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Published:
    """An autoencoder as it was published."""

    options: Mapping[str, Any]
    """Keyword arguments of `Autoencoder`."""
    state: Mapping[str, Tensor]
    """Its state dict, float32, under our names."""
    scale: float
    """What its own pipelines multiply codes by; ours is measured over the user's good parts."""
    shift: float
    """What they subtract before that."""


def read_autoencoder(folder: str | Path) -> Published:
    """The `AutoencoderKL` of a local folder; neither diffusers nor a network is needed, and no code in files is run.

    Layouts of the Stable Diffusion kind: any number of levels, blocks and groups, with or without attention in the
    middle and the two 1 x 1 convolutions (one that is missing becomes the identity), with attention's names and shapes
    of old files or of today's.

    Args:
        folder: with `config.json` and `diffusion_pytorch_model.safetensors`, or a pipeline's with these in `vae/`.

    Raises:
        ModelFileError: a file is missing or damaged, or the tensors are not those of its configuration.
        ConfigError: the layout is another one; the message names the key.
    """
    folder = Path(folder)
    root = folder / "vae" if (folder / "vae" / "config.json").is_file() else folder
    config = _config(root / "config.json")
    options = _options(config)
    file = next((root / name for name in FILES if (root / name).is_file()), None)
    if file is None:
        raise ModelFileError(
            f"expected the weights of the autoencoder in {root} as {FILES[0]}, found none; save it with "
            "save_pretrained(folder, safe_serialization=True)"
        )
    try:
        tensors = {_today(name): tensor for name, tensor in load_file(file).items()}
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"{file} is no file of safetensors: {str(error)[:200]}") from error
    return Published(
        options=options,
        state=_translated(tensors, options, file),
        scale=float(config["scaling_factor"]),
        shift=float(config["shift_factor"] or 0.0),
    )


def _config(path: Path) -> dict[str, Any]:
    """The configuration with the keys that the file leaves out."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except OSError:
        raise ModelFileError(
            f"expected a published autoencoder in {path.parent}, but its config.json cannot be read: give the folder "
            "of an AutoencoderKL of diffusers"
        ) from None
    except ValueError as error:
        raise ModelFileError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise ModelFileError(f"{path} should hold keys and values, got {type(found).__name__}")
    name = found.get("_class_name")
    if name != "AutoencoderKL":
        raise ConfigError(f"_class_name: expected an AutoencoderKL in {path.parent}, got {name!r}")
    unknown = sorted(
        key for key in found if key not in _DEFAULTS and key not in _IDLE and not key.startswith("_")
    )
    if unknown:
        raise ConfigError(
            f"{path} has keys that no autoencoder known here has, {', '.join(unknown)}: its layers may be others"
        )
    return _DEFAULTS | found


def _options(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments of our autoencoder.

    Raises:
        ConfigError: a value has no counterpart.
    """
    for key, kind in (("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")):
        if other := sorted(set(config[key]) - {kind}):
            raise ConfigError(f"{key}: {', '.join(other)} has no counterpart; known: {kind}")
        if len(config[key]) != len(config["block_out_channels"]):
            raise ConfigError(
                f"{key}: {len(config[key])} levels, but block_out_channels has {len(config['block_out_channels'])}"
            )
    if config["act_fn"] not in ("silu", "swish"):
        raise ConfigError(f"act_fn: {config['act_fn']!r} has no counterpart; known: silu")
    if config["in_channels"] != config["out_channels"]:
        raise ConfigError(
            f"out_channels: {config['out_channels']} for {config['in_channels']} in; ours paints what it reads"
        )
    widths, groups = config["block_out_channels"], config["norm_num_groups"]
    if uneven := [width for width in widths if width % groups]:
        raise ConfigError(f"norm_num_groups: {groups} does not divide {uneven} channels")
    return {
        "image_channels": config["in_channels"],
        "channels": config["latent_channels"],
        "width": widths[0],
        "multipliers": tuple(width / widths[0] for width in widths),
        "blocks": config["layers_per_block"],
        "attention": bool(config["mid_block_add_attention"]),
        "form": "kl",
        "groups": groups,
    }


def _translated(tensors: Mapping[str, Tensor], options: Mapping[str, Any], file: Path) -> dict[str, Tensor]:
    """Our state dict; every tensor of theirs has its place.

    Raises:
        ModelFileError: one is missing, is too many, or has another number of outputs than the configuration says.
    """
    left = set(tensors)

    def take(name: str, outputs: int) -> Tensor:
        if name not in tensors:
            raise ModelFileError(f"{file} lacks the tensor {name}: it is another network, or cut short")
        if tensors[name].shape[0] != outputs:
            raise ModelFileError(
                f"{file} has {name} of shape {list(tensors[name].shape)}, but config.json beside it says {outputs} "
                "outputs: the two do not belong together"
            )
        left.discard(name)
        # A copy: what is read from a file may lie in the file itself, at any address.
        return tensors[name].to(torch.float32, copy=True).contiguous()

    ours: dict[str, Tensor] = {}
    middle = _widths(options)[-1]
    for kind in ("weight", "bias"):
        for mine, theirs, outputs in _layers(options):
            ours[f"{mine}.{kind}"] = take(f"{theirs}.{kind}", outputs)
        for half in ("encoder", "decoder") if options["attention"] else ():
            mine, theirs = f"{half}.middle.attention.attend", f"{half}.mid_block.attentions.0"
            query, key, value, out = (
                _linear(take(f"{theirs}.{name}.{kind}", middle)) for name in _ATTENTION.values()
            )
            ours[f"{mine}.query.{kind}"] = query
            ours[f"{mine}.key_value.{kind}"] = torch.cat([key, value])
            ours[f"{mine}.out.{kind}"] = out
        for mine, theirs, outputs in _pointwise(options):
            if f"{theirs}.weight" in tensors:
                ours[f"{mine}.{kind}"] = take(f"{theirs}.{kind}", outputs)
            else:
                identity = torch.eye(outputs)[:, :, None, None]
                ours[f"{mine}.{kind}"] = identity if kind == "weight" else torch.zeros(outputs)
    if left:
        raise ModelFileError(
            f"{file} holds {len(left)} tensors that have no place in the autoencoder of its config.json, such as "
            f"{', '.join(sorted(left)[:3])}: it is another kind of network"
        )
    return ours


def _layers(options: Mapping[str, Any]) -> Iterator[tuple[str, str, int]]:
    """Our prefix, theirs and the outputs of each layer that is copied as it is."""
    widths, blocks = _widths(options), options["blocks"]
    for half, levels, each, tower, change, ours, outputs in (
        ("encoder", widths, blocks, "down_blocks", "downsamplers", "shrink", 2 * options["channels"]),
        ("decoder", widths[::-1], blocks + 1, "up_blocks", "upsamplers", "grow", options["image_channels"]),
    ):
        yield f"{half}.stem", f"{half}.conv_in", levels[0]
        inputs = levels[0]
        for i, width in enumerate(levels):
            for j in range(each):
                yield from _block(f"{half}.levels.{i}.{j}", f"{half}.{tower}.{i}.resnets.{j}", inputs, width)
                inputs = width
            if i < len(levels) - 1:
                yield f"{half}.{ours}.{i}", f"{half}.{tower}.{i}.{change}.0.conv", width
        middle = widths[-1]
        yield from _block(f"{half}.middle.first", f"{half}.mid_block.resnets.0", middle, middle)
        yield from _block(f"{half}.middle.second", f"{half}.mid_block.resnets.1", middle, middle)
        if options["attention"]:
            yield f"{half}.middle.attention.norm", f"{half}.mid_block.attentions.0.group_norm", middle
        yield f"{half}.norm", f"{half}.conv_norm_out", levels[-1]
        yield f"{half}.last", f"{half}.conv_out", outputs


def _block(ours: str, theirs: str, inputs: int, outputs: int) -> Iterator[tuple[str, str, int]]:
    for name, called in _BLOCK:
        yield f"{ours}.{name}", f"{theirs}.{called}", inputs if name == "norm" else outputs
    if inputs != outputs:
        yield f"{ours}.skip", f"{theirs}.conv_shortcut", outputs


def _pointwise(options: Mapping[str, Any]) -> tuple[tuple[str, str, int], ...]:
    """The 1 x 1 convolutions around the code, as `_layers`; either may be missing."""
    c = options["channels"]
    return ("quant", "quant_conv", 2 * c), ("unquant", "post_quant_conv", c)


def _widths(options: Mapping[str, Any]) -> list[int]:
    return [round(options["width"] * m) for m in options["multipliers"]]


def _linear(tensor: Tensor) -> Tensor:
    """The weight [C, C] of a linear layer that may have been kept as a convolution of width 1; a bias as it is."""
    return tensor.flatten(1) if tensor.ndim > 1 else tensor


def _today(name: str) -> str:
    """The name of today for one of an attention layer in old files."""
    for old, new in _ATTENTION.items():
        if ".attentions." in name and f".{old}." in name:
            return name.replace(f".{old}.", f".{new}.")
    return name
