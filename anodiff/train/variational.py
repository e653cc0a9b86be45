"""The bound as a loss: the variational objective, and the hybrid that trains a learned variance beside a simple loss.

Units. `L_vlb = L_0 + ... + L_{T-1}` is the whole bound in bits a dimension, without its prior term, which has
no weights. One row sees one level, so its unbiased estimate is `T L_t` with t uniform: that is what
`Variational` returns. The hybrid adds `lambda L_vlb` with lambda = .001, which a row sees as `T / 1000 L_t`:
the factor "T / 1000" of published code stands on the row's own term, the factor .001 of the paper on the
whole bound, and they are the same number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from anodiff.diffusion.denoiser import moments
from anodiff.diffusion.levels import Levels, column, level
from anodiff.diffusion.likelihood import kl_map, table_map
from anodiff.diffusion.sampling import Variance
from anodiff.errors import ConfigError, RefusalError
from anodiff.noise import gaussian
from anodiff.train.objective import Objective, Times, learns_variance

if TYPE_CHECKING:
    from anodiff.cond import Cond
    from anodiff.noise import NoiseDraw
    from anodiff.train.plan import Plan


@dataclass(frozen=True, kw_only=True, eq=False)
class Variational:
    """The bound itself: E over t of `T L_t`, bits a dimension (arXiv:2006.11239 eq. 5, arXiv:2102.09672 eq. 4).

    It bounds the likelihood where `draw` is Gaussian; other noise is trained by the same formula.
    """

    table: Tensor  # [T] ascending float64, the denoiser's own
    times: Times  # over the entries of the same table: UniformTable or LossSecondMoment
    draw: NoiseDraw = gaussian
    variance: Variance = "small"  # of the reverse step; "learned" trains the denoiser's fraction
    bins: int | None = 256  # values a channel can take; None = continuous rows, no term at the lowest level

    def loss(
        self, denoiser: Callable, z: Tensor, sigma: Tensor, n: Tensor, cond: Cond | None = None
    ) -> Tensor:
        """T times each row's own term of the bound, [B], bits a dimension.

        Args:
            denoiser: `(y, sigma, cond) -> x0`, with `moments` where the variance is learned.
            z: clean rows in codec space, [B, c, h, w]; in [-1, 1] unless `bins` is None.
            sigma: entries of the table, [B].
            n: unit noise shaped like `z`.
            cond: the batch's conditions.

        Raises:
            ConfigError: a sigma is no entry of the table.
            RefusalError: the variance is to be learned and the denoiser has none.
        """
        x0, fraction = self.predict(denoiser, z, sigma, n, cond)
        return self.term(z, x0, sigma, fraction)

    def predict(
        self, denoiser: Callable, z: Tensor, sigma: Tensor, n: Tensor, cond: Cond | None
    ) -> tuple[Tensor, Tensor | float | None]:
        """x0 and the fraction of the variance, as `table_map` wants it, from one evaluation."""
        y = z + column(sigma, z) * n
        if self.variance == "learned":
            return moments(denoiser, y, sigma, cond)  # type: ignore[arg-type]
        return denoiser(y, sigma, cond), 1.0 if self.variance == "large" else None

    def term(self, z: Tensor, x0: Tensor, sigma: Tensor, fraction: Tensor | float | None) -> Tensor:
        """T times each row's own term, [B], of a prediction that is at hand; arguments as in `loss`."""
        index = self._index(sigma)
        if self.bins is None:
            above = index.clamp(min=1)  # the lowest level's rows compute a harmless step, and drop it
            term_map = kl_map(z, x0, self.table[above], self.table[above - 1], fraction=fraction)
            term_map = torch.where(column((index == 0).double(), z) > 0, 0.0, term_map)
        else:
            term_map = table_map(z, x0, self.table, index, fraction=fraction, bins=self.bins)
        return len(self.table) * term_map.flatten(1).mean(1)  # [B]

    def check(self, denoiser: nn.Module, plan: Plan, labels: Sequence[int] | None) -> None:
        """Nothing, when this loss has a meaning for `denoiser` and trains all of it.

        Raises:
            ConfigError: the tables of loss, law of levels and denoiser differ.
            RefusalError: the denoiser has no table, draws x0, or its variance is not the one asked for.
        """
        name = type(denoiser).__name__
        levels: Levels | None = getattr(denoiser, "levels", None)
        if levels is None or levels.table is None:
            raise RefusalError(
                f"the bound is a sum over the levels of a table, but {name} has none: its levels are continuous; "
                "train it with the simple loss, or a denoiser that predicts eps, v or x0 on a schedule"
            )
        if levels.draws:
            raise RefusalError(f"the bound needs the mean of x0, but {name} draws x0 at random")
        self._agrees(levels.table, f"that {name} was made for")
        law = getattr(self.times, "table", None)
        if law is None:
            raise ConfigError(
                f"the bound is a mean over the entries of its table, but the levels are drawn by {self.times!r}; "
                "draw them by UniformTable or LossSecondMoment on the same table"
            )
        self._agrees(law, "that the levels are drawn from")
        if self.variance == "learned" and not learns_variance(denoiser):
            raise RefusalError(
                f"a learned variance was asked of the loss, but {name} has none; make it with "
                "learned_variance=True and twice the output channels, or take variance 'small' or 'large'"
            )
        if self.variance != "learned" and learns_variance(denoiser):
            raise RefusalError(
                f"{name} has a learned variance, which a bound with the fixed variance {self.variance!r} never "
                "trains; take variance 'learned', or make it with learned_variance=False"
            )

    def _agrees(self, table: Tensor, whose: str) -> None:
        if table.shape != self.table.shape or not torch.allclose(table, self.table, rtol=1e-6, atol=0):
            raise ConfigError(
                f"the bound is over a table of {_span(self.table)}, the one {whose} has {_span(table)}; "
                "hand all of them the same table"
            )

    def _index(self, sigma: Tensor) -> Tensor:
        """The entry of each sigma, int64 [B]."""
        sigma = level(sigma)
        index = Levels(low=float(self.table[0]), high=float(self.table[-1]), table=self.table).index(sigma)
        if not torch.allclose(self.table[index], sigma, rtol=1e-6, atol=0):
            raise ConfigError(
                "a term of the bound belongs to an entry of its table, but noise levels between the entries came; "
                "draw them by UniformTable or LossSecondMoment on the same table"
            )
        return index


@dataclass(frozen=True, kw_only=True, eq=False)
class Hybrid:
    """Improved DDPM's `L_simple + .001 L_vlb` (arXiv:2102.09672 eq. 16), from one evaluation of the network.

    The bound sees x0 as a constant: the simple loss alone trains the mean, the bound alone the variance.
    `scale` stands on the whole bound, `T L_t` a row; see the head of this file for the factor T / 1000.
    """

    simple: Objective
    bound: Variational  # variance "learned", and the levels and noise of `simple`
    scale: float = 1e-3  # lambda

    @property
    def times(self) -> Times:
        """The law of the noise levels, the same for both parts."""
        return self.simple.times

    @property
    def draw(self) -> NoiseDraw:
        """The noise, the same for both parts."""
        return self.simple.draw

    def loss(
        self, denoiser: Callable, z: Tensor, sigma: Tensor, n: Tensor, cond: Cond | None = None
    ) -> Tensor:
        """Each row's simple loss plus `scale` times its bound with the mean held still, [B]; as `Variational.loss`."""
        x0, fraction = self.bound.predict(denoiser, z, sigma, n, cond)
        # Detached: through the mean the bound's gradient is noisier than the simple loss's and would drown it.
        bound = self.bound.term(z, x0.detach(), sigma, fraction)
        return self.simple.error(z, x0, sigma) + self.scale * bound

    def check(self, denoiser: nn.Module, plan: Plan, labels: Sequence[int] | None) -> None:
        """Nothing, when this loss has a meaning for `denoiser` and trains all of it.

        Raises:
            ConfigError: the two parts differ in levels or noise, the variance is fixed, or as `Variational.check`.
            RefusalError: as `Variational.check`.
        """
        if self.bound.variance != "learned":
            raise ConfigError(
                f"with the fixed variance {self.bound.variance!r} the hybrid loss trains no more than its simple "
                "part, for the bound's gradient through the mean is stopped; take the simple loss, or a bound "
                "with variance 'learned'"
            )
        if self.bound.times is not self.simple.times or self.bound.draw is not self.simple.draw:
            raise ConfigError(
                "the two parts of the hybrid loss see the same noisy rows; hand both the same times and draw"
            )
        self.bound.check(denoiser, plan, labels)


def _span(table: Tensor) -> str:
    return f"{len(table)} levels from {float(table[0]):.6g} to {float(table[-1]):.6g}"
