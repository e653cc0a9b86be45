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
from anodiff.detect.distance import L1, L2, SSIM, Distance, Feature, Gradient, Lab, Latent, MultiScaleSSIM
from anodiff.detect.residual import ResidualCovariance, ResidualSquares, ResidualVariance
from anodiff.detect.restore import Inversion, Model, OneStep, PartialNoise, Pulled, Restorer
from anodiff.detect.scorer import BoundScorer, Fused, OneStepError, ResidualScorer, RestorationScorer, Scorer
from anodiff.diffusion.denoiser import EpsDenoiser, KarrasDenoiser, VDenoiser, X0Denoiser
from anodiff.diffusion.levels import Levels
from anodiff.diffusion.schedule import table
from anodiff.errors import RefusalError
from anodiff.nets.unet import UNet
from anodiff.noise import PerImageNoise

SIZE = 32
FAMILIES = ["eps", "v", "x0", "karras", "drawing"]
RESTORERS: dict[str, Restorer] = {
    "ddim": PartialNoise((0.5,), steps=2),
    "ddpm": PartialNoise((0.3, 0.9), steps=2, eta=1.0, draws=2),
    "heun": PartialNoise((0.5,), steps=2, sampler="heun"),
    "dpmpp_2m": PartialNoise((0.5,), steps=2, sampler="dpmpp_2m"),
    "one step": OneStep(0.5),
    "inversion": Inversion(0.5, 2),
    "pulled": Pulled(PartialNoise((0.5,), steps=2), 0.3),
}
NEEDS_MEAN = {"heun", "dpmpp_2m", "inversion", "bound"}


class Drawing(nn.Module):
    """A denoiser that promises draws of x0, not their mean."""

    def __init__(self, inner: KarrasDenoiser) -> None:
        super().__init__()
        self.inner = inner

    @property
    def levels(self) -> Levels:
        return Levels(self.inner.levels.low, self.inner.levels.high, draws=True)

    def forward(self, y: torch.Tensor, sigma: torch.Tensor, cond: Cond | None = None) -> torch.Tensor:
        assert cond is not None
        assert cond.noise is not None
        return self.inner(y, sigma, cond) + 0.01 * cond.noise(y)


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
                denoiser = Drawing(karras)
        found[name, family] = (denoiser, codec)
    return found


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
    ]
    ran = refused = 0
    for name, restorer in RESTORERS.items():
        if family == "drawing" and name in NEEDS_MEAN:
            with pytest.raises(RefusalError, match=r"mean of x0.*draws x0"):
                restorer((denoiser, coder), picture(codec), cond())
            refused += 1
            continue
        restoration = restorer((denoiser, coder), picture(codec), cond())
        for distance in distances:
            if not coder.paints and not isinstance(distance, Latent):
                with pytest.raises(RefusalError, match="paints none"):
                    distance(restoration)
                refused += 1
                continue
            found = distance(restoration)
            side = SIZE if not isinstance(distance, Latent) else SIZE // coder.stride
            assert found.shape == (2, 1, side, side), (name, distance)
            assert torch.isfinite(found).all()
            assert found.max() > 0
            ran += 1
    assert ran + refused in (7 * 8, 4 * 8 + 3)  # nothing was passed over


@pytest.mark.parametrize("codec", ["grey", "folded", "features"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_scorers(models, family: str, codec: str) -> None:
    denoiser, coder = models[codec, family]
    scorers: dict[str, Scorer] = {
        "one step": OneStepError((0.3, 0.8), ResidualCovariance(), draws=2),
        "residual": ResidualScorer([RESTORERS["ddim"], RESTORERS["pulled"]], ResidualVariance()),
        "restoration": RestorationScorer(RESTORERS["ddpm"], [Latent()]),
        "bound": BoundScorer(0.8, 3, bins=256 if coder.paints else None),
        "fused": Fused(
            [
                OneStepError((0.3,), ResidualSquares()),
                RestorationScorer(OneStep(0.5), [L1() if coder.paints else Latent()]),
            ]
        ),
    }
    for name, scorer in scorers.items():
        if family == "drawing" and name in NEEDS_MEAN:
            with pytest.raises(RefusalError, match=r"mean of x0.*draws x0"):
                scorer.observe((denoiser, coder), picture(codec), cond())
            continue
        parts = scorer.observe((denoiser, coder), picture(codec), cond()).parts
        scorer.learn(lambda parts=parts: iter([parts]))
        found = scorer((denoiser, coder), picture(codec), cond())
        assert found.shape[:2] == (2, 1)
        assert torch.isfinite(found).all(), name
        assert found.std() > 0
