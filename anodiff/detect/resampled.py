"""A restorer that walks every stretch of the noise levels several times."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from anodiff.cond import Cond
from anodiff.detect.restore import Restorer, source
from anodiff.diffusion.denoiser import Denoiser
from anodiff.diffusion.guidance import Bind
from anodiff.diffusion.levels import spaced
from anodiff.diffusion.sampling import repaint


@dataclass(frozen=True)
class Resampled(Restorer):
    """Noise up to `level` and walk down as RePaint does: every `jump` steps are walked `resamples` times.

    Around known places one walk down listens to them too little, because most of the way they are drowned in noise;
    each further turn lets what is painted agree better with them (arXiv:2201.09865, section 4.2). `eta` is that of
    DDIM, 1 that of the paper.
    """

    level: float
    steps: int = 10
    resamples: int = 5
    jump: int = 1
    eta: float = 1.0
    draws: int = 1

    @property
    def evaluations(self) -> int:
        """Draws x steps x resamples."""
        return self.draws * self.steps * self.resamples

    def estimates(self, denoiser: Denoiser, z: Tensor, cond: Cond) -> list[Tensor]:
        """The restorations [B, c, h, w], one a draw."""
        noise = source(cond)
        bound = Bind(denoiser, cond)
        sigmas = spaced(denoiser.levels, self.steps, start=self.level)
        return [
            repaint(
                bound,
                z + sigmas[0].to(z) * noise(z),
                sigmas,
                resamples=self.resamples,
                jump=self.jump,
                noise=noise,
                eta=self.eta,
            )
            for _ in range(self.draws)
        ]
