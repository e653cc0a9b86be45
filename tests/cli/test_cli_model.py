"""`anodiff info` and `anodiff calibrate`: what is done with a model file, and with a damaged one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_pictures import Command

from anodiff import artefact

pytestmark = pytest.mark.xdist_group("cli-model")  # the fitted models are shared


def test_info_names_the_model(fitted: Path, command: Command) -> None:
    said = command("info", fitted / "model.anodiff", "--json")
    about = json.loads(said.out)
    assert about["model_id"] == artefact.model_id(artefact.read_header(fitted / "model.anodiff"))
    assert about["config"]["seed"] == 0


def test_calibrate_changes_the_threshold_alone(
    model: Path, demo: Path, tmp_path: Path, command: Command
) -> None:
    out = tmp_path / "new.anodiff"
    said = command("calibrate", model, demo / "test" / "good", "-o", out, "--target-fpr", 0.25, "--json")
    assert said.code == 0, said.err
    told = json.loads(said.out)
    assert told["threshold"] != told["threshold_before"]
    assert artefact.read_header(out)["config"]["data"] == artefact.read_header(model)["config"]["data"]
    first, second = (command("score", path, demo / "test" / "good", "--json") for path in (model, out))
    assert [json.loads(line)["score"] for line in first.out.splitlines()] == [
        json.loads(line)["score"] for line in second.out.splitlines()
    ]
    refused = command("calibrate", model, demo / "test" / "good", "-o", out, "--target-fpr", 0.001)
    assert refused.code == 2  # four pictures cannot support one in a thousand


def test_a_damaged_model_is_4(model: Path, demo: Path, tmp_path: Path, command: Command) -> None:
    raw = bytearray(model.read_bytes())
    raw[-100] ^= 1
    (tmp_path / "m.anodiff").write_bytes(raw)
    for words in (
        ["score", tmp_path / "m.anodiff", demo],
        ["eval", tmp_path / "m.anodiff", demo, "-o", tmp_path],
    ):
        said = command(*words)
        assert said.code == 4
        assert "m.anodiff is damaged" in said.err
