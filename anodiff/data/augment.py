"""Random changes that leave a good part good."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import kornia.enhance
import kornia.geometry.transform
import numpy as np
import torch
from torch import Tensor

from anodiff.errors import ConfigError


class _Draw(NamedTuple):
    flip_h: bool
    flip_v: bool
    quarter: int
    angle: float  # degrees
    dx: float  # share of the width
    dy: float  # share of the height
    scale: float
    brightness: float
    contrast: float


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random changes of pictures, called with pictures and one seed a row; with the defaults nothing changes.

    Flips and quarter turns move pixels exactly. Turn, shift and scale are one bilinear warp whose border is
    the mirrored picture, so no black corner ever appears. Contrast acts about the picture's mean, then
    brightness is added, then values are clipped to [0, 1].
    """

    flip_h: bool = False  # left and right exchanged, half of the time
    flip_v: bool = False  # top and bottom exchanged, half of the time
    rotate90: bool = False  # 0 to 3 quarter turns; on pictures that are not square, half turns only
    rotate: float = 0.0  # degrees either way
    translate: float = 0.0  # share of the side, either way
    scale: float = 0.0  # 0.1: from 1/1.1 to 1.1
    brightness: float = 0.0  # added, either way
    contrast: float = 0.0  # 0.1: factor from 1/1.1 to 1.1

    def __post_init__(self) -> None:
        """Refuses ranges without meaning."""
        for name, limit in _LIMITS.items():
            value = getattr(self, name)
            if not 0.0 <= value <= limit:
                raise ConfigError(f"Expected `{name}` between 0 and {limit:g}, got {value}.")

    def __call__(self, image: Tensor, seeds: Sequence[int]) -> Tensor:
        """The changed pictures [B, C, H, W] in [0, 1]; row i depends on its own picture and `seeds[i]` only."""
        if image.ndim != 4 or image.shape[0] != len(seeds):
            raise ConfigError(
                f"Expected pictures [B, C, H, W] and B seeds, got {tuple(image.shape)}, {len(seeds)} seeds."
            )
        draws = [self._draw(seed, square=image.shape[2] == image.shape[3]) for seed in seeds]
        image = torch.stack([_exact(row, draw) for row, draw in zip(image, draws, strict=True)])
        if self.rotate or self.translate or self.scale:
            image = _warped(image, draws)
        if self.contrast:
            factor = image.new_tensor([draw.contrast for draw in draws])
            image = kornia.enhance.adjust_contrast_with_mean_subtraction(image, factor)
        if self.brightness:
            image = kornia.enhance.adjust_brightness(
                image, image.new_tensor([draw.brightness for draw in draws])
            )
        return image.clamp(0.0, 1.0)

    def _draw(self, seed: int, *, square: bool) -> _Draw:
        # every number is drawn whether it is used or not: switching one change on leaves the others as they were
        u = np.random.default_rng(seed).uniform(-1.0, 1.0, size=9)
        turns = int((u[2] + 1) * 2) % 4
        return _Draw(
            flip_h=self.flip_h and u[0] > 0,
            flip_v=self.flip_v and u[1] > 0,
            quarter=0 if not self.rotate90 else turns if square else 2 * (turns % 2),
            angle=self.rotate * u[3],
            dx=self.translate * u[4],
            dy=self.translate * u[5],
            scale=(1 + self.scale) ** u[6],
            brightness=self.brightness * u[7],
            contrast=(1 + self.contrast) ** u[8],
        )


_LIMITS = {"rotate": 180.0, "translate": 0.5, "scale": 1.0, "brightness": 1.0, "contrast": 1.0}


def _exact(row: Tensor, draw: _Draw) -> Tensor:
    dims = [dim for dim, flip in ((2, draw.flip_h), (1, draw.flip_v)) if flip]
    row = row.flip(dims) if dims else row
    return row.rot90(draw.quarter, (1, 2)) if draw.quarter else row


def _warped(image: Tensor, draws: Sequence[_Draw]) -> Tensor:
    count, _, height, width = image.shape
    centre = image.new_tensor([(width - 1) / 2, (height - 1) / 2]).expand(count, 2)
    angle = image.new_tensor([draw.angle for draw in draws])
    scale = image.new_tensor([[draw.scale, draw.scale] for draw in draws])
    matrix = kornia.geometry.transform.get_rotation_matrix2d(centre, angle, scale)  # [B, 2, 3]
    shift = image.new_tensor([[draw.dx * width, draw.dy * height] for draw in draws])
    matrix = torch.cat([matrix[:, :, :2], matrix[:, :, 2:] + shift[:, :, None]], dim=2)
    return kornia.geometry.transform.warp_affine(image, matrix, (height, width), padding_mode="reflection")
