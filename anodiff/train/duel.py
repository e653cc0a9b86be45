"""The adversarial course: two players, two optimisers, one after the other on the same pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import nn

from anodiff.cond import Cond
from anodiff.noise import PerImageNoise
from anodiff.train import collapse
from anodiff.train.adversarial import FIGURES, Adversarial, Adversaries, diversity
from anodiff.train.game import Game
from anodiff.train.record import Row
from anodiff.train.source import Batch

LOOK_EVERY = 50
"""Steps from one look at what the whole chain draws to the next."""


class Duel(Game):
    """A generator and its critic: the critic learns from a batch first, then the generator.

    `loss` in the record is the generator's. The noise of a step is drawn from the rows' own seeds in a fixed order,
    so that a resumed run meets the same pairs and latents. A critic that compares rows (`Spread`) compares those of
    its own device, so that several devices equal one, up to the order of sums, only where it compares none.
    """

    further = FIGURES

    @staticmethod
    def alarms(rows: Sequence[Row]) -> tuple[str, ...]:
        """What is wrong in the last steps: `collapse.alarms`."""
        return collapse.alarms(rows)

    @property
    def players(self) -> Adversaries:
        """The model as what it is."""
        return cast("Adversaries", self.model)

    @property
    def game(self) -> Adversarial:
        """The objective as what it is."""
        return cast("Adversarial", self.objective)

    def sides(self) -> list[tuple[nn.Module, float]]:
        """The critic, then the generator, which learns at the run's own rate."""
        return [(self.players.critic, self.game.critic_rate), (self.players.denoiser, 1.0)]

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Both players have learnt from one batch."""
        self.seeded()
        players, game = self.players, self.game
        z = self.coded(batch)
        noise = PerImageNoise(batch.seeds, draw=game.draw)
        cond = Cond(**batch.conditions, noise=noise)
        turn = game.turn(players, z, game.times(batch.u), noise)
        penalised = game.r1 > 0 and self.steps_done % game.interval == 0

        with torch.no_grad():
            fake = game.drawn(players, turn, noise, cond)
        critic_loss, told = game.critic_loss(players, turn, fake, cond, penalised=penalised)
        self.learn(0, critic_loss)

        players.critic.requires_grad_(False)  # else its gradients would be computed, and thrown away
        x0 = players.denoiser(turn.y, turn.sigma, cond)
        fake = game.lower(turn, x0, noise)
        loss = game.generator_loss(players, turn, fake, cond)
        if game.reconstruction:
            loss = loss + game.error(players, x0, z)
        self.learn(1, loss)
        players.critic.requires_grad_(True)

        told["critic_loss"] = critic_loss
        if (self.steps_done + 1) % LOOK_EVERY == 0:
            told["diversity"] = diversity(players.denoiser, z, noise, cond)
        self.tell(loss, told)
