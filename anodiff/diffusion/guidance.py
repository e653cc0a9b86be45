"""Wrappers that steer a denoiser; each is a denoiser itself and owns no parameters, so they stack.

The order that keeps every promise, outermost first: Clamp(Inpaint(Pull(Guide(Bind(CFG(family)))))).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from anodiff.cond import Cond
from anodiff.diffusion.denoiser import Denoiser, moments
from anodiff.diffusion.levels import Levels, column, level
from anodiff.errors import RefusalError

LogProb = Callable[[Tensor, Tensor, Cond | None], Tensor]
"""(y or x0 [B, C, h, w], sigma [B] or [], cond) -> log p [B], differentiable in the first."""


@dataclass(frozen=True, eq=False)
class _Wrapper:
    """A denoiser around another: levels and a learned variance are the inner one's, x0 is steered."""

    inner: Denoiser

    @property
    def levels(self) -> Levels:
        """The inner denoiser's levels."""
        return self.inner.levels

    def __call__(self, y: Tensor, sigma: Tensor, cond: Cond | None = None) -> Tensor:
        """The steered estimate of x0, [B, C, h, w]."""
        return self._steer(self.inner(y, sigma, cond), y, sigma, cond)

    def moments(self, y: Tensor, sigma: Tensor, cond: Cond | None = None) -> tuple[Tensor, Tensor]:
        """The steered estimate of x0 and the inner denoiser's fraction.

        Raises:
            RefusalError: if the inner denoiser did not learn a variance.
        """
        x0, fraction = moments(self.inner, y, sigma, cond)
        return self._steer(x0, y, sigma, cond), fraction

    @abstractmethod
    def _steer(self, x0: Tensor, y: Tensor, sigma: Tensor, cond: Cond | None) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Bind(_Wrapper):
    """The inner denoiser with `cond` supplied wherever the caller gives none; samplers give none."""

    cond: Cond

    def __call__(self, y: Tensor, sigma: Tensor, cond: Cond | None = None) -> Tensor:
        """The inner estimate under the caller's conditions, or the bound ones."""
        return self.inner(y, sigma, self.cond if cond is None else cond)

    def moments(self, y: Tensor, sigma: Tensor, cond: Cond | None = None) -> tuple[Tensor, Tensor]:
        """The inner moments under the caller's conditions, or the bound ones."""
        return moments(self.inner, y, sigma, self.cond if cond is None else cond)

    def _steer(self, x0: Tensor, y: Tensor, sigma: Tensor, cond: Cond | None) -> Tensor:
        return x0


@dataclass(frozen=True, eq=False)
class CFG(_Wrapper):
    """Classifier-free guidance, `x0_ref + scale (x0_cond - x0_ref)`.

    The same line holds for eps and v, which are affine in x0. Scale 1 is the inner denoiser in one
    evaluation; otherwise two. The learned variance is the conditional one. Above scale 1 DDIM inversion
    does not return.

    Args:
        inner: a denoiser trained with conditions dropped at random.
        scale: 0 = the reference, 1 = the condition, above = away from the reference.
        reference: what to move away from (a negative condition); None = the learned null.

    Source: Ho & Salimans 2022, arXiv:2207.12598 eq. 6 (its w is scale - 1).
    """

    scale: float
    reference: Cond | None = None

    def _steer(self, x0: Tensor, y: Tensor, sigma: Tensor, cond: Cond | None) -> Tensor:
        if self.scale == 1:
            return x0
        reference = self.reference
        if reference is None:
            if cond is None:
                raise RefusalError(
                    "classifier-free guidance compares two conditions, but none came; "
                    "wrap it: Bind(CFG(...), cond)"
                )
            reference = cond.null()
        x0_ref = self.inner(y, sigma, reference)
        return x0_ref + self.scale * (x0 - x0_ref)


@dataclass(frozen=True, eq=False)
class Guide(_Wrapper):
    """Classifier guidance in the score form, `x0 + scale sigma^2 grad_y log p(c | y)`.

    Derivation: the guided noise is `eps - sqrt(1 - abar) grad_{x_t} log p`; with `x_t = y sqrt(abar)` the
        gradient is
    `grad_y / sqrt(abar)`, and `x0 = (x_t - sqrt(1 - abar) eps) / sqrt(abar)` gains
    `(1 - abar) / abar = sigma^2` times `grad_y`.

    Args:
        inner: the denoiser.
        log_prob: log p [B] of what is wanted; it is given `y` and sigma, or x0 and sigma with `through`.
        scale: s of the paper; 0 = the inner denoiser, without a gradient.
        through: evaluate `log_prob` on the inner estimate of x0 and differentiate through the denoiser,
            for a log p that was never trained on noise (arXiv:2209.14687 eq. 16).

    Raises:
        RefusalError: in inference mode, which forbids gradients.

    Source: Dhariwal & Nichol 2021, arXiv:2105.05233 eq. 14, algorithm 2.
    """

    log_prob: LogProb
    scale: float
    through: bool = False

    def _steer(self, x0: Tensor, y: Tensor, sigma: Tensor, cond: Cond | None) -> Tensor:
        if self.scale == 0:
            return x0
        if torch.is_inference_mode_enabled():
            raise RefusalError(
                "guidance needs gradients, which torch.inference_mode forbids; use torch.no_grad"
            )
        with torch.enable_grad():
            variable = y.detach().requires_grad_()
            place = self.inner(variable, sigma, cond) if self.through else variable
            (gradient,) = torch.autograd.grad(self.log_prob(place, sigma, cond).sum(), variable)
        return x0 + column(self.scale * level(sigma).square(), y) * gradient


@dataclass(frozen=True, eq=False)
class Pull(_Wrapper):
    """The estimate drawn towards `target` where it is noisy: `x0 + w sigma^2 / (1 + sigma^2) (target - x0)`.

    Derivation: `eps' = eps - w sqrt(1 - abar) (target_t - x_t)`, where `target_t` is the target noised
        with the predicted eps, so
    `target_t - x_t = sqrt(abar) (target - x0)`; in x0 this is `w (1 - abar) (target - x0)`.

    Args:
        inner: the denoiser.
        target: [B, C, h, w] in codec space: the input itself, for detection.
        weight: w of the paper; 0 = the inner denoiser.

    Source: DDAD, Mousakhan 2023, arXiv:2305.15956 eq. 6-8.
    """

    target: Tensor
    weight: float

    def _steer(self, x0: Tensor, y: Tensor, sigma: Tensor, cond: Cond | None) -> Tensor:
        square = level(sigma).square()
        return x0 + column(self.weight * square / (1 + square), y) * (self.target - x0)


@dataclass(frozen=True, eq=False)
class Inpaint(_Wrapper):
    """The estimate with everything known put in its place.

    Start the sampler from `known + sigmas[0] n`: the known part then stays at the law of the noised known
    picture all the way down, which is what RePaint samples anew at each step (arXiv:2201.09865 eq. 8).

    Args:
        inner: the denoiser.
        known: [B, C, h, w] in codec space; its values where `mask` is 0 do not matter unless they are not
            finite.
        mask: [B, 1, h, w] or broadcastable, 1 or True where known; fractions mix.
    """

    known: Tensor
    mask: Tensor

    def _steer(self, x0: Tensor, y: Tensor, sigma: Tensor, cond: Cond | None) -> Tensor:
        return x0.lerp(self.known.to(x0.dtype), self.mask.to(x0.dtype))


@dataclass(frozen=True, eq=False)
class Clamp(_Wrapper):
    """The estimate cut to [low, high]: for pixels in [-1, 1], never for latents or features (open range)."""

    low: float = -1.0
    high: float = 1.0

    def _steer(self, x0: Tensor, y: Tensor, sigma: Tensor, cond: Cond | None) -> Tensor:
        return x0.clamp(self.low, self.high)
