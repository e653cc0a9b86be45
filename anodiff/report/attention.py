"""Where words look, as a picture: a row a painted picture, a column a word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from anodiff.report.picture import overlay

SIDE = 1.3  # inches of a panel
DOTS = 120  # an inch
NARROW = 14  # letters that find room over a panel


@dataclass(frozen=True, eq=False)
class Looked:
    """A row: a picture, and where each word looked."""

    picture: np.ndarray  # uint8 [H, W, C]
    words: Sequence[str]
    maps: np.ndarray  # [words, h, w] in [0, 1]


def attention_png(rows: Sequence[Looked]) -> bytes:
    """The sheet as a PNG: each row's picture, then the picture under the map of each word, with the word above it.

    Maps of other sizes are interpolated to the picture's. Every word is drawn up to its own largest value, so that
    words tell where they look, not how much.

    Args:
        rows: at least one, each with at least one word.
    """
    columns = 1 + max(len(row.words) for row in rows)
    height, width = rows[0].picture.shape[:2]
    tall = SIDE * height / width
    figure = Figure(figsize=(columns * SIDE, len(rows) * (tall + 0.3)), dpi=DOTS, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(len(rows), columns, squeeze=False)
    for line, row in zip(panels, rows, strict=True):
        for panel in line:
            panel.set_axis_off()
        picture = _coloured(row.picture)
        line[0].imshow(picture)
        for panel, word, found in zip(line[1:], row.words, row.maps, strict=False):
            size = (picture.shape[1], picture.shape[0])
            grown = cv2.resize(found.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
            panel.imshow(overlay(picture, grown, low=0.0, high=1.0))
            panel.set_title(_short(word), fontsize=9, parse_math=False)
    out = BytesIO()
    canvas.print_png(out)
    return out.getvalue()


def _coloured(picture: np.ndarray) -> np.ndarray:
    return np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture


def _short(word: str) -> str:
    return word if len(word) <= NARROW else word[: NARROW - 1] + "\u2026"
