"""A head beside the evidence it reads: the seam, the fusion, and whole detectors that have one."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

import anodiff
from anodiff import artefact
from anodiff.cond import Cond
from anodiff.config import load
from anodiff.data.demo import make_demo
from anodiff.data.faint import SEEN, faint
from anodiff.data.synthetic import KINDS, VISIBLE
from anodiff.detect.headed import Encoded, Headed
from anodiff.detect.onestep import ResidualScorer, one_steps
from anodiff.detect.residual import ResidualCovariance
from anodiff.detect.scorer import Fused
from anodiff.detect.surprise import Surprise
from anodiff.errors import ConfigError
from anodiff.nets.head import Head

pytestmark = pytest.mark.xdist_group("headed")  # one fitted model is shared

SMALL = ("data.size=64", "net.width=16", "train.steps=12", "train.warmup=2", "score.fuse=fisher")
HEAD = "score.head={kind: learned, painted: 120, steps: 60, width: 24, depth: 1}"


def headed(weight: float = 1.0, *, sigmas: tuple[float, ...] = (0.3, 0.6)) -> Headed:
    inner = ResidualScorer(one_steps(sigmas), ResidualCovariance(), calibration=Surprise())
    torch.manual_seed(0)
    return Headed(inner, Head(3 * (len(sigmas) + 1), width=8).eval().requires_grad_(False), weight=weight)


class Counting:
    """A codec that knows how often it was asked."""

    def __init__(self, inner) -> None:
        self.inner, self.asked = inner, 0
        self.paints, self.bounded, self.channels, self.stride = True, False, 3, 1

    def encode(self, image):
        self.asked += 1
        return self.inner.encode(image)

    def decode(self, z):
        return self.inner.decode(z)

    def shrink(self, mask):
        return self.inner.shrink(mask)


def test_the_picture_is_encoded_once_and_the_denoiser_asked_no_more_often(truth, normals, plain, unit_noise):
    image, codec = normals(2), Counting(plain())
    scorer = headed()
    bare = scorer.inner.observe((truth, codec), image, Cond(noise=unit_noise(2)))
    calls, codec.asked, truth.calls = truth.calls, 0, 0
    found = scorer.observe((truth, codec), image, Cond(noise=unit_noise(2)))
    assert codec.asked == 1
    assert truth.calls == calls == scorer.evaluations
    assert len(found.parts) == scorer.width == 3
    for own, part in zip(bare.parts, found.parts[:-1], strict=True):
        assert torch.equal(own, part)
    assert torch.equal(found.parts[-1], codec.encode(image))
    assert torch.equal(found.restored, bare.restored)
    assert scorer.evidence(found.parts).shape == (2, 9, 16, 16)


def test_its_map_is_the_mean_of_surprises_by_their_weights(truth, normals, plain, unit_noise):
    maps, inner, marks = {}, None, None
    for weight in (0.0, 0.5, 3.0):
        scorer = headed(weight)
        seen = [
            scorer.observe(
                (truth, Counting(plain())), normals(8, seed), Cond(noise=unit_noise(8, seed))
            ).parts
            for seed in range(4)
        ]
        scorer.learn(lambda seen=seen: iter(seen))
        scorer.temper(lambda seen=seen: iter(seen[:2]))
        maps[weight] = scorer.weigh(seen[0])
        inner, marks = scorer.inner.weigh(seen[0][:-1]), scorer.surprise(scorer.odds(seen[0]))
    assert torch.equal(maps[0.0], inner)
    torch.testing.assert_close(maps[0.5], (inner + 0.5 * marks) / 1.5)
    torch.testing.assert_close(maps[3.0], (inner + 3 * marks) / 4)
    assert float((marks - inner).abs().max()) > 0.5


def test_its_head_is_nobodys_part_of_it():
    scorer = headed()
    assert not [name for name in scorer.state_dict() if "enter" in name]
    assert not list(scorer.parameters())


def test_odds_end_where_a_surprise_could_not_tell_them_apart():
    class Sure(nn.Module):
        def forward(self, evidence):
            return 1e4 * evidence[:, :1]

    scorer = Headed(ResidualScorer(one_steps((0.3,)), ResidualCovariance()), Sure())
    odds = scorer.odds((torch.tensor([-1.0, 1.0]).view(1, 1, 1, 2), torch.zeros(1, 1, 1, 2)))
    assert 1e-12 < float(odds.min()) < 1e-8
    assert 1e8 < float(odds.max()) < float("inf")


def test_others_may_stand_beside_it(truth, normals, plain, unit_noise):
    scorer = Fused([headed(), ResidualScorer(one_steps((0.4,)), ResidualCovariance())])
    seen = [
        scorer.observe((truth, Counting(plain())), normals(8, seed), Cond(noise=unit_noise(8, seed))).parts
        for seed in (0, 1)
    ]
    assert len(seen[0]) == scorer.width == 4
    scorer.learn(lambda: iter(seen))
    assert scorer.weigh(seen[0]).isfinite().all()


def test_wrong_calls_are_refused(plain):
    with pytest.raises(ConfigError, match="weight of the head of 0 or above, got -1"):
        headed(-1.0)
    with pytest.raises(ConfigError, match="Expected the 2 pictures that were encoded, got 3"):
        Encoded(Counting(plain()), torch.zeros(2, 3, 4, 4)).encode(torch.zeros(3, 3, 4, 4))
    with pytest.raises(
        ConfigError, match=r"head: learned.*fuse: mean learns no such law; set fuse to agreement or fisher"
    ):
        load(preset="tiny", overrides=["score.head.kind=learned"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_faint_defect_has_an_exact_mask_and_its_seed_decides(kind):
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.random((192, 256)), (0, 0), 2)
    image = torch.from_numpy(0.5 + 2 * (noise - noise.mean())).clamp(0, 1).float()[None]
    sizes = []
    for seed in range(8):
        out, mask = faint(image, kind, seed=seed)
        changed = (out - image).abs().amax(dim=0, keepdim=True)
        assert torch.equal(changed > 0, mask)
        assert float(changed[mask].min()) > VISIBLE - 1e-6
        assert int(mask.sum()) >= SEEN
        assert torch.equal(out, faint(image, kind, seed=seed)[0])
        sizes.append(int(mask.sum()))
    assert max(sizes) > 2 * min(sizes)


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return (
        make_demo(tmp_path_factory.mktemp("headed"), categories=("brick",), train=30, good=4, bad=8) / "brick"
    )


def fitted(part: Path, *words: str, say=lambda text: None) -> anodiff.Detector:
    torch.set_num_threads(1)
    config = load(preset="tiny", overrides=[*SMALL, *words])
    return anodiff.Detector(config=config, device="cpu").fit(part, say=say)


@pytest.fixture(scope="module")
def said() -> list[str]:
    return []


@pytest.fixture(scope="module")
def detector(part: Path, said: list[str]) -> anodiff.Detector:
    return fitted(part, HEAD, say=said.append)


@pytest.fixture(scope="module")
def frames(part: Path) -> list[np.ndarray]:
    return [cv2.imread(str(path), cv2.IMREAD_COLOR) for path in sorted((part / "test").rglob("*.png"))]


def test_it_finds_painted_defects_on_pictures_that_no_network_saw(detector, said, tmp_path) -> None:
    saved = artefact.read_header(detector.save(tmp_path / "part.anodiff"))
    about = saved["provenance"]["head"]
    assert (about["pictures"], about["steps"]) == (120, 60)
    assert set(about["place_auroc"]) == set(about["image_auroc"]) == set(KINDS)
    assert np.mean(list(about["place_auroc"].values())) > 0.75
    assert np.mean(list(about["image_auroc"].values())) > 0.65
    assert saved["evaluations_per_image"] == 1
    assert any(text.startswith("AUROC of the head for painted defects on") for text in said)
    assert any("painting defects on good pictures" in text and "120 pictures" in text for text in said)


def test_a_loaded_detector_gives_the_same_scores(detector, frames, tmp_path) -> None:
    again = anodiff.load(detector.save(tmp_path / "part.anodiff"), device="cpu")
    for one, other in zip(detector.predict(frames[:5]), again.predict(frames[:5]), strict=True):
        assert one.score == other.score
        assert np.array_equal(one.heatmap, other.heatmap)
    assert again.model_id == detector.model_id


def test_a_row_depends_on_nothing_but_itself(detector, frames) -> None:
    alone = [detector.predict(frame).score for frame in frames]
    for batch in (3, len(frames)):
        many = [result.score for result in detector.predict(frames[::-1], batch=batch)]
        np.testing.assert_allclose(many[::-1], alone, rtol=1e-5, atol=1e-5)


def test_the_same_fit_gives_the_same_head_and_no_weight_gives_what_was_without(
    part, detector, frames
) -> None:
    again = fitted(part, HEAD, "score.head.weight=0")
    bare = fitted(part)
    assert detector.predictor.head is not None
    for name, value in detector.predictor.head.state_dict().items():
        assert torch.equal(value, again.predictor.head.state_dict()[name]), name
    assert bare.predictor.head is None
    assert not [name for name in bare.predictor.state_dict() if "head" in name or "inner" in name]
    scores = {d: [r.score for r in d.predict(frames)] for d in (detector, again, bare)}
    assert scores[again] == scores[bare]
    assert not np.allclose(scores[detector], scores[bare], rtol=1e-2)
