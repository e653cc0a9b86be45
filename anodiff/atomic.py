"""Files that are whole or not there: written beside their place, flushed to the disk, then renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ENDING = ".part"
"""Of a draft: `.NAME.PROCESS.part`, hidden, in the folder of the file. Only a killed process leaves one behind."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A draft's path to write to, in the folder of `path`, which is made if needed.

    The draft becomes `path` when the block ends well and is gone when it does not. A kill or a power cut at any moment
    leaves the old file or the new one, for the content is on the disk before the name is.

    Raises:
        OSError: a full disk or a folder that cannot be written to; what was there stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}{ENDING}")
    try:
        yield draft
        with draft.open("r+b") as file:  # some systems flush only what could be written to
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    _flush_name(path.parent)


def drafts(folder: Path, pattern: str) -> list[Path]:
    """What killed processes left behind in `folder` of files whose names fit `pattern`."""
    return sorted(folder.glob(f".{pattern}.*{ENDING}"))


def _flush_name(folder: Path) -> None:
    """Make the renaming itself durable, where the system lets a folder be opened and flushed."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # the file is whole and in its place; some network disks cannot do more
            os.fsync(handle)
    finally:
        os.close(handle)
