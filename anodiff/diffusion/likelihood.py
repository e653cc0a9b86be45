"""The variational bound as maps: how many bits a dimension each noise level costs, at each place.

All terms are in bits a dimension, the mean over channels at each place, [B, 1, h, w]; their sum over
levels, averaged over places, is the bound. The maps are differentiable, for the hybrid loss and for guidance.
The Kullback-Leibler terms do not depend on the coordinates, so they are computed in noise-level ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from anodiff.diffusion.denoiser import Denoiser
from anodiff.diffusion.levels import column, level
from anodiff.diffusion.sampling import Variance, between, estimate, posterior_variance
from anodiff.errors import ConfigError, RefusalError
from anodiff.noise import NoiseSource

_BITS = 1 / math.log(2)


@dataclass(frozen=True, eq=False)
class Bound:
    """The variational bound of a batch, in bits a dimension: `total = prior + transitions.sum(1) + decoder`."""

    total: Tensor  # [B]
    bound_map: Tensor  # [B, 1, h, w], all terms summed
    per_level: Tensor  # [B, S + 1]: prior, then the levels from the highest to the decoder's
    sigmas: Tensor  # [S] descending, the levels of per_level[:, 1:]
    bins: int | None = 256  # None: x0 is continuous, and no decoder's level is among them

    @property
    def prior(self) -> Tensor:
        """`KL(q(y | x0) || p(y))` at the highest level, L_T of the paper, [B]."""
        return self.per_level[:, 0]

    @property
    def transitions(self) -> Tensor:
        """The divergences of the steps between two levels, L_{t-1} of the paper from the highest, [B, S - 1]."""
        return self.per_level[:, 1:] if self.bins is None else self.per_level[:, 1:-1]

    @property
    def decoder(self) -> Tensor:
        """`-log2 p(x0 | y)` at the lowest level, L_0 of the paper, [B]; 0 where x0 is continuous."""
        return torch.zeros_like(self.total) if self.bins is None else self.per_level[:, -1]


def kl_map(
    x0: Tensor, x0_hat: Tensor, sigma: Tensor, sigma_next: Tensor, *, fraction: Tensor | float | None = None
) -> Tensor:
    """KL(q(y_next | y, x0) || p(y_next | y)) of one step, bits a dimension, [B, 1, h, w].

    `1/2 (log(v_p / v_q) + v_q / v_p - 1 + (1 - k)^2 (x0 - x0_hat)^2 / v_p)` with
    `v_q` beta-tilde and `1 - k = 1 - sigma_next^2 / sigma^2`. With the small variance only
    `1/2 (1 / sigma_next^2 - 1 / sigma^2) (x0 - x0_hat)^2` is left.

    Args:
        x0: [B, C, h, w], the truth.
        x0_hat: its estimate at `sigma`.
        sigma: [B] or [].
        sigma_next: [B] or [], above 0 and below sigma (the step to 0 is `decoder_map`'s).
        fraction: of the model's variance between beta-tilde (0) and beta (1); None = beta-tilde.

    Source: arXiv:2006.11239 eq. 5; the reduced form arXiv:2107.00630 eq. 13.
    """
    sigma, sigma_next = level(sigma), level(sigma_next)
    square, square_next = sigma.square(), sigma_next.square()
    small, _ = posterior_variance(sigma, sigma_next)
    shift = (1 - sigma_next.square() / sigma.square()).square()
    if fraction is None:
        nats = column(shift / small, x0) * (x0 - x0_hat).square() / 2
    else:
        # log(beta / beta-tilde), by log1p: at high levels the two nearly agree
        log_whole = ((square - square_next) / (square_next * (1 + square))).log1p()
        log_ratio = fraction * _wide(log_whole, x0)  # log(v_p / v_q)
        nats = (
            log_ratio
            + torch.expm1(-log_ratio)
            + _wide(shift / small, x0) * (-log_ratio).exp() * (x0 - x0_hat).square()
        ) / 2
    return nats.mean(1, keepdim=True) * _BITS  # [B, 1, h, w]


def decoder_map(
    x0: Tensor,
    x0_hat: Tensor,
    sigma: Tensor,
    sigma_above: Tensor,
    *,
    fraction: Tensor | float | None = None,
    bins: int = 256,
) -> Tensor:
    """-log2 p(x0 | y) of the discretised Gaussian at the lowest level, bits a dimension, [B, 1, h, w].

    The probability of the truth's bin of width `2 / (bins - 1)` under N(x0_hat, v); the outermost bins
    reach to infinity. Beta-tilde of this last step is 0, so the small variance is borrowed from the step
    above it, in units of x at the lowest level; so is the large one when it is fixed (`fraction` = 1 as a
    number). A learned fraction runs from the borrowed beta-tilde to this step's own beta.

    Args:
        x0: [B, C, h, w] in [-1, 1], on the grid of `bins` values.
        x0_hat: its estimate at `sigma`.
        sigma: [B] or [], the lowest level.
        sigma_above: [B] or [], the level above it.
        fraction: as for `kl_map`.
        bins: number of values a channel can take.

    Source: arXiv:2006.11239 eq. 13; the borrowed entry arXiv:2102.09672 section 3.1.
    """
    sigma, sigma_above = level(sigma), level(sigma_above)
    borrowed = posterior_variance(sigma_above, sigma)[0] / (1 + sigma.square())
    own = sigma.square() / (1 + sigma.square())  # beta of the step to 0
    if isinstance(fraction, Tensor):
        log_std = between(_wide(borrowed, x0), _wide(own, x0), fraction).log() / 2
    else:
        log_std = _wide(borrowed, x0).log() / 2
    half = 1 / (bins - 1)
    centred, inverse = x0 - x0_hat, (-log_std).exp()
    upper, lower = (centred + half) * inverse, (centred - half) * inverse
    # log of the difference of two tails, both taken on the side where they are small, so that nothing cancels
    flip = centred > 0
    high, low = torch.where(flip, -lower, upper), torch.where(flip, -upper, lower)
    log_high, log_low = torch.special.log_ndtr(high), torch.special.log_ndtr(low)
    middle = log_high + torch.log(-torch.expm1((log_low - log_high).clamp(max=-1e-12)))
    # Half a bin of slack: a value that was rounded in float32 still counts as the outermost one.
    nats = torch.where(
        x0 < -1 + half,
        torch.special.log_ndtr(upper),
        torch.where(x0 > 1 - half, torch.special.log_ndtr(-lower), middle),
    )
    return -nats.mean(1, keepdim=True) * _BITS  # [B, 1, h, w]


def table_map(
    x0: Tensor,
    x0_hat: Tensor,
    table: Tensor,
    index: Tensor,
    *,
    fraction: Tensor | float | None = None,
    bins: int = 256,
) -> Tensor:
    """Each row's own term of the bound over a whole table, bits a dimension, [B, 1, h, w].

    `decoder_map` for the rows at the lowest entry, `kl_map` down to the entry below for the others. With the
    index uniform, T times its mean plus `prior_map` is an unbiased estimate of the bound.

    Args:
        x0: [B, C, h, w] in [-1, 1].
        x0_hat: its estimate at `table[index]`.
        table: [T] ascending sigmas, T >= 2.
        index: [B] int64, the entry of each row.
        fraction: as for `kl_map`.
        bins: as for `decoder_map`.
    """
    table, index = level(table), index.cpu()
    # Rows at the lowest entry compute a harmless step from entry 1, so that no infinity reaches their
    # gradient.
    above = index.clamp(min=1)
    kl = kl_map(x0, x0_hat, table[above], table[above - 1], fraction=fraction)
    if not bool((index == 0).any()):
        return kl
    decoder = decoder_map(x0, x0_hat, table[0], table[1], fraction=fraction, bins=bins)
    return torch.where(column((index == 0).double(), x0) > 0, decoder, kl)


def prior_map(x0: Tensor, sigma: Tensor) -> Tensor:
    """KL(q(y | x0) || p(y)) at the highest level, bits a dimension, [B, 1, h, w].

    The prior is N(0, 1 + sigma^2), unit noise in variance-preserving coordinates:
    `1/2 (log((1 + sigma^2) / sigma^2) - 1 / (1 + sigma^2) + x0^2 / (1 + sigma^2))`. Source:
    arXiv:2006.11239 eq. 5.
    """
    square = level(sigma).square()
    abar = 1 / (1 + square)
    nats = (column(abar, x0) * x0.square() + column((1 / square).log1p() - abar, x0)) / 2
    return nats.mean(1, keepdim=True) * _BITS  # [B, 1, h, w]


def terms(
    denoiser: Denoiser,
    x0: Tensor,
    sigmas: Tensor,
    *,
    noise: NoiseSource,
    variance: Variance = "small",
    bins: int | None = 256,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Each level of a grid with its term, (sigma [], map [B, 1, h, w]), from the highest to the lowest.

    Each level costs one evaluation at fresh noise, an unbiased estimate of its term. The last level's term
    is the decoder's. Add `prior_map` for the whole bound. Gradients are off.

    Args:
        denoiser: the model with its wrappers.
        x0: [B, C, h, w].
        sigmas: [S + 1] descending to exactly 0, S >= 2.
        noise: source of unit noise, called once a level.
        variance: the reverse variance of the model.
        bins: number of values a channel of x0 can take; None = x0 is continuous (features) and the last
            level has no term.

    Raises:
        ConfigError: if the grid is too short or does not end in 0, or the variance has an unknown name.
        RefusalError: if the denoiser draws x0, or has no learned variance though it was asked for.
    """
    grid = level(sigmas)
    if len(grid) < 3 or grid[-1] != 0:
        raise ConfigError(
            f"the bound needs a grid of at least two levels and a final 0, got {grid.tolist()[:8]}"
        )
    if denoiser.levels.draws:
        raise RefusalError("the variational bound needs the mean of x0, but this denoiser draws x0 at random")
    levels = grid.unbind()
    for i, (sigma, sigma_next) in enumerate(pairwise(levels)):
        last = i == len(levels) - 2
        if last and bins is None:
            return
        with torch.no_grad():
            y = x0 + sigma * noise(x0)
            x0_hat, fraction = estimate(denoiser, y, sigma, variance=variance)
            if last:
                term = decoder_map(x0, x0_hat, sigma, levels[i - 1], fraction=fraction, bins=bins or 256)
            else:
                term = kl_map(x0, x0_hat, sigma, sigma_next, fraction=fraction)
        yield sigma, term


def bound(
    denoiser: Denoiser,
    x0: Tensor,
    sigmas: Tensor,
    *,
    noise: NoiseSource,
    variance: Variance = "small",
    bins: int | None = 256,
) -> Bound:
    """The whole variational bound on -log2 p(x0), bits a dimension; arguments and errors as for `terms`."""
    total_map = prior_map(x0, sigmas[0])
    means, levels = [total_map.mean((1, 2, 3))], []
    for sigma, term in terms(denoiser, x0, sigmas, noise=noise, variance=variance, bins=bins):
        total_map = total_map + term
        means.append(term.mean((1, 2, 3)))
        levels.append(sigma)
    return Bound(
        total=total_map.mean((1, 2, 3)),
        bound_map=total_map,
        per_level=torch.stack(means, dim=1),
        sigmas=torch.stack(levels),
        bins=bins,
    )


def _wide(value: Tensor, like: Tensor) -> Tensor:
    """`column` as a tensor that takes part in type promotion, on like's device."""
    return column(value, like).to(like.device, like.dtype)
