from __future__ import annotations

import pytest
import torch

from anodiff.cond import Cond
from anodiff.detect.calibrate import PositionCalibration
from anodiff.detect.distance import L1, SSIM, Latent
from anodiff.detect.onestep import ResidualScorer, one_steps
from anodiff.detect.residual import ResidualCovariance, ResidualSquares
from anodiff.detect.restore import Inversion, OneStep, PartialNoise
from anodiff.detect.scorer import BoundScorer, Fused, RestorationScorer, Scorer
from anodiff.diffusion.levels import Levels
from anodiff.errors import ConfigError, RefusalError


def every_scorer() -> list[Scorer]:
    return [
        ResidualScorer(one_steps((0.2, 0.6), draws=2), ResidualCovariance()),
        ResidualScorer([PartialNoise((0.5,), steps=3), Inversion(0.5, 3)], ResidualSquares()),
        RestorationScorer(PartialNoise((0.5,), steps=3), [L1(), SSIM(7)], weights=(2, 1)),
        BoundScorer(1.0, 4),
        BoundScorer(1.0, 4, bins=256),
        Fused(
            [ResidualScorer(one_steps((0.3,)), ResidualCovariance()), RestorationScorer(OneStep(0.5), [L1()])]
        ),
        Fused(
            [BoundScorer(1.0, 3), ResidualScorer(one_steps((0.3,)), ResidualCovariance())],
            calibration=PositionCalibration(),
        ),
    ]


def teach(scorer: Scorer, model, image: torch.Tensor, noise) -> None:
    parts = [
        scorer.observe(model, batch, Cond(noise=noise(len(batch), i))).parts
        for i, batch in enumerate(image.split(8))
    ]
    scorer.learn(lambda: iter(parts))


@pytest.mark.parametrize("index", range(len(every_scorer())))
def test_every_scorer_counts_its_evaluations_and_finds_the_spot(
    index, truth, normals, plain, unit_noise
) -> None:
    scorer, model = every_scorer()[index], (truth, plain())
    teach(scorer, model, normals(24, seed=1), unit_noise)
    image = normals(3, seed=2)
    image[1, :, 6:10, 6:10] = torch.tensor([0.9, 0.1, 0.2])[:, None, None]
    truth.calls = 0
    found = scorer(model, image, Cond(noise=unit_noise(3, 99)))
    assert truth.calls == scorer.evaluations
    assert found.shape == (3, 1, 16, 16)
    assert found[1, 0, 6:10, 6:10].mean() > found[1, 0, 12:].mean() + 2 * found[[0, 2]].std()
    assert len(scorer.observe(model, image, Cond(noise=unit_noise(3, 99))).parts) == scorer.width
    again = scorer(model, image, Cond(noise=unit_noise(3, 99)))
    assert torch.equal(found, again)


def test_the_one_step_mahalanobis_error_ranks_a_broken_correlation_first(
    truth, normals, plain, unit_noise
) -> None:
    """Channels 0 and 1 move together on normals; a place where they part lies within each channel's own spread."""
    model = (truth, plain())
    image = normals(2, seed=2)
    mean = truth.mean.float()
    odd = mean + torch.tensor([0.25, -0.25, 0.0])  # 1.1 deviations in each channel, 3.5 in their difference
    image[0, :, 8, 8] = (odd + 1) / 2
    rank = {}
    for weigh in (ResidualCovariance(), ResidualSquares()):
        scorer = ResidualScorer(one_steps((0.3,), draws=2), weigh)
        teach(scorer, model, normals(40, seed=1), unit_noise)
        found = scorer(model, image, Cond(noise=unit_noise(2, 7)))
        rank[type(weigh)] = int((found > found[0, 0, 8, 8]).sum())
    assert rank[ResidualCovariance] <= 2  # of 512 places
    assert rank[ResidualSquares] > rank[ResidualCovariance]


def test_residual_map_has_the_law_that_theory_gives(truth, normals, plain, unit_noise) -> None:
    """With both noise signs r = (I - G)(z - m) exactly, so |W r|^2 / c averages 1 on normals and is |z - m|^2_S / c."""
    scorer = ResidualScorer(one_steps((0.4,), draws=2), ResidualCovariance(shrinkage=0.0, floor=0.0))
    model = (truth, plain())
    image = normals(60, seed=1).clamp(0.001, 0.999)
    teach(scorer, model, image, unit_noise)
    parts = scorer.observe(model, image[:4], Cond(noise=unit_noise(4, 3))).parts
    found = scorer.weighers[0](parts[0])
    z = 2 * image[:4] - 1
    centred = z - truth.mean.float()[:, None, None]
    precision = torch.linalg.inv(truth.covariance).float()
    expected = torch.einsum("bihw,ij,bjhw->bhw", centred, precision, centred)[:, None] / 3
    assert torch.corrcoef(torch.stack([found.flatten(), expected.flatten()]))[0, 1] > 0.995
    assert found.mean() == pytest.approx(1, abs=0.05)


def test_several_levels_are_calibrated_before_they_are_added(truth, normals, plain, unit_noise) -> None:
    scorer = ResidualScorer(one_steps((0.05, 5.0)), ResidualSquares())  # residuals of very different size
    model = (truth, plain())
    teach(scorer, model, normals(40, seed=1), unit_noise)
    parts = scorer.observe(model, normals(20, seed=2), Cond(noise=unit_noise(20, 3))).parts
    raw = [float(w(p).std()) for w, p in zip(scorer.weighers, parts, strict=True)]
    assert raw[1] > 20 * raw[0]
    calibrated = [
        float(c(w(p)).std())
        for c, w, p in zip(scorer.blend.calibrations, scorer.weighers, parts, strict=True)
    ]
    assert calibrated == pytest.approx([1, 1], abs=0.15)


def test_weights_are_normalised_and_checked() -> None:
    with pytest.raises(ConfigError, match="2 weights"):
        RestorationScorer(OneStep(0.5), [L1(), Latent()], weights=(1,))
    with pytest.raises(ConfigError, match="negative"):
        RestorationScorer(OneStep(0.5), [L1(), Latent()], weights=(1, -1))
    for build in (
        lambda: RestorationScorer(OneStep(0.5), []),
        lambda: Fused([]),
        lambda: ResidualScorer(one_steps(()), ResidualSquares()),
    ):
        with pytest.raises(ConfigError, match="at least one"):
            build()


def test_the_bound_refuses_a_denoiser_that_draws(truth, normals, plain, unit_noise) -> None:
    truth.levels = Levels(0.01, 20.0, draws=True)
    with pytest.raises(RefusalError, match="draws"):
        BoundScorer(1.0, 3)((truth, plain()), normals(1), Cond(noise=unit_noise(1)))


def test_states_load_into_fresh_scorers(truth, normals, plain, unit_noise) -> None:
    model, image = (truth, plain()), normals(2, seed=5)
    for learnt, fresh in zip(every_scorer(), every_scorer(), strict=True):
        teach(learnt, model, normals(16, seed=1), unit_noise)
        fresh.load_state_dict(learnt.state_dict())
        cond = lambda: Cond(noise=unit_noise(2, 9))  # noqa: E731
        assert torch.equal(learnt(model, image, cond()), fresh(model, image, cond()))
