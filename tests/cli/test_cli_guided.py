"""Models with labels from the command line: several kinds of parts, clusters, guidance, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from cli_pictures import Command
from cli_runs import PAINTER, SHORT, table

import anodiff
from anodiff.cli.main import main
from anodiff.errors import ConfigError

pytestmark = pytest.mark.xdist_group("cli-guided")  # the fitted models are shared

GUIDED = (
    "labels.kind=category",
    "family.kind=x0",
    "family.variance=learned",
    "train.loss=hybrid",
    "train.weight=x0",
    "guidance={kind: classifier, scale: 2.0, net: {width: 8, multipliers: [1, 2], attention: [1], steps: 4}}",
    "net.patch=2",
)


@pytest.fixture(scope="session")
def several(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One model of features for two kinds of parts."""
    folder = tmp_path_factory.mktemp("runs") / "several"
    torch.set_num_threads(1)
    words = ["--set", "labels.kind=category", "--set", "train.steps=12"]
    assert main(["fit", str(parts), "-o", str(folder), *SHORT, *words]) == 0
    return folder


@pytest.fixture(scope="session")
def guided(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One model of pixels for two kinds of parts, with a learned variance and a classifier."""
    folder = tmp_path_factory.mktemp("runs") / "guided"
    words = [part for word in GUIDED for part in ("--set", word)]
    assert main(["fit", str(parts), "-o", str(folder), *PAINTER, *words]) == 0
    return folder


def test_each_kind_of_part_has_its_threshold(
    several: Path, parts: Path, tmp_path: Path, command: Command
) -> None:
    assert yaml.safe_load((several / "config.yaml").read_text())["labels"]["names"] == ["brick", "grass"]
    detector = anodiff.load(several / "model.anodiff", device="cpu")
    assert set(detector.thresholds) == {"brick", "grass"}
    assert detector.labels == ("brick", "grass")
    found = command("eval", several / "model.anodiff", parts, "-o", tmp_path / "e")
    assert found.code == 0, found.err
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert metrics["thresholds"] == pytest.approx(detector.thresholds)
    kinds = {row["category"] for row in table(tmp_path / "e" / "rows.csv")}
    assert kinds == {"all", "brick", "grass"}
    rows = table(tmp_path / "e" / "predictions.csv")
    for row in rows:
        assert float(row["threshold"]) == pytest.approx(detector.thresholds[row["category"]], rel=1e-6)


def test_what_a_part_is_is_found_or_given(
    several: Path, parts: Path, tmp_path: Path, command: Command
) -> None:
    model, good = several / "model.anodiff", parts / "grass" / "test" / "good"
    assert command("score", model, good, "-o", tmp_path / "found").code == 0
    assert {row["category"] for row in table(tmp_path / "found" / "predictions.csv")} == {"grass"}
    assert command("score", model, good, "-o", tmp_path / "given", "--label", "brick").code == 0
    given = table(tmp_path / "given" / "predictions.csv")
    assert {row["category"] for row in given} == {"brick"}
    assert [row["score"] for row in given] != [
        row["score"] for row in table(tmp_path / "found" / "predictions.csv")
    ]
    detector = anodiff.load(model, device="cpu")
    path = str(next(good.iterdir()))
    assert detector.predict(path, label="brick").category == "brick"
    assert [r.category for r in detector.predict([path, path], label="0")] == ["brick", "brick"]
    wrong = command("score", model, good, "--label", "wood")
    assert wrong.code == 2
    assert "brick (0), grass (1)" in wrong.err
    assert wrong.out == ""


@pytest.mark.parametrize("batch", [1, 8])
def test_fewer_labels_than_pictures_are_refused_and_none_is_guessed(
    several: Path, parts: Path, batch: int
) -> None:
    detector = anodiff.load(several / "model.anodiff", device="cpu")
    paths = sorted((parts / "grass" / "test" / "good").iterdir())[:3]
    told = list(detector.stream(paths, batch=batch, labels=["grass", None, "brick"]))
    assert [result.category for result in told] == ["grass", "grass", "brick"]
    sentence = r"Expected one label a picture, got 2 labels for more pictures\."
    with pytest.raises(ConfigError, match=sentence):
        list(detector.stream(paths, batch=batch, labels=iter(["grass", "brick"])))
    with pytest.raises(ConfigError, match="got 0 labels"):
        list(detector.stream(paths, batch=batch, labels=[]))


def test_calibration_keeps_the_kinds_apart(
    several: Path, parts: Path, tmp_path: Path, command: Command
) -> None:
    said = command(
        "calibrate", several / "model.anodiff", parts, "-o", tmp_path / "c.anodiff", "--target-fpr", 0.5
    )
    assert said.code == 0, said.err
    after = anodiff.load(tmp_path / "c.anodiff", device="cpu")
    before = anodiff.load(several / "model.anodiff", device="cpu")
    assert set(after.thresholds) == set(before.thresholds)
    assert after.thresholds != before.thresholds


def test_a_guided_model_is_whole_after_loading(
    guided: Path, parts: Path, command: Command, tmp_path: Path
) -> None:
    assert (guided / "classifier" / "metrics.csv").is_file()
    assert len(list((guided / "samples").glob("0*.png"))) == 9
    said = command("eval", guided / "model.anodiff", parts, "-o", tmp_path / "e")
    assert said.code == 0, said.err
    detector = anodiff.load(guided / "model.anodiff", device="cpu")
    path = str(next((parts / "brick" / "test" / "good").iterdir()))
    again = anodiff.load(guided / "model.anodiff", device="cpu")
    assert detector.predict(path).score == again.predict(path).score
    gentle = anodiff.load(guided / "model.anodiff", device="cpu")
    gentle.predictor.wrap = type(gentle.predictor.wrap)(clamp=True)
    assert gentle.predict(path).score != detector.predict(path).score  # the classifier leads


def test_samples_by_label_and_every_guidance(guided: Path, tmp_path: Path, command: Command) -> None:
    shown = {}
    model = guided / "model.anodiff"
    for name, words in {
        "turn": ["--classifier-scale", 0],
        "brick": ["--classifier-scale", 0, "--label", "brick"],
        "grass": ["--classifier-scale", 0, "--label", "grass"],
        "own": ["--label", "brick"],
        "score": ["--classifier-scale", 9, "--label", "brick"],
        "mean": ["--classifier-scale", 9, "--label", "brick", "--form", "mean", "--sampler", "ddpm"],
        "learned": [
            "--classifier-scale",
            0,
            "--label",
            "brick",
            "--variance",
            "learned",
            "--sampler",
            "ddpm",
        ],
        "free": ["--classifier-scale", 0, "--scale", 3, "--label", "brick"],
        "negative": ["--classifier-scale", 0, "--scale", 3, "--label", "brick", "--negative", "grass"],
        "weaker": ["--classifier-scale", 0, "--label", "brick", "--weaker", model, "--weaker-scale", 3],
    }.items():
        said = command("sample", model, "-o", tmp_path / name, "--steps", 3, "--count", 2, *words)
        assert said.code == 0, said.err
        shown[name] = [(tmp_path / name / f"000{i}.png").read_bytes() for i in range(2)]
    assert shown["turn"] == [shown["brick"][0], shown["grass"][1]]
    assert shown["weaker"] == shown["brick"]  # away from itself is nowhere
    different = [name for name in shown if name not in ("turn", "weaker")]
    assert len({shown[name][0] for name in different}) == len(different)


def test_a_model_samples_with_the_guidance_it_was_fitted_with(
    parts: Path, tmp_path: Path, command: Command
) -> None:
    moving = [word.replace("scale: 2.0", "scale: 9.0, form: mean") for word in GUIDED]
    words = [part for word in (*moving, "score.sampler=ddpm") for part in ("--set", word)]
    said = command("fit", parts, "-o", tmp_path / "run", *PAINTER, *words)
    assert said.code == 0, said.err
    shown = {}
    for name, more in {
        "own": [],
        "same": ["--classifier-scale", 9, "--form", "mean", "--sampler", "ddpm"],
        "none": ["--classifier-scale", 0, "--sampler", "ddpm"],
        "half": ["--classifier-scale", 4.5],
        "score": ["--form", "score"],
        "score too": ["--classifier-scale", 9, "--form", "score", "--sampler", "ddim"],
        "as fitted": ["--steps", 25, "--count", 9],
    }.items():
        words = ["--steps", 3, "--count", 2, *more]
        said = command("sample", tmp_path / "run" / "model.anodiff", "-o", tmp_path / name, *words)
        assert said.code == 0, said.err
        shown[name] = [path.read_bytes() for path in sorted((tmp_path / name).glob("0*.png"))]
    assert shown["own"] == shown["same"]
    assert shown["score"] == shown["score too"]
    assert len({tuple(shown[name]) for name in ("own", "none", "half", "score")}) == 4
    kept = sorted((tmp_path / "run" / "samples").glob("0*.png"))
    assert [path.read_bytes() for path in kept] == shown["as fitted"]
    words = ["-o", tmp_path / "no", "--steps", 3, "--count", 1, "--sampler", "heun"]
    said = command("sample", tmp_path / "run" / "model.anodiff", *words)
    assert said.code == 2
    assert "classifier scale of 0" in said.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--label", "wood"], "no label 'wood'"),
        (["--label", "2"], "no label '2'"),
        (["--scale", "inf"], "finite"),
        (["--scale", "-1"], "0 or above"),
        (["--classifier-scale", "nan"], "finite"),
        (["--negative", "brick"], "other than 1"),
        (["--classifier-scale", 2, "--form", "mean", "--sampler", "ddim"], "sampler ddpm"),
    ],
)
def test_guidance_that_makes_no_sense_is_a_sentence(
    guided: Path, tmp_path: Path, command: Command, words: list[object], told: str
) -> None:
    said = command(
        "sample", guided / "model.anodiff", "-o", tmp_path / "no", "--steps", 2, "--count", 1, *words
    )
    assert said.code == 2
    assert told in said.err


def test_guidance_of_an_unconditional_model_is_refused(
    painter: Path, parts: Path, tmp_path: Path, command: Command
) -> None:
    for words, told in (
        (["--scale", 2], "fitted without labels"),
        (["--classifier-scale", 2], "fitted without one"),
        (["--form", "mean"], "fitted without one"),
        (["--label", "brick"], "it has no labels"),
    ):
        said = command("sample", painter, "-o", tmp_path / "no", "--steps", 2, "--count", 1, *words)
        assert said.code == 2
        assert told in said.err
    labelled = command("score", painter, parts / "brick" / "test", "--label", "brick")
    assert labelled.code == 2
    assert "it has no labels" in labelled.err


def test_the_bound_is_told_term_by_term(guided: Path, parts: Path, command: Command) -> None:
    said = command("bound", guided / "model.anodiff", parts, "--levels", 6, "--json")
    assert said.code == 0, said.err
    told = json.loads(said.out)
    assert told["variance"] == "learned"
    assert told["pictures"] == 6
    assert len(told["transitions"]) == 5
    assert told["total"] == pytest.approx(
        told["prior"] + sum(told["transitions"]) + told["decoder"], rel=1e-5
    )
    small = json.loads(
        command("bound", guided / "model.anodiff", parts, "--levels", 6, "--json", "--variance", "small").out
    )
    assert small["total"] != told["total"]
    shown = command("bound", guided / "model.anodiff", parts, "--levels", 6)
    assert "decoder" in shown.out
    assert "bits a dimension" in shown.out
    assert command("bound", guided / "model.anodiff", parts, "--levels", 1).code == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["guidance.kind=free"], "labels.kind"),
        (["guidance.kind=free", "labels.kind=cluster", "train.condition_dropout=0"], "condition_dropout"),
        (["guidance.kind=classifier", "labels.kind=cluster", "guidance.scale=.inf"], "finite"),
        (["guidance={kind: classifier, form: mean}", "labels.kind=cluster"], "ddpm"),
        (["family.variance=learned"], "train.loss"),
        (["train.loss=hybrid"], "family.variance"),
        (["score.variance=learned"], "family.variance"),
        (["labels.kind=cluster", "labels.count=1"], "labels"),
        (["labels={kind: category, column: colour}"], "colour"),
        (["labels.kind=category"], "at least two kinds"),
        (["labels={kind: cluster, count: 90}"], "labels.count"),
    ],
)
def test_conditions_that_cannot_be_are_told_before_training(
    demo: Path, tmp_path: Path, command: Command, words: list[str], told: str
) -> None:
    said = command(
        "fit", demo, "-o", tmp_path / "r", *PAINTER, *(part for word in words for part in ("--set", word))
    )
    assert said.code in (2, 3), said.err
    assert told in said.err
