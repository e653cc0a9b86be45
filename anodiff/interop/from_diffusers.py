"""A `UNet2DModel` of diffusers as our U-Net: its configuration, its weights, its scheduler."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anodiff.diffusion.schedule import sigmas_of, table, zero_terminal
from anodiff.errors import ConfigError, ModelFileError
from anodiff.interop.dialect import Dialect, Place, Projections, Skeleton, translated
from anodiff.interop.diffusers_config import arguments_of
from anodiff.interop.foreign import Foreign, Prediction
from anodiff.interop.tensors import Source, assembled, read

_FILES = (
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "diffusion_pytorch_model.fp16.safetensors",
    "diffusion_pytorch_model.bin",
)
_BLOCK = {
    "norm": "norm1",
    "conv": "conv1",
    "embed": "time_emb_proj",
    "second": "norm2",
    "last": "conv2",
    "skip": "conv_shortcut",
}
_OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_SCHEDULES = {
    "linear": "linear",
    "scaled_linear": "scaled_linear",
    "squaredcos_cap_v2": "cosine",
    "sigmoid": "sigmoid",
}
_PREDICTIONS: dict[str, Prediction] = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}


def diffusers(folder: str | Path) -> Foreign:
    """The `UNet2DModel` of a folder as our U-Net; diffusers itself is not needed.

    The scheduler beside it, if there is one, tells the table of noise levels and what the network predicts; without
    one the table is None and the prediction that of the noise.

    Args:
        folder: of the network (`config.json` and `diffusion_pytorch_model.safetensors`), or of a pipeline with the
            network in `unet/` and the scheduler in `scheduler/`.

    Raises:
        ModelFileError: a file is missing, damaged, or belongs to another network.
        ConfigError: the network or its scheduler has what ours lack; the message names the key.
    """
    folder = Path(folder)
    root = folder / "unet" if (folder / "unet" / "config.json").is_file() else folder
    config = _json(root / "config.json")
    name = config.get("_class_name", "UNet2DModel")
    if name not in ("UNet2DModel", "UNetUnconditionalModel"):  # the latter is its name in old files
        raise ConfigError(f"_class_name: expected a UNet2DModel in {root}, got {name!r}")
    if found := next((root / file for file in _FILES if (root / file).is_file()), None):
        source = Source({_renamed(name): tensor for name, tensor in read(found).items()}, what=str(found))
    else:
        raise ModelFileError(f"expected weights in {root}, one of {', '.join(_FILES)}, found none")
    arguments = arguments_of(config)
    state = translated(source, _skeleton(arguments), _dialect(len(arguments["multipliers"])))
    if not config.get("flip_sin_to_cos", True):
        state["time.mlp.0.weight"] = _flipped(state["time.mlp.0.weight"])
    source.finish()
    net = assembled(arguments, state, what=source.what)
    scheduler = _scheduler(folder, root)
    return Foreign(
        net=net,
        arguments=arguments,
        kind="upsampler" if arguments["cond_channels"] else "unet",
        table=_table(scheduler) if scheduler else None,
        prediction=_prediction(scheduler),
        learned_variance=_learned(scheduler, arguments),
        centred=bool(config.get("center_input_sample", False)),
    )


def _skeleton(arguments: Mapping[str, Any]) -> Skeleton:
    return Skeleton(
        levels=len(arguments["multipliers"]),
        blocks=arguments["blocks"],
        attention=frozenset(arguments["attention"]),
        middle=arguments["mid_attention"],
        residual=arguments["resample"] == "residual",
        modulation=arguments["modulation"],
        labels=arguments["classes"] is not None,
    )


def _dialect(levels: int) -> Dialect:
    def prefix(place: Place) -> str:
        kind = "attentions" if place.part == "attention" else "resnets"
        tail = ".conv" if place.part == "conv" else ""
        match place.spot:
            case "time":
                return "time_embedding"
            case "label":
                return "class_embedding"
            case "stem":
                return "conv_in"
            case "down":
                return f"down_blocks.{place.level}.{kind}.{place.index}"
            case "shrink":
                return f"down_blocks.{place.level}.downsamplers.0{tail}"
            case "middle":
                return f"mid_block.{kind}.{place.index}"
            case "up":
                return f"up_blocks.{levels - 1 - place.level}.{kind}.{place.index}"
            case "grow":
                return f"up_blocks.{levels - 1 - place.level}.upsamplers.0{tail}"
            case "norm":
                return "conv_norm_out"
            case "last":
                return "conv_out"

    return Dialect(
        prefix=prefix,
        time=("linear_1", "linear_2"),
        block=_BLOCK,
        attention={"norm": "group_norm", "out": "to_out.0"},
        attending=_attending,
    )


def _attending(source: Source, prefix: str) -> Projections:
    def pair(name: str) -> tuple[Tensor, Tensor]:
        return source[f"{prefix}.{name}.weight"], source[f"{prefix}.{name}.bias"]

    return Projections(pair("to_q"), pair("to_k"), pair("to_v"))


def _renamed(name: str) -> str:
    """The name of today for one of an attention layer in old files."""
    for old, new in _OLD.items():
        if ".attentions." in name and f".{old}." in name:
            return name.replace(f".{old}.", f".{new}.")
    return name


def _flipped(weight: Tensor) -> Tensor:
    """The weight [E, W] that reads cosines before sines, of one that reads sines before cosines."""
    half = weight.shape[1] // 2
    return torch.cat([weight[:, half : 2 * half], weight[:, :half], weight[:, 2 * half :]], dim=1)


def _scheduler(folder: Path, root: Path) -> dict[str, Any] | None:
    beside = (folder, folder / "scheduler", root, root.parent / "scheduler")
    file = next((p for p in (d / "scheduler_config.json" for d in beside) if p.is_file()), None)
    return None if file is None else _json(file)


def _table(scheduler: Mapping[str, Any]) -> Tensor | None:
    """The sigmas [T] float64 of a scheduler on a table of betas; None for any other, such as one in sigma."""
    name = scheduler.get("beta_schedule")
    betas = scheduler.get("trained_betas")
    if betas is not None:
        found = sigmas_of(torch.tensor(betas, dtype=torch.float64))
    elif name is None:
        return None
    elif name not in _SCHEDULES:
        raise ConfigError(f"beta_schedule: {name!r} has no counterpart; known: {', '.join(_SCHEDULES)}")
    else:
        steps = scheduler.get("num_train_timesteps", 1000)
        ends = {
            key: scheduler[theirs]
            for key, theirs in (("first", "beta_start"), ("last", "beta_end"))
            if name != "squaredcos_cap_v2" and theirs in scheduler
        }
        ends = (
            ends if name == "squaredcos_cap_v2" else {"first": 1e-4, "last": 0.02, **ends}
        )  # its own defaults
        found = table(_SCHEDULES[name], steps, **ends)  # type: ignore[arg-type]
    return zero_terminal(found) if scheduler.get("rescale_betas_zero_snr") else found


def _prediction(scheduler: Mapping[str, Any] | None) -> Prediction:
    name = (scheduler or {}).get("prediction_type", "epsilon")
    if name not in _PREDICTIONS:
        raise ConfigError(f"prediction_type: {name!r} has no counterpart; known: {', '.join(_PREDICTIONS)}")
    return _PREDICTIONS[name]


def _learned(scheduler: Mapping[str, Any] | None, arguments: Mapping[str, Any]) -> bool:
    i, o = arguments["in_channels"], arguments["out_channels"]
    kind = (scheduler or {}).get("variance_type", "learned_range" if o == 2 * i else "fixed_small")
    if kind == "learned":
        raise ConfigError(
            "variance_type: 'learned' is a variance outright; ours is a share between two, learned_range"
        )
    if (o == 2 * i) != (kind == "learned_range"):
        raise ConfigError(f"variance_type: {kind!r} does not go with {o} channels out for {i} in")
    return kind == "learned_range"


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except OSError:
        raise ModelFileError(
            f"expected {path.name} in {path.parent}, but it cannot be read; check the path"
        ) from None
    except ValueError as error:
        raise ModelFileError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise ModelFileError(f"{path} should hold keys and values, got {type(found).__name__}")
    return found
