"""What stands around the model of normals while it restores or paints."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

from torch import Tensor

from anodiff.cond import Cond
from anodiff.diffusion.denoiser import Denoiser
from anodiff.diffusion.gan import FixedLatent
from anodiff.diffusion.guidance import CFG, Autoguide, Clamp, Guide, LogProb
from anodiff.errors import RefusalError


@dataclass(frozen=True, eq=False)
class AwayFrom(CFG):
    """Classifier-free guidance away from one condition, whatever the size of the batch; `negative` has one row."""

    negative: Cond = field(default_factory=Cond)

    def _steer(self, x0: Tensor, y: Tensor, sigma: Tensor, cond: Cond | None) -> Tensor:
        told = {part.name: getattr(self.negative, part.name) for part in fields(Cond)}
        rows = {
            name: value.to(y.device).expand(len(y), *value.shape[1:])
            for name, value in told.items()
            if isinstance(value, Tensor)
        }
        reference = replace(self.negative, **rows)
        return CFG(self.inner, self.scale, reference)._steer(x0, y, sigma, cond)


@dataclass(frozen=True, eq=False)
class Steering:
    """Guidance and clamp in the order that keeps every promise, outermost first.

    `Clamp(Guide(Autoguide(CFG(FixedLatent(model)), FixedLatent(weaker))))`, each where it is asked for. Labels come
    with the batch's `Cond`. Called with a denoiser, it gives the steered one.
    """

    free: float = 1.0  # scale of classifier-free guidance; 1 = the label without guidance
    negative: Cond | None = None  # one row, to lead away from; None: the learned null
    log_prob: LogProb | None = None  # of a classifier of noisy pictures
    scale: float = 0.0  # of its guidance, in the score form
    weaker: Denoiser | None = None  # a weaker model to lead away from (autoguidance, arXiv:2406.02507)
    auto: float = 1.0  # scale of that; 1 = the model itself
    clamp: bool = False  # x0 to [-1, 1]: for pixels alone
    fixed: bool = False  # one latent for all that a model that draws ever draws

    @property
    def evaluations(self) -> int:
        """Evaluations of a denoiser for one of the steered one."""
        return 1 + (self.free != 1) + (self.weaker is not None and self.auto != 1)

    def __call__(self, denoiser: Denoiser) -> Denoiser:
        """The steered denoiser; RefusalError where a latent is to be held that is not there."""
        weaker = self.weaker
        if self.fixed:
            if not denoiser.levels.draws:
                raise RefusalError(
                    "a fixed latent was asked for, but this denoiser gives the mean of x0 and draws nothing; leave it "
                    "out, or fit a model that draws (a DDGAN)"
                )
            denoiser = FixedLatent(denoiser)
            if weaker is not None and weaker.levels.draws:
                weaker = FixedLatent(weaker)
        if self.free != 1:
            denoiser = (
                CFG(denoiser, self.free)
                if self.negative is None
                else AwayFrom(denoiser, self.free, negative=self.negative)
            )
        if weaker is not None and self.auto != 1:
            denoiser = Autoguide(denoiser, weaker, self.auto)
        if self.log_prob is not None and self.scale:
            denoiser = Guide(denoiser, self.log_prob, self.scale)
        return Clamp(denoiser) if self.clamp else denoiser
