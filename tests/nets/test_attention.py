import pytest
import torch
from diffusers.models.attention_processor import Attention as DiffusersAttention
from torch import nn

from anodiff.nets.attention import Attention, AttentionBlock, Seam, heads_for


def torch_twin(net: Attention, channels: int) -> nn.MultiheadAttention:
    twin = nn.MultiheadAttention(channels, net.heads, kdim=net.context, vdim=net.context, batch_first=True)
    key, value = net.key_value.weight.chunk(2)
    key_bias, value_bias = net.key_value.bias.chunk(2)
    with torch.no_grad():
        if net.context is None or net.context == channels:
            twin.in_proj_weight.copy_(torch.cat([net.query.weight, key, value]))
        else:
            twin.q_proj_weight.copy_(net.query.weight)
            twin.k_proj_weight.copy_(key)
            twin.v_proj_weight.copy_(value)
        twin.in_proj_bias.copy_(torch.cat([net.query.bias, key_bias, value_bias]))
        twin.out_proj.weight.copy_(net.out.weight)
        twin.out_proj.bias.copy_(net.out.bias)
    return twin


def test_self_attention_equals_torch_multihead():
    torch.manual_seed(0)
    net = Attention(24, heads=3, place="p")
    x = torch.randn(2, 10, 24)
    torch.testing.assert_close(net(x, Seam()), torch_twin(net, 24)(x, x, x)[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("context", [16, 24])
def test_cross_attention_with_a_mask_equals_torch_multihead(context):
    torch.manual_seed(0)
    net = Attention(24, heads=2, place="p", context=context)
    x, tokens = torch.randn(2, 10, 24), torch.randn(2, 7, context)
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[1, 4:] = False
    want = torch_twin(net, 24)(x, tokens, tokens, key_padding_mask=~mask)[0]
    torch.testing.assert_close(net(x, Seam(tokens=tokens, token_mask=mask)), want, atol=1e-5, rtol=0)


@pytest.mark.parametrize("context", [None, 16])
def test_an_edit_that_changes_nothing_is_no_edit(context):
    torch.manual_seed(0)
    net = Attention(32, heads=4, place="down.1.0.self", context=context)
    x, tokens = torch.randn(3, 20, 32), torch.randn(3, 5, 16)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 1, 0, 1]]).bool()
    seen = []

    def watch(probs, place, t):
        seen.append((tuple(probs.shape), place, t.tolist()))
        torch.testing.assert_close(probs.sum(-1), torch.ones(probs.shape[:-1]))
        return probs

    t = torch.tensor([1.0, 2.0, 3.0])
    plain = net(x, Seam(tokens=tokens, token_mask=mask, t=t))
    edited = net(x, Seam(tokens=tokens, token_mask=mask, t=t, edit=watch))
    torch.testing.assert_close(plain, edited, atol=1e-5, rtol=0)
    assert seen == [((3, 4, 20, 5 if context else 20), "down.1.0.self", [1.0, 2.0, 3.0])]


def test_a_gain_of_one_is_no_gain_and_a_gain_of_zero_takes_a_token_out():
    torch.manual_seed(0)
    net = Attention(16, heads=2, place="p", context=8)
    x, tokens = torch.randn(2, 6, 16), torch.randn(2, 4, 8)
    plain = net(x, Seam(tokens=tokens))
    torch.testing.assert_close(
        net(x, Seam(tokens=tokens, token_gain=torch.ones(2, 4))), plain, atol=1e-5, rtol=0
    )
    gain = torch.ones(2, 4)
    gain[:, 1] = 0
    got = []
    net(x, Seam(tokens=tokens, token_gain=gain, edit=lambda p, place, t: got.append(p) or p))
    value = net.key_value(tokens)[..., 16:].view(2, 4, 2, 8).transpose(1, 2)
    want = net.out(((got[0] * gain[:, None, None]) @ value).transpose(1, 2).flatten(2))
    torch.testing.assert_close(net(x, Seam(tokens=tokens, token_gain=gain)), want, atol=1e-5, rtol=0)
    assert (want - plain).abs().max() > 1e-3


def test_an_edit_decides_where_attention_goes():
    net = Attention(16, heads=2, place="p")
    x = torch.randn(1, 5, 16)
    first = torch.zeros(1, 2, 5, 5)
    first[..., 0] = 1
    out = net(x, Seam(edit=lambda p, place, t: first))
    torch.testing.assert_close(out, out[:, :1].expand_as(out))


def test_self_attention_does_not_read_the_tokens_mask_or_gain():
    net = Attention(16, heads=2, place="p")
    x = torch.randn(1, 5, 16)
    seam = Seam(tokens=torch.randn(1, 3, 8), token_gain=torch.zeros(1, 3), token_mask=torch.ones(1, 3).bool())
    assert torch.equal(net(x, seam), net(x, Seam()))


def test_cross_attention_without_tokens_says_what_it_needs():
    with pytest.raises(ValueError, match=r"needs tokens \[B, L, 8\]"):
        Attention(16, heads=2, place="p", context=8)(torch.randn(1, 5, 16), Seam())


def test_the_block_starts_as_the_identity_and_names_its_layers():
    block = AttentionBlock(12, heads=3, place="mid", groups=32, token_channels=8)
    nn.init.zeros_(block.attend.out.bias)
    nn.init.zeros_(block.cross.out.bias)
    h = torch.randn(2, 12, 3, 5)
    torch.testing.assert_close(block(h, Seam(tokens=torch.randn(2, 4, 8))), h)
    assert (block.attend.place, block.cross.place) == ("mid.self", "mid.cross")


@pytest.mark.parametrize("rescale", [False, True])
def test_the_block_equals_that_of_diffusers(rescale):
    torch.manual_seed(0)
    block = AttentionBlock(12, heads=3, place="p", groups=4, eps=1e-6, rescale=rescale).double()
    nn.init.normal_(block.attend.out.weight)
    twin = DiffusersAttention(
        12,
        heads=3,
        dim_head=4,
        norm_num_groups=4,
        eps=1e-6,
        bias=True,
        residual_connection=True,
        rescale_output_factor=2**0.5 if rescale else 1.0,
    ).double()
    key, value = block.attend.key_value.weight.chunk(2)
    key_bias, value_bias = block.attend.key_value.bias.chunk(2)
    twin.group_norm.load_state_dict(block.norm.state_dict())
    twin.to_q.load_state_dict(block.attend.query.state_dict())
    twin.to_k.load_state_dict({"weight": key, "bias": key_bias})
    twin.to_v.load_state_dict({"weight": value, "bias": value_bias})
    twin.to_out[0].load_state_dict(block.attend.out.state_dict())
    h = torch.randn(2, 12, 3, 5).double()
    want = twin(h)
    torch.testing.assert_close(block(h, Seam()), want, atol=1e-10, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(block(h, Seam()), want, atol=1e-10, rtol=0)


@pytest.mark.parametrize(
    ("channels", "want"), [(64, 1), (160, 2), (96, 1), (50, 1), (512, 8), (130, 2), (195, 3)]
)
def test_heads_divide_and_leave_the_wanted_channels(channels, want):
    assert heads_for(channels, heads=None, head_channels=64) == want
    assert heads_for(channels, heads=5, head_channels=64) == 5
