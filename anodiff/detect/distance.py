"""Distances between a picture and its restoration, as maps; higher is more anomalous.

All but `Latent` and `Spread` compare pictures and give maps at the picture's size; a codec that does not paint
has none to compare, and they refuse.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from kornia.color import rgb_to_lab
from kornia.filters import spatial_gradient
from kornia.metrics import ssim
from torch import Tensor, nn

from anodiff.codec.protocol import Codec
from anodiff.detect.heatmap import to_size
from anodiff.detect.restore import Restoration
from anodiff.errors import ConfigError, RefusalError


class Distance(Protocol):
    """Restoration -> map [B, 1, H, W]; a row's map depends on that row alone."""

    def __call__(self, restoration: Restoration) -> Tensor:
        """The map, higher where picture and restoration differ more."""
        ...


def pictures(restoration: Restoration, name: str) -> tuple[Tensor, Tensor]:
    """Picture and restoration [B, C, H, W]; RefusalError where the codec painted none."""
    if restoration.image_hat is None:
        raise RefusalError(
            f"{name} compares pictures, and this codec paints none: use the distance Latent, which compares "
            "in the codec's own space, or a codec that paints (pixels)."
        )
    return restoration.image, restoration.image_hat


@dataclass(frozen=True)
class L1:
    """Mean absolute difference over channels, in [0, 1]."""

    def __call__(self, restoration: Restoration) -> Tensor:
        """The map [B, 1, H, W]."""
        a, b = pictures(restoration, "L1")
        return (a - b).abs().mean(1, keepdim=True)  # [B, 1, H, W]


@dataclass(frozen=True)
class L2:
    """Mean squared difference over channels, in [0, 1]."""

    def __call__(self, restoration: Restoration) -> Tensor:
        """The map [B, 1, H, W]."""
        a, b = pictures(restoration, "L2")
        return (a - b).square().mean(1, keepdim=True)  # [B, 1, H, W]


@dataclass(frozen=True)
class SSIM:
    """`(1 - SSIM) / 2` in [0, 1], mean over channels, in a Gaussian window of odd `window` pixels.

    Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity".
    """

    window: int = 11

    def __call__(self, restoration: Restoration) -> Tensor:
        """The map [B, 1, H, W]."""
        a, b = pictures(restoration, "SSIM")
        return dissimilarity(a, b, self.window)


@dataclass(frozen=True)
class MultiScaleSSIM:
    """`(1 - SSIM) / 2` at `scales` resolutions, each half the one before, brought back to full size and
    averaged.

    Scales at which the picture is smaller than the window are left out.
    """

    window: int = 11
    scales: int = 3

    def __call__(self, restoration: Restoration) -> Tensor:
        """The map [B, 1, H, W]."""
        a, b = pictures(restoration, "MultiScaleSSIM")
        return over_scales(a, b, self.scales, self.window, lambda x, y: dissimilarity(x, y, self.window))


@dataclass(frozen=True)
class Gradient:
    """One minus the gradient-magnitude similarity of the grey pictures, averaged over `scales` halvings, in
    [0, 1].

    `1 - (2 g g' + c) / (g^2 + g'^2 + c)`, with g the length of the Sobel gradient (Xue et al. 2014,
    arXiv:1308.3052, eq. 4; several scales as in RIAD, Zavrtanik et al. 2021). `constant` = c holds flat
    places steady.
    """

    scales: int = 3
    constant: float = 0.0026

    def __call__(self, restoration: Restoration) -> Tensor:
        """The map [B, 1, H, W]."""
        a, b = (picture.mean(1, keepdim=True) for picture in pictures(restoration, "Gradient"))
        return over_scales(a, b, self.scales, 8, self._single)

    def _single(self, a: Tensor, b: Tensor) -> Tensor:
        g, h = (spatial_gradient(x).square().sum(2) for x in (a, b))  # [B, 1, H, W] squared lengths
        return 1 - (2 * (g * h).sqrt() + self.constant) / (g + h + self.constant)


@dataclass(frozen=True)
class Lab:
    """The colour difference in CIE L*a*b* (Delta E of 1976) / 100; of grey pictures the lightness only."""

    def __call__(self, restoration: Restoration) -> Tensor:
        """The map [B, 1, H, W]."""
        a, b = (rgb_to_lab(picture.expand(-1, 3, -1, -1)) for picture in pictures(restoration, "Lab"))
        return (a - b).square().sum(1, keepdim=True).sqrt() / 100  # [B, 1, H, W]


@dataclass(frozen=True)
class Latent:
    """Mean squared difference over the channels of the codec's space, at the codec's resolution [B, 1, h, w].

    The only one that compares for codecs that do not paint.
    """

    def __call__(self, restoration: Restoration) -> Tensor:
        """The map [B, 1, h, w]."""
        return (restoration.z - restoration.z_hat).square().mean(1, keepdim=True)


@dataclass(frozen=True)
class Spread:
    """How far the restorations of one picture disagree, at the codec's resolution [B, 1, h, w]; for every codec.

    The root of the mean square over channels of their deviation, over draws and levels. A model of normals that knows
    what belongs somewhere draws it again and again; where it does not know, each draw is another.
    """

    def __call__(self, restoration: Restoration) -> Tensor:
        """The map [B, 1, h, w]; ConfigError where there is but one restoration."""
        if restoration.spread is None:
            raise ConfigError(
                "Spread is the disagreement of several restorations of one picture, and this restorer makes one: "
                "take draws of 2 or more, or several levels."
            )
        return restoration.spread.square().mean(1, keepdim=True).sqrt()


class Feature(nn.Module):
    """The difference of deep features of the two pictures, averaged over stages, at the picture's size.

    `features` maps pictures [B, C, H, W] in [0, 1] to features [B, f, h', w'] or to a sequence of them, one
    a stage; a feature codec's `encode` is called where there is one. "cosine" is `1 - cos` in [0, 2]; "l2"
    the mean square over channels.
    """

    def __init__(
        self, features: nn.Module | Codec | Callable, *, measure: Literal["cosine", "l2"] = "cosine"
    ) -> None:
        super().__init__()
        self.features = features
        self.measure = measure

    def forward(self, restoration: Restoration) -> Tensor:
        """The map [B, 1, H, W]."""
        a, b = pictures(restoration, "Feature")
        maps = [
            to_size(self._compare(x, y), a.shape[-2:])
            for x, y in zip(self._stages(a), self._stages(b), strict=True)
        ]
        return torch.stack(maps).mean(0)

    def _stages(self, image: Tensor) -> Sequence[Tensor]:
        look: Callable = getattr(self.features, "encode", self.features)  # type: ignore[arg-type]
        found = look(image)
        return (found,) if isinstance(found, Tensor) else tuple(found)

    def _compare(self, a: Tensor, b: Tensor) -> Tensor:
        match self.measure:
            case "cosine":
                # |a/|a| - b/|b||^2 / 2, which is 0 for two zero vectors, where the cosine is not defined
                return (F.normalize(a) - F.normalize(b)).square().sum(1, keepdim=True) / 2  # [B, 1, h', w']
            case "l2":
                return (a - b).square().mean(1, keepdim=True)
            case _:
                raise ConfigError(f"Unknown measure of features {self.measure!r}: choose cosine or l2.")


def dissimilarity(a: Tensor, b: Tensor, window: int) -> Tensor:
    """`(1 - SSIM) / 2` [B, 1, H, W] in [0, 1] of pictures in [0, 1], mean over channels."""
    # float64: variances are differences of nearly equal numbers, and a flat place would show float32's rounding
    return ((1 - ssim(a.double(), b.double(), window)) / 2).clamp(0, 1).mean(1, keepdim=True).to(a.dtype)


def over_scales(
    a: Tensor, b: Tensor, scales: int, smallest: int, compare: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """The mean map [B, 1, H, W] of `compare` over `scales` halvings of at least `smallest` pixels a side."""
    shape = a.shape[-2:]
    maps = []
    for scale in range(scales):
        if scale and min(a.shape[-2:]) < smallest * 2:
            break
        if scale:
            a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
        maps.append(to_size(compare(a, b), shape))
    return torch.stack(maps).mean(0)
