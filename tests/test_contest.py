"""Presets compared by defects painted on pictures that none of them has seen."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import anodiff
from anodiff.config import RunConfig, load
from anodiff.contest import contest
from anodiff.data.demo import make_demo
from anodiff.errors import ConfigError
from anodiff.gather import Gathered, gather

SMALL = ("data.size=64", "net.width=16", "train.steps=3", "train.warmup=1", "selftest.painted=30")
BLIND = "calibration.smooth=25.0"  # a Gaussian that leaves nothing of a map of 8 x 8 cells

pytestmark = pytest.mark.xdist_group("contest")


def config(*words: str) -> RunConfig:
    return load(preset="tiny", overrides=[*SMALL, *words])


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Gathered:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("contest")
    place = make_demo(folder, categories=("gravel",), train=56, good=1, bad=1) / "gravel"
    pictures = [cv2.imread(str(path)) for path in sorted((place / "train" / "good").glob("*.png"))]
    return gather(pictures, config())


class Fits:
    """Fits each configuration once, and keeps which pictures it was shown."""

    def __init__(self) -> None:
        self.done: dict[str, anodiff.Detector] = {}
        self.shown: list[set[str]] = []

    def __call__(self, name: str, of: RunConfig, pictures: Gathered) -> anodiff.Detector:
        self.shown.append({*pictures.train_rows["image"], *pictures.held_rows["image"]})
        if name not in self.done:
            self.done[name] = anodiff.Detector(config=of, device="cpu").fit(pictures)
        return self.done[name]


@pytest.fixture(scope="module")
def fits() -> Fits:
    return Fits()


def test_the_one_that_finds_more_is_taken_and_tells_of_the_others(good, fits: Fits, tmp_path: Path) -> None:
    said: list[str] = []
    found = contest({"blind": config(BLIND), "seeing": config()}, good, fit=fits, say=said.append)
    assert found.name == "seeing"
    assert found.detector.config.calibration.smooth == 1.0
    blind, seeing = found.compared
    assert seeing.mean > blind.mean + 0.05
    assert (blind.gain.value, blind.gain.low) == (0.0, 0.0)
    assert 0 < seeing.gain.low < seeing.gain.value
    assert found.painted == 30
    loaded = anodiff.load(found.detector.save(tmp_path / "model.anodiff"), device="cpu")
    assert loaded.info["provenance"]["contest"] == found.to_dict()
    assert loaded.info["provenance"]["trained_on"] == len(found.fitted_on.train)
    assert said[-1].startswith("taken: seeing (+0.")


def test_the_first_stays_where_none_is_better_by_more_than_chance(good, fits: Fits) -> None:
    entrants = {"seeing": config(), "same": config(), "blind": config(BLIND)}
    found = contest(entrants, good, fit=lambda name, *rest: fits(name.replace("same", "seeing"), *rest))
    assert found.name == "seeing"
    assert found.detector is fits.done["seeing"]
    assert [entry.name for entry in found.compared] == ["preset=seeing", "preset=same", "preset=blind"]
    assert found.compared[1].gain.value == 0.0
    assert found.compared[2].gain.high < 0


def test_nobody_has_seen_the_pictures_that_judge(good, fits: Fits) -> None:
    fits.shown.clear()
    found = contest({"seeing": config(), "blind": config(BLIND)}, good, fit=fits)
    every = {*good.train_rows["image"], *good.held_rows["image"]}
    assert fits.shown[0] == fits.shown[1]
    assert len(every - fits.shown[0]) == found.clean >= 8
    assert len(found.fitted_on.train) + found.clean == len(good.train)
    assert {*good.held_rows["image"]} <= fits.shown[0]  # thresholds rest on as many as ever


@pytest.mark.parametrize(
    ("entrants", "sentence"),
    [
        ({"one": config()}, "two presets or more"),
        ({"one": config(), "two": config("seed=1")}, "same seed"),
        ({"one": config(), "two": config("data.holdout=0.3")}, r"same data\.holdout"),
        ({"one": config(), "two": config("selftest.kind=none")}, "two has selftest.kind none"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    good: Gathered, entrants: dict[str, RunConfig], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        contest(entrants, good)


def test_too_few_good_pictures_are_refused_before_anything_is_trained() -> None:
    few = gather([np.full((64, 64, 3), value, np.uint8) for value in range(0, 240, 12)], config())
    with pytest.raises(ConfigError, match="8 are needed"):
        contest({"one": config(), "two": config(BLIND)}, few, fit=lambda *_: pytest.fail("a fit began"))
