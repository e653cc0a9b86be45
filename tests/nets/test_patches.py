import pytest
import torch
from torch import nn

from anodiff.errors import ConfigError, DataError
from anodiff.nets.patches import PatchDiscriminator


def made(*, layers: int = 2, width: int = 8, **options) -> PatchDiscriminator:
    torch.manual_seed(0)
    return PatchDiscriminator(3, width, layers, **options)


@pytest.mark.parametrize(("layers", "sees"), [(1, 16), (2, 34), (3, 70)])
def test_a_logit_sees_the_paper_s_patch(layers, sees):
    net = made(layers=layers).double()
    net.norms = nn.ModuleList(nn.Identity() for _ in net.norms)  # these see the whole picture
    size = 12 * 2**layers
    x = torch.randn(1, 3, size, size, dtype=torch.float64, requires_grad=True)
    logits = net(x)
    assert logits.shape == (1, 1, 10, 10)
    (grad,) = torch.autograd.grad(logits[0, 0, 5, 5], x)
    seen = grad.abs().amax((0, 1)) > 0
    assert net.sees == sees
    assert (seen.any(0).sum(), seen.any(1).sum()) == (sees, sees)


@pytest.mark.parametrize("size", [(8, 8), (24, 12), (13, 31), (64, 48)])
def test_the_sizes_are_as_told(size):
    net = made()
    if min(size) < 12:
        with pytest.raises(DataError, match="needs 12 pixels a side or more, got 8 x 8"):
            net(torch.rand(1, 3, *size))
    else:
        assert net(torch.rand(2, 3, *size)).shape == (2, 1, size[0] // 4 - 2, size[1] // 4 - 2)


def test_a_row_does_not_depend_on_its_batch_in_training_either():
    net = made().double()
    x = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(net(x)[2:3], net(torch.cat([x[2:3], 9 * x[:1]]))[:1], atol=1e-12, rtol=0)


def test_the_first_weights_have_the_paper_s_deviation_and_no_bias():
    net = made(width=32)
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == 4
    assert [c.out_channels for c in convs] == [32, 64, 128, 1]
    for conv in convs:
        assert float(conv.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
        assert not conv.bias.any()
    assert made(layers=5, width=2).convs[-1].out_channels == 16  # eight widths at most


def test_it_learns_to_tell_stripes_from_noise():
    net = made()
    optimiser = torch.optim.Adam(net.parameters(), 1e-3)
    stripes = (torch.arange(32) % 4 < 2).float().mul(2).sub(1).expand(4, 3, 32, 32)
    for step in range(40):
        fake = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(step))
        loss = torch.relu(1 - net(stripes)).mean() + torch.relu(1 + net(fake)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.5
    assert net(stripes).min() > 0 > net(torch.randn(1, 3, 32, 32)).max()


def test_what_makes_no_network_is_refused():
    with pytest.raises(DataError, match=r"expected pictures \[B, 3, H, W\], got \[1, 1, 32, 32\]"):
        made()(torch.rand(1, 1, 32, 32))
    with pytest.raises(ConfigError, match="1 or more, got 3, 8 and 0"):
        made(layers=0)
