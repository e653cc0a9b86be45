"""Times and labels as vectors, and the learned null that stands for a condition left out."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from anodiff.errors import ConfigError

OCTAVES = 8
"""Frequencies of a coordinate; the finest wave is `2^-6` of the picture's side long."""


def sinusoidal(t: Tensor, dim: int, *, period: float = 10_000.0, shift: float = 0.0) -> Tensor:
    """Cosines and sines of a time at `dim // 2` frequencies, `[B, dim]`.

    With `h = dim // 2` and `f_i = period^(-i / (h - shift))`: `[cos(t f_0), .., cos(t f_{h-1}), sin(t f_0), ..]`; an
    odd `dim` ends in one zero. Source: Vaswani et al., arXiv:1706.03762, section 3.5, in the order of
    arXiv:2105.05233; DDPM's own networks have a shift of 1.

    Args:
        t: `[B]` times, any real number (not only integers).
        dim: Length of each row.
        period: The longest wavelength is `2 pi period`.
        shift: How many frequencies before the end of the scale the last one is; with 1 it is `1 / period` itself.
    """
    half = dim // 2
    # In float32 and in this order, as in the networks whose weights are read: at t = 1000 the last digit of a
    # frequency is the fourth of an angle.
    exponent = -math.log(period) * torch.arange(half, dtype=torch.float32, device=t.device)
    angle = t.float()[:, None] * torch.exp(exponent / max(half - shift, 1))  # [B, dim // 2]
    waves = torch.cat([angle.cos(), angle.sin()], dim=1)
    return nn.functional.pad(waves, (0, dim - 2 * half))  # [B, dim]


def fourier(v: Tensor) -> Tensor:
    """Cosines and sines of numbers in [0, 1] at `OCTAVES` frequencies, `[..., 2 * OCTAVES]` for `v [...]`.

    `[cos(pi 2^k v), sin(pi 2^k v)]` for k = 0, 1, ..; the lowest tells 0 from 1. Source: Mildenhall et al.,
    arXiv:2003.08934, eq. 4.
    """
    k = torch.arange(OCTAVES, dtype=torch.float32, device=v.device)
    angle = math.pi * v.float()[..., None] * 2**k  # [..., OCTAVES]
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def or_null(value: Tensor, null: Tensor, keep: Tensor | None) -> Tensor:
    """`value`, with the rows where `keep` is False replaced by the learned `null` (arXiv:2207.12598).

    Args:
        value: `[B, ...]` a condition.
        null: What stands in its place, broadcastable to `value`.
        keep: `[B]` bool; None keeps every row.
    """
    if keep is None:
        return value
    return torch.where(keep.view(-1, *[1] * (value.ndim - 1)), value, null)


class TimeEmbedding(nn.Module):
    """A time `t` as a learned vector: sinusoids through two linear layers (Ho et al., arXiv:2006.11239, appendix B)."""

    def __init__(self, dim: int, out: int, *, shift: float = 0.0) -> None:
        super().__init__()
        self.dim = dim
        self.shift = shift
        self.mlp = nn.Sequential(nn.Linear(dim, out), nn.SiLU(), nn.Linear(out, out))

    def forward(self, t: Tensor) -> Tensor:
        """The embedding `[B, out]` of times `t [B]`."""
        dtype = next(self.mlp.parameters()).dtype
        return self.mlp(sinusoidal(t, self.dim, shift=self.shift).to(dtype))  # [B, out]


class LabelEmbedding(nn.Module):
    """A class index as a learned vector, with one more row, the last, for "no label"."""

    def __init__(self, classes: int, out: int) -> None:
        super().__init__()
        self.classes = classes
        self.table = nn.Embedding(classes + 1, out)

    def forward(self, label: Tensor | None, keep: Tensor | None, *, batch: int) -> Tensor:
        """The embedding `[batch, out]`; the null row where the label is absent or `keep` is False.

        Args:
            label: `[batch]` integers in `[0, classes)`, or None: no row has a label.
            keep: `[batch]` bool, False = the null row, whatever the label is.
            batch: Number of rows.

        Raises:
            ConfigError: the labels are not one whole number a row, or (on the CPU, where looking is free) one that is
                kept is out of its range.
        """
        null = torch.full((batch,), self.classes, device=self.table.weight.device)
        if label is None:
            return self.table(null)
        self._check(label, keep, batch)
        return self.table(or_null(label.long().to(null.device), null, keep))

    def _check(self, label: Tensor, keep: Tensor | None, batch: int) -> None:
        if label.shape != (batch,) or label.is_floating_point() or label.dtype == torch.bool:
            raise ConfigError(
                f"expected one whole-number label a row, shape [{batch}], got {list(label.shape)} of "
                f"{str(label.dtype).removeprefix('torch.')}"
            )
        if label.device.type != "cpu":
            return
        named = label if keep is None else label[keep.to(label.device)]
        if bad := named[(named < 0) | (named >= self.classes)].tolist():
            raise ConfigError(
                f"this network knows the labels 0 to {self.classes - 1}, got {bad[0]}: give one of those, "
                "or leave the label out"
            )
