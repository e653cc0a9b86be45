import copy

import pytest
import torch
from torch import nn

from anodiff.codec.feature import FeatureCodec
from anodiff.codec.latent import LatentCodec
from anodiff.codec.pixel import PixelCodec
from anodiff.errors import ConfigError, DataError, RefusalError
from anodiff.nets.autoencoder import Autoencoder


class Affine(nn.Module):
    """An autoencoder that is known: squares of two folded into channels, times 3, plus 5."""

    image_channels, channels, stride = 1, 4, 2

    def encode(self, x):
        return 3 * nn.functional.pixel_unshuffle(x, 2) + 5

    def decode(self, z):
        return nn.functional.pixel_shuffle((z - 5) / 3, 2)


def pictures(batch: int = 5, channels: int = 1, size: tuple[int, int] = (8, 12)) -> torch.Tensor:
    return torch.rand(batch, channels, *size, generator=torch.Generator().manual_seed(3)) ** 2


def small(form: str = "kl") -> LatentCodec:
    torch.manual_seed(0)
    net = Autoencoder(image_channels=3, channels=4, width=8, multipliers=(1, 2, 2), form=form, attention=True)
    return LatentCodec(net)


def test_normals_have_mean_0_and_deviation_1_by_what_numpy_says_too():
    codec = LatentCodec(Affine())
    image = pictures()
    codec.learn(image.split(2))
    raw = 3 * (2 * image.double() - 1) + 5
    assert float(codec.shift) == pytest.approx(float(raw.mean()), rel=1e-6)
    assert float(codec.scale) == pytest.approx(1 / raw.numpy().std(), rel=1e-6)
    z = codec.encode(image)
    assert float(z.mean()) == pytest.approx(0, abs=1e-5)
    assert float(z.std(correction=0)) == pytest.approx(1, rel=1e-5)
    torch.testing.assert_close(codec.decode(z), image, atol=1e-6, rtol=0)


def test_scale_and_shift_do_not_depend_on_how_pictures_are_divided_nor_much_on_their_order():
    image = pictures(7, 3, (16, 16))
    codecs = [small() for _ in range(3)]
    for codec, stream in zip(codecs, (image.split(1), image.split(3), reversed(image.split(1))), strict=True):
        codec.learn(iter(stream))
    assert torch.equal(codecs[0].scale, codecs[1].scale)
    assert torch.equal(codecs[0].shift, codecs[1].shift)
    torch.testing.assert_close(codecs[2].scale, codecs[0].scale, rtol=1e-6, atol=0)
    first = small()
    first.learn([image[:1]])
    assert not torch.equal(first.scale, codecs[0].scale)  # it is not that of the first batch


@pytest.mark.parametrize("form", ["kl", "vq"])
def test_a_picture_has_the_same_code_and_a_code_the_same_picture_in_any_company(form):
    codec = small(form)
    image = pictures(4, 3, (32, 32))
    codec.learn([image])
    with torch.no_grad():
        z = codec.encode(image)
        assert z.shape == (4, codec.channels, 32 // codec.stride, 32 // codec.stride)
        assert torch.equal(codec.encode(image[2:3]), z[2:3])
        assert torch.equal(codec.encode(image.flip(0)), z.flip(0))
        back = codec.decode(z)
        assert back.shape == image.shape
        assert torch.equal(codec.decode(z[1:3]), back[1:3])
        want = (codec.net.decode(codec.net.encode(2 * image[:1] - 1)) + 1) / 2
    torch.testing.assert_close(back[:1], want, atol=1e-5, rtol=0)


def test_codes_are_unbounded_and_what_is_painted_is_not_clipped():
    codec = LatentCodec(Affine())
    codec.learn([pictures()])
    assert codec.paints
    assert not codec.bounded
    assert (PixelCodec.bounded, FeatureCodec.bounded) == (True, False)
    assert codec.encode(pictures()).abs().max() > 1
    assert codec.decode(torch.full((1, 4, 2, 2), 100.0)).min() > 1


def test_what_is_learnt_is_in_the_state_and_survives_a_copy():
    codec = small()
    codec.learn([pictures(2, 3, (16, 16))])
    twin = small()
    twin.load_state_dict(codec.state_dict())
    image = pictures(1, 3, (16, 16))
    with torch.no_grad():
        assert torch.equal(twin.encode(image), codec.encode(image))
        assert torch.equal(copy.deepcopy(codec).encode(image), codec.encode(image))


def test_it_leaves_the_weights_free_and_gradients_pass_through_both_ways():
    codec = small()
    codec.learn([pictures(2, 3, (16, 16))])
    assert all(weight.requires_grad for weight in codec.net.parameters())
    codec.net.requires_grad_(False)
    image = pictures(2, 3, (16, 16)).requires_grad_()
    (grad,) = torch.autograd.grad(codec.decode(codec.encode(image)).sum(), image)
    assert grad.any()


def test_a_position_is_known_with_all_its_neighbours():
    codec = LatentCodec(Affine())
    mask = torch.ones(1, 1, 10, 12, dtype=torch.bool)
    mask[0, 0, 4, 5] = False
    small_mask = codec.shrink(mask)
    assert small_mask.dtype == torch.bool
    want = torch.ones(5, 6, dtype=torch.bool)
    want[1:4, 1:4] = False
    assert torch.equal(small_mask[0, 0], want)


def test_what_does_not_fit_is_refused_with_a_sentence():
    codec = LatentCodec(Affine())
    with pytest.raises(ConfigError, match="LatentCodec has learnt nothing yet"):
        codec.encode(pictures())
    with pytest.raises(DataError, match="got none"):
        codec.learn([])
    with pytest.raises(DataError, match="have no scale"):
        codec.learn([torch.full((2, 1, 4, 4), 0.5)])
    with pytest.raises(DataError, match="expected finite codes"):
        codec.learn([torch.full((2, 1, 4, 4), torch.nan)])
    codec.learn([pictures()])
    with pytest.raises(DataError, match="one code of 2 x 2 pixels, got pictures of 1 x 8"):
        codec.encode(torch.rand(1, 1, 1, 8))
    with pytest.raises(DataError, match="multiples of 2 pixels, got 8 x 7"):
        codec.encode(torch.rand(1, 1, 8, 7))
    with pytest.raises(DataError, match=r"\[B, 1, H, W\], got \[1, 3, 8, 8\]"):
        codec.encode(torch.rand(1, 3, 8, 8))
    with pytest.raises(RefusalError, match="codes of another codec"):
        codec.decode(torch.rand(1, 3, 4, 4))
