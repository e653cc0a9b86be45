"""One walk down the noise levels, by the name of its sampler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from anodiff.diffusion.ancestral import ancestral
from anodiff.diffusion.guidance import Bind, LogProb
from anodiff.diffusion.sampling import Variance, ddim, dpmpp_2m, heun
from anodiff.errors import ConfigError, RefusalError
from anodiff.noise import NoiseSource

Sampler = Literal["ddim", "ddpm", "heun", "dpmpp_2m"]


@dataclass(frozen=True, eq=False)
class MeanShift:
    """Guidance by a classifier in the form that moves a DDPM step's mean (arXiv:2105.05233, algorithm 1)."""

    log_prob: LogProb
    scale: float


def walk(
    denoiser: Bind,
    y: Tensor,
    sigmas: Tensor,
    *,
    sampler: Sampler,
    noise: NoiseSource,
    eta: float = 0.0,
    variance: Variance = "small",
    shift: MeanShift | None = None,
) -> Tensor:
    """The sample at the grid's last level, [B, C, h, w].

    Args:
        denoiser: the model with its wrappers, the batch's conditions bound outermost.
        y: [B, C, h, w] at `sigmas[0]`.
        sigmas: [steps + 1] descending, as `spaced` makes it.
        sampler: "ddpm" is "ddim" at `eta` 1.
        noise: source of the steps' noise.
        eta: share of fresh noise of "ddim"; 0 for the others, which draw none of it or all.
        variance: of the fresh noise.
        shift: guidance of "ddpm" by its means.

    Raises:
        RefusalError: `eta` or `shift` with a sampler that has no use for it, or as the samplers.
        ConfigError: an unknown sampler, or as the samplers.
    """
    if sampler not in get_args(Sampler):
        raise ConfigError(f"Unknown sampler {sampler!r}: choose one of {', '.join(get_args(Sampler))}.")
    if sampler != "ddim" and eta:
        raise RefusalError(
            f"eta belongs to the sampler 'ddim'; {sampler!r} draws all of its noise or none: set eta to 0."
        )
    if sampler != "ddpm" and shift is not None:
        raise RefusalError("Guidance that moves the mean needs a step with one: take the sampler 'ddpm'.")
    match sampler:
        case "ddim":
            return ddim(denoiser, y, sigmas, eta=eta, noise=noise, variance=variance)
        case "heun":
            return heun(denoiser, y, sigmas)
        case "dpmpp_2m":
            return dpmpp_2m(denoiser, y, sigmas)
        case "ddpm":
            return ancestral(
                denoiser,
                y,
                sigmas,
                noise=noise,
                variance=variance,
                log_prob=None if shift is None else shift.log_prob,
                scale=0.0 if shift is None else shift.scale,
                cond=denoiser.cond,
            )
