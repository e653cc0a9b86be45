"""`anodiff sample` and the restorations of a model that paints."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
from cli_pictures import Command
from cli_runs import PAINTER

pytestmark = pytest.mark.xdist_group("cli-model")  # the fitted models are shared


def test_a_model_of_features_paints_nothing(model: Path, tmp_path: Path, command: Command) -> None:
    said = command("sample", model, "-o", tmp_path / "s")
    assert said.code == 2
    assert "paints nothing" in said.err
    steps = command("score", model, tmp_path / "gone.png", "--steps", 3)
    assert steps.code == 2
    assert "steps" in steps.err


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


def test_samplers_variances_and_spacings(painter: Path, tmp_path: Path, command: Command) -> None:
    shown = {}
    for name, words in {
        "ddpm": ["--sampler", "ddpm"],
        "eta": ["--eta", 1],
        "large": ["--sampler", "ddpm", "--variance", "large"],
        "leading": ["--spacing", "leading"],
        "ddim": [],
    }.items():
        said = command("sample", painter, "-o", tmp_path / name, "--steps", 3, "--count", 1, *words)
        assert said.code == 0, said.err
        assert said.out == f"{tmp_path / name}: 1 pictures and grid.png\n"
        shown[name] = (tmp_path / name / "0000.png").read_bytes()
    assert shown["ddpm"] == shown["eta"]
    assert len(set(shown.values())) == 4
    for words, told in (
        (["--sampler", "ddpm", "--variance", "learned"], "fitted with a fixed one"),
        (["--variance", "large"], "draws none"),
        (["--steps", 1001], "use at most 1000"),
        (["--eta", 2], "from 0 to 1"),
    ):
        refused = command("sample", painter, "-o", tmp_path / "no", "--count", 1, *words)
        assert refused.code == 2
        assert told in refused.err
    assert not list((tmp_path / "no").iterdir())


def test_a_fit_leaves_samples_where_the_model_paints(
    painter: Path, fitted: Path, tmp_path: Path, command: Command
) -> None:
    folder = painter.parent / "samples"
    assert sorted(path.name for path in folder.iterdir()) == [*(f"000{i}.png" for i in range(9)), "grid.png"]
    assert cv2.imread(str(folder / "grid.png"), 0).shape == (3 * 34 - 2, 3 * 34 - 2)
    again = command("sample", painter, "-o", tmp_path, "--count", 9, "--steps", 25)
    assert again.code == 0, again.err
    assert (tmp_path / "0008.png").read_bytes() == (folder / "0008.png").read_bytes()
    assert not (fitted / "samples").exists()  # a model of features


def test_a_fit_without_samples(demo: Path, tmp_path: Path, command: Command) -> None:
    said = command("fit", demo, "-o", tmp_path / "run", *PAINTER, "--no-samples")
    assert said.code == 0, said.err
    assert (tmp_path / "run" / "model.anodiff").is_file()
    assert not (tmp_path / "run" / "samples").exists()


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


def test_a_table_shorter_than_fifty_is_walked_whole(demo: Path, tmp_path: Path, command: Command) -> None:
    model = tmp_path / "run" / "model.anodiff"
    chain = ("--set", "family.schedule={name: vp, steps: 20}")
    fitted = command("fit", demo, "-o", tmp_path / "run", *PAINTER, *chain, "--no-samples")
    assert fitted.code == 0, fitted.err
    shown = []
    for name, words in (("usual", []), ("said", ["--steps", 20])):
        said = command("sample", model, "-o", tmp_path / name, "--count", 1, *words)
        assert said.code == 0, said.err
        shown.append((tmp_path / name / "0000.png").read_bytes())
    assert shown[0] == shown[1]
    assert "use at most 20" in command("sample", model, "-o", tmp_path / "no", "--steps", 21).err


def test_help_tells_the_defaults_of_a_chain(command: Command) -> None:
    told = " ".join(command("sample", "--help").out.split())
    assert "default: 50, or all levels of a model that has fewer, and of a DDGAN" in told
    assert "default: 0, or 1 of a DDGAN" in told
