"""The trained module: one step of it, the average beside it, and its guards."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader

from anodiff.cond import Cond
from anodiff.diffusion.levels import column
from anodiff.errors import TrainingError
from anodiff.noise import PerImageNoise
from anodiff.train import checkpoint, record
from anodiff.train.checkpoint import State
from anodiff.train.ema import Ema
from anodiff.train.importance import History, adapts
from anodiff.train.interrupt import Event, Spawned
from anodiff.train.objective import Minimised
from anodiff.train.plan import Plan, rate
from anodiff.train.progress import Progress
from anodiff.train.source import NETWORK, Batch, Items, Steps, key

READ_EVERY = 16  # steps between two looks at the losses of an accelerator, each of which waits for it


class Encodes(Protocol):
    """The half of a codec that training needs."""

    def encode(self, image: Tensor) -> Tensor:
        """[B, C, H, W] in [0, 1] -> [B, c, h, w]."""
        ...


class Training(LightningModule):
    """A denoiser or classifier on its way: loss, optimiser, average, record, checkpoints and the reasons to stop.

    Only what the next step depends on is state (`State`); Lightning's own loop counters are not, so that a
    run can go on from any step. Counting, saving and stopping happen after the optimiser's step, never within
    one.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Items,
        plan: Plan,
        objective: Minimised,
        *,
        history: History | None,
        labels: Sequence[int] | None,
        codec: Encodes | None,
        folder: Path | None,
        fingerprint: dict[str, str],
        progress: Progress,
        stop: Event,
    ) -> None:
        super().__init__()
        self.model = model
        self.ema = Ema(model, cap=plan.ema)
        # Held in a tuple so that the codec is no part of what is trained, averaged and saved.
        self.codec = (codec,)
        self.data = data
        self.labels = labels
        self.plan = plan
        self.objective = objective
        self.history = history  # of an adaptive law of the noise levels; the same on every rank
        self.folder = folder
        self.fingerprint = fingerprint
        self.progress = progress
        self.stop = stop
        self.spawned = Spawned()
        self.steps_done = 0
        self.spent = 0.0  # seconds before this process began
        self.began: float | None = None
        self.stopped_by: str | None = None
        self.resumed: State | None = None
        self.course: list[record.Row] = []
        self.unread: list[Tensor] = []  # losses still on the device

    # ------------------------------------------------------------------ state

    def restore(self, state: State) -> None:
        """Nothing; the run stands where `state` left it (optimiser and precision follow once they exist)."""
        self.model.load_state_dict(state.model)
        self.ema.model.load_state_dict(state.ema)
        if self.history is not None:
            self.history = state.law
        self.steps_done, self.spent, self.resumed = state.step, state.seconds, state

    @property
    def seconds(self) -> float:
        """Time spent training, over all resumptions."""
        return self.spent + (0.0 if self.began is None else time.monotonic() - self.began)

    def _save(self) -> None:
        """Write a checkpoint, unless a weight is not a number (then the one before is worth more)."""
        if not all(bool(weight.isfinite().all()) for weight in self.model.parameters()):
            self._fail("the weights are no longer finite", self.steps_done)
        if self.folder is None or not self.trainer.is_global_zero:
            return
        state = State(
            step=self.steps_done,
            seconds=self.seconds,
            stopped_by=self.stopped_by,
            fingerprint=self.fingerprint,
            model=self.model.state_dict(),
            ema=self.ema.model.state_dict(),
            optimizer=self.trainer.optimizers[0].state_dict(),
            precision=self.trainer.precision_plugin.state_dict(),
            law=self.history or {},
        )
        checkpoint.save(self.folder / "checkpoints", state)

    # ------------------------------------------------------------- Lightning

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
        if self.resumed is not None:
            optimizer.load_state_dict(self.resumed.optimizer)
        return optimizer

    def train_dataloader(self) -> DataLoader[Batch]:
        """This rank's share of the steps still to do, in order."""
        steps = Steps(
            self.data,
            self.plan,
            self.objective,
            labels=self.labels,
            ahead=self.codec[0] is None,
            rank=self.trainer.global_rank,
            world=self.trainer.world_size,
        )
        return DataLoader(
            steps,
            batch_size=None,
            sampler=range(self.steps_done, self.plan.steps),
            num_workers=self.plan.workers,
            worker_init_fn=_ignore_interrupts,
            pin_memory=self.device.type == "cuda",
        )

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """The batch on `device`, the quantiles of its noise levels left on the CPU."""
        return batch.to(device)

    def on_fit_start(self) -> None:
        """Nothing; the clock runs and what Lightning has made is continued where it was resumed."""
        if self.resumed is not None:
            self.trainer.precision_plugin.load_state_dict(self.resumed.precision)
            self.resumed = None
        codec = self.codec[0]
        if isinstance(codec, nn.Module):
            codec.eval().to(self.device)
        self.model.train()
        self.began = time.monotonic()
        if self.trainer.is_global_zero:
            self.progress.begin(self.steps_done, self.spent, self.plan)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Nothing; the learning rate is that of the step."""
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate(self.plan, self.steps_done)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The mean loss of the rows of one step, []; weighted where the levels are not drawn by their own law."""
        # Dropout draws from the global generator: a function of the step too.
        chance = key(self.plan.seed, NETWORK, self.steps_done, self.trainer.global_rank)
        torch.default_generator.manual_seed(chance)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(chance)
        z = batch.z
        if (codec := self.codec[0]) is not None:
            with torch.no_grad():
                z = codec.encode(z)  # [B, c, h, w]
        n = PerImageNoise(batch.seeds, draw=self.objective.draw)(z) if batch.n is None else batch.n
        cond = None if batch.label is None else Cond(label=batch.label, keep=batch.keep)
        sigma, weight = self._levels(batch.u)
        losses = self.objective.loss(self.model, z, sigma, n, cond)  # [B]
        self._learn(sigma, losses)
        loss = losses.mean() if weight is None else (column(weight, losses) * losses).mean()
        self.unread.append(loss.detach())
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Nothing; the step is counted, averaged, recorded, now and then saved, and perhaps the last."""
        self.steps_done += 1
        last = self.steps_done == self.plan.steps
        due = self.steps_done % self.plan.checkpoint_every == 0
        asked = None
        if last or due or self.device.type == "cpu" or len(self.unread) >= READ_EVERY:
            asked = self._read()  # before the average: it stays good when the loss is not
        self.ema.update(self.model, step=self.steps_done - 1)
        self.stopped_by = "steps" if last else asked
        if self.stopped_by is not None:
            self.trainer.should_stop = True
            self.spent, self.began = self.seconds, None  # the clock stops
        if due or self.stopped_by is not None:
            self._save()
        if self.stopped_by is not None:
            self.progress.end()

    def _levels(self, u: Tensor) -> tuple[Tensor, Tensor | None]:
        """The noise levels of the rows, [B], and the weight of each row's loss; None = 1."""
        times = self.objective.times
        if self.history is not None and adapts(times):
            return times.draw(self.history, u)
        return times(u), None

    def _learn(self, sigma: Tensor, losses: Tensor) -> None:
        """Nothing; an adaptive law has seen the losses of all ranks, in the order that one device would have."""
        times = self.objective.times
        if self.history is None or not adapts(times):
            return
        told = torch.stack([sigma, losses.detach().cpu().double()])  # [2, B]
        if (world := self.trainer.world_size) > 1:
            parts = self.trainer.strategy.all_gather(told.to(self.device))  # [world, 2, B]
            # Row i of rank r is row r + i world of the step.
            told = parts.reshape(world, *told.shape).permute(1, 2, 0).flatten(1).cpu()  # [2, B world]
        self.history = times.learn(self.history, told[0], told[1])

    # --------------------------------------------------------------- guards

    def _read(self) -> str | None:
        """Take in the losses since the last look: recorded, shown, checked. The reason to stop, or None.

        Ranks agree on the losses and on the reason by one reduction, so that all stop after the same step.
        """
        out_of_time = self.plan.max_time is not None and self.seconds >= self.plan.max_time
        flags = torch.tensor([float(self.stop.is_set()), float(out_of_time)], device=self.device)
        told = torch.cat([torch.stack(self.unread).float(), flags])
        if self.trainer.world_size > 1:
            told = self.trainer.strategy.reduce(told, reduce_op="mean")
        *losses, interrupted, late = told.tolist()
        self.unread.clear()
        first = self.steps_done - len(losses)
        seconds = self.seconds
        rows = [
            record.Row(first + i + 1, loss, rate(self.plan, first + i), seconds)
            for i, loss in enumerate(losses)
        ]
        self.course += rows
        if self.trainer.is_global_zero:
            if self.folder is not None:
                record.append(self.folder / "metrics.csv", rows)
            for row in rows:
                self.progress.update(row.step, row.loss, row.seconds)
        for row in rows:
            if not math.isfinite(row.loss):
                self._fail(f"the loss became {row.loss}", row.step)
        return "interrupt" if interrupted else "time" if late else None

    def _fail(self, what: str, step: int) -> None:
        """Raise TrainingError with the place, the likely cause and what to try."""
        self.progress.end()
        lr = rate(self.plan, step - 1)
        try:
            again = Steps(self.data, self.plan, self.objective, ahead=False)[step - 1]
            bad = [i for i, row in enumerate(again.z) if not row.isfinite().all()]
        except Exception:  # the data fail by themselves; the loss is what is reported
            bad = []
        if bad:
            advice = f"{len(bad)} of the {len(again.z)} pictures of this step are not finite: check the data"
        else:
            advice = f"try a lower train.learning_rate, such as {lr / 10:.2g}, or a smaller train.clip"
        raise TrainingError(
            f"{what} at step {step} of {self.plan.steps}, learning rate {lr:.3g}; a finite number was expected. "
            f"{advice[0].upper()}{advice[1:]}, and start anew"
        )


def _ignore_interrupts(worker: int) -> None:
    """Ctrl-C reaches the readers too; they end with the run, not before its checkpoint."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
