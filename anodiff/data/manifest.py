"""A table of pictures as a CSV file."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from anodiff.data.layout import BAD_NAMES, ENDINGS, GOOD_NAMES
from anodiff.data.table import COLUMNS, GOOD, table_of
from anodiff.errors import DataError

_GOOD_WORDS = GOOD_NAMES | {"0", "0.0", "false", "pass", "no", "negative"}
_BAD_WORDS = BAD_NAMES | {"1", "1.0", "true", "fail", "yes", "positive"}
_FILES = (*ENDINGS, ".json")


def read_manifest(path: Path, *, split_column: str = "split") -> pd.DataFrame:
    """The table of a CSV with a column `image` and any of mask, label, defect, split, category, group.

    Paths are relative to the CSV's own folder. `label` is 0/1 or a word (good, ok, bad, defective, ...).
    Without a label the column `defect` decides; without both, every picture is good. Without a split column
    all pictures are for training, which is refused when some of them are defective. Files are not opened
    here; only when none of the pictures exists the manifest as a whole is refused. Further columns (caption,
    boxes, exposure, ...) are kept; see `normalise`.

    Args:
        path: the CSV: UTF-8, separated by comma, semicolon or tab.
        split_column: which column says train or test, such as split_grouped.

    Raises:
        DataError: a missing column (with the nearest name that is there), an unknown label, or no picture at
            all.
    """
    try:
        frame = pd.read_csv(
            path, dtype=str, keep_default_na=False, sep=_separator(path), encoding="utf-8-sig"
        )
    except (OSError, ValueError) as error:
        raise DataError(
            f"Expected a CSV with a column `image` at {path}, but it cannot be read: {error}"
        ) from error
    frame.columns = [str(column).strip() for column in frame.columns]
    return normalise(frame, home=path.parent, split_column=split_column, name=str(path))


def normalise(frame: pd.DataFrame, *, home: Path, split_column: str, name: str) -> pd.DataFrame:
    """The house table for any table that has a column `image`; relative paths start at `home`.

    Further columns are kept as text, lists in them as JSON; text that names a picture or a .json file below `home`
    becomes its absolute path.
    """
    if "image" not in frame:
        raise DataError(f"{name} needs a column `image`.{_hint('image', frame.columns)}")
    if frame.empty:
        raise DataError(f"{name} has no rows. Expected one row a picture.")
    texts = frame.astype(object).where(frame.notna(), "").map(_text)
    rows = texts.copy()
    rows["image"] = [_absolute(value, home) for value in texts["image"]]
    rows["mask"] = [_absolute(v, home) if v else None for v in texts["mask"]] if "mask" in texts else None
    rows["label"], rows["defect"] = _judgements(texts, name)
    rows["split"] = _splits(texts, list(rows["label"]), split_column, name)
    rows["category"] = texts.get("category", home.name)
    for column in set(texts.columns) - set(COLUMNS):
        rows[column] = [_beside(value, home) for value in texts[column]]
    if not any(os.path.exists(value) for value in rows["image"]):
        raise DataError(
            f"None of the {len(rows)} pictures of {name} exists; the first would be {rows['image'].iloc[0]}. "
            "Paths are relative to the manifest's folder: move it beside its pictures or mend the paths."
        )
    return table_of(rows.to_dict("records"))  # type: ignore[arg-type]


def write_manifest(table: pd.DataFrame, path: Path) -> Path:
    """The path of the CSV just written: the table's columns; paths below the CSV's folder become relative."""
    path = Path(os.path.abspath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    out = table.copy()
    for column in ("image", "mask"):
        out[column] = [_relative(value, path.parent) for value in table[column]]
    for column in set(table.columns) - set(COLUMNS):
        out[column] = [_relative(v, path.parent) if _is_file(v) else v for v in table[column]]
    out.to_csv(path, index=False, encoding="utf-8", lineterminator="\n")
    return path


def _judgements(texts: pd.DataFrame, name: str) -> tuple[list[int], list[str]]:
    if "label" in texts:
        labels = [_label(word, row, name) for row, word in enumerate(texts["label"], start=2)]
    elif "defect" in texts:
        labels = [int(word.lower() not in GOOD_NAMES and word != "") for word in texts["defect"]]
    else:
        labels = [0] * len(texts)
    named = texts["defect"] if "defect" in texts else [""] * len(texts)
    return labels, [GOOD if not bad else (word or "defect") for bad, word in zip(labels, named, strict=True)]


def _label(word: str, row: int, name: str) -> int:
    if word.lower() in _GOOD_WORDS:
        return 0
    if word.lower() in _BAD_WORDS:
        return 1
    raise DataError(
        f"Row {row} of {name} has the label {word!r}; expected 0 or 1, or a word such as good, ok, bad, "
        "defective. Names of defects belong in the column `defect`."
    )


def _splits(texts: pd.DataFrame, labels: list[int], column: str, name: str) -> Sequence[str]:
    if column in texts:
        splits = [word.lower() for word in texts[column]]
        if not {"train", "test"} & set(splits):
            raise DataError(
                f"Column `{column}` of {name} should say train or test; found {sorted(set(splits))[:6]}."
            )
        return splits
    others = [other for other in texts.columns if "split" in other.lower()]
    if others or column != "split":
        raise DataError(
            f"{name} has no column `{column}`.{_hint(column, others or texts.columns)} "
            "Name it as the split column."
        )
    if any(labels):
        raise DataError(
            f"{name} has defective pictures but no column `split`, so it is not known which good ones "
            "are kept for testing. Add a column `split` with train or test; `anodiff data split` writes one."
        )
    return ["train"] * len(texts)


def _hint(wanted: str, columns: Sequence[str] | pd.Index) -> str:
    names = [str(column) for column in columns]
    near = difflib.get_close_matches(wanted.lower(), [n.lower() for n in names], n=1, cutoff=0.5)
    real = next((n for n in names if near and n.lower() == near[0]), None)
    meant = f" Did you mean `{real}`?" if real else ""
    return f" Columns found: {', '.join(names) or 'none'}.{meant}"


def _separator(path: Path) -> str:
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        header = file.readline()
    return max(",;\t", key=header.count)  # the first of equals: a comma where there is one column only


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, list | tuple) else str(value).strip()


def _beside(value: str, home: Path) -> str:
    path = _absolute(value, home) if _is_file(value) else value
    return path if os.path.isfile(path) else value


def _is_file(value: object) -> bool:
    return isinstance(value, str) and value.lower().endswith(_FILES)


def _absolute(value: str, home: Path) -> str:
    return os.path.abspath(home / value.replace("\\", "/") if os.sep == "/" else home / value)


def _relative(value: object, home: Path) -> str:
    if value is None or value != value:  # NaN differs from itself
        return ""
    path = Path(str(value))
    return path.relative_to(home).as_posix() if path.is_relative_to(home) else str(path)


__all__ = ["COLUMNS", "normalise", "read_manifest", "write_manifest"]
