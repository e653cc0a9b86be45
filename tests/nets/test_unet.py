import itertools

import pytest
import torch

from anodiff.cond import Cond
from anodiff.errors import ConfigError
from anodiff.nets.unet import UNet

SMALL = {"in_channels": 3, "out_channels": 3, "width": 8, "multipliers": (1, 2), "blocks": 1, "groups": 4}


def awake(net: UNet) -> UNet:
    """The net with the layers that start at zero drawn, so that everything has an effect."""
    torch.manual_seed(1)
    for p in net.parameters():
        if not p.any():
            torch.nn.init.normal_(p, std=0.1)
    return net.eval()


@pytest.mark.parametrize("size", [(16, 16), (12, 20), (13, 7), (1, 1)])
@pytest.mark.parametrize("patch", [1, 2])
def test_the_output_has_the_size_of_the_input(size, patch):
    net = awake(UNet(**SMALL | {"out_channels": 5}, attention=(1,), patch=patch))
    y = net(torch.randn(2, 3, *size), torch.tensor([3.0, 800.0]))
    assert y.shape == (2, 5, *size)
    assert y.isfinite().all()
    assert net.stride == 2 * patch


SWITCHES = {
    "modulation": ("adagn", "add"),
    "resample": ("conv", "residual", "fir"),
    "rescale": (False, True),
    "mid_attention": (False, True),
    "pad": ("both", "after"),
}


@pytest.mark.parametrize("choice", itertools.product(*SWITCHES.values()), ids=str)
def test_every_combination_of_switches_runs_at_an_odd_size_and_teaches_all_it_has(choice):
    switches = dict(zip(SWITCHES, choice, strict=True))
    net = awake(UNet(**SMALL, attention=(0,), classes=2, frequency_shift=1, eps=1e-6, **switches))
    x, t = torch.randn(2, 3, 7, 5), torch.tensor([3.0, 800.0])
    y = net(x, t, Cond(label=torch.tensor([0, 1])))
    assert y.shape == x.shape
    y.square().sum().backward()
    dead = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().any()]
    assert [n for n in dead if "key_value.bias" not in n] == []
    assert ("mid.self" in net.places) == switches["mid_attention"]
    net.requires_grad_(False)
    with torch.no_grad():  # where sums and activations are written over what nobody else holds
        torch.testing.assert_close(net(x, t, Cond(label=torch.tensor([0, 1]))), y, atol=1e-5, rtol=1e-5)
    alone = net(x[:1], t[:1], Cond(label=torch.tensor([0])))
    torch.testing.assert_close(alone[0], y[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("switch", SWITCHES)
def test_every_switch_changes_what_the_same_weights_give(switch):
    made = []
    for value in SWITCHES[switch]:
        net = awake(UNet(**SMALL, attention=(0,), **{switch: value}))
        made.append(net(torch.ones(1, 3, 8, 8), torch.tensor(5.0)))
    assert (made[0] - made[1]).abs().max() > 1e-4


def test_the_middle_follows_the_last_level_unless_told():
    for attention, mid, want in (
        ((1,), None, True),
        ((0,), None, False),
        ((), True, True),
        ((1,), False, False),
    ):
        assert ("mid.self" in UNet(**SMALL, attention=attention, mid_attention=mid).places) == want
    assert "mid.cross" in UNet(**SMALL, mid_attention=True, token_channels=4).places


def test_it_says_which_conditions_it_reads():
    net = UNet(**SMALL, attention=(1,), classes=3, cond_channels=2, token_channels=6)
    assert (net.reads, net.classes) == (frozenset({"label", "tokens", "image"}), 3)
    plain = UNet(**SMALL)
    assert (plain.reads, plain.classes) == (frozenset(), None)
    assert UNet(**SMALL, cond_channels=1).reads == {"image"}


@pytest.mark.parametrize("channels", [1, 5, 152])
def test_any_number_of_channels(channels):
    net = UNet(in_channels=channels, out_channels=channels, width=10, multipliers=(1, 5 / 3), blocks=1)
    assert net(torch.randn(1, channels, 8, 8), torch.tensor(1.0)).shape == (1, channels, 8, 8)


def test_it_starts_at_zero():
    net = UNet(**SMALL, attention=(0, 1), classes=3)
    assert not net(torch.randn(2, 3, 8, 8), torch.tensor([1.0, 2.0])).any()


def test_gradient_reaches_every_parameter():
    net = awake(UNet(**SMALL, attention=(1,), classes=3, cond_channels=2, token_channels=6, patch=2)).train()
    cond = Cond(
        label=torch.tensor([0, 1, 2, 0]),
        image=torch.randn(4, 2, 8, 8),
        tokens=torch.randn(4, 5, 6),
        keep=torch.tensor([True, True, True, False]),
    )
    y = net(torch.randn(4, 3, 8, 8), torch.rand(4) * 1000, cond)
    (y * torch.randn_like(y)).sum().backward()
    dead = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    # A softmax does not see a constant added to all keys: their bias has no gradient but rounding.
    assert [name for name in dead if "key_value.bias" not in name] == []
    # every row of the label table that was named, and the null row
    assert (net.label.table.weight.grad.abs().sum(1) > 0).all()


def test_time_and_each_condition_change_the_output():
    net = awake(UNet(**SMALL, attention=(1,), classes=3, cond_channels=2, token_channels=6))
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([5.0, 5.0])
    base = Cond(label=torch.tensor([0, 0]), image=torch.zeros(2, 2, 8, 8), tokens=torch.randn(2, 4, 6))
    y = net(x, t, base)
    assert (net(x, t + 100, base) - y).abs().max() > 1e-4
    for change in (
        {"label": torch.tensor([1, 1])},
        {"image": torch.ones(2, 2, 8, 8)},
        {"tokens": torch.randn(2, 4, 6)},
        {"token_mask": torch.tensor([[1, 1, 0, 0]] * 2).bool()},
        {"token_gain": torch.tensor([[4.0, 1, 1, 1]] * 2)},
    ):
        assert (net(x, t, Cond(**{**vars(base), **change})) - y).abs().max() > 1e-5, list(change)


def test_a_row_that_is_not_kept_is_the_null_and_so_is_no_condition():
    net = awake(UNet(**SMALL, attention=(1,), classes=3, cond_channels=2, token_channels=6))
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([5.0, 70.0])
    cond = Cond(
        label=torch.tensor([1, 2]),
        image=torch.randn(2, 2, 8, 8),
        tokens=torch.randn(2, 4, 6),
        token_mask=torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]]).bool(),
        token_gain=torch.full((2, 4), 3.0),
    )
    torch.testing.assert_close(net(x, t, cond.null()), net(x, t), atol=1e-5, rtol=0)
    half = net(x, t, Cond(**{**vars(cond), "keep": torch.tensor([True, False])}))
    torch.testing.assert_close(half[0], net(x, t, cond)[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(half[1], net(x, t)[1], atol=1e-5, rtol=0)
    assert (net(x, t, cond) - net(x, t)).abs().max() > 1e-4


def test_a_row_without_a_real_token_is_the_null_and_a_number():
    net = awake(UNet(**SMALL, attention=(1,), token_channels=6))
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([5.0, 70.0])
    mask = torch.tensor([[True, False], [False, False]])
    y = net(x, t, Cond(tokens=torch.randn(2, 2, 6), token_mask=mask))
    torch.testing.assert_close(y[1], net(x, t)[1], atol=1e-5, rtol=0)


def test_conditions_it_was_not_built_for_are_ignored():
    net = awake(UNet(**SMALL))
    x, t = torch.randn(1, 3, 8, 8), torch.tensor([5.0])
    cond = Cond(label=torch.tensor([2]), image=torch.randn(1, 1, 4, 4), tokens=torch.randn(1, 2, 3))
    assert torch.equal(net(x, t, cond), net(x, t))


def test_an_edit_sees_every_layer_and_one_that_changes_nothing_is_none():
    net = awake(UNet(**SMALL, attention=(0, 1), token_channels=6))
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([5.0, 6.0])
    tokens = torch.randn(2, 4, 6)
    seen = []

    def watch(probs, place, fed):
        assert torch.equal(fed, t)
        seen.append(place)
        return probs

    y = net(x, t, Cond(tokens=tokens, edit=watch))
    torch.testing.assert_close(y, net(x, t, Cond(tokens=tokens)), atol=1e-5, rtol=0)
    assert tuple(seen) == net.places
    assert len(set(seen)) == len(seen) == 14
    assert {"down.1.0.self", "mid.cross", "up.0.1.cross"} <= set(seen)
    flat = net(x, t, Cond(tokens=tokens, edit=lambda p, place, _: torch.full_like(p, 1 / p.shape[-1])))
    assert (flat - y).abs().max() > 1e-5


def test_a_row_is_the_same_alone_and_in_a_batch():
    net = awake(UNet(**SMALL, attention=(1,), classes=3, resample="residual", rescale=True)).double()
    x, t = torch.randn(5, 3, 12, 8).double(), torch.rand(5) * 1000
    label = torch.tensor([0, 1, 2, 0, 1])
    for kind in (torch.float64, torch.float32):
        net = net.to(kind)
        y = net(x.to(kind), t, Cond(label=label))
        for i in range(5):
            alone = net(x[i : i + 1].to(kind), t[i : i + 1], Cond(label=label[i : i + 1]))
            torch.testing.assert_close(alone[0], y[i], atol=1e-5, rtol=0)


@pytest.mark.parametrize("resample", ["conv", "residual"])
def test_the_memory_format_does_not_change_the_result(resample):
    net = awake(UNet(**SMALL, attention=(1,), resample=resample))
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([5.0, 6.0])
    y = net(x, t)
    z = net.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last), t)
    torch.testing.assert_close(y, z, atol=1e-5, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(
            net(x.contiguous(memory_format=torch.channels_last), t), y, atol=1e-5, rtol=0
        )


def test_dropout_acts_in_training_only():
    net = awake(UNet(**SMALL, dropout=0.5))
    x, t = torch.randn(1, 3, 8, 8), torch.tensor([5.0])
    assert torch.equal(net(x, t), net(x, t))
    net.train()
    assert not torch.equal(net(x, t), net(x, t))


def test_it_learns():
    torch.manual_seed(0)
    net = UNet(**SMALL)
    x, target = torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8)
    optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(60):
        loss = (net(x, torch.arange(4.0)) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.5 * target.square().mean()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"attention": (2,)}, "levels 0..1"),
        ({"attention": (1,), "heads": 3}, "must divide"),
        ({"attention": (1,), "head_channels": 6, "heads": 5}, "16 channels at 'down.1.0'"),
        ({"token_channels": 4}, "name levels"),
        ({"modulation": "film"}, "adagn, add, got 'film'"),
        ({"resample": "lanczos"}, "conv, residual, fir, got 'lanczos'"),
        ({"pad": "same"}, "both, after, got 'same'"),
        ({"multipliers": ()}, "needs a level"),
        ({"blocks": 0}, "needs a level and a block"),
    ],
)
def test_a_network_that_cannot_be_built_says_why(change, says):
    with pytest.raises(ConfigError, match=says):
        UNet(**SMALL | change)


def test_inputs_that_do_not_fit_say_what_was_expected():
    net = UNet(**SMALL, cond_channels=2)
    with pytest.raises(ConfigError, match=r"\[B, 3, H, W\], got \[1, 4, 8, 8\]"):
        net(torch.randn(1, 4, 8, 8), torch.tensor([1.0]))
    with pytest.raises(ConfigError, match=r"got \[3, 8, 8\]"):
        net(torch.randn(3, 8, 8), torch.tensor([1.0]))
    with pytest.raises(ConfigError, match=r"Cond.image of shape \[1, 2, 8, 8\]"):
        net(torch.randn(1, 3, 8, 8), torch.tensor([1.0]), Cond(image=torch.randn(1, 2, 4, 4)))
