"""Wrappers that steer a denoiser; each is a denoiser itself and owns no parameters, so they stack.

The order that keeps every promise, outermost first: Clamp(Inpaint(Pull(Bind(Guide(CFG(family)))))). `Bind` stands
outside whatever reads conditions: a classifier that is asked for the batch's labels, or classifier-free guidance.

A wrapper that evaluates twice sees the same draw both times where the denoiser draws x0: what it compares would
otherwise differ by chance, and the scale of the guidance would multiply the chance.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from anodiff.cond import Cond
from anodiff.diffusion.denoiser import Denoiser, moments, reads
from anodiff.diffusion.levels import Levels, column, level
from anodiff.errors import ConfigError, RefusalError
from anodiff.noise import NoiseSource

LogProb = Callable[[Tensor, Tensor, Cond | None], Tensor]
"""(y or x0 [B, C, h, w], sigma [B] or [], cond) -> log p [B], differentiable in the first."""


def gradient(log_prob: LogProb, y: Tensor, sigma: Tensor, cond: Cond | None) -> Tensor:
    """`grad_y log p`, [B, C, h, w]: without a graph, unless the caller differentiates `y` himself.

    Raises:
        RefusalError: in inference mode, which forbids gradients.
    """
    if torch.is_inference_mode_enabled():
        raise RefusalError("guidance needs gradients, which torch.inference_mode forbids; use torch.no_grad")
    # A divergence or a `through` around this one has to see how the gradient itself moves with y.
    followed = torch.is_grad_enabled() and y.requires_grad
    with torch.enable_grad():
        variable = y if followed else y.detach().requires_grad_()
        total = log_prob(variable, sigma, cond).sum()
        (slope,) = torch.autograd.grad(total, variable, create_graph=followed)
    return slope


def check_scale(scale: float, what: str) -> None:
    """Refuse a `scale` that is infinite or not a number, on behalf of `what`.

    Raises:
        ConfigError: if it is.
    """
    if not math.isfinite(scale):
        raise ConfigError(f"{what} expects a finite number, got {scale}; choose one, such as 1.0")


def check_trained(log_prob: LogProb, levels: Levels) -> None:
    """Refuse a `log_prob` whose classifier was trained on fewer noise levels than `levels`.

    A function without an owner that has `levels` promises nothing and is believed.

    Raises:
        RefusalError: with both ranges.
    """
    owner = getattr(log_prob, "__self__", log_prob)
    trained = getattr(owner, "levels", None)
    if isinstance(trained, Levels) and not trained.covers(levels):
        raise RefusalError(
            f"the classifier knows noise levels {trained.low:.6g} to {trained.high:.6g}, but the denoiser's go from "
            f"{levels.low:.6g} to {levels.high:.6g}; train the classifier on the denoiser's levels"
        )


class Tape:
    """A source of noise that keeps what it gave; `again` gives the same once more, in the same order."""

    def __init__(self, source: NoiseSource) -> None:
        self.source = source
        self.given: list[Tensor] = []

    def __call__(self, like: Tensor) -> Tensor:
        """Fresh noise of `like`'s shape, kept."""
        self.given.append(self.source(like))
        return self.given[-1]

    def again(self) -> NoiseSource:
        """A source that gives what was given, from the first on, and fresh noise beyond.

        It raises RefusalError where another shape is asked for: then nothing is left to compare.
        """
        place = 0

        def repeated(like: Tensor) -> Tensor:
            nonlocal place
            if place == len(self.given):
                self(like)
            noise = self.given[place]
            if noise.shape != like.shape:
                raise RefusalError(
                    f"guidance compares two draws of x0 from one latent, but one model draws with {noise.shape[1:]} "
                    f"numbers a row and the other with {like.shape[1:]}, so that they would differ by chance; take two "
                    "models whose latents are equally long, or hold them fixed"
                )
            place += 1
            return noise.to(like)

        return repeated


def twice(cond: Cond | None) -> tuple[Cond | None, Cond | None]:
    """The conditions of a first evaluation and of one that repeats it: all that the first draws, the second has too."""
    if cond is None or cond.noise is None:
        return cond, cond
    tape = Tape(cond.noise)
    return replace(cond, noise=tape), replace(cond, noise=tape.again())


@dataclass(frozen=True, eq=False)
class Wrapper:
    """A denoiser around another: levels and a learned variance are the inner one's, x0 is steered."""

    inner: Denoiser

    @property
    def levels(self) -> Levels:
        """The inner denoiser's levels."""
        return self.inner.levels

    @property
    def reads(self) -> frozenset[str] | None:
        """The fields of `Cond` the inner denoiser reads; None where it does not say."""
        return reads(self.inner)

    def __call__(self, y: Tensor, sigma: Tensor, cond: Cond | None = None) -> Tensor:
        """The steered estimate of x0, [B, C, h, w]."""
        first, again = twice(cond)
        return self._steer(self.inner(y, sigma, first), y, sigma, again)

    def moments(self, y: Tensor, sigma: Tensor, cond: Cond | None = None) -> tuple[Tensor, Tensor]:
        """The steered estimate of x0 and the inner denoiser's fraction.

        Raises:
            RefusalError: if the inner denoiser did not learn a variance.
        """
        first, again = twice(cond)
        x0, fraction = moments(self.inner, y, sigma, first)
        return self._steer(x0, y, sigma, again), fraction

    @abstractmethod
    def _steer(self, x0: Tensor, y: Tensor, sigma: Tensor, cond: Cond | None) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Bind(Wrapper):
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
class CFG(Wrapper):
    """Classifier-free guidance, `x0_ref + scale (x0_cond - x0_ref)`.

    The same line holds for eps and v, which are affine in x0. Scale 1 is the inner denoiser in one
    evaluation; otherwise two, with one draw where the denoiser draws. The learned variance is the conditional
    one. Above scale 1 DDIM inversion does not return.

    Args:
        inner: a denoiser trained with conditions dropped at random.
        scale: 0 = the reference, 1 = the condition, above = away from the reference.
        reference: what to move away from (a negative condition); None = the learned null.

    Raises:
        ConfigError: if the scale is infinite or not a number.
        RefusalError: if the inner denoiser reads no conditions, or none of those it reads came.

    Source: Ho & Salimans 2022, arXiv:2207.12598 eq. 6 (its w is scale - 1).
    """

    scale: float
    reference: Cond | None = None

    def _steer(self, x0: Tensor, y: Tensor, sigma: Tensor, cond: Cond | None) -> Tensor:
        check_scale(self.scale, "the scale of classifier-free guidance")
        fields = self.reads
        if fields is not None and not fields:
            raise RefusalError(
                "classifier-free guidance compares two conditions, but this model was trained without any; "
                "leave the guidance out, or train a model with labels or other conditions"
            )
        if self.scale == 1:
            return x0
        reference = self.reference
        if reference is None:
            if cond is None:
                raise RefusalError(
                    "classifier-free guidance compares two conditions, but none came; "
                    "wrap it: Bind(CFG(...), cond)"
                )
            if fields is not None and all(getattr(cond, field) is None for field in fields):
                raise RefusalError(
                    f"classifier-free guidance needs a condition that the model reads ({', '.join(sorted(fields))}), "
                    "but the batch's conditions hold none of them; bind one"
                )
            reference = cond.null()
        elif cond is not None and cond.noise is not None:
            # The draw of the first evaluation, not one of its own.
            reference = replace(reference, noise=cond.noise)
        x0_ref = self.inner(y, sigma, reference)
        return x0_ref + self.scale * (x0 - x0_ref)


@dataclass(frozen=True, eq=False)
class Autoguide(Wrapper):
    """Guidance by a weaker model of the same data, `x0_weaker + scale (x0 - x0_weaker)`.

    What the weaker one does worse, the result does less. Scale 1 is the inner denoiser in one evaluation. Needs no
    conditions; those that come go to both. The learned variance is the inner one's.

    Args:
        inner: the denoiser.
        weaker: one of less training or fewer parameters, over levels that cover the inner one's.
        scale: w of the paper; 1 = the inner denoiser, above = away from the weaker one.

    Raises:
        ConfigError: if the scale is infinite or not a number.
        RefusalError: if the weaker denoiser's levels do not cover the inner one's, or both draw x0 with latents of
            unlike length.

    Source: Karras 2024, arXiv:2406.02507 section 3.
    """

    weaker: Denoiser
    scale: float

    @property
    def levels(self) -> Levels:
        """The inner denoiser's levels; x0 is a draw where either of the two draws."""
        inner = self.inner.levels
        return replace(inner, draws=inner.draws or self.weaker.levels.draws)

    def _steer(self, x0: Tensor, y: Tensor, sigma: Tensor, cond: Cond | None) -> Tensor:
        check_scale(self.scale, "the scale of autoguidance")
        ours, theirs = self.inner.levels, self.weaker.levels
        if not theirs.covers(ours):
            raise RefusalError(
                f"the weaker denoiser knows noise levels {theirs.low:.6g} to {theirs.high:.6g}, but the guided one's "
                f"go from {ours.low:.6g} to {ours.high:.6g}; take a weaker one that was trained on the same levels"
            )
        if self.scale == 1:
            return x0
        x0_weaker = self.weaker(y, sigma, cond)
        return x0_weaker + self.scale * (x0 - x0_weaker)


@dataclass(frozen=True, eq=False)
class Guide(Wrapper):
    """Classifier guidance in the score form, `x0 + scale sigma^2 grad_y log p(c | y)`.

    This is the DDIM form, for every sampler; `ancestral` has the DDPM form.

    Derivation: the guided noise is `eps - sqrt(1 - abar) grad_{x_t} log p`; with `x_t = y sqrt(abar)` the
    gradient is `grad_y / sqrt(abar)`, and `x0 = (x_t - sqrt(1 - abar) eps) / sqrt(abar)` gains
    `(1 - abar) / abar = sigma^2` times `grad_y`.

    Args:
        inner: the denoiser.
        log_prob: log p [B] of what is wanted; it is given `y` and sigma, or x0 and sigma with `through`.
        scale: s of the paper; 0 = the inner denoiser, without a gradient.
        through: evaluate `log_prob` on the inner estimate of x0 and differentiate through the denoiser,
            for a log p that was never trained on noise (arXiv:2209.14687 eq. 16).

    Raises:
        ConfigError: if the scale is infinite or not a number.
        RefusalError: in inference mode, which forbids gradients; if `log_prob` belongs to a classifier whose
            levels do not cover the inner denoiser's (without `through`, which never shows it noise).

    Source: Dhariwal & Nichol 2021, arXiv:2105.05233 eq. 14, algorithm 2.
    """

    log_prob: LogProb
    scale: float
    through: bool = False

    def _steer(self, x0: Tensor, y: Tensor, sigma: Tensor, cond: Cond | None) -> Tensor:
        check_scale(self.scale, "the scale of classifier guidance")
        if self.scale == 0:
            return x0
        if not self.through:
            check_trained(self.log_prob, self.inner.levels)
        slope = gradient(self._through if self.through else self.log_prob, y, sigma, cond)
        return x0 + column(self.scale * level(sigma).square(), y) * slope

    def _through(self, y: Tensor, sigma: Tensor, cond: Cond | None) -> Tensor:
        return self.log_prob(self.inner(y, sigma, cond), sigma, cond)


@dataclass(frozen=True, eq=False)
class Pull(Wrapper):
    """The estimate drawn towards `target` where it is noisy: `x0 + w sigma^2 / (1 + sigma^2) (target - x0)`.

    Derivation: `eps' = eps - w sqrt(1 - abar) (target_t - x_t)`, where `target_t` is the target noised
    with the predicted eps, so `target_t - x_t = sqrt(abar) (target - x0)`; in x0 this is `w (1 - abar) (target - x0)`.

    Args:
        inner: the denoiser.
        target: [B, C, h, w] in codec space: the input itself, for detection.
        weight: w of the paper; 0 = the inner denoiser.

    Raises:
        ConfigError: if the weight is infinite or not a number.

    Source: DDAD, Mousakhan 2023, arXiv:2305.15956 eq. 6-8.
    """

    target: Tensor
    weight: float

    def _steer(self, x0: Tensor, y: Tensor, sigma: Tensor, cond: Cond | None) -> Tensor:
        check_scale(self.weight, "the weight of a pull towards a target")
        square = level(sigma).square()
        return x0 + column(self.weight * square / (1 + square), y) * (self.target - x0)


@dataclass(frozen=True, eq=False)
class Inpaint(Wrapper):
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
class Clamp(Wrapper):
    """The estimate cut to [low, high]: for pixels in [-1, 1], never for latents or features (open range)."""

    low: float = -1.0
    high: float = 1.0

    def _steer(self, x0: Tensor, y: Tensor, sigma: Tensor, cond: Cond | None) -> Tensor:
        return x0.clamp(self.low, self.high)
