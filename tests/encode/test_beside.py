"""Pictures beside the code: averages, noise, masks and maps of classes."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from anodiff.codec.pixel import PixelCodec
from anodiff.encode.beside import GREY, LowRes, Masked, Semantic, at_size, random_mask
from anodiff.errors import ConfigError, DataError, RefusalError
from anodiff.noise import PerImageNoise


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [(8, 8), (16, 16), (5, 7), (40, 4), (64, 64)])
def test_an_even_picture_stays_even(size):
    image = torch.full((2, 3, 64, 64), 0.3)
    small = LowRes(factor=4, noise=0.0)
    torch.testing.assert_close(small.make(image, size, [1, 2]), torch.full((2, 3, *size), -0.4))
    torch.testing.assert_close(at_size(image, size), torch.full((2, 3, *size), 0.3))


def test_the_small_picture_is_the_mean_of_its_cells():
    image = noise(2, 3, 32, 48)
    told = LowRes(factor=4, noise=0.0).make(image, (8, 12), [1, 2])
    expected = image.reshape(2, 3, 8, 4, 12, 4).mean(dim=(3, 5)) * 2 - 1
    torch.testing.assert_close(told, expected)


def test_a_larger_code_is_interpolated_and_a_smaller_one_averaged():
    image, small = noise(1, 1, 32, 32), LowRes(factor=8, noise=0.0)
    low = F.avg_pool2d(image, 8)
    larger = F.interpolate(low, size=(16, 16), mode="bilinear", align_corners=False)
    torch.testing.assert_close(small.make(image, (16, 16), [0]), 2 * larger - 1)
    torch.testing.assert_close(small.make(image, (2, 2), [0]), 2 * F.avg_pool2d(image, 16) - 1)
    torch.testing.assert_close(small.from_small(low, (16, 16), [0]), small.make(image, (16, 16), [0]))


def test_fine_texture_does_not_alias():
    checks = (torch.arange(64)[:, None] + torch.arange(64)) % 2
    told = LowRes(factor=4, noise=0.0).make(checks.float()[None, None], (16, 16), [0])
    torch.testing.assert_close(told, torch.zeros(1, 1, 16, 16))


def test_the_noise_has_its_deviation_and_is_each_pictures_own():
    image = noise(4, 3, 256, 256)
    seeds = [3, 4, 5, 6]
    added = LowRes(factor=2, noise=0.2).make(image, (128, 128), seeds) - LowRes(factor=2, noise=0.0).make(
        image, (128, 128), seeds
    )
    count = added[0].numel()
    for row in added:
        assert abs(float(row.mean())) < 4 * 0.2 / math.sqrt(count)
        assert float(row.std()) == pytest.approx(0.2, rel=4 / math.sqrt(2 * count))
    alone = LowRes(factor=2, noise=0.2).make(image[2:3], (128, 128), seeds[2:3])
    assert torch.equal(alone, LowRes(factor=2, noise=0.2).make(image, (128, 128), seeds)[2:3])
    # the walk's own noise comes from the same seeds; the two must have nothing in common
    walk = PerImageNoise(seeds)(added)
    for row, other in zip(added, walk, strict=True):
        together = torch.corrcoef(torch.stack([row.flatten(), other.flatten()]))[0, 1]
        assert abs(float(together)) < 5 / math.sqrt(count)


def test_what_a_small_picture_cannot_do_is_refused():
    with pytest.raises(DataError, match="cannot be reduced by 8"):
        LowRes(factor=8, noise=0.0).make(noise(1, 3, 4, 32), (4, 4), [0])
    with pytest.raises(ConfigError, match="one seed a picture"):
        LowRes(factor=2, noise=0.1).make(noise(2, 3, 32, 32), (4, 4), [0])
    assert LowRes(factor=2, noise=0.1).channels(PixelCodec(3, patch=4)) == 3
    with pytest.raises(RefusalError, match="does not tell how many channels"):
        LowRes(factor=2, noise=0.1).channels(object())  # type: ignore[arg-type]


def test_the_hole_is_grey_and_the_share_exact_for_aligned_boxes():
    codec, image = PixelCodec(3, patch=4), noise(2, 3, 32, 24)
    mask = torch.ones(2, 1, 32, 24, dtype=torch.bool)
    mask[0, :, 8:16, 4:12] = False
    mask[1, :, 0:2, 0:4] = False
    told = Masked().make(codec, image, mask)
    assert told.shape == (2, Masked().channels(codec), 8, 6)
    share = torch.ones(2, 1, 8, 6)
    share[0, :, 2:4, 1:3] = 0.0
    share[1, :, 0, 0] = 0.5
    assert torch.equal(told[:, -1:], share)
    shown = codec.decode(told[:, :-1])
    torch.testing.assert_close(shown[mask.expand_as(shown)], image[mask.expand_as(image)])
    torch.testing.assert_close(shown[~mask.expand_as(shown)], torch.full((3 * 72,), GREY))
    # what is hidden is not told
    other = torch.where(mask, image, noise(2, 3, 32, 24, seed=1))
    assert torch.equal(Masked().make(codec, other, mask), told)
    assert torch.equal(Masked().make(codec, image, mask.float()), told)


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(DataError, match=r"mask \[B, 1, H, W\] for pictures \[2, 3, 32, 24\]"):
        Masked().make(PixelCodec(3), noise(2, 3, 32, 24), torch.ones(1, 1, 32, 24))


@pytest.mark.parametrize("shape", [(64, 64), (48, 96), (8, 8)])
def test_holes_hide_between_a_tenth_and_six_tenths(shape):
    masks = [random_mask(seed, shape) for seed in range(200)]
    assert all(mask.shape == (1, *shape) and mask.dtype == torch.bool for mask in masks)
    shares = torch.stack([1 - mask.float().mean() for mask in masks])
    assert float(shares.min()) >= 0.1 - 1e-6
    assert float(shares.max()) <= 0.6 + 1e-6
    assert float(shares.std()) > 0.08
    assert len({mask.numpy().tobytes() for mask in masks}) > 195
    hidden = 1 - torch.stack(masks).float().mean(dim=0)  # no place is spared, none preferred
    assert float(hidden.min()) > 0.1
    assert float(hidden.max()) < 0.65


def test_a_hole_is_a_function_of_its_seed():
    assert torch.equal(random_mask(7, (64, 64)), random_mask(7, (64, 64)))
    assert random_mask(2**62, (64, 64)).shape == (1, 64, 64)
    with pytest.raises(ConfigError, match="seed -1"):
        random_mask(-1, (64, 64))
    with pytest.raises(ConfigError, match="4 x 64"):
        random_mask(0, (4, 64))


def test_a_map_of_classes_becomes_shares_that_sum_to_one():
    numbers = torch.randint(0, 4, (2, 32, 24), generator=torch.Generator().manual_seed(0))
    told = Semantic(4).make(numbers, (8, 6))
    assert Semantic(4).channels(PixelCodec(3)) == 4
    for k in range(4):
        expected = (numbers == k).float().reshape(2, 8, 4, 6, 4).mean(dim=(2, 4))
        torch.testing.assert_close(told[:, k], expected)
    torch.testing.assert_close(Semantic(4).make(numbers, (11, 30)).sum(dim=1), torch.ones(2, 11, 30))
    assert torch.equal(Semantic(4).make(numbers, (32, 24)).argmax(dim=1), numbers)


def test_a_map_of_something_else_is_refused():
    with pytest.raises(DataError, match="numbers 0 to 2, found 0 to 3"):
        Semantic(3).make(torch.arange(4).reshape(1, 2, 2), (1, 1))
    with pytest.raises(DataError, match="integers"):
        Semantic(3).make(torch.zeros(1, 2, 2), (1, 1))
