"""What is looked at in a picture: the scorers' sections."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from anodiff.config.head import Head, LearnedHead, NoHead
from anodiff.config.section import NotNegative, Section

Distance = Literal["l1", "l2", "ssim", "ms_ssim", "gradient", "lab", "feature", "latent", "spread"]
Sampler = Literal["ddim", "ddpm", "heun", "dpmpp_2m"]


class OneStep(Section):
    """The error of the clean estimate after one denoising step at each level."""

    kind: Literal["one_step"] = "one_step"
    sigmas: tuple[NotNegative, ...] = (1.0,)  # 0: the code itself, no denoiser asked
    draws: PositiveInt = 1
    residual: Literal["plain", "channel", "covariance", "position"] = (
        "covariance"  # position: from what is usual at each position, as far as position says anything
    )
    floor: PositiveFloat = 0.05
    stages: Literal["together", "apart"] = (
        "together"  # apart: the residual of each stage of a feature codec is weighed by itself
    )
    fuse: Literal["mean", "fisher", "agreement"] = (
        "mean"  # of maps of levels and stages; fisher: their p-values on normals, multiplied; agreement: the geometric
        # mean of how surprising these are
    )
    unscored: Annotated[int, Field(ge=0)] = (
        0  # finest stages, of those apart, that do not score; a sharp map asks them all the same
    )
    map: Literal["score", "sharp"] = (
        "score"  # what shows where; sharp: all stages at the first level, by one law for all positions
    )
    latent: Literal["drawn", "fixed"] = "drawn"  # of a family that draws; fixed: one draw for every picture
    opinion: NotNegative = (
        0.0  # weight of the discriminator's opinion at the same levels, beside the residual's 1
    )
    nearest: Annotated[int, Field(ge=0)] = 0  # places of good parts remembered, to compare with; 0: none
    head: Head = NoHead()  # a network that marks defects in residuals and code, trained on painted ones

    @model_validator(mode="after")
    def _judges(self) -> OneStep:
        if isinstance(self.head, LearnedHead) and self.fuse == "mean":
            raise ValueError(
                f"head: learned is believed as far as its marks are rare on good parts, and fuse: {self.fuse} learns "
                "no such law; set fuse to agreement or fisher, or head.kind to none"
            )
        if self.unscored and self.stages == "together":
            raise ValueError(
                f"unscored: {self.unscored} leaves stages out of the score, which asks for stages: apart; set it, or "
                "unscored to 0"
            )
        return self


class PartialNoise(Section):
    """Noise to a level, restore, compare (AnoDDPM)."""

    kind: Literal["partial_noise"] = "partial_noise"
    levels: tuple[PositiveFloat, ...] = (0.95,)  # sigma; linear DDPM: t = 249 of 1000 is .95
    steps: PositiveInt = 10  # from the level down to 0
    sampler: Sampler = "ddim"
    eta: Annotated[float, Field(ge=0, le=1)] = 0.0  # of ddim
    variance: Literal["small", "large", "learned"] = (
        "small"  # of the fresh noise of ddpm, and of ddim with eta
    )
    draws: PositiveInt = 1
    latent: Literal["drawn", "fixed"] = "drawn"  # of a family that draws; fixed: one draw for every picture
    pull: NotNegative = 0.0  # towards the picture itself at every step (DDAD, arXiv:2305.15956)
    distances: dict[Distance, PositiveFloat] = Field(default_factory=lambda: {"l1": 1.0})
    opinion: NotNegative = (
        0.0  # weight of the discriminator's opinion at the same levels, beside the distances' 1
    )


class Inversion(Section):
    """DDIM inversion to a level and back, compared with the picture."""

    kind: Literal["inversion"] = "inversion"
    level: PositiveFloat = 0.95
    steps: PositiveInt = 10
    distances: dict[Distance, PositiveFloat] = Field(default_factory=lambda: {"l1": 1.0})


class Repair(Section):
    """Every place painted anew from its surroundings, compared with what is there (RePaint, arXiv:2201.09865)."""

    kind: Literal["repair"] = "repair"
    cell: PositiveInt = 4  # side of what is hidden at once, in positions of the code
    masks: Literal[2, 4] = 2  # groups of cells, hidden in turn: a checkerboard's two, or four
    level: PositiveFloat = 0.95  # sigma from which hidden cells are painted
    steps: PositiveInt = 10  # from the level down to 0
    resamples: PositiveInt = 1  # times each step is walked; more listens better to the surroundings
    sampler: Sampler = "ddpm"
    eta: Annotated[float, Field(ge=0, le=1)] = 0.0  # of ddim
    draws: PositiveInt = 1
    distances: dict[Distance, PositiveFloat] = Field(default_factory=lambda: {"l1": 1.0})

    @model_validator(mode="after")
    def _walks(self) -> Repair:
        check_eta(self.sampler, self.eta)
        if self.resamples > 1 and self.sampler not in ("ddim", "ddpm"):
            raise ValueError(
                f"resamples: {self.resamples} goes back up with fresh noise, and {self.sampler} draws none; take "
                "sampler ddim or ddpm, or leave resamples out"
            )
        return self


class Detail(Section):
    """Fine structure imagined anew above the coarse one, compared with what is there (ILVR, arXiv:2108.02938)."""

    kind: Literal["detail"] = "detail"
    factor: Annotated[int, Field(ge=2)] = (
        4  # side of the cells whose means are kept, in positions of the code
    )
    level: PositiveFloat = 0.95  # sigma from which details are painted
    steps: PositiveInt = 10  # from the level down to 0
    sampler: Sampler = "ddim"
    eta: Annotated[float, Field(ge=0, le=1)] = 0.0  # of ddim
    draws: PositiveInt = 1
    distances: dict[Distance, PositiveFloat] = Field(default_factory=lambda: {"l1": 1.0})

    @model_validator(mode="after")
    def _walks(self) -> Detail:
        check_eta(self.sampler, self.eta)
        return self


def check_eta(sampler: str, eta: float) -> None:
    """Nothing, where `eta` has a meaning; ValueError otherwise."""
    if eta and sampler != "ddim":
        raise ValueError(
            f"eta: {eta:g} belongs to the sampler ddim; {sampler} draws all of its noise or none; leave eta out"
        )


class Bound(Section):
    """Per-position terms of the variational bound below a level (arXiv:2006.11239, equation 5)."""

    kind: Literal["bound"] = "bound"
    level: PositiveFloat = 1.0
    steps: PositiveInt = 4  # levels from there down
    variance: Literal["small", "large", "learned"] = "small"


class Flow(Section):
    """Per-position terms of the probability flow's log-likelihood (arXiv:2011.13456, equation 39)."""

    kind: Literal["flow"] = "flow"
    low: PositiveFloat = 0.1  # the density is that of pictures with so much noise
    high: PositiveFloat = 5.0
    steps: PositiveInt = 6
    probes: PositiveInt = 1


class Opinion(Section):
    """The discriminator's opinion of the picture's own noisy pairs (a family with one: ddgan)."""

    kind: Literal["opinion"] = "opinion"
    levels: tuple[PositiveFloat, ...] = (0.954,)  # sigma of the noisier of each pair
    draws: PositiveInt = 1


Score = Annotated[
    OneStep | PartialNoise | Inversion | Repair | Detail | Bound | Flow | Opinion, Field(discriminator="kind")
]
