"""Whitening: an affine map after which the channels of normal pictures have mean 0 and covariance 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from anodiff.errors import ConfigError, DataError
from anodiff.learnt import Learnt

Mode = Literal["full", "channel", "stage"]


@dataclass(frozen=True)
class ChannelMoments:
    """How many positions were seen, their mean and the sum of their centred products, in float64.

    `a + b` are the moments of both (Chan, Golub & LeVeque, 1979): nothing is ever a difference of large squares.
    """

    count: int
    mean: Tensor  # [C]
    product: Tensor  # [C, C] sum over positions of (z - mean)(z - mean)^T

    @classmethod
    def of(cls, z: Tensor) -> ChannelMoments:
        """The moments of the positions of `z [B, C, h, w]`."""
        rows = z.detach().double().transpose(0, 1).flatten(1)  # [C, B h w]
        mean = rows.mean(dim=1)
        centred = rows - mean[:, None]
        return cls(rows.shape[1], mean, centred @ centred.T)

    @classmethod
    def apart(cls, moments: Sequence[ChannelMoments], *, count: int) -> ChannelMoments:
        """The moments of the channels of several maps of whatever sizes, with no covariance between maps.

        Args:
            moments: of each map.
            count: what they weigh when others are added.
        """
        mean = torch.cat([m.mean for m in moments])
        return cls(count, mean, torch.block_diag(*(m.covariance for m in moments)) * count)

    def __add__(self, other: ChannelMoments) -> ChannelMoments:
        count = self.count + other.count
        gap = other.mean - self.mean
        mean = self.mean + gap * (other.count / count)
        product = self.product + other.product + torch.outer(gap, gap) * (self.count * other.count / count)
        return ChannelMoments(count, mean, product)

    @property
    def covariance(self) -> Tensor:
        """The covariance `[C, C]` over all positions, divided by their number."""
        return self.product / self.count


def whitening(covariance: Tensor, *, mode: Mode, floor: float, groups: Sequence[int] = ()) -> Tensor:
    """The matrix that whitens: `[C, C]`, symmetric (ZCA), for "full" and "stage"; `[C]`, a factor a channel, for
    "channel".

    Full: with `covariance = V diag(l) V^T`, `V diag(max(l, floor * mean(l))^-1/2) V^T`. Channel: the same with the
    diagonal alone, `max(var, floor * mean(var))^-1/2`. The floor keeps directions that normals hardly use, and whose
    variance a few pictures cannot tell from nothing, from being blown up: these end with a variance below 1.
    Stage: "full" for each stage of the network by itself, so that a channel keeps to the stage it comes from.
    Of all whitening matrices the symmetric one moves the channels least (Kessy et al., arXiv:1512.00809).

    Args:
        covariance: `[C, C]` float64.
        mode: Which of the three.
        floor: Smallest variance relative to the mean variance, above 0.
        groups: Channels of each stage, for "stage"; they sum to C.
    """
    if mode == "stage":
        ends = torch.tensor(groups).cumsum(0).tolist()
        blocks = [
            covariance[end - size : end, end - size : end] for size, end in zip(groups, ends, strict=True)
        ]
        return torch.block_diag(*(whitening(block, mode="full", floor=floor) for block in blocks))
    if mode == "channel":
        variance = covariance.diagonal()
        return torch.rsqrt(_floored(variance, floor))
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * torch.rsqrt(_floored(values, floor))) @ vectors.T


def _floored(variance: Tensor, floor: float) -> Tensor:
    mean = variance.clamp(min=0).mean()
    if mean <= 0:  # normals that never vary: no scale is better than another
        return torch.ones_like(variance)
    return variance.clamp(min=floor * float(mean))


class Whiten(Learnt):
    """The affine map `z -> W (z - mean)`, learnt once from normals and kept in the `state_dict`."""

    mean: Tensor  # [C]; empty until learnt
    weight: Tensor  # [C, C] or [C]; empty until learnt

    def __init__(self, *, mode: Mode = "full", floor: float = 1e-3, groups: Sequence[int] = ()) -> None:
        """Store the choices.

        Args:
            mode: "full": the whole covariance; "stage": that of each stage; "channel": each channel for itself.
            floor: See `whitening`.
            groups: Channels of each stage.
        """
        super().__init__()
        self.mode: Mode = mode
        self.floor = floor
        self.groups = tuple(groups)
        self.expect("mean", "weight")

    def settle(self, moments: ChannelMoments) -> None:
        """Take mean and matrix from the moments of normals.

        Raises:
            DataError: a moment is not a finite number.
        """
        if not (torch.isfinite(moments.mean).all() and torch.isfinite(moments.product).all()):
            raise DataError(
                "expected finite features, got NaN or infinity: look for such values in the pictures"
            )
        weight = whitening(moments.covariance, mode=self.mode, floor=self.floor, groups=self.groups)
        self.store("mean", moments.mean)
        self.store("weight", weight)

    def forward(self, z: Tensor) -> Tensor:
        """The whitened `z [B, C, h, w]`.

        The mean goes first: as the bias of the convolution it would be the difference of large numbers, and what
        float32 loses there is seen in scores.

        Raises:
            ConfigError: nothing was learnt yet.
        """
        return _applied(z, self.learnt("mean"), self.weight)

    def each(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The whitened maps `[B, C_i, h_i, w_i]` of the groups, each at its own size.

        Joined at one size they are what `forward` makes of the maps joined first, for a weighted mean of positions goes
        with an affine map; a deep stage's few positions cost a fraction of the finest one's. Not for "full", which
        mixes the groups.

        Raises:
            ConfigError: nothing was learnt yet, or the mode is "full".
        """
        if self.mode == "full":
            raise ConfigError("Whitening by the full covariance mixes the stages: join their maps first.")
        mean, weight = self.learnt("mean"), self.weight
        ends = torch.tensor(self.groups).cumsum(0).tolist()
        found = []
        for z, size, end in zip(maps, self.groups, ends, strict=True):
            own = slice(end - size, end)
            found.append(_applied(z, mean[own], weight[own] if weight.ndim == 1 else weight[own, own]))
        return found


def _applied(z: Tensor, mean: Tensor, weight: Tensor) -> Tensor:
    centred = z - mean[:, None, None]
    if weight.ndim == 1:
        return centred * weight[:, None, None]
    # Not as a convolution: torch has no fast one for a single position.
    return (weight @ centred.flatten(2)).unflatten(2, centred.shape[-2:])
