"""The good pictures of a fit: found, checked, divided, and the shape they are worked at."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from anodiff.config import RunConfig
from anodiff.config.schema import CategoryLabels, UprightPose
from anodiff.data.dataset import Picture
from anodiff.data.image import header, read, working_shape
from anodiff.data.index import holdout, index, normals
from anodiff.data.table import GOOD, natural, rows_where, table_of
from anodiff.errors import DataError
from anodiff.frame import frame


@dataclass(frozen=True, eq=False)
class Readable:
    """Rows whose pictures were read once, and why others were not."""

    rows: pd.DataFrame
    unreadable: Sequence[str] = ()  # sentences, one a picture left out


@dataclass(frozen=True, eq=False)
class Gathered:
    """Good pictures, divided into those to train on and those held out for calibration."""

    train: Sequence[Picture]
    held: Sequence[Picture]
    sizes: Sequence[tuple[int, int]]  # height and width of the pictures to train on
    train_rows: pd.DataFrame  # what is known of each; one row a picture
    held_rows: pd.DataFrame
    unreadable: Sequence[str] = ()  # sentences, one a picture left out
    dropped: Mapping[str, int] = field(default_factory=dict)  # by split, how many `without` left out

    @property
    def rows(self) -> dict[str, pd.DataFrame]:
        """What is known of each picture, by the name of its split."""
        return {"train": self.train_rows, "holdout": self.held_rows}

    def apart(self, share: float, *, seed: int) -> tuple[Gathered, Gathered]:
        """The same pictures with a share of those to train on taken away, and with that share alone to train on.

        Divided as the held-out ones are: by the name's hash, groups together.
        """
        kept, taken = holdout(self.train_rows, share=share, seed=seed)
        out = set(taken["image"])

        def part(outside: bool) -> Gathered:
            chosen = [(name in out) == outside for name in self.train_rows["image"]]
            return replace(
                self,
                train=list(compress(self.train, chosen)),
                sizes=list(compress(self.sizes, chosen)),
                train_rows=taken if outside else kept,
            )

        return part(False), part(True)

    def without(self, images: Iterable[str]) -> Gathered:
        """The same pictures but for those of these names, divided as before.

        Raises:
            DataError: none would be left to train on, or none held out.
        """
        out = set(images)
        train = [name not in out for name in self.train_rows["image"]]
        held = [name not in out for name in self.held_rows["image"]]
        if not any(train) or not any(held):
            raise DataError(
                f"Without these {len(out)} pictures {sum(train)} would be left to train on and {sum(held)} held out; "
                "at least one of each is needed: add good pictures."
            )
        return replace(
            self,
            train=list(compress(self.train, train)),
            held=list(compress(self.held, held)),
            sizes=list(compress(self.sizes, train)),
            train_rows=rows_where(self.train_rows, train),
            held_rows=rows_where(self.held_rows, held),
            dropped={
                "train": self.dropped.get("train", 0) + train.count(False),
                "holdout": self.dropped.get("holdout", 0) + held.count(False),
            },
        )

    def shape(self, config: RunConfig, multiple: int) -> tuple[int, int]:
        """The working (height, width): both sides multiples of `multiple`.

        Parts that are brought upright have the aspect of their canvas in place of the pictures'.
        """
        pose, aspect = config.data.pose, config.data.aspect
        if isinstance(pose, UprightPose) and pose.canvas is not None:
            left, up, right, down = pose.canvas
            return working_shape(
                [(up + down, left + right)], size=config.data.size, multiple=multiple, aspect=aspect
            )
        return working_shape(self.sizes, size=config.data.size, multiple=multiple, aspect=aspect)


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
    good = readable(normals(index(source, split_column=split_column, category=category)), use="training")
    train, held = holdout(good.rows, share=config.data.holdout, seed=config.seed)
    return Gathered(
        train=list(train["image"]),
        held=list(held["image"]),
        sizes=[_size(path) for path in train["image"]],
        train_rows=train,
        held_rows=held,
        unreadable=good.unreadable,
    )


def readable(table: pd.DataFrame, *, use: str) -> Readable:
    """The rows whose pictures can be read; each that cannot is left out with a warning.

    Args:
        table: as `data.index` gives it.
        use: what they are left out of, for the warning.

    Raises:
        DataError: none can be read.
    """
    problems = {path: problem for path in table["image"] if (problem := _problem(path))}
    for problem in problems.values():
        warnings.warn(f"left out of {use}: {problem}", stacklevel=3)
    kept = rows_where(table, ~table["image"].isin(list(problems)))
    if kept.empty:
        raise DataError(
            f"None of the {len(problems)} pictures can be read; the first: {next(iter(problems.values()))}"
        )
    return Readable(kept, list(problems.values()))


def good_rows(source: str | Path, *, split_column: str = "split") -> pd.DataFrame:
    """The good pictures of the test split, or of the training split where that has none."""
    table = index(source, split_column=split_column)
    found = rows_where(table, (table["split"] == "test") & (table["label"] == 0))
    return normals(table) if found.empty else found


def labelled(config: RunConfig, gathered: Gathered) -> RunConfig:
    """The configuration with the names of its labels: those of the column it names, in natural order.

    Names that stand in the configuration already keep their order.

    Raises:
        DataError: no such column, a picture without a label, one label only, or other names than the configuration's.
    """
    if not isinstance(config.labels, CategoryLabels):
        return config
    column, known = config.labels.column, config.labels.names
    names = sorted(
        set(_column(gathered.train_rows, column)) | set(_column(gathered.held_rows, column)), key=natural
    )
    if known and set(known) != set(names):
        raise DataError(
            f"The configuration names the labels {', '.join(known)}, but the column {column!r} has {', '.join(names)}: "
            "leave labels.names out, or bring the two together."
        )
    if len(names) < 2:
        raise DataError(
            f"labels.kind: category needs at least two kinds of parts, but all pictures are {names[0]!r} in the column "
            f"{column!r}. Name a folder of several parts, or set labels.kind to none or cluster."
        )
    labels = config.labels.model_copy(update={"names": known or tuple(names)})
    return config.model_copy(update={"labels": labels})


def label_numbers(config: RunConfig, table: pd.DataFrame) -> list[int] | None:
    """The number of each row's label, where the table knows them; None for a model whose labels come from elsewhere.

    Raises:
        DataError: a name the configuration does not have.
    """
    if not isinstance(config.labels, CategoryLabels):
        return None
    numbers = {name: number for number, name in enumerate(config.labels.names)}
    names = _column(table, config.labels.column)
    if strange := sorted(set(names) - set(numbers)):
        raise DataError(f"There is no label {strange[0]!r}; the model's labels are {', '.join(numbers)}.")
    return [numbers[name] for name in names]


def _column(table: pd.DataFrame, column: str) -> list[str]:
    if column not in table:
        raise DataError(
            f"labels.column: there is no column {column!r}; columns: {', '.join(map(str, table.columns))}."
        )
    values = list(table[column])
    missing = sum(value is None or value != value for value in values)  # NaN differs from itself
    if missing:
        raise DataError(f"{missing} good pictures have nothing in the column {column!r}: name each one.")
    return [str(value) for value in values]


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
