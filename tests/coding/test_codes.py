"""Codes are made once: each is that of its picture in its draw, up to half precision."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anodiff.codec.latent import LatentCodec
from anodiff.coding.codes import Codes, codes
from anodiff.data.augment import Augmentation
from anodiff.data.dataset import ImageSet

CPU = torch.device("cpu")


class Halves(nn.Module):
    """An autoencoder whose codes are the means of 2 x 2 pixels."""

    image_channels, channels, stride = 3, 3, 2

    def encode(self, x: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(x, 2)

    def decode(self, z: Tensor) -> Tensor:
        return nn.functional.interpolate(z, scale_factor=2.0)


@pytest.fixture
def pictures() -> ImageSet:
    chance = np.random.default_rng(0)
    arrays = [chance.integers(0, 255, (8, 8, 3), dtype=np.uint8) for _ in range(3)]
    return ImageSet(
        arrays, shape=(8, 8), augment=Augmentation(flip_h=True, flip_v=True, brightness=0.3), seed=1
    )


@pytest.fixture
def codec(pictures: ImageSet) -> LatentCodec:
    made = LatentCodec(Halves())
    made.learn([torch.stack([pictures.item(i, 0) for i in range(3)])])
    return made


def test_every_draw_of_every_picture_has_its_code(pictures: ImageSet, codec: LatentCodec) -> None:
    found = codes(pictures, codec, draws=4, beside=None, device=CPU)
    assert len(found) == 3
    for index in range(3):
        for seed in range(9):
            expected = codec.encode(pictures.item(index, seed % 4)[None])[0]
            assert found.item(index, seed).dtype == torch.float32
            torch.testing.assert_close(found.item(index, seed), expected, rtol=1e-3, atol=1e-3)
    assert not torch.equal(found.item(0, 0), found.item(0, 1))


def test_what_stands_beside_a_code_is_of_the_same_draw(pictures: ImageSet, codec: LatentCodec) -> None:
    given: list[int] = []

    def beside(image: Tensor, seeds: Sequence[int]) -> Tensor:
        given.extend(seeds)
        return image.mean((2, 3), keepdim=True).expand(-1, -1, 4, 4)

    found = codes(pictures, codec, draws=2, beside=beside, device=CPU)
    assert len(set(given)) == 6  # no two draws share their noise
    for index in range(3):
        for seed in range(5):
            mean = pictures.item(index, seed % 2).mean((1, 2))
            torch.testing.assert_close(found.image(index, seed)[:, 0, 0], mean, rtol=1e-3, atol=1e-3)


def test_half_precision_keeps_a_code_to_a_thousandth() -> None:
    z = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    found = Codes(z.half(), 1)
    assert max(float((found.item(i, 5) - z[i]).abs().max()) for i in range(2)) < 4 / 2048
