"""The good pictures of a fit: found, checked, divided, and the shape they are worked at."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from anodiff.config import RunConfig
from anodiff.data.dataset import Picture
from anodiff.data.image import header, read, working_shape
from anodiff.data.index import holdout, index, normals
from anodiff.data.table import GOOD, rows_where, table_of
from anodiff.errors import DataError
from anodiff.frame import frame


@dataclass(frozen=True, eq=False)
class Gathered:
    """Good pictures, divided into those to train on and those held out for calibration."""

    train: Sequence[Picture]
    held: Sequence[Picture]
    sizes: Sequence[tuple[int, int]]  # height and width of the pictures to train on
    train_rows: pd.DataFrame  # what is known of each; one row a picture
    held_rows: pd.DataFrame
    unreadable: Sequence[str] = ()  # sentences, one a picture left out

    def shape(self, config: RunConfig, multiple: int) -> tuple[int, int]:
        """The working (height, width): both sides multiples of `multiple`."""
        return working_shape(self.sizes, size=config.data.size, multiple=multiple, aspect=config.data.aspect)


def gather(
    source: Any,
    config: RunConfig,
    *,
    split_column: str = "split",
    category: str | Sequence[str] | None = None,
) -> Gathered:
    """The good pictures of `source`; in an evaluation layout only train/good is looked at.

    A picture that cannot be read is left out with a warning.

    Args:
        source: folder, MVTec-layout part, manifest CSV, list of paths, table of `data.index`, or arrays in memory.
        config: gives the share held out and the seed.
        split_column: of a manifest.
        category: only these parts.

    Raises:
        DataError: no good picture to train on, or none that can be read.
    """
    if not isinstance(source, str | Path | pd.DataFrame):
        source = list(source)
        if source and not isinstance(source[0], str | Path):
            return _in_memory(source, config)
    table = normals(index(source, split_column=split_column, category=category))
    problems = {path: problem for path in table["image"] if (problem := _problem(path))}
    for problem in problems.values():
        warnings.warn(f"left out of training: {problem}", stacklevel=2)
    table = rows_where(table, ~table["image"].isin(list(problems)))
    if table.empty:
        raise DataError(
            f"None of the {len(problems)} pictures can be read; the first: {next(iter(problems.values()))}"
        )
    train, held = holdout(table, share=config.data.holdout, seed=config.seed)
    return Gathered(
        train=list(train["image"]),
        held=list(held["image"]),
        sizes=[_size(path) for path in train["image"]],
        train_rows=train,
        held_rows=held,
        unreadable=list(problems.values()),
    )


def _in_memory(source: Iterable[Any], config: RunConfig) -> Gathered:
    """Arrays are divided by their order, which is all that is known of them."""
    frames = [frame(item) for item in source]
    table = table_of(
        {"image": f"array_{number:06d}", "category": "arrays", "split": "train", "defect": GOOD, "label": 0}
        for number in range(len(frames))
    )
    where = {image: number for number, image in enumerate(table["image"])}
    train, held = holdout(table, share=config.data.holdout, seed=config.seed)
    chosen: list[np.ndarray] = [frames[where[image]] for image in train["image"]]
    return Gathered(
        train=chosen,
        held=[frames[where[image]] for image in held["image"]],
        sizes=[(array.shape[0], array.shape[1]) for array in chosen],
        train_rows=train,
        held_rows=held,
    )


def _problem(path: str) -> str | None:
    """Why a picture cannot be read; decoded once whole, for a header says nothing about a truncated file."""
    try:
        read(path)
    except DataError as error:
        return str(error)
    return None


def _size(path: str) -> tuple[int, int]:
    found = header(path)
    return found.height, found.width
