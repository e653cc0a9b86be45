"""The course of a run: its state, the average beside the weights, counting, recording, and the reasons to stop."""

from __future__ import annotations

import math
import signal
import time
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader

from anodiff.errors import TrainingError
from anodiff.train import checkpoint, record
from anodiff.train.checkpoint import State
from anodiff.train.ema import Ema
from anodiff.train.importance import History
from anodiff.train.interrupt import Event, Spawned
from anodiff.train.objective import Goal
from anodiff.train.plan import Plan, rate
from anodiff.train.progress import Progress
from anodiff.train.source import NETWORK, Batch, Items, Steps, key

if TYPE_CHECKING:
    from anodiff.train.told import Told

READ_EVERY = 16  # steps between two looks at the losses of an accelerator, each of which waits for it


class Encodes(Protocol):
    """The half of a codec that training needs."""

    def encode(self, image: Tensor) -> Tensor:
        """[B, C, H, W] in [0, 1] -> [B, c, h, w]."""
        ...


class Training(LightningModule):
    """A model on its way, whatever its step is: average, record, checkpoints and the reasons to stop.

    Only what the next step depends on is state (`State`); Lightning's own loop counters are not, so that a
    run can go on from any step. Counting, saving and stopping happen after the optimisers' steps, never within
    one. What a step is, and with which optimisers, is told by a subclass: `Descent`, `Duel` or `Rebuild`.
    """

    further: tuple[str, ...] = ()
    """The names of the figures that a step tells besides its loss."""

    turns: int = 1
    """Steps of optimisers in one step of the run, at most; above 1 the course takes and clips them by itself."""

    conditional: bool = True
    """Whether labels, what rows are told, and a codec before the model have a meaning."""

    def __init__(
        self,
        model: nn.Module,
        data: Items,
        plan: Plan,
        objective: Goal,
        *,
        history: History | None,
        labels: Sequence[int] | None,
        told: Told | None = None,
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
        self.told = told
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
        self.kept: dict[int, dict[str, Tensor]] = {}  # averages as they stood after the steps of `plan.keep`
        self.course: list[record.Row] = []
        self.unread: list[Tensor] = []  # losses and further figures, [1 + further], still on the device

    # ------------------------------------------------------------------ state

    def restore(self, state: State) -> None:
        """Nothing; the run stands where `state` left it (optimiser and precision follow once they exist)."""
        self.model.load_state_dict(state.model)
        self.ema.model.load_state_dict(state.ema)
        if self.history is not None:
            self.history = state.law
        self.steps_done, self.spent, self.resumed = state.step, state.seconds, state
        self.kept = dict(state.kept)

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
            optimizers=[optimizer.state_dict() for optimizer in self.trainer.optimizers],
            precision=self.trainer.precision_plugin.state_dict(),
            law=self.history or {},
            kept=self.kept,
        )
        checkpoint.save(self.folder / "checkpoints", state)

    # ------------------------------------------------------------- Lightning

    @abstractmethod
    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """One step; what it tells is in `unread` afterwards."""

    @property
    def ahead(self) -> bool:
        """Whether the readers draw the noise of a step too; where a codec follows, its shape is not known yet."""
        return self.codec[0] is None

    def continued(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Nothing; fresh optimisers stand where the resumed run left them."""
        if self.resumed is not None:
            for optimizer, state in zip(optimizers, self.resumed.optimizers, strict=True):
                optimizer.load_state_dict(state)

    @staticmethod
    def alarms(rows: Sequence[record.Row]) -> tuple[str, ...]:
        """What looks wrong in the last of `rows`, a sentence each; nothing where a course cannot go wrong unseen."""
        return ()

    def judged(self) -> None:
        """Nothing; a course that can go wrong without a loss that shows it looks at its record here."""

    def seeded(self) -> None:
        """Nothing; what networks draw for themselves, such as dropout, is a function of the step."""
        chance = key(self.plan.seed, NETWORK, self.steps_done, self.trainer.global_rank)
        torch.default_generator.manual_seed(chance)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(chance)

    @torch.no_grad()
    def coded(self, batch: Batch) -> Tensor:
        """The rows of a batch in codec space, [B, c, h, w]."""
        codec = self.codec[0]
        return batch.z if codec is None else codec.encode(batch.z)

    def train_dataloader(self) -> DataLoader[Batch]:
        """This rank's share of the steps still to do, in order."""
        steps = Steps(
            self.data,
            self.plan,
            self.objective,
            labels=self.labels,
            told=self.told,
            ahead=self.ahead,
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

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Nothing; the step is counted, averaged, recorded, now and then saved, and perhaps the last."""
        self.steps_done += 1
        last = self.steps_done == self.plan.steps
        due = self.steps_done % self.plan.checkpoint_every == 0
        asked = None
        if last or due or self.device.type == "cpu" or len(self.unread) >= READ_EVERY:
            asked = self._read()  # before the average: it stays good when the loss is not
        self.ema.update(self.model, step=self.steps_done - 1)
        if self.steps_done in self.plan.keep:
            self.kept[self.steps_done] = {
                name: value.detach().cpu().clone() for name, value in self.ema.model.state_dict().items()
            }
        self.stopped_by = "steps" if last else asked
        if self.stopped_by is not None:
            self.trainer.should_stop = True
            self.spent, self.began = self.seconds, None  # the clock stops
        if due or self.stopped_by is not None:
            self._save()
            if self.trainer.is_global_zero:
                self.judged()
        if self.stopped_by is not None:
            self.progress.end()

    # --------------------------------------------------------------- guards

    def _read(self) -> str | None:
        """Take in the losses since the last look: recorded, shown, checked. The reason to stop, or None.

        Ranks agree on the losses and on the reason by one reduction, so that all stop after the same step.
        """
        out_of_time = self.plan.max_time is not None and self.seconds >= self.plan.max_time
        flags = torch.tensor([float(self.stop.is_set()), float(out_of_time)], device=self.device)
        figures = torch.stack(self.unread).float()  # [steps, 1 + further]
        told = torch.cat([figures.flatten(), flags])
        if self.trainer.world_size > 1:
            told = self.trainer.strategy.reduce(told, reduce_op="mean")
        *values, interrupted, late = told.tolist()
        self.unread.clear()
        first = self.steps_done - len(figures)
        seconds = self.seconds
        rows = [
            record.Row(first + i + 1, loss, rate(self.plan, first + i), seconds, tuple(more))
            for i, (loss, *more) in enumerate(torch.tensor(values).view(figures.shape).tolist())
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
