from __future__ import annotations

import pytest
import torch
from torch import Tensor

from anodiff.cond import Cond
from anodiff.detect.restore import Inversion, OneStep, PartialNoise, Pulled, Restorer
from anodiff.diffusion.guidance import Clamp
from anodiff.diffusion.levels import Levels
from anodiff.diffusion.schedule import table
from anodiff.errors import ConfigError, RefusalError

RESTORERS: list[Restorer] = [
    PartialNoise((0.5,), steps=4),
    PartialNoise((0.3, 0.9), steps=3, eta=1.0, draws=2),
    PartialNoise((0.5,), steps=5, sampler="heun"),
    PartialNoise((0.5,), steps=5, sampler="dpmpp_2m"),
    OneStep(0.5),
    OneStep(0.5, draws=3),
    Inversion(0.5, steps=6),
    Pulled(PartialNoise((0.5,), steps=4), 0.5),
]


@pytest.mark.parametrize("restorer", RESTORERS, ids=str)
def test_evaluations_are_as_many_as_stated(restorer: Restorer, truth, normals, plain, unit_noise) -> None:
    restoration = restorer((truth, plain()), normals(2), Cond(noise=unit_noise(2)))
    assert truth.calls == restorer.evaluations
    assert restoration.z_hat.shape == restoration.z.shape == (2, 3, 16, 16)
    assert restoration.image_hat is not None
    assert 0 <= restoration.image_hat.min() <= restoration.image_hat.max() <= 1


@pytest.mark.parametrize("restorer", RESTORERS, ids=str)
def test_a_row_depends_on_itself_alone(restorer: Restorer, truth, normals, plain) -> None:
    from anodiff.noise import PerImageNoise

    image = normals(4)
    every = restorer((truth, plain()), image, Cond(noise=PerImageNoise([1, 2, 3, 4])))
    single = restorer((truth, plain()), image[2:3], Cond(noise=PerImageNoise([3])))
    torch.testing.assert_close(single.z_hat, every.z_hat[2:3])


def test_what_is_not_normal_is_moved_most(truth, normals, plain, unit_noise) -> None:
    image = normals(2)
    image[:, :, 6:9, 6:9] = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
    for restorer in RESTORERS:
        restoration = restorer((truth, plain()), image, Cond(noise=unit_noise(2)))
        moved = (restoration.z - restoration.z_hat).square().mean(1)  # [B, h, w]
        spot = moved[:, 6:9, 6:9].mean()
        if not isinstance(restorer, Inversion):
            assert spot > 2 * moved[:, 12:].mean(), restorer


def test_both_signs_of_the_noise_leave_the_exact_mean_of_a_linear_denoiser(
    truth, normals, plain, unit_noise
) -> None:
    image = normals(2)
    found = OneStep(0.5, draws=2)((truth, plain()), image, Cond(noise=unit_noise(2)))
    mean = truth.mean.float()[:, None, None]
    expected = mean + torch.einsum("ij,bjhw->bihw", truth.gain(0.5).float(), found.z - mean)
    torch.testing.assert_close(found.z_hat, expected, atol=1e-6, rtol=1e-5)


class Recorder:
    """Notes every level at which it is asked, and the first y."""

    def __init__(self, levels: Levels) -> None:
        self.levels = levels
        self.asked: list[float] = []
        self.first: Tensor | None = None

    def __call__(self, y: Tensor, sigma: Tensor, cond: Cond | None = None) -> Tensor:
        self.asked.append(float(sigma))
        self.first = y if self.first is None else self.first
        return torch.zeros_like(y)


@pytest.mark.parametrize("level", [0.2, 0.5, 3.0])
@pytest.mark.parametrize("restorer", [PartialNoise, OneStep], ids=lambda r: r.__name__)
def test_the_start_lies_on_the_first_level_that_is_visited(level: float, restorer, plain) -> None:
    grid = table("linear")
    recorder = Recorder(Levels(float(grid[0]), float(grid[-1]), grid))
    chosen = PartialNoise((level,), steps=7) if restorer is PartialNoise else OneStep(level)
    image = torch.full((1, 3, 4, 4), 0.5)  # z = 0
    chosen((recorder, plain()), image, Cond(noise=torch.ones_like))
    assert recorder.first is not None
    assert recorder.first[0, 0, 0, 0] == pytest.approx(
        recorder.asked[0], rel=1e-6
    )  # noised to what is denoised first
    assert min(abs(recorder.asked[0] - grid)) < 1e-12
    assert recorder.asked[0] == pytest.approx(level, rel=0.02)


def test_invert_and_return_halves_its_error_when_steps_double(truth, normals, plain) -> None:
    image = normals(1)
    errors = []
    for steps in (20, 40, 80):
        restoration = Inversion(2.0, steps)((truth, plain()), image, Cond())
        errors.append(float((restoration.z - restoration.z_hat).abs().mean()))
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.5)
    assert errors[1] / errors[2] == pytest.approx(2, abs=0.5)


def test_draws_and_levels_are_averaged(truth, normals, plain, unit_noise) -> None:
    image = normals(1)

    def spread(draws: int) -> float:
        found = [
            PartialNoise((1.0,), steps=3, eta=1.0, draws=draws)(
                (truth, plain()), image, Cond(noise=unit_noise(1, seed))
            ).z_hat
            for seed in range(20)
        ]
        return float(torch.stack(found).std(0).mean())

    assert spread(4) == pytest.approx(spread(1) / 2, rel=0.2)


def test_a_pull_keeps_the_restoration_nearer_to_the_picture(truth, normals, plain, unit_noise) -> None:
    image = normals(2)
    far = []
    for weight in (0.0, 0.5, 1.0):
        restorer = Pulled(PartialNoise((2.0,), steps=4), weight)
        restoration = restorer((truth, plain()), image, Cond(noise=unit_noise(2)))
        far.append(float((restoration.z - restoration.z_hat).square().mean()))
    assert far[0] > far[1] > far[2]


def test_only_the_painted_picture_is_clamped(truth, plain, unit_noise) -> None:
    truth.mean = torch.tensor([5.0, 5.0, 5.0], dtype=torch.float64)  # features know no range
    image = torch.rand(1, 3, 4, 4)
    features = OneStep(1.0)((truth, plain(paints=False)), image, Cond(noise=unit_noise(1)))
    assert features.z_hat.mean() > 3
    assert features.image_hat is None
    painted = OneStep(1.0)((truth, plain()), image, Cond(noise=unit_noise(1)))
    assert painted.z_hat.mean() > 3
    assert painted.image_hat is not None
    assert painted.image_hat.max() == 1
    clamped = OneStep(1.0)((Clamp(truth), plain()), image, Cond(noise=unit_noise(1)))
    assert clamped.z_hat.max() <= 1


def test_refusals(truth, normals, plain, unit_noise) -> None:
    model, image, cond = (truth, plain()), normals(1), Cond(noise=unit_noise(1))
    with pytest.raises(RefusalError, match="PerImageNoise"):
        PartialNoise((0.5,))(model, image, Cond())
    with pytest.raises(RefusalError, match="eta"):
        PartialNoise((0.5,), sampler="heun", eta=0.5)(model, image, cond)
    with pytest.raises(ConfigError, match="sampler"):
        PartialNoise((0.5,), sampler="euler")(model, image, cond)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="level"):
        PartialNoise(())(model, image, cond)
    truth.levels = Levels(0.01, 20.0, draws=True)
    with pytest.raises(RefusalError, match="draws"):
        Inversion(0.5)(model, image, Cond())
    with pytest.raises(RefusalError, match="draws"):
        PartialNoise((0.5,), sampler="dpmpp_2m")(model, image, cond)
    assert OneStep(0.5)(model, image, cond).z_hat.shape == (1, 3, 16, 16)
