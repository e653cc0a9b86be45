"""What is minimised: a weight on the error of `x0`, and the law of the noise levels it is averaged over.

Every usual target is a weight on the squared error of `x0` in noise-level coordinates `y = x0 + sigma n`:
with `snr = 1 / sigma^2`, `eps = (y - x0) / sigma` and `v = (eps - sigma x0) / sqrt(1 + sigma^2)`,

    |eps - eps'|^2 = |x0 - x0'|^2 / sigma^2          |v - v'|^2 = |x0 - x0'|^2 (1 + sigma^2) / sigma^2

so the family of a network and the loss it is trained with are chosen apart. The bound (`variational.py`) and the
cross-entropy of a classifier (`classification.py`) are objectives of the same shape, `Minimised`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from anodiff.diffusion.levels import column, level
from anodiff.errors import RefusalError
from anodiff.noise import gaussian

if TYPE_CHECKING:
    from anodiff.cond import Cond
    from anodiff.noise import NoiseDraw
    from anodiff.train.plan import Plan

Weight = Callable[[Tensor], Tensor]
"""sigma [B] -> weight [B] of the squared error of `x0`."""

Times = Callable[[Tensor], Tensor]
"""u [B], uniform in [0, 1), float64 -> sigma [B] by the inverse distribution function of the levels' law."""


class Goal(Protocol):
    """What a run is after, a frozen dataclass: its fields are what a resumed run is held to.

    `check(model, plan, labels)`, where it has one, is asked before a run and raises what makes no sense. `course`,
    where it has one, names how it is reached (`fit.COURSES`); without, it is the descent of a `Minimised`.
    """


class Noisy(Goal, Protocol):
    """A goal whose model sees noisy rows; an autoencoder (`autoencoding.py`) sees clean ones."""

    @property
    def times(self) -> Times:
        """The law of the noise levels."""
        ...

    @property
    def draw(self) -> NoiseDraw:
        """The law of the unit noise."""
        ...


class Minimised(Noisy, Protocol):
    """A goal that is a loss of one model; a game of two (`adversarial.py`) has none."""

    def loss(
        self, model: Callable, z: Tensor, sigma: Tensor, n: Tensor, cond: Cond | None = None, /
    ) -> Tensor:
        """The loss of each row, [B], of `model` at `z + sigma n`."""
        ...


def learns_variance(denoiser: object) -> bool:
    """Whether a denoiser has a variance of its own that training must teach."""
    return bool(getattr(denoiser, "learned_variance", False))


@dataclass(frozen=True)
class X0Weight:
    """The loss on `x0` itself: 1."""

    def __call__(self, sigma: Tensor) -> Tensor:
        """Ones [B]."""
        return torch.ones_like(sigma)


@dataclass(frozen=True)
class EpsWeight:
    """The simple loss of DDPM (arXiv:2006.11239, eq. 14): 1 / sigma^2."""

    def __call__(self, sigma: Tensor) -> Tensor:
        """The signal-to-noise ratio [B]."""
        return sigma**-2


@dataclass(frozen=True)
class VWeight:
    """The loss on the velocity (arXiv:2202.00512, appendix D): (1 + sigma^2) / sigma^2, "SNR + 1"."""

    def __call__(self, sigma: Tensor) -> Tensor:
        """1 + the signal-to-noise ratio [B]; stays finite where sigma does not."""
        return 1 + sigma**-2


@dataclass(frozen=True)
class KarrasWeight:
    """EDM's weight (arXiv:2206.00364, table 1): (sigma^2 + std^2) / (sigma std)^2, with `std` of the data."""

    std: float = 0.5

    def __call__(self, sigma: Tensor) -> Tensor:
        """1 / std^2 + the signal-to-noise ratio [B]: the same fraction, reduced."""
        return self.std**-2 + sigma**-2


@dataclass(frozen=True)
class MinSNR:
    """Min-SNR (arXiv:2303.09556): min(1 / sigma^2, cap).

    In the target's own error the weight differs: min(snr, cap) for x0, min(snr, cap) / snr for eps,
    min(snr, cap) / (snr + 1) for v. Seen from `x0` the three are this one.
    """

    cap: float = 5.0

    def __call__(self, sigma: Tensor) -> Tensor:
        """The capped signal-to-noise ratio [B]."""
        return (sigma**-2).clamp(max=self.cap)


@dataclass(frozen=True, eq=False)
class UniformTable:
    """Every trained level alike: `t` uniform over the rows of `table` [T] (arXiv:2006.11239, algorithm 1)."""

    table: Tensor

    def __call__(self, u: Tensor) -> Tensor:
        """sigma [B], each an entry of the table."""
        return self.table[(u * len(self.table)).long().clamp(0, len(self.table) - 1)]


@dataclass(frozen=True)
class LogNormal:
    """log sigma ~ N(mean, std^2), cut off at `low` and `high` (EDM, arXiv:2206.00364, table 1, which does not cut)."""

    mean: float = -1.2
    std: float = 1.2
    low: float = 0.002
    high: float = 80.0

    def __call__(self, u: Tensor) -> Tensor:
        """sigma [B] in [low, high]."""
        edges = (torch.tensor([self.low, self.high], dtype=u.dtype).log() - self.mean) / self.std
        bottom, top = torch.special.ndtr(edges)
        normal = torch.special.ndtri(bottom + u * (top - bottom))
        # Clamped, for the tail's quantiles round: ndtr(edge) may be 0 or 1.
        return torch.exp(self.mean + self.std * normal).clamp(self.low, self.high)


@dataclass(frozen=True)
class LogUniform:
    """log sigma uniform between log `low` and log `high`."""

    low: float
    high: float

    def __call__(self, u: Tensor) -> Tensor:
        """sigma [B] in [low, high]."""
        return self.low * (self.high / self.low) ** u


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What one run minimises: E over z, sigma ~ `times`, n ~ `draw` of weight(sigma) |D(z + sigma n, sigma) - z|^2.

    `draw` is the noise of the restorer too (AnoDDPM trains and restores with simplex noise): hand both the
    same.
    """

    weight: Weight
    times: Times
    draw: NoiseDraw = gaussian

    def loss(
        self, denoiser: Callable, z: Tensor, sigma: Tensor, n: Tensor, cond: Cond | None = None
    ) -> Tensor:
        """The weighted error of each row, [B]: weight(sigma) mean over elements of (D(z + sigma n, sigma) - z)^2.

        Args:
            denoiser: `(y, sigma, cond) -> x0`.
            z: clean rows in codec space, [B, c, h, w].
            sigma: noise levels above 0, [B]; float64 on the CPU costs no synchronisation.
            n: unit noise shaped like `z`.
            cond: the batch's conditions.
        """
        return self.error(z, denoiser(z + column(sigma, z) * n, sigma, cond), sigma)

    def error(self, z: Tensor, x0: Tensor, sigma: Tensor) -> Tensor:
        """The weighted error of each row, [B], of a prediction `x0` that is at hand."""
        error = (x0 - z).square().flatten(1).mean(1)  # [B]
        return column(self.weight(level(sigma)), error) * error

    def check(self, denoiser: nn.Module, plan: Plan, labels: Sequence[int] | None) -> None:
        """Nothing, when this loss trains all of `denoiser`.

        Raises:
            RefusalError: it has a learned variance, which no error of x0 teaches.
        """
        if learns_variance(denoiser):
            raise RefusalError(
                f"{type(denoiser).__name__} has a learned variance, but an error of x0 never trains it: it would "
                "stay as it was drawn; take the hybrid or the variational loss, or learned_variance=False"
            )
