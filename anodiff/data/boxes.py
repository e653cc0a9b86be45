"""Boxes with classes: where things are in a picture, as a table tells it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import pandas as pd

from anodiff.data.table import natural
from anodiff.errors import DataError

Box = tuple[str, float, float, float, float]
"""Class, left, top, right, bottom; left and right are shares of the width, top and bottom of the height."""

_FORM = '[["bolt", 0.1, 0.2, 0.3, 0.4], ...]: class, left, top, right, bottom as shares of width and height'


def boxes(table: pd.DataFrame, *, column: str = "boxes") -> list[list[Box]]:
    """The boxes of each row, in the order they are written in.

    A cell holds `[["bolt", 0.1, 0.2, 0.3, 0.4], ...]` as JSON text, or the path of a .json file with that; an empty one
    is a picture without boxes.

    Args:
        table: as `data.index` gives it, where paths of files beside a manifest are absolute.
        column: where the boxes are.

    Raises:
        DataError: no such column, no box in all of it, a file that cannot be read, text that is no such list, or a box
            that is not `0 <= left < right <= 1` and `0 <= top < bottom <= 1`; the message names picture and box.
    """
    if column not in table:
        raise DataError(
            f"Expected boxes in a column {column!r}, but there is none; columns: {', '.join(map(str, table.columns))}."
        )
    cells = zip(table["image"], table[column], strict=True)
    found = [_cell(value, f"{image}, column {column!r}") for image, value in cells]
    if not any(found):
        raise DataError(f"The column {column!r} of {len(table)} pictures holds no box. Expected {_FORM}.")
    return found


def read_boxes(path: Path) -> list[Box]:
    """The boxes of a .json file; DataError as `boxes` where it cannot be read or holds something else."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"The boxes in {path} cannot be read: {error}. Paths in a manifest are relative to its folder."
        ) from None
    return parse(text, where=str(path))


def parse(text: str, *, where: str) -> list[Box]:
    """The boxes of JSON text; `where` names the place in a message.

    Raises:
        DataError: text that is no list of boxes, or a box out of its range.
    """
    try:
        listed = json.loads(text)
    except ValueError as error:
        raise DataError(f"{where}: expected boxes as JSON, {_FORM}; {error}.") from None
    if not isinstance(listed, list):
        raise DataError(f"{where}: expected a list of boxes, {_FORM}; got {text[:60]!r}.")
    return [checked(box, where=f"{where}, box {number}") for number, box in enumerate(cast(Any, listed), 1)]


def checked(box: Any, *, where: str) -> Box:
    """The box as a tuple, once it is one; `where` names it in a message.

    Raises:
        DataError: not a class and four numbers, or not `0 <= left < right <= 1` and `0 <= top < bottom <= 1`.
    """
    if not isinstance(box, list | tuple) or len(cast(Sequence[Any], box)) != 5:
        raise DataError(f"{where}: expected a class and four numbers, {_FORM}; got {box!r}.")
    name, *sides = cast(Sequence[Any], box)
    if not isinstance(name, str) or not name.strip() or not all(_is_number(side) for side in sides):
        raise DataError(f"{where}: expected a class and four numbers, {_FORM}; got {box!r}.")
    left, top, right, bottom = (float(side) for side in sides)
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise DataError(
            f"{where}: expected 0 <= left < right <= 1 and 0 <= top < bottom <= 1, got left={left:g}, top={top:g}, "
            f"right={right:g}, bottom={bottom:g}. Divide pixels by the picture's width and height."
        )
    return name.strip(), left, top, right, bottom


def written(row: Sequence[Box]) -> str:
    """The boxes as JSON text on one line, as `parse` reads it."""
    return json.dumps([list(box) for box in row])


def class_names(rows: Iterable[Sequence[Box]]) -> tuple[str, ...]:
    """The classes of these boxes, each once, in natural order."""
    return tuple(sorted({box[0] for row in rows for box in row}, key=natural))


def _cell(value: Any, where: str) -> list[Box]:
    text = "" if value is None or value != value else str(value).strip()  # NaN differs from itself
    if not text:
        return []
    return read_boxes(Path(text)) if text.lower().endswith(".json") else parse(text, where=where)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
