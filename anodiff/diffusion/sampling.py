"""Samplers: walks down a grid of noise levels, all built on one step.

A grid is [steps + 1] descending, its last entry exactly 0 (`spaced`). Samplers run without gradients but
never in inference mode, so that guidance inside a denoiser may still differentiate. `y` is kept in its own
dtype; float16 is too narrow for it (levels reach 1e4 and more), so leave `y` in float32 and let the
network choose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor

from anodiff.cond import Cond
from anodiff.diffusion.denoiser import Denoiser, moments
from anodiff.diffusion.levels import column, level
from anodiff.errors import ConfigError, RefusalError
from anodiff.noise import NoiseSource

Watch = Callable[[float, Tensor, Tensor], None]
"""(sigma, y at sigma, x0 estimated there), called once an evaluation, before the step."""

Variance = Literal["small", "large", "learned"]
"""beta-tilde, beta, or log-interpolated between the two by the network (arXiv:2102.09672)."""


def posterior_variance(sigma: Tensor | float, sigma_next: Tensor | float) -> tuple[Tensor, Tensor]:
    """Beta-tilde and beta of one step down, float64, in noise-level coordinates.

    Those are the variances of x divided by abar of `sigma_next`.

    small: `sigma_next^2 (1 - k)` with `k = sigma_next^2 / sigma^2`, the variance of q(y_next | y, x0);
    large: `(sigma^2 - sigma_next^2) (1 + sigma_next^2) / (1 + sigma^2)`, that of q(y | y_next) in the same
        units.

    Source: arXiv:2006.11239 eq. 7 and section 3.2.
    """
    square, square_next = level(sigma).square(), level(sigma_next).square()
    small = square_next * (1 - square_next / square).clamp(min=0)
    large = (square - square_next).clamp(min=0) * (1 + square_next) / (1 + square)
    return small, large


def between(small: Tensor, large: Tensor, fraction: Tensor | float) -> Tensor:
    """The variance `fraction` of the way from `small` to `large` in logarithms (arXiv:2102.09672 eq. 15)."""
    # The floor keeps 0^0 out of the last step; it is the value the step's log would be cut at anyway.
    return (fraction * large.log() + (1 - fraction) * small.clamp(min=1e-20).log()).exp()


def deviation(
    sigma: Tensor | float, sigma_next: Tensor | float, like: Tensor, *, fraction: Tensor | float | None = None
) -> Tensor:
    """The deviation of the noise that the whole stochastic step (eta = 1) adds; it multiplies `like` [B, ...].

    The root of beta-tilde, or of the variance `between` beta-tilde (0) and beta (1) at `fraction`. The last
    step, to 0, adds none whatever the variance.

    Args:
        sigma: [B] or [], above 0.
        sigma_next: [B] or [], at least 0.
        like: [B, C, h, w], what it will multiply.
        fraction: [B, C, h, w] or a number; None = beta-tilde.
    """
    small, large = posterior_variance(sigma, sigma_next)
    if fraction is None:
        return column(small.sqrt(), like)
    wide = torch.float64 if like.dtype == torch.float64 else torch.float32
    small, large = (column(v, like).to(like.device, wide) for v in (small, large))
    return (between(small, large, fraction).sqrt() * column((level(sigma_next) > 0).double(), like)).to(
        like.dtype
    )


def step(
    y: Tensor,
    x0: Tensor,
    sigma: Tensor | float,
    sigma_next: Tensor | float,
    *,
    eta: float = 0.0,
    noise: Tensor | None = None,
    fraction: Tensor | float | None = None,
) -> Tensor:
    """The noisy `y` at `sigma_next`, from `y` at `sigma` and the estimate `x0`, [B, C, h, w].

    `y' = x0 + (down / sigma) (y - x0) + up noise` with `k = sigma_next^2 / sigma^2`,
    `up = eta sigma_next sqrt(1 - k)` and `down = sqrt(sigma_next^2 - up^2)`.

    eta = 0 is DDIM, eta = 1 the DDPM posterior. Upwards (`sigma_next > sigma`) `up` is 0 and the line is
    DDIM's inversion.

    Args:
        y: [B, C, h, w] at `sigma`.
        x0: its clean estimate.
        sigma: [B] or [], above 0.
        sigma_next: [B] or [], at least 0.
        eta: stochasticity in [0, 1].
        noise: unit noise of y's shape; needed when `eta` > 0 unless `sigma_next` is 0.
        fraction: replaces the noise's deviation by eta times the one `between` beta-tilde (0) and beta
            (1), the mean staying as it is; [B, C, h, w] or a number. The last step, to 0, adds no noise
            whatever the variance.

    Raises:
        ConfigError: if eta is out of range, or noise is needed and missing.

    Source: DDIM, arXiv:2010.02502 eq. 12 and 16, divided by sqrt(abar).
    """
    if not 0 <= eta <= 1:
        raise ConfigError(f"eta must lie in [0, 1] (0 DDIM, 1 DDPM), got {eta}")
    sigma, sigma_next = level(sigma), level(sigma_next)
    small, _ = posterior_variance(sigma, sigma_next)
    # Rounding may push up^2 above sigma_next^2 by one digit where sigma_next is tiny.
    down = (sigma_next.square() - eta**2 * small).clamp(min=0).sqrt()
    y_next = x0 + column(down / sigma, y) * (y - x0)
    if eta == 0 or not bool((sigma_next > 0).any()):
        return y_next
    if noise is None:
        raise ConfigError(f"eta={eta} adds noise at every step: give unit noise of y's shape, or use eta=0")
    return y_next + eta * deviation(sigma, sigma_next, y, fraction=fraction) * noise


def estimate(
    denoiser: Denoiser, y: Tensor, sigma: Tensor, *, variance: Variance, cond: Cond | None = None
) -> tuple[Tensor, Tensor | float | None]:
    """The estimate of x0 [B, C, h, w] and the `fraction` that `step` and the bound take for `variance`.

    Raises:
        ConfigError: if the variance has an unknown name.
        RefusalError: if a learned variance is asked of a denoiser that has none.
    """
    match variance:
        case "learned":
            return moments(denoiser, y, sigma, cond)
        case "small":
            return denoiser(y, sigma, cond), None
        case "large":
            return denoiser(y, sigma, cond), 1.0
        case _:
            raise ConfigError(f"unknown variance {variance!r}: expected 'small', 'large' or 'learned'")


@torch.no_grad()
def ddim(
    denoiser: Denoiser,
    y: Tensor,
    sigmas: Tensor,
    *,
    eta: float = 0.0,
    noise: NoiseSource = torch.randn_like,
    variance: Variance = "small",
    watch: Watch | None = None,
) -> Tensor:
    """The sample at the grid's last level, [B, C, h, w]: DDIM at eta = 0, DDPM's sampler at eta = 1.

    A denoiser that draws is welcome at any eta: with x0 a draw from its posterior, every eta leaves the
    law of the next level right, which is what DDGAN does at eta = 1.

    Args:
        denoiser: the model with its wrappers.
        y: [B, C, h, w] at `sigmas[0]`: `sigmas[0] n` for a sample, `z + sigmas[0] n` for a restoration.
        sigmas: [steps + 1] descending.
        eta: stochasticity in [0, 1].
        noise: source of the steps' noise, called once a step that adds noise.
        variance: of that noise; "learned" needs a denoiser with `moments`.
        watch: called with (sigma, y, x0) at each evaluation.

    Raises:
        ConfigError: if the grid does not descend.
        RefusalError: if a learned variance is asked of a denoiser that has none.

    Source: arXiv:2010.02502 eq. 12; arXiv:2006.11239 algorithm 2.
    """
    for sigma, sigma_next in hops(sigmas):
        x0, fraction = estimate(denoiser, y, sigma, variance=variance)
        if watch is not None:
            watch(float(sigma), y, x0)
        unit = noise(y) if eta > 0 and sigma_next > 0 else None
        y = step(y, x0, sigma, sigma_next, eta=eta, noise=unit, fraction=fraction)
    return y


def mend(y: Tensor, x0: Tensor, ahead: Tensor, x0_ahead: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """The end of Heun's step, up or down, once its first guess is known, [B, C, h, w].

    `y' = y + (sigma_next - sigma) (d + d') / 2`, `d = (y - x0) / sigma` at both ends.

    Args:
        y: [B, C, h, w] at `sigma`.
        x0: its clean estimate.
        ahead: the guess at `sigma_next`, from `step`.
        x0_ahead: its clean estimate.
        sigma: [], above 0.
        sigma_next: [], above 0.

    Source: arXiv:2206.00364 algorithm 1 (Karras).
    """
    half = (sigma_next - sigma) / 2
    return y + half / sigma * (y - x0) + half / sigma_next * (ahead - x0_ahead)


@torch.no_grad()
def heun(denoiser: Denoiser, y: Tensor, sigmas: Tensor, *, watch: Watch | None = None) -> Tensor:
    """The sample at the grid's last level by Heun's rule: second order, two evaluations a step.

    The far end is reached by `step` and `mend`ed; the step to 0 is a plain `step` with one evaluation.

    Raises:
        ConfigError: if the grid does not descend.
        RefusalError: if the denoiser draws x0 instead of its mean.

    Source: arXiv:2206.00364 algorithm 1 (Karras).
    """
    needs_mean(denoiser, "heun")
    for sigma, sigma_next in hops(sigmas):
        x0 = denoiser(y, sigma)
        if watch is not None:
            watch(float(sigma), y, x0)
        ahead = step(y, x0, sigma, sigma_next)
        if sigma_next > 0:
            x0_ahead = denoiser(ahead, sigma_next)
            if watch is not None:
                watch(float(sigma_next), ahead, x0_ahead)
            ahead = mend(y, x0, ahead, x0_ahead, sigma, sigma_next)
        y = ahead
    return y


@torch.no_grad()
def dpmpp_2m(denoiser: Denoiser, y: Tensor, sigmas: Tensor, *, watch: Watch | None = None) -> Tensor:
    """The sample at the grid's last level by DPM-Solver++(2M), second order, one evaluation a step.

    `step` with x0 extrapolated along `lambda = -log sigma`: `D = x0 + (h / 2 h_before) (x0 - x0_before)`;
    the first step and the step to 0 (where `lambda` is infinite) use x0 itself.

    Raises:
        ConfigError: if the grid does not descend.
        RefusalError: if the denoiser draws x0 instead of its mean.

    Source: Lu 2022, arXiv:2211.01095 algorithm 2; in noise-level coordinates alpha is 1.
    """
    needs_mean(denoiser, "dpmpp_2m")
    before: tuple[Tensor, Tensor] | None = None  # x0 and the step's length in lambda
    for sigma, sigma_next in hops(sigmas):
        x0 = denoiser(y, sigma)
        if watch is not None:
            watch(float(sigma), y, x0)
        ahead = x0
        length = (sigma / sigma_next).log()
        if before is not None and sigma_next > 0:
            ahead = x0 + length / (2 * before[1]) * (x0 - before[0])
        y = step(y, ahead, sigma, sigma_next)
        before = x0, length
    return y


@torch.no_grad()
def invert(denoiser: Denoiser, y: Tensor, sigmas: Tensor, *, watch: Watch | None = None) -> Tensor:
    """The noise-level input at `sigmas[0]` that DDIM would lead back to `y`, [B, C, h, w].

    Walks the same descending grid from its end to its start. A clean `y` (last level 0) is taken for one
    at the denoiser's lowest level, since no direction is defined at 0. With classifier-free guidance above
    1 the walk back does not return.

    Args:
        denoiser: the model with its wrappers.
        y: [B, C, h, w] at `sigmas[-1]`.
        sigmas: [steps + 1] descending, the grid `ddim` will use.
        watch: called with (sigma, y, x0) at each evaluation.

    Raises:
        ConfigError: if the grid does not descend.
        RefusalError: if the denoiser draws x0 instead of its mean.

    Source: arXiv:2010.02502 section 4.3.
    """
    needs_mean(denoiser, "invert")
    lowest = torch.tensor(denoiser.levels.low, dtype=torch.float64)
    for sigma_next, sigma in reversed(list(hops(sigmas))):
        here = torch.maximum(sigma, lowest)
        x0 = denoiser(y, here)
        if watch is not None:
            watch(float(here), y, x0)
        if sigma_next > here:
            y = step(y, x0, here, sigma_next)
    return y


@torch.no_grad()
def repaint(
    denoiser: Denoiser,
    y: Tensor,
    sigmas: Tensor,
    *,
    resamples: int = 10,
    jump: int = 10,
    noise: NoiseSource = torch.randn_like,
    eta: float = 1.0,
) -> Tensor:
    """The sample at the grid's last level, every `jump` steps walked `resamples` times, [B, C, h, w].

    After a stretch from `sigma` down to `sigma_next` the noise is put back,
    `y + sqrt(sigma^2 - sigma_next^2) n`, and the stretch walked again, so that the repaired part comes to
    agree with the known one. Meant for a denoiser wrapped in `Inpaint`.

    Raises:
        ConfigError: if the grid does not descend, or a count is below 1.

    Source: RePaint, Lugmayr 2022, arXiv:2201.09865 algorithm 1 and section 4.2.
    """
    if resamples < 1 or jump < 1:
        raise ConfigError(f"repaint expects resamples >= 1 and jump >= 1, got {resamples} and {jump}")
    for top in range(0, len(sigmas) - 1, jump):
        stretch = sigmas[top : top + jump + 1]
        back = (level(stretch[0]).square() - level(stretch[-1]).square()).sqrt()
        for turn in range(resamples):
            if turn:
                y = y + back * noise(y)
            y = ddim(denoiser, y, stretch, eta=eta, noise=noise)
    return y


@torch.no_grad()
def one_step(denoiser: Denoiser, x0: Tensor, sigma: Tensor | float, *, noise: NoiseSource) -> Tensor:
    """The denoiser's estimate of `x0` after noising it to `sigma`, [B, C, h, w]."""
    sigma = level(sigma)
    return denoiser(x0 + column(sigma, x0) * noise(x0), sigma)


def interpolate(first: Tensor, second: Tensor, weight: float) -> Tensor:
    """The point `weight` of the way along the great circle from `first` to `second`, row by row, [B, ...].

    `sin((1 - w) a) / sin(a) first + sin(w a) / sin(a) second`, `a` the angle between the rows; parallel
    rows are mixed linearly.
    Source: arXiv:2010.02502 appendix D.5.
    """
    flat = [v.double().flatten(1) for v in (first, second)]
    cosine = torch.nn.functional.cosine_similarity(*flat, dim=1).clamp(-1, 1)
    angle = cosine.acos()
    sine = angle.sin()
    straight = sine < 1e-6
    sine = sine.where(~straight, 1)
    left = torch.where(straight, 1 - weight, ((1 - weight) * angle).sin() / sine)
    right = torch.where(straight, weight, (weight * angle).sin() / sine)
    return column(left, first) * first + column(right, second) * second


def hops(sigmas: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The pairs of neighbours of a grid, float64 CPU scalars, so that the loop never waits for a device.

    Raises:
        ConfigError: if the grid does not descend.
    """
    grid = level(sigmas)
    if grid.ndim != 1 or len(grid) < 2 or not bool((grid[1:] < grid[:-1]).all()) or not bool(grid[-1] >= 0):
        raise ConfigError(
            "a grid must be at least two levels, strictly descending to 0 or above; "
            f"got {grid.tolist()[:8]}; make it with `spaced`"
        )
    return zip(grid[:-1].unbind(), grid[1:].unbind(), strict=True)


def needs_mean(denoiser: Denoiser, method: str) -> None:
    """Refuse, on behalf of `method`, a denoiser that draws x0.

    Raises:
        RefusalError: if it does.
    """
    if denoiser.levels.draws:
        raise RefusalError(
            f"{method} follows an ordinary differential equation, which needs the mean of x0, but this "
            "denoiser draws x0 at random; use the ddim sampler"
        )
