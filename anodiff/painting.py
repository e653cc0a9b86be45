"""A predictor that paints: new pictures of good parts, from noise alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar, get_args

import numpy as np
import torch
from torch import Tensor

from anodiff.cond import Cond
from anodiff.detect.predictor import Predictor, bare
from anodiff.detect.steering import Steering
from anodiff.detect.walk import Sampler, walk
from anodiff.diffusion.denoiser import Denoiser
from anodiff.diffusion.guidance import Bind
from anodiff.diffusion.levels import Levels, Spacing, spaced
from anodiff.diffusion.sampling import Variance, needs_mean
from anodiff.errors import ConfigError, RefusalError
from anodiff.guiding import Guiding
from anodiff.noise import PerImageNoise

T = TypeVar("T")

STEPS = 50
"""Of a sampler where nobody asks for a number; fewer where the model has fewer levels."""

_APART = 1_000_003  # pictures of two seeds share no noise below a million of them


@dataclass(frozen=True, eq=False)
class Rows:
    """What a batch of pictures is painted from, one row a picture."""

    numbers: Sequence[int]  # of their noise: rows of one number share it
    cond: Cond = field(default_factory=Cond)  # its noise is replaced
    begin: Tensor | None = None  # [B, c, h, w] what the first noise is added to; None: nothing
    around: Callable[[Denoiser], Denoiser] = bare  # stands around the steered denoiser


def unseen(chunks: Sequence[T]) -> Iterable[T]:
    """The chunks themselves: nobody watches."""
    return chunks


def usual_steps(levels: Levels, *, most: int = STEPS) -> int:
    """Steps of a walk down `levels` where nobody asks for a number: `most`, or all levels of a denoiser that draws.

    Such a denoiser was trained for the walk through all of its few levels (arXiv:2112.07804 section 3.2). A table
    shorter than `most` is walked whole by any other too.
    """
    if levels.table is None:
        return most
    return len(levels.table) if levels.draws else min(most, len(levels.table))


def usual_eta(levels: Levels, sampler: str) -> float:
    """The eta of a walk where nobody asks for one: 1 for ddim on a denoiser that draws, 0 otherwise.

    Source: arXiv:2112.07804 eq. 4 to 6, whose sampler it is.
    """
    return 1.0 if sampler == "ddim" and levels.draws else 0.0


def paint(
    predictor: Predictor,
    shape: tuple[int, int],
    *,
    count: int,
    steps: int | None = None,
    sampler: Sampler = "ddim",
    eta: float | None = None,
    variance: Variance = "small",
    spacing: Spacing = "trailing",
    seed: int = 0,
    batch: int = 8,
    device: torch.device,
    cond_of: Callable[[range], Cond] | None = None,
    rows_of: Callable[[range], Rows] | None = None,
    guided: Guiding | None = None,
    counted: Callable[[Sequence[range]], Iterable[range]] = unseen,
) -> Iterator[np.ndarray]:
    """`count` pictures uint8 [h, w, C], one after the other; the options are checked at once, the work comes later.

    Picture i is a function of `seed` and i alone, up to the rounding of a batch: it is the same whatever `count` and
    `batch`. A model that draws draws anew at every step, also where its score holds the latent.

    Args:
        predictor: with a codec that paints; its `wrap` stands around the denoiser.
        shape: (height, width) of the pictures, multiples of the codec's stride; the one it was fitted at.
        count: how many.
        steps: of the sampler; `heun` evaluates the denoiser twice in all of them but the last. None: `usual_steps`, or
            every level there is with the spacing "all".
        sampler: "ddpm" is "ddim" at `eta` 1.
        eta: share of fresh noise of "ddim", in [0, 1]; None: `usual_eta`.
        variance: of that noise; "learned" needs a model that learned one.
        spacing: how the levels of the walk are chosen, as `spaced` has them.
        seed: of the pictures' noise.
        batch: pictures at a time.
        device: where the predictor lives.
        cond_of: from the numbers of a batch's pictures to its conditions; their noise is replaced.
        rows_of: from these numbers to all that the batch is painted from, in place of `cond_of`; as many pictures come
            as it has rows.
        guided: what stands around the denoiser, in place of the predictor's own guidance.
        counted: given the batches, goes through them, as a bar that counts does.

    Raises:
        ConfigError: a number out of its range, more steps than the model has levels, or options that do not belong
            together.
        RefusalError: a codec that paints nothing, or an ODE sampler on a denoiser that draws x0.
    """
    predictor.eval()
    if not predictor.codec.paints:
        raise RefusalError(
            "A model of features paints nothing: they cannot be turned back into a picture. Fit a model that paints "
            "with --preset pixels."
        )
    for name, value in (("count", count), ("steps", steps), ("batch", batch)):
        if value is not None and value < 1:
            raise ConfigError(f"{name} should be at least 1, got {value}.")
    wrap = predictor.wrap if guided is None else guided.steering
    if isinstance(wrap, Steering):
        wrap = replace(wrap, fixed=False)  # a score may hold the latent; without it a sample would be no draw
    denoiser = wrap(predictor.denoiser)
    shift = None if guided is None else guided.shift
    if shift is not None and sampler != "ddpm":
        raise ConfigError(
            f"Guidance in the form that moves a step's mean needs the sampler ddpm, got {sampler}: take that, the form "
            "score (--form), or a classifier scale of 0."
        )
    own = predictor.denoiser.levels  # of the model itself: a weaker one that draws does not shorten its walk
    share = _share(sampler, usual_eta(own, sampler) if eta is None else eta)
    _check_variance(predictor.denoiser, variance, sampler, share)
    if sampler in ("heun", "dpmpp_2m"):
        needs_mean(denoiser, sampler)
    walked = usual_steps(own) if steps is None else steps
    sigmas = spaced(denoiser.levels, None if spacing == "all" else walked, spacing=spacing)
    if steps is not None and len(sigmas) != steps + 1:
        raise ConfigError(
            f"The spacing 'all' visits {len(sigmas) - 1} levels, got steps {steps}: set them equal."
        )
    stride = predictor.codec.stride
    if shape[0] % stride or shape[1] % stride:
        raise ConfigError(
            f"Pictures should have sides that are multiples of {stride}, got {shape[0]} x {shape[1]}."
        )

    def plain(chunk: range) -> Rows:
        return Rows(chunk, Cond() if cond_of is None else cond_of(chunk))

    @torch.no_grad()  # not inference_mode, under which guidance could not take gradients
    def one(chunk: range) -> np.ndarray:
        rows = (rows_of or plain)(chunk)
        noise = PerImageNoise([seed * _APART + number for number in rows.numbers], draw=predictor.draw)
        z = torch.zeros(len(rows.numbers), predictor.codec.channels, shape[0] // stride, shape[1] // stride)
        z = z.to(device) if rows.begin is None else rows.begin.to(device)  # [B, c, h, w]
        cond = replace(predictor.read(rows.cond), noise=noise)
        image = predictor.codec.decode(
            walk(
                Bind(rows.around(denoiser), cond),
                z + sigmas[0].to(z) * noise(z),
                sigmas,
                sampler=sampler,
                eta=0.0 if sampler == "ddpm" else share,
                variance=variance,
                noise=noise,
                shift=shift,
            )
        )  # [B, C, H, W]
        return (image.clamp(0, 1) * 255).round().byte().movedim(1, -1).cpu().numpy()  # [B, H, W, C]

    chunks = [range(first, min(first + batch, count)) for first in range(0, count, batch)]
    return (picture for chunk in counted(chunks) for picture in one(chunk))


def _share(sampler: str, eta: float) -> float:
    """The share of fresh noise of a sampler, in [0, 1]."""
    if sampler not in get_args(Sampler):
        raise ConfigError(f"Unknown sampler {sampler!r}: choose one of {', '.join(get_args(Sampler))}.")
    if not 0 <= eta <= 1:
        raise ConfigError(f"eta should be from 0 to 1, got {eta:g}.")
    if eta and sampler in ("heun", "dpmpp_2m"):
        raise ConfigError(f"eta belongs to the sampler ddim; {sampler} draws no noise.")
    if sampler == "ddpm" and eta not in (0, 1):
        raise ConfigError(f"The sampler ddpm is ddim at eta 1, got eta {eta:g}: take ddim, or leave eta out.")
    return 1.0 if sampler == "ddpm" else eta


def _check_variance(denoiser: object, variance: str, sampler: str, share: float) -> None:
    """Nothing; ConfigError for a variance the sampler has no use for or the model does not know."""
    if variance not in get_args(Variance):
        raise ConfigError(f"Unknown variance {variance!r}: choose one of {', '.join(get_args(Variance))}.")
    if variance == "small":
        return
    if not share:
        what = "ddim at eta 0" if sampler == "ddim" else sampler
        raise ConfigError(
            f"A variance is that of a sampler's fresh noise, and {what} draws none: take ddpm, or leave it out."
        )
    if variance == "learned" and not getattr(denoiser, "learned_variance", False):
        raise ConfigError(
            "A learned variance was asked for, but this model was fitted with a fixed one: take small or large, or "
            "fit with family.variance=learned."
        )
