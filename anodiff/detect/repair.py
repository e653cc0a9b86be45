"""Repair: every place painted anew from its surroundings, and compared with what is there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from anodiff.cond import Cond
from anodiff.detect.restore import Model, Restoration, Restorer
from anodiff.diffusion.denoiser import Denoiser
from anodiff.diffusion.guidance import Inpaint
from anodiff.errors import ConfigError, RefusalError


@dataclass(frozen=True)
class Repair(Restorer):
    """The code's cells hidden in turn, a group at a time, and painted by `inner` under `Inpaint` from the rest.

    The code is cut into cells of `cell` x `cell` positions, and the cells into `masks` groups: 2 are the two colours of
    a checkerboard, 4 leave three quarters of the code to be seen in each pass. `z_hat` takes from each pass the cells
    that were hidden in it. Each place is thus compared with what its surroundings say: `z_hat` at a cell is a function
    of the other cells and the noise, and no defect is copied from its own cell. To this end a hidden cell starts from
    the mean of what is known around it, in the place of its own code.

    `inner` is any restorer that noises and denoises: `PartialNoise`, or `Resampled`, which listens to the known cells
    better. Its level decides how much of the start it keeps. Cells should be larger than a defect, because a defect
    that reaches beyond its cell is seen from the neighbouring ones. Where a position of the code has looked at pixels
    outside its own (latents, features), cells should be larger than that reach as well.

    `beside` gives `Cond.image` of each pass for a network that reads masked pictures by concatenation: (the picture
    [B, C, H, W] in [0, 1], z [B, c, h, w], where z is known [B, 1, h, w] of bool) -> [B, C', h, w].

    Source: RePaint, Lugmayr 2022, arXiv:2201.09865 eq. 8; compared over groups of hidden cells as in RIAD (Zavrtanik,
    Kristan and Skocaj, Pattern Recognition 112, 2021).
    """

    inner: Restorer
    cell: int = 4
    masks: int = 2
    beside: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None

    @property
    def evaluations(self) -> int:
        """Masks x those of the inner restorer."""
        return self.masks * self.inner.evaluations

    def __call__(self, model: Model, image: Tensor, cond: Cond) -> Restoration:
        """The restoration of `image` [B, C, H, W] in [0, 1]."""
        return super().__call__(model, image, cond if self.beside is None else replace(cond, image=image))

    def estimates(self, denoiser: Denoiser, z: Tensor, cond: Cond) -> list[Tensor]:
        """The repaired codes [B, c, h, w], as many as the inner restorer makes; `beside` finds the picture in
        `cond.image`.

        Raises:
            ConfigError: cells that cannot be hidden one by one.
            RefusalError: no picture, though `beside` asks for one.
        """
        whole: list[Tensor] = []
        for hidden in groups(z.shape[-2], z.shape[-1], cell=self.cell, masks=self.masks):
            hidden = hidden.to(z.device)  # [h, w]
            known = (~hidden).expand(len(z), 1, -1, -1)  # [B, 1, h, w]
            start = torch.where(known, z, around(z, known, self.cell))
            told = cond
            if self.beside is not None:
                told = replace(cond, image=self.beside(picture(cond), z, known))
            painted = self.inner.estimates(Inpaint(denoiser, start, known), start, told)
            whole = [
                torch.where(hidden, new, old) for new, old in zip(painted, whole or painted, strict=True)
            ]
        return whole


def groups(height: int, width: int, *, cell: int, masks: int) -> list[Tensor]:
    """Which positions each of `masks` passes hides, [height, width] of bool; together each position once.

    Args:
        height: of the code.
        width: of the code.
        cell: side of a cell in positions.
        masks: 2 for a checkerboard, 4 for every other cell of every other row.

    Raises:
        ConfigError: another number of masks, a cell below 1, or one that covers the whole code.
    """
    if masks not in (2, 4):
        raise ConfigError(f"Cells are hidden in 2 or 4 groups, got masks={masks}.")
    if not 1 <= cell < max(height, width):
        raise ConfigError(
            f"A hidden cell is painted from the cells around it, but cells of {cell} x {cell} positions leave none in "
            f"a code of {height} x {width}; choose one from 1 to {max(height, width) - 1}."
        )
    row = torch.arange(height)[:, None] // cell  # [h, 1]
    column = torch.arange(width)[None] // cell  # [1, w]
    number = (row + column) % 2 if masks == 2 else row % 2 * 2 + column % 2  # [h, w]
    return [number == group for group in range(masks)]


def around(z: Tensor, known: Tensor, reach: int) -> Tensor:
    """At each position the mean of the known positions of `z` [B, c, h, w] at most `reach` away, row or column.

    0 where none is known; `known` is [B, 1, h, w] of bool.
    """
    side = 2 * reach + 1
    share = F.avg_pool2d(known.to(z.dtype), side, stride=1, padding=reach)  # [B, 1, h, w]
    total = F.avg_pool2d(z.where(known, 0), side, stride=1, padding=reach)  # [B, c, h, w]
    return total / share.where(share > 0, 1)


def picture(cond: Cond) -> Tensor:
    """The picture [B, C, H, W] that a maker of `Cond.image` starts from; RefusalError where there is none."""
    if cond.image is None:
        raise RefusalError(
            "This restorer makes the picture that the network reads beside the code out of the scored picture, and got "
            "a code alone: call it with the picture, restorer(model, image, cond), or measure it with a distance."
        )
    return cond.image
