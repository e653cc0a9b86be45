"""Anomaly maps as pictures: one way to smooth them and one way to bring them to a size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil

import numpy as np
import torch
import torch.nn.functional as F
from kornia.filters import get_gaussian_kernel1d
from torch import Tensor


def to_size(maps: Tensor, shape: Sequence[int]) -> Tensor:
    """Maps [B, 1, h, w] brought to `shape` (height, width), bilinearly: the only resize a map ever sees.

    Every value is a weighted mean of the map's own, so that nothing rises above its maximum and a map below
    the threshold stays below it at any size. Masks are never resized, the map is (a thin scratch would
    change its area).
    """
    if tuple(maps.shape[-2:]) == tuple(shape):
        return maps
    shrinks = shape[0] < maps.shape[-2] or shape[1] < maps.shape[-1]
    return F.interpolate(
        maps, size=shape, mode="bilinear", align_corners=False, antialias=shrinks
    )  # [B, 1, H, W]


def array_to_size(heat: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """One map [h, w] float32 brought to `shape` by `to_size`."""
    return to_size(torch.from_numpy(heat)[None, None], shape)[0, 0].numpy()  # [H, W]


def blur(maps: Tensor, sigma: float) -> Tensor:
    """Maps [B, C, h, w] after a Gaussian of `sigma` of the map's own pixels; 0 leaves them as they are."""
    if sigma <= 0:
        return maps
    height, width = maps.shape[-2:]
    return _band(height, sigma).to(maps) @ maps @ _band(width, sigma).T.to(maps)


@cache
def _band(size: int, sigma: float) -> Tensor:
    """[size, size]: what position i takes from each other by a Gaussian of `sigma`, cut off at 3 `sigma`.

    Positions beyond the border count as the last within. A product with it is ten times as fast as a convolution of one
    channel.
    """
    reach = ceil(3 * sigma)
    kernel = get_gaussian_kernel1d(2 * reach + 1, sigma, dtype=torch.float64)[0]
    near = torch.arange(size)[:, None] + torch.arange(-reach, reach + 1)  # [size, 2 reach + 1]
    band = torch.zeros(size, size, dtype=torch.float64)
    return band.scatter_add_(1, near.clamp(0, size - 1), kernel.expand(size, -1))


@dataclass(frozen=True)
class Smooth:
    """A Gaussian over a map before it is calibrated; `sigma` in the map's own pixels, 0 for none."""

    sigma: float = 0.0

    def __call__(self, maps: Tensor) -> Tensor:
        """The maps [B, 1, h, w], smoothed; each by itself."""
        return blur(maps, self.sigma)
