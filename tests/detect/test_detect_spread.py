"""Where restorations disagree: against the known law of a generator, and only where there are several."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from anodiff.codec.pixel import PixelCodec
from anodiff.cond import Cond
from anodiff.detect.distance import L1, Latent, Spread
from anodiff.detect.restore import Inversion, OneStep, PartialNoise, Pulled, Restorer
from anodiff.detect.scorer import RestorationScorer
from anodiff.detect.steering import Steering
from anodiff.diffusion.gan import DDGANDenoiser
from anodiff.diffusion.schedule import table
from anodiff.errors import ConfigError
from anodiff.noise import PerImageNoise

CHAIN = table("vp", 8)
SIDE = 8


def unsure(channels: int, side: int) -> Tensor:
    """The deviation [channels, side, side] of what is drawn: .05, but .3 in a spot and half of it in odd channels."""
    std = torch.full((channels, side, side), 0.05)
    std[:, 2:4, 2:4] = 0.3
    std[1::2] /= 2
    return std


def generator(channels: int, side: int = SIDE) -> DDGANDenoiser:
    """Draws x0 ~ N(.1, unsure^2) whatever y is: one number of the latent a value."""
    std = unsure(channels, side)

    def net(x_t: Tensor, t: Tensor, w: Tensor, cond: Cond | None) -> Tensor:
        return 0.1 + std * w.reshape(-1, channels, side, side)

    return DDGANDenoiser(net, CHAIN, latent=std.numel())


def picture(count: int = 2, channels: int = 2, side: int = SIDE) -> Tensor:
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(0))


def noise(*seeds: int) -> Cond:
    return Cond(noise=PerImageNoise(seeds))


@pytest.mark.parametrize("restorer", [PartialNoise((0.95,), 2, eta=1.0, draws=400), OneStep(0.95, draws=400)])
@torch.no_grad()
def test_the_map_is_the_deviation_the_generator_draws_with(plain, restorer: Restorer) -> None:
    """400 draws tell a deviation to 1 / sqrt(800) = 3.5 %; the worst of 64 places to four times that."""
    restoration = restorer((generator(2), plain(channels=2)), picture(1), noise(5))
    found = Spread()(restoration)
    assert found.shape == (1, 1, SIDE, SIDE)
    expected = unsure(2, SIDE).square().mean(0).sqrt()
    torch.testing.assert_close(found[0, 0], expected, rtol=0.15, atol=0)
    assert float((found[0, 0] / expected).mean()) == pytest.approx(1, abs=0.02)
    assert float(restoration.z_hat.mean()) == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize(
    "restorer",
    [
        PartialNoise((0.95,), 2, eta=1.0, draws=3),
        PartialNoise((0.45, 0.95, 3.4), 1),
        PartialNoise((0.95, 1.8), 2, draws=2),
        OneStep(0.95, draws=2),
        Pulled(PartialNoise((0.95,), 2, draws=3), 0.5),
    ],
    ids=["draws", "levels", "levels and draws", "antithetic", "pulled"],
)
@torch.no_grad()
def test_mean_and_spread_are_those_of_the_estimates(plain, restorer: Restorer) -> None:
    model, image = (generator(2), plain(channels=2)), picture()
    restoration = restorer(model, image, noise(1, 2))
    found = restorer.estimates(model[0], restoration.z, noise(1, 2))
    assert len(found) in (2, 3, 4)
    rows = np.stack([one.numpy().astype(np.float64) for one in found])
    assert restoration.spread is not None
    np.testing.assert_allclose(restoration.spread.numpy(), rows.std(0), atol=1e-6)  # divided by their number
    np.testing.assert_allclose(restoration.z_hat.numpy(), rows.mean(0), atol=1e-6)
    assert torch.equal(restorer.estimate(model[0], restoration.z, noise(1, 2)), restoration.z_hat)
    single = restorer((model[0], model[1]), image[1:], noise(2))
    torch.testing.assert_close(Spread()(single), Spread()(restoration)[1:])


@torch.no_grad()
def test_a_pull_holds_the_draws_together(plain) -> None:
    """At weight 1 the last x0 keeps 1 / (1 + sigma^2) of its distance to the picture, and its spread as much."""
    model, image = (generator(2), plain(channels=2)), picture()
    restorer = PartialNoise((CHAIN[1].item(),), 2, eta=1.0, draws=4)
    free, held = restorer(model, image, noise(1, 2)), Pulled(restorer, 1.0)(model, image, noise(1, 2))
    left = 1 / (1 + float(CHAIN[0]) ** 2)
    torch.testing.assert_close(Spread()(held), left * Spread()(free))


@torch.no_grad()
def test_a_fixed_latent_leaves_nothing_to_disagree_on(plain) -> None:
    restorer = PartialNoise((0.95,), 2, eta=1.0, draws=4)
    drawn, coder = generator(2), plain(channels=2)
    held = restorer((Steering(fixed=True)(drawn), coder), picture(), noise(1, 2))
    assert Spread()(held).max() < 1e-6
    torch.testing.assert_close(held.z_hat[0], held.z_hat[1])  # the same for every picture
    other = restorer((Steering(fixed=True)(drawn), coder), picture(), noise(3, 4))
    torch.testing.assert_close(other.z_hat, held.z_hat)
    assert Spread()(restorer((Steering()(drawn), coder), picture(), noise(1, 2))).min() > 0.01


@pytest.mark.parametrize(
    "restorer", [PartialNoise((0.5,), 2), OneStep(0.5), Inversion(0.5, 2), Pulled(OneStep(0.5), 0.3)], ids=str
)
def test_one_restoration_has_no_spread(truth, normals, plain, unit_noise, restorer: Restorer) -> None:
    restoration = restorer((truth, plain()), normals(1), Cond(noise=unit_noise(1)))
    assert restoration.spread is None
    with pytest.raises(ConfigError, match="take draws of 2 or more"):
        Spread()(restoration)


def test_the_map_lies_at_the_codecs_resolution_and_the_finest_rules() -> None:
    codec = PixelCodec(1, patch=2)
    model, image = (generator(4), codec), picture(2, 1, 2 * SIDE)
    restorer = PartialNoise((0.95,), 2, eta=1.0, draws=3)
    restoration = restorer(model, image, noise(1, 2))
    assert Spread()(restoration).shape == Latent()(restoration).shape == (2, 1, SIDE, SIDE)
    for distances, side in (([L1(), Spread()], 2 * SIDE), ([Latent(), Spread()], SIDE)):
        scorer = RestorationScorer(restorer, distances)
        parts = scorer.observe(model, image, noise(1, 2)).parts
        scorer.learn(lambda parts=parts: iter([parts]))
        assert scorer.evaluations == 6
        assert scorer(model, image, noise(1, 2)).shape == (2, 1, side, side)


def test_uncertainty_finds_what_a_mean_hides(plain) -> None:
    """Both signs of an offset about the picture itself: their mean is right everywhere, their spread is not."""
    z = 2 * picture(1) - 1
    sign = torch.zeros(2, SIDE, SIDE)
    sign[:, 5:7, 5:7] = 0.4

    def net(x_t: Tensor, t: Tensor, w: Tensor, cond: Cond | None) -> Tensor:
        return z + sign * w.sign().reshape(-1, 1, 1, 1)

    restorer = OneStep(0.95, draws=200)
    restoration = restorer((DDGANDenoiser(net, CHAIN, latent=1), plain(channels=2)), picture(1), noise(3))
    spread = Spread()(restoration)[0, 0]
    assert spread[5:7, 5:7].min() > 0.38
    assert spread[:5].max() < 1e-5
    assert Latent()(restoration).max().sqrt() < 0.1  # .4 / sqrt(200), three times
