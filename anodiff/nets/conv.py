"""Two convolutions whose arithmetic can be had for less: over single positions, and over an enlarged map."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WORTHWHILE = 256
"""Positions of a map from which on enlarging it within the kernel is faster, measured with 64 to 256 channels."""


def interleaved(h: Tensor) -> bool:
    """Whether `h [B, C, H, W]` lies on the CPU with the channels of a position side by side (channels_last)."""
    return (
        h.device.type == "cpu"
        and not h.is_contiguous()
        and h.is_contiguous(memory_format=torch.channels_last)
    )


class Pointwise(nn.Conv2d):
    """A convolution of 1 x 1, the same linear map at every position; interleaved channels go to it as they lie."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1)

    def forward(self, input: Tensor) -> Tensor:
        """The map `[B, outputs, H, W]` of `input [B, inputs, H, W]`."""
        if not interleaved(input):
            return super().forward(input)
        y = F.linear(input.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias)  # [B, H, W, outputs]
        return y.permute(0, 3, 1, 2)


def enlarged(h: Tensor, conv: nn.Conv2d, size: tuple[int, int]) -> Tensor:
    """`conv` of `h [B, C, H, W]` brought to `size` by nearest neighbours, `[B, K, *size]`.

    Where both sides are doubled, each output sees at most 2 x 2 different inputs: of the three rows (columns) that
    the kernel meets, two are copies of one. Adding up the weights that meet the same input leaves one kernel of
    2 x 2 for each of the four positions in a doubled pixel: 16 multiplications where the enlarged map needs 36. The
    sums are made anew at each call, so that this pays for maps of some size only; whether, does not depend on the
    batch, lest a row alone take another way than in company.

    Args:
        h: `[B, C, H, W]`.
        conv: Of 3 x 3 with a padding of 1 and a bias.
        size: (2H, 2W), or one less where that side was odd before it was halved.
    """
    b, _, height, width = h.shape
    if not interleaved(h) or size != (2 * height, 2 * width) or height * width < WORTHWHILE:
        return conv(F.interpolate(h, size=size, mode="nearest"))
    k = conv.out_channels
    kernels = _doubled(_doubled(conv.weight, 2), 4)  # [2 (column), 2 (row), K, C, 2, 2]
    kernels = kernels.flatten(0, 2).contiguous(memory_format=torch.channels_last)  # [4 K, C, 2, 2]
    bias = None if conv.bias is None else conv.bias.repeat(4)
    y = F.conv2d(h, kernels, bias, padding=1).permute(0, 2, 3, 1)  # [B, H + 1, W + 1, 4 K]
    rows = [
        torch.stack(
            [
                y[:, i : i + height, j : j + width, (2 * j + i) * k : (2 * j + i + 1) * k]  # [B, H, W, K]
                for j in (0, 1)
            ],
            dim=3,
        )
        for i in (0, 1)
    ]  # each [B, H, W, 2, K]
    return torch.stack(rows, dim=2).view(b, *size, k).permute(0, 3, 1, 2)


def _doubled(weight: Tensor, dim: int) -> Tensor:
    """The kernels of the even and of the odd outputs along `dim`, `[2, ...]`, that side being 2 instead of 3.

    Even outputs meet (previous, own, own), odd ones (own, own, next).
    """
    first, second, third = weight.unbind(dim)
    even = torch.stack([first, second + third], dim)
    odd = torch.stack([first + second, third], dim)
    return torch.stack([even, odd])
