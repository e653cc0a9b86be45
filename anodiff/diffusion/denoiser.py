"""Denoisers: one callable `(y, sigma) -> x0` for every family; its scaling happens here and nowhere else.

`y = x0 + sigma n` is the noisy input in noise-level coordinates. A variance-preserving network sees
`x_t = y / sqrt(1 + sigma^2)`, which is `sqrt(abar) x0 + sqrt(1 - abar) n`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor, nn

from anodiff.cond import Cond
from anodiff.diffusion.levels import Levels, column, level
from anodiff.diffusion.schedule import ZERO_SNR_SIGMA
from anodiff.errors import RefusalError

Net = Callable[[Tensor, Tensor, Cond | None], Tensor]
"""(x_t [B, C, h, w], t [B] float, cond) -> prediction [B, C, h, w]; [B, 2C, h, w] with a learned variance."""


class Denoiser(Protocol):
    """Anything that estimates the clean `x0` from `y = x0 + sigma n`."""

    @property
    def levels(self) -> Levels:
        """The noise levels it was trained for."""
        ...

    def __call__(self, y: Tensor, sigma: Tensor, cond: Cond | None = None) -> Tensor:
        """The estimate of x0, [B, C, h, w]; `sigma` is [B] or [], on any device (the CPU is fastest)."""
        ...


class HasVariance(Protocol):
    """A denoiser that also learned its reverse variance."""

    def moments(self, y: Tensor, sigma: Tensor, cond: Cond | None = None) -> tuple[Tensor, Tensor]:
        """The estimate of x0 and the fraction between log beta-tilde (0) and log beta (1), [B, C, h, w]."""
        ...


def moments(denoiser: Denoiser, y: Tensor, sigma: Tensor, cond: Cond | None = None) -> tuple[Tensor, Tensor]:
    """`denoiser.moments(y, sigma, cond)`, refused with a reason where there is no such promise.

    Raises:
        RefusalError: if the denoiser did not learn a variance.
    """
    method = getattr(denoiser, "moments", None)
    if method is None:
        raise RefusalError(
            f"a learned variance was asked for, but {type(denoiser).__name__} has none; "
            "use variance 'small' or 'large'"
        )
    return method(y, sigma, cond)


def reads(denoiser: object) -> frozenset[str] | None:
    """The fields of `Cond` that a denoiser or network was built to read; None where it does not say."""
    return getattr(denoiser, "reads", None)


def clock(levels: Levels, sigma: Tensor, y: Tensor) -> Tensor:
    """The number a network is fed for `sigma`, [B] on y's device: an index of the table, or `ln(sigma) / 4`.

    Respaced chains still feed the index of the full table: the network knows no other clock. Continuous levels
    are EDM's `c_noise` (arXiv:2206.00364 table 1).

    Args:
        levels: what the network is trained for.
        sigma: [B] or [] float64 on the CPU.
        y: [B, C, h, w], for the batch, the device and the dtype, which is float32 at least.

    Raises:
        RefusalError: if a sigma lies outside the table.
    """
    t = sigma.log() / 4 if levels.table is None else levels.index(sigma)
    t = t.to(torch.promote_types(y.dtype, torch.float32)).expand(y.shape[0])  # [B]
    return t.to(y.device, non_blocking=True)


def told(cond: Cond | None, sigma: Tensor, y: Tensor) -> Cond | None:
    """The conditions as a network is handed them: an edit of attention hears `sigma`, and not the network's number.

    `Cond.edit` is promised the noise level, which a network does not know; it calls the edit with what it was fed.

    Args:
        cond: the batch's conditions; without an edit they are returned as they are.
        sigma: [B] or [], the level of `y`; the edit gets it as [B] float32 on y's device.
        y: [B, C, h, w], for the batch and the device.
    """
    if cond is None or cond.edit is None:
        return cond
    edit = cond.edit
    heard = sigma.to(torch.float32).expand(y.shape[0]).to(y.device, non_blocking=True)  # [B]
    return replace(cond, edit=lambda probs, place, _: edit(probs, place, heard))


def to_unit(y: Tensor, sigma: Tensor) -> Tensor:
    """`x_t = y / sqrt(1 + sigma^2)`, what a variance-preserving network is fed, [B, C, h, w]."""
    return y * column((1 + sigma.square()).rsqrt(), y)


class _TableDenoiser(nn.Module):
    """Owns network and sigma table of a variance-preserving family; a subclass turns the output into x0."""

    def __init__(self, net: Net, table: Tensor, *, learned_variance: bool = False) -> None:
        super().__init__()
        self.net = net
        # A plain attribute: as a buffer it would follow .half() and lose its digits, and follow
        # .to("cuda") and synchronise.
        self.table = table
        self.learned_variance = learned_variance

    @property
    def levels(self) -> Levels:
        """The table's levels."""
        return Levels(low=float(self.table[0]), high=float(self.table[-1]), table=self.table)

    @property
    def reads(self) -> frozenset[str] | None:
        """The fields of `Cond` its network reads; None where the network does not say."""
        return reads(self.net)

    def forward(self, y: Tensor, sigma: Tensor, cond: Cond | None = None) -> Tensor:
        """The estimate of x0, [B, C, h, w].

        Args:
            y: [B, C, h, w] at noise level `sigma`.
            sigma: [B] or [], within the table; between two entries the network is fed the nearest one's
                index.
            cond: the batch's conditions.

        Raises:
            RefusalError: if a sigma lies outside the table.
        """
        out = self._net(y, sigma, cond)
        return self._x0(y, out[:, : y.shape[1]] if self.learned_variance else out, level(sigma))

    def moments(self, y: Tensor, sigma: Tensor, cond: Cond | None = None) -> tuple[Tensor, Tensor]:
        """The estimate of x0 and the learned fraction, both [B, C, h, w].

        The network's second half `v` gives the fraction `(v + 1) / 2` of log beta in the log-interpolation
        with log beta-tilde. Nothing holds it inside [0, 1] but the training. Source: arXiv:2102.09672 eq. 15.

        Raises:
            RefusalError: if the network has no such half, or a sigma lies outside the table.
        """
        if not self.learned_variance:
            raise RefusalError(
                "a learned variance was asked for, but this network was trained with a fixed one; "
                "use variance 'small' or 'large'"
            )
        out = self._net(y, sigma, cond)  # [B, 2C, h, w]
        prediction, fraction = out.split(y.shape[1], dim=1)  # [B, C, h, w] each
        return self._x0(y, prediction, level(sigma)), (fraction + 1) / 2

    def _net(self, y: Tensor, sigma: Tensor, cond: Cond | None) -> Tensor:
        sigma = level(sigma)
        return self.net(to_unit(y, sigma), clock(self.levels, sigma, y), told(cond, sigma, y))

    def _x0(self, y: Tensor, prediction: Tensor, sigma: Tensor) -> Tensor:
        raise NotImplementedError


class EpsDenoiser(_TableDenoiser):
    """`x0 = y - sigma eps`, the network predicting the noise. Source: arXiv:2006.11239 eq. 15.

    Args:
        net: the network, `(x_t, t, cond) -> eps`.
        table: [T] ascending float64 sigmas on the CPU; it may not reach zero signal (`zero_terminal`).
        learned_variance: the network returns 2C channels, the second half for `moments`.
    """

    def _x0(self, y: Tensor, prediction: Tensor, sigma: Tensor) -> Tensor:
        if float(self.table[-1]) >= ZERO_SNR_SIGMA / 2:
            raise RefusalError(
                "the noise schedule ends without signal, where predicted noise says nothing about x0; "
                "predict v or x0 on this schedule, or leave its zero-terminal rescaling out"
            )
        return y - column(sigma, y) * prediction


class VDenoiser(_TableDenoiser):
    """`x0 = (x_t - sigma v) / sqrt(1 + sigma^2)`, the network predicting the velocity v.

    `v = sqrt(abar) n - sqrt(1 - abar) x0`. Source: Salimans & Ho 2022, arXiv:2202.00512 appendix D.

    Args:
        net: the network, `(x_t, t, cond) -> v`.
        table: [T] ascending float64 sigmas on the CPU.
        learned_variance: the network returns 2C channels, the second half for `moments`.
    """

    def _x0(self, y: Tensor, prediction: Tensor, sigma: Tensor) -> Tensor:
        abar = 1 / (1 + sigma.square())
        return y * column(abar, y) - column(sigma * abar.sqrt(), y) * prediction


class X0Denoiser(_TableDenoiser):
    """The network's own prediction of x0.

    Args:
        net: the network, `(x_t, t, cond) -> x0`.
        table: [T] ascending float64 sigmas on the CPU.
        learned_variance: the network returns 2C channels, the second half for `moments`.
    """

    def _x0(self, y: Tensor, prediction: Tensor, sigma: Tensor) -> Tensor:
        return prediction


class KarrasDenoiser(nn.Module):
    """`x0 = c_skip y + c_out net(c_in y, c_noise)`, with inputs and targets of unit variance.

    Source: arXiv:2206.00364 table 1, eq. 7.

    Args:
        net: the network, `(c_in y, c_noise [B], cond) -> F`.
        std: standard deviation of the data in the codec's space.
        low: lowest level the samplers may walk to, above 0.
        high: highest level.
    """

    def __init__(self, net: Net, *, std: float, low: float, high: float) -> None:
        super().__init__()
        self.net = net
        self.std = std
        self.low = low
        self.high = high

    @property
    def levels(self) -> Levels:
        """Every level from `low` to `high`; training may stray outside, samplers do not."""
        return Levels(low=self.low, high=self.high)

    @property
    def reads(self) -> frozenset[str] | None:
        """The fields of `Cond` its network reads; None where the network does not say."""
        return reads(self.net)

    def forward(self, y: Tensor, sigma: Tensor, cond: Cond | None = None) -> Tensor:
        """The estimate of x0, [B, C, h, w]; `sigma` [B] or [], above 0."""
        sigma = level(sigma)
        total = sigma.square() + self.std**2
        c_skip = self.std**2 / total
        c_out = sigma * self.std / total.sqrt()
        c_in = total.rsqrt()
        c_noise = clock(self.levels, sigma, y)
        out = self.net(y * column(c_in, y), c_noise, told(cond, sigma, y))
        return y * column(c_skip, y) + column(c_out, y) * out
