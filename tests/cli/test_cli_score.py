"""`anodiff score` with a fitted model: rows, maps, and pictures of every kind."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from cli_pictures import SPOILT, Command
from cli_runs import table

from anodiff.cli.predictions import COLUMNS

pytestmark = pytest.mark.xdist_group("cli-model")  # the fitted models are shared


def test_score_writes_everything_asked_for(model: Path, demo: Path, tmp_path: Path, command: Command) -> None:
    out = tmp_path / "out"
    said = command(
        "score", model, demo / "test", "-o", out, "--save", "csv,jsonl,maps,masks,overlays", "--batch", 4
    )
    assert said.code == 0, said.err
    rows = table(out / "predictions.csv")
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == 9
    names = [row["path"] for row in rows]
    assert names == sorted(names)
    assert not any(Path(name).is_absolute() for name in names)
    assert all(float(row["score"]) > float(row["threshold"]) if row["label"] == "1" else True for row in rows)
    assert {(row["width"], row["height"]) for row in rows} == {("128", "128")}
    lines = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert [line["path"] for line in lines] == names
    assert [line["score"] for line in lines] == pytest.approx([float(row["score"]) for row in rows], rel=1e-8)
    heat = tifffile.imread(out / "maps" / Path(names[0]).with_suffix(".tiff"))
    assert (heat.dtype, heat.shape) == (np.float32, (128, 128))
    assert len(list((out / "maps").rglob("*.tiff"))) == 9  # 000.png is in several folders
    for kind in ("masks", "overlays"):
        drawn = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted((out / kind).rglob("*.png"))]
        assert [picture.shape[:2] for picture in drawn] == [(128, 128)] * 9
    about = json.loads((out / "run.json").read_text())
    assert (about["pictures"], about["failed"], about["root"]) == (9, 0, str(demo / "test"))
    assert about["model_id"] == rows[0]["model_id"]


def test_rows_do_not_depend_on_batch_order_or_way_of_naming(
    model: Path, demo: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sorted((demo / "test").rglob("*.png"))
    (tmp_path / "list.csv").write_text("image\n" + "\n".join(map(str, reversed(files))) + "\n")
    scores: list[dict[str, float]] = []
    for words in (
        [demo / "test", "--batch", 1],
        [demo / "test", "--batch", 7],
        [demo / "test" / "**" / "*.png"],
        [tmp_path / "list.csv"],
        list(reversed(files)),
    ):
        said = command("score", model, *words)
        assert said.code == 0, said.err
        rows = list(csv.DictReader(said.out.splitlines()))
        scores.append({"/".join(row["path"].split("/")[-2:]): float(row["score"]) for row in rows})
    for other in scores[1:]:
        assert other.keys() == scores[0].keys()
        assert all(other[name] == pytest.approx(scores[0][name], abs=1e-5, rel=1e-5) for name in other)


def test_paths_on_stdin_and_json_lines_on_stdout(model: Path, demo: Path) -> None:
    files = sorted((demo / "test" / "good").iterdir())[:2]
    code = "import sys; from anodiff.cli.main import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, "score", str(model), "-", "--json"],
        input="\n".join(map(str, files)),
        capture_output=True,
        text=True,
        cwd=demo,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["path"] for line in done.stdout.splitlines()] == [
        "test/good/000.png",
        "test/good/001.png",
    ]


def test_fail_on_anomaly_and_a_threshold_of_ones_own(model: Path, demo: Path, command: Command) -> None:
    good = demo / "test" / "good"
    assert command("score", model, good, "--threshold", 1e9, "--fail-on", "anomaly").code == 0
    said = command("score", model, good, "--threshold", -1e9, "--fail-on", "anomaly")
    assert said.code == 10
    assert {row["label"] for row in csv.DictReader(said.out.splitlines())} == {"1"}


def test_spoilt_pictures_are_rows_with_errors(
    model: Path, demo: Path, tmp_path: Path, command: Command
) -> None:
    folder = tmp_path / "in"
    shutil.copytree(demo / "test" / "good", folder)
    for name, (make, _) in SPOILT.items():
        make(folder / name)
    said = command("score", model, folder, "-o", tmp_path / "out", "--save", "csv,jsonl,maps")
    assert said.code == 11, said.err
    rows = {row["path"]: row for row in table(tmp_path / "out" / "predictions.csv")}
    assert len(rows) == 8
    for name, (_, says) in SPOILT.items():
        assert says in rows[name]["error"]
        assert (rows[name]["score"], rows[name]["label"]) == ("", "")
    assert all(row["error"] == "" for name, row in rows.items() if name not in SPOILT)
    alone = command("score", model, folder, demo / "test" / "good")  # the same pictures beside spoilt ones
    clean = command("score", model, demo / "test" / "good")
    scores = [row["score"] for row in csv.DictReader(clean.out.splitlines())]
    assert scores == [row["score"] for row in csv.DictReader(alone.out.splitlines()) if not row["error"]][-4:]
    only = command("score", model, *(folder / name for name in SPOILT))
    assert only.code == 3
    assert len(only.out.splitlines()) == 5


def test_depths_channels_and_sizes_may_be_mixed(
    model: Path, demo: Path, tmp_path: Path, command: Command
) -> None:
    grey = cv2.imread(str(demo / "test" / "good" / "000.png"), cv2.IMREAD_GRAYSCALE)
    folder = tmp_path / "in"
    folder.mkdir()
    cv2.imwrite(str(folder / "grey.png"), grey)
    cv2.imwrite(str(folder / "deep.png"), grey.astype(np.uint16) * 257)
    cv2.imwrite(str(folder / "bgr.png"), cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR))
    cv2.imwrite(str(folder / "alpha.png"), cv2.cvtColor(grey, cv2.COLOR_GRAY2BGRA))
    cv2.imwrite(str(folder / "wide.png"), cv2.resize(grey, (400, 150)))
    said = command("score", model, folder)
    assert said.code == 0, said.err
    rows = {row["path"]: row for row in csv.DictReader(said.out.splitlines())}
    same = [float(rows[f"{name}.png"]["score"]) for name in ("grey", "deep", "bgr", "alpha")]
    assert same == pytest.approx([same[0]] * 4, abs=1e-5, rel=1e-5)
    assert (rows["wide.png"]["width"], rows["wide.png"]["height"]) == ("400", "150")


def test_a_disk_that_fills_up_while_scoring(
    model: Path, demo: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tifffile, "imwrite", full)
    said = command("score", model, demo / "test" / "good", "-o", tmp_path / "out", "--save", "csv,maps")
    assert said.code == 5
    assert "The disk is full" in said.err
