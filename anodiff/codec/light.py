"""Pictures taken in more or less light, brought to the light that good parts usually have."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from anodiff.errors import DataError
from anodiff.learnt import Learnt

Mode = Literal["equal", "auto"]

HALF = 0.5
"""`auto` equalises where light is more than this share of what good pictures differ by, in squares."""

DIM = 0.02
"""Least deviation that is divided by: a picture of one grey has none, and its noise is no contrast."""

_COPY = 32  # side of the small grey copies that are compared, px


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
    """Each picture with the mean and the contrast that good ones have on average.

        x' = clamp(m + (x - mean x) s / max(sd x, DIM), 0, 1)

    with mean and deviation of one picture over all its pixels and channels, so that hues stay, and m and s the means of
    both over good pictures. What a longer exposure, a weaker lamp or another gain changes everywhere alike is gone; so
    is a defect that does nothing but that. A picture's result depends on no other picture.
    """

    law: Tensor  # [3]: m, s, and 1 where pictures are equalised or 0 where they stay; empty until learnt

    def __init__(self, mode: Mode = "auto") -> None:
        """Store the mode: "equal" always does it; "auto" where good pictures come much nearer to each other by it."""
        super().__init__()
        self.mode: Mode = mode
        self.expect("law")

    def learn(self, images: Iterable[Tensor]) -> Exposures:
        """What light does to good pictures, from batches [B, C, H, W] in [0, 1]; one picture is enough.

        `auto` equalises where after^2 < before^2 / 2: more than half of what good pictures differ by is light.

        Raises:
            DataError: there is none.
        """
        means, deviations, copies = [], [], []
        for image in images:
            mean, deviation = _exposure(image)
            means.append(mean.flatten())
            deviations.append(deviation.flatten())
            copies.append(_small(image))
        if not copies:
            raise DataError("Expected at least one good picture to learn the usual light from, got none.")
        grey = torch.cat(copies).cpu()  # [n, _COPY^2]
        mean, deviation = torch.cat(means).cpu()[:, None], torch.cat(deviations).cpu()[:, None]
        m, s = float(mean.mean()), float(deviation.mean())
        before, after = _apart(grey), _apart(m + (grey - mean) * (s / deviation))
        equal = self.mode == "equal" or after**2 < HALF * before**2
        self.store("law", torch.tensor([m, s, float(equal)]))
        return Exposures(before, after, equal)

    def forward(self, image: Tensor) -> Tensor:
        """The pictures [B, C, H, W] in the usual light.

        Raises:
            ConfigError: nothing was learnt yet.
        """
        m, s, equal = self.learnt("law").tolist()
        if not equal:
            return image
        mean, deviation = _exposure(image)
        return (m + (image - mean) * (s / deviation)).clamp(0, 1)


def _exposure(image: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation [B, 1, 1, 1] of each picture, the latter at least `DIM`."""
    over = (1, 2, 3)
    deviation = image.std(dim=over, correction=0, keepdim=True)
    return image.mean(dim=over, keepdim=True), deviation.clamp_min(DIM)


def _small(image: Tensor) -> Tensor:
    """Grey copies [B, _COPY^2] of the pictures."""
    return F.adaptive_avg_pool2d(image.mean(dim=1, keepdim=True), _COPY).flatten(1)


def _apart(copies: Tensor) -> float:
    """Median over copies [n, d] of the root mean square distance to the mean of the others."""
    count = len(copies)
    if count < 2:
        return math.nan
    others = (copies.sum(0) - copies) / (count - 1)
    return float((copies - others).square().mean(1).sqrt().median())
