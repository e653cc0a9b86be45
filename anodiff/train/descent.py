"""The usual course: one model, one loss, one optimiser."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from anodiff.cond import Cond
from anodiff.diffusion.levels import column
from anodiff.noise import PerImageNoise
from anodiff.train.importance import adapts
from anodiff.train.objective import Minimised
from anodiff.train.plan import rate
from anodiff.train.source import Batch
from anodiff.train.training import Training


class Descent(Training):
    """A denoiser or classifier that goes down the loss of its objective."""

    @property
    def goal(self) -> Minimised:
        """The objective as what it is."""
        return cast("Minimised", self.objective)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW (arXiv:1711.05101); vectors, such as biases and gains, do not decay. Continued where it was resumed."""
        weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        groups = [
            {"params": [w for w in weights if w.ndim > 1], "weight_decay": self.plan.weight_decay},
            {"params": [w for w in weights if w.ndim <= 1], "weight_decay": 0.0},
        ]
        # The fused step reads each weight once. Under mixed precision Lightning leaves the unscaling of gradients
        # to it, which comes after clipping, and refuses.
        fused = self.device.type in ("cpu", "cuda") and self.plan.precision == "32-true"
        optimizer = torch.optim.AdamW(groups, lr=rate(self.plan, self.steps_done), fused=fused)
        self.continued([optimizer])
        return optimizer

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Nothing; the learning rate is that of the step."""
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate(self.plan, self.steps_done)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The mean loss of the rows of one step, []; weighted where the levels are not drawn by their own law."""
        self.seeded()
        z = self.coded(batch)
        n = PerImageNoise(batch.seeds, draw=self.goal.draw)(z) if batch.n is None else batch.n
        cond = Cond(**batch.conditions) if batch.conditions else None
        sigma, weight = self._levels(batch.u)
        losses = self.goal.loss(self.model, z, sigma, n, cond)  # [B]
        self._learn(sigma, losses)
        loss = losses.mean() if weight is None else (column(weight, losses) * losses).mean()
        self.unread.append(loss.detach()[None])
        return loss

    def _levels(self, u: Tensor) -> tuple[Tensor, Tensor | None]:
        """The noise levels of the rows, [B], and the weight of each row's loss; None = 1."""
        times = self.goal.times
        if self.history is not None and adapts(times):
            return times.draw(self.history, u)
        return times(u), None

    def _learn(self, sigma: Tensor, losses: Tensor) -> None:
        """Nothing; an adaptive law has seen the losses of all ranks, in the order that one device would have."""
        times = self.goal.times
        if self.history is None or not adapts(times):
            return
        told = torch.stack([sigma, losses.detach().cpu().double()])  # [2, B]
        if (world := self.trainer.world_size) > 1:
            parts = self.trainer.strategy.all_gather(told.to(self.device))  # [world, 2, B]
            # Row i of rank r is row r + i world of the step.
            told = parts.reshape(world, *told.shape).permute(1, 2, 0).flatten(1).cpu()  # [2, B world]
        self.history = times.learn(self.history, told[0], told[1])
