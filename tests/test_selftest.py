"""Painted defects: planned evenly, counted right, without a trace in the threshold, and knobs chosen by them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import anodiff
from anodiff.config import RunConfig, load
from anodiff.config.candidates import candidates
from anodiff.config.selftest import SelfTest
from anodiff.data.demo import make_demo
from anodiff.data.synthetic import KINDS
from anodiff.detect.heatmap import blur
from anodiff.errors import ConfigError, DataError
from anodiff.metrics.bootstrap import PixelTable
from anodiff.metrics.curve import auroc
from anodiff.metrics.pixel import PixelScores
from anodiff.selftest.choice import FEWEST, Choice, options
from anodiff.selftest.gain import _bounds
from anodiff.selftest.painting import PAINTED, Defect, Painting, planned
from anodiff.selftest.report import report, rows, told, unjudged
from anodiff.selftest.trial import Trial

SMALL = ("data.size=64", "net.width=16", "train.steps=3", "train.warmup=1", "selftest.painted=30")
WIDE = 25.0  # a Gaussian that leaves nothing of a map of 8 x 8 cells

pytestmark = pytest.mark.xdist_group("selftest")  # fitted models are shared


def config(*words: str) -> RunConfig:
    return load(preset="tiny", overrides=[*SMALL, *words])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("selftest")
    place = make_demo(folder, categories=("gravel",), train=56, good=1, bad=1) / "gravel"
    return [cv2.imread(str(path)) for path in sorted((place / "train" / "good").glob("*.png"))]


@pytest.fixture(scope="module")
def fitted(pictures: list[np.ndarray]) -> anodiff.Detector:
    return anodiff.Detector(config=config(), device="cpu").fit(pictures[:16])


@pytest.fixture(scope="module")
def chosen(pictures: list[np.ndarray]) -> anodiff.Detector:
    words = (f"calibration.smooth={WIDE}", f"selftest.choose={{calibration.smooth: [{WIDE}, 0.0]}}")
    return anodiff.Detector(config=config(*words), device="cpu").fit(pictures)


def normals(count: int, size: int = 32) -> torch.Tensor:
    white = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))
    return (0.3 + 0.4 * blur(white, 2.0)).clamp(0, 1)


def plan(count: int, *, seed: int = 0, evaluations: int = 1, size: int = 64, **words: object) -> list[Defect]:
    section = SelfTest.model_validate(words)
    return planned(count, section, shape=(size, size), evaluations=evaluations, seed=seed)


def test_every_kind_is_painted_at_every_strength_equally_often_on_pictures_in_turn() -> None:
    found = plan(20)
    pairs = Counter((defect.kind, defect.strength) for defect in found)
    assert set(pairs) == {(kind, strength) for kind in KINDS for strength in (0.15, 0.35, 0.8)}
    assert len(set(pairs.values())) == 1
    assert PAINTED / 2 < len(found) <= PAINTED
    times = Counter(defect.base for defect in found)
    assert sorted(times) == list(range(20))
    assert max(times.values()) - min(times.values()) <= 1
    assert plan(20) == found
    assert plan(20, seed=1) != found


def test_what_takes_long_is_painted_less_often_unless_it_is_asked_for() -> None:
    once = 3 * len(KINDS)
    assert len(plan(20, evaluations=50)) == len(plan(20, size=1024)) == once
    assert len(plan(20, evaluations=50, painted=3 * once)) == 3 * once
    assert len(plan(20, painted=1)) == once  # each at least once
    assert {defect.strength for defect in plan(20, strengths=[0.5])} == {0.5}
    with pytest.raises(DataError, match=r"16 px or more.*data\.size"):
        plan(20, size=8)


def test_a_painting_repeats_itself_and_changes_nothing_outside_its_masks() -> None:
    image = normals(5)
    painting = Painting(lambda: [image[:3], image[3:]], plan(5, size=32, painted=1))
    clean = torch.cat([batch for batch, _, _ in painting.clean()])
    assert torch.equal(clean, image[painting.bases])
    first, again = (list(painting.painted()) for _ in range(2))
    for (one, _, _), (two, _, _) in zip(first, again, strict=True):
        assert torch.equal(one, two)
    painted = torch.cat([batch for batch, _, _ in first])
    masks = torch.from_numpy(np.stack([mask for _, _, masks in first for mask in masks]))
    good = image[[defect.base for defect in painting.defects]]
    assert len(painted) == len(painting.defects)
    assert torch.equal((painted != good).any(1) & ~masks, torch.zeros_like(masks))
    assert masks.flatten(1).any(1).all()


def known() -> Trial:
    """Two good pictures at 0 and 1; blobs above both, scratches at strengths .2, .4, .8: below, between, above."""
    scores = {("blob", 0.2): 3.0, ("blob", 0.4): 3.0, ("blob", 0.8): 3.0}
    scores |= {("scratch", 0.2): -1.0, ("scratch", 0.4): 0.5, ("scratch", 0.8): 2.0}
    pixels = PixelScores()
    defects = []
    for base in (0, 1):
        for kind, strength in scores:
            mask = np.zeros((16, 16), bool)
            mask[:4, :4] = True
            heat = np.random.default_rng(len(defects)).random((16, 16))
            pixels.update(heat + 2.0 * mask if kind == "blob" else heat, mask)
            defects.append(Defect(base, kind, strength, len(defects)))
    return Trial(
        score=np.array([0.0, 1.0, *scores.values(), *scores.values()]),
        base=np.array([0, 1, *(defect.base for defect in defects)]),
        limit=np.full(12, 1.5),
        pixels=PixelTable.of(pixels.pictures),
        defects=defects,
    )


def test_the_table_is_right_where_the_answer_is_known() -> None:
    found = report(known(), threshold=1.5, seed=0)
    blob, scratch = found.kinds["blob"], found.kinds["scratch"]
    assert (blob.painted, blob.image_auroc, blob.found, blob.found_from) == (6, 1.0, 1.0, 0.2)
    assert blob.pixel_auroc == pytest.approx(1.0)
    assert blob.aupro_30 == pytest.approx(1.0)
    assert scratch.image_auroc == pytest.approx((0 + 0.5 + 1) / 3)
    assert (scratch.found, scratch.found_from) == (pytest.approx(1 / 3), 0.8)
    assert scratch.pixel_auroc == pytest.approx(0.5, abs=0.1)
    assert found.strengths[0.4].image_auroc == pytest.approx((1 + 0.5) / 2)
    assert found.strengths[0.4].found == 0.5
    assert found.overall["image_auroc"].value == pytest.approx(0.75)
    assert found.found_from == 0.2  # half of every strength: the blobs
    assert found.clean == 2


def test_the_table_of_pixels_is_the_exact_one_but_for_its_grid() -> None:
    rng = np.random.default_rng(0)
    pixels = PixelScores()
    for _ in range(12):
        mask = np.zeros((48, 48), bool)
        mask[8:20, 8:20] = True
        pixels.update(rng.normal(size=(48, 48)) + 0.8 * mask, mask)
    rough = float(auroc(PixelTable.of(pixels.pictures).curve(np.ones((1, 12))))[0])
    assert rough == pytest.approx(float(auroc(pixels.curve())), abs=2e-3)


def test_a_good_picture_is_drawn_with_all_its_painted_forms() -> None:
    found = known()
    times = found.draws(draws=50, seed=0)
    for base in (0, 1):
        own = times[:, found.base == base]
        assert (own == own[:, :1]).all()
    assert (times[:, :2].sum(1) == 2).all()
    interval = report(found, threshold=1.5, seed=0).overall["image_auroc"]
    assert interval.low < interval.value < interval.high


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("{train.batch: [8, 16]}", "train.batch cannot be chosen without training anew"),
        ("{train.steps: [0.5, 2]}", "whole numbers of steps"),
        ("{codec.stages: [[1], [2]]}", "codec.stages cannot be chosen"),
        ("{threshold.target_fpr: [.1]}", "threshold.target_fpr cannot be chosen"),
        ("{score.kind: [one_step, bound]}", "compare two fits"),
        ("{score.head.weight: [.5, 1]}", "compare two fits"),
        ("{pool.share: []}", "no values"),
        ("{pool.share: [.1, .2, .3, .4, .5, .6, .7, .8, .9], score.sigmas: [1, 2, 3, 4, 5, 6, 7, 8]}", "at most 64"),
    ],
)  # fmt: skip
def test_what_cannot_be_chosen_is_refused(words: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        config(f"selftest.choose={words}")


def test_candidates_are_refused_before_anything_is_trained(pictures: list[np.ndarray]) -> None:
    with pytest.raises(ConfigError, match=r"selftest\.choose: Unknown key pool\.shore"):
        candidates(config("selftest.choose={pool.shore: [.1]}"))
    with pytest.raises(ConfigError, match="no noise level of this model"):
        options(config("selftest.choose={score.sigmas: [[1.0], [99.0]]}"))
    with pytest.raises(ConfigError, match="set kind to painted"):
        config("selftest={kind: none, choose: {pool.share: [.1]}}")
    head = config("score={fuse: fisher, head: {kind: learned}}", "selftest.choose={score.sigmas: [[0.5]]}")
    with pytest.raises(ConfigError, match="head"):
        candidates(head)
    few = config("selftest.choose={pool.share: [.1, .2]}")
    with pytest.raises(ConfigError, match=f"{FEWEST} are needed"):
        anodiff.Detector(config=few, device="cpu").fit(pictures[:12])


def test_the_grid_has_the_configuration_first_and_nothing_twice() -> None:
    words = "selftest.choose={pool.share: [.01, .1], calibration.smooth: [1.0, 0.0]}"
    found = candidates(config(words))
    assert [candidate.name for candidate in found] == [
        "as configured",
        "pool.share=0.01 calibration.smooth=0",
        "pool.share=0.1 calibration.smooth=1",
        "pool.share=0.1 calibration.smooth=0",
    ]
    assert found[2].config.pool.share == 0.1
    assert len(candidates(config())) == 1
    nested = config("selftest.choose.pool.share=[.01, .1]")  # as a command line would say it
    assert dict(nested.selftest.choose) == {"pool.share": (0.01, 0.1)}


def test_a_gain_by_chance_is_no_gain() -> None:
    rng = np.random.default_rng(0)
    taken = 0
    for _ in range(200):
        means = rng.normal(size=12)  # twelve candidates, none better
        draws = means[:, None] + rng.normal(size=(12, 400))
        gain = np.append(0.0, means)
        taken += bool((gain > _bounds(gain, np.concatenate([np.zeros((1, 400)), draws]))).any())
    assert taken / 200 < 0.12  # with a bound for each alone it would be .46
    assert _bounds(np.array([0.0, 0.3]), np.array([[0.0, 0.0], [0.3, 0.3]])).tolist() == [0.0, 0.0]


def test_a_fit_ends_with_a_self_test_that_repeats_itself(fitted, pictures, tmp_path: Path) -> None:
    found = fitted.info["provenance"]["selftest"]
    assert found["painted"] == 30
    assert found["threshold"] == fitted.threshold
    assert set(found["kinds"]) == set(KINDS)
    assert found["image_auroc"]["low"] <= found["image_auroc"]["value"] <= found["image_auroc"]["high"]
    again = anodiff.Detector(config=config(), device="cpu").fit(pictures[:16])
    assert again.info["provenance"]["selftest"] == found
    again.calibrate(pictures[20:30])  # another threshold takes away what rested on the first
    left = again.info["provenance"]["selftest"]
    assert left == unjudged(found)
    assert "found" not in left
    assert "found" not in left["kinds"]["blob"]
    assert left["image_auroc"] == found["image_auroc"]
    loaded = anodiff.load(fitted.save(tmp_path / "model.anodiff"), device="cpu")
    assert loaded.info["provenance"]["selftest"]["kinds"] == found["kinds"]
    lines = list(rows(found))
    assert {line[0] for line in lines} == {"all", "kind", "strength"}
    assert lines[0][:5] == ("all", "", None, "image_auroc", found["image_auroc"]["value"])


def test_a_self_test_leaves_no_trace_in_the_model(fitted, pictures) -> None:
    plain = anodiff.Detector(config=config("selftest.kind=none"), device="cpu").fit(pictures[:16])
    assert "selftest" not in plain.info["provenance"]
    assert plain.threshold == fitted.threshold
    assert torch.equal(plain.predictor.threshold.held, fitted.predictor.threshold.held)
    assert plain.predict(pictures[40]).score == fitted.predict(pictures[40]).score
    assert plain.info["provenance"]["trained_on"] == fitted.info["provenance"]["trained_on"]


def test_an_obviously_better_candidate_is_chosen_and_saved(chosen, tmp_path: Path) -> None:
    choice = chosen.info["provenance"]["selftest"]["choice"]
    assert choice["chosen"] == {"calibration.smooth": 0.0}
    asked, better = choice["candidates"]
    assert better["mean"] > asked["mean"] + 0.05
    assert better["gain"]["low"] > 0
    assert chosen.config.calibration.smooth == 0.0
    loaded = anodiff.load(chosen.save(tmp_path / "model.anodiff"), device="cpu")
    assert loaded.config.calibration.smooth == 0.0
    assert loaded.predictor.smooth.sigma == 0.0
    gains = [line[4] for line in rows({"choice": choice}) if line[3] == "gain"]
    assert gains == [0.0, better["gain"]["value"]]


def test_what_was_chosen_is_what_a_fit_without_a_choice_would_be(chosen, pictures) -> None:
    words = ("calibration.smooth=0.0", "selftest.choose={calibration.smooth: [0.0]}")
    same = anodiff.Detector(config=config(*words), device="cpu").fit(pictures)
    assert torch.equal(same.predictor.threshold.held, chosen.predictor.threshold.held)
    assert "choice" not in same.info["provenance"]["selftest"]


def test_the_configuration_stays_where_nothing_is_better(pictures, tmp_path: Path) -> None:
    words = "selftest.choose={pool.share: [.001, .02], score.floor: [.05]}"  # one cell of 64, all of them
    said: list[str] = []
    detector = anodiff.Detector(config=config(words), device="cpu").fit(pictures, say=said.append)
    choice = detector.info["provenance"]["selftest"]["choice"]
    assert choice["chosen"] == {}
    assert [entry["gain"]["value"] for entry in choice["candidates"]] == [0.0, 0.0, 0.0]
    assert detector.config.pool.share == 0.01
    assert any("it stays" in text for text in said)
    assert FEWEST <= choice["clean"] <= 20


def test_nothing_tried_is_nothing_told() -> None:
    assert told(None, Choice(config(), None)) == {}  # type: ignore[arg-type]
