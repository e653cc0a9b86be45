"""The laws of the detector, on a real model of frozen features, fitted on a small set."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import anodiff
from anodiff.config import load
from anodiff.data.demo import make_demo
from anodiff.errors import ConfigError, DataError, DeviceError, ModelFileError, RefusalError

SMALL = ("data.size=64", "net.width=16", "train.steps=12", "train.warmup=2")

pytestmark = pytest.mark.xdist_group("detector")  # one fitted model is shared


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("detector")
    return make_demo(folder, categories=("gravel",), train=14, good=4, bad=8) / "gravel"


@pytest.fixture(scope="module")
def detector(part: Path) -> anodiff.Detector:
    torch.set_num_threads(1)
    config = load(preset="tiny", overrides=SMALL)
    return anodiff.Detector(config=config, device="cpu").fit(part)


@pytest.fixture(scope="module")
def frames(part: Path) -> list[np.ndarray]:
    paths = sorted((part / "test").rglob("*.png"))
    return [cv2.imread(str(path), cv2.IMREAD_COLOR) for path in paths]


def scores(results: list[anodiff.Result]) -> np.ndarray:
    return np.array([result.score for result in results])


def test_scores_do_not_depend_on_batch_size_or_order(detector, frames) -> None:
    many = (frames * 3)[:32]
    alone = scores([detector.predict(frame) for frame in many])
    for batch in (1, 7, 32):
        np.testing.assert_allclose(scores(detector.predict(many, batch=batch)), alone, rtol=1e-5, atol=1e-5)
    order = np.random.default_rng(0).permutation(len(many))
    mixed = scores(detector.predict([many[i] for i in order], batch=7))
    np.testing.assert_allclose(mixed, alone[order], rtol=1e-5, atol=1e-5)


def test_eight_threads_equal_serial(detector, frames) -> None:
    serial = scores([detector.predict(frame) for frame in frames])
    with ThreadPoolExecutor(8) as pool:
        threaded = scores(list(pool.map(detector.predict, frames)))
    np.testing.assert_allclose(threaded, serial, rtol=1e-5, atol=1e-5)


def test_inputs_are_left_as_they_were(detector, frames) -> None:
    frame = frames[0].copy()
    frame.flags.writeable = False
    detector.predict(frame)
    assert (frame == frames[0]).all()


def test_every_form_of_a_picture_scores_alike(detector, frames, tmp_path: Path) -> None:
    grey = cv2.cvtColor(frames[0], cv2.COLOR_BGR2GRAY)
    bgr = np.repeat(grey[..., None], 3, axis=2)
    cv2.imwrite(str(tmp_path / "grey.png"), grey)
    forms = {
        "grey": grey,
        "bgr": bgr,
        "grey16": grey.astype(np.uint16) * 257,
        "bgr16": bgr.astype(np.uint16) * 257,
        "float": grey.astype(np.float32) / np.float32(255),
        "one channel": grey[..., None],
        "bgra": np.dstack([bgr, np.full_like(grey, 7)]),
        "path": tmp_path / "grey.png",
        "pil": Image.fromarray(grey),
        "tensor": torch.from_numpy(grey)[None],
    }
    found = {name: detector.predict(form).score for name, form in forms.items()}
    assert found == pytest.approx(dict.fromkeys(found, found["grey"]), rel=1e-5, abs=1e-5)


def test_colours_are_blue_green_red_in_arrays_and_red_first_elsewhere(detector, tmp_path: Path) -> None:
    bgr = np.random.default_rng(0).integers(0, 255, (80, 64, 3), dtype=np.uint8)
    rgb = np.ascontiguousarray(bgr[..., ::-1])
    cv2.imwrite(str(tmp_path / "colour.png"), bgr)
    one = detector.predict(bgr).score
    for other in (tmp_path / "colour.png", Image.fromarray(rgb), torch.from_numpy(rgb).permute(2, 0, 1)):
        assert detector.predict(other).score == pytest.approx(one, rel=1e-6)
    assert detector.predict(rgb).score != pytest.approx(one, rel=1e-3)


def test_maps_and_masks_have_the_size_of_the_input(detector) -> None:
    for shape in ((50, 90), (131, 77, 3), (300, 64)):
        result = detector.predict(np.full(shape, 128, np.uint8))
        assert result.heatmap.shape == result.mask.shape == shape[:2]
        assert result.overlay().shape == (*shape[:2], 3)


def test_a_saved_detector_gives_the_same_scores(detector, frames, tmp_path: Path) -> None:
    path = detector.save(tmp_path / "part.anodiff")
    again = anodiff.load(path, device="cpu")
    assert (scores(again.predict(frames)) == scores(detector.predict(frames))).all()
    assert again.model_id == detector.model_id
    assert again.threshold == detector.threshold
    assert again.config == detector.config
    assert again.info["provenance"]["trained_on"] == 10


def test_fitting_again_gives_the_same_model_and_another_seed_another(detector, part: Path) -> None:
    again = anodiff.Detector(config=detector.config, device="cpu").fit(part)
    assert again.model_id == detector.model_id
    other = anodiff.Detector(config=load(preset="tiny", overrides=[*SMALL, "seed=1"]), device="cpu").fit(part)
    assert other.model_id != detector.model_id


def test_arrays_in_memory_can_be_fitted(part: Path) -> None:
    arrays = [cv2.imread(str(path)) for path in sorted((part / "train" / "good").glob("*.png"))]
    config = load(preset="tiny", overrides=[*SMALL, "train.steps=3"])
    found = anodiff.Detector(config=config, device="cpu").fit(arrays)
    assert np.isfinite(found.predict(arrays[0]).score)
    assert found.info["provenance"]["trained_on"] + found.info["provenance"]["held_out"] == len(arrays)


def test_calibration_on_fresh_pictures_moves_the_threshold_alone(detector, frames, part, tmp_path) -> None:
    other = anodiff.load(detector.save(tmp_path / "m.anodiff"), device="cpu")
    before = scores(other.predict(frames))
    other.calibrate(part / "test" / "good", target_fpr=0.25)
    assert (scores(other.predict(frames)) == before).all()
    assert other.info["target_fpr"] == 0.25
    assert other.threshold == pytest.approx(
        max(scores(other.predict(sorted((part / "test" / "good").glob("*")))))
    )
    with pytest.raises(ConfigError, match="held-out normals"):
        other.calibrate(part / "test" / "good", target_fpr=0.01)


def test_a_picture_that_cannot_be_read_fails_alone(detector, frames, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not a picture")
    good, bad = detector.predict([frames[0], tmp_path / "text.png"])
    assert good.error is None
    assert "text.png" in bad.error
    assert bad.is_anomalous is None
    with pytest.raises(DataError, match=r"text\.png"):
        detector.predict(tmp_path / "text.png")
    with pytest.raises(DataError, match="Expected a path"):
        detector.predict(object())


def test_what_has_no_meaning_is_refused_with_a_sentence(detector, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="learnt nothing yet"):
        anodiff.Detector(preset="tiny").predict(np.zeros((64, 64), np.uint8))
    with pytest.raises(ConfigError, match="not both"):
        anodiff.Detector(config=detector.config, image_size=32)
    with pytest.raises(RefusalError, match="takes no steps"):
        detector.with_steps(3)
    with pytest.raises(DeviceError, match="nowhere"):
        anodiff.Detector(preset="tiny", device="nowhere")
    with pytest.raises(ModelFileError, match="There is no model file"):
        anodiff.load(tmp_path / "none.anodiff")


def test_levels_the_model_would_not_have_are_told_before_a_picture_is_read(detector, tmp_path: Path) -> None:
    for words, told in (
        (
            ["score.sigmas=[0.1]"],
            "score.sigmas: 0.1 is no noise level of this model, which has those from 0.2 to 5",
        ),
        (
            ["score={kind: partial_noise, levels: [9], distances: {latent: 1.0}}"],
            "score.levels: 9 is no noise level",
        ),
    ):
        wrong = anodiff.Detector(config=load(preset="tiny", overrides=[*SMALL, *words]), device="cpu")
        with pytest.raises(ConfigError, match=told):
            wrong.fit(tmp_path / "not there")
    with pytest.raises(DataError):
        anodiff.Detector(config=detector.config, device="cpu").fit(tmp_path / "not there")


def test_a_model_without_a_discriminator_tells_of_none(detector, tmp_path: Path) -> None:
    again = anodiff.load(detector.save(tmp_path / "m.anodiff"), device="cpu")
    for one in (detector, again):
        assert (one.evaluations, one.opinions, one.alarms) == (1, 0, ())
        assert one.costs == {"evaluations_per_image": 1}
        assert "opinions_per_image" not in one.info
        assert "alarms" not in one.info["provenance"]


def test_alarms_are_kept_with_the_model(detector, tmp_path: Path) -> None:
    """What a game that went wrong says of itself is fitted in the tests of the command; here it is kept and read."""
    about = {**detector.info["provenance"], "alarms": ["it draws one thing only"]}
    found = anodiff.Detector(config=detector.config, device="cpu").adopt(
        detector.predictor, shape=detector.shape, target_fpr=0.1, about=about
    )
    again = anodiff.load(found.save(tmp_path / "m.anodiff"), device="cpu")
    assert found.alarms == again.alarms == ("it draws one thing only",)
    again.calibrate([np.zeros((64, 64), np.uint8)] * 9, target_fpr=0.2)
    assert again.alarms == found.alarms


def test_warmup_and_an_empty_list(detector) -> None:
    assert detector.warmup((64, 80, 3)) is detector
    assert detector.predict([]) == []
