"""A benchmark goes through its cells, keeps what is done, and survives those that fail."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from bench_tree import part, texture

from anodiff.bench import plan, record
from anodiff.bench.run import Job, audits, run
from anodiff.bench.sets import place
from anodiff.cli.main import main
from anodiff.config.bench import DataSet, load
from anodiff.errors import ConfigError, DataError

FILE = {
    "name": "short",
    "seeds": [0],
    "device": "cpu",
    "sets": {"part": {"path": "part"}, "spoilt": {"path": "spoilt"}},
    "methods": {"nearest": {"baseline": "nearest_thumbnail", "size": 16}},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    part(tmp_path / "part")
    for path in (part(tmp_path / "spoilt") / "train" / "good").glob("*.png"):
        path.write_bytes(b"")
    (tmp_path / "short.yaml").write_text(yaml.safe_dump(FILE))
    return tmp_path


def job(folder: Path) -> Job:
    bench = load(folder / "short.yaml")
    return Job(bench=bench, file=folder / "short.yaml", root=folder, out=folder / "out", device="cpu")


def test_a_cell_that_fails_leaves_the_rest_and_alone_runs_again(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", str(folder / "short.yaml"), "-o", str(folder / "out")]) == 11
    out = capsys.readouterr().out
    assert "part/nearest/seed0  image_auroc 1.000" in out
    assert "spoilt/nearest/seed0  failed: None of the 8 training pictures can be read." in out
    done = folder / "out" / "cells" / "part" / "nearest" / "seed0"
    found = record.read(done)
    assert found is not None
    assert found["metrics"]["image_auroc"]["n"] == 8
    assert "score 8 pictures" in (done / "log.txt").read_text()
    assert json.loads((folder / "out" / "audit.json").read_text())["part"]["test"] == 8
    assert load(folder / "out" / "bench.yaml") == load(folder / "short.yaml")
    for file in ("rows.csv", "report.md", "report.html", "audit.json", "bench.yaml"):
        assert str(folder) not in (folder / "out" / file).read_text("utf-8"), file

    for path in (folder / "spoilt" / "train" / "good").glob("*.png"):  # mended, and nothing else has changed
        texture(path, int(path.stem))
    again = job(folder)
    cells = plan.cells(again.bench, home=folder)
    begun: list[str] = []
    outcomes = list(run(again, cells, again.places(["part", "spoilt"]), say=begun.append))
    assert [(o.reused, o.record["status"]) for o in outcomes] == [(True, "done"), (False, "done")]
    assert begun == ["[2/2] spoilt/nearest/seed0"]


def test_a_process_that_is_killed_is_a_failed_cell(folder: Path) -> None:
    (folder / "short.yaml").write_text(yaml.safe_dump({**FILE, "timeout": 0.3}))
    slow = job(folder)
    (outcome,) = run(slow, plan.cells(slow.bench, home=folder, sets=["part"]), slow.places(["part"]))
    assert outcome.record["status"] == "failed"
    assert "the benchmark's timeout" in outcome.record["error"]
    assert record.read(outcome.cell.folder(slow.out)) == outcome.record


def test_an_audit_is_made_again_only_when_the_pictures_change(folder: Path) -> None:
    said: list[str] = []
    work = job(folder)
    for _ in range(2):
        audits(work, work.places(["part"]), say=said.append)
    assert len(said) == 1
    texture(folder / "part" / "train" / "good" / "new.png", 50)
    assert audits(work, work.places(["part"]), say=said.append)["part"]["train"] == 9
    assert len(said) == 2


def test_the_audit_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "bench",
        str(folder / "short.yaml"),
        "-o",
        str(folder / "out"),
        "--sets",
        "part",
        "--audit-only",
        "--json",
    ]
    assert main(words) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"part"}
    assert not (folder / "out" / "cells").exists()


def test_sets_that_packages_bring_along_are_made_once(tmp_path: Path) -> None:
    data = DataSet(builder="demo:brick", args={"train": 3, "good": 2, "bad": 2})
    made = place("brick", data, root=tmp_path, made=tmp_path / "data")
    assert made.shown == "builder demo:brick"
    assert len(made.table()) == 7
    (Path(made.source) / "mark").touch()
    assert (Path(place("brick", data, root=tmp_path, made=tmp_path / "data").source) / "mark").exists()
    wrong = DataSet(builder="demo:brick", args={"trains": 3})
    with pytest.raises(ConfigError, match=r"sets.brick.args: .*trains"):
        place("brick", wrong, root=tmp_path, made=tmp_path / "data")
    with pytest.raises(DataError, match="Paths are relative to --data"):
        place("gone", DataSet(path="gone"), root=tmp_path, made=tmp_path)
