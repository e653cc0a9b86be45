import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.signal import upfirdn

from anodiff.nets.blocks import ResBlock, halved
from anodiff.nets.conv import interleaved
from anodiff.nets.fir import smoothed
from anodiff.nets.unet import UNet

LAYOUTS = [torch.contiguous_format, torch.channels_last]
SIZES = [(8, 6), (9, 6), (8, 5), (7, 9), (2, 2), (1, 2), (1, 1)]
SMALL = {"in_channels": 2, "out_channels": 2, "width": 8, "multipliers": (1, 2, 2), "blocks": 1, "groups": 4}
TAPS = np.array([1.0, 3.0, 3.0, 1.0])


def half_by_scipy(h: np.ndarray) -> np.ndarray:
    """One row and column of the edge before, one after (two where odd), filtered, every second one kept."""
    for axis in (2, 3):
        side = h.shape[axis]
        pads = [(0, 0)] * 4
        pads[axis] = (1, 1 + side % 2)
        full = upfirdn(TAPS / 8, np.pad(h, pads, mode="edge"), down=1, axis=axis)
        h = np.take(full, range(3, 3 + side, 2), axis=axis)  # where the whole filter lies on the map
    return h


def double_by_scipy(h: np.ndarray) -> np.ndarray:
    for axis in (2, 3):
        side = h.shape[axis]
        pads = [(0, 0)] * 4
        pads[axis] = (1, 1)
        full = upfirdn(TAPS / 4, np.pad(h, pads, mode="edge"), up=2, axis=axis)
        h = np.take(full, range(3, 3 + 2 * side), axis=axis)
    return h


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", SIZES)
def test_both_ways_are_filter_and_sampling_of_scipy_to_the_very_edge(layout, size):
    torch.manual_seed(0)
    h = torch.randn(2, 3, *size).double().contiguous(memory_format=layout)
    down = smoothed(h, halved(size))
    np.testing.assert_allclose(down, half_by_scipy(h.numpy()), atol=1e-14, rtol=0)
    up = smoothed(down, size)
    want = double_by_scipy(down.numpy())[..., : size[0], : size[1]]
    np.testing.assert_allclose(up, want, atol=1e-14, rtol=0)
    assert smoothed(h, size) is h


def test_channels_stay_side_by_side():
    h = torch.randn(2, 3, 8, 6).contiguous(memory_format=torch.channels_last)
    assert interleaved(smoothed(h, (4, 3)))
    assert interleaved(smoothed(h, (16, 12)))


@pytest.mark.parametrize("size", SIZES)
def test_a_constant_stays_what_it_is(size):
    for value in (1.0, -0.3, 1e6):
        h = torch.full((1, 2, *size), value, dtype=torch.float64)
        down = smoothed(h, halved(size))
        torch.testing.assert_close(down, torch.full_like(down, value), atol=0, rtol=1e-15)
        torch.testing.assert_close(smoothed(down, size), h, atol=0, rtol=1e-15)


def test_up_is_four_times_down_transposed_away_from_the_edge():
    torch.manual_seed(0)
    a = torch.randn(1, 1, 16, 12).double()
    b = F.pad(
        torch.randn(1, 1, 6, 4).double(), (1, 1, 1, 1)
    )  # [1, 1, 8, 6], zero where the edge would be repeated
    torch.testing.assert_close((smoothed(b, (16, 12)) * a).sum(), 4 * (b * smoothed(a, (8, 6))).sum())


def test_a_checkerboard_vanishes_where_nearest_neighbours_make_one():
    i, j = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    board = (1.0 - 2.0 * ((i + j) % 2)).view(1, 1, 16, 16)
    assert smoothed(board, (8, 8))[..., 1:-1, 1:-1].abs().max() < 1e-6
    ramp = torch.arange(8.0).view(1, 1, 1, 8).expand(1, 1, 8, 8)
    steps = smoothed(ramp, (16, 16)).diff(dim=3)[..., 1:-1]
    torch.testing.assert_close(steps, torch.full_like(steps, 0.5))  # a ramp stays a ramp, without stairs


@pytest.mark.parametrize("size", [(2, 3), (4, 5), (8, 9)])
def test_gradients_and_their_gradients(size):
    torch.manual_seed(0)
    h = torch.randn(1, 2, 4, 5).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda h: smoothed(h, size), h)
    assert torch.autograd.gradgradcheck(lambda h: smoothed(h, size).square(), h)


@pytest.mark.parametrize("size", [(5, 3), (20, 12), (19, 12)])
def test_a_block_brings_both_branches_to_the_size(size):
    torch.manual_seed(0)
    block = ResBlock(8, 12, embed=16, groups=4, filter="fir").double()
    torch.nn.init.normal_(block.last.weight, std=0.1)
    h, embed = torch.randn(2, 8, 10, 6).double(), torch.randn(2, 16).double()
    y = block.conv(smoothed(F.silu(block.norm(h)), size))
    want = block.skip(smoothed(h, size)) + block.last(F.silu(block.adapt(y, embed)))
    torch.testing.assert_close(block(h, embed, size), want, atol=1e-12, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(block(h, embed, size), want, atol=1e-12, rtol=0)
    plain = ResBlock(8, 12, embed=16, groups=4).double()
    plain.load_state_dict(block.state_dict())
    assert (plain(h, embed, size) - want).abs().max() > 1e-2


def awake(net: UNet) -> UNet:
    torch.manual_seed(1)
    for p in net.parameters():
        if not p.any():
            torch.nn.init.normal_(p, std=0.1)
    return net.eval()


@pytest.mark.parametrize("size", [(16, 12), (13, 7), (1, 1)])
@pytest.mark.parametrize("patch", [1, 2])
def test_a_network_takes_any_size_and_either_memory_format(size, patch):
    net = awake(UNet(**SMALL, resample="fir", patch=patch))
    x, t = torch.randn(2, 2, *size), torch.tensor([3.0, 800.0])
    y = net(x, t)
    assert y.shape == x.shape
    z = net.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last), t)
    torch.testing.assert_close(z, y, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(net(x[1:], t[1:])[0], y[1], atol=1e-4, rtol=1e-4)


def test_it_has_the_weights_of_residual_blocks_and_another_result():
    fir, box = (awake(UNet(**SMALL, resample=kind)) for kind in ("fir", "residual"))
    assert [(k, v.shape) for k, v in fir.state_dict().items()] == [
        (k, v.shape) for k, v in box.state_dict().items()
    ]
    fir.load_state_dict(box.state_dict())
    x, t = torch.randn(1, 2, 16, 16), torch.tensor(5.0)
    assert (fir(x, t) - box(x, t)).abs().max() > 1e-3


def test_gradient_reaches_every_parameter():
    net = awake(UNet(**SMALL, resample="fir"))
    net(torch.randn(2, 2, 9, 7), torch.tensor([3.0, 800.0])).square().sum().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []
