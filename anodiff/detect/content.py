"""What a picture shows, in one number: the seed of its noise, and by what it is known again."""

from __future__ import annotations

import hashlib

import torch
import torch.nn.functional as F
from torch import Tensor

from anodiff.noise import content_seed

_GRID = 4
_OFFSET = 0.2718  # off the halves and quarters on which means of 8-bit pixels like to fall


def coarse_seed(image: Tensor, seed: int) -> int:
    """A seed for the noise of one picture [C, H, W] in [0, 1]: a function of its coarse content and the
    run's seed.

    `content_seed` of the whole picture changes with the last digit of any of its pixels, and a resize of the
    same picture in grey, BGR or 16 bit differs in just that digit, which would give it other noise and
    another score. The means of a 4 x 4 grid, rounded to 8 bit, are the same for all of them (up to one case
    in some ten thousand). That pictures which look alike share their noise does no harm.
    """
    means = F.adaptive_avg_pool2d(image.detach().double().mean(0, keepdim=True), _GRID)  # [1, 4, 4]
    return content_seed((means * 255 + _OFFSET).floor() / 255, seed)


def digest(image: Tensor) -> str:
    """Sixteen hexadecimal digits by which a picture [C, H, W] in [0, 1] is known again, whatever file it came in.

    SHA-256 of its shape and pixels in 8 bit: another file, name or lossless format of the same picture gives the same,
    one changed pixel another.
    """
    pixels = (image.detach().cpu() * 255).round().to(torch.uint8).contiguous()
    return hashlib.sha256(str(tuple(pixels.shape)).encode() + pixels.numpy().tobytes()).hexdigest()[:16]
