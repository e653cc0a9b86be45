"""Every restorer with every distance, scorer, family and codec: it runs, or refuses with its stated reason."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from anodiff.codec.backbone import backbone
from anodiff.codec.feature import FeatureCodec
from anodiff.codec.pixel import PixelCodec
from anodiff.codec.protocol import Codec
from anodiff.cond import Cond
from anodiff.detect.distance import (
    L1,
    L2,
    SSIM,
    Distance,
    Feature,
    Gradient,
    Lab,
    Latent,
    MultiScaleSSIM,
    Spread,
)
from anodiff.detect.onestep import ResidualScorer, one_steps
from anodiff.detect.opinion import OpinionScorer
from anodiff.detect.residual import ResidualCovariance, ResidualSquares, ResidualVariance
from anodiff.detect.restore import Inversion, Model, OneStep, PartialNoise, Pulled, Restorer
from anodiff.detect.scorer import BoundScorer, Fused, RestorationScorer, Scorer
from anodiff.detect.steering import Steering
from anodiff.diffusion.classifier import NoisyClassifier
from anodiff.diffusion.denoiser import Denoiser, EpsDenoiser, KarrasDenoiser, VDenoiser, X0Denoiser
from anodiff.diffusion.gan import Critic, DDGANDenoiser
from anodiff.diffusion.guidance import Bind, Inpaint
from anodiff.diffusion.schedule import table
from anodiff.errors import ConfigError, RefusalError
from anodiff.nets.classifier import Classifier
from anodiff.nets.discriminator import Discriminator
from anodiff.nets.generator import Generator
from anodiff.nets.unet import UNet
from anodiff.noise import PerImageNoise

SIZE = 32
FAMILIES = ["eps", "v", "x0", "karras", "ddgan"]
CHAIN = table("vp", 16)  # its lowest entries hold what the restorers below ask for
RESTORERS: dict[str, Restorer] = {
    "ddim": PartialNoise((0.5,), steps=2),
    "ddpm": PartialNoise((0.4, 0.9), steps=2, eta=1.0, draws=2),
    "heun": PartialNoise((0.5,), steps=2, sampler="heun"),
    "dpmpp_2m": PartialNoise((0.5,), steps=2, sampler="dpmpp_2m"),
    "one step": OneStep(0.5),
    "inversion": Inversion(0.5, 2),
    "pulled": Pulled(PartialNoise((0.5,), steps=2), 0.3),
    "antithetic": OneStep(0.5, draws=2),
}
DRAWS = {"ddpm", "antithetic"}
NEEDS_MEAN = {"heun", "dpmpp_2m", "inversion", "bound"}


@pytest.fixture(scope="module")
def features() -> FeatureCodec:
    torch.manual_seed(0)
    codec = FeatureCodec(backbone("tf_efficientnet_lite0", (1, 2), weights="random"), whitening="channel")
    codec.eval()
    codec.learn([torch.rand(4, 3, SIZE, SIZE)])
    return codec


@pytest.fixture(scope="module")
def models(features: FeatureCodec) -> dict[tuple[str, str], Model]:
    codecs: dict[str, Codec] = {"grey": PixelCodec(1), "folded": PixelCodec(3, patch=2), "features": features}
    found: dict[tuple[str, str], Model] = {}
    grid = table("linear")
    for (name, codec), family in itertools.product(codecs.items(), FAMILIES):
        torch.manual_seed(0)
        net = UNet(
            in_channels=codec.channels,
            out_channels=codec.channels,
            width=8,
            multipliers=(1, 2),
            blocks=1,
            groups=4,
        ).eval()
        for parameter in net.parameters():  # the output starts at zero, which would hide mistakes
            if not parameter.any():
                nn.init.normal_(parameter, std=0.02)
        karras = KarrasDenoiser(net, std=0.5, low=0.02, high=10.0)
        match family:
            case "eps":
                denoiser = EpsDenoiser(net, grid)
            case "v":
                denoiser = VDenoiser(net, grid)
            case "x0":
                denoiser = X0Denoiser(net, grid)
            case "karras":
                denoiser = karras
            case _:
                denoiser = DDGANDenoiser(
                    Generator(net, latent=8, layers=2, hidden=16).eval(), CHAIN, latent=8
                )
        found[name, family] = (denoiser, codec)
    return found


def critic(codec: Codec) -> Critic:
    """A fresh critic of the chain; it judges pictures whatever family stands beside it."""
    torch.manual_seed(1)
    return Critic(Discriminator(in_channels=codec.channels, width=8, multipliers=(1, 2)), CHAIN).eval()


def picture(codec: str) -> torch.Tensor:
    return torch.rand(2, 1 if codec == "grey" else 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def cond() -> Cond:
    return Cond(noise=PerImageNoise([1, 2]))


@pytest.mark.parametrize("codec", ["grey", "folded", "features"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_restorer_by_distance(models, features: FeatureCodec, family: str, codec: str) -> None:
    denoiser, coder = models[codec, family]
    distances: list[Distance] = [
        L1(),
        L2(),
        SSIM(),
        MultiScaleSSIM(),
        Gradient(),
        Lab(),
        Feature(features),
        Latent(),
        Spread(),
    ]
    ran = refused = 0
    for name, restorer in RESTORERS.items():
        if family == "ddgan" and name in NEEDS_MEAN:
            with pytest.raises(RefusalError, match=r"mean of x0.*draws x0"):
                restorer((denoiser, coder), picture(codec), cond())
            refused += 1
            continue
        restoration = restorer((denoiser, coder), picture(codec), cond())
        for distance in distances:
            if isinstance(distance, Spread) and name not in DRAWS:
                with pytest.raises(ConfigError, match="draws of 2 or more"):
                    distance(restoration)
                refused += 1
                continue
            if not coder.paints and not isinstance(distance, Latent | Spread):
                with pytest.raises(RefusalError, match="paints none"):
                    distance(restoration)
                refused += 1
                continue
            found = distance(restoration)
            side = SIZE if not isinstance(distance, Latent | Spread) else SIZE // coder.stride
            assert found.shape == (2, 1, side, side), (name, distance)
            assert torch.isfinite(found).all()
            assert found.max() > 0
            ran += 1
    assert ran + refused in (8 * 9, 5 * 9 + 3)  # nothing was passed over


@pytest.mark.parametrize("codec", ["grey", "folded", "features"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_scorers(models, family: str, codec: str) -> None:
    denoiser, coder = models[codec, family]
    scorers: dict[str, Scorer] = {
        "one step": ResidualScorer(one_steps((0.3, 0.8), draws=2), ResidualCovariance()),
        "residual": ResidualScorer([RESTORERS["ddim"], RESTORERS["pulled"]], ResidualVariance()),
        "restoration": RestorationScorer(RESTORERS["ddpm"], [Latent()]),
        "bound": BoundScorer(0.8, 3, bins=256 if coder.paints else None),
        "fused": Fused(
            [
                ResidualScorer(one_steps((0.3,)), ResidualSquares()),
                RestorationScorer(OneStep(0.5), [L1() if coder.paints else Latent()]),
            ]
        ),
        "spread": RestorationScorer(RESTORERS["ddpm"], [Latent(), Spread()]),
        "opinion": OpinionScorer(critic(coder), (0.5, 3.0), draws=2),
        "opinion beside a restoration": Fused(
            [
                RestorationScorer(RESTORERS["ddpm"], [Latent(), Spread()]),
                OpinionScorer(critic(coder), (0.9,)),
            ]
        ),
    }
    for name, scorer in scorers.items():
        if family == "ddgan" and name in NEEDS_MEAN:
            with pytest.raises(RefusalError, match=r"mean of x0.*draws x0"):
                scorer.observe((denoiser, coder), picture(codec), cond())
            continue
        parts = scorer.observe((denoiser, coder), picture(codec), cond()).parts
        scorer.learn(lambda parts=parts: iter([parts]))
        found = scorer((denoiser, coder), picture(codec), cond())
        assert found.shape[:2] == (2, 1)
        assert torch.isfinite(found).all(), name
        assert found.std() > 0


STEERED = {
    "bare": Steering(),
    "clamp": Steering(clamp=True),
    "fixed": Steering(fixed=True),
    "cfg": Steering(free=2.0),
    "away": Steering(free=2.0, negative=Cond(label=torch.tensor([1]))),
    "fixed cfg": Steering(free=2.0, fixed=True),
}


@pytest.mark.parametrize("restorer", ["ddim", "ddpm", "one step", "pulled", "inpainted"])
@pytest.mark.parametrize("name", [*STEERED, "autoguide", "classifier", "everything"])
def test_a_drawing_model_under_every_wrapper(name: str, restorer: str) -> None:
    """Guidance of every kind, pull, known pixels and clamp around a generator with labels: all run.

    Each changes what is restored, a row is its own under each, and other seeds give another restoration.
    """

    def made(seed: int) -> DDGANDenoiser:
        torch.manual_seed(seed)
        net = UNet(in_channels=1, out_channels=1, width=8, multipliers=(1,), blocks=1, groups=4, classes=3)
        return DDGANDenoiser(Generator(net, latent=8, layers=2, hidden=16, limit=1.0).eval(), CHAIN, latent=8)

    inner = made(0)
    judge = NoisyClassifier(
        Classifier(
            in_channels=1,
            classes=3,
            width=8,
            multipliers=(1,),
            blocks=1,
            attention=(),
            pool="adaptive",
            size=(8, 8),
        ).eval(),
        inner.levels,
    )
    for parameter in judge.parameters():  # a fresh one has no opinion
        if not parameter.any():
            nn.init.normal_(parameter, std=0.2)
    guided = {
        "autoguide": Steering(weaker=made(1), auto=1.5),
        "classifier": Steering(log_prob=judge.log_prob, scale=0.05),
        "everything": Steering(
            free=1.5, log_prob=judge.log_prob, scale=0.05, weaker=made(1), auto=1.5, clamp=True, fixed=True
        ),
    }
    image = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    known = torch.zeros(1, 1, 8, 8)
    known[..., :4] = 1
    steered = (STEERED | guided)[name](inner)
    coder = PixelCodec(1)

    def restored(rows: slice, seeds: list[int], by: Denoiser = steered) -> torch.Tensor:
        given = Cond(label=torch.tensor([0, 2])[rows], noise=PerImageNoise(seeds))
        if restorer != "inpainted":
            return RESTORERS[restorer]((by, coder), image[rows], given).z_hat
        mended = Inpaint(Bind(by, given), coder.encode(image[rows]), known)
        return RESTORERS["ddpm"]((mended, coder), image[rows], given).z_hat

    with torch.no_grad():
        both = restored(slice(0, 2), [1, 2])
        assert both.isfinite().all()
        torch.testing.assert_close(restored(slice(1, 2), [2]), both[1:], rtol=1e-4, atol=1e-5)
        assert (restored(slice(0, 2), [3, 4]) - both).abs().max() > 1e-3
        if name not in ("bare", "clamp"):  # the generator is bounded: there is nothing to cut
            assert (restored(slice(0, 2), [1, 2], inner) - both).abs().max() > 1e-5
        if restorer == "inpainted":
            torch.testing.assert_close((both * known), coder.encode(image) * known)


def test_a_latent_that_is_not_there_cannot_be_held(models) -> None:
    denoiser, _ = models["grey", "eps"]
    with pytest.raises(RefusalError, match=r"gives the mean of x0 and draws nothing.*DDGAN"):
        Steering(fixed=True)(denoiser)
