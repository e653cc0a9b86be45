"""The self-test at the end of `anodiff fit`: its table, its file, its place in the model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_pictures import Command
from cli_runs import SHORT, table

from anodiff import artefact
from anodiff.data.synthetic import KINDS
from anodiff.run import SELFTEST_COLUMNS

pytestmark = pytest.mark.xdist_group("cli-model")  # the fitted models are shared


def test_the_run_keeps_the_self_test_in_its_file_and_in_the_model(fitted: Path, command: Command) -> None:
    rows = table(fitted / "selftest.csv")
    assert tuple(rows[0]) == SELFTEST_COLUMNS
    assert {row["name"] for row in rows if row["part"] == "kind"} == set(KINDS)
    whole = next(row for row in rows if row["part"] == "all" and row["metric"] == "image_auroc")
    kept = artefact.read_header(fitted / "model.anodiff")["provenance"]["selftest"]
    assert float(whole["value"]) == kept["image_auroc"]["value"]
    assert float(whole["low"]) <= float(whole["value"]) <= float(whole["high"])
    said = command("info", fitted / "model.anodiff")
    lines = [line.split() for line in said.out.splitlines()]
    assert ["provenance.selftest.painted", str(kept["painted"])] in lines
    assert "selftest.kinds" not in said.out


def test_the_table_is_printed_before_the_last_line_and_json_has_it_as_data(
    demo: Path, tmp_path: Path, command: Command
) -> None:
    words = ("fit", demo, *SHORT, "--set", "train.steps=2", "--set", "selftest.painted=30")
    said = command(*words, "-o", tmp_path / "run")
    assert said.code == 0, said.err
    lines = [line.split() for line in said.out.splitlines() if line.strip()]
    assert {kind for kind in KINDS if [line for line in lines if line[0] == kind]} == set(KINDS)
    assert lines[-1][0] == str(tmp_path / "run" / "model.anodiff")
    assert any(line[0] == "all" and line[2].startswith("[") for line in lines)
    said = command(*words, "-o", tmp_path / "run", "--json")
    found = json.loads(said.out)["selftest"]
    assert found["painted"] == 30
    assert (tmp_path / "run" / "selftest.csv").is_file()
    said = command(*words, "-o", tmp_path / "run", "--json", "--set", "selftest.kind=none")
    assert said.code == 0, said.err
    assert "selftest" not in json.loads(said.out)
    assert not (tmp_path / "run" / "selftest.csv").exists()  # that of the fit before


def test_what_needs_another_training_cannot_be_chosen(demo: Path, tmp_path: Path, command: Command) -> None:
    said = command(
        "fit", demo, "-o", tmp_path / "run", *SHORT, "--set", "selftest.choose={train.batch: [1, 2]}"
    )
    assert said.code == 2
    assert "train.batch cannot be chosen without training anew" in said.err
