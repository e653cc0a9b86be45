"""Detail: the fine structure imagined anew above the coarse one, and compared with what is there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from anodiff.cond import Cond
from anodiff.detect.repair import picture
from anodiff.detect.restore import Model, Restoration, Restorer
from anodiff.diffusion.denoiser import Denoiser
from anodiff.diffusion.lowpass import KeepLow, low


@dataclass(frozen=True)
class Detail(Restorer):
    """The low frequencies of the code kept, the rest painted by `inner` from them alone.

    `inner` starts from `low(z)` and walks down under `KeepLow`, so that `z_hat` is a function of the means of cells of
    `factor` x `factor` positions and of the noise: a defect that leaves these means alone is forgotten, whatever the
    level. The level must be so high that the noise covers the details, or they are missed where the walk begins and
    come out too weak.

    `beside` is for a network that reads the small picture by concatenation (super-resolution): (the picture
    [B, C, H, W] in [0, 1], z [B, c, h, w]) -> `Cond.image` [B, C', h, w]. Such a network keeps to the small picture by
    itself, and `KeepLow` is left out.

    Source: ILVR, Choi 2021, arXiv:2108.02938; with `beside`, arXiv:2112.10752 section 4.4.
    """

    inner: Restorer
    factor: int = 4
    beside: Callable[[Tensor, Tensor], Tensor] | None = None

    @property
    def evaluations(self) -> int:
        """Those of the inner restorer."""
        return self.inner.evaluations

    def __call__(self, model: Model, image: Tensor, cond: Cond) -> Restoration:
        """The restoration of `image` [B, C, H, W] in [0, 1]."""
        return super().__call__(model, image, cond if self.beside is None else replace(cond, image=image))

    def estimates(self, denoiser: Denoiser, z: Tensor, cond: Cond) -> list[Tensor]:
        """The codes [B, c, h, w] with new details, as many as the inner restorer makes; `beside` finds the picture in
        `cond.image`.

        Raises:
            ConfigError: a factor below 1.
            RefusalError: no picture, though `beside` asks for one.
        """
        coarse = low(z, self.factor)  # [B, c, h, w]
        if self.beside is None:
            return self.inner.estimates(KeepLow(denoiser, coarse, self.factor), coarse, cond)
        return self.inner.estimates(denoiser, coarse, replace(cond, image=self.beside(picture(cond), z)))
