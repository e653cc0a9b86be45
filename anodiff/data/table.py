"""The one table of pictures every part of the package reads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, cast

import numpy as np
import pandas as pd

COLUMNS = ("image", "mask", "category", "split", "defect", "label", "group")
"""What every table has, in this order; further columns (exposure, probability, ...) may follow."""

GOOD = "good"
"""The word in `defect` for a picture without one."""


def table_of(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """The rows as a table with the house columns, in natural order of category and path.

    | column | meaning |
    |---|---|
    | image | absolute path |
    | mask | absolute path of the ground truth, or None |
    | category | which kind of part |
    | split | train or test; a manifest may bring further values, which nothing trains or tests on |
    | defect | "good" or the kind of defect |
    | label | 0 good, 1 defective |
    | group | pictures with the same value show the same physical part; None where unknown |
    """
    frame = pd.DataFrame(list(rows))
    for column in COLUMNS:
        if column not in frame:
            frame[column] = None
    extra = [column for column in frame.columns if column not in COLUMNS]
    frame = cast(pd.DataFrame, frame[[*COLUMNS, *extra]]).copy()
    # object columns, so that "unknown" is None everywhere and never a float that reads as the text "nan"
    for column in ("mask", "group"):
        values = [None if pd.isna(value) or value == "" else value for value in frame[column]]
        frame[column] = pd.Series(values, index=frame.index, dtype=object)
    frame["label"] = frame["label"].astype("int64")
    keys = [(natural(c), natural(i)) for c, i in zip(frame["category"], frame["image"], strict=True)]
    return frame.iloc[sorted(range(len(frame)), key=keys.__getitem__)].reset_index(drop=True)


def rows_where(table: pd.DataFrame, keep: Any) -> pd.DataFrame:
    """The rows for which `keep` is True, numbered anew from 0."""
    return cast(pd.DataFrame, table[np.asarray(keep, dtype=bool)]).reset_index(drop=True)


def natural(text: object) -> tuple[tuple[int, int, str], ...]:
    """A sort key under which 2.png comes before 10.png.

    The text itself decides between names that differ by leading zeros or case only, so the order is total and
    stable.
    """
    words = re.split(r"(\d+)", str(text))
    key = tuple((0, int(word), "") if word.isdecimal() else (1, 0, word.lower()) for word in words if word)
    return (*key, (2, 0, str(text)))
