import pytest
import torch

from anodiff.codec.pixel import PixelCodec
from anodiff.codec.protocol import whole_cells
from anodiff.errors import ConfigError, DataError


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("patch", [1, 2, 4])
def test_there_and_back_is_the_same_picture(channels, patch):
    codec = PixelCodec(channels, patch=patch)
    image = torch.rand(2, channels, 16, 8)
    z = codec.encode(image)
    assert z.shape == (2, codec.channels, 16 // codec.stride, 8 // codec.stride)
    assert codec.channels == channels * patch**2
    torch.testing.assert_close(codec.decode(z), image, atol=1e-6, rtol=0)
    other = torch.randn_like(z)  # the other way round too, outside [-1, 1]
    torch.testing.assert_close(codec.encode(codec.decode(other)), other, atol=1e-6, rtol=0)


def test_black_is_minus_one_and_white_is_one():
    codec = PixelCodec(1)
    assert codec.encode(torch.tensor([[[[0.0, 0.5, 1.0]]]])).tolist() == [[[[-1.0, 0.0, 1.0]]]]
    assert codec.paints


def test_a_position_of_z_holds_the_pixels_of_its_square():
    image = torch.zeros(1, 1, 4, 6)
    image[0, 0, 2:4, 4:6] = 1
    z = PixelCodec(1, patch=2).encode(image)
    assert (z[0, :, 1, 2] == 1).all()
    assert (z.sum() == 4 - (24 - 4)).all()


@pytest.mark.parametrize("patch", [1, 2, 3])
def test_a_square_is_known_only_where_all_of_it_is(patch):
    torch.manual_seed(0)
    mask = torch.rand(2, 1, 6, 12) > 0.2
    small = PixelCodec(3, patch=patch).shrink(mask)
    assert small.dtype == torch.bool
    for b, i, j in torch.cartesian_prod(
        torch.arange(2), torch.arange(6 // patch), torch.arange(12 // patch)
    ).tolist():
        square = mask[b, 0, i * patch : (i + 1) * patch, j * patch : (j + 1) * patch]
        assert small[b, 0, i, j] == square.all()


def test_whole_cells_at_a_ragged_border_and_with_reach():
    mask = torch.ones(1, 1, 10, 10)
    mask[0, 0, 9, 9] = 0
    assert whole_cells(mask, 4)[0, 0].tolist() == [[1, 1, 1], [1, 1, 1], [1, 1, 0]]
    assert whole_cells(mask, 4, reach=1)[0, 0].tolist() == [[1, 1, 1], [1, 0, 0], [1, 0, 0]]


def test_pictures_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="multiples of 4, got 10 x 8"):
        PixelCodec(1, patch=4).encode(torch.rand(1, 1, 10, 8))
    with pytest.raises(DataError, match=r"\[B, 3, H, W\], got \[1, 1, 8, 8\]"):
        PixelCodec(3).encode(torch.rand(1, 1, 8, 8))
    with pytest.raises(ConfigError):
        PixelCodec(3, patch=0)
