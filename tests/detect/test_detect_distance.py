from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.color import deltaE_cie76, rgb2lab
from skimage.metrics import structural_similarity
from torch import Tensor, nn

from anodiff.detect.distance import L1, L2, SSIM, Distance, Feature, Gradient, Lab, Latent, MultiScaleSSIM
from anodiff.detect.restore import Restoration
from anodiff.errors import RefusalError


class Stages(nn.Module):
    """Two stages of fixed random features."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 16, 3, 2, 1)

    def forward(self, image: Tensor) -> list[Tensor]:
        image = image.expand(-1, 3, -1, -1)
        one = self.first(image).relu()
        return [one, self.second(one)]


PAINTED: list[Distance] = [L1(), L2(), SSIM(), MultiScaleSSIM(), Gradient(), Lab(), Feature(Stages())]
EVERY: list[Distance] = [*PAINTED, Feature(Stages(), measure="l2"), Latent()]


def name(distance: Distance) -> str:
    return type(distance).__name__


def pair(image: Tensor, image_hat: Tensor) -> Restoration:
    return Restoration(image=image, image_hat=image_hat, z=2 * image - 1, z_hat=2 * image_hat - 1)


def pictures(count: int = 2, channels: int = 3) -> Tensor:
    coarse = torch.rand(count, channels, 6, 8, generator=torch.Generator().manual_seed(1))
    return nn.functional.interpolate(coarse, (48, 64), mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("distance", EVERY, ids=name)
@torch.no_grad()
def test_zero_for_equals_and_highest_where_something_changed(distance: Distance, channels: int) -> None:
    image = pictures(channels=channels)
    same = distance(pair(image, image.clone()))
    assert same.shape == (2, 1, 48, 64)
    assert same.abs().max() < 1e-5

    changed = image.clone()
    changed[1, :, 10:22, 30:44] = 1 - changed[1, :, 10:22, 30:44].round()
    found = distance(pair(image, changed))
    assert found[0].abs().max() < 1e-5  # the other picture is left alone
    inside = found[1, 0, 10:22, 30:44].mean()
    far = found[1, 0, 40:, :20].mean()
    assert inside > 20 * far.abs() + 1e-3
    torch.testing.assert_close(found[1:], distance(pair(image[1:], changed[1:])), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("distance", PAINTED, ids=name)
def test_without_paint_there_is_nothing_to_compare(distance: Distance) -> None:
    image = pictures()
    bare = Restoration(image=image, image_hat=None, z=image, z_hat=image)
    with pytest.raises(RefusalError, match=r"paints none.*Latent"):
        distance(bare)
    assert Latent()(bare).max() == 0


def test_ssim_agrees_with_scikit_image() -> None:
    a, b = pictures(1), pictures(1).roll(3, -1) * 0.9
    ours = 1 - 2 * SSIM(window=11)(pair(a, b))[0, 0].numpy()
    _, theirs = structural_similarity(
        a[0].numpy(), b[0].numpy(), channel_axis=0, data_range=1.0, gaussian_weights=True, sigma=1.5, full=True,
        use_sample_covariance=False,
    )  # fmt: skip
    inner = np.s_[6:-6, 6:-6]
    np.testing.assert_allclose(ours[inner], theirs.mean(0)[inner], atol=2e-3)


def test_lab_agrees_with_scikit_image() -> None:
    a, b = pictures(1), pictures(1).flip(-1)
    theirs = deltaE_cie76(*(rgb2lab(x[0].movedim(0, -1).numpy()) for x in (a, b))) / 100
    np.testing.assert_allclose(Lab()(pair(a, b))[0, 0].numpy(), theirs, atol=2e-3)


def test_lab_sees_a_hue_that_keeps_its_brightness() -> None:
    a = torch.full((1, 3, 16, 16), 0.5)
    b = a.clone()
    b[:, 0, 4:8, 4:8], b[:, 1, 4:8, 4:8] = 0.62, 0.44
    grey = (a - b).mean(1).abs().max()
    assert Lab()(pair(a, b)).max() > 5 * grey


def test_many_scales_reach_further_than_one() -> None:
    a = pictures(1)
    b = a.clone()
    b[..., 20:28, 20:28] = 0
    place = np.s_[0, 0, 24, 40:44]
    assert MultiScaleSSIM()(pair(a, b))[place].min() > SSIM()(pair(a, b))[place].max()


def test_tiny_pictures_have_fewer_scales() -> None:
    a = torch.rand(1, 3, 12, 12)
    assert MultiScaleSSIM()(pair(a, a)).shape == (1, 1, 12, 12)
    assert Gradient()(pair(a, a)).shape == (1, 1, 12, 12)
