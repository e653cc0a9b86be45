"""How figures and pictures are shown: Markdown tables, sheets of named rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A Markdown table, a line a row."""
    keys = list(rows[0])
    lines = [f"| {' | '.join(keys)} |", "|---" * len(keys) + "|"]
    lines += [f"| {' | '.join(cell(row[key]) for key in keys)} |" for row in rows]
    return "\n".join(lines) + "\n"


def cell(value: Any) -> str:
    """A number with three digits, a dash for nothing."""
    return "-" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def broken(text: str) -> str:
    """A caption on several lines."""
    return re.sub(r" (at|on|in|and) ", r"\n\1 ", text)


def sheet(
    rows: Mapping[str, Sequence[np.ndarray] | np.ndarray],
    path: Path,
    *,
    titles: Sequence[str] = (),
    left: float = 0.12,
) -> None:
    """A named row of pictures each, twice as large as they are; `titles` stand above the columns."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    high, wide = next(iter(rows.values()))[0].shape[:2]
    columns = max(map(len, rows.values()))
    cell, dpi = (2 * wide + 4) / 100, 100
    top = 0.4 if titles else 0.04
    size = (columns * cell / (1 - left), len(rows) * (2 * high + 4) / 100 + top)
    figure = plt.figure(figsize=size, dpi=dpi)
    share = (size[1] - top) / size[1] / len(rows)
    for k, (name, row) in enumerate(rows.items()):
        line = figure.add_axes((left, 1 - top / size[1] - (k + 1) * share, 1 - left, share))
        tiles = [
            np.pad(p.repeat(2, 0).repeat(2, 1), ((2, 2), (2, 2), (0, 0)), constant_values=255) for p in row
        ]
        blank = np.full_like(tiles[0], 255)
        line.imshow(np.concatenate([*tiles, *[blank] * (columns - len(tiles))], axis=1), aspect="auto")
        line.text(-0.008, 0.5, name, ha="right", va="center", fontsize=9, transform=line.transAxes)
        line.axis("off")
        for column, title in enumerate(titles if k == 0 else ()):
            line.text(
                (column + 0.5) / columns,
                1.02,
                title,
                ha="center",
                va="bottom",
                fontsize=8,
                transform=line.transAxes,
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=dpi)
    plt.close(figure)
