"""`anodiff eval` and `anodiff report` with a fitted model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from cli_pictures import Command
from cli_runs import table

from anodiff.cli.predictions import COLUMNS

pytestmark = pytest.mark.xdist_group("cli-model")  # the fitted models are shared


def test_eval_writes_the_numbers_and_the_page(evaluated: Path) -> None:
    names = {"metrics.json", "rows.csv", "curves.csv", "predictions.csv", "report.html", "run.json", "cases"}
    assert names <= {path.name for path in evaluated.iterdir()}
    metrics = json.loads((evaluated / "metrics.json").read_text())
    for name in (
        "image_auroc", "image_ap", "image_f1max", "fpr95", "overkill_at_zero_escapes",
        "pixel_auroc", "pixel_ap", "aupro_30", "aupro_05",
    ):  # fmt: skip
        assert metrics[name].keys() == {"value", "low", "high", "n"}
    facts = {"seed", "data", "model_id", "threshold", "evaluations_per_image", "ms_p50", "ms_p99", "device"}
    assert facts <= metrics.keys()
    assert metrics["leaked"] == 0
    rows = table(evaluated / "predictions.csv")
    assert tuple(rows[0]) == (*COLUMNS, "truth", "defect", "category")
    from sklearn.metrics import roc_auc_score

    truth = [int(row["truth"]) for row in rows]
    assert metrics["image_auroc"]["value"] == pytest.approx(
        roc_auc_score(truth, [float(row["score"]) for row in rows]), abs=1e-9
    )
    page = (evaluated / "report.html").read_text()
    assert rows[0]["model_id"] in page
    assert "image AUROC" in page


def test_reports_side_by_side_come_from_the_files_alone(
    evaluated: Path, tmp_path: Path, command: Command
) -> None:
    shutil.copytree(evaluated, tmp_path / "again")
    shutil.copytree(evaluated, tmp_path / "once")
    said = command("report", tmp_path / "again", tmp_path / "once", "-o", tmp_path / "both.html")
    assert said.code == 0, said.err
    page = (tmp_path / "both.html").read_text()
    assert "again" in page
    assert "once" in page
    alone = command("report", tmp_path / "again", "-o", tmp_path / "one.html", "--title", "Bricks")
    assert alone.code == 0, alone.err
    assert "Bricks" in (tmp_path / "one.html").read_text()
    # the cases are kept with the numbers, so the page shows them without model or data
    assert (tmp_path / "one.html").read_text().count("data:image") >= 9


def test_gates(model: Path, demo: Path, tmp_path: Path, command: Command) -> None:
    words = ("eval", model, demo, "-o", tmp_path / "e")
    assert command(*words, "--gate", "image_auroc>=0", "--gate", "fpr95<=1").code == 0
    said = command(*words, "--gate", "image_auroc>1", "--gate", "fpr95<=1")
    assert said.code == 12
    assert "Gate missed: image_auroc>1: image_auroc is" in said.err
    assert (tmp_path / "e" / "report.html").is_file()


def test_pictures_of_the_fit_are_left_out_of_an_evaluation(
    model: Path, demo: Path, tmp_path: Path, command: Command
) -> None:
    copy = tmp_path / "brick"
    shutil.copytree(demo, copy)
    shutil.copy(demo / "train" / "good" / "000.png", copy / "test" / "good" / "renamed.png")
    said = command("eval", model, copy, "-o", tmp_path / "e", "--json")
    assert said.code == 0, said.err
    assert "warning: the model was fitted on 1 of these 10 pictures" in said.err
    assert json.loads(said.out)["leaked"] == 1
    assert json.loads(said.out)["image_auroc"]["n"] == 9
    rows = {row["path"]: row for row in table(tmp_path / "e" / "predictions.csv")}
    assert "fitted on this picture" in rows["test/good/renamed.png"]["error"]
    only = tmp_path / "judged"
    shutil.copytree(demo / "train" / "good", only / "good")
    shutil.copytree(demo / "test" / "scratch", only / "bad")
    refused = command("eval", model, only, "-o", tmp_path / "e2")
    assert refused.code == 3
    assert "no good picture is left" in refused.err


def test_without_a_split_it_is_said_that_nothing_was_checked(
    model: Path, demo: Path, tmp_path: Path, command: Command
) -> None:
    shutil.copy(model, tmp_path / "moved.anodiff")
    said = command("eval", tmp_path / "moved.anodiff", demo, "-o", tmp_path / "e", "--json")
    assert "no split.csv beside the model" in said.err
    assert json.loads(said.out)["leaked"] is None


def test_a_spoilt_picture_among_test_pictures_is_counted(
    model: Path, demo: Path, tmp_path: Path, command: Command
) -> None:
    shutil.copytree(demo, tmp_path / "brick")
    (tmp_path / "brick" / "test" / "good" / "zero.png").write_bytes(b"")
    said = command("eval", model, tmp_path / "brick", "-o", tmp_path / "e", "--json")
    assert said.code == 11, said.err
    assert json.loads(said.out)["failed"] == 1
    assert json.loads(said.out)["image_auroc"]["n"] == 9
