"""The verbs on a real model: fitted, scored with, evaluated, on a small demo set."""

from __future__ import annotations

import csv
import json
import math
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import torch
import yaml
from cli_pictures import Command, picture

from anodiff import artefact
from anodiff.cli.main import main
from anodiff.cli.predictions import COLUMNS
from anodiff.data.demo import make_demo

pytestmark = pytest.mark.xdist_group("cli-model")  # one fitted model is shared

SHORT = (
    "--preset",
    "tiny",
    "--size",
    "64",
    "--set",
    "net.width=16",
    "--set",
    "train.warmup=2",
    "--device",
    "cpu",
)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    make_demo(folder, categories=("brick",), train=14, good=4, bad=5)
    return folder / "brick"


@pytest.fixture(scope="session")
def fitted(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a short fit."""
    folder = tmp_path_factory.mktemp("runs") / "brick"
    torch.set_num_threads(1)
    assert main(["fit", str(demo), "-o", str(folder), *SHORT, "--set", "train.steps=12"]) == 0
    return folder


@pytest.fixture
def model(fitted: Path) -> Path:
    return fitted / "model.anodiff"


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


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


def test_info_names_the_model(fitted: Path, command: Command) -> None:
    said = command("info", fitted / "model.anodiff", "--json")
    about = json.loads(said.out)
    assert about["model_id"] == artefact.model_id(artefact.read_header(fitted / "model.anodiff"))
    assert about["config"]["seed"] == 0


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


def bomb(path: Path) -> None:
    """A PNG of 40,000 x 40,000 pixels in a few bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "bomb.png": (bomb, "above the limit of 200 million"),
    "cut.png": (lambda path: path.write_bytes(picture(path).read_bytes()[:900]), "truncated or damaged"),
    "text.png": (lambda path: path.write_text("not a picture\n"), "not a picture"),
    "zero.png": (lambda path: path.write_bytes(b""), "empty (0 bytes)"),
}


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


@pytest.fixture(scope="session")
def evaluated(fitted: Path, demo: Path) -> Path:
    assert main(["eval", str(fitted / "model.anodiff"), str(demo), "-o", str(fitted / "eval")]) == 0
    return fitted / "eval"


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


def test_a_model_of_features_paints_nothing(model: Path, tmp_path: Path, command: Command) -> None:
    said = command("sample", model, "-o", tmp_path / "s")
    assert said.code == 2
    assert "paints nothing" in said.err
    steps = command("score", model, tmp_path / "gone.png", "--steps", 3)
    assert steps.code == 2
    assert "steps" in steps.err


@pytest.fixture(scope="session")
def painter(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of pixels, trained for three steps: it paints noise, but it paints."""
    folder = tmp_path_factory.mktemp("runs") / "pixels"
    words = [
        "family.kind=eps",
        "train.weight=eps",
        "net.width=8",
        "net.multipliers=[1]",
        "net.attention=[]",
        "train.steps=3",
        "score.steps=4",
    ]
    sets = [part for word in (*words, "score.distances={l1: 1.0}") for part in ("--set", word)]
    small = ["--preset", "pixels", "--size", "32", "--channels", "1", "--device", "cpu"]
    assert main(["fit", str(demo), "-o", str(folder), *small, *sets]) == 0
    return folder / "model.anodiff"


def test_a_model_of_pixels_paints_the_same_pictures_whatever_their_number(
    painter: Path, tmp_path: Path, command: Command
) -> None:
    for name, words in (
        ("a", ["--count", 3]),
        ("b", ["--count", 5, "--batch", 2]),
        ("c", ["--count", 3, "--seed", 1]),
    ):
        said = command("sample", painter, "-o", tmp_path / name, "--steps", 3, "--eta", 0.5, *words)
        assert said.code == 0, said.err
    read = {
        name: [cv2.imread(str(tmp_path / name / f"000{i}.png"), 0).astype(int) for i in range(3)]
        for name in "abc"
    }
    assert read["a"][0].shape == (32, 32)
    assert all(np.abs(a - b).max() <= 1 for a, b in zip(read["a"], read["b"], strict=True))
    assert all(np.abs(a - c).max() > 10 for a, c in zip(read["a"], read["c"], strict=True))
    assert np.abs(read["a"][0] - read["a"][1]).max() > 10
    assert cv2.imread(str(tmp_path / "b" / "grid.png")).shape[:2] == (2 * 34 - 2, 3 * 34 - 2)
    for sampler in ("heun", "dpmpp_2m"):
        words = (
            "sample",
            painter,
            "-o",
            tmp_path / sampler,
            "--steps",
            3,
            "--count",
            1,
            "--sampler",
            sampler,
        )
        assert command(*words).code == 0
        refused = command(*words, "--eta", 0.5)
        assert refused.code == 2
        assert "draws no noise" in refused.err


def test_steps_of_a_restoring_model_and_its_report(
    painter: Path, demo: Path, tmp_path: Path, command: Command
) -> None:
    rows = []
    for words in ([], ["--steps", 4], ["--steps", 2]):
        said = command("score", painter, demo / "test" / "good", *words)
        assert said.code == 0, said.err
        rows.append([float(row["score"]) for row in csv.DictReader(said.out.splitlines())])
    assert rows[1] == pytest.approx(rows[0], rel=1e-6)
    # the restoration hardly differs after three steps of training
    assert rows[2] != pytest.approx(rows[0], rel=2e-5)
    said = command("eval", painter, demo, "-o", tmp_path / "e", "--cases", 1)
    assert said.code == 0, said.err
    restored = cv2.imread(str(tmp_path / "e" / "cases" / "00_restored.png"))
    assert restored.shape == (128, 128, 3)


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


def test_a_disk_that_fills_up_while_scoring(
    model: Path, demo: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tifffile, "imwrite", full)
    said = command("score", model, demo / "test" / "good", "-o", tmp_path / "out", "--save", "csv,maps")
    assert said.code == 5
    assert "The disk is full" in said.err


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
