"""The sampler of DDPM with classifier guidance in its own form: the mean of each step is shifted."""

from __future__ import annotations

import torch
from torch import Tensor

from anodiff.cond import Cond
from anodiff.diffusion.denoiser import Denoiser
from anodiff.diffusion.guidance import LogProb, check_scale, check_trained, gradient
from anodiff.diffusion.levels import column, level
from anodiff.diffusion.sampling import Variance, Watch, deviation, estimate, hops, step
from anodiff.errors import ConfigError
from anodiff.noise import NoiseSource


def shift(
    slope: Tensor, sigma: Tensor, sigma_next: Tensor, *, fraction: Tensor | float | None = None
) -> Tensor:
    """What guidance adds to the mean of one step, `Sigma sqrt((1 + sigma^2) / (1 + sigma_next^2)) grad_y log p`.

    Derivation: the paper adds `Sigma_x grad_{x_t} log p` to the mean of `x_s`, the next level's x. There
    `Sigma_x = abar_s Sigma` and `grad_{x_t} = grad_y / sqrt(abar_t)`; divided by `sqrt(abar_s)` to be in y this is
    `Sigma sqrt(abar_s / abar_t) grad_y`. Sigma is the variance of the step's noise, so the last step, which adds
    none, is not shifted.

    Args:
        slope: `grad_y log p(c | y)` at `sigma`, [B, C, h, w].
        sigma: [B] or [], above 0.
        sigma_next: [B] or [], at least 0.
        fraction: as for `deviation`.

    Source: Dhariwal & Nichol 2021, arXiv:2105.05233 algorithm 1.
    """
    sigma, sigma_next = level(sigma), level(sigma_next)
    scale = ((1 + sigma.square()) / (1 + sigma_next.square())).sqrt()  # sqrt(abar_s / abar_t)
    return deviation(sigma, sigma_next, slope, fraction=fraction).square() * column(scale, slope) * slope


@torch.no_grad()
def ancestral(
    denoiser: Denoiser,
    y: Tensor,
    sigmas: Tensor,
    *,
    noise: NoiseSource,
    variance: Variance = "small",
    log_prob: LogProb | None = None,
    scale: float = 0.0,
    cond: Cond | None = None,
    watch: Watch | None = None,
) -> Tensor:
    """The sample at the grid's last level by DDPM's sampler, guided in the DDPM form, [B, C, h, w].

    Each step draws from `N(mu + scale Sigma grad log p(c | x_t), Sigma)`. It agrees with `Guide` in the limit of
    many steps; with few, where Sigma is far from the posterior's variance, `Guide` follows the guided law better.
    Without guidance it is `ddim` at eta = 1. The shift comes after the wrappers of the denoiser: a clamped x0 does
    not bound it.

    Args:
        denoiser: the model with its wrappers.
        y: [B, C, h, w] at `sigmas[0]`: `sigmas[0] n` for a sample, `z + sigmas[0] n` for a restoration.
        sigmas: [steps + 1] descending.
        noise: source of the steps' noise, called once a step that adds noise.
        variance: Sigma; "learned" needs a denoiser with `moments`.
        log_prob: log p [B] of what is wanted, given y, sigma and `cond`; None = no guidance.
        scale: s of the paper; 0 = no guidance.
        cond: conditions for the denoiser and for `log_prob`; a denoiser inside `Bind` has its own where this is
            None.
        watch: called with (sigma, y, x0) at each evaluation.

    Raises:
        ConfigError: if the grid does not descend, or the scale is not finite or has no `log_prob` to act on.
        RefusalError: if a learned variance is asked of a denoiser that has none, if `log_prob` belongs to a
            classifier whose levels do not cover the denoiser's, or in inference mode.

    Source: Dhariwal & Nichol 2021, arXiv:2105.05233 algorithm 1; arXiv:2006.11239 algorithm 2.
    """
    check_scale(scale, "the scale of classifier guidance")
    if log_prob is None:
        if scale != 0:
            raise ConfigError(
                f"scale={scale} guides by a classifier, but log_prob is missing; give it, or scale=0"
            )
    elif scale != 0:
        check_trained(log_prob, denoiser.levels)
    for sigma, sigma_next in hops(sigmas):
        x0, fraction = estimate(denoiser, y, sigma, variance=variance, cond=cond)
        if watch is not None:
            watch(float(sigma), y, x0)
        if sigma_next == 0:
            y = step(y, x0, sigma, sigma_next, eta=1)
            continue
        y_next = step(y, x0, sigma, sigma_next, eta=1, noise=noise(y), fraction=fraction)
        if log_prob is not None and scale != 0:
            slope = gradient(log_prob, y, sigma, cond)
            y_next = y_next + scale * shift(slope, sigma, sigma_next, fraction=fraction)
        y = y_next
    return y
