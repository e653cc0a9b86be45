import pytest
import torch
from diffusers.models.attention import FeedForward
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from anodiff.cond import Cond
from anodiff.errors import ConfigError
from anodiff.nets.attention import Attention, AttentionBlock, Seam
from anodiff.nets.embed import fourier
from anodiff.nets.place import PositionEmbedding
from anodiff.nets.transformer import GEGLU, SpatialTransformer
from anodiff.nets.unet import UNet

SMALL = {"in_channels": 3, "out_channels": 3, "width": 8, "multipliers": (1, 2), "blocks": 1, "groups": 4}
MASK = torch.tensor([[True, True, False, True, False], [True] * 5])


def awake(net: nn.Module) -> nn.Module:
    """The net with the layers that start at zero drawn, so that everything has an effect."""
    torch.manual_seed(1)
    for p in net.parameters():
        if not p.any():
            nn.init.normal_(p, std=0.1)
    return net.eval()


def drawn(net: nn.Module, seed: int = 0) -> nn.Module:
    """The net with every weight drawn anew, those of its norms among them."""
    torch.manual_seed(seed)
    for p in net.parameters():
        nn.init.normal_(p, std=0.3)
    return net


def attention_of_theirs(net: Attention, name: str) -> dict[str, torch.Tensor]:
    key, value = net.key_value.weight.chunk(2)
    key_bias, value_bias = net.key_value.bias.chunk(2)
    return {
        f"{name}.to_q.weight": net.query.weight,
        f"{name}.to_q.bias": net.query.bias,
        f"{name}.to_k.weight": key,
        f"{name}.to_k.bias": key_bias,
        f"{name}.to_v.weight": value,
        f"{name}.to_v.bias": value_bias,
        f"{name}.to_out.0.weight": net.out.weight,
        f"{name}.to_out.0.bias": net.out.bias,
    }


def named(module: nn.Module, name: str) -> dict[str, torch.Tensor]:
    return {f"{name}.{key}": value for key, value in module.state_dict().items()}


def twin(net: SpatialTransformer, *, heads: int, tokens: int) -> Transformer2DModel:
    channels = net.enter.in_channels
    made = Transformer2DModel(
        num_attention_heads=heads,
        attention_head_dim=channels // heads,
        in_channels=channels,
        num_layers=len(net.blocks),
        norm_num_groups=net.norm.num_groups,
        cross_attention_dim=tokens or None,
        attention_bias=True,
        activation_fn="geglu",
    )
    state = named(net.norm, "norm") | named(net.enter, "proj_in") | named(net.out, "proj_out")
    for i, block in enumerate(net.blocks):
        name = f"transformer_blocks.{i}"
        state |= named(block.norm, f"{name}.norm1") | attention_of_theirs(block.attend, f"{name}.attn1")
        if tokens:
            state |= named(block.cross_norm, f"{name}.norm2")
            state |= attention_of_theirs(block.cross, f"{name}.attn2")
        state |= named(block.feed_norm, f"{name}.norm3")
        state |= named(block.feed.gated, f"{name}.ff.net.0.proj") | named(block.feed.out, f"{name}.ff.net.2")
    made.load_state_dict(state)
    return made.eval()


def test_the_feed_forward_equals_that_of_diffusers():
    net = drawn(GEGLU(12))
    theirs = FeedForward(12, activation_fn="geglu")
    theirs.load_state_dict(named(net.gated, "net.0.proj") | named(net.out, "net.2"))
    x = torch.randn(2, 5, 12)
    torch.testing.assert_close(net(x), theirs(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("tokens", [0, 10])
@pytest.mark.parametrize("depth", [1, 2])
def test_it_equals_the_transformer_of_diffusers(depth, tokens, mask):
    net = SpatialTransformer(12, heads=3, place="p", groups=4, depth=depth, token_channels=tokens, eps=1e-6)
    net = drawn(net).double()
    h, seen = torch.randn(2, 12, 3, 5).double(), torch.randn(2, 5, 10).double()
    theirs = twin(net, heads=3, tokens=tokens).double()
    want = theirs(h, seen if tokens else None, encoder_attention_mask=mask if tokens else None).sample
    seam = Seam(tokens=seen, token_mask=mask)
    torch.testing.assert_close(net(h, seam), want, atol=1e-9, rtol=1e-9)
    with torch.no_grad():  # where sums are written over what nobody else holds
        torch.testing.assert_close(net(h, seam), want, atol=1e-9, rtol=1e-9)
        before = h.clone()
        net.float()(h.float(), Seam(tokens=seen.float(), token_mask=mask))
        assert torch.equal(h, before)


@pytest.mark.parametrize("rescale", [False, True])
def test_it_starts_as_the_identity_and_names_its_layers(rescale):
    net = SpatialTransformer(12, heads=3, place="mid", groups=32, depth=2, token_channels=8, rescale=rescale)
    h = torch.randn(2, 12, 3, 5)
    want = h / 2**0.5 if rescale else h
    torch.testing.assert_close(net(h, Seam(tokens=torch.randn(2, 4, 8))), want)
    places = [m.place for m in net.modules() if isinstance(m, Attention)]
    assert places == ["mid.0.self", "mid.0.cross", "mid.1.self", "mid.1.cross"]


def test_only_the_sum_with_the_map_is_rescaled():
    plain, scaled = (
        drawn(SpatialTransformer(12, heads=3, place="p", groups=4, rescale=r)) for r in (False, True)
    )
    h = torch.randn(2, 12, 3, 5)
    torch.testing.assert_close(scaled(h, Seam()), plain(h, Seam()) / 2**0.5)


def test_with_positions_equal_features_differ_by_where_they_lie():
    net = drawn(SpatialTransformer(12, heads=3, place="p", groups=4, positions=True))
    h = torch.randn(1, 12, 1, 1).expand(1, 12, 4, 6)
    y = net(h, Seam())[0].flatten(1).T  # [N, C]
    assert torch.cdist(y, y).fill_diagonal_(1).min() > 1e-4
    plain = drawn(SpatialTransformer(12, heads=3, place="p", groups=4))
    torch.testing.assert_close(plain(h, Seam()), plain(h, Seam())[..., :1, :1].expand_as(h))


def test_a_position_has_the_coordinates_that_a_box_has():
    where = PositionEmbedding(32)
    with torch.no_grad():
        where.linear.weight.copy_(torch.eye(32))
        where.linear.bias.zero_()
    rows = where(2, 4).unflatten(0, (2, 4))
    for i, j in ((0, 0), (1, 0), (0, 3), (1, 2)):
        left, top = (j + 0.5) / 4, (i + 0.5) / 2
        torch.testing.assert_close(rows[i, j], fourier(torch.tensor([left, top])).flatten())


def test_it_stands_where_attention_stands():
    for depth in (1, 2):
        net = UNet(**SMALL, attention=(0,), mid_attention=True, token_channels=6, transformer=depth)
        bare = UNet(**SMALL, attention=(0,), mid_attention=True, token_channels=6)
        want = []
        for place in bare.places:
            if place.endswith(".self"):
                stem = place.removesuffix(".self")
                want += [f"{stem}.{i}.{kind}" for i in range(depth) for kind in ("self", "cross")]
        assert net.places == tuple(want)
        assert len(set(want)) == len(want) == 8 * depth
        assert not any(isinstance(m, AttentionBlock) for m in net.modules())
    assert not any(isinstance(m, SpatialTransformer) for m in bare.modules())


def test_an_edit_sees_every_layer_and_one_that_changes_nothing_is_none():
    net = awake(UNet(**SMALL, attention=(1,), token_channels=6, transformer=2))
    x, t, tokens = torch.randn(2, 3, 8, 8), torch.tensor([5.0, 6.0]), torch.randn(2, 4, 6)
    seen = []

    def watch(probs, place, fed):
        seen.append(place)
        return probs

    y = net(x, t, Cond(tokens=tokens, edit=watch))
    torch.testing.assert_close(y, net(x, t, Cond(tokens=tokens)), atol=1e-5, rtol=0)
    assert tuple(seen) == net.places

    def flat(probs, place, fed):
        return torch.full_like(probs, 1 / probs.shape[-1]) if place == "mid.1.cross" else probs

    assert (net(x, t, Cond(tokens=tokens, edit=flat)) - y).abs().max() > 1e-6


@pytest.mark.parametrize(("rescale", "positions"), [(False, False), (True, False), (False, True)])
def test_a_network_of_them_teaches_all_it_has_and_keeps_its_laws(rescale, positions):
    net = awake(
        UNet(**SMALL, attention=(1,), token_channels=6, transformer=2, rescale=rescale, positions=positions)
    )
    x, t = torch.randn(2, 3, 7, 5), torch.tensor([5.0, 70.0])
    cond = Cond(tokens=torch.randn(2, 5, 6), token_mask=MASK, token_gain=torch.full((2, 5), 3.0))
    kept = Cond(**{**vars(cond), "keep": torch.tensor([True, False])})
    y = net(x, t, kept)
    y.square().sum().backward()
    dead = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert [n for n in dead if "key_value.bias" not in n] == []
    torch.testing.assert_close(net(x, t, cond.null()), net(x, t), atol=1e-5, rtol=0)
    torch.testing.assert_close(y[0], net(x, t, cond)[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(y[1], net(x, t)[1], atol=1e-5, rtol=0)
    assert (net(x, t, cond)[1] - y[1]).abs().max() > 1e-5
    alone = net(x[:1], t[:1], Cond(tokens=cond.tokens[:1, :4], token_mask=MASK[:1, :4]))
    ungained = net(x, t, Cond(tokens=cond.tokens, token_mask=MASK))
    torch.testing.assert_close(alone[0], ungained[0], atol=1e-5, rtol=0)
    laid = net.to(memory_format=torch.channels_last)
    with torch.no_grad():
        z = laid(x.contiguous(memory_format=torch.channels_last), t, kept)
    torch.testing.assert_close(z, y, atol=1e-5, rtol=0)


class Largest(TorchDispatchMode):
    """The most elements that any operation returned."""

    most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **kwargs or {})
        sizes = [value.numel() for value in tree_leaves(out) if isinstance(value, torch.Tensor)]
        self.most = max([self.most, *sizes])
        return out


@pytest.mark.parametrize("train", [False, True])
def test_probabilities_are_held_where_an_edit_asks_for_them_and_nowhere_else(train):
    net = SpatialTransformer(8, heads=2, place="p", groups=4, token_channels=6).train(train)
    h, side = torch.randn(1, 8, 32, 32, requires_grad=train), 32 * 32
    seam = Seam(tokens=torch.randn(1, 5, 6), token_mask=MASK[:1])
    gain = Seam(tokens=seam.tokens, token_mask=seam.token_mask, token_gain=torch.ones(1, 5))
    edit = Seam(tokens=seam.tokens, token_mask=seam.token_mask, edit=lambda p, place, t: p)
    held = []
    for each in (seam, gain, edit):
        with torch.set_grad_enabled(train), Largest() as found:
            net(h, each)
        held.append(found.most)
    assert held[0] == held[1] < side * 100  # the feed-forward's 64 channels a position
    assert held[2] == 2 * side**2


def test_a_gain_leaves_self_attention_to_the_kernel(monkeypatch):
    net = awake(UNet(**SMALL, attention=(1,), token_channels=6, transformer=1))
    ran = []
    kernel = functional.scaled_dot_product_attention
    monkeypatch.setattr(
        functional, "scaled_dot_product_attention", lambda *a, **k: ran.append(1) or kernel(*a, **k)
    )
    x, t, tokens = torch.randn(1, 3, 8, 8), torch.tensor(5.0), torch.randn(1, 4, 6)
    counts = []
    for extra in ({}, {"token_gain": torch.ones(1, 4)}, {"edit": lambda p, place, t: p}):
        ran.clear()
        net(x, t, Cond(tokens=tokens, **extra))
        counts.append(len(ran))
    assert counts == [8, 4, 0]


def test_a_gain_acts_on_its_own_word_and_in_the_numbers_of_the_network():
    net = awake(UNet(**SMALL, attention=(1,), token_channels=6)).to(torch.bfloat16)
    x, t, tokens = torch.randn(1, 3, 8, 8).bfloat16(), torch.tensor([5.0]), torch.randn(1, 4, 6)
    y = net(x, t, Cond(tokens=tokens, token_gain=torch.tensor([[1.0, 5.0, 1.0, 1.0]])))
    assert y.dtype == torch.bfloat16
    assert not torch.equal(y, net(x, t, Cond(tokens=tokens, token_gain=torch.ones(1, 4))))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"transformer": -1, "attention": (1,)}, "0 for attention alone, got -1"),
        ({"transformer": 1}, "transformer is set but no level has attention"),
        ({"positions": True, "attention": (1,)}, "there are none: set transformer to 1"),
        ({"transformer": 1, "attention": (1,), "heads": 3}, "must divide"),
    ],
)
def test_a_network_that_cannot_be_built_says_why(change, says):
    with pytest.raises(ConfigError, match=says):
        UNet(**SMALL | change)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tokens": torch.zeros(2, 4, 5)}, r"Cond.tokens of shape \[2, L, 6\], got \[2, 4, 5\]"),
        ({"tokens": torch.zeros(1, 4, 6)}, r"got \[1, 4, 6\]"),
        ({"tokens": torch.zeros(2, 6)}, r"got \[2, 6\]"),
        ({"token_mask": torch.ones(2, 3).bool()}, r"Cond.token_mask of shape \[2, 4\].* got \[2, 3\]"),
        ({"token_gain": torch.ones(4)}, r"Cond.token_gain of shape \[2, 4\].* got \[4\]"),
    ],
)
def test_tokens_that_do_not_fit_say_what_was_expected(change, says):
    net = UNet(**SMALL, attention=(1,), token_channels=6)
    cond = Cond(**{"tokens": torch.zeros(2, 4, 6)} | change)
    with pytest.raises(ConfigError, match=says):
        net(torch.randn(2, 3, 8, 8), torch.tensor(1.0), cond)
