"""How unlike two pictures look: the distance of their features, with learnt weights (LPIPS) or without."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from anodiff.codec.backbone import Backbone
from anodiff.errors import DataError, ModelFileError

WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of VGG16's convolutions, a group between two poolings (arXiv:1409.1556, table 1, column D)."""

SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
"""Mean and deviation a channel of LPIPS' input, on pictures in [-1, 1]: ImageNet's, rounded."""

EPS = 1e-10
"""Added to the squared length of a feature vector: where all features are 0, the gradient is too."""

LEAST = 2 ** (len(WIDTHS) - 1)
"""The shortest side of a picture of which VGG16's last group still has a place."""


def unit(h: Tensor) -> Tensor:
    """The maps `h` [B, C, h, w], the vector of each place brought to length 1; float32 at least."""
    h = h.to(torch.promote_types(h.dtype, torch.float32))
    return h / (h.square().sum(1, keepdim=True) + EPS).sqrt()


class Frozen(nn.Module):
    """A module that stays in evaluation mode and whose own weights take no gradient; its input does."""

    def train(self, mode: bool = True) -> Frozen:
        """The same object, still in evaluation mode."""
        del mode
        return super().train(False)


class Perceptual(Frozen):
    """The form of LPIPS without its learnt weights, on the stages of any backbone.

    d(x, y) = mean over stages l, mean over places p, sum over channels of (u_l(x)_p - u_l(y)_p)^2, with u the features
    at unit length: arXiv:1801.03924 eq. 1 with w = 1. It lies in [0, 4]: squared chords, 0 for the same direction.
    """

    def __init__(self, features: Backbone) -> None:
        """Store `features`: pictures [B, 1 or 3, H, W] in [0, 1] -> maps, one a stage."""
        super().__init__()
        self.features = features
        self.train(False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """How unlike the pictures of each row look, [B]; the gradient flows to both.

        Args:
            x: pictures in [-1, 1], [B, 1 or 3, H, W]; not clipped.
            y: shaped as `x`.

        Raises:
            DataError: two shapes, or other than 1 or 3 channels.
        """
        _check(x, y)
        pairs = zip(self.features((x + 1) / 2), self.features((y + 1) / 2), strict=True)
        stages = [(unit(a) - unit(b)).square().sum(1).flatten(1).mean(1) for a, b in pairs]  # [B] each
        return torch.stack(stages).mean(0)


class Lpips(Frozen):
    """LPIPS of version 0.1 on VGG16: d(x, y) = sum over stages l, mean over places, w_l . (u_l(x) - u_l(y))^2.

    Source: Zhang et al., arXiv:1801.03924 eq. 1; the stages are the last ReLU before each pooling and at the end.
    Made by `lpips`.
    """

    shift: Tensor  # [1, 3, 1, 1]
    scale: Tensor  # [1, 3, 1, 1]

    def __init__(self, trunk: Sequence[nn.Module], weights: Sequence[Tensor]) -> None:
        """Store and freeze both.

        Args:
            trunk: the parts of VGG16, each the stage behind the one before.
            weights: w_l of each stage, [channels], from 0 up.
        """
        super().__init__()
        self.trunk = nn.ModuleList(trunk)
        self.weights = nn.ParameterList(weight.clone() for weight in weights)
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1))
        self.requires_grad_(False).train(False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The distance of each row, [B]; the gradient flows to both.

        Args:
            x: pictures in [-1, 1], [B, 1 or 3, H, W], 16 pixels a side at least; not clipped. Grey is shown as a grey
                colour picture.
            y: shaped as `x`.

        Raises:
            DataError: two shapes, other than 1 or 3 channels, or pictures that are too small.
        """
        _check(x, y)
        if min(x.shape[-2:]) < LEAST:
            raise DataError(
                f"VGG16 sees pictures of {LEAST} pixels a side at least, got {x.shape[-2]} x {x.shape[-1]}; take "
                "larger pictures or crops, or features of another backbone"
            )
        h = torch.cat([x, y]).expand(-1, 3, -1, -1)
        h = (h - self.shift) / self.scale  # [2B, 3, H, W]
        total = x.new_zeros(len(x), dtype=torch.promote_types(x.dtype, torch.float32))
        for part, weight in zip(self.trunk, self.weights, strict=True):
            h = part(h)
            a, b = unit(h).chunk(2)
            total = total + ((a - b).square() * weight[:, None, None]).sum(1).flatten(1).mean(1)
        return total


def lpips(file: str | Path) -> Lpips:
    """LPIPS with the weights of a local file, safetensors or a state dict of torch; nothing is downloaded or executed.

    The file is the state dict of an `LPIPS(net="vgg")` of the package lpips (`net.slice1.0.weight`, ...), or holds the
    convolutions of torchvision's VGG16 (`features.0.weight`, ...) together with the package's `lin0.model.1.weight`
    to `lin4.model.1.weight`.

    Raises:
        ModelFileError: no such file, not such a file, or tensors are missing or of another shape.
    """
    path = Path(file)
    found: dict[str, Tensor] = {}
    for name, value in _read(path).items():
        if match := re.fullmatch(r"(?:net\.slice\d\.|features\.)(\d+\.(?:weight|bias))", name):
            found[f"features.{match[1]}"] = value
        elif match := re.fullmatch(r"(?:lin|lins\.)(\d)\.model\.1\.weight", name):
            found[f"lin{match[1]}"] = value
    with torch.device("meta"):
        trunk = _vgg()
    wanted = {
        f"features.{name}": tuple(value.shape) for part in trunk for name, value in part.state_dict().items()
    }
    wanted |= {f"lin{i}": (1, widths[-1], 1, 1) for i, widths in enumerate(WIDTHS)}
    wrong = [name for name, shape in wanted.items() if name not in found or tuple(found[name].shape) != shape]
    if wrong:
        raise ModelFileError(
            f"{path} does not hold LPIPS on VGG16: {len(wanted)} tensors were expected, of which {len(wrong)} are "
            f"missing or of another shape, such as {', '.join(wrong[:3])}; save the state_dict of LPIPS(net='vgg')"
        )
    for part in trunk:
        state = {name: found[f"features.{name}"].float() for name in part.state_dict()}
        part.load_state_dict(state, assign=True)
    return Lpips(trunk, [found[f"lin{i}"].float().flatten() for i in range(len(WIDTHS))])


def _vgg() -> list[nn.Sequential]:
    """VGG16's convolutions in five parts, each module under the number it has in torchvision's `features`."""
    parts, number, inputs = [], 0, 3
    for widths in WIDTHS:
        part = nn.Sequential()
        if parts:
            part.add_module(str(number), nn.MaxPool2d(2))
            number += 1
        for width in widths:
            part.add_module(str(number), nn.Conv2d(inputs, width, 3, padding=1))
            part.add_module(str(number + 1), nn.ReLU())
            number, inputs = number + 2, width
        parts.append(part)
    return parts


def _read(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise ModelFileError(f"expected the weights of LPIPS at {path}, found no file: check the path")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, weights_only=True, map_location="cpu")
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError, OSError) as error:
        raise ModelFileError(
            f"expected weights in {path} (safetensors or a torch state_dict), got: {str(error)[:200]}"
        ) from error
    if not isinstance(state, Mapping):
        raise ModelFileError(f"expected a torch state_dict in {path}, got a {type(state).__name__}")
    return {str(name): value for name, value in state.items() if isinstance(value, Tensor)}


def _check(x: Tensor, y: Tensor) -> None:
    if x.shape != y.shape or x.ndim != 4 or x.shape[1] not in (1, 3):
        raise DataError(
            f"expected two pictures of one shape [B, 1 or 3, H, W], got {list(x.shape)} and {list(y.shape)}"
        )
