"""How a run shows that it lives: a bar on a terminal, a line every few seconds elsewhere; always on stderr."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as RichProgress

from anodiff.train.plan import Plan


class Progress(Protocol):
    """What a run tells while it goes on; objects cross process borders before `begin`, so they hold nothing open."""

    def begin(self, step: int, seconds: float, plan: Plan) -> None:
        """The run goes on from `step`, after `seconds` already spent."""
        ...

    def update(self, step: int, loss: float, seconds: float) -> None:
        """`step` steps are done in `seconds` in all; the last one's loss."""
        ...

    def note(self, text: str) -> None:
        """Something is to be said about the run while it goes on."""
        ...

    def end(self) -> None:
        """The run is over; may come twice."""
        ...


class Silent:
    """Nothing is shown."""

    def begin(self, step: int, seconds: float, plan: Plan) -> None:
        """Nothing."""

    def update(self, step: int, loss: float, seconds: float) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""


class Pace:
    """The figures shown: a smoothed loss, steps a second, time left by steps and by `max_time`."""

    def __init__(self, step: int, seconds: float, plan: Plan) -> None:
        self.start = (step, seconds)
        self.plan = plan
        self.now = (step, seconds)
        self.loss: float | None = None

    def update(self, step: int, loss: float, seconds: float) -> None:
        """Take in the loss of step `step`; the mean reaches back over some fifty steps."""
        share = max(0.02, 1 / (step - self.start[0] + 1))
        self.loss = loss if self.loss is None else self.loss + share * (loss - self.loss)
        self.now = (step, seconds)

    @property
    def speed(self) -> float:
        """Steps a second since this process began; 0 before the first."""
        spent = self.now[1] - self.start[1]
        return (self.now[0] - self.start[0]) / spent if spent > 0 else 0.0

    @property
    def left(self) -> float | None:
        """Seconds until the run ends by steps or by time, whichever is first; None while unknown."""
        by_time = None if self.plan.max_time is None else max(0.0, self.plan.max_time - self.now[1])
        if self.speed == 0:
            return by_time
        by_steps = (self.plan.steps - self.now[0]) / self.speed
        return by_steps if by_time is None else min(by_steps, by_time)

    def text(self) -> str:
        """The figures in words."""
        loss = "-" if self.loss is None else f"{self.loss:.4g}"
        left = "-" if self.left is None else str(timedelta(seconds=round(self.left)))
        return f"loss {loss}  {self.speed:.3g} steps/s  {left} left"


class Lines:
    """A line every `every` seconds, for logs and pipes."""

    def __init__(self, *, label: str = "train", every: float = 5.0) -> None:
        self.label = label
        self.every = every

    def begin(self, step: int, seconds: float, plan: Plan) -> None:
        """The clock starts; the first line comes `every` seconds later."""
        self._pace = Pace(step, seconds, plan)
        self._said: tuple[int, float] = (step, time.monotonic())

    def update(self, step: int, loss: float, seconds: float) -> None:
        """A line, when the last one is old enough."""
        self._pace.update(step, loss, seconds)
        if time.monotonic() - self._said[1] >= self.every:
            self._say()

    def note(self, text: str) -> None:
        """A line of its own."""
        sys.stderr.write(f"{self.label}: {text}\n")
        sys.stderr.flush()

    def end(self) -> None:
        """A last line, when there is something new to say."""
        if hasattr(self, "_pace") and self._said[0] != self._pace.now[0]:
            self._say()

    def _say(self) -> None:
        self._said = (self._pace.now[0], time.monotonic())
        line = f"{self.label} {self._pace.now[0]}/{self._pace.plan.steps}  {self._pace.text()}\n"
        sys.stderr.write(line)
        sys.stderr.flush()


class Bar:
    """A bar on the terminal behind stderr."""

    def __init__(self, *, label: str = "train") -> None:
        self.label = label

    def begin(self, step: int, seconds: float, plan: Plan) -> None:
        """The bar appears."""
        self._pace = Pace(step, seconds, plan)
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            console=Console(stderr=True),
            redirect_stdout=False,
            redirect_stderr=False,
            refresh_per_second=4,
        )
        self._task = self._bar.add_task(self.label, total=plan.steps, completed=step, figures="")
        self._bar.start()

    def update(self, step: int, loss: float, seconds: float) -> None:
        """The bar moves."""
        self._pace.update(step, loss, seconds)
        self._bar.update(self._task, completed=step, figures=self._pace.text())

    def note(self, text: str) -> None:
        """A line above the bar."""
        self._bar.console.print(f"{self.label}: {text}", markup=False, highlight=False)

    def end(self) -> None:
        """The bar stays as it is and the cursor comes back."""
        if hasattr(self, "_bar"):
            self._bar.stop()


def progress(label: str = "train") -> Bar | Lines:
    """A bar when stderr is a terminal, else a line every few seconds."""
    return Bar(label=label) if sys.stderr.isatty() else Lines(label=label)
