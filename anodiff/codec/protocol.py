"""What stands between a picture and the space in which diffusion happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Codec(Protocol):
    """A pair of maps between pixels and the space of `z`; `paints` says whether the way back exists."""

    paints: bool
    """False: a feature codec, whose `decode` refuses."""
    bounded: bool
    """True: `z` lies in [-1, 1], so that an estimate may be clamped there."""

    @property
    def channels(self) -> int:
        """Channels `c` of `z`."""
        ...

    @property
    def stride(self) -> int:
        """Pixels of the picture a side of one position of `z` stands for, `s`."""
        ...

    def encode(self, image: Tensor) -> Tensor:
        """The code `z [B, c, H/s, W/s]` of pictures `[B, C, H, W]` in [0, 1], scaled as a denoiser wants it."""
        ...

    def decode(self, z: Tensor) -> Tensor:
        """The pictures `[B, C, H, W]` of codes `z`, nominally in [0, 1], not clipped."""
        ...

    def shrink(self, mask: Tensor) -> Tensor:
        """The mask `[B, 1, H/s, W/s]` of the positions of which every pixel is known in `mask [B, 1, H, W]`."""
        ...


def whole_cells(mask: Tensor, stride: int, *, reach: int = 0) -> Tensor:
    """The cells of `stride` x `stride` pixels that are known whole, `[B, 1, ceil(H / stride), ceil(W / stride)]`.

    The minimum of the mask over each cell, and over its neighbours up to `reach` cells away. Pixels beyond the
    border count as known, for there is nothing to be unknown.

    Args:
        mask: `[B, 1, H, W]`, True (or 1) where a pixel is known; the result has its type.
        stride: Side of a cell in pixels.
        reach: How many cells around must be known too.
    """
    unknown = 1.0 - mask.float()
    unknown = F.pad(unknown, (0, -mask.shape[-1] % stride, 0, -mask.shape[-2] % stride))
    unknown = F.max_pool2d(unknown, stride)  # [B, 1, ceil(H / stride), ceil(W / stride)]
    unknown = F.max_pool2d(unknown, 2 * reach + 1, stride=1, padding=reach)
    return (1.0 - unknown).to(mask.dtype)


def by_row(image: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
    """`run` of a batch, on a CPU picture by picture.

    One picture's maps fit into the cache and a batch's do not, so that this is no slower; and a picture's code is
    then the same to the last bit whatever is beside it.
    """
    if image.device.type != "cpu" or image.shape[0] <= 1:
        return run(image)
    return torch.cat([run(row) for row in image.split(1)])
