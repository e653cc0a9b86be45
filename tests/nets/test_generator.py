import numpy as np
import pytest
import torch

from anodiff.cond import Cond
from anodiff.errors import ConfigError
from anodiff.nets.generator import SILU_GAIN, Generator, MappingNetwork
from anodiff.nets.unet import UNet

SMALL = {"in_channels": 2, "out_channels": 3, "width": 8, "multipliers": (1, 2), "blocks": 1, "groups": 4}


def made(*, seed: int = 0, latent: int = 6, limit: float | None = None, **switches) -> Generator:
    torch.manual_seed(seed)
    return Generator(UNet(**SMALL | switches), latent=latent, hidden=16, limit=limit)


def stirred(unet: UNet) -> UNet:
    for p in unet.parameters():
        if not p.any():
            torch.nn.init.normal_(p, std=0.1)
    return unet


def rms(h: torch.Tensor) -> float:
    return h.square().mean().sqrt().item()


@pytest.mark.parametrize("resample", ["conv", "residual", "fir"])
@pytest.mark.parametrize("modulation", ["adagn", "add"])
def test_a_fresh_one_draws_by_its_latent(resample, modulation):
    net = made(resample=resample, modulation=modulation)
    x, t = torch.randn(1, 2, 16, 16).expand(64, -1, -1, -1), torch.tensor(2.0)
    y = net(x, t, torch.randn(64, 6))
    assert 0.1 < rms(y) < 3
    spread = rms(y - y.mean(0))  # over latents, at one x and t
    assert spread > 0.1 * rms(y)
    w = torch.randn(64, 6)
    assert torch.equal(net(x, t, w), net(x, t, w))


def test_a_unet_by_itself_would_not():
    unet = UNet(**SMALL)
    style = torch.randn(2, unet.embed)
    assert not unet(torch.randn(2, 2, 8, 8), torch.tensor(2.0), style=style).any()


def test_what_has_learnt_is_left_as_it_is():
    torch.manual_seed(3)
    unet = stirred(UNet(**SMALL))
    before = {k: v.clone() for k, v in unet.state_dict().items()}
    net = Generator(unet, latent=4)
    assert all(torch.equal(v, before[k]) for k, v in net.unet.state_dict().items())


def test_the_mapping_is_pixel_norm_and_layers_with_silu_between():
    torch.manual_seed(0)
    net = MappingNetwork(5, 7, layers=3, hidden=9).double()
    for layer in net.layers:
        torch.nn.init.normal_(layer.bias)
    w = torch.randn(4, 5).double()
    h = w.numpy() / np.sqrt((w.numpy() ** 2).mean(1, keepdims=True) + 1e-8)
    for i, layer in enumerate(net.layers):
        if i:
            h = h / (1 + np.exp(-h))
        h = h @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
    np.testing.assert_allclose(net(w).detach(), h, atol=1e-12)
    torch.testing.assert_close(net(5 * w), net(w), atol=1e-6, rtol=0)  # a direction, not a length


@pytest.mark.parametrize("layers", [1, 2, 4, 8])
def test_a_fresh_style_is_of_unit_variance_and_moves_with_its_latent(layers):
    torch.manual_seed(0)
    net = MappingNetwork(64, 128, layers=layers, hidden=256)
    style = net(torch.randn(500, 64))
    assert 0.7 < rms(style) < 1.4
    assert rms(style - style.mean(0)) > 0.5  # what a constant part would take away
    g = torch.randn(1_000_000)
    assert abs(SILU_GAIN * rms(torch.nn.functional.silu(g)) - 1) < 0.01


def test_the_middle_of_the_latents_is_a_number_and_has_a_gradient():
    net = made()
    w = torch.zeros(2, 6, requires_grad=True)
    y = net(torch.randn(2, 2, 8, 8), torch.tensor(1.0), w)
    y.square().sum().backward()
    assert y.isfinite().all()
    assert w.grad.isfinite().all()


def test_bounded_is_the_tanh_of_unbounded():
    free, bound = made(), made(limit=1.0)
    x, w = 30 * torch.randn(4, 2, 8, 8), torch.randn(4, 6)
    with torch.no_grad():
        free.unet.last.bias += 2
    bound.load_state_dict(free.state_dict())
    y = free(x, torch.tensor(1.0), w)
    assert y.max() > 1
    torch.testing.assert_close(bound(x, torch.tensor(1.0), w), y.tanh())


def test_time_label_and_latent_matter_and_a_row_is_the_same_alone():
    net = made(classes=3, resample="fir").eval()
    x, t, w = torch.randn(3, 2, 9, 7), torch.tensor([0.0, 1.0, 3.0]), torch.randn(3, 6)
    label = torch.tensor([0, 1, 2])
    y = net(x, t, w, Cond(label=label))
    assert y.shape == (3, 3, 9, 7)
    for changed in (
        net(x, t + 1, w, Cond(label=label)),
        net(x, t, w, Cond(label=(label + 1) % 3)),
        net(x, t, w.roll(1, 0), Cond(label=label)),
    ):
        assert (changed - y).abs().amax((1, 2, 3)).min() > 1e-3
    for i in range(3):
        alone = net(x[i : i + 1], t[i : i + 1], w[i : i + 1], Cond(label=label[i : i + 1]))
        torch.testing.assert_close(alone[0], y[i], atol=1e-5, rtol=1e-5)


def test_gradient_reaches_every_parameter_of_a_fresh_one():
    net = made(classes=2, resample="fir", patch=2)
    y = net(
        torch.randn(3, 2, 8, 8),
        torch.tensor(1.0),
        torch.randn(3, 6),
        Cond(label=torch.tensor([0, 1, 1]), keep=torch.tensor([True, True, False])),
    )
    (y * torch.randn_like(y)).sum().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_it_tells_what_its_unet_tells():
    net = made(classes=3, patch=2)
    assert (net.reads, net.classes, net.stride, net.patch) == (frozenset({"label"}), 3, 4, 2)
    plain = made()
    assert (plain.reads, plain.classes, plain.stride, plain.patch) == (frozenset(), None, 2, 1)


@pytest.mark.parametrize("shape", [(2, 5), (1, 6), (2, 6, 1)])
def test_a_latent_that_does_not_fit_is_refused(shape):
    with pytest.raises(ConfigError, match=r"latent of shape \[2, 6\], got"):
        made()(torch.randn(2, 2, 8, 8), torch.tensor(1.0), torch.randn(shape))


@pytest.mark.parametrize("numbers", [{"latent": 0}, {"latent": 3, "layers": 0}, {"latent": 3, "hidden": 0}])
def test_a_mapping_without_layers_is_refused(numbers):
    with pytest.raises(ConfigError, match="at least 1 for each"):
        Generator(UNet(**SMALL), **numbers)


def test_a_style_of_zero_is_none_and_another_is_added_before_the_silu():
    torch.manual_seed(0)
    unet = stirred(UNet(**SMALL, classes=2)).eval()
    x, t, cond = torch.randn(2, 2, 8, 8), torch.tensor([1.0, 2.0]), Cond(label=torch.tensor([0, 1]))
    y = unet(x, t, cond)
    assert torch.equal(unet(x, t, cond, style=torch.zeros(2, unet.embed)), y)
    style = torch.randn(2, unet.embed)
    moved = unet(x, t, cond, style=style)
    assert (moved - y).abs().max() > 1e-2
    with torch.no_grad():
        unet.time.mlp[-1].bias += style[0]  # the same as a style that every row shares
    torch.testing.assert_close(unet(x, t, cond)[0], moved[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(1, 32), (2, 31), (32,)])
def test_a_style_that_does_not_fit_is_refused(shape):
    with pytest.raises(ConfigError, match=r"style of shape \[2, 32\], got"):
        UNet(**SMALL)(torch.randn(2, 2, 8, 8), torch.tensor(1.0), style=torch.randn(shape))
