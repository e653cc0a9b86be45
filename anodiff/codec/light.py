"""Pictures taken in more or less light, brought to the light that good parts usually have."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from anodiff.errors import DataError
from anodiff.learnt import Learnt

Mode = Literal["equal", "auto"]

MOST = 0.6
"""`auto` equalises where light is more than this share of what good pictures differ by, in squares."""

DIM = 0.02
"""Least deviation that is divided by: a picture of one grey has none, and its noise is no contrast."""

_COPY = 32  # side of the small grey copies that are compared, px
_FLAT = 1e-12  # least square of an axis; one of a single pixel has none


@dataclass(frozen=True)
class Exposures:
    """What light does to good pictures.

    Attributes:
        before: median distance of a small grey copy to the mean of the others (root mean square, grey 0 to 1), as
            pictures are; NaN for fewer than two.
        after: the same in equal light.
        equal: whether pictures are brought to equal light from now on.
    """

    before: float
    after: float
    equal: bool

    @property
    def sentence(self) -> str:
        """What was found, with the figures."""
        if math.isnan(self.before):
            found = "one picture tells nothing of how light varies"
        else:
            found = f"good pictures differ by {self.before:.4f} as they are and by {self.after:.4f} in equal light"
        return f"{found}; {'equalising it' if self.equal else 'leaving it as it is'}"


class Light(Learnt):
    """Each picture with the mean, the slope and the contrast that good ones have on average.

        x = mean + a u + b v + d          u, v from -1 to 1 across and down; a, b by least squares from the grey picture
        x' = clamp(m + s (d / sd + A u + B v), 0, 1)          sd = max(deviation of d, DIM)

    with mean and deviation over all pixels and channels of the one picture, so that hues stay, and m, s, A, B the means
    of mean, sd, a / sd and b / sd over good pictures. What a longer exposure, a weaker lamp, another gain or a lamp
    further to one side changes is gone; so is a defect that does nothing but that. A picture's result depends on no
    other picture.
    """

    law: (
        Tensor  # [5]: m, s, A, B, and 1 where pictures are equalised or 0 where they stay; empty until learnt
    )

    def __init__(self, mode: Mode = "auto") -> None:
        """Store the mode: "equal" always does it; "auto" where good pictures come much nearer to each other by it."""
        super().__init__()
        self.mode: Mode = mode
        self.expect("law")

    def learn(self, images: Iterable[Tensor]) -> Exposures:
        """What light does to good pictures, from batches [B, C, H, W] in [0, 1]; one picture is enough.

        `auto` equalises where 1 - after^2 / before^2 > `MOST`: most of what good pictures differ by is light.

        Raises:
            DataError: there is none.
        """
        seen, copies = [], []
        for image in images:
            found = _lit(image)
            seen.append(torch.stack(found, dim=1).cpu())
            copies.append(F.adaptive_avg_pool2d(image.mean(dim=1, keepdim=True), _COPY).cpu())
        if not copies:
            raise DataError("Expected at least one good picture to learn the usual light from, got none.")
        each, grey = torch.cat(seen), torch.cat(copies)  # [n, 4], [n, 1, _COPY, _COPY]
        law = each.mean(dim=0)
        before, after = _apart(grey), _apart(_relit(grey, _Lit(*each.T), law))
        equal = self.mode == "equal" or after**2 < (1 - MOST) * before**2
        self.store("law", torch.cat([law, law.new_tensor([float(equal)])]))
        return Exposures(before, after, equal)

    def forward(self, image: Tensor) -> Tensor:
        """The pictures [B, C, H, W] in the usual light.

        Raises:
            ConfigError: nothing was learnt yet.
        """
        law = self.learnt("law")
        return _relit(image, _lit(image), law[:4]).clamp(0, 1) if law[4] else image


class _Lit(NamedTuple):
    """How pictures are lit."""

    mean: Tensor  # [B]
    deviation: Tensor  # [B] of what mean and slope leave, at least `DIM`
    across: Tensor  # [B] slope, in deviations
    down: Tensor  # [B] likewise


def _lit(image: Tensor) -> _Lit:
    grey = image.mean(dim=1)  # [B, H, W]
    mean = grey.mean(dim=(1, 2))
    across, down = _axes(image)
    a, b = ((grey * axis).mean(dim=(1, 2)) / axis.square().mean().clamp_min(_FLAT) for axis in (across, down))
    left = image - (_wide(mean) + _wide(a) * across + _wide(b) * down)
    deviation = left.square().mean(dim=(1, 2, 3)).sqrt().clamp_min(DIM)
    return _Lit(mean, deviation, a / deviation, b / deviation)


def _relit(image: Tensor, lit: _Lit, law: Tensor) -> Tensor:
    """The pictures by another law [4]: mean, deviation and slopes."""
    mean, deviation, a, b = law
    across, down = _axes(image)
    turn = _wide(a - lit.across) * across + _wide(b - lit.down) * down
    return mean + deviation * ((image - _wide(lit.mean)) / _wide(lit.deviation) + turn)


def _wide(value: Tensor) -> Tensor:
    """[B] as [B, 1, 1, 1]."""
    return value[:, None, None, None]


def _axes(image: Tensor) -> tuple[Tensor, Tensor]:
    """Across [1, W] and down [H, 1], from -1 to 1 with mean 0."""
    height, width = image.shape[-2:]
    return _axis(width, image)[None], _axis(height, image)[:, None]


def _axis(count: int, like: Tensor) -> Tensor:
    """So many values from -1 to 1; one alone is 0."""
    if count == 1:
        return like.new_zeros(1)
    return torch.linspace(-1, 1, count, device=like.device, dtype=like.dtype)


def _apart(copies: Tensor) -> float:
    """Median over copies [n, ...] of the root mean square distance to the mean of the others."""
    count = len(copies)
    if count < 2:
        return math.nan
    others = (copies.sum(0) - copies) / (count - 1)
    return float((copies - others).square().flatten(1).mean(1).sqrt().median())
