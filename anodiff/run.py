"""A run folder: what a fit leaves behind, and what it needs to go on."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anodiff.atomic import replacing
from anodiff.errors import AnodiffError, ConfigError, DataError, DeviceError

SPLIT_COLUMNS = ("image", "category", "split", "group", "sha256")
"""Of split.csv: absolute path, kind of part, train or holdout, group where known, SHA-256 of the file."""

SUSPECT_COLUMNS = ("image", "split", "score", "z", "p_value", "q_value", "reason")
"""Of suspects.csv, the surest first."""

SELFTEST_COLUMNS = ("part", "name", "strength", "metric", "value", "low", "high", "n")
"""Of selftest.csv: all, strength, kind or candidate; its name; figures with their intervals where there are any."""

_FULL = (errno.ENOSPC, errno.EDQUOT)
_CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)
_IN_THE_WAY = (errno.ENOTDIR, errno.EEXIST, errno.EISDIR)


@dataclass(frozen=True)
class Run:
    """The files of one run, by name; nothing is touched before `create` or a `write_`.

    | file | content |
    |---|---|
    | config.yaml | the whole configuration, as `config.load` reads it |
    | model.anodiff | the model |
    | checkpoints/ | where an interrupted fit goes on |
    | metrics.csv | step, loss, lr, seconds |
    | split.csv | which pictures were trained on and which were held out, with the SHA-256 of each |
    | environment.json | versions, machine, commit, command |
    | suspects.csv | pictures given as good that look unlike the rest |
    | dropped.csv | those of them that were left out |
    | selftest.csv | what is found of painted defects, and the candidates compared |
    | samples/ | new pictures, where the model paints |
    | presets/ | a run of each preset, where several were compared |
    """

    path: Path

    @property
    def config(self) -> Path:
        """config.yaml."""
        return self.path / "config.yaml"

    @property
    def model(self) -> Path:
        """model.anodiff."""
        return self.path / "model.anodiff"

    @property
    def checkpoints(self) -> Path:
        """checkpoints/."""
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        """metrics.csv."""
        return self.path / "metrics.csv"

    @property
    def split(self) -> Path:
        """split.csv."""
        return self.path / "split.csv"

    @property
    def suspects(self) -> Path:
        """suspects.csv."""
        return self.path / "suspects.csv"

    @property
    def dropped(self) -> Path:
        """dropped.csv."""
        return self.path / "dropped.csv"

    @property
    def selftest(self) -> Path:
        """selftest.csv."""
        return self.path / "selftest.csv"

    @property
    def environment(self) -> Path:
        """environment.json."""
        return self.path / "environment.json"

    @property
    def samples(self) -> Path:
        """samples/."""
        return self.path / "samples"

    def create(self) -> Run:
        """The run itself, once its folder is there and a file could be written into it."""
        writable(self.path)
        return self

    @property
    def kept(self) -> Path | None:
        """The folder with checkpoints to go on from: the model's, else its autoencoder's; None where there is none."""
        places = (self.checkpoints, self.path / "codec" / "checkpoints")
        return next((place for place in places if any(place.glob("*.ckpt"))), None)

    @property
    def interrupted(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return self.kept is not None

    def forget(self) -> None:
        """Take away the checkpoints, that nothing goes on from them."""
        for part in (self.path, self.path / "codec", self.path / "classifier", self.path / "head"):
            shutil.rmtree(part / "checkpoints", ignore_errors=True)

    def write_config(self, text: str) -> None:
        """Keep the configuration, given as YAML."""
        write_text(self.config, text)

    def write_environment(self, about: Mapping[str, Any]) -> None:
        """Keep what `environment` found out."""
        write_text(self.environment, json.dumps(about, indent=2, ensure_ascii=False) + "\n")

    def write_split(self, train: Iterable[Mapping[str, Any]], holdout: Iterable[Mapping[str, Any]]) -> None:
        """Keep which pictures were trained on and which were held out for calibration.

        Args:
            train: one mapping a picture with `image` and, where known, `category` and `group`.
            holdout: likewise.
        """
        rows = [_split_row(row, "train") for row in train] + [_split_row(row, "holdout") for row in holdout]
        _write_rows(self.split, SPLIT_COLUMNS, rows)

    def write_suspects(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Keep which pictures look unlike the rest: one mapping a picture with the `SUSPECT_COLUMNS`, or none."""
        _write_rows(self.suspects, SUSPECT_COLUMNS, ([row[name] for name in SUSPECT_COLUMNS] for row in rows))

    def write_dropped(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Keep which pictures the fit left out, likewise."""
        _write_rows(self.dropped, SUSPECT_COLUMNS, ([row[name] for name in SUSPECT_COLUMNS] for row in rows))

    def write_selftest(self, rows: Iterable[Iterable[Any]]) -> None:
        """Keep what a self-test found: one row a figure, of the `SELFTEST_COLUMNS`."""
        _write_rows(self.selftest, SELFTEST_COLUMNS, rows)

    def read_dropped(self) -> list[dict[str, str]]:
        """The rows of dropped.csv, by column; none where there is no such file."""
        if not self.dropped.is_file():
            return []
        with self.dropped.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def used(self) -> dict[str, str]:
        """`train` or `holdout` by the SHA-256 of each picture's file; empty where there is no split.csv."""
        if not self.split.is_file():
            return {}
        with self.split.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            missing = {"split", "sha256"} - set(rows.fieldnames or ())
            if missing:
                raise DataError(
                    f"{self.split} should have the columns {', '.join(SPLIT_COLUMNS)}; missing: "
                    f"{', '.join(sorted(missing))}. Fit anew, or take the file away to evaluate without this check."
                )
            return {row["sha256"]: row["split"] for row in rows if row["sha256"]}


def sha256_of(path: str | os.PathLike[str]) -> str | None:
    """SHA-256 of a file's bytes in hexadecimal; None where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def environment(*, device: str = "", command: Iterable[str] = ()) -> dict[str, Any]:
    """Versions, machine and command of this process, plain values; torch's version comes without loading torch."""
    from importlib.metadata import PackageNotFoundError, version

    def found(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    return {
        "anodiff": found("anodiff"),
        "python": platform.python_version(),
        "torch": found("torch"),
        "lightning": found("lightning"),
        "timm": found("timm"),
        "numpy": found("numpy"),
        "opencv": found("opencv-python-headless"),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
        "device": device,
        "git_commit": _commit(Path(__file__).parents[1]),
        "command": list(command) or [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def writable(folder: Path) -> Path:
    """The folder, made if needed, once a file could be written into it: found out before hours of work, not after.

    Raises:
        ConfigError: a file in the way, or no permission to write there (exit code 2, as for any wrong option).
        DeviceError: a full disk (exit code 5).
    """
    probe = folder / f".anodiff-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"\0")  # an empty file fits on a full disk
    except OSError as error:
        raise told(error, folder) or error from None
    finally:
        if folder.is_dir():
            probe.unlink(missing_ok=True)
    return folder


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """A temporary path to write to, as `atomic.replacing` gives it; what the disk refuses is told to a person."""
    try:
        with replacing(path) as draft:
            yield draft
    except OSError as error:
        raise told(error, path) or error from None


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with written(path) as draft:
        draft.write_text(text, encoding="utf-8", errors="surrogateescape")


def told(error: OSError, path: str | os.PathLike[str] | None = None) -> AnodiffError | None:
    """An error of the file system as a sentence for a person; None for one that no option or disk explains."""
    where = path or error.filename or "the output folder"
    if error.errno in _FULL:
        return DeviceError(
            f"The disk is full: {where} could not be written. Make room, or choose a folder on another disk; what was "
            "written before is whole."
        )
    if error.errno in _CLOSED:
        return ConfigError(
            f"{where} cannot be written: {error.strerror}. Choose another folder, or change its permissions."
        )
    if error.errno in _IN_THE_WAY:
        return ConfigError(
            f"Expected a folder for the output at {where}, but a file of that name is in the way. Choose another name."
        )
    return None


def _write_rows(path: Path, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    with written(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def _split_row(row: Mapping[str, Any], split: str) -> tuple[str, str, str, str, str]:
    group = row.get("group")
    image = os.path.abspath(row["image"])
    known = group is not None and group == group  # NaN differs from itself
    return image, str(row.get("category") or ""), split, str(group) if known else "", sha256_of(image) or ""


def _commit(home: Path) -> str | None:
    """The commit of the checkout the package lies in, read from .git itself so that no program is started.

    None for an installed package: a checkout further up would be somebody else's.
    """
    git = home / ".git"
    try:
        if git.is_file():  # a worktree points elsewhere
            git = (home / git.read_text().split(":", 1)[1].strip()).resolve()
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        name = head.removeprefix("ref: ")
        common = git / "commondir"
        store = (git / common.read_text().strip()).resolve() if common.is_file() else git
        if (store / name).is_file():
            return (store / name).read_text().strip()
        packed = (store / "packed-refs").read_text().splitlines()
        return next((line.split()[0] for line in packed if line.endswith(f" {name}")), None)
    except (OSError, IndexError, UnicodeDecodeError):
        return None
