"""The course of a run as a table on disk: step, loss, learning rate, seconds."""

from __future__ import annotations

import csv
import math
import os
from pathlib import Path
from typing import NamedTuple

COLUMNS = ("step", "loss", "lr", "seconds")


class Row(NamedTuple):
    """One step of the table."""

    step: int  # steps done, so the first is 1
    loss: float
    lr: float
    seconds: float  # over all resumptions


def read(path: Path) -> list[Row]:
    """The whole rows of the table at `path`, in order; none when it is absent. A row cut short ends the table."""
    if not path.is_file():
        return []
    found: list[Row] = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True)[1:]:
        cells = line.rstrip("\n").split(",")
        if not line.endswith("\n") or len(cells) != len(COLUMNS):
            break
        found.append(Row(int(cells[0]), *map(float, cells[1:])))
    return found


def cut(path: Path, step: int) -> list[Row]:
    """The rows up to `step`, after the file was rewritten to hold just these: what a resumed run will redo is gone."""
    kept = [row for row in read(path) if row.step <= step]
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    with draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(kept)
    os.replace(draft, path)
    return kept


def append(path: Path, rows: list[Row]) -> None:
    """Add whole rows to the table at `path` in one write; losses are written so that they read back exactly."""
    lines = "".join(f"{row.step},{_exact(row.loss)},{row.lr!r},{row.seconds:.3f}\n" for row in rows)
    with path.open("a", newline="", encoding="utf-8") as file:
        file.write(lines)


def _exact(value: float) -> str:
    return repr(value) if math.isfinite(value) else str(value)
