"""The run folder: its files, and what is said when it cannot be written."""

from __future__ import annotations

import errno
import hashlib
import json
from pathlib import Path

import pytest

from anodiff import run
from anodiff.errors import ConfigError, DataError, DeviceError
from anodiff.run import Run


def test_files_have_their_names(tmp_path: Path) -> None:
    folder = Run(tmp_path / "a" / "b").create()
    names = {path.name for path in (folder.config, folder.model, folder.checkpoints, folder.metrics)}
    assert names == {"config.yaml", "model.anodiff", "checkpoints", "metrics.csv"}
    assert folder.path.is_dir()
    assert list(folder.path.iterdir()) == []


def test_a_run_that_is_only_named_touches_nothing(tmp_path: Path) -> None:
    folder = Run(tmp_path / "run")
    assert not folder.interrupted
    assert folder.used() == {}
    assert list(tmp_path.iterdir()) == []


def test_split_is_read_back_by_content(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(name.encode())
    folder = Run(tmp_path / "run").create()
    folder.write_split(
        [
            {"image": tmp_path / "a.png", "category": "x", "group": float("nan")},
            {"image": tmp_path / "gone.png"},
        ],
        [{"image": tmp_path / "b.png", "category": "x", "group": "7"}],
    )
    digest = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("a.png", "b.png")}
    assert folder.used() == {digest["a.png"]: "train", digest["b.png"]: "holdout"}
    lines = folder.split.read_text().splitlines()
    assert lines[0] == "image,category,split,group,sha256"
    assert lines[1] == f"{tmp_path / 'a.png'},x,train,,{digest['a.png']}"
    assert lines[3].endswith(f",x,holdout,7,{digest['b.png']}")


def test_a_foreign_split_is_refused(tmp_path: Path) -> None:
    (tmp_path / "split.csv").write_text("image,part\na,b\n")
    with pytest.raises(DataError, match=r"missing: sha256, split"):
        Run(tmp_path).used()


def test_environment_is_plain_and_names_the_versions(tmp_path: Path) -> None:
    about = run.environment(device="cpu", command=["anodiff", "fit"])
    Run(tmp_path).write_environment(about)
    kept = json.loads((tmp_path / "environment.json").read_text())
    assert kept == about
    assert kept["device"] == "cpu"
    assert kept["command"] == ["anodiff", "fit"]
    assert all(kept[name] for name in ("anodiff", "torch", "python", "platform", "cpu_count"))


def test_commit_of_a_checkout_a_worktree_and_neither(tmp_path: Path) -> None:
    git = tmp_path / "repo" / ".git"
    (git / "refs" / "heads").mkdir(parents=True)
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    (git / "refs" / "heads" / "main").write_text("abc123\n")
    assert run._commit(tmp_path / "repo") == "abc123"
    (git / "refs" / "heads" / "main").unlink()
    (git / "packed-refs").write_text("# pack-refs\ndef456 refs/heads/main\n")
    assert run._commit(tmp_path / "repo") == "def456"
    (git / "worktrees" / "w").mkdir(parents=True)
    (git / "worktrees" / "w" / "HEAD").write_text("789aaa\n")
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / ".git").write_text(f"gitdir: {git / 'worktrees' / 'w'}\n")
    assert run._commit(tmp_path / "w") == "789aaa"
    assert run._commit(tmp_path) is None


def test_a_file_in_the_way_is_a_wrong_option(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    for path in (tmp_path / "run", tmp_path / "run" / "below"):
        with pytest.raises(ConfigError, match="a file of that name is in the way"):
            Run(path).create()


@pytest.mark.parametrize(
    ("number", "kind", "says"),
    [
        (errno.EROFS, ConfigError, "cannot be written: Read-only file system"),
        (errno.EACCES, ConfigError, "Choose another folder"),
        (errno.ENOSPC, DeviceError, "The disk is full"),
        (errno.EDQUOT, DeviceError, "Make room"),
    ],
)
def test_a_closed_folder_and_a_full_disk_are_told_before_work_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception], says: str
) -> None:
    def refuse(path: Path, *_: object) -> None:
        raise OSError(number, run.os.strerror(number), str(path))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(kind, match=says):
        Run(tmp_path / "run").create()


def test_a_text_that_does_not_fit_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Run(tmp_path)
    folder.write_config("seed: 1\n")

    def full(path: Path, *_: object, **__: object) -> None:
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(DeviceError, match=r"config\.yaml could not be written"):
        folder.write_config("seed: 2\n")
    assert folder.config.read_text() == "seed: 1\n"
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_other_errors_of_the_file_system_stay_what_they_are() -> None:
    assert run.told(OSError(errno.EIO, "Input/output error")) is None
