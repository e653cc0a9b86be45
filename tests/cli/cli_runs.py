"""Words of short fits, and what the command leaves behind as rows."""

from __future__ import annotations

import csv
from pathlib import Path

SHORT = (
    "--preset",
    "tiny",
    "--size",
    "64",
    "--set",
    "net.width=16",
    "--set",
    "train.warmup=2",
    "--device",
    "cpu",
)
"""Words of a fit of features that takes seconds."""

_WORDS = (
    "family.kind=eps",
    "train.weight=eps",
    "net.width=8",
    "net.multipliers=[1]",
    "net.attention=[]",
    "train.steps=3",
    "score.steps=4",
    "score.distances={l1: 1.0}",
)
PAINTER = (
    *("--preset", "pixels", "--size", "32", "--channels", "1", "--device", "cpu"),
    *(part for word in _WORDS for part in ("--set", word)),
)
"""Words of a fit of pixels for three steps: it paints noise, but it paints."""


def table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file by column."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
