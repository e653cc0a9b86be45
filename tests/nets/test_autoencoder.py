import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Normal, kl_divergence

from anodiff.errors import ConfigError, DataError
from anodiff.nets.autoencoder import LOG_VARIANCE, Autoencoder
from anodiff.noise import PerImageNoise


def made(*, seed: int = 0, **options) -> Autoencoder:
    torch.manual_seed(seed)
    usual = {"image_channels": 3, "channels": 4, "width": 8, "multipliers": (1, 1.5, 2), "codes": 16}
    return Autoencoder(**usual | options)


def pictures(batch: int = 2, size: tuple[int, int] = (16, 24), channels: int = 3) -> torch.Tensor:
    return 2 * torch.rand(batch, channels, *size, generator=torch.Generator().manual_seed(1)) - 1


def perturbed(net: Autoencoder) -> Autoencoder:
    """The network with what starts at zero moved off it."""
    torch.manual_seed(5)
    with torch.no_grad():
        for weight in net.parameters():
            weight += 0.05 * torch.randn_like(weight)
    return net


@pytest.mark.parametrize("form", ["kl", "vq"])
@pytest.mark.parametrize(("attention", "shortcuts"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("multipliers", [(1,), (1, 2), (1, 1.5, 2), (1, 1, 1, 0.5)])
def test_codes_are_smaller_by_the_stride_and_pictures_come_back_in_their_size(
    form, attention, shortcuts, multipliers
):
    net = made(form=form, attention=attention, multipliers=multipliers, channels=5, shortcuts=shortcuts)
    x = pictures()
    assert net.stride == 2 ** (len(multipliers) - 1)
    z = net.encode(x)
    assert z.shape == (2, 5, 16 // net.stride, 24 // net.stride)
    assert net.decode(z).shape == x.shape
    torch.testing.assert_close(net(x), net.decode(z))
    code = net.code(x, torch.randn_like)
    assert code.z.shape == z.shape
    assert code.penalty.shape == (2,)
    assert (code.index is None) == (form == "kl")
    assert (net.codebook is None) == (form == "kl")


def test_a_code_is_a_draw_from_the_normal_and_its_penalty_the_divergence_summed():
    net = perturbed(made()).double()
    x = pictures(3).double()
    moments = net.quant(net.encoder(x))
    mean, deviation = moments[:, :4], (moments[:, 4:] / 2).exp()
    noise = torch.randn(3, 4, 4, 6, dtype=torch.float64)
    code = net.code(x, lambda like: noise.to(like))
    torch.testing.assert_close(code.z, mean + deviation * noise)
    want = kl_divergence(Normal(mean, deviation), Normal(0.0, 1.0)).sum((1, 2, 3))
    torch.testing.assert_close(code.penalty, want)
    torch.testing.assert_close(net.encode(x), mean)  # without chance, the mean


def test_the_divergence_of_a_standard_normal_is_nothing_and_extreme_variances_are_held():
    net = made()
    with torch.no_grad():
        net.quant.weight.zero_()
        net.quant.bias.zero_()
    assert not net.code(pictures(), torch.randn_like).penalty.any()
    for value, bound in ((-1e4, LOG_VARIANCE[0]), (1e4, LOG_VARIANCE[1])):
        with torch.no_grad():
            net.quant.bias[4:] = value
        code = net.code(pictures(), torch.ones_like)
        torch.testing.assert_close(code.z, torch.full_like(code.z, bound / 2).exp())
        elements = code.z[0].numel()
        want = 0.5 * (torch.tensor(bound).exp() - 1 - bound) * elements
        torch.testing.assert_close(code.penalty, want.expand(2))


def test_around_silent_networks_the_mean_colours_of_positions_travel_alone():
    net = made(shortcuts=True)
    with torch.no_grad():
        for layer in (net.quant, net.decoder.last):
            layer.weight.zero_()
            layer.bias.zero_()
    x = pictures()
    means = F.avg_pool2d(x, 4)
    torch.testing.assert_close(net.encode(x)[:, :3], means)
    assert not net.encode(x)[:, 3:].any()
    want = F.interpolate(means, scale_factor=4.0, mode="bilinear", align_corners=False)
    torch.testing.assert_close(net(x), want)


def test_halvings_and_doublings_pass_on_what_their_convolutions_do_not():
    net = made(shortcuts=True, multipliers=(1, 1))
    blocks = [net.encoder.levels, net.encoder.middle, net.decoder.levels, net.decoder.middle]
    with torch.no_grad():
        for layer in (*net.encoder.shrink, *net.decoder.grow):
            layer.weight.zero_()
            layer.bias.zero_()
        for part in blocks:
            for block in part.modules():
                if hasattr(block, "second") and hasattr(block, "skip"):  # residual blocks, now the identity
                    block.last.weight.zero_()
                    block.last.bias.zero_()
    x = pictures()
    h = F.avg_pool2d(net.encoder.stem(x), 2)
    assert_silu(net.encoder, h, net.encoder(x))
    z = torch.randn(2, 4, 4, 6)
    h = F.interpolate(net.decoder.stem(z), scale_factor=2.0)
    assert_silu(net.decoder, h, net.decoder(z))


def assert_silu(net: torch.nn.Module, h: torch.Tensor, got: torch.Tensor) -> None:
    """That `got` is the last layers of `net` on `h`."""
    torch.testing.assert_close(got, net.last(F.silu(net.norm(h))), atol=1e-5, rtol=1e-5)


def test_a_row_of_codes_depends_on_its_picture_and_its_noise_alone():
    net = perturbed(made()).double()
    x = pictures(3).double()
    all_rows = net.code(x, PerImageNoise([1, 2, 3]))
    one = net.code(x[1:2], PerImageNoise([2]))
    torch.testing.assert_close(one.z, all_rows.z[1:2], atol=1e-12, rtol=0)
    torch.testing.assert_close(one.penalty, all_rows.penalty[1:2])


def test_with_a_codebook_the_decoder_replaces_what_it_is_given():
    net = perturbed(made(form="vq"))
    x = pictures()
    z = net.encode(x)
    code = net.code(x, torch.randn_like)
    assert torch.equal(code.z, net.codebook.look_up(net.codebook.index(z)))
    assert not torch.equal(code.z, z)  # what is diffused comes before the codebook
    assert torch.equal(net.decode(z), net.decode(code.z))
    assert torch.equal(code.index, net.codebook.index(z))


@pytest.mark.parametrize("form", ["kl", "vq"])
def test_every_parameter_learns_from_reconstruction_and_penalty(form):
    net = perturbed(made(form=form, attention=True))
    x = pictures()
    code = net.code(x, torch.randn_like)
    loss = (net.decode(code.z) - x).abs().mean() + 1e-3 * code.penalty.mean()
    loss.backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert net.last is net.decoder.last.weight
    (slope,) = torch.autograd.grad(net.decode(net.encode(x)).mean(), net.last)
    assert slope.shape == (3, 8, 3, 3)


@pytest.mark.parametrize("form", ["kl", "vq"])
def test_a_few_steps_rebuild_what_they_see(form):
    net = made(form=form, multipliers=(1, 2), width=16, codes=64)
    x = torch.nn.functional.interpolate(pictures(4, (4, 4)), scale_factor=4, mode="bilinear")
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    noise = torch.Generator().manual_seed(0)
    first = None
    for step in range(60):
        code = net.code(x, lambda like: torch.randn(like.shape, generator=noise))
        error = (net.decode(code.z) - x).abs().mean()
        loss = error + (1e-6 if form == "kl" else 1) * code.penalty.mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if net.codebook is not None and step % 10 == 9:
            net.codebook.revive(net.encode(x).movedim(1, -1).flatten(0, -2), step)
        first = first or error.item()
    assert (net(x) - x).abs().mean() < 0.5 * first


def test_channels_may_lie_side_by_side_and_gradients_may_be_off():
    net = perturbed(made(attention=True)).double()
    x = pictures(2, (64, 64)).double()
    want = net(x).detach()
    with torch.no_grad():
        torch.testing.assert_close(net(x), want, atol=1e-10, rtol=0)
        net = net.to(memory_format=torch.channels_last)
        again = net(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(again, want, atol=1e-10, rtol=0)


def test_a_halving_sees_zeros_right_and_below_alone():
    net = made(multipliers=(1, 1), width=4)
    seen = []
    net.encoder.shrink[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    z = net.encode(pictures(1, (8, 8)))
    (h,) = seen
    assert h.shape == (1, 4, 9, 9)
    assert not h[..., -1].any()
    assert not h[..., -1, :].any()
    assert h[..., :-1, :-1].all()
    assert z.shape == (1, 4, 4, 4)
    assert net.encoder.shrink[0].padding == (0, 0)


def test_what_does_not_fit_is_refused():
    net = made()
    with pytest.raises(DataError, match="multiples of 4 pixels, got 16 x 18"):
        net.encode(torch.rand(1, 3, 16, 18))
    with pytest.raises(DataError, match=r"\[B, 3, H, W\], got \[1, 1, 16, 16\]"):
        net.code(torch.rand(1, 1, 16, 16), torch.randn_like)
    with pytest.raises(DataError, match="another autoencoder"):
        net.decode(torch.rand(1, 3, 4, 4))
    with pytest.raises(ConfigError, match="kl or vq, got 'ae'"):
        made(form="ae")
    with pytest.raises(ConfigError, match="multiplier above 0"):
        made(multipliers=())
    with pytest.raises(ConfigError, match="1 or more"):
        made(blocks=0)
