"""How many bits a picture costs under a model: the variational bound over a set of pictures, term by term."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from anodiff.cond import Cond
from anodiff.detect.predictor import Predictor
from anodiff.diffusion.guidance import Bind
from anodiff.diffusion.levels import spaced
from anodiff.diffusion.likelihood import Bound, bound
from anodiff.diffusion.sampling import Variance
from anodiff.errors import DataError
from anodiff.noise import PerImageNoise


@dataclass(frozen=True, eq=False)
class Bits:
    """The mean bound of a set of pictures, bits a dimension: `total = prior + sum(transitions) + decoder`."""

    total: float
    deviation: float  # of the pictures' totals
    prior: float
    decoder: float
    transitions: tuple[float, ...]  # from the highest level
    sigmas: tuple[float, ...]  # the levels of the transitions, then the decoder's where it has one
    pictures: int
    variance: Variance


@torch.no_grad()
def bits(
    predictor: Predictor,
    images: Iterable[Tensor | tuple[Tensor, Tensor]],
    *,
    steps: int,
    variance: Variance = "small",
    bins: int | None = 256,
) -> Bits:
    """The bound of the pictures [B, C, H, W] in [0, 1] over a grid of `steps` levels, noise keyed by their content.

    The plain denoiser is asked, under each picture's label: guidance and clamps are no part of a likelihood. The bound
    of a respaced grid is that of the shorter chain, and higher than the whole table's.

    Args:
        predictor: with its codec and denoiser.
        images: batches, with labels where they are known.
        steps: levels, at least 2; one evaluation of the denoiser each.
        variance: of the model's reverse steps.
        bins: values a channel can take, 256 for pixels; None for features, which have no decoder's term.

    Raises:
        DataError: no picture.
        ConfigError, RefusalError: as `likelihood.terms`.
    """
    predictor.eval()
    found: list[Bound] = []
    for batch in images:
        image, label = batch if isinstance(batch, tuple) else (batch, None)
        cond = predictor.labelled(image, None if label is None else Cond(label=label))
        noise = PerImageNoise([predictor.key(row, predictor.seed) for row in image], draw=predictor.draw)
        denoiser = Bind(predictor.denoiser, replace(cond, noise=noise))
        grid = spaced(denoiser.levels, steps)
        z = predictor.codec.encode(image)  # [B, c, h, w]
        found.append(bound(denoiser, z, grid, noise=noise, variance=variance, bins=bins))
    if not found:
        raise DataError("Expected pictures to measure the bound on, got none.")
    total = torch.cat([b.total for b in found]).double()
    levels = torch.cat([b.per_level for b in found]).double().mean(0)  # prior, transitions, decoder
    last = len(levels) - (bins is not None)
    return Bits(
        total=float(total.mean()),
        deviation=float(total.std()) if len(total) > 1 else 0.0,
        prior=float(levels[0]),
        decoder=float(levels[-1]) if bins is not None else 0.0,
        transitions=tuple(levels[1:last].tolist()),
        sigmas=tuple(found[0].sigmas.tolist()),
        pictures=len(total),
        variance=variance,
    )
