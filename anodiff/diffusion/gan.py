"""Denoising diffusion GAN: a generator that draws x0 from a few large steps' posterior, and its critic.

A step of the chain is so large that the law of x0 given y has many modes; a network that returns its mean blurs
them. Here a generator with a latent `w` of its own draws one x0, and the sampler's `step` at eta 1 draws the next
level from q(y_next | y, x0). There is no second formula: the chain is `ddim(eta=1)` on the table. The critic tells
real neighbours (y_next, y) of the chain from drawn ones.

Source: Xiao, Kreis & Vahdat, ICLR 2022, arXiv:2112.07804 sections 3 and 4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from anodiff.cond import Cond
from anodiff.diffusion.denoiser import Denoiser, clock, reads, to_unit, told
from anodiff.diffusion.levels import Levels, column, level
from anodiff.errors import RefusalError
from anodiff.noise import PerImageNoise

Drawing = Callable[[Tensor, Tensor, Tensor, Cond | None], Tensor]
"""(x_t [B, C, h, w], t [B] float, latent w [B, D], cond) -> x0 [B, C, h, w]."""


def pair(
    z: Tensor, n: Tensor, hop: Tensor, sigma: Tensor | float, sigma_next: Tensor | float
) -> tuple[Tensor, Tensor]:
    """Two neighbours of the forward chain of `z`, `(y_next, y)`, [B, C, h, w] each.

    `y_next = z + sigma_next n` and `y = y_next + sqrt(sigma^2 - sigma_next^2) hop`, which is q(x_{t-1} | x_0) and
    q(x_t | x_{t-1}) over their signal scales.

    Args:
        z: clean rows.
        n: unit noise of y_next, shaped like `z`.
        hop: unit noise of the step up, shaped like `z`, independent of `n`.
        sigma: [B] or [], the upper level.
        sigma_next: [B] or [], the lower one, at least 0.

    Source: arXiv:2112.07804 eq. 1 and 4.
    """
    sigma, sigma_next = level(sigma), level(sigma_next)
    y_next = z + column(sigma_next, z) * n
    return y_next, y_next + column((sigma.square() - sigma_next.square()).sqrt(), z) * hop


class _Chain(nn.Module):
    """A network and the few levels of its chain."""

    def __init__(self, net: Callable[..., Tensor], table: Tensor, *, std: float = 1.0) -> None:
        super().__init__()
        self.net = net
        self.std = std
        self.table = table  # a plain attribute, as in the other families: it keeps its digits and its place

    def sigma_next(self, sigma: Tensor) -> Tensor:
        """The level of the chain under each `sigma`, float64 on the CPU; 0 under the lowest."""
        index = self.levels.index(sigma)
        return torch.where(index > 0, self.table[(index - 1).clamp(min=0)], 0.0)

    @property
    def levels(self) -> Levels:
        """The table's levels; what is returned at them is a draw."""
        return Levels(low=float(self.table[0]), high=float(self.table[-1]), table=self.table, draws=True)

    @property
    def reads(self) -> frozenset[str] | None:
        """The fields of `Cond` its network reads; None where it does not say."""
        return reads(self.net)

    def seen(self, y: Tensor, sigma: Tensor) -> Tensor:
        """What the network is shown of `y` at `sigma`, [B, C, h, w]: variance 1 at every level."""
        return to_unit(y / self.std, sigma / self.std)


class DDGANDenoiser(_Chain):
    """A draw of x0 from p(x0 | y) by a generator, `x0 = std G(x_t, t, w)` with `w ~ N(0, 1)`.

    The network sees `x_t = y / sqrt(std^2 + sigma^2)`. The lowest level of so short a chain is about the deviation of
    the data, when that is 1; data of another one take a table as many times higher, or the lowest level drowns them.

    Args:
        net: the generator, `(x_t, t, w, cond) -> x0`.
        table: [T] ascending float64 sigmas on the CPU, T small.
        latent: D, the length of w.
        std: deviation of the data.

    Source: arXiv:2112.07804 section 3.2.
    """

    def __init__(self, net: Drawing, table: Tensor, *, latent: int, std: float = 1.0) -> None:
        super().__init__(net, table, std=std)
        self.latent = latent

    def forward(self, y: Tensor, sigma: Tensor, cond: Cond | None = None) -> Tensor:
        """A draw of x0, [B, C, h, w].

        Args:
            y: [B, C, h, w] at noise level `sigma`.
            sigma: [B] or [], entries of the table.
            cond: the batch's conditions; its `noise` draws the latent.

        Raises:
            RefusalError: no source of noise came, or a sigma lies outside the table.
        """
        if cond is None or cond.noise is None:
            raise RefusalError(
                "this denoiser draws x0 and the batch brings no noise to draw with; give "
                "Cond(noise=PerImageNoise(seeds)), so that the same seeds give the same draw"
            )
        sigma = level(sigma)
        w = cond.noise(y.new_empty(y.shape[0], self.latent))  # [B, D]
        x_t, t = self.seen(y, sigma), clock(self.levels, sigma, y)
        return self.std * self.net(x_t, t, w, told(cond, sigma, y))


@dataclass(frozen=True, eq=False)
class FixedLatent:
    """The denoiser with one latent for every row and evaluation: one x0 for one y, and no average of them.

    That of seed 0, a draw like any other: a generator brings its latents to a sphere first, whose middle it has
    never seen.
    """

    inner: Denoiser

    @property
    def levels(self) -> Levels:
        """The inner denoiser's levels: what it returns is not the mean, so the promise stays."""
        return self.inner.levels

    @property
    def reads(self) -> frozenset[str] | None:
        """The fields of `Cond` the inner denoiser reads; None where it does not say."""
        return reads(self.inner)

    def __call__(self, y: Tensor, sigma: Tensor, cond: Cond | None = None) -> Tensor:
        """The inner denoiser's x0 at the latent of seed 0, [B, C, h, w]."""
        return self.inner(y, sigma, replace(cond or Cond(), noise=PerImageNoise([0] * len(y))))


class Critic(_Chain):
    """How real a pair of neighbours looks: the discriminator D(x_{t-1}, x_t, t) in noise-level coordinates.

    The network sees both members as the generator would, and the index of the upper one.

    Args:
        net: the discriminator, `(x_{t-1}, x_t, t, cond) -> logit [B]`, with `places` of the same arguments.
        table: [T] ascending float64 sigmas on the CPU, those of the generator.
        std: deviation of the data, as the generator's.

    Source: arXiv:2112.07804 eq. 5.
    """

    def forward(self, y_next: Tensor, y: Tensor, sigma: Tensor, cond: Cond | None = None) -> Tensor:
        """The logit [B], high where the pair looks like one of the chain of real rows.

        Args:
            y_next: [B, C, h, w] at the level of the table under `sigma`.
            y: [B, C, h, w] at `sigma`.
            sigma: [B] or [], entries of the table.
            cond: the batch's conditions.

        Raises:
            RefusalError: a sigma lies outside the table.
        """
        return self.net(*self._seen(y_next, y, sigma), cond)

    def places(self, y_next: Tensor, y: Tensor, sigma: Tensor, cond: Cond | None = None) -> Tensor:
        """Each place's share of the logit, [B, 1, h', w']; their sum over places is the logit."""
        return self.net.places(*self._seen(y_next, y, sigma), cond)  # type: ignore[attr-defined]

    def _seen(self, y_next: Tensor, y: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        sigma = level(sigma)
        return (
            self.seen(y_next, self.sigma_next(sigma)),
            self.seen(y, sigma),
            clock(self.levels, sigma, y),
        )
