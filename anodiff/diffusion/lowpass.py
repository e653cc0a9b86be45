"""The low frequencies of a code, and a denoiser held to those of a known one."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from anodiff.cond import Cond
from anodiff.diffusion.guidance import Wrapper
from anodiff.errors import ConfigError


def low(z: Tensor, factor: int) -> Tensor:
    """The low frequencies of `z` [B, C, h, w]: the mean of each `factor` x `factor` cell, repeated over the cell.

    A projection, `low(low(z)) = low(z)`, and an orthogonal one: what it leaves out has mean 0 in every cell. Cells at
    the right and the lower border that do not fit are averaged over what there is of them.

    Raises:
        ConfigError: a factor below 1.
    """
    if factor < 1:
        raise ConfigError(
            f"Low frequencies are the means of cells of 1 x 1 or more, got a factor of {factor}."
        )
    height, width = z.shape[-2:]
    means = F.avg_pool2d(
        z, factor, ceil_mode=True, count_include_pad=False
    )  # [B, C, ceil(h / f), ceil(w / f)]
    return means.repeat_interleave(factor, -2).repeat_interleave(factor, -1)[..., :height, :width]


@dataclass(frozen=True, eq=False)
class KeepLow(Wrapper):
    """The estimate with the low frequencies of a known code in place of its own: `x0 + low(known) - low(x0)`.

    The walk ends at what the last estimate was, so its end has the low frequencies of `known`, whatever the sampler.

    Derivation: the paper replaces `low(x_t)` by that of the noised known picture at every step. Put into the estimate
    of x0 instead, the same holds at every noise level at once, and no noise is drawn for it.

    Args:
        inner: the denoiser.
        known: [B, C, h, w] in codec space; only its low frequencies matter.
        factor: N of the paper, side of a cell in positions; 1 = `known` itself.

    Raises:
        ConfigError: a factor below 1.

    Source: ILVR, Choi 2021, arXiv:2108.02938 eq. 6-8; its filter is a resize there and back, which is no projection.
    """

    known: Tensor
    factor: int

    def _steer(self, x0: Tensor, y: Tensor, sigma: Tensor, cond: Cond | None) -> Tensor:
        return x0 + low(self.known.to(x0.dtype) - x0, self.factor)
