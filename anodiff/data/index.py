"""Which pictures there are: any way to name them, one table."""

from __future__ import annotations

import difflib
import glob as globbing
import hashlib
import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from anodiff.data.layout import is_picture, plain_rows, rows_of
from anodiff.data.manifest import normalise, read_manifest
from anodiff.data.table import COLUMNS, natural, rows_where, table_of
from anodiff.errors import DataError

Source = str | os.PathLike[str] | pd.DataFrame | Iterable[str | os.PathLike[str]]


def index(
    source: Source, *, split_column: str = "split", category: str | Sequence[str] | None = None
) -> pd.DataFrame:
    """The table of pictures: columns image, mask, category, split, defect, label, group.

    `table.table_of` explains the columns. No picture is opened; names alone are read.

    Args:
        source: a folder (plain, one part or several in MVTec layout, `good/` beside `bad/`), a manifest CSV,
            a picture, a pattern with `*`, a list of paths, or a table with a column `image`.
        split_column: the column of a manifest that says train or test.
        category: keep this part, or these parts, only.

    Raises:
        DataError: nothing there, no picture there, or a manifest or category that does not fit.
    """
    table = _read(source, split_column)
    return (
        table
        if category is None
        else _only(table, [category] if isinstance(category, str) else list(category))
    )


def normals(table: pd.DataFrame) -> pd.DataFrame:
    """The rows a model may be fitted on: good and in the training split; nothing of `test` is among them.

    Raises:
        DataError: when there is none, saying which splits there are.
    """
    chosen = rows_where(table, (table["split"] == "train") & (table["label"] == 0))
    if chosen.empty:
        found = table.groupby(["split", "defect"]).size()
        what = ", ".join(f"{count} {split}/{defect}" for (split, defect), count in found.items())  # type: ignore[misc]
        raise DataError(
            f"Expected good pictures to train on, but there is none; found {what or 'no pictures'}. "
            "Name the folder of good pictures itself, or put them in train/good."
        )
    return chosen


def holdout(
    table: pd.DataFrame, *, share: float = 0.2, minimum: int = 4, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table in two: (to train on, held out for calibration).

    A picture is held out when the hash of its file name, as a number in [0, 1), is below `share`; so adding
    pictures moves none of the old ones. Pictures of one group go together. In every category at least
    `minimum` groups are held out, but no more than half of its groups on account of the minimum, and neither
    side is left empty.

    Where that cannot be: pictures that all belong to one group are divided one by one, and a category of one
    single picture stands on both sides, so that its calibration is in-sample and optimistic. Both give a
    warning.

    Args:
        table: as `index` or `normals` gives it.
        share: of the groups, in (0, 1).
        minimum: groups a category holds out at least.
        seed: another seed, another division.
    """
    if not 0.0 < share < 1.0:
        raise DataError(f"Expected a share between 0 and 1 to hold out, got {share}.")
    if table.empty:
        raise DataError("Expected at least one picture to divide, got an empty table.")
    units = _units(table)
    place = {unit: _unit_hash(unit, seed) for unit in set(units)}
    held = {unit for unit, value in place.items() if value < share}
    both: set[str] = set()
    for name, part in units.groupby(table["category"], sort=True):
        ranked = sorted(set(part), key=lambda unit: (place[unit], unit))
        if len(ranked) == 1:
            warnings.warn(f"{name}: one picture is trained on and calibrated on; add more.", stacklevel=2)
            held.discard(ranked[0])
            both.add(ranked[0])
            continue
        if held.issuperset(ranked):
            held.discard(ranked[-1])
        held.update(ranked[: max(1, min(minimum, len(ranked) // 2))])
    is_held, is_both = units.isin(held), units.isin(both)
    return rows_where(table, ~is_held), rows_where(table, is_held | is_both)


def _units(table: pd.DataFrame) -> pd.Series:
    """What is divided as a whole: the group where there is one, else category and file name."""
    columns = (table["category"], table["image"], table["group"])
    units = pd.Series(
        [
            f"{category}/{os.path.basename(image)}" if pd.isna(group) else f"group:{group}"
            for category, image, group in zip(*columns, strict=True)
        ],
        index=table.index,
    )
    for name, part in units.groupby(table["category"]):
        if part.nunique() == 1 and len(part) > 1:
            warnings.warn(
                f"{name}: all {len(part)} pictures form one group; divided by picture.", stacklevel=3
            )
            units[part.index] = table["image"][part.index]
    return units


def _unit_hash(unit: str, seed: int) -> float:
    digest = hashlib.blake2b(f"{seed}:{unit}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _read(source: Source, split_column: str) -> pd.DataFrame:
    if isinstance(source, pd.DataFrame):
        return normalise(source, home=Path.cwd(), split_column=split_column, name="the table")
    if not isinstance(source, str | os.PathLike):
        return _listed([Path(os.path.abspath(path)) for path in source])
    text = os.fspath(source)
    path = Path(os.path.abspath(os.path.expanduser(text)))
    if path.is_file():
        if path.suffix.lower() in (".csv", ".tsv"):
            return read_manifest(path, split_column=split_column)
        return _listed([path])
    if not path.exists() and any(mark in text for mark in "*?["):
        found = [
            Path(os.path.abspath(name)) for name in globbing.glob(os.path.expanduser(text), recursive=True)
        ]
        return _listed([p for p in found if is_picture(p.name)], pattern=text)
    return table_of(rows_of(path))


def _listed(paths: list[Path], *, pattern: str = "") -> pd.DataFrame:
    if not paths:
        what = f"the pattern {pattern} matches none" if pattern else "the list is empty"
        raise DataError(f"Expected paths of pictures, but {what}.")
    for path in paths:
        if not is_picture(path.name):
            raise DataError(f"Expected a picture, a folder or a manifest CSV, got {path}.")
    return table_of(plain_rows(sorted(paths, key=natural)))


def _only(table: pd.DataFrame, wanted: list[str]) -> pd.DataFrame:
    there = sorted(set(table["category"]), key=natural)
    for name in wanted:
        if name not in there:
            near = difflib.get_close_matches(name, there, n=1)
            meant = f" Did you mean {near[0]!r}?" if near else ""
            raise DataError(f"There is no category {name!r}; found {', '.join(there)}.{meant}")
    return rows_where(table, table["category"].isin(wanted))


__all__ = ["COLUMNS", "Source", "holdout", "index", "normals"]
