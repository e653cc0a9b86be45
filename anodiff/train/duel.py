"""The adversarial course: two players, two optimisers, one after the other on the same pairs."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from anodiff.cond import Cond
from anodiff.noise import PerImageNoise
from anodiff.train import record
from anodiff.train.adversarial import FIGURES, Adversarial, Adversaries, diversity
from anodiff.train.collapse import WINDOW, alarms
from anodiff.train.plan import rate
from anodiff.train.source import Batch
from anodiff.train.training import Training

LOOK_EVERY = 50
"""Steps from one look at what the whole chain draws to the next."""


class Duel(Training):
    """A generator and its critic: the critic learns from a batch first, then the generator.

    `loss` in the record is the generator's. The noise of a step is drawn from the rows' own seeds in a fixed order,
    so that a resumed run meets the same pairs and latents. A critic that compares rows (`Spread`) compares those of
    its own device, so that several devices equal one, up to the order of sums, only where it compares none. Weights
    do not decay: `plan.weight_decay` is for `Descent`.
    """

    further = FIGURES

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.automatic_optimization = False
        self.said: set[str] = set()  # alarms given

    @property
    def ahead(self) -> bool:
        """The noise of a step has many parts: none of it is drawn by the readers."""
        return False

    @property
    def players(self) -> Adversaries:
        """The model as what it is."""
        return cast("Adversaries", self.model)

    @property
    def game(self) -> Adversarial:
        """The objective as what it is."""
        return cast("Adversarial", self.objective)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam (arXiv:1412.6980) for critic and generator, in this order; continued where they were resumed."""
        players = (self.players.critic, self.players.denoiser)
        optimizers = [
            torch.optim.Adam(
                player.parameters(),
                lr=lr,
                betas=self.game.momentum,
                fused=self.device.type in ("cpu", "cuda"),
            )
            for player, lr in zip(players, self._rates(), strict=True)
        ]
        self.continued(optimizers)
        return list(optimizers)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Nothing; the learning rates are those of the step."""
        for optimizer, lr in zip(self.trainer.optimizers, self._rates(), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = lr

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Both players have learnt from one batch."""
        self.seeded()
        players, game = self.players, self.game
        z = self.coded(batch)
        noise = PerImageNoise(batch.seeds, draw=game.draw)
        cond = Cond(label=batch.label, keep=batch.keep, noise=noise)
        turn = game.turn(players, z, game.times(batch.u), noise)
        penalised = game.r1 > 0 and self.steps_done % game.interval == 0

        with torch.no_grad():
            fake = game.drawn(players, turn, noise, cond)
        critic_loss, told = game.critic_loss(players, turn, fake, cond, penalised=penalised)
        self._learn(0, players.critic, critic_loss)

        players.critic.requires_grad_(False)  # else its gradients would be computed, and thrown away
        x0 = players.denoiser(turn.y, turn.sigma, cond)
        fake = game.lower(turn, x0, noise)
        loss = game.generator_loss(players, turn, fake, cond)
        if game.reconstruction:
            loss = loss + game.error(players, x0, z)
        self._learn(1, players.denoiser, loss)
        players.critic.requires_grad_(True)

        told["critic_loss"] = critic_loss
        if (self.steps_done + 1) % LOOK_EVERY == 0:
            told["diversity"] = diversity(players.denoiser, z, noise, cond)
        none = loss.new_tensor(float("nan"))
        figures = [loss, *(told.get(name, none) for name in self.further)]
        self.unread.append(torch.stack([figure.detach().float() for figure in figures]))

    def judged(self) -> None:
        """Nothing; what has gone wrong in the last steps is said, each time once."""
        rows = self.course
        if len(rows) < WINDOW and self.folder is not None:  # resumed: what went before is in the table
            rows = record.read(self.folder / "metrics.csv")
        for alarm in alarms(rows[-WINDOW:]):
            if (kind := alarm[:20]) not in self.said:
                self.said.add(kind)
                self.progress.note(f"step {self.steps_done}: {alarm}")

    def _learn(self, number: int, player: nn.Module, loss: Tensor) -> None:
        optimizer = self.optimizers()[number]  # type: ignore[index]
        optimizer.zero_grad()
        self.manual_backward(loss)
        if self.plan.clip is not None:
            nn.utils.clip_grad_norm_(player.parameters(), self.plan.clip)
        optimizer.step()

    def _rates(self) -> tuple[float, float]:
        lr = rate(self.plan, self.steps_done)
        return lr * self.game.critic_rate, lr
