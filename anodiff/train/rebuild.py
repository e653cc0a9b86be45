"""The course of an autoencoder: its critic, when it has begun to play, and it, one after the other on a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, distributed, nn

from anodiff.noise import PerImageNoise
from anodiff.train import collapse
from anodiff.train.autoencoding import FIGURES, Autoencodes, Autoencoding, Codes, Criticised, places
from anodiff.train.game import Game
from anodiff.train.record import Row
from anodiff.train.source import REVIVE, Batch, key


class Rebuild(Game):
    """An autoencoder that learns to rebuild pictures, and a critic that learns to tell what it rebuilt.

    Rows are pictures in [0, 1]. `loss` in the record is that of the reconstruction alone, L1 + perceptual P. A code is
    drawn with the row's own seed. Several devices equal one up to the order of sums; not where unused codes are
    revived, for which the rows of the first device stand.
    """

    further = FIGURES
    conditional = False

    @staticmethod
    def alarms(rows: Sequence[Row]) -> tuple[str, ...]:
        """What is wrong in the last steps: `collapse.rebuilt_alarms`."""
        return collapse.rebuilt_alarms(rows)

    @property
    def players(self) -> Criticised:
        """The model as what it is."""
        return cast("Criticised", self.model)

    @property
    def autoencoder(self) -> Autoencodes:
        """The autoencoder as what it is."""
        return cast("Autoencodes", self.players.autoencoder)

    @property
    def goal(self) -> Autoencoding:
        """The objective as what it is."""
        return cast("Autoencoding", self.objective)

    def sides(self) -> list[tuple[nn.Module, float]]:
        """The autoencoder, which learns at the run's own rate, then the critic where there is one."""
        critic = self.players.critic
        return [
            (self.players.autoencoder, 1.0),
            *([] if critic is None else [(critic, self.goal.critic_rate)]),
        ]

    def on_fit_start(self) -> None:
        """Nothing; what compares features is on the device, and as in `Training`."""
        super().on_fit_start()
        if isinstance(self.goal.features, nn.Module):
            self.goal.features.eval().requires_grad_(False).to(self.device)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """The critic and the autoencoder have learnt from one batch; unused codes are revived when it is time."""
        self.seeded()
        goal, critic, autoencoder = self.goal, self.players.critic, self.autoencoder
        x = 2 * batch.z - 1  # [B, C, H, W]
        code = autoencoder.code(x, PerImageNoise(batch.seeds))
        x_hat = autoencoder.decode(code.z)
        error, told = goal.error(x, x_hat)
        told["penalty"] = code.penalty.mean()
        loss = error + goal.weight * told["penalty"]
        if critic is not None and goal.plays(self.steps_done, self.plan.steps):
            told["critic_loss"] = goal.critic_loss(critic, x, x_hat.detach())
            self.learn(1, told["critic_loss"])
            critic.requires_grad_(False)  # else its gradients would be computed, and thrown away
            told["adversarial"] = -critic(x_hat).mean()
            told["adaptive"] = self._adaptive(error, told["adversarial"])
            loss = loss + goal.adversarial * told["adaptive"] * told["adversarial"]
        self.learn(0, loss)
        if critic is not None:
            critic.requires_grad_(True)
        if autoencoder.codebook is not None:
            told["used"] = torch.as_tensor(cast("Codes", autoencoder.codebook).used, device=error.device)
            if (self.steps_done + 1) % goal.revive_every == 0:
                self._revive(autoencoder.codebook, x)
        self.tell(error, told)

    def _adaptive(self, error: Tensor, adversarial: Tensor) -> Tensor:
        """The weight of the adversarial part [], the same on all ranks: that of the whole batch."""
        slopes = [
            torch.autograd.grad(part, self.autoencoder.last, retain_graph=True)[0]
            for part in (error, adversarial)
        ]
        if self.trainer.world_size > 1:
            slopes = [
                cast("Tensor", self.trainer.strategy.reduce(slope, reduce_op="mean")) for slope in slopes
            ]
        return self.goal.adaptive(*slopes)

    @torch.no_grad()
    def _revive(self, codebook: nn.Module, x: Tensor) -> None:
        """Nothing; unused codes stand where pictures of this step are, in the average too.

        The average of a dead code's old place and its new one is a place that nothing was ever near: where a code
        begins anew, its average does. All other codes are averaged as every weight is, and so is the encoder that
        chooses among them.
        """
        before = {name: weight.clone() for name, weight in codebook.named_parameters()}
        seed = key(self.plan.seed, REVIVE, self.steps_done)
        cast("Codes", codebook).revive(places(self.autoencoder.encode(x)).float(), seed)
        if self.trainer.world_size > 1:
            for value in codebook.state_dict().values():
                distributed.broadcast(value, 0)
        average = cast("nn.Module", cast("Criticised", self.ema.model).autoencoder.codebook)
        for (name, weight), mean in zip(codebook.named_parameters(), average.parameters(), strict=True):
            moved = (weight != before[name]).any(1)  # [K]
            mean[moved] = weight[moved].to(mean.dtype)
