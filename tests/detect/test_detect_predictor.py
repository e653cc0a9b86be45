from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from anodiff.codec.pixel import PixelCodec
from anodiff.cond import Cond
from anodiff.detect import teaching
from anodiff.detect.calibrate import GlobalCalibration, PositionCalibration
from anodiff.detect.content import coarse_seed
from anodiff.detect.distance import L1, SSIM
from anodiff.detect.heatmap import Smooth, array_to_size
from anodiff.detect.onestep import ResidualScorer, one_steps
from anodiff.detect.pool import Maximum, TopShare
from anodiff.detect.predictor import Predictor
from anodiff.detect.residual import ResidualCovariance
from anodiff.detect.restore import PartialNoise
from anodiff.detect.scorer import RestorationScorer
from anodiff.detect.threshold import Conformal, Quantile
from anodiff.diffusion.denoiser import KarrasDenoiser
from anodiff.diffusion.guidance import Clamp
from anodiff.errors import ConfigError, DataError, RefusalError
from anodiff.nets.unet import UNet


def pictures(count: int, seed: int, size: int = 32) -> Tensor:
    """Smooth stripes of random phase, with a little noise."""
    generator = torch.Generator().manual_seed(seed)
    phase = torch.rand(count, 1, 1, 1, generator=generator)
    ramp = torch.arange(size) / 8
    image = 0.5 + 0.3 * torch.sin(2 * torch.pi * (ramp[None, None, None, :] + phase))
    return (image + 0.03 * torch.randn(count, 3, size, size, generator=generator)).clamp(0, 1)


@pytest.fixture(scope="module")
def denoiser() -> KarrasDenoiser:
    """A small U-Net, trained for a moment."""
    torch.manual_seed(0)
    net = UNet(
        in_channels=3, out_channels=3, width=16, multipliers=(1, 2), blocks=1, attention=(), dropout=0.1
    )
    model = KarrasDenoiser(net, std=0.4, low=0.02, high=5.0)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    z = 2 * pictures(64, seed=0) - 1
    for _ in range(40):
        x0 = z[torch.randint(64, (8,))]
        sigma = torch.empty(8).uniform_(-3, 0.5).exp()
        y = x0 + sigma[:, None, None, None] * torch.randn_like(x0)
        loss = (
            (model(y, sigma) - x0).square().mean((1, 2, 3)) * (sigma**2 + 0.16) / (0.4 * sigma) ** 2
        ).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model


def one_step(denoiser: KarrasDenoiser, **changes) -> Predictor:
    settings = {
        "smooth": Smooth(1.0),
        "calibration": PositionCalibration(),
        "pool": TopShare(0.02),
        "threshold": Conformal(0.1),
        "mask_threshold": Conformal(0.1),
        "seed": 3,
    }
    return Predictor(
        PixelCodec(3),
        copy.deepcopy(denoiser),
        ResidualScorer(one_steps((0.2, 0.5)), ResidualCovariance()),
        **(settings | changes),
    )


def restoring(denoiser: KarrasDenoiser, **changes) -> Predictor:
    settings = {
        "smooth": Smooth(1.0),
        "calibration": GlobalCalibration(),
        "pool": Maximum(),
        "threshold": Quantile(0.9),
        "mask_threshold": Quantile(0.9),
        "seed": 3,
        "wrap": Clamp,
    }
    scorer = RestorationScorer(PartialNoise((0.5,), steps=3, eta=1.0), [L1(), SSIM()])
    return Predictor(PixelCodec(3), copy.deepcopy(denoiser), scorer, **(settings | changes))


BUILDERS = [one_step, restoring]


@pytest.fixture(scope="module", params=BUILDERS, ids=lambda b: b.__name__)
def predictor(request: pytest.FixtureRequest, denoiser: KarrasDenoiser) -> Predictor:
    found = request.param(denoiser)
    teaching.learn(found, lambda: pictures(24, seed=1).split(5), lambda: pictures(24, seed=51).split(5))
    return found


def test_scores_do_not_depend_on_batch_size_or_order(predictor: Predictor) -> None:
    image = pictures(32, seed=2)
    image[5, :, 10:16, 10:16] = 0.0
    whole = predictor(image)
    for size in (1, 7):
        parts = [predictor(batch) for batch in image.split(size)]
        torch.testing.assert_close(torch.cat([p.score for p in parts]), whole.score, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(torch.cat([p.heat for p in parts]), whole.heat, rtol=1e-5, atol=2e-5)
    order = torch.randperm(32, generator=torch.Generator().manual_seed(0))
    mixed = predictor(image[order])
    torch.testing.assert_close(mixed.score, whole.score[order], rtol=1e-5, atol=1e-5)
    assert torch.equal(mixed.p_value, whole.p_value[order])


def test_the_same_picture_scores_the_same_twice_and_is_left_as_it_was(predictor: Predictor) -> None:
    image = pictures(3, seed=4)
    kept = image.clone()
    state = torch.random.get_rng_state()
    first, second = predictor(image), predictor(image)
    assert torch.equal(first.score, second.score)
    assert torch.equal(first.heat, second.heat)
    assert torch.equal(image, kept)
    assert torch.equal(torch.random.get_rng_state(), state)  # the global generator is nobody's business


def test_eight_threads_equal_one(predictor: Predictor) -> None:
    batches = pictures(16, seed=5).split(2)
    serial = [predictor(batch).score for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        threaded = list(pool.map(lambda batch: predictor(batch).score, batches))
    torch.testing.assert_close(torch.cat(threaded), torch.cat(serial), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("build", BUILDERS)
def test_the_state_is_the_whole_model(build, denoiser: KarrasDenoiser) -> None:
    learnt = build(denoiser)
    teaching.learn(learnt, lambda: pictures(12, seed=1).split(5), lambda: pictures(12, seed=51).split(5))
    fresh = build(denoiser)
    for parameter in fresh.parameters():
        torch.nn.init.zeros_(parameter)
    state = {name: value.clone() for name, value in learnt.state_dict().items()}
    fresh.load_state_dict(state)
    image = pictures(4, seed=6)
    one, two = learnt(image), fresh(image)
    assert torch.equal(one.score, two.score)
    assert torch.equal(one.p_value, two.p_value)
    assert fresh.threshold.value == learnt.threshold.value
    assert fresh.mask_threshold.value == learnt.mask_threshold.value


def test_a_defect_is_found_where_it_is(predictor: Predictor) -> None:
    image = pictures(8, seed=7)
    checks = torch.arange(8)[:, None] // 2 + torch.arange(8) // 2
    image[:4, :, 12:20, 12:20] = (checks % 2).float()  # edges across the stripes
    found = predictor(image)
    assert found.score[:4].min() > found.score[4:].max()
    assert found.p_value[:4].mean() <= 0.1 < found.p_value[4:].mean()
    peak = found.heat[:4, 0].flatten(1).argmax(1)
    y, x = peak // found.heat.shape[-1], peak % found.heat.shape[-1]
    assert ((y >= 10) & (y < 22) & (x >= 10) & (x < 22)).all()


def test_the_restoration_is_a_picture(predictor: Predictor) -> None:
    found = predictor(pictures(2, seed=7))
    assert found.restored is not None
    assert found.restored.shape == (2, 3, 32, 32)
    assert 0 <= found.restored.min() <= found.restored.max() <= 1


def test_normals_alarm_at_the_stated_rate_and_show_no_region_then(denoiser: KarrasDenoiser) -> None:
    """Thresholds come from scores that the normals would get as strangers, not from their own fit."""
    alarms, shown, seen = 0, 0, 0
    for seed in range(3):
        predictor = one_step(denoiser)
        teaching.learn(
            predictor,
            lambda seed=seed: pictures(19, seed=10 + seed).split(10),
            lambda seed=seed: pictures(19, seed=50 + seed).split(10),
        )
        found = predictor(pictures(60, seed=100 + seed))
        alarms += int((found.score > predictor.threshold.value).sum())
        calm = found.heat.amax((1, 2, 3)) <= predictor.mask_threshold.value
        shown += int((~calm).sum())
        seen += len(found.score)
        for heat in found.heat[calm][:5]:
            assert (
                array_to_size(heat[0].numpy(), (77, 131)) > predictor.mask_threshold.value * (1 + 1e-6)
            ).sum() == 0
    assert (
        alarms / seen <= 0.1 + 3 * (0.1 * 0.9 / 57) ** 0.5
    )  # the spread is that of the 57 normals learnt from
    assert shown / seen <= 0.1 + 3 * (0.1 * 0.9 / 57) ** 0.5


def test_calibrating_with_fresh_normals_changes_the_thresholds_only(denoiser: KarrasDenoiser) -> None:
    predictor = one_step(denoiser)
    teaching.learn(predictor, lambda: pictures(12, seed=1).split(5), lambda: pictures(12, seed=51).split(5))
    image = pictures(3, seed=8)
    before, threshold = predictor(image), predictor.threshold.value
    teaching.calibrate(predictor, lambda: pictures(30, seed=9).split(8))
    assert torch.equal(predictor(image).score, before.score)
    assert len(predictor.threshold.normals) == 30
    assert predictor.threshold.value != threshold


def test_what_a_scorer_learns_does_not_depend_on_the_memory_given(denoiser: KarrasDenoiser) -> None:
    """Without memory for observations only the final calibration differs: there are no maps by what others taught."""
    kept, remade = (
        one_step(denoiser, memory=m, threshold=Quantile(), mask_threshold=Quantile()) for m in (2**30, 0)
    )
    for predictor in (kept, remade):
        teaching.learn(
            predictor, lambda: pictures(20, seed=1).split(3), lambda: pictures(5, seed=51).split(3)
        )
    for name, value in kept.scorer.state_dict().items():
        torch.testing.assert_close(remade.scorer.state_dict()[name], value, rtol=1e-6, atol=1e-6)
    score, again = kept(pictures(9, seed=3)).score, remade(pictures(9, seed=3)).score
    assert torch.corrcoef(torch.stack([score, again]))[0, 1] > 0.9


def test_the_unit_of_a_score_is_that_of_pictures_that_did_not_teach(denoiser: KarrasDenoiser) -> None:
    """Few pictures in many channels are learnt by heart: their own maps hardly vary, those of others do."""

    class Code(PixelCodec):
        def encode(self, image: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.pixel_unshuffle(super().encode(image), 4)  # [B, 48, h / 4, w / 4]

    predictor = Predictor(
        Code(3),
        copy.deepcopy(denoiser),
        ResidualScorer(one_steps((0.0,)), ResidualCovariance(shrinkage=0.0)),
        smooth=Smooth(0.0),
        calibration=GlobalCalibration(),
        pool=Maximum(),
        threshold=Conformal(0.2),
        mask_threshold=Conformal(0.2),
    )
    teaching.learn(
        predictor,
        lambda: pictures(6, seed=1, size=16).split(3),
        lambda: pictures(9, seed=51, size=16).split(3),
    )
    heat = predictor(pictures(40, seed=3, size=16)).heat
    crossed = float(heat.std())
    assert 0.2 < crossed < 3
    teaching.teach(predictor, predictor.observed(lambda: pictures(6, seed=1, size=16).split(3)))
    assert float(predictor(pictures(40, seed=3, size=16)).heat.std()) > 3 * crossed


def test_noise_is_keyed_by_what_the_picture_shows() -> None:
    image = pictures(1, seed=1)[0]
    assert coarse_seed(image, 0) == coarse_seed(image + 1e-6, 0)
    assert coarse_seed(image, 0) != coarse_seed(image, 1)
    assert coarse_seed(image, 0) != coarse_seed(pictures(1, seed=2)[0] * 0.9, 0)
    flat = torch.full((3, 8, 8), 0.5)  # 127.5 of 255: half way between two values
    assert coarse_seed(flat, 0) == coarse_seed(flat + 1e-7, 0) == coarse_seed(flat - 1e-7, 0)
    grey = image.mean(0, keepdim=True)
    assert coarse_seed(grey, 0) == coarse_seed(grey.expand(3, -1, -1), 0)


def test_another_seed_is_another_noise(denoiser: KarrasDenoiser) -> None:
    scores = []
    for seed in (1, 2):
        predictor = one_step(denoiser, seed=seed)
        teaching.learn(
            predictor, lambda: pictures(12, seed=1).split(5), lambda: pictures(12, seed=51).split(5)
        )
        scores.append(predictor(pictures(2, seed=3)).score)
    assert not torch.allclose(scores[0], scores[1], rtol=1e-4)


def test_one_normal_is_a_defined_case(denoiser: KarrasDenoiser) -> None:
    predictor = one_step(denoiser, threshold=Quantile(0.9), mask_threshold=Quantile(0.9))
    teaching.learn(predictor, lambda: [pictures(1, seed=1)], lambda: [pictures(1, seed=51)])
    assert torch.isfinite(predictor(pictures(2, seed=2)).score).all()
    strict = one_step(denoiser, threshold=Conformal(0.1))
    with pytest.raises(ConfigError, match="at least 9 held-out normals and there are 1"):
        teaching.learn(strict, lambda: [pictures(1, seed=1)], lambda: [pictures(1, seed=51)])


def test_refusals(denoiser: KarrasDenoiser) -> None:
    predictor = one_step(denoiser)
    with pytest.raises(ConfigError, match="learnt nothing"):
        predictor(pictures(1, seed=1))
    with pytest.raises(DataError, match="none"):
        teaching.learn(predictor, list, list)
    broken = one_step(denoiser)
    next(broken.denoiser.parameters()).data.fill_(torch.nan)
    with pytest.raises(DataError, match="learning_rate"):
        teaching.learn(broken, lambda: [pictures(3, seed=1)], lambda: [pictures(3, seed=51)])
    with pytest.raises(RefusalError, match="PerImageNoise"):
        predictor.scorer.observe((denoiser, predictor.codec), pictures(1, seed=1), Cond())


def test_guidance_may_take_gradients_while_scoring(denoiser: KarrasDenoiser) -> None:
    from anodiff.diffusion.guidance import Guide

    def darker(y: Tensor, sigma: Tensor, cond: Cond | None) -> Tensor:
        return -y.sum((1, 2, 3))

    plain, guided = restoring(denoiser), restoring(denoiser, wrap=lambda d: Guide(d, darker, 0.5))
    for predictor in (plain, guided):
        teaching.learn(
            predictor, lambda: pictures(12, seed=1).split(6), lambda: pictures(12, seed=51).split(6)
        )
    image = pictures(1, seed=2)
    one, two = plain(image).restored, guided(image).restored
    assert one is not None
    assert two is not None
    assert two.mean() < one.mean() - 0.01
