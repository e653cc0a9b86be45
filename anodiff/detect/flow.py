"""The model's own likelihood as evidence."""

from __future__ import annotations

from torch import Tensor

from anodiff.cond import Cond
from anodiff.detect.restore import Model, source
from anodiff.detect.scorer import Observation, Parts, Scorer
from anodiff.diffusion.flow import Solver, log_likelihood, rademacher
from anodiff.diffusion.guidance import Bind
from anodiff.diffusion.levels import karras
from anodiff.errors import RefusalError


class FlowScorer(Scorer):
    """The bits a dimension that the probability flow gives each place of a picture; codec resolution.

    The picture, taken for one at level `low`, is carried up to `high` in `levels` levels; what is returned is the map
    of `-log2 p` (arXiv:2011.13456, equation 39). `std` is the deviation of the data in the codec's space.
    """

    width = 1

    def __init__(
        self,
        low: float,
        high: float,
        levels: int,
        *,
        probes: int = 1,
        solver: Solver = "euler",
        std: float = 1.0,
    ) -> None:
        super().__init__()
        self.low = low
        self.high = high
        self.levels = levels
        self.probes = probes
        self.solver: Solver = solver
        self.std = std

    @property
    def evaluations(self) -> int:
        """One a level, with Heun another for all but the lowest; each level also takes `probes` passes backwards."""
        return self.levels if self.solver == "euler" else 2 * self.levels - 1

    def observe(self, model: Model, image: Tensor, cond: Cond) -> Observation:
        """The map [B, 1, h, w]."""
        denoiser, codec = model
        trained = denoiser.levels
        if self.low < trained.low * 0.999 or self.high > trained.high * 1.001:
            raise RefusalError(
                f"The flow from {self.low:g} to {self.high:g} leaves the noise levels {trained.low:.4g} to "
                f"{trained.high:.4g} that were trained: set score.low and score.high inside them."
            )
        found = log_likelihood(
            Bind(denoiser, cond),
            codec.encode(image),
            karras(self.low, self.high, self.levels),
            probe=rademacher(source(cond)),
            probes=self.probes,
            solver=self.solver,
            std=self.std,
        )
        return Observation((found.flow_map,))

    def weigh(self, parts: Parts) -> Tensor:
        """The map [B, 1, h, w]."""
        return parts[0]
