"""The course of a run as a table on disk: step, loss, learning rate, seconds, and what else the run tells of a step."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from anodiff.atomic import replacing

COLUMNS = ("step", "loss", "lr", "seconds")


class Row(NamedTuple):
    """One step of the table."""

    step: int  # steps done, so the first is 1
    loss: float
    lr: float
    seconds: float  # over all resumptions
    more: tuple[float, ...] = ()  # further figures of the step, in the order of the table's further columns


def read(path: Path) -> list[Row]:
    """The whole rows of the table at `path`, in order; none when it is absent. A row cut short ends the table."""
    if not path.is_file():
        return []
    head, *lines = path.read_text(encoding="utf-8").splitlines(keepends=True) or [""]
    found: list[Row] = []
    for line in lines:
        cells = line.rstrip("\n").split(",")
        if not line.endswith("\n") or len(cells) != len(head.split(",")):
            break
        step, (loss, lr, seconds, *more) = int(cells[0]), map(float, cells[1:])
        found.append(Row(step, loss, lr, seconds, tuple(more)))
    return found


def cut(path: Path, step: int, *, further: Sequence[str] = ()) -> list[Row]:
    """The rows up to `step`, after the file was rewritten to hold just these: what a resumed run will redo is gone.

    `further` names the columns beyond `COLUMNS`.
    """
    kept = [row for row in read(path) if row.step <= step]
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow((*COLUMNS, *further))
        writer.writerows((*row[:4], *row.more) for row in kept)
    return kept


def append(path: Path, rows: list[Row]) -> None:
    """Add whole rows to the table at `path` in one write; losses are written so that they read back exactly."""
    lines = "".join(
        f"{row.step},{_exact(row.loss)},{row.lr!r},{row.seconds:.3f}{''.join(f',{value:.6g}' for value in row.more)}\n"
        for row in rows
    )
    with path.open("a", newline="", encoding="utf-8") as file:
        file.write(lines)


def _exact(value: float) -> str:
    return repr(value) if math.isfinite(value) else str(value)
