"""A codec taught within a fit: both forms are whole after loading, and a published one needs its folder no more."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

import anodiff
from anodiff.codec.latent import LatentCodec
from anodiff.config import RunConfig, load
from anodiff.data.parts import make_parts
from anodiff.detector import Detector
from anodiff.errors import DataError

SMALL = (
    "data.size=32",
    "data.draws=1",
    "net={width: 8, multipliers: [1], attention: [], patch: 1}",
    "family={kind: eps, schedule: {steps: 100}}",
    "train={steps: 3, batch: 4, warmup: 1, learning_rate: 0.02}",
    "score={steps: 2, distances: {l1: 1.0, latent: 1.0}}",
)
CODEC = "kind: latent, width: 8, groups: 4, critic: 4, steps: 3, batch: 4, crop: 16, perceptual: 0, codes: 16"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    torch.set_num_threads(1)
    made = make_parts(tmp_path_factory.mktemp("parts"), count=14, size=32)
    return [cv2.imread(str(path)) for path in sorted((made.parent / "images").iterdir())]


def configured(*words: str) -> RunConfig:
    return load(preset="pixels", overrides=[*SMALL, *words])


def test_the_time_of_a_fit_is_that_of_all_its_trainings(pictures: list[np.ndarray], tmp_path: Path) -> None:
    endless = CODEC.replace("steps: 3", "steps: 100000")
    config = configured(f"codec={{{endless}}}", "train.steps=100000", "train.max_time=1.5")
    Detector(config=config, device="cpu").fit(pictures[:12], folder=tmp_path)
    spent = [_seconds(tmp_path / "codec" / "metrics.csv"), _seconds(tmp_path / "metrics.csv")]
    assert min(spent) > 0.5
    assert sum(spent) < 2.5


def test_with_more_time_the_denoiser_goes_on_and_not_the_autoencoder_it_began_with(
    pictures: list[np.ndarray], tmp_path: Path
) -> None:
    endless = CODEC.replace("steps: 3", "steps: 100000")

    def fit(seconds: float, resume: str | None) -> Detector:
        words = (f"codec={{{endless}}}", "train.steps=100000", f"train.max_time={seconds}")
        return Detector(config=configured(*words), device="cpu").fit(
            pictures[:12], folder=tmp_path, resume=resume
        )

    def rows() -> tuple[int, int]:
        codec, own = (
            (tmp_path / name).read_text().count("\n") for name in ("codec/metrics.csv", "metrics.csv")
        )
        return codec, own

    first = fit(1.5, None)
    before = rows()
    again = fit(4.0, "auto")
    after = rows()
    assert after[0] == before[0]
    assert after[1] > before[1]
    for name, value in first.predictor.codec.state_dict().items():
        assert torch.equal(again.predictor.codec.state_dict()[name], value)


@pytest.mark.parametrize("form", ["kl", "vq"])
def test_a_model_of_codes_scores_alike_after_loading(
    form: str, pictures: list[np.ndarray], tmp_path: Path
) -> None:
    said: list[str] = []
    config = configured(f"codec={{{CODEC}, form: {form}}}")
    detector = Detector(config=config, device="cpu").fit(pictures[:12], folder=tmp_path, say=said.append)
    codec = detector.predictor.codec
    assert isinstance(codec, LatentCodec)
    assert not any(value.requires_grad for value in codec.parameters())
    assert [line.split(" ", 1)[0] for line in said[:2]] == ["training", "measuring"]
    assert (tmp_path / "codec" / "metrics.csv").read_text().count("\n") == 4  # names, and a row a step
    about = detector.info["provenance"]
    assert 0 < about["codec_psnr"] < 40
    assert detector.alarms  # three steps leave little of a defect
    z = torch.cat([codec.encode(_image(picture)) for picture in pictures[:12]])
    assert float(z.mean()) == pytest.approx(0, abs=0.5)
    assert float(z.std()) == pytest.approx(1, abs=0.5)
    before = [result.score for result in detector.predict(pictures)]
    loaded = anodiff.load(detector.save(tmp_path / "m.anodiff"), device="cpu")
    assert [result.score for result in loaded.predict(pictures)] == before
    assert loaded.model_id == detector.model_id
    assert len(set(before)) == len(before)
    # the same again, from the same seed
    again = Detector(config=config, device="cpu").fit(pictures[:12])
    assert again.model_id == detector.model_id


def test_a_published_autoencoder_goes_into_the_file(pictures: list[np.ndarray], tmp_path: Path) -> None:
    folder = tmp_path / "published"
    torch.manual_seed(0)
    net = AutoencoderKL(
        block_out_channels=(8, 8, 16),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
    ).eval()
    net.save_pretrained(folder, safe_serialization=True)
    said: list[str] = []
    config = configured(f"codec={{kind: latent, weights: {folder}}}")
    detector = Detector(config=config, device="cpu").fit(pictures[:12], say=said.append)
    assert not any("training the autoencoder" in line for line in said)
    codec = detector.predictor.codec
    assert codec.stride == 4
    image = _image(pictures[0])
    with torch.no_grad():
        theirs = net.encode(2 * image - 1).latent_dist.mean
        ours = codec.encode(image)
    torch.testing.assert_close((theirs - codec.shift) * codec.scale, ours, atol=1e-4, rtol=1e-4)
    before = [result.score for result in detector.predict(pictures)]
    path = detector.save(tmp_path / "m.anodiff")
    shutil.rmtree(folder)
    loaded = anodiff.load(path, device="cpu")
    assert [result.score for result in loaded.predict(pictures)] == before
    found = loaded.calibrate(pictures[:12]).predict(pictures[0]).score
    assert found == pytest.approx(before[0], rel=1e-5)  # alone now, in a batch before


def test_pictures_too_small_for_the_defects_are_told_before_anything_is_trained(
    pictures: list[np.ndarray],
) -> None:
    said: list[str] = []
    config = configured(f"codec={{{CODEC}, defect: 40}}")
    with pytest.raises(DataError, match=r"expected pictures of 40 px a side or more.*data\.size"):
        Detector(config=config, device="cpu").fit(pictures, say=said.append)
    assert said == []


def _image(picture: np.ndarray) -> torch.Tensor:
    rgb = np.ascontiguousarray(picture[..., ::-1]).astype(np.float32) / 255
    return torch.from_numpy(rgb).movedim(-1, 0)[None]


def _seconds(table: Path) -> float:
    """What a training took."""
    with table.open(newline="") as file:
        return float(list(csv.DictReader(file))[-1]["seconds"])
