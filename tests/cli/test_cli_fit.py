"""`anodiff fit` on a small demo set."""

from __future__ import annotations

import json
import math
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from cli_pictures import SPOILT, Command
from cli_runs import SHORT, table

from anodiff import artefact

pytestmark = pytest.mark.xdist_group("cli-model")  # the fitted models are shared


def test_fit_writes_the_run(fitted: Path, demo: Path) -> None:
    assert {
        "model.anodiff",
        "config.yaml",
        "split.csv",
        "metrics.csv",
        "environment.json",
        "checkpoints",
    } <= {path.name for path in fitted.iterdir()}
    config = yaml.safe_load((fitted / "config.yaml").read_text())
    assert (config["data"]["size"], config["train"]["steps"]) == (64, 12)
    rows = table(fitted / "split.csv")
    assert len(rows) == 14
    assert {row["split"] for row in rows} == {"train", "holdout"}
    assert all(Path(row["image"]).parent == demo / "train" / "good" for row in rows)
    assert len(table(fitted / "metrics.csv")) == 12
    about = artefact.read_header(fitted / "model.anodiff")
    assert about["config"]["train"]["steps"] == 12


def test_fit_opens_nothing_under_test(demo: Path, tmp_path: Path, command: Command) -> None:
    copy = tmp_path / "brick"
    shutil.copytree(demo / "train", copy / "train")
    for place in ("test/good", "test/scratch", "ground_truth/scratch"):
        (copy / place).mkdir(parents=True)
        for name in ("000.png", "000_mask.png"):
            (copy / place / name).write_bytes(b"not a picture")
    said = command("fit", copy, "-o", tmp_path / "run", *SHORT, "--set", "train.steps=4", "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out)["trained_on"] + json.loads(said.out)["held_out"] == 14


def test_epochs_are_steps_by_the_count_of_training_pictures(
    demo: Path, tmp_path: Path, command: Command
) -> None:
    said = command("fit", demo, "-o", tmp_path / "run", *SHORT, "--set", "train.batch=4", "--epochs", 1.5)
    assert said.code == 0, said.err
    trained = sum(row["split"] == "train" for row in table(tmp_path / "run" / "split.csv"))
    steps = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["train"]["steps"]
    assert steps == math.ceil(1.5 * trained / 4) == len(table(tmp_path / "run" / "metrics.csv"))


def test_max_time_ends_a_fit_with_a_model(demo: Path, tmp_path: Path, command: Command) -> None:
    words = ("fit", demo, "-o", tmp_path / "run", *SHORT, "--set", "train.steps=100000", "--max-time", "1s")
    said = command(*words)
    assert said.code == 0, said.err
    assert (tmp_path / "run" / "model.anodiff").is_file()
    assert 0 < len(table(tmp_path / "run" / "metrics.csv")) < 100000


def test_one_picture_is_enough_with_a_warning(demo: Path, tmp_path: Path, command: Command) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    shutil.copy(demo / "train" / "good" / "000.png", folder)
    said = command("fit", folder, "-o", tmp_path / "run", *SHORT, "--set", "train.steps=3")
    assert said.code == 0, said.err
    assert "warning: one: one picture is trained on and calibrated on; add more." in said.err
    assert command("score", tmp_path / "run" / "model.anodiff", folder).code == 0


def test_a_spoilt_training_picture_is_told(demo: Path, tmp_path: Path, command: Command) -> None:
    shutil.copytree(demo / "train" / "good", tmp_path / "good")
    SPOILT["cut.png"][0](tmp_path / "good" / "cut.png")
    said = command("fit", tmp_path / "good", "-o", tmp_path / "run", *SHORT, "--set", "train.steps=3")
    assert "cut.png" in said.err
    assert said.code in (0, 3)


def test_a_learning_rate_that_breaks_the_loss_is_told(demo: Path, tmp_path: Path, command: Command) -> None:
    words = ("--set", "train.learning_rate=1e30", "--set", "train.warmup=0", "--set", "train.steps=30")
    said = command("fit", demo, "-o", tmp_path / "run", *SHORT[:6], "--device", "cpu", *words)
    assert said.code == 2, said.err
    assert "learning_rate" in said.err
    assert not (tmp_path / "run" / "model.anodiff").exists()


def test_ctrl_c_saves_a_checkpoint_and_the_fit_goes_on(demo: Path, tmp_path: Path, command: Command) -> None:
    run = tmp_path / "run"
    code = "import sys; from anodiff.cli.main import main; sys.exit(main(sys.argv[1:]))"
    words = ["fit", str(demo), "-o", str(run)]
    long = ["--set", "train.steps=100000", "--set", "train.decay=constant"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words, *SHORT, *long],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 200
    while not (run / "metrics.csv").is_file() or len(table(run / "metrics.csv")) < 3:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 130, err
    assert f"interrupted; checkpoint saved in {run / 'checkpoints'}; resume with --resume auto" in err
    assert "Traceback" not in err
    assert out == ""
    assert not (run / "model.anodiff").exists()
    before = table(run / "metrics.csv")
    # the configuration kept in the run is used again; the time already spent counts
    limit = f"{float(before[-1]['seconds']) + 1:.2f}s"
    said = command(*words, "--resume", "auto", "--max-time", limit, "--device", "cpu")
    assert said.code == 0, said.err
    after = table(run / "metrics.csv")
    course = [[(row["step"], float(row["loss"])) for row in rows] for rows in (before, after)]
    assert course[1][: len(before)] == course[0]  # nothing is done twice
    assert len(after) > len(before)
    assert yaml.safe_load((run / "config.yaml").read_text())["train"]["steps"] == 100000
    assert (run / "model.anodiff").is_file()


@pytest.mark.slow
@pytest.mark.enable_socket  # the two processes talk over the loopback
def test_two_devices_fit_what_one_does(demo: Path, tmp_path: Path, command: Command) -> None:
    """Losses and threshold agree up to the order of sums; each device sees half of every batch."""
    words = [*SHORT, "--set", "train.steps=6", "--set", "train.batch=4", "--json"]
    said = {n: command("fit", demo, "-o", tmp_path / str(n), *words, "--devices", n) for n in (1, 2)}
    assert [one.code for one in said.values()] == [0, 0], said[2].err
    losses = {n: [float(row["loss"]) for row in table(tmp_path / str(n) / "metrics.csv")] for n in said}
    assert len(losses[1]) == 6
    assert losses[2] == pytest.approx(losses[1], rel=1e-4)
    threshold = {n: json.loads(one.out)["threshold"] for n, one in said.items()}
    assert threshold[2] == pytest.approx(threshold[1], rel=1e-3)
