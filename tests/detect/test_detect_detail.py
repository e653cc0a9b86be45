"""Detail: the coarse picture kept to the last digit, everything fine imagined anew."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from anodiff.cond import Cond
from anodiff.detect.detail import Detail
from anodiff.detect.distance import L1, Latent
from anodiff.detect.onestep import ResidualScorer
from anodiff.detect.repair import Repair
from anodiff.detect.resampled import Resampled
from anodiff.detect.residual import ResidualSquares
from anodiff.detect.restore import Inversion, OneStep, PartialNoise, Restorer
from anodiff.detect.scorer import RestorationScorer
from anodiff.diffusion.levels import Levels
from anodiff.diffusion.lowpass import low
from anodiff.errors import ConfigError, RefusalError
from anodiff.noise import PerImageNoise

RESTORERS: list[Restorer] = [
    Detail(PartialNoise((0.5,), steps=4)),
    Detail(PartialNoise((0.3, 0.9), steps=3, eta=1.0, draws=2), factor=3),
    Detail(PartialNoise((0.5,), steps=4, sampler="ddpm"), factor=2),
    Detail(PartialNoise((0.5,), steps=4, sampler="heun"), factor=5),
    Detail(PartialNoise((0.5,), steps=4, sampler="dpmpp_2m")),
    Detail(Resampled(0.5, steps=3, resamples=2)),
    Detail(OneStep(0.5, draws=2)),
    Detail(Inversion(0.5, steps=4)),
]


@pytest.mark.parametrize("restorer", RESTORERS, ids=str)
def test_means_are_kept_and_evaluations_are_as_many_as_stated(
    restorer: Detail, truth, normals, plain, unit_noise
) -> None:
    image = normals(2)
    found = restorer((truth, plain()), image, Cond(noise=unit_noise(2)))
    assert truth.calls == restorer.evaluations
    assert found.image_hat is not None
    assert (low(found.z_hat, restorer.factor) - low(found.z, restorer.factor)).abs().max() <= 1e-6
    single = restorer((truth, plain()), image[1:], Cond(noise=PerImageNoise([1])))
    torch.testing.assert_close(single.z_hat, found.z_hat[1:])


@pytest.mark.parametrize("restorer", RESTORERS, ids=str)
def test_a_defect_without_a_mean_is_forgotten_at_any_level(
    restorer: Detail, truth, normals, plain, unit_noise
) -> None:
    """A checkerboard in one cell leaves the mean of the cell, so what is imagined there is what it would be without."""
    image = normals(2)
    image = image.clamp(0.2, 0.8)
    side = restorer.factor - restorer.factor % 2
    spots = (torch.arange(side)[:, None] + torch.arange(side)[None]) % 2 * 2.0 - 1  # [side, side], mean 0
    marked = image.clone()
    marked[..., :side, :side] += 0.2 * spots
    model, noise = (truth, plain()), unit_noise
    clean, found = (restorer(model, picture, Cond(noise=noise(2))) for picture in (image, marked))
    assert (found.z - clean.z).abs().max() > 0.39
    assert (found.z_hat - clean.z_hat).abs().max() <= 1e-5
    kept = PartialNoise((0.1,), steps=4)
    before, after = (kept(model, picture, Cond(noise=noise(2))).z_hat for picture in (image, marked))
    assert ((after - before)[..., :side, :side] * spots).mean() > 0.25 * 0.4  # this one copies much of it


def test_details_are_those_of_the_law(truth, normals, plain, unit_noise) -> None:
    """Independent places: details in cells of 2 have 3/4 of the law's variance, whatever the picture's were."""
    image = low(normals(8, size=32), 2)  # a picture without any
    restorer = Detail(PartialNoise((5.0,), steps=40, sampler="heun"), factor=2)
    found = restorer((truth, plain()), image, Cond(noise=unit_noise(8)))
    details = found.z_hat - low(found.z_hat, 2)
    variance = details.square().mean((0, 2, 3))
    expected = torch.diagonal(truth.covariance).float() * 3 / 4
    torch.testing.assert_close(variance, expected, rtol=0.06, atol=0)


def test_draws_differ_in_their_details_alone(truth, normals, plain, unit_noise) -> None:
    restorer = Detail(PartialNoise((2.0,), steps=4, eta=1.0, draws=3), factor=4)
    found = restorer((truth, plain()), normals(2), Cond(noise=unit_noise(2)))
    assert found.spread is not None
    assert found.spread.mean() > 0.05
    every = restorer.estimates(truth, found.z, Cond(noise=unit_noise(2)))
    assert len(every) == 3
    assert (low(every[0], 4) - low(every[2], 4)).abs().max() <= 1e-6


@dataclass(eq=False)
class Upscaler:
    """A super-resolution model of a narrow law: x0 is what stands in `Cond.image`, and a tenth of y."""

    levels: Levels = field(default=Levels(0.01, 20.0))

    def __call__(self, y: Tensor, sigma: Tensor, cond: Cond | None = None) -> Tensor:
        assert cond is not None
        assert cond.image is not None
        return cond.image + 0.1 * (y - cond.image) / (1 + float(sigma) ** 2)


def test_a_model_that_reads_the_small_picture_is_given_it_and_not_held(normals, plain, unit_noise) -> None:
    asked: list[Tensor] = []

    def beside(image: Tensor, z: Tensor) -> Tensor:
        asked.append(image)
        assert torch.equal(z, 2 * image - 1)
        return low(z, 4) + 0.5  # a model that lifts the means: it is not held to them

    image = normals(2)
    restorer = Detail(PartialNoise((5.0,), steps=4), beside=beside)
    found = restorer((Upscaler(), plain()), image, Cond(noise=unit_noise(2)))
    assert len(asked) == 1
    assert asked[0] is image
    assert (low(found.z_hat, 4) - low(found.z, 4)).mean() == pytest.approx(0.5, abs=0.1)
    scorer = RestorationScorer(restorer, [L1(), Latent()])
    assert scorer.observe((Upscaler(), plain()), image, Cond(noise=unit_noise(2))).parts[0].mean() > 0.1
    with pytest.raises(RefusalError, match="call it with the picture"):
        ResidualScorer([restorer], ResidualSquares()).observe(
            (Upscaler(), plain()), image, Cond(noise=unit_noise(2))
        )


def test_fine_structure_stands_out_where_coarse_structure_does_not(truth, normals, plain, unit_noise) -> None:
    """A fine defect is found by its details; a cell that is wrong as a whole is another restorer's business."""
    image = normals(4).clamp(0.25, 0.75)
    spots = (torch.arange(4)[:, None] + torch.arange(4)[None]) % 2 * 2.0 - 1
    fine, coarse = image.clone(), image.clone()
    fine[..., 4:8, 4:8] += 0.25 * spots
    coarse[..., 4:8, 4:8] += 0.25
    restorer = Detail(PartialNoise((2.0,), steps=4))

    def residual(picture: Tensor) -> Tensor:
        found = restorer((truth, plain()), picture, Cond(noise=unit_noise(4)))
        return (found.z - found.z_hat).square()[..., 4:8, 4:8].mean()

    usual = residual(image)
    assert residual(fine) > 2 * usual
    assert residual(coarse) < 1.2 * usual
    repaired = Repair(PartialNoise((2.0,), steps=4), cell=4)(
        (truth, plain()), coarse, Cond(noise=unit_noise(4))
    )
    moved = (repaired.z - repaired.z_hat).square().mean((0, 1))
    assert moved[4:8, 4:8].mean() > 2 * moved[8:].mean()


def test_refusals(truth, normals, plain, unit_noise) -> None:
    model, image, cond = (truth, plain()), normals(1), Cond(noise=unit_noise(1))
    with pytest.raises(ConfigError, match="got a factor of 0"):
        Detail(PartialNoise((0.5,)), factor=0)(model, image, cond)
    with pytest.raises(RefusalError, match="PerImageNoise"):
        Detail(PartialNoise((0.5,)))(model, image, Cond())
    truth.levels = Levels(0.01, 20.0, draws=True)
    with pytest.raises(RefusalError, match=r"mean of x0.*draws x0"):
        Detail(PartialNoise((0.5,), sampler="heun"))(model, image, cond)
    assert Detail(PartialNoise((0.5,), eta=1.0))(model, image, cond).z_hat.isfinite().all()
