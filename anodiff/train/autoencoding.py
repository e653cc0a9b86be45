"""What an autoencoder is trained for: pictures rebuilt well, by their pixels, their features and a critic.

The first stage of latent diffusion (Rombach et al., arXiv:2112.10752 section 3.1 and appendix G), whose loss is that of
VQGAN (Esser, Rombach & Ommer, arXiv:2012.09841 eq. 6 and 7) with an absolute error in the place of a squared one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anodiff.errors import ConfigError, RefusalError

if TYPE_CHECKING:
    from anodiff.noise import NoiseSource
    from anodiff.train.plan import Plan

FIGURES = ("l1", "perceptual", "penalty", "adversarial", "adaptive", "critic_loss", "used")
"""What a step tells besides the loss of the reconstruction: without their weights, missing where there are none."""

LARGEST = 1e4
"""The largest adaptive weight of the adversarial part."""

Difference = Callable[[Tensor, Tensor], Tensor]
"""(x, x_hat), both [B, C, H, W] in [-1, 1] -> how unlike they look [B], 0 for the same; differentiable."""


class Coded(Protocol):
    """What pictures became."""

    @property
    def z(self) -> Tensor:
        """[B, c, h, w] what the decoder is given."""
        ...

    @property
    def penalty(self) -> Tensor:
        """[B] the divergence from N(0, I), or the loss of the codebook."""
        ...


class Codes(Protocol):
    """A codebook, as far as it is looked after here."""

    @property
    def used(self) -> float | Tensor:
        """The share of codes that were chosen since the last look."""
        ...

    def revive(self, rows: Tensor, seed: int, /) -> int:
        """How many unused codes were put on some of `rows` [N, c]; the count of uses begins anew."""
        ...


class Autoencodes(Protocol):
    """The autoencoder that is trained."""

    @property
    def last(self) -> nn.Parameter:
        """The last weight of the decoder."""
        ...

    @property
    def codebook(self) -> nn.Module | None:
        """A `Codes`, or None where codes are drawn from a Gaussian."""
        ...

    def code(self, x: Tensor, noise: NoiseSource, /) -> Coded:
        """The code of pictures [B, C, H, W] in [-1, 1]."""
        ...

    def encode(self, x: Tensor, /) -> Tensor:
        """The code without chance, [B, c, h, w]; before the codebook where there is one."""
        ...

    def decode(self, z: Tensor, /) -> Tensor:
        """The pictures of codes, [B, C, H, W]."""
        ...


class Criticised(nn.Module):
    """An autoencoder and the critic of what it paints, trained, averaged and saved together."""

    def __init__(self, autoencoder: nn.Module, critic: nn.Module | None = None) -> None:
        """Store the two.

        Args:
            autoencoder: as `Autoencodes`.
            critic: pictures [B, C, H, W] in [-1, 1] -> logits of any shape, high where they look real; None: nobody.
        """
        super().__init__()
        self.autoencoder = autoencoder
        self.critic = critic


@dataclass(frozen=True, kw_only=True)
class Autoencoding:
    """L1 + perceptual P + weight * penalty + adversarial * adaptive * (-D(x_hat)), each a mean over rows.

    x are pictures in [-1, 1], x_hat what is rebuilt of them, P the difference of features. The critic has the hinge
    loss E max(0, 1 - D(x)) + E max(0, 1 + D(x_hat)) (arXiv:1705.02894, eq. 3 and 4).
    `adaptive = |g(L1 + perceptual P)| / (|g(-D)| + 1e-4)` with g the gradient by the decoder's last weight, so that the
    critic pulls there as strongly as the rest (arXiv:2012.09841, eq. 7); at most 1e4, and a constant to the gradient.

    Both players leave the critic alone until `start` of the run's steps are done: a share, for with a fixed number a
    short run never comes to it.

    The divergence of a row is summed over its code, as the paper's weight 1e-6 has it, the error is a mean over
    pixels: the penalty stays slight, but it weighs more the larger the pictures.
    """

    course: ClassVar[str] = "rebuild"
    weight: float  # of the penalty; 1e-6 for a divergence, 1 for a codebook
    perceptual: float = 1.0
    features: Difference | None = None  # P; a module among these is moved to the device
    adversarial: float = 0.5
    start: float = 0.5  # share of the steps
    critic_rate: float = 1.0  # the critic's learning rate over the autoencoder's
    momentum: tuple[float, float] = (0.5, 0.9)  # of both Adams
    revive_every: int = 100  # steps from one look for unused codes to the next

    def plays(self, step: int, steps: int) -> bool:
        """Whether the critic has a part in step `step` (0-based) of `steps`."""
        return self.adversarial > 0 and step >= math.floor(self.start * steps)

    def error(self, x: Tensor, x_hat: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of the reconstruction [], L1 + perceptual P, and both parts by name, without weight.

        Args:
            x: pictures in [-1, 1], [B, C, H, W].
            x_hat: what is rebuilt of them.
        """
        l1 = (x - x_hat).abs().mean()
        told = {"l1": l1}
        loss = l1
        if self.perceptual and self.features is not None:
            told["perceptual"] = self.features(x, x_hat).mean()
            loss = l1 + self.perceptual * told["perceptual"]
        return loss, told

    def critic_loss(self, critic: Callable[[Tensor], Tensor], x: Tensor, x_hat: Tensor) -> Tensor:
        """The hinge loss of the critic [], 2 where it knows nothing; `x_hat` without gradient."""
        return F.relu(1 - critic(x)).mean() + F.relu(1 + critic(x_hat)).mean()

    def adaptive(self, error: Tensor, adversarial: Tensor) -> Tensor:
        """The weight of the adversarial part [] from both parts' gradients by the last weight, any shape."""
        norms = [slope.detach().float().square().sum().sqrt() for slope in (error, adversarial)]
        return (norms[0] / (norms[1] + 1e-4)).clamp(0, LARGEST)

    def check(self, model: nn.Module, plan: Plan, labels: Sequence[int] | None) -> None:
        """Nothing, when there is something to play with and all of it is trained.

        Raises:
            RefusalError: the model is no `Criticised`, its critic has no part or is missing, or the precision has not
                the range of the adaptive weight.
            ConfigError: a number out of its range, or a perceptual part without features.
        """
        for name, holds, wanted in (
            ("weight", 0 <= self.weight < math.inf, "0 or above"),
            ("perceptual", 0 <= self.perceptual < math.inf, "0 or above"),
            ("adversarial", 0 <= self.adversarial < math.inf, "0 or above"),
            ("start", 0 <= self.start < 1, "from 0 to below 1, a share of the steps"),
            ("critic_rate", 0 < self.critic_rate < math.inf, "above 0"),
            ("momentum", all(0 <= beta < 1 for beta in self.momentum), "two numbers from 0 to below 1"),
            ("revive_every", self.revive_every >= 1, "at least 1"),
        ):
            if not holds:
                raise ConfigError(f"{name} of an autoencoder must be {wanted}, got {getattr(self, name)}")
        if self.perceptual and self.features is None:
            raise ConfigError(
                f"perceptual of an autoencoder is {self.perceptual}, but there are no features to compare; "
                "give features or set it to 0"
            )
        if not isinstance(model, Criticised):
            raise RefusalError(
                f"this loss trains an autoencoder and its critic (Criticised), not a {type(model).__name__}"
            )
        if (model.critic is None) != (self.adversarial == 0):
            what = "there is no critic" if model.critic is None else "its critic would never be trained"
            raise RefusalError(
                f"adversarial of an autoencoder is {self.adversarial}, but {what}; a critic and a weight above 0 go "
                "together"
            )
        if plan.precision == "16-mixed":
            raise RefusalError(
                "the divergence of a code and the adaptive weight of a critic leave the range of float16; train with "
                "precision 32-true or bf16-mixed"
            )


def places(z: Tensor) -> Tensor:
    """The vectors of codes [B, c, h, w], one a place: [B h w, c]."""
    return torch.movedim(z, 1, -1).flatten(0, -2)
