"""The point at which a training stops, chosen by painted defects."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import anodiff
from anodiff import compose
from anodiff.batches import batches
from anodiff.config import RunConfig, load
from anodiff.config.candidates import candidates
from anodiff.data.demo import make_demo
from anodiff.errors import ConfigError
from anodiff.selftest.choice import Choice, choose, options

SMALL = ("data.size=64", "net.width=16", "train.warmup=1", "selftest.painted=30", "train.decay=constant")

pytestmark = pytest.mark.xdist_group("selftest_stops")


def config(*words: str) -> RunConfig:
    return load(preset="tiny", overrides=[*SMALL, *words])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("stops")
    place = make_demo(folder, categories=("gravel",), train=40, good=1, bad=1) / "gravel"
    return [cv2.imread(str(path)) for path in sorted((place / "train" / "good").glob("*.png"))]


def figures(detector: anodiff.Detector) -> list[tuple[str, float, float]]:
    found = detector.info["provenance"]["selftest"]["choice"]["candidates"]
    return [(entry["name"], entry["image_auroc"], entry["pixel_auroc"]) for entry in found]


def test_an_earlier_stop_is_judged_as_the_model_of_a_shorter_training(pictures) -> None:
    long = config("train.steps=6", "selftest.choose={train.steps: [2], pool.share: [0.01, 0.2]}")
    short = config("train.steps=2", "selftest.choose={pool.share: [0.01, 0.2]}")
    of_long = figures(anodiff.Detector(config=long, device="cpu").fit(pictures))
    of_short = figures(anodiff.Detector(config=short, device="cpu").fit(pictures))
    assert [name for name, _, _ in of_long] == [
        "as configured",
        "train.steps=2 pool.share=0.01",
        "train.steps=2 pool.share=0.2",
    ]
    assert [row[1:] for row in of_long[1:]] == [row[1:] for row in of_short]
    assert of_long[0][1:] != of_long[1][1:]


def test_a_better_stop_is_taken_with_its_weights(pictures) -> None:
    asked = config("train.steps=6", "selftest.choose={train.steps: [2, 4]}")
    said: list[str] = []
    choice, kept = spoilt(asked, pictures, steps=(4,), say=said.append)
    assert choice.changes == {"train.steps": 4}
    assert choice.config.train.steps == 4
    assert choice.predictor.evaluations == 1
    chosen = compose.learner(choice.predictor).state_dict()
    assert all(torch.equal(chosen[name], value) for name, value in kept[4].items())
    assert said[0] == "time was up before train.steps=2: not compared"
    assert [entry.name for entry in choice.compared] == ["as configured", "train.steps=4"]


def spoilt(asked: RunConfig, pictures: list[np.ndarray], *, steps, say) -> tuple[Choice, dict]:
    """The choice where the training ended in noise, and what it had kept before, which is sound."""
    torch.manual_seed(0)
    shape, device = (64, 64), torch.device("cpu")
    codec = compose.codec(asked)
    codec.learn(batches(pictures, shape, asked, device))
    predictor = compose.predictor(asked, target_fpr=0.1, shape=shape, ready=codec)
    learner = compose.learner(predictor)
    sound = {name: value.clone() for name, value in learner.state_dict().items()}
    with torch.no_grad():
        for weight in learner.parameters():
            weight.add_(torch.randn_like(weight))
    kept = dict.fromkeys(steps, sound)
    choice = choose(
        options(asked),
        predictor.eval(),
        lambda: batches(pictures[:20], shape, asked, device),
        lambda: batches(pictures[20:], shape, asked, device),
        kept=kept,
        count=len(pictures) - 20,
        shape=shape,
        rate=0.1,
        say=say,
    )
    return choice, kept


def test_a_stop_after_the_end_or_before_a_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ends after 60 steps, so it cannot stop after 61"):
        candidates(config("selftest.choose={train.steps: [20, 61]}"))
    head = config("score={fuse: fisher, head: {kind: learned}}", "selftest.choose={train.steps: [20]}")
    with pytest.raises(ConfigError, match="head"):
        candidates(head)
