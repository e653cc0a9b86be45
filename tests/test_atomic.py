"""A file is whole, old or new, whatever happens while it is written."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from anodiff.atomic import drafts, replacing


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_new_file_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.txt"
    for text in ("old", "new"):
        with replacing(path) as draft:
            draft.write_text(text)
            assert draft.parent == path.parent  # a rename stays on one disk
            assert not path.exists() or path.read_text() == "old"
        assert path.read_text() == text
    assert names(path.parent) == ["b.txt"]


@pytest.mark.parametrize("error", [ValueError("no"), OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_what_goes_wrong_inside_leaves_the_old_file(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "b.txt"
    path.write_text("old")

    def broken() -> None:
        with replacing(path) as draft:
            draft.write_text("half")
            raise error

    with pytest.raises(type(error)):
        broken()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["b.txt"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_refuses_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "b.txt"
    path.write_text("old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space left"), replacing(path) as draft:
        draft.write_text("new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["b.txt"]


def test_the_content_is_flushed_before_it_gets_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, rename = os.fsync, os.replace

    def flush(handle: int) -> None:
        done.append("folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "file")
        sync(handle)

    def move(source: Path, target: Path) -> None:
        done.append(f"{source.read_text()} to {target.name}")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "replace", move)
    with replacing(tmp_path / "b.txt") as draft:
        draft.write_text("new")
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("handles are told apart through /proc")
    assert done == ["file", "new to b.txt", "folder"]


def test_a_folder_that_cannot_be_flushed_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def second_fails(handle: int) -> None:
        calls.append(handle)
        if len(calls) == 2:
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", second_fails)
    with replacing(tmp_path / "b.txt") as draft:
        draft.write_text("new")
    assert (tmp_path / "b.txt").read_text() == "new"


def test_a_killed_process_leaves_the_old_file_and_a_draft_that_is_found(tmp_path: Path) -> None:
    path = tmp_path / "b.ckpt"
    path.write_text("old")
    code = (
        "import os, sys, signal; from pathlib import Path; from anodiff.atomic import replacing\n"
        "with replacing(Path(sys.argv[1])) as draft:\n"
        "    draft.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    left = drafts(tmp_path, "*.ckpt")
    assert [draft.read_text() for draft in left] == ["half"]
    assert drafts(tmp_path, "*.csv") == []
    assert sorted(tmp_path.glob("*.ckpt")) == [path]  # a draft is never taken for the file


def test_it_loads_nothing_heavy() -> None:
    code = "import sys, anodiff.atomic; print(sorted({'torch', 'numpy', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
