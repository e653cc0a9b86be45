"""The laws of a detector hold where parts lie anyhow and are brought upright first."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import anodiff
from anodiff import compose
from anodiff.complete import complete
from anodiff.config import RunConfig, load
from anodiff.config.pose import AutoPose, KeepPose, UprightPose
from anodiff.data.field import fbm
from anodiff.data.hardware import Pose, draw, ground, outline
from anodiff.errors import AnodiffError, ConfigError, RefusalError
from anodiff.gather import gather
from anodiff.tasks.mended import filled

SMALL = ("data.size=64", "net.width=16", "train.steps=12", "train.warmup=2")
SIDE = 96

pytestmark = pytest.mark.xdist_group("pose_detector")  # one fitted model is shared


def bolt(seed: int, *, turn: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """A bolt in BGR, lying anyhow or turned by `turn` degrees in the middle, and which pixels are of it."""
    rng = np.random.default_rng(seed)
    shape = (SIDE, SIDE)
    shown, base = outline("bolt", rng), ground(rng, shape)
    x, y = rng.uniform(0.4 * SIDE, 0.6 * SIDE, size=2) if turn is None else (SIDE / 2, SIDE / 2)
    angle = rng.uniform(0, 2 * np.pi) if turn is None else np.radians(turn)
    pose = Pose(x=x, y=y, radius=0.3 * SIDE, turn=angle)
    cover, colour = draw(shown, pose, "steel", shape=shape, rng=rng)
    image = base + cover[..., None] * (colour - base)
    return np.round(image[..., ::-1].clip(0, 1) * 255).astype(np.uint8), cover > 0.9


def config(*words: str) -> RunConfig:
    return load(preset="tiny", overrides=[*SMALL, *words])


@pytest.fixture(scope="module")
def said() -> list[str]:
    return []


@pytest.fixture(scope="module")
def detector(said: list[str]) -> anodiff.Detector:
    torch.set_num_threads(1)
    good = [bolt(seed)[0] for seed in range(24)]
    return anodiff.Detector(config=config("data.pose.kind=auto"), device="cpu").fit(good, say=said.append)


def test_auto_turns_parts_that_lie_anyhow_and_says_by_which_figures(detector, said) -> None:
    pose = detector.config.data.pose
    assert isinstance(pose, UprightPose)
    assert pose.turn == "shape"
    told = next(text for text in said if "bringing parts upright" in text)
    assert "20 of 20 pictures" in told
    assert said.index(told) == 0


@pytest.mark.parametrize("kind", ["aligned", "texture"])
def test_auto_keeps_what_lies_alike_and_what_has_no_part(kind: str) -> None:
    rng = np.random.default_rng(0)
    texture = 128 + 30 * np.stack([fbm(rng, (SIDE, SIDE), coarse=6) for _ in range(10)])
    good = {"aligned": [bolt(seed, turn=15)[0] for seed in range(10)], "texture": [*texture.astype(np.uint8)]}
    told: list[str] = []
    auto = config("data.pose.kind=auto")
    found = complete(auto, gather(good[kind], auto), say=told.append)
    assert found.data.pose == KeepPose()
    assert "keeping pictures as they are" in told[0]


def test_upright_is_refused_where_no_part_stands_out() -> None:
    rng = np.random.default_rng(0)
    texture = [(128 + 30 * fbm(rng, (SIDE, SIDE), coarse=6)).astype(np.uint8) for _ in range(6)]
    asked = config("data.pose.kind=upright")
    with pytest.raises(ConfigError, match=r"data.pose: upright needs parts .* 0 of 3 pictures"):
        complete(asked, gather(texture, asked))


def test_what_is_settled_is_settled() -> None:
    words = "data.pose={kind: upright, turn: none, canvas: [0.3, 0.3, 0.3, 0.2]}"
    asked = config(words)
    good = gather([bolt(seed)[0] for seed in range(6)], asked)
    assert complete(asked, good) == asked
    assert good.shape(asked, 16) == (64, 64)
    with pytest.raises(ConfigError, match="belongs to a turn"):
        config("data.pose={kind: upright, canvas: [0.3, 0.3, 0.3, 0.2]}")
    with pytest.raises(ConfigError, match="settled by looking at the good pictures"):
        compose.upright(config("data.pose.kind=auto"))
    assert config().data.pose == KeepPose()


def test_boxes_do_not_follow_a_part_that_is_turned() -> None:
    asked = config("data.pose.kind=upright", "tokens={kind: layout}", "net.mid_attention=true")
    good = gather([bolt(seed)[0] for seed in range(6)], asked)
    with pytest.raises(ConfigError, match=r"data.pose moves the pictures, and their boxes"):
        complete(asked, good)
    auto = asked.model_copy(update={"data": asked.data.model_copy(update={"pose": AutoPose()})})
    with pytest.raises(AnodiffError, match="boxes"):  # none; the pose is settled
        complete(auto, good)


def test_a_picture_to_fill_is_refused(detector) -> None:
    image, part = bolt(3)
    with pytest.raises(RefusalError, match=r"data\.pose"):
        filled(image, part, detector.predictor, detector.config, detector.shape, device=torch.device("cpu"))


def test_a_defect_is_found_where_it_is_at_any_angle(detector) -> None:
    distances, higher = [], []
    for seed in range(100, 112):
        image, part = bolt(seed)
        rows, columns = np.nonzero(cv2.erode(part.astype(np.uint8), np.ones((5, 5))))
        chosen = np.random.default_rng(seed).integers(len(rows))
        at = int(columns[chosen]), int(rows[chosen])
        bad = cv2.circle(image.copy(), at, 4, (30, 30, 230), -1)
        good, found = detector.predict([image, bad])
        assert found.placement is not None
        assert found.heatmap.shape == (SIDE, SIDE)
        y, x = np.unravel_index(found.heatmap.argmax(), found.heatmap.shape)
        distances.append(float(np.hypot(x - at[0], y - at[1])))
        higher.append(found.score > good.score)
        assert found.regions
        assert np.isfinite(found.heatmap).all()
        assert found.heatmap.max() <= found.heat.max()
    assert np.median(distances) < 6  # a cell of the map covers 10 pixels
    assert np.mean(higher) > 0.9


def test_turning_a_picture_changes_its_score_little(detector) -> None:
    def spread(seed: int) -> tuple[float, float]:
        image, part = bolt(seed, turn=0)
        y, x = np.argwhere(part)[len(np.argwhere(part)) // 3]
        bad = cv2.circle(image.copy(), (int(x), int(y)), 4, (30, 30, 230), -1)
        scores = []
        for picture in (image, bad):
            turned = [
                cv2.warpAffine(
                    picture,
                    cv2.getRotationMatrix2D(((SIDE - 1) / 2, (SIDE - 1) / 2), angle, 1),
                    (SIDE, SIDE),
                    borderMode=cv2.BORDER_REPLICATE,
                )
                for angle in (20, 110, 200, 305)
            ]
            scores.append([result.score for result in detector.predict(turned)])
        return max(scores[0]), min(scores[1])

    worst_good, least_bad = zip(*(spread(seed) for seed in (200, 201, 202)), strict=True)
    assert max(worst_good) < min(least_bad)


def test_scores_do_not_depend_on_batch_size_order_or_form(detector) -> None:
    many = [bolt(seed)[0] for seed in range(50, 59)]
    alone = [detector.predict(picture).score for picture in many]
    for batch in (2, 9):
        together = [result.score for result in detector.predict(many[::-1], batch=batch)][::-1]
        assert together == pytest.approx(alone, rel=1e-5, abs=1e-5)
    grey = cv2.cvtColor(many[0], cv2.COLOR_BGR2GRAY)
    bgr = np.repeat(grey[..., None], 3, axis=2)
    forms = (grey, bgr, grey.astype(np.uint16) * 257, bgr.astype(np.uint16) * 257, grey / np.float32(255))
    scores = [detector.predict(form).score for form in forms]
    assert scores == pytest.approx([scores[0]] * len(forms), rel=1e-5, abs=1e-5)


def test_a_picture_without_a_part_is_scored_as_it_is(detector) -> None:
    empty = np.full((SIDE, SIDE + 20, 3), 28, np.uint8)
    result = detector.predict(empty)
    assert result.placement is None
    assert result.is_anomalous
    assert result.heatmap.shape == (SIDE, SIDE + 20)


def test_a_saved_detector_brings_parts_to_the_same_pose(detector, tmp_path: Path) -> None:
    again = anodiff.load(detector.save(tmp_path / "bolt.anodiff"), device="cpu")
    pictures = [bolt(seed)[0] for seed in range(70, 74)]
    for one, other in zip(detector.predict(pictures), again.predict(pictures), strict=True):
        assert one.score == other.score
        assert one.placement == other.placement
        assert (one.heatmap == other.heatmap).all()
    assert again.config == detector.config
    assert again.shape == detector.shape
    assert again.model_id == detector.model_id
    fresh = anodiff.Detector(config=detector.config, device="cpu").fit([bolt(seed)[0] for seed in range(24)])
    assert fresh.model_id == detector.model_id


def test_thresholds_are_counted_anew_on_parts_brought_upright(detector, tmp_path: Path) -> None:
    other = anodiff.load(detector.save(tmp_path / "bolt.anodiff"), device="cpu")
    more = [bolt(seed)[0] for seed in range(300, 310)]
    other.calibrate(more)
    assert other.threshold == pytest.approx(max(result.score for result in other.predict(more)))
    assert other.config.data.pose == detector.config.data.pose
