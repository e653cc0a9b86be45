"""Where the pictures of a benchmark's data set lie, and what makes those that a package brings along."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from anodiff.config.bench import DataSet
from anodiff.data.index import index, normals
from anodiff.data.table import rows_where
from anodiff.errors import ConfigError, DataError
from anodiff.run import sha256_of


@dataclass(frozen=True, kw_only=True)
class Place:
    """One data set on this machine."""

    name: str
    shown: str  # what the file of the benchmark calls it; no path of this machine
    source: str  # folder or manifest, absolute
    split_column: str = "split"
    category: str | None = None

    @property
    def root(self) -> Path:
        """The folder that names of pictures are relative to."""
        path = Path(self.source)
        return path if path.is_dir() else path.parent

    def table(self) -> pd.DataFrame:
        """The pictures as `data.index` lists them."""
        return index(self.source, split_column=self.split_column, category=self.category)

    def relative(self, path: str) -> str:
        """A picture's name: relative to `root`, with forward slashes."""
        return Path(os.path.relpath(path, self.root)).as_posix()

    def digest(self, table: pd.DataFrame) -> str:
        """Twelve digits that change when a picture is added, removed or moves to the other side."""
        columns = (table[name] for name in ("image", "split", "label"))
        rows = [f"{self.relative(i)} {s} {label}" for i, s, label in zip(*columns, strict=True)]
        return hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest()[:12]


@dataclass(frozen=True, eq=False)
class Divided:
    """The two sides of a data set, as every method gets them."""

    train: pd.DataFrame  # good pictures alone
    test: pd.DataFrame  # good and defective ones
    left_out: int  # test pictures whose file is also one to train on


def divided(table: pd.DataFrame) -> Divided:
    """Good pictures to train on, and test pictures that are none of them, by the content of the files.

    Raises:
        DataError: no good picture to train on, or not both good and defective ones to test on.
    """
    train = normals(table)
    test = rows_where(table, table["split"] == "test")
    used = {sha256_of(path) for path in train["image"]} - {None}
    leaked = [sha256_of(path) in used for path in test["image"]]
    left = rows_where(test, [not out for out in leaked])
    counts = Counter(left["label"])
    if set(counts) != {0, 1}:
        raise DataError(
            f"A benchmark needs good and defective test pictures; left are {counts[0]} good and {counts[1]} defective "
            f"ones ({sum(leaked)} were left out, for they are trained on). Check the split column."
        )
    return Divided(train, left, sum(leaked))


def place(name: str, data: DataSet, *, root: Path, made: Path) -> Place:
    """Where the set called `name` is; one that a package brings along is made when it is not there.

    Args:
        name: of the set.
        data: what the benchmark says of it.
        root: what paths are relative to.
        made: folder for the sets that are made.

    Raises:
        DataError: nothing at the path.
        ConfigError: a builder that does not know its arguments.
    """
    about = {"split_column": data.split_column, "category": data.category}
    if data.path is not None:
        source = Path(os.path.abspath(root / data.path))
        if not source.exists():
            raise DataError(
                f"sets.{name}: expected pictures at {source}, but nothing is there. Paths are relative to --data, or "
                "without it to the benchmark's file."
            )
        return Place(name=name, shown=data.path, source=str(source), **about)
    return Place(name=name, shown=f"builder {data.builder}", source=str(_built(name, data, made)), **about)


def _built(name: str, data: DataSet, made: Path) -> Path:
    """What the builder wrote, now or in an earlier run; whole or not at all."""
    kind, _, category = str(data.builder).partition(":")
    key = hashlib.sha256(json.dumps([data.builder, data.args], sort_keys=True).encode()).hexdigest()[:8]
    folder = Path(os.path.abspath(made)) / f"{name}-{key}"
    inside = Path("manifest.csv") if kind == "elpv" else Path(category)
    if folder.exists():
        return folder / inside
    draft = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        if kind == "elpv":
            from anodiff.data.elpv import make_elpv

            make_elpv(draft, **data.args)
        else:
            from anodiff.data.demo import make_demo

            make_demo(draft, categories=(category,), **data.args)
    except TypeError as error:
        raise ConfigError(f"sets.{name}.args: {error}; see the arguments of the builder {kind}.") from None
    os.replace(draft, folder)  # manifests name their pictures relative to themselves
    return folder / inside
