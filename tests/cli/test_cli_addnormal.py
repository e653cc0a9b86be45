"""What a threshold rests on: pictures added to it, few of them, and defects among those given as good."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from cli_pictures import SPOILT, Command
from cli_runs import SHORT, table

import anodiff
from anodiff.cli.main import main
from anodiff.errors import DataError

pytestmark = pytest.mark.xdist_group("cli-model")  # the fitted models are shared

BRIEF = (*SHORT, "--set", "train.steps=4", "--set", "train.batch=4")


def grain(path: Path, seed: int, *, hole: tuple[int, int] | None = None) -> Path:
    """Write a picture of even grain, with a black square at (y, x) where asked for."""
    image = np.random.default_rng(seed).integers(110, 140, (32, 32), dtype=np.uint8)
    if hole is not None:
        y, x = hole
        image[y : y + 10, x : x + 10] = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)
    return path


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """28 good pictures and two defective ones among them, one of which is held out."""
    folder = (
        tmp_path_factory.mktemp("mixed") / "part"
    )  # the name is part of the hash that divides the pictures
    for number in range(28):
        grain(folder / f"{number:02}.png", number)
    grain(folder / "hole_0.png", 100, hole=(3, 3))
    grain(folder / "hole_3.png", 101, hole=(18, 16))
    return folder


@pytest.fixture(scope="module")
def dropped(mixed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a fit without what looks unlike the rest."""
    folder = tmp_path_factory.mktemp("runs") / "mixed"
    assert main(["fit", str(mixed), "-o", str(folder), *BRIEF, "--drop-suspects"]) == 0
    return folder


def test_added_pictures_count_once_and_lower_the_rate_that_is_supported(
    model: Path, demo: Path, tmp_path: Path, command: Command
) -> None:
    out, more = tmp_path / "new.anodiff", tmp_path / "more"
    held = anodiff.load(model, device="cpu").counted
    said = command("calibrate", model, demo / "test" / "good", "--add-normal", "-o", out, "--json")
    assert said.code == 0, said.err
    told = json.loads(said.out)
    assert (told["added"], told["counted"]) == (4, held + 4)
    assert told["least_rate"] == pytest.approx(1 / (held + 5))
    more.mkdir()
    for picture in (demo / "test" / "good").glob("*.png"):  # the same pictures in other files
        cv2.imwrite(str(more / f"again_{picture.stem}.bmp"), cv2.imread(str(picture)))
    again = json.loads(command("calibrate", out, more, "--add-normal", "--json").out)
    assert (again["added"], again["counted"]) == (0, held + 4)
    assert (again["model_id"], again["threshold"]) == (told["model_id"], told["threshold"])
    lower = ("--target-fpr", 1 / (held + 5))
    assert command("calibrate", out, more, "--add-normal", *lower, "-o", tmp_path / "l.anodiff").code == 0
    refused = command("calibrate", out, more, "--add-normal", "--target-fpr", 1 / (held + 6))
    assert refused.code == 2
    assert "needs at least" in refused.err


def test_added_false_alarms_raise_the_threshold(
    model: Path, demo: Path, tmp_path: Path, command: Command
) -> None:
    """Pictures that the model flags, said to be good: none is flagged afterwards at the rate of the least threshold."""
    detector = anodiff.load(model, device="cpu")
    paths = sorted((demo / "test").rglob("*.png"))
    flagged = [p for p, r in zip(paths, detector.predict(paths), strict=True) if r.is_anomalous][:2]
    before, held = detector.threshold, detector.predictor.threshold.held
    scores = [result.score for result in detector.predict(flagged)]
    detector.add_normal(flagged)
    assert detector.threshold >= before
    assert detector.predictor.threshold.held.tolist() == pytest.approx(sorted([*held.tolist(), *scores]))
    masks = detector.predictor.mask_threshold
    assert masks.count == len(held) + len(flagged)
    saved = anodiff.load(detector.save(tmp_path / "m.anodiff"), device="cpu")
    assert saved.info["provenance"]["added"] == len(flagged)
    assert saved.add_normal(flagged).info["provenance"]["added"] == len(flagged)  # known again after loading


def test_pictures_in_memory_can_be_added_and_unknown_normals_of_old_files_are_borne(
    model: Path, demo: Path
) -> None:
    detector = anodiff.load(model, device="cpu")
    held = detector.counted
    arrays = [cv2.imread(str(path)) for path in sorted((demo / "test" / "good").glob("*.png"))]
    about = {name: value for name, value in detector.info["provenance"].items() if name != "counted"}
    detector.adopt(detector.predictor, shape=detector.shape, target_fpr=0.2, about=about)
    detector.add_normal([arrays[0], arrays[0], arrays[1]])
    assert detector.counted == held + 2
    assert detector.calibrate(arrays).counted == len(arrays)
    assert "added" not in detector.info["provenance"]


def test_pictures_that_were_trained_on_are_not_counted(
    fitted: Path, demo: Path, tmp_path: Path, command: Command
) -> None:
    out = tmp_path / "new.anodiff"
    said = command(
        "calibrate", fitted / "model.anodiff", demo / "train" / "good", "--add-normal", "-o", out, "--json"
    )
    assert said.code == 0, said.err
    seen = [row["image"] for row in table(fitted / "split.csv") if row["split"] == "train"]
    assert (
        f"warning: the model was trained on {len(seen)} of these 14 pictures; they are left out" in said.err
    )
    assert json.loads(said.out)["added"] == 0  # the others are those that were held out
    (tmp_path / "seen").mkdir()
    shutil.copy(seen[0], tmp_path / "seen")
    for words in (["--add-normal"], []):
        refused = command("calibrate", fitted / "model.anodiff", tmp_path / "seen", *words, "-o", out)
        assert refused.code == 3
        assert "trained on all 1 good pictures" in refused.err


@pytest.mark.parametrize("words", [("--add-normal",), ()])
def test_a_picture_that_cannot_be_read_is_left_out_and_counted(
    words: tuple[str, ...], model: Path, demo: Path, tmp_path: Path, command: Command
) -> None:
    whole, spoilt, out = tmp_path / "whole", tmp_path / "spoilt", tmp_path / "new.anodiff"
    shutil.copytree(demo / "test" / "good", whole)
    shutil.copytree(whole, spoilt)
    for name, (spoil, _) in SPOILT.items():
        spoil(spoilt / name)
    expected = json.loads(command("calibrate", model, whole, *words, "-o", out, "--json").out)
    said = command("calibrate", model, spoilt, *words, "-o", out, "--json")
    assert said.code == 0, said.err
    for name, (_, why) in SPOILT.items():
        told = [line for line in said.err.splitlines() if name in line]
        assert len(told) == 1, said.err
        assert told[0].startswith("warning: left out of what the threshold rests on: ")
        assert why in told[0]
    assert json.loads(said.out) == {**expected, "unreadable": len(SPOILT)}
    (spoilt / "zero.png").unlink()
    assert "3 pictures left out as unreadable" in command("calibrate", model, spoilt, *words, "-o", out).out


def test_nothing_is_written_where_no_picture_can_be_read(
    model: Path, tmp_path: Path, command: Command
) -> None:
    (tmp_path / "spoilt").mkdir()
    for name, (spoil, _) in SPOILT.items():
        spoil(tmp_path / "spoilt" / name)
    out = tmp_path / "new.anodiff"
    said = command("calibrate", model, tmp_path / "spoilt", "--add-normal", "-o", out)
    assert said.code == 3
    assert "None of the 4 pictures can be read" in said.err
    assert not out.exists()
    detector = anodiff.load(model, device="cpu")
    with pytest.warns(UserWarning, match="left out"), pytest.raises(DataError, match="None of the 4"):
        detector.calibrate(tmp_path / "spoilt")


def test_defects_among_the_good_are_named_and_told_of(mixed: Path, tmp_path: Path, command: Command) -> None:
    said = command("fit", mixed, "-o", tmp_path / "run", *BRIEF)
    assert said.code == 0, said.err
    assert "pictures given as good look" in said.err
    assert "--drop-suspects" in said.err
    rows = table(tmp_path / "run" / "suspects.csv")
    assert {Path(row["image"]).name for row in rows} >= {"hole_0.png", "hole_3.png"}
    assert len(rows) <= 4
    assert "robust deviations" in rows[0]["reason"]
    assert {row["split"] for row in rows} == {"train", "holdout"}
    assert "warning: the threshold rests on" in said.err
    about = command("info", tmp_path / "run" / "model.anodiff")
    assert "warning: " in about.out
    assert "look unlike the rest" in about.out
    suspects = anodiff.load(tmp_path / "run" / "model.anodiff", device="cpu").suspects
    assert {suspect.image for suspect in suspects} == {Path(row["image"]).name for row in rows}


def test_suspects_are_dropped_and_a_resumed_run_does_not_look_for_them_again(
    mixed: Path, dropped: Path, command: Command
) -> None:
    names = {Path(row["image"]).name for row in table(dropped / "dropped.csv")}
    assert names >= {"hole_0.png", "hole_3.png"}
    kept = {Path(row["image"]).name for row in table(dropped / "split.csv")}
    assert not kept & names
    assert len(kept) + len(names) == 30
    header = json.loads(command("info", dropped / "model.anodiff", "--json").out)
    assert sum(header["provenance"]["dropped"].values()) == len(names)
    assert header["provenance"]["dropped"]["holdout"] >= 1
    assert header["provenance"]["trained_on"] + header["provenance"]["held_out"] == len(kept)
    said = command("fit", mixed, "-o", dropped, *BRIEF, "--drop-suspects", "--resume", "auto", "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out)["model_id"] == header["model_id"]
    assert said.err.count("held out for the threshold, on") == 1  # one fit
    assert {Path(row["image"]).name for row in table(dropped / "dropped.csv")} == names


def test_the_threshold_no_longer_rests_on_what_was_dropped(dropped: Path, mixed: Path) -> None:
    detector = anodiff.load(dropped / "model.anodiff", device="cpu")
    held = [row["image"] for row in table(dropped / "split.csv") if row["split"] == "holdout"]
    assert detector.counted == len(held) == detector.info["provenance"]["held_out"]
    scores = sorted(result.score for result in detector.predict(held))
    assert detector.predictor.threshold.held.tolist() == pytest.approx(scores, rel=1e-5)
    assert detector.predict(mixed / "hole_3.png").is_anomalous


def test_no_suspects_no_second_fit(tmp_path: Path, command: Command) -> None:
    for number in range(14):
        grain(tmp_path / "good" / f"{number:02}.png", number)
    said = command("fit", tmp_path / "good", "-o", tmp_path / "run", *BRIEF, "--drop-suspects", "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out)["suspects"] == 0
    assert not (tmp_path / "run" / "dropped.csv").exists()
    assert table(tmp_path / "run" / "suspects.csv") == []


@pytest.mark.parametrize(("count", "held"), [(10, 4), (5, 2), (2, 1)])
def test_few_pictures_are_enough_and_the_rate_they_support_is_said(
    count: int, held: int, tmp_path: Path, command: Command
) -> None:
    paths = [grain(tmp_path / "good" / f"{number:02}.png", number) for number in range(count)]
    said = command("fit", tmp_path / "good", "-o", tmp_path / "run", *BRIEF)
    assert said.code == 0, said.err
    rate = f"{1 / (held + 1):.3g}"
    assert f"held out {held}; resting on {held} good" in said.out
    assert f"at most {rate} false alarms, the least they support" in said.out
    detector = anodiff.load(tmp_path / "run" / "model.anodiff", device="cpu")
    assert np.isfinite(detector.predict(paths[0]).score)
    assert detector.predict(paths[0]).p_value >= 1 / (held + 1)
    with open(tmp_path / "run" / "suspects.csv", newline="") as file:
        assert list(csv.DictReader(file)) == []


def test_a_rate_that_so_few_cannot_support_is_refused_before_training(
    tmp_path: Path, command: Command
) -> None:
    for number in range(10):
        grain(tmp_path / "good" / f"{number:02}.png", number)
    said = command("fit", tmp_path / "good", "-o", tmp_path / "run", *BRIEF, "--target-fpr", 0.01)
    assert said.code == 2
    assert "needs at least 99 held-out normals and there are 4" in said.err
    assert not (tmp_path / "run" / "metrics.csv").exists()


def test_eval_holds_false_alarms_against_the_promise(
    evaluated: Path, model: Path, demo: Path, tmp_path: Path, command: Command
) -> None:
    metrics = json.loads((evaluated / "metrics.json").read_text())
    found = metrics["false_alarm_rate"]
    rows = [row for row in table(evaluated / "predictions.csv") if row["truth"] == "0"]
    assert found["n"] == len(rows)
    assert found["value"] == pytest.approx(np.mean([row["label"] == "1" for row in rows]))
    assert found["promised"] == anodiff.load(model, device="cpu").info["target_fpr"]
    assert 0 <= found["expected_low"] <= found["expected_high"] <= 1
    assert 0 < found["p_value"] <= 1
    sentence = f"the threshold promises at most {100 * found['promised']:.3g} % false alarms"
    assert sentence in (evaluated / "report.html").read_text()
    assert command("eval", model, demo, "-o", tmp_path / "e", "--gate", "false_alarm_rate<0").code == 12


def test_regions_in_predictions_carry_p_values(
    model: Path, demo: Path, tmp_path: Path, command: Command
) -> None:
    assert command("score", model, demo / "test", "-o", tmp_path / "s", "--save", "jsonl").code == 0
    lines = [json.loads(line) for line in (tmp_path / "s" / "predictions.jsonl").read_text().splitlines()]
    values = [region["p_value"] for line in lines for region in line["regions"]]
    assert values
    detector = anodiff.load(model, device="cpu")
    held, rate = detector.predictor.mask_threshold.count, detector.info["target_fpr"]
    # what is shown lies above the mask threshold, which is the same as a p-value within the rate
    assert all(1 / (held + 1) - 1e-9 <= value <= rate + 1e-9 for value in values)
