import dataclasses
import math

import numpy as np
import pytest
import skimage.data
import torch
import torch.nn.functional as F
from skimage.metrics import peak_signal_noise_ratio

from anodiff.codec.pixel import PixelCodec
from anodiff.coding.floor import KINDS, Floor, _painted, floor
from anodiff.errors import ConfigError, DataError, RefusalError


class Shown(PixelCodec):
    """Pixels that come back changed."""

    def __init__(self, change) -> None:
        super().__init__(1)
        self.change = change

    def decode(self, z):
        return self.change(super().decode(z))


def blurred(side: int):
    return Shown(lambda x: F.interpolate(F.avg_pool2d(x, side), scale_factor=side, mode="bilinear"))


def pictures(count: int = 8, size: int = 128) -> torch.Tensor:
    """Crops of a photograph of a brick wall, [count, 1, size, size]."""
    wall = torch.from_numpy(skimage.data.brick()).float()[None] / 255
    corners = np.random.default_rng(0).integers(0, 512 - size, (count, 2))
    return torch.stack([wall[:, y : y + size, x : x + size] for y, x in corners])


def test_a_codec_that_loses_nothing_warns_of_nothing():
    found = floor(PixelCodec(1, patch=4), pictures().split(3), defect=16, seed=0)
    assert found.psnr > 120
    assert found.ssim > 1 - 1e-6
    assert found.error < 1e-6
    assert found.kept == pytest.approx(1, abs=1e-6)
    assert found.contrast > 0.05
    assert found.warnings == ()


def test_a_codec_that_blurs_hides_small_defects_and_says_what_to_do():
    found = floor(blurred(32), pictures().split(3), defect=8, seed=0)
    assert found.kept < 0.5
    assert found.ssim < 0.7
    assert found.psnr < 22
    drown, away = found.warnings
    assert "drown in what the autoencoder cannot paint: over 8 px" in drown
    assert "paints defects of 8 px away" in away
    assert all("codec.stride" in s and "codec.channels" in s and "codec.steps" in s for s in found.warnings)
    large = floor(blurred(4), pictures().split(3), defect=32, seed=0)  # defects far larger than the blur
    assert large.kept > 0.8
    assert large.warnings == ()


def test_the_figures_of_a_known_error_are_known():
    image = pictures() * 0.6 + 0.2
    found = floor(Shown(lambda x: 0.75 * x + 0.05), [image], defect=16, seed=0)
    gap = (0.25 * image - 0.05).double()
    assert found.psnr == pytest.approx(-10 * math.log10(float(gap.square().mean())), abs=1e-4)
    back = (image - gap).numpy()
    assert found.psnr == pytest.approx(
        peak_signal_noise_ratio(image.double().numpy(), back, data_range=1), abs=1e-4
    )
    assert found.kept == pytest.approx(0.75, abs=1e-4)
    means = F.avg_pool2d(gap.abs(), 16, stride=4).flatten().numpy()
    assert found.error == pytest.approx(float(np.quantile(means, 0.99)), abs=1e-6)
    pairs = [_painted(row, 16, i, 0) for i, row in enumerate(image)]
    change = sum(float((p - row).abs()[m].double().sum()) for row, (p, m) in zip(image, pairs, strict=True))
    assert found.contrast == pytest.approx(change / sum(int(m.sum()) for _, m in pairs), rel=1e-5)


@pytest.mark.parametrize("defect", [6, 12, 24])
def test_painted_defects_have_about_the_wanted_side_an_exact_mask_and_every_kind(defect):
    image = pictures(12, 256)
    sides = []
    for i, row in enumerate(image):
        picture, mask = _painted(row, defect, i, 3)
        assert torch.equal((picture != row).any(0, keepdim=True), mask)
        sides.append(math.sqrt(int(mask.sum())))
    assert 2 / 3 < np.median(sides) / defect < 3 / 2
    assert max(sides) < 2 * defect
    assert len(KINDS) < 12


def test_the_figures_depend_on_pictures_and_seed_alone():
    image = pictures(5)
    codec = blurred(8)
    one = floor(codec, image.split(1), defect=16, seed=1)
    two = floor(codec, iter([image]), defect=16, seed=1)
    for a, b in zip(dataclasses.astuple(one), dataclasses.astuple(two), strict=True):
        assert a == pytest.approx(b, rel=1e-6)
    other = floor(codec, [image], defect=16, seed=2)
    assert other.kept != two.kept
    assert other.psnr == two.psnr


def test_the_warnings_come_at_their_bounds():
    usual = {"defect": 16, "psnr": 30.0, "ssim": 0.9}
    assert Floor(**usual, error=0.1, contrast=0.11, kept=0.5).warnings == ()
    assert len(Floor(**usual, error=0.1, contrast=0.1, kept=0.5).warnings) == 1
    assert len(Floor(**usual, error=0.1, contrast=0.1, kept=0.49).warnings) == 2


def test_colour_pictures_are_measured_too():
    image = pictures(3).expand(-1, 3, -1, -1).contiguous()
    found = floor(PixelCodec(3), [image], defect=16, seed=0)
    assert found.warnings == ()
    assert found.kept == pytest.approx(1, abs=1e-6)


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(DataError, match="got none"):
        floor(PixelCodec(1), [], defect=16, seed=0)
    with pytest.raises(DataError, match="32 px a side or more to measure defects of 32 px, got 24 x 24"):
        floor(PixelCodec(1), [torch.rand(1, 1, 24, 24)], defect=32, seed=0)
    with pytest.raises(ConfigError, match="1 or more, got 0"):
        floor(PixelCodec(1), [pictures()], defect=0, seed=0)
    blind = PixelCodec(1)
    blind.paints = False
    with pytest.raises(RefusalError, match="paints nothing"):
        floor(blind, [pictures()], defect=16, seed=0)
