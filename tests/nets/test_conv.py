import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from anodiff.nets.blocks import halved
from anodiff.nets.conv import Pointwise, enlarged, interleaved

LAYOUTS = [torch.contiguous_format, torch.channels_last]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [(10, 6), (9, 6), (9, 5), (40, 32), (39, 32), (39, 31)])
def test_the_convolution_of_an_enlarged_map_and_its_gradients_are_those_of_the_two_steps(layout, size):
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, 3, padding=1).double()
    h = torch.randn(2, 4, *halved(size)).double().contiguous(memory_format=layout).requires_grad_()
    weight = torch.randn(2, 6, *size).double()
    inputs = [h, conv.weight, conv.bias]
    want = conv(F.interpolate(h, size=size, mode="nearest"))
    got = enlarged(h, conv, size)
    torch.testing.assert_close(got, want, atol=1e-12, rtol=0)
    for a, b in zip(
        torch.autograd.grad((got * weight).sum(), inputs),
        torch.autograd.grad((want * weight).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-11, rtol=0)
    assert interleaved(got) == (layout == torch.channels_last)


def test_an_enlarged_map_costs_less_where_channels_lie_side_by_side():
    conv = nn.Conv2d(8, 8, 3, padding=1)
    counts = []
    for layout in LAYOUTS:
        h = torch.randn(1, 8, 16, 16).contiguous(memory_format=layout)
        with FlopCounterMode(display=False) as counter:
            enlarged(h, conv, (32, 32))
        counts.append(counter.get_total_flops())
    assert counts[0] > 1.9 * counts[1]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_pointwise_convolution_is_one(layout):
    torch.manual_seed(0)
    ours, twin = Pointwise(5, 7).double(), nn.Conv2d(5, 7, 1).double()
    twin.load_state_dict(ours.state_dict())
    h = torch.randn(2, 5, 4, 3).double().contiguous(memory_format=layout)
    torch.testing.assert_close(ours(h), twin(h), atol=1e-12, rtol=0)
    assert interleaved(ours(h)) == (layout == torch.channels_last)
