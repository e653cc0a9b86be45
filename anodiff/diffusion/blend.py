"""A denoiser that changes the place of a word and leaves the rest of the picture as it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from anodiff.cond import Cond
from anodiff.diffusion.editing import Recorder, halves
from anodiff.diffusion.guidance import Wrapper
from anodiff.errors import ConfigError, RefusalError


@dataclass(frozen=True, eq=False)
class LocalBlend(Wrapper):
    """The targets' estimate with the source's in its place wherever neither's word looks.

    `x0_target = x0_source + R (x0_target - x0_source)`; `R` is 1 where the source's or the target's recorded map of
    the word is at least `threshold` of its maximum, over the walk so far, and 0 elsewhere. Rows are pairs, the sources
    first (`editing`).

    Derivation: the paper blends `x_t`. A step of any sampler here without fresh noise is a linear map of `y` and the
    estimates at each position by itself. Where two rows start equal and are always given the same estimate, they stay
    equal to the last bit, and so at each level the blended `y` is what blending `y` would give. With fresh noise of a
    fixed variance this holds where both rows of a pair draw the same. A place that leaves R on the way keeps a
    difference that falls with sigma and is 0 at the end.

    Args:
        inner: the denoiser, with its guidance.
        recorder: stands in the conditions' edit, so that the inner denoiser fills it; of y's height and width.
        words: for each row the places of its word among the tokens; none: that row marks nothing.
        threshold: share of the maximum, in [0, 1]; 0 = the inner denoiser.

    Raises:
        ConfigError: a threshold out of range.
        RefusalError: nothing was recorded, the recorder has another shape, or rows are not pairs.

    Source: arXiv:2208.01626 section 3.2, local editing.
    """

    recorder: Recorder
    words: Sequence[Sequence[int]]
    threshold: float = 0.3

    def _steer(self, x0: Tensor, y: Tensor, sigma: Tensor, cond: Cond | None) -> Tensor:
        source, target = halves(x0)
        region = self.region()
        if region.shape[-2:] != x0.shape[-2:] or len(region) != len(source):
            raise RefusalError(
                f"the recorder is of {len(region)} pairs of {' x '.join(map(str, region.shape[-2:]))}, but the batch "
                f"has {len(source)} of {' x '.join(map(str, x0.shape[-2:]))}: make one of the code's height and width"
            )
        return torch.cat((source, torch.where(region, target, source)))

    def region(self) -> Tensor:
        """R: where the targets may differ from their sources, [B / 2, 1, h, w] bool."""
        if not 0 <= self.threshold <= 1:
            raise ConfigError(
                f"the threshold of a local blend is a share of a map's maximum in [0, 1], got {self.threshold}"
            )
        source, target = halves(self.recorder.maps(self.words) >= self.threshold)
        return source | target
