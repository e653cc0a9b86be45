"""A network whose weights came from another program, and what is known of its training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from anodiff.cond import Cond
from anodiff.config import schema
from anodiff.diffusion.classifier import NoisyClassifier
from anodiff.diffusion.denoiser import EpsDenoiser, VDenoiser, X0Denoiser
from anodiff.diffusion.levels import Levels
from anodiff.diffusion.schedule import table as table_of
from anodiff.diffusion.schedule import zero_terminal
from anodiff.errors import ConfigError, RefusalError
from anodiff.interop.published import Kind
from anodiff.nets.classifier import Classifier
from anodiff.nets.unet import UNet

Prediction = Literal["eps", "v", "x0"]

_DEFAULTS = {
    "groups": 32,
    "eps": 1e-5,
    "frequency_shift": 0.0,
    "pad": "both",
    "cond_channels": 0,
    "token_channels": 0,
}
"""What a network has of what a configuration may not be able to say."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Foreign:
    """A foreign network as one of ours.

    ```python
    foreign = guided_diffusion("256x256_diffusion_uncond.pt")
    samples = ddpm(foreign.denoiser(), y, sigmas)
    ```
    """

    net: UNet | Classifier
    """The network, its weights read, in evaluation mode."""
    arguments: Mapping[str, Any]
    """What it was constructed with."""
    kind: Kind
    """An upsampler reads the small picture, brought to the size of `x`, from `Cond.image`."""
    table: Tensor | None = None
    """[T] float64 sigmas it was trained for; None where the files do not say."""
    prediction: Prediction = "eps"
    """What it predicts; of a classifier, nothing."""
    learned_variance: bool = False
    """Whether its second half of channels is the fraction of a learned variance (arXiv:2102.09672)."""
    centred: bool = False
    """Whether it expects an input in [0, 1], which it stretches to [-1, 1] first."""
    names: tuple[str, ...] = ()
    """The published files that have this architecture."""

    def denoiser(self) -> EpsDenoiser | VDenoiser | X0Denoiser:
        """The network as a denoiser, ready to sample.

        Raises:
            RefusalError: it is a classifier.
            ConfigError: the schedule it was trained for is not known.
        """
        if not isinstance(self.net, UNet):
            raise RefusalError("a classifier denoises nothing; take its `classifier()`, which guides")
        made = {"eps": EpsDenoiser, "v": VDenoiser, "x0": X0Denoiser}[self.prediction]
        net = Centred(self.net) if self.centred else self.net
        return made(net, self._table(), learned_variance=self.learned_variance).eval()

    def classifier(self) -> NoisyClassifier:
        """The network as a classifier of noisy inputs, ready to guide.

        Raises:
            RefusalError: it is no classifier.
            ConfigError: the schedule it was trained for is not known.
        """
        if not isinstance(self.net, Classifier):
            raise RefusalError("this network tells no classes apart; take its `denoiser()`")
        table = self._table()
        levels = Levels(low=float(table[0]), high=float(table[-1]), table=table)
        return NoisyClassifier(self.net, levels).eval()

    def overrides(self) -> dict[str, Any]:
        """The sections of a configuration under which `fit` builds this network, to be laid over a preset.

        They are `data`, `codec`, `net`, `family` and `train`, as plain values; `overrides()["net"]` is the network.
        Labels are left out: they are those of the pictures that are fitted.

        Raises:
            RefusalError: it is a classifier.
            ConfigError: a configuration cannot express it.
        """
        if not isinstance(self.net, UNet):
            raise RefusalError(
                "a configuration builds its own classifier; only a denoising network can be a start"
            )
        if self.centred:
            raise ConfigError(
                "center_input_sample is not expressible in a configuration: its input is [0, 1]"
            )
        known = set(schema.UNet.model_fields)
        outside = {
            key: value
            for key, value in self.arguments.items()
            if key not in known and key in _DEFAULTS and value != _DEFAULTS[key]
        }
        if outside:
            raise ConfigError(
                "a configuration cannot express "
                f"{', '.join(f'{key}={value!r}' for key, value in outside.items())}; "
                "use the network through `denoiser()`"
            )
        channels = self.arguments["in_channels"]
        if channels not in (1, 3):
            raise ConfigError(
                f"a configuration knows pictures of 1 or 3 channels, this network reads {channels}"
            )
        net = {key: _plain(value) for key, value in self.arguments.items() if key in known}
        variance = "learned" if self.learned_variance else "fixed"
        family = {"kind": self.prediction, "schedule": _schedule(self._table()), "variance": variance}
        return {
            "data": {"channels": channels},
            "codec": {"kind": "pixel", "patch": 1},
            "net": {"kind": "unet", **net},
            "family": family,
            "train": {"loss": "hybrid" if self.learned_variance else "simple"},
        }

    def start(self, *, labels: int = 0) -> dict[str, Tensor]:
        """The state dict that `fit` begins with, for a network that knows `labels` labels of its own, 0: none.

        Published labels are not those of the user's parts. Their mean embedding goes into the bias of the time's
        second layer, where every row gets it; the user's own labels, and the null, begin at zero beside it.
        Shares no memory with `net`.
        """
        state = {name: tensor.detach().clone() for name, tensor in self.net.state_dict().items()}
        rows = state.pop("label.table.weight", None)
        if rows is not None:
            mean = rows[:-1].double().mean(dim=0)  # the last is the null, which was not trained
            state["time.mlp.2.bias"] = (state["time.mlp.2.bias"].double() + mean).to(rows.dtype)
        if labels:
            bias = state["time.mlp.2.bias"]
            state["label.table.weight"] = bias.new_zeros(labels + 1, len(bias))
        return state

    def _table(self) -> Tensor:
        if self.table is None:
            raise ConfigError(
                "the files do not say for which noise levels this network was trained; give them: "
                "dataclasses.replace(foreign, table=schedule.table('linear'))"
            )
        return self.table


class Centred(nn.Module):
    """A network that sees `2 x - 1` of its input."""

    def __init__(self, net: UNet) -> None:
        super().__init__()
        self.net = net

    @property
    def reads(self) -> frozenset[str]:
        """The fields of `Cond` that the network reads."""
        return self.net.reads

    def forward(self, x: Tensor, t: Tensor, cond: Cond | None = None) -> Tensor:
        """`net(2 x - 1, t, cond)`, [B, C, H, W]."""
        return self.net(2 * x - 1, t, cond)


def _plain(value: Any) -> Any:
    """`value` as YAML knows it."""
    return list(value) if isinstance(value, tuple) else value


def _schedule(table: Tensor) -> dict[str, Any]:
    """The section of a configuration that builds `table`."""
    for name in ("linear", "cosine", "scaled_linear", "scaled_linear_ldm", "quadratic", "sigmoid", "vp"):
        try:
            plain = table_of(name, len(table))
        except ConfigError:  # a schedule made for a thousand steps may not exist for this number
            continue
        for zero, made in ((False, plain), (True, zero_terminal(plain))):
            if torch.allclose(made, table, rtol=1e-5, atol=0):
                return {"name": name, "steps": len(table), "zero_terminal_snr": zero}
    raise ConfigError(
        f"a configuration has no name for this network's schedule of {len(table)} levels, "
        f"{float(table[0]):.3g} to {float(table[-1]):.3g}; use the network through `denoiser()`"
    )
