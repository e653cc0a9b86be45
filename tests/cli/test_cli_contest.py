"""`anodiff fit --best-of`: presets in turn, each a run of its own, and one model in the end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_pictures import Command
from cli_runs import table

import anodiff

pytestmark = pytest.mark.xdist_group("cli-contest")

WORDS = (
    *("--best-of", "tiny", "features", "--size", "64", "--device", "cpu", "--json"),
    *(
        "--set",
        "train.steps=2",
        "--set",
        "train.warmup=1",
        "--set",
        "net.width=16",
        "--set",
        "selftest.painted=30",
    ),
)


def test_each_preset_is_a_run_and_the_best_is_the_model(many: Path, tmp_path: Path, command: Command) -> None:
    run = tmp_path / "run"
    said = command("fit", many, "-o", run, *WORDS)
    assert said.code == 0, said.err
    found = json.loads(said.out)
    told = found["contest"]
    assert [row["name"] for row in told["presets"]] == ["preset=tiny", "preset=features"]
    taken = anodiff.load(run / "model.anodiff", device="cpu")
    assert taken.model_id == anodiff.load(run / "presets" / told["taken"] / "model.anodiff").model_id
    assert (run / "config.yaml").read_text() == (run / "presets" / told["taken"] / "config.yaml").read_text()
    rows = table(run / "split.csv")
    trained = [row for row in rows if row["split"] == "train"]
    assert len(trained) == found["trained_on"] + told["clean"]  # those that judged are not for testing either
    assert len(table(run / "presets" / "tiny" / "split.csv")) == len(rows) - told["clean"]
    plain = command("fit", many, "-o", run, *WORDS[:-9], *WORDS[-8:], "--resume", "auto")
    assert plain.code == 0, plain.err
    assert "presets: 30 painted defects" in plain.out
    assert "goes on" not in plain.err
    lines = command("info", run / "model.anodiff").out.splitlines()
    told_of = next(line for line in lines if "provenance.contest.presets" in line)
    assert "tiny ." in told_of
    assert "features ." in told_of


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--preset", "tiny"), "leave --preset out"),
        (("--config", "x.yaml"), "leave --config out"),
        (("--drop-suspects",), "leave --drop-suspects out"),
        (("--resume", "x.ckpt"), "--resume auto"),
    ],
)
def test_what_does_not_go_together_is_refused(
    many: Path, tmp_path: Path, command: Command, words: tuple[str, ...], sentence: str
) -> None:
    said = command("fit", many, "-o", tmp_path / "run", *WORDS, *words)
    assert said.code == 2
    assert sentence in said.err
    assert not (tmp_path / "run").exists()


def test_one_preset_is_no_comparison(many: Path, tmp_path: Path, command: Command) -> None:
    said = command("fit", many, "-o", tmp_path / "run", "--best-of", "tiny", "tiny", "--size", "64")
    assert said.code == 2
    assert "two presets or more" in said.err
    assert not (tmp_path / "run").exists()
    said = command("fit", many, "-o", tmp_path / "run", "--best-of", "tiny", "nothing")
    assert said.code == 2
    assert "nothing" in said.err
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from anodiff.data.demo import make_demo

    return (
        make_demo(tmp_path_factory.mktemp("many"), categories=("gravel",), train=56, good=1, bad=1) / "gravel"
    )
