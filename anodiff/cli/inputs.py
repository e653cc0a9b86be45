"""What a person names to be scored, one picture after the other."""

from __future__ import annotations

import csv
import glob
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from anodiff.errors import DataError

STDIN = "-"
_MARKS = "*?["


@dataclass(frozen=True)
class Inputs:
    """Pictures to score, in a stable order.

    Attributes:
        paths: one path a picture; may be read as they come.
        root: what names of results are relative to.
        total: how many there are; None where that is known at the end only.
    """

    paths: Iterable[str]
    root: Path
    total: int | None

    def name(self, path: str) -> str:
        """The picture's name in results: its path relative to `root`, with forward slashes."""
        try:
            return Path(os.path.relpath(path, self.root)).as_posix()
        except ValueError:  # another drive of Windows
            return Path(path).as_posix()


def inputs(named: Sequence[str], *, stdin: TextIO | None = None) -> Inputs:
    """The pictures behind the words of a command line.

    A folder stands for all pictures below it but those of masks, in natural order; a pattern for its matches; a CSV
    for its column `image`, relative to the CSV; `-` for the paths that come in on stdin, one a line. A single file
    stands for itself, whatever its ending: one that is no picture, or not there, is a failed row and no error. Names
    are relative to the one folder or the CSV's folder, on stdin to the working directory, else to the folder that
    all have in common.

    Raises:
        DataError: a folder or pattern that is not there, or no picture at all.
    """
    if STDIN in named:
        if len(named) > 1:
            raise DataError("Paths come either on stdin (-) or on the command line, not both.")
        return Inputs(_lines(stdin or sys.stdin), Path.cwd(), None)
    found: list[str] = []
    roots: list[Path] = []
    for word in named:
        paths, root = _found(word)
        found += paths
        roots.append(root)
    if not found:
        raise DataError(f"Expected pictures to score, but there is none in {', '.join(named)}.")
    root = Path(os.path.commonpath(roots)) if len({r.anchor for r in roots}) == 1 else Path.cwd()
    return Inputs(found, root, len(found))


def _found(word: str) -> tuple[list[str], Path]:
    """The pictures of one word and the folder their names begin at."""
    from anodiff.data.layout import MASK_NAMES, is_picture, pictures
    from anodiff.data.table import natural

    path = Path(os.path.abspath(os.path.expanduser(word)))
    if path.is_dir():
        inside = pictures(path)
        # masks lie beside the pictures in MVTec layout; scoring them would say nothing
        chosen = [
            p for p in inside if not MASK_NAMES & {part.lower() for part in p.relative_to(path).parts[:-1]}
        ]
        if not chosen:
            others = sorted(item.name for item in path.iterdir())[:5]
            came = f"found only {', '.join(others)}" if others else "the folder is empty"
            raise DataError(f"Expected pictures in {path}, but {came}. Check the path or convert them.")
        return [str(p) for p in chosen], path
    if path.suffix.lower() in (".csv", ".tsv"):
        return _column(path), path.parent
    if path.exists() or (is_picture(path.name) and not any(mark in word for mark in _MARKS)):
        return [str(path)], path.parent  # one that is missing is told in its row
    if any(mark in word for mark in _MARKS):
        matches = sorted(filter(is_picture, glob.glob(os.path.expanduser(word), recursive=True)), key=natural)
        if not matches:
            raise DataError(
                f"The pattern {word} matches no picture. Quote it, and check the path before the marks."
            )
        full = [os.path.abspath(match) for match in matches]
        return full, Path(os.path.commonpath([os.path.dirname(match) for match in full]))
    near = sorted(item.name for item in path.parent.iterdir())[:8] if path.parent.is_dir() else []
    beside = f" Beside it there are: {', '.join(near)}." if near else ""
    raise DataError(f"Expected pictures at {path}, but nothing is there.{beside} Check the path.")


def _column(path: Path) -> list[str]:
    """The column `image` of a CSV, paths made absolute."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file, delimiter=separator(path))
            if "image" not in (rows.fieldnames or ()):
                raise DataError(
                    f"{path} needs a column `image`; columns found: {', '.join(rows.fieldnames or ()) or 'none'}."
                )
            return [os.path.abspath(path.parent / row["image"]) for row in rows if row["image"]]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The manifest {path} cannot be read: {error}") from None


def separator(path: Path) -> str:
    """What stands between the columns of a CSV: the most frequent of comma, semicolon and tab in its first line."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return max(",;\t", key=file.readline().count)


def _lines(stream: TextIO) -> Iterator[str]:
    for line in stream:
        if path := line.rstrip("\r\n"):
            yield os.path.abspath(os.path.expanduser(path))
