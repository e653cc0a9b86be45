"""What courses of several players share: one Adam each, a record that is looked at for signs of failure."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from anodiff.train import record
from anodiff.train.collapse import WINDOW
from anodiff.train.plan import rate
from anodiff.train.training import Training


class Played(Protocol):
    """What a game's objective says of its optimisers."""

    @property
    def momentum(self) -> tuple[float, float]:
        """Of all Adams."""
        ...


class Game(Training):
    """Players that take turns on one batch, each with an optimiser and a clipping of its own.

    Weights do not decay: `plan.weight_decay` is for `Descent`. What a step tells besides its loss may be missing (not a
    number); the record is judged by these figures at each checkpoint.
    """

    turns = 2

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.automatic_optimization = False
        self.said: set[str] = set()  # alarms given

    @abstractmethod
    def sides(self) -> list[tuple[nn.Module, float]]:
        """The players in the order of their turns, each with the share of the run's learning rate that it has."""

    @property
    def ahead(self) -> bool:
        """The noise of a step has many parts: none of it is drawn by the readers."""
        return False

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam (arXiv:1412.6980) for each player, in the order of their turns; continued where they were resumed."""
        lr = rate(self.plan, self.steps_done)
        optimizers = [
            torch.optim.Adam(
                player.parameters(),
                lr=lr * share,
                betas=cast("Played", self.objective).momentum,
                fused=self.device.type in ("cpu", "cuda"),
            )
            for player, share in self.sides()
        ]
        self.continued(optimizers)
        return list(optimizers)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Nothing; the learning rates are those of the step."""
        lr = rate(self.plan, self.steps_done)
        for optimizer, (_, share) in zip(self.trainer.optimizers, self.sides(), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = lr * share

    def learn(self, number: int, loss: Tensor) -> None:
        """Nothing; player `number` has made one step down `loss` []."""
        player, _ = self.sides()[number]
        found = self.optimizers()  # Lightning hands a single one out alone
        optimizer: Any = found[number] if isinstance(found, list) else found
        optimizer.zero_grad()
        self.manual_backward(loss)
        if self.plan.clip is not None:
            nn.utils.clip_grad_norm_(player.parameters(), self.plan.clip)
        optimizer.step()

    def tell(self, loss: Tensor, told: dict[str, Tensor]) -> None:
        """Nothing; the step's loss [] and its figures go into the record, those missing as not a number."""
        none = loss.new_tensor(float("nan"))
        figures = [loss, *(told.get(name, none) for name in self.further)]
        self.unread.append(torch.stack([figure.detach().float() for figure in figures]))

    def judged(self) -> None:
        """Nothing; what has gone wrong in the last steps is said, each time once."""
        rows: Sequence[record.Row] = self.course
        if len(rows) < WINDOW and self.folder is not None:  # resumed: what went before is in the table
            rows = record.read(self.folder / "metrics.csv")
        for alarm in self.alarms(rows[-WINDOW:]):
            if (kind := alarm[:20]) not in self.said:
                self.said.add(kind)
                self.progress.note(f"step {self.steps_done}: {alarm}")
