"""A cell measures what `anodiff eval` measures, and says what it cost."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from bench_tree import part, spec, told

from anodiff import config as configuration
from anodiff.bench import cell, record
from anodiff.cli.main import main

WORDS = ("data.size=64", "net.width=16", "train.steps=4", "train.warmup=1", "train.batch=4")
PAINTER = (
    *WORDS,
    "data.size=32",
    "net.width=8",
    "net.multipliers=[1]",
    "net.attention=[]",
    "codec.patch=2",
    "score.steps=2",
)


def ours(preset: str, *words: str, **more: object) -> dict:
    run = configuration.load(preset=preset, overrides=[*words, "seed=0"])
    return {"kind": "ours", "steps": [], "family": None, **more, "run": run.model_dump(mode="json")}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return part(tmp_path_factory.mktemp("data") / "part")


def test_the_figures_are_those_of_eval(data: Path, tmp_path: Path) -> None:
    words = [part for word in WORDS for part in ("--set", word)]
    run = tmp_path / "run"
    assert main(["fit", str(data), "-o", str(run), "--preset", "tiny", "--device", "cpu", *words]) == 0
    assert (
        main(["eval", str(run / "model.anodiff"), str(data), "-o", str(run / "eval"), "--device", "cpu"]) == 0
    )
    theirs = json.loads((run / "eval" / "metrics.json").read_text())
    with (run / "eval" / "predictions.csv").open() as file:
        scores = {row["path"]: float(row["score"]) for row in csv.DictReader(file)}

    asked = spec(data, tmp_path / "cell", ours("tiny", *WORDS, family="feature"))
    found = cell.measured(asked)
    assert found["metrics"] == {name: theirs[name] for name in found["metrics"]}
    assert {"image_auroc", "pixel_auroc", "aupro_30"} <= set(found["metrics"])
    with (tmp_path / "cell" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == list(scores)
    assert [float(row["score"]) for row in rows] == pytest.approx(list(scores.values()), rel=1e-5)
    assert {row["defect"] for row in rows if row["label"] == "1"} == {"spot"}

    cost, about = found["cost"], found["about"]
    assert cost["evaluations_per_image"] == theirs["evaluations_per_image"] == 1
    assert 0 < cost["ms_p50"] <= cost["ms_p95"] <= cost["ms_p99"]
    assert all(
        cost[key] > 0 for key in ("fit_seconds", "pictures_per_second", "gflops_per_image", "model_mb")
    )
    assert cost["score_peak_mb"] > 100
    assert (about["train"] + about["held"], about["test_good"], about["test_defective"]) == (8, 4, 4)
    assert (about["data"], about["family"], about["seed"]) == ("part", "feature", 0)
    assert str(tmp_path) not in json.dumps(found)
    assert str(data.parent) not in json.dumps(found)


def test_a_painter_is_also_judged_by_its_pictures_and_at_other_steps(data: Path, tmp_path: Path) -> None:
    how = ours("pixels", *PAINTER, steps=[1, 2])
    generation = {"samples": 5, "extractor": "lite0", "weights": None, "steps": 2, "batch": 4}
    found = cell.measured(spec(data, tmp_path / "cell", how, generation=generation))
    assert [point["evaluations"] for point in found["curve"]] == [1, 2]
    assert found["curve"][1]["image_auroc"] == pytest.approx(found["metrics"]["image_auroc"]["value"])
    judged = found["generation"]
    assert (judged["samples"], judged["real"], judged["extractor"], judged["singular"]) == (
        5,
        8,
        "lite0",
        True,
    )
    assert {"FD[lite0]", "KID[lite0]", "precision[lite0]", "recall[lite0]", "nearest[lite0]"} < set(judged)
    assert judged["FD[lite0]"] > 0


def test_a_refusal_and_a_failure_are_records_too(data: Path, tmp_path: Path) -> None:
    stepless = spec(data, tmp_path / "refused", ours("tiny", *WORDS, steps=[2]))
    assert cell.main([str(told(stepless, tmp_path / "spec.json"))]) == 0
    found = record.read(tmp_path / "refused")
    assert found is not None
    assert (found["status"], found["metrics"]) == ("refused", {})
    assert "takes no steps" in found["error"]

    empty = spec(
        data / "none", tmp_path / "failed", {"kind": "baseline", "baseline": "pixel_gaussian", "size": 8}
    )
    assert cell.main([str(told(empty, tmp_path / "spec.json"))]) == 0
    found = record.read(tmp_path / "failed")
    assert found is not None
    assert found["status"] == "failed"
    assert "DATA/none" in found["error"]
    assert str(data) not in found["error"]
