"""A frozen network of timm, seen as a function from pictures to maps of features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from anodiff.codec.weights import Weights, find_weights
from anodiff.errors import ConfigError, DataError, ModelFileError


class Backbone(nn.Module):
    """A feature extractor that never trains: pictures in [0, 1] in, one map a chosen stage out."""

    mean: Tensor  # [1, 3, 1, 1]
    std: Tensor  # [1, 3, 1, 1]

    def __init__(
        self,
        net: nn.Module,
        *,
        channels: Sequence[int],
        strides: Sequence[int],
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        """Store the network and freeze it.

        Args:
            net: `[B, 3, H, W]` normalised -> a list of maps, finest first.
            channels: Of each map.
            strides: Of each map: pixels a side of one position.
            mean: Of the network's input per channel, on pictures in [0, 1].
            std: The same for the deviation.
        """
        super().__init__()
        self.net = net.eval().requires_grad_(False)
        self.channels = tuple(channels)
        self.strides = tuple(strides)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def train(self, mode: bool = True) -> Backbone:
        """The same object, still in evaluation mode: its batch norms must not follow the pictures they see."""
        del mode
        return super().train(False)

    def forward(self, image: Tensor) -> list[Tensor]:
        """The maps `[B, c_i, H / s_i, W / s_i]` of the chosen stages for pictures `[B, 1 or 3, H, W]` in [0, 1].

        Grey is shown to the network as a grey colour picture.

        Raises:
            DataError: other than 1 or 3 channels.
        """
        if image.ndim != 4 or image.shape[1] not in (1, 3):
            raise DataError(
                f"expected pictures [B, 1 or 3, H, W], got {list(image.shape)}: a pretrained network sees grey or RGB"
            )
        x = (image.expand(-1, 3, -1, -1) - self.mean) / self.std  # [B, 3, H, W]
        return self.net(
            x.contiguous(memory_format=torch.channels_last)
        )  # the faster layout on a CPU, and on a GPU


def backbone(name: str, stages: Sequence[int], *, weights: str | Path = "auto") -> Backbone:
    """The frozen feature extractor `name` of timm, with the maps of `stages`.

    For `tf_efficientnet_lite0` the stages 0..4 have 16, 24, 40, 112 and 320 channels at strides 2, 4, 8, 16 and 32.

    Args:
        name: A network of timm that has features.
        stages: Indices of its feature maps, ascending.
        weights: See `find_weights`; never downloaded.

    Raises:
        ConfigError: an unknown network or stage.
        ModelFileError: the weights are absent, or of another network.
    """
    found = find_weights(name, weights)
    try:
        net = timm.create_model(name, pretrained=False, features_only=True, out_indices=tuple(stages))
    except (IndexError, AssertionError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"{name} has no feature maps {list(stages)}: {error or 'choose smaller indices'}"
        ) from error
    if found.state is not None:
        _fill(net, classifier(name, found).state_dict(), name)
    info: Any = net.feature_info
    return Backbone(net, channels=info.channels(), strides=info.reduction(), mean=found.mean, std=found.std)


def classifier(name: str, weights: Weights) -> nn.Module:
    """The whole network `name` with `weights`, in evaluation mode: pictures `[B, 3, H, W]` normalised -> logits.

    Raises:
        ModelFileError: the weights are not those of this network.
    """
    if weights.state is None:
        return timm.create_model(name, pretrained=False).eval()
    head = timm.get_pretrained_cfg(name).classifier  # pyright: ignore[reportOptionalMemberAccess]
    bias = weights.state.get(f"{head}.bias") if isinstance(head, str) else None
    # A network that someone trained on other classes is welcome: its features are as good.
    classes: dict[str, Any] = {} if bias is None else {"num_classes": bias.shape[0]}
    overlay = {"state_dict": dict(weights.state), **classes}
    try:
        net = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **classes)
    except RuntimeError as error:
        said = str(error)
        raise ModelFileError(
            f"the weights ({weights.source}) are not those of {name}: {said[:300]}"
        ) from error
    return net.eval()


def _fill(net: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Give the feature network the tensors of the classifier it is a part of.

    timm's features carry the classifier's names, but for dots that became underscores and a wrapper's prefix. Its own
    loading is lenient and would leave what it does not find as it was drawn; here a missing tensor is an error.
    """
    spelled = {key.replace(".", "_"): value for key, value in state.items()}
    names = {key: key.removeprefix("model.").replace(".", "_") for key in net.state_dict()}
    if absent := [key for key in names.values() if key not in spelled]:
        raise ModelFileError(
            f"the features of {name} have tensors its classifier lacks ({absent[:3]}): choose another"
        )
    net.load_state_dict({key: spelled[short] for key, short in names.items()})
