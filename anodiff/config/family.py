"""What kind of model a run fits: how the network's output is read, and the noise levels it is for."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from anodiff.config.section import NotNegative, Section

ScheduleName = Literal["linear", "quadratic", "cosine", "sigmoid", "scaled_linear", "scaled_linear_ldm", "vp"]


class Schedule(Section):
    """A table of noise levels."""

    name: ScheduleName = "linear"
    steps: Annotated[int, Field(ge=2)] = 1000  # levels of the table
    zero_terminal_snr: bool = False


class Chain(Schedule):
    """The few levels of a chain that draws; what is left out is the paper's, not a long table's."""

    name: ScheduleName = "vp"
    steps: Annotated[int, Field(ge=2)] = 4  # levels of the chain


class DiscreteFamily(Section):
    """A network that predicts eps, v or x0 on a table of levels (DDPM, arXiv:2006.11239)."""

    kind: Literal["eps", "v", "x0"] = "eps"
    schedule: Schedule = Schedule()
    variance: Literal["fixed", "learned"] = "fixed"  # learned: per pixel, between beta-tilde and beta

    @model_validator(mode="after")
    def _terminal(self) -> DiscreteFamily:
        if self.schedule.zero_terminal_snr and self.kind == "eps":
            raise ValueError(
                "eps is undefined where the signal is zero; use kind v or x0 with zero_terminal_snr"
            )
        return self


class KarrasFamily(Section):
    """A network with the preconditioning of EDM (arXiv:2206.00364) on a continuous range of levels."""

    kind: Literal["karras"] = "karras"
    std: PositiveFloat = 1.0  # deviation of the data in codec space
    low: PositiveFloat = 0.002
    high: PositiveFloat = 80.0


class CriticNet(Section):
    """The network that plays against the generator: residual blocks, the resolution halved from one to the next."""

    width: PositiveInt = 32
    multipliers: tuple[PositiveFloat, ...] = (1, 2, 2)
    blocks: PositiveInt = 1
    patch: PositiveInt = 1
    spread: PositiveInt = 4  # rows at most in a group of the mini-batch standard deviation


class DDGANFamily(Section):
    """A generator that draws x0 in a few large steps, against a discriminator (DDGAN, arXiv:2112.07804)."""

    kind: Literal["ddgan"] = "ddgan"
    schedule: Chain = Chain()
    std: PositiveFloat = (
        1.0  # deviation of the data in codec space; the chain's levels are so many times higher
    )
    latent: PositiveInt = 64  # length of the generator's own noise
    mapping: PositiveInt = 4  # layers of the network it passes first
    critic: CriticNet = CriticNet()  # the discriminator
    r1: NotNegative = 0.02  # of the gradient penalty
    reconstruction: NotNegative = 0.0  # weight of |x0 - z| in the generator's loss; 0 in the paper
    r1_every: PositiveInt = 15  # steps from one penalty to the next, each so much larger
    critic_rate: PositiveFloat = 0.78  # the discriminator's learning rate over train.learning_rate
    momentum: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.5, 0.9)


Family = Annotated[DiscreteFamily | KarrasFamily | DDGANFamily, Field(discriminator="kind")]
