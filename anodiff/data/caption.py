"""Captions: what a picture shows, in words."""

from __future__ import annotations

import string
from typing import Any

import pandas as pd

from anodiff.data.table import GOOD
from anodiff.errors import ConfigError, DataError

COLUMN = "caption"
"""The column captions usually stand in; a table need not have it."""

TEMPLATE = "a photo of a {state} {category}"
"""Of pictures without a caption."""

_FIELDS = ("category", "state")


def captions(table: pd.DataFrame, *, column: str = COLUMN, template: str = TEMPLATE) -> list[str]:
    """The caption of each row: its cell in `column`, or, where that is empty or missing, `composed` from the row.

    Args:
        table: as `data.index` gives it.
        column: where captions are; any other name than `caption` must be a column of the table.
        template: with `{category}` and `{state}`, of pictures without a caption.

    Raises:
        DataError: a column asked for by name that is missing, or a row whose composed caption has no words.
        ConfigError: the template has another field.
    """
    if column not in table and column != COLUMN:
        raise DataError(
            f"Expected captions in a column {column!r}, but there is none; columns: "
            f"{', '.join(map(str, table.columns))}."
        )
    written = list(table[column]) if column in table else [None] * len(table)
    found: list[str] = []
    for row, (text, image, category, defect) in enumerate(
        zip(written, table["image"], table["category"], table["defect"], strict=True), start=1
    ):
        caption = _text(text) or composed(template, category=_text(category), state=_text(defect) or GOOD)
        if not any(sign.isalnum() for sign in caption):
            raise DataError(
                f"The caption of row {row} ({image}) is empty: it has no text of its own, and the template "
                f"{template!r} gives none. Fill the column {column!r}, or give the template words."
            )
        found.append(caption)
    return found


def composed(template: str, *, category: str, state: str = GOOD) -> str:
    """The template with `{category}` and `{state}` filled in: "a photo of a good bottle".

    Underscores become spaces, so that the defect `broken_large` reads "broken large".

    Raises:
        ConfigError: the template has another field, or cannot be read.
    """
    try:
        fields = {field for _, field, _, _ in string.Formatter().parse(template) if field is not None}
    except ValueError as error:
        raise ConfigError(f"The template of captions {template!r} cannot be read: {error}.") from None
    if strange := sorted(fields - set(_FIELDS)):
        raise ConfigError(
            f"The template of captions {template!r} has a field {strange[0]!r}; there are {{category}} and {{state}}."
        )
    words = {"category": category.replace("_", " "), "state": state.replace("_", " ")}
    return " ".join(template.format(**words).split())


def _text(value: Any) -> str:
    return "" if value is None or value != value else " ".join(str(value).split())  # NaN differs from itself
