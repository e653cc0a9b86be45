"""Tensors of another program's file: read without running code in it, widened, and each taken once."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anodiff.errors import ModelFileError
from anodiff.nets.unet import UNet


def read(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file, on the CPU and in the file's own types.

    Args:
        path: safetensors, the index of safetensors in several files (`*.index.json`), or a state dict saved by torch,
            which is read with `weights_only=True`: no code in it is run.

    Raises:
        ModelFileError: the file is missing, damaged, or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelFileError(f"expected a file of weights at {path}, but there is none; check the path")
    try:
        if path.name.endswith(".index.json"):
            parts = set(json.loads(path.read_text("utf-8"))["weight_map"].values())
            return {
                name: tensor for part in sorted(parts) for name, tensor in read(path.parent / part).items()
            }
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except ModelFileError:
        raise
    except Exception as error:  # a damaged or foreign file fails in as many ways as there are formats
        raise ModelFileError(
            f"expected safetensors or a state dict of torch in {path}, got: {str(error)[:300]}"
        ) from error
    if not isinstance(found, Mapping) or not found or not all(isinstance(v, Tensor) for v in found.values()):
        raise ModelFileError(
            f"expected a state dict, names and tensors, in {path}, got {type(found).__name__}; "
            "save `model.state_dict()` alone"
        )
    return dict(found)


class Source(Mapping[str, Tensor]):
    """The tensors of a foreign network, in one type; remembers which were taken.

    Half precision is widened to float32. float64 stays where all tensors have it.

    Args:
        tensors: names and tensors.
        what: what they belong to, for messages.
    """

    def __init__(self, tensors: Mapping[str, Tensor], *, what: str) -> None:
        self.what = what
        self._tensors = tensors
        self._left = set(tensors)
        double = bool(tensors) and all(tensor.dtype == torch.float64 for tensor in tensors.values())
        self.dtype = torch.float64 if double else torch.float32

    def __getitem__(self, name: str) -> Tensor:
        """The tensor, which then counts as taken.

        Raises:
            ModelFileError: there is none of that name.
        """
        if name not in self._tensors:
            near = difflib.get_close_matches(name, self._left, n=1)
            hint = f" (the nearest name is {near[0]!r})" if near else ""
            raise ModelFileError(
                f"{self.what} lacks the tensor {name!r}{hint}: it is another network, or cut short"
            )
        self._left.discard(name)
        # A copy: what is read from a file may lie in the file itself, at any address, and the last digit of a sum
        # depends on where its numbers lie.
        return self._tensors[name].to(self.dtype, copy=True)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, which does not count as taken; raises ModelFileError as `[name]` does."""
        return tuple(self._tensors[name].shape) if name in self._tensors else tuple(self[name].shape)

    def finish(self) -> None:
        """Nothing, if every tensor was taken.

        Raises:
            ModelFileError: some were not, so that the network is more than what was made of it.
        """
        if self._left:
            names = sorted(self._left)
            raise ModelFileError(
                f"{self.what} holds {len(names)} tensors that have no place in the network read from it, "
                f"such as {', '.join(names[:3])}: it is another kind of network"
            )


def filled(net: torch.nn.Module, tensors: Mapping[str, Tensor], *, what: str) -> None:
    """Nothing: `net`, which may stand on the meta device, takes the tensors as its own parameters.

    Raises:
        ModelFileError: names or shapes differ.
    """
    try:
        net.load_state_dict(dict(tensors), strict=True, assign=True)
    except RuntimeError as error:
        text = " ".join(str(error).split())
        raise ModelFileError(
            f"{what} does not fit the network that its layout tells of: {text[:400]}"
        ) from error


def assembled(arguments: Mapping[str, Any], tensors: dict[str, Tensor], *, what: str) -> UNet:
    """The U-Net of `arguments` with the tensors as its parameters, in evaluation mode.

    A network that reads a picture was never trained without one: its null is zero where the tensors lack it.

    Raises:
        ModelFileError: names or shapes differ.
    """
    with torch.device("meta"):
        net = UNet(**arguments)
    if net.null_image is not None:
        tensors = {"null_image": tensors["last.weight"].new_zeros(net.null_image.shape), **tensors}
    filled(net, tensors, what=what)
    return net.eval()


def numbers(names: Iterable[str], prefix: str) -> list[int]:
    """The distinct numbers that follow `prefix.` in the names, ascending."""
    start = f"{prefix}."
    found = {name[len(start) :].split(".")[0] for name in names if name.startswith(start)}
    return sorted(int(number) for number in found if number.isdigit())
