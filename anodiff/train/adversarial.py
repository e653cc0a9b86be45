"""What a denoising diffusion GAN plays for: the two losses of one step, on pairs of neighbouring levels.

Real pairs are drawn up the chain, `pair(z, n, hop)`; a fake one shares the upper member `y`, its lower one is drawn
from q(y_next | y, x0) with the generator's x0, which is the sampler's own `step` at eta 1.
Source: Xiao, Kreis & Vahdat, arXiv:2112.07804 section 3.1 and appendix C.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anodiff.diffusion.gan import Critic, DDGANDenoiser, pair
from anodiff.diffusion.guidance import Bind
from anodiff.diffusion.levels import Levels, column, level, spaced
from anodiff.diffusion.sampling import ddim, step
from anodiff.errors import ConfigError, RefusalError
from anodiff.noise import gaussian
from anodiff.train.objective import Times

if TYPE_CHECKING:
    from anodiff.cond import Cond
    from anodiff.noise import NoiseDraw, NoiseSource
    from anodiff.train.plan import Plan

FIGURES = ("critic_loss", "real", "fake", "r1", "diversity", "gap")
"""What a step of the game tells besides the generator's loss; `collapse.py` reads them."""


class Adversaries(nn.Module):
    """A denoiser that draws and the critic it plays against, trained, averaged and saved together."""

    def __init__(self, denoiser: DDGANDenoiser, critic: Critic) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.critic = critic

    @property
    def levels(self) -> Levels:
        """The levels of the chain."""
        return self.denoiser.levels

    @property
    def net(self) -> object:
        """The generator, which says what labels there are."""
        return self.denoiser.net


class Turn(NamedTuple):
    """A real pair and its level: what both players see in one step."""

    y_next: Tensor  # [B, c, h, w]
    y: Tensor  # [B, c, h, w]
    sigma: Tensor  # [B]
    sigma_next: Tensor  # [B]


@dataclass(frozen=True, kw_only=True)
class Adversarial:
    """The non-saturating game of arXiv:2112.07804 eq. 5, with lazy R1.

    critic: E softplus(-D(real)) + E softplus(D(fake)) + interval r1 / 2 E |grad_{x_{t-1}} D(real)|^2,
    generator: E softplus(-D(fake)) + reconstruction E |x0 - z|.

    The paper's generator has no second term. With it short trainings come further, and its draws are less diverse
    (Phung, Dao & Tran, arXiv:2211.16152 section 4.2).

    The penalty is taken in every `interval`-th step only and multiplied by the interval, so that its strength does not
    depend on it (lazy regularisation, arXiv:1912.04958 section 3.1); its gradient is by the input that the network
    sees, x_{t-1}, not by y_{t-1}.
    """

    course: ClassVar[str] = "duel"
    times: Times  # over the entries of the table
    draw: NoiseDraw = gaussian
    r1: float = 0.02  # gamma of the penalty
    reconstruction: float = 0.0  # weight of the mean absolute error of x0, over the data's deviation
    interval: int = 15  # steps from one penalty to the next
    critic_rate: float = 0.78  # the critic's learning rate over the generator's; 1.25 / 1.6 in the paper
    momentum: tuple[float, float] = (0.5, 0.9)  # of both Adams

    def turn(self, model: Adversaries, z: Tensor, sigma: Tensor, noise: NoiseSource) -> Turn:
        """A real pair of neighbours for each row of `z`."""
        sigma_next = model.critic.sigma_next(sigma)
        y_next, y = pair(z, noise(z), noise(z), sigma, sigma_next)
        return Turn(y_next, y, sigma, sigma_next)

    def drawn(self, model: Adversaries, turn: Turn, noise: NoiseSource, cond: Cond) -> Tensor:
        """The lower member of a fake pair for each real one, [B, c, h, w]."""
        return self.lower(turn, model.denoiser(turn.y, turn.sigma, cond), noise)

    def lower(self, turn: Turn, x0: Tensor, noise: NoiseSource) -> Tensor:
        """The lower member of a fake pair with `x0`, [B, c, h, w]."""
        return step(turn.y, x0, turn.sigma, turn.sigma_next, eta=1.0, noise=noise(turn.y))

    def critic_loss(
        self, model: Adversaries, turn: Turn, fake: Tensor, cond: Cond, *, penalised: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The critic's loss [], and what it thought: mean probability of real and fake pairs, the penalty.

        Args:
            model: the players.
            turn: the real pairs.
            fake: lower members of fake pairs, without gradient.
            cond: the batch's conditions.
            penalised: whether this step has the penalty.
        """
        y_next = turn.y_next.detach().requires_grad_(penalised)
        real = model.critic(y_next, turn.y, turn.sigma, cond)  # [B]
        false = model.critic(fake, turn.y, turn.sigma, cond)  # [B]
        loss = F.softplus(-real).mean() + F.softplus(false).mean()
        sure, fooled = real.detach().sigmoid(), false.detach().sigmoid()  # [B]
        told = {"real": sure.mean(), "fake": fooled.mean(), "gap": widest(sure - fooled, turn.sigma)}
        if penalised:
            (slope,) = torch.autograd.grad(real.sum(), y_next, create_graph=True)
            # By x_{t-1} = y_{t-1} / sqrt(std^2 + sigma^2), in which one unit is so much longer.
            stretch = model.critic.std**2 + level(turn.sigma_next).square()
            wide = slope.to(torch.promote_types(slope.dtype, torch.float32))
            square = wide.square().flatten(1).sum(1)  # [B]
            penalty = (column(stretch, square) * square).mean()
            loss = loss + self.interval * self.r1 / 2 * penalty
            told["r1"] = penalty.detach()
        return loss, told

    def generator_loss(self, model: Adversaries, turn: Turn, fake: Tensor, cond: Cond) -> Tensor:
        """The generator's loss [] for fake pairs that carry its gradient, without the error of x0."""
        return F.softplus(-model.critic(fake, turn.y, turn.sigma, cond)).mean()

    def error(self, model: Adversaries, x0: Tensor, z: Tensor) -> Tensor:
        """The weighted error [] of what was drawn for rows `z`: reconstruction E |x0 - z| / std."""
        return self.reconstruction / model.denoiser.std * (x0 - z).abs().mean()

    def check(self, model: nn.Module, plan: Plan, labels: Sequence[int] | None) -> None:
        """Nothing, when the game can be played.

        Raises:
            RefusalError: the model is not a pair of players, or the precision or the noise is not the game's.
            ConfigError: a number out of its range.
        """
        if not isinstance(model, Adversaries):
            raise RefusalError(
                f"the adversarial loss trains a generator against a critic (Adversaries), not a {type(model).__name__}"
            )
        if plan.precision == "16-mixed":
            raise RefusalError(
                "the gradient penalty of a critic leaves the range of float16; train with precision 32-true or "
                "bf16-mixed"
            )
        if self.draw is not gaussian:
            raise RefusalError(
                "the steps back of the adversarial loss and the generator's latent are Gaussian; leave draw out"
            )
        for name, holds, wanted in (
            ("r1", 0 <= self.r1 < math.inf, "0 or above"),
            ("reconstruction", 0 <= self.reconstruction < math.inf, "0 or above"),
            ("interval", self.interval >= 1, "at least 1"),
            ("critic_rate", 0 < self.critic_rate < math.inf, "above 0"),
            ("momentum", all(0 <= beta < 1 for beta in self.momentum), "two numbers from 0 to below 1"),
        ):
            if not holds:
                raise ConfigError(
                    f"{name} of the adversarial loss must be {wanted}, got {getattr(self, name)}"
                )


def widest(gap: Tensor, sigma: Tensor) -> Tensor:
    """The largest of the levels' mean gaps, []: a mean over all levels would hide one at which the game is lost.

    Args:
        gap: the critic's probability of a row's real pair less that of its drawn one, [B].
        sigma: the rows' levels, [B].
    """
    levels, index = torch.unique(level(sigma), return_inverse=True)
    index = index.to(gap.device)
    total = gap.new_zeros(len(levels)).index_add(0, index, gap)
    return (total / torch.bincount(index, minlength=len(levels)).to(gap)).max()


@torch.no_grad()
def diversity(denoiser: DDGANDenoiser, z: Tensor, noise: NoiseSource, cond: Cond) -> Tensor:
    """The deviation over rows of what the whole chain draws, over that of real rows, []; not a number below 2 rows.

    About 1 where the model draws as widely as the data, near 0 where it has collapsed. Looking at one level would not
    do: at the top, x0 leaves no trace in the next level, so the generator is free to draw it all alike.

    Args:
        denoiser: it runs in its present mode, one evaluation a level.
        z: real rows, [B, c, h, w].
        noise: of the chain.
        cond: the batch's conditions; its own noise draws the latents.
    """
    if len(z) < 2:
        return z.new_full((), float("nan"), dtype=torch.float32)
    sigmas = spaced(denoiser.levels, None, spacing="all")
    y = column(sigmas[0], z) * noise(z)
    made = ddim(Bind(denoiser, cond), y, sigmas, eta=1.0, noise=noise)
    return (made.float().var(0).mean() / z.float().var(0).mean().clamp(min=1e-12)).sqrt()
