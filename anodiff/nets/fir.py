"""Changes of size by the smoothing filter [1, 3, 3, 1], in place of means and nearest neighbours.

Source: Karras et al., arXiv:1912.04958, and Zhang, arXiv:1904.11486 (why a map is smoothed before it is
thinned out); in diffusion networks arXiv:2011.13456, appendix H.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def smoothed(h: Tensor, size: tuple[int, int]) -> Tensor:
    """The map `[B, C, *size]`, half or twice as large, its sides filtered with [1, 3, 3, 1] one after the other.

    Smaller: `y_i = (h_{2i-1} + 3 h_{2i} + 3 h_{2i+1} + h_{2i+2}) / 8`. Larger, four times the transpose of that:
    `y_{2i} = (h_{i-1} + 3 h_i) / 4` and `y_{2i+1} = (3 h_i + h_{i+1}) / 4`. Beyond an edge stands the edge itself, so
    that a constant map stays what it is.

    Args:
        h: `[B, C, H, W]`, in either memory format; channels_last is the faster on a CPU.
        size: Half of (H, W) rounded up, or (H, W), or twice (H, W) or one less a side.
    """
    height, width = h.shape[-2:]
    if (height, width) == size:
        return h
    if height >= size[0] and width >= size[1]:
        return _halved(h)
    # Between pixels a linear interpolation at quarters is this filter; measured, it is the fastest way up.
    y = F.interpolate(h, scale_factor=2, mode="bilinear", align_corners=False)  # [B, C, 2 H, 2 W]
    return y[..., : size[0], : size[1]]


def _halved(h: Tensor) -> Tensor:
    height, width = h.shape[-2:]
    h = F.pad(h, (1, 1 + width % 2, 1, 1 + height % 2), mode="replicate")
    i = torch.arange(4, device=h.device)
    taps = 1 + i * (3 - i)  # 1, 3, 3, 1, made where the map lies: a copy to a device would wait for it
    kernel = (taps[:, None] * taps).to(h.dtype) / 64  # [4, 4]
    channels = h.shape[1]
    return F.conv2d(h, kernel.expand(channels, 1, 4, 4), stride=2, groups=channels)
