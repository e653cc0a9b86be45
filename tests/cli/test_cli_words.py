"""The small parts behind the verbs: spans of time, gates, inputs, names of files; and verbs that need no model."""

from __future__ import annotations

import argparse
import io
import json
import os
from pathlib import Path

import pytest
import torch
import yaml
from cli_pictures import Command, picture
from hypothesis import given
from hypothesis import strategies as st

from anodiff import artefact
from anodiff.cli.duration import seconds
from anodiff.cli.gate import gate
from anodiff.cli.inputs import inputs
from anodiff.cli.predictions import Folder, kinds
from anodiff.errors import ConfigError, DataError


@pytest.mark.parametrize(
    ("text", "value"), [("90", 90), ("90s", 90), ("5m", 300), ("1h30m", 5400), ("0.5h", 1800), ("2 min", 120)]
)
def test_spans_of_time(text: str, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "soon", "0", "-5", "5x", "nan", "inf"])
def test_no_span_of_time(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="90s, 5m or 1h30m"):
        seconds(text)


@given(st.floats(0, 1), st.floats(0, 1))
def test_gates_hold_exactly_where_they_say(value: float, bound: float) -> None:
    values = {"image_auroc": value}
    for sign, holds in (
        (">=", value >= bound),
        ("<=", value <= bound),
        (">", value > bound),
        ("<", value < bound),
    ):
        rule = gate(f"image_auroc {sign} {bound!r}", known=values)
        assert (rule.missed(values) is None) == holds


def test_gates_that_cannot_be_read_or_known() -> None:
    known = ("image_auroc", "aupro_30")
    with pytest.raises(ConfigError, match=r"Did you mean image_auroc\?"):
        gate("image_auc>=0.9", known=known)
    for text in ("image_auroc=0.9", "image_auroc>=high", ">=0.9", "image_auroc"):
        with pytest.raises(ConfigError, match="--gate expects"):
            gate(text, known=known)
    missed = gate("aupro_30>=0.5", known=known).missed({"image_auroc": 1.0})
    assert missed is not None
    assert "not known here" in missed
    assert gate("aupro_30>=0.5", known=known).missed({"aupro_30": float("nan")}) is not None


def test_a_folder_is_listed_in_natural_order_without_masks(tmp_path: Path) -> None:
    for name in ("10.png", "2.png", "sub/1.PNG", "ground_truth/bad/2_mask.png", ".hidden.png", "notes.txt"):
        picture(tmp_path / name) if name.lower().endswith("png") else (tmp_path / name).write_text("x")
    found = inputs([str(tmp_path)])
    assert [found.name(path) for path in found.paths] == ["2.png", "10.png", "sub/1.PNG"]
    assert found.total == 3


def test_files_patterns_and_manifests_are_named_from_what_they_share(tmp_path: Path) -> None:
    a, b = picture(tmp_path / "x" / "1.png"), picture(tmp_path / "y" / "1.png")
    both = inputs([str(a), str(b)])
    assert [both.name(path) for path in both.paths] == ["x/1.png", "y/1.png"]
    alone = inputs([str(a)])
    assert [alone.name(path) for path in alone.paths] == ["1.png"]
    pattern = inputs([str(tmp_path / "*" / "1.png")])
    assert [pattern.name(path) for path in pattern.paths] == ["x/1.png", "y/1.png"]
    (tmp_path / "list.csv").write_text("label;image\nbad;y/1.png\ngood;x/1.png\n")
    manifest = inputs([str(tmp_path / "list.csv")])
    assert [manifest.name(path) for path in manifest.paths] == ["y/1.png", "x/1.png"]


def test_paths_on_stdin_are_read_as_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = inputs(["-"], stdin=io.StringIO("a.png\n\n../b c.png\r\n"))
    assert found.total is None
    assert [found.name(path) for path in found.paths] == ["a.png", "../b c.png"]
    with pytest.raises(DataError, match="not both"):
        inputs(["-", "a.png"])


def test_what_is_not_there_or_empty_is_told(tmp_path: Path) -> None:
    picture(tmp_path / "parts" / "1.png")
    with pytest.raises(DataError, match=r"nothing is there\. Beside it there are: parts"):
        inputs([str(tmp_path / "part")])
    with pytest.raises(DataError, match="matches no picture"):
        inputs([str(tmp_path / "*.png")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="the folder is empty"):
        inputs([str(tmp_path / "empty")])
    (tmp_path / "list.csv").write_text("path\na.png\n")
    with pytest.raises(DataError, match="columns found: path"):
        inputs([str(tmp_path / "list.csv")])


def test_a_single_missing_picture_is_a_row_and_no_error(tmp_path: Path) -> None:
    assert list(inputs([str(tmp_path / "gone.png")]).paths) == [str(tmp_path / "gone.png")]


def test_files_of_equal_stems_do_not_overwrite_each_other(tmp_path: Path) -> None:
    folder = Folder(tmp_path, ("maps",))
    names = ["a/1.png", "b/1.png", "a/1.jpg", "1.png", "../1.png", "../../etc/1.png", "a/1.png"]
    stems = [folder._stem(name) for name in names]
    assert stems == ["a/1", "b/1", "a/1.jpg", "1", "_up/1", "_up/_up/etc/1", "a/1"]
    assert all((tmp_path / stem).resolve().is_relative_to(tmp_path) for stem in stems)


def test_what_to_save() -> None:
    assert kinds("csv, maps,csv") == ("csv", "maps")
    for text in ("", "csv,map"):
        with pytest.raises(ConfigError, match=r"csv, jsonl, maps, masks, overlays"):
            kinds(text)


def test_config_show_is_read_back(command: Command, tmp_path: Path) -> None:
    said = command("config", "show", "--preset", "tiny", "--set", "train.steps=7")
    assert said.code == 0
    assert yaml.safe_load(said.out)["train"]["steps"] == 7
    (tmp_path / "c.yaml").write_text(said.out)
    again = command("config", "show", "--config", tmp_path / "c.yaml")
    assert again.out == said.out
    as_json = command("config", "show", "--config", tmp_path / "c.yaml", "--json")
    assert json.loads(as_json.out)["train"]["steps"] == 7


def test_config_schema_describes_every_section(command: Command) -> None:
    schema = json.loads(command("config", "schema").out)
    assert {"data", "codec", "family", "train", "threshold"} <= set(schema["properties"])


def test_an_unknown_key_is_told_with_its_near_miss(command: Command, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("train: {stepps: 5}\n")
    for words in (["--config", tmp_path / "c.yaml"], ["--set", "train.stepps=5"]):
        said = command("config", "show", *words)
        assert said.code == 2
        assert "did you mean steps?" in said.err
    assert command("fit", tmp_path, "-o", tmp_path / "run", "--set", "train.stepps=5").code == 2
    assert not (tmp_path / "run").exists()


def test_info_of_a_file(command: Command, tmp_path: Path) -> None:
    about = {
        "config": {"seed": 3, "codec": {"stages": [2, 3]}},
        "shape": [64, 96],
        "provenance": {"torch": None},
    }
    path = artefact.write(tmp_path / "m.anodiff", {"a": torch.zeros(2)}, about)
    said = command("info", path, "--json")
    assert said.code == 0
    assert json.loads(said.out)["shape"] == [64, 96]
    assert len(json.loads(said.out)["model_id"]) == 12
    table = command("info", path).out
    assert "config.codec.stages" in table
    assert "2, 3" in table


def test_info_of_foreign_and_damaged_files_is_4(command: Command, tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "m.pt")
    path = artefact.write(tmp_path / "m.anodiff", {"a": torch.zeros(200)}, {})
    path.write_bytes(path.read_bytes()[:-5])
    for name, says in (("m.pt", "torch.save"), ("m.anodiff", "cut short"), ("n.anodiff", "no model file")):
        said = command("info", tmp_path / name)
        assert said.code == 4
        assert says in said.err


def test_data_make_demo_check_and_split(command: Command, tmp_path: Path) -> None:
    words = ["--category", "brick", "--train", 3, "--good", 2, "--bad", 5]
    assert command("data", "make-demo", tmp_path / "demo", *words).code == 0
    said = command("data", "check", tmp_path / "demo" / "brick", "--json")
    assert said.code == 0
    assert json.loads(said.out)["pictures"]["train/good"] == 3
    again = command("data", "make-demo", tmp_path / "demo", *words)
    assert again.code == 3
    assert "exists already" in again.err
    (tmp_path / "demo" / "brick" / "test" / "good" / "zero.png").write_bytes(b"")
    spoilt = command("data", "check", tmp_path / "demo" / "brick")
    assert spoilt.code == 3
    assert "error  unreadable" in spoilt.out


def test_data_split_divides_a_manifest_that_says_nothing_of_it(command: Command, tmp_path: Path) -> None:
    lines = ["image,label"]
    for number in range(10):
        picture(tmp_path / f"{number}.png", seed=number)
        lines.append(f"{number}.png,{int(number > 7)}")
    (tmp_path / "all.csv").write_text("\n".join(lines) + "\n")
    said = command("data", "split", tmp_path / "all.csv", "-o", tmp_path / "split.csv", "--share", 0.25)
    assert (said.code, said.err) == (0, "")
    rows = [line.split(",") for line in (tmp_path / "split.csv").read_text().splitlines()]
    split = rows[0].index("split")
    assert {row[0]: row[split] for row in rows[1:]}["9.png"] == "test"
    assert [row[split] for row in rows[1:]].count("train") == 6


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["fit", "{t}/gone", "-o", "{t}/run"], 3, "nothing is there"),
        (["fit", "{t}/empty", "-o", "{t}/run"], 3, "the folder is empty"),
        (["fit", "{t}/good", "-o", "{t}/file"], 2, "a file of that name is in the way"),
        (["fit", "{t}/good", "-o", "{t}/run", "--config", "{t}/gone.yaml"], 2, "cannot be read"),
        (["fit", "{t}/good", "-o", "{t}/run", "--preset", "feature"], 2, "did you mean features?"),
        (["fit", "{t}/good", "-o", "{t}/run", "--epochs", "0"], 2, "--epochs should be above 0"),
        (["fit", "{t}/good", "-o", "{t}/run", "--target-fpr", "2"], 2, "threshold.target_fpr"),
        (["score", "{t}/gone.anodiff", "{t}/good"], 4, "no model file"),
        (["score", "{t}/m.anodiff", "{t}/empty"], 3, "the folder is empty"),
        (["score", "{t}/gone.anodiff", "{t}/good", "--save", "maps"], 2, "name the folder with -o"),
        (["score", "{t}/gone.anodiff", "{t}/good", "--batch", "0"], 2, "--batch should be at least 1"),
        (["eval", "{t}/m.anodiff", "{t}/good", "-o", "{t}/e"], 3, "no test pictures"),
        (["eval", "{t}/m.anodiff", "{t}/good", "-o", "{t}/e", "--gate", "auroc>=1"], 2, "image_auroc"),
        (["eval", "{t}/gone.anodiff", "{t}/good", "-o", "{t}/e"], 4, "no model file"),
        (["report", "{t}/empty"], 3, "has no predictions.csv"),
        (["calibrate", "{t}/gone.anodiff", "{t}/good"], 4, "no model file"),
    ],
)
def test_mistakes_are_told(command: Command, tmp_path: Path, words: list[str], code: int, says: str) -> None:
    picture(tmp_path / "good" / "1.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    artefact.write(tmp_path / "m.anodiff", {"a": torch.zeros(2)}, {})
    said = command(*(word.replace("{t}", os.fspath(tmp_path)) for word in words))
    assert says in said.err
    assert said.code == code
    assert said.out == ""
