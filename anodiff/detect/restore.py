"""Restorers: a picture in, the nearest thing a model of normals would paint out.

A restorer works on `z`, the codec's space, and knows no pixels; only the finished picture is clamped to [0,
1]. Where the estimates of the denoiser are to be clamped too, its caller wraps it in `guidance.Clamp`, which
has a meaning for pixel codecs alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from anodiff.codec.protocol import Codec
from anodiff.cond import Cond
from anodiff.detect.walk import MeanShift, Sampler, walk
from anodiff.diffusion.denoiser import Denoiser
from anodiff.diffusion.guidance import Bind, Pull
from anodiff.diffusion.levels import spaced
from anodiff.diffusion.sampling import Variance, ddim, invert, one_step
from anodiff.errors import ConfigError, RefusalError
from anodiff.noise import NoiseSource

Model = tuple[Denoiser, Codec]


@dataclass(frozen=True, eq=False)
class Restoration:
    """A picture and its restoration, in pixels where the codec paints and in the codec's space always."""

    image: Tensor  # [B, C, H, W] in [0, 1]
    image_hat: Tensor | None  # [B, C, H, W] in [0, 1]; None where the codec does not paint
    z: Tensor  # [B, c, h, w]
    z_hat: Tensor  # [B, c, h, w]
    spread: Tensor | None = (
        None  # [B, c, h, w] deviation of the restorations z_hat is the mean of; None for one alone
    )


class Restorer(ABC):
    """From a picture to its restoration; frozen, without parameters of its own."""

    @property
    @abstractmethod
    def evaluations(self) -> int:
        """Evaluations of the denoiser a picture."""

    @abstractmethod
    def estimates(self, denoiser: Denoiser, z: Tensor, cond: Cond) -> list[Tensor]:
        """The restorations [B, c, h, w] of z, one a level and draw, in the codec's space."""

    def estimate(self, denoiser: Denoiser, z: Tensor, cond: Cond) -> Tensor:
        """The mean restoration z_hat [B, c, h, w] of z, in the codec's space."""
        return average(self.estimates(denoiser, z, cond))

    def __call__(self, model: Model, image: Tensor, cond: Cond) -> Restoration:
        """The restoration of `image` [B, C, H, W] in [0, 1]."""
        denoiser, codec = model
        z = codec.encode(image)  # [B, c, h, w]
        found = self.estimates(denoiser, z, cond)
        z_hat = average(found)
        return Restoration(
            image=image, image_hat=paint(codec, z_hat), z=z, z_hat=z_hat, spread=deviation(found)
        )


def paint(codec: Codec, z: Tensor) -> Tensor | None:
    """The picture of `z`, clamped to [0, 1]; None where the codec does not paint."""
    return codec.decode(z).clamp(0, 1) if codec.paints else None


@dataclass(frozen=True)
class PartialNoise(Restorer):
    """Noise up to each of `levels`, denoise back down in `steps` steps, average over levels and draws.

    `y = z + sigma n` with sigma the first entry of the sampler's own grid: the start lies **on** a visited
    level, the one nearest to the level asked for (AnoDDPM, Wyatt et al. 2022; the sampler's grid after
    arXiv:2010.02502).

    `levels` are noise levels sigma (a linear schedule of 1000 steps has sigma = .34, .95, 3.42 at t = 99,
    249, 499); `eta` in [0, 1] is the share of fresh noise of "ddim" (1 is DDPM) and must be 0 for the other
    samplers: "heun" and "dpmpp_2m" draw none, "ddpm" draws all. `variance` is that of the fresh noise; `shift`
    guides "ddpm" by its mean. All noise comes from `cond.noise`.
    """

    levels: tuple[float, ...]
    steps: int = 10
    sampler: Sampler = "ddim"
    eta: float = 0.0
    draws: int = 1
    variance: Variance = "small"
    shift: MeanShift | None = None

    @property
    def evaluations(self) -> int:
        """Levels x draws x steps; Heun takes two a step, but one at the last."""
        each = 2 * self.steps - 1 if self.sampler == "heun" else self.steps
        return len(self.levels) * self.draws * each

    def estimates(self, denoiser: Denoiser, z: Tensor, cond: Cond) -> list[Tensor]:
        """The restorations [B, c, h, w], level by level, the draws of a level side by side."""
        if not self.levels or self.draws < 1:
            raise ConfigError(
                f"Partial noise needs a level and a draw, got levels={self.levels}, draws={self.draws}."
            )
        noise = source(cond)
        bound = Bind(denoiser, cond)
        found = []
        for level in self.levels:
            sigmas = spaced(denoiser.levels, self.steps, start=level)
            for _ in range(self.draws):
                y = z + sigmas[0].to(z) * noise(z)
                found.append(
                    walk(
                        bound,
                        y,
                        sigmas,
                        sampler=self.sampler,
                        eta=self.eta,
                        variance=self.variance,
                        noise=noise,
                        shift=self.shift,
                    )
                )
        return found


@dataclass(frozen=True)
class OneStep(Restorer):
    """One evaluation a draw: the denoiser's estimate of x0 from `y = z + sigma n`, averaged over `draws`.

    Draws come in antithetic pairs (n, then -n): whatever in the estimate is linear in the noise cancels
    within a pair.
    """

    sigma: float
    draws: int = 1

    @property
    def evaluations(self) -> int:
        """One a draw."""
        return self.draws

    def estimates(self, denoiser: Denoiser, z: Tensor, cond: Cond) -> list[Tensor]:
        """The estimates [B, c, h, w], one a draw."""
        noise = source(cond)
        bound = Bind(denoiser, cond)
        sigma = spaced(denoiser.levels, 1, start=self.sigma)[0]  # a level the network was trained for
        n = z
        found = []
        for draw in range(self.draws):
            n = -n if draw % 2 else noise(z)
            found.append(one_step(bound, z, sigma, noise=lambda like, n=n: n))
        return found


@dataclass(frozen=True)
class Blank(Restorer):
    """Nothing: the estimate is zero, so that the residual is the code itself and no denoiser is asked.

    A control: what weighing the code by its law on good parts finds without any model of them.
    """

    @property
    def evaluations(self) -> int:
        """None."""
        return 0

    def estimates(self, denoiser: Denoiser, z: Tensor, cond: Cond) -> list[Tensor]:
        """One estimate of zeros, [B, c, h, w]."""
        return [torch.zeros_like(z)]


@dataclass(frozen=True)
class Inversion(Restorer):
    """Follow the ODE from z up to `level` in `steps` steps, and back down in as many: no noise is drawn.

    The round trip returns z itself in the limit of many steps (arXiv:2010.02502, section 4.3), so what tells
    the defect is how far few steps miss it. Refused by denoisers that draw.
    """

    level: float
    steps: int = 10

    @property
    def evaluations(self) -> int:
        """As many up as down."""
        return 2 * self.steps

    def estimates(self, denoiser: Denoiser, z: Tensor, cond: Cond) -> list[Tensor]:
        """The round trip [B, c, h, w], the only one there is."""
        bound = Bind(denoiser, cond)
        sigmas = spaced(denoiser.levels, self.steps, start=self.level)
        return [ddim(bound, invert(bound, z, sigmas), sigmas)]


@dataclass(frozen=True)
class Pulled(Restorer):
    """Another restorer, drawn towards the picture itself at every step with `weight` (DDAD,
    arXiv:2305.15956).

    Keeps what is normal in place where the noise is high; more weight keeps more of the defect too.
    """

    inner: Restorer
    weight: float

    @property
    def evaluations(self) -> int:
        """Those of the inner restorer."""
        return self.inner.evaluations

    def estimates(self, denoiser: Denoiser, z: Tensor, cond: Cond) -> list[Tensor]:
        """The inner restorations [B, c, h, w] under the pull."""
        return self.inner.estimates(Pull(denoiser, z, self.weight), z, cond)


def average(found: list[Tensor]) -> Tensor:
    """The mean of equally shaped tensors."""
    return found[0] if len(found) == 1 else torch.stack(found).mean(0)


def deviation(found: list[Tensor]) -> Tensor | None:
    """The standard deviation over equally shaped tensors, divided by their number; None for one alone."""
    return None if len(found) == 1 else torch.stack(found).std(0, correction=0)


def source(cond: Cond) -> NoiseSource:
    """The noise of a batch; RefusalError where it has none: a score must not depend on unseeded noise."""
    if cond.noise is None:
        raise RefusalError(
            "This restorer draws noise and the batch brings none: pass Cond(noise=PerImageNoise(seeds)), "
            "so that a picture gets the same score every time."
        )
    return cond.noise
