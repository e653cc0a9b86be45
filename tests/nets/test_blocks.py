import pytest
import torch
import torch.nn.functional as F
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D

from anodiff.nets.blocks import Downsample, ResBlock, Upsample, halved, joined, resized
from anodiff.nets.norm import AdaGN, AddGN, groups_for, silu


@pytest.mark.parametrize(
    ("channels", "groups", "want"), [(96, 32, 32), (160, 32, 32), (152, 32, 19), (7, 4, 1), (6, 32, 6)]
)
def test_groups_divide(channels, groups, want):
    assert groups_for(channels, groups) == want


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_adagn_is_the_formula(layout):
    torch.manual_seed(0)
    net = AdaGN(12, 7, groups=4)
    h, embed = torch.randn(3, 12, 5, 6).contiguous(memory_format=layout), torch.randn(3, 7)
    scale, shift = net.affine(embed)[:, :, None, None].chunk(2, 1)
    parts = h.reshape(3, 4, -1).double()
    normal = (parts - parts.mean(-1, keepdim=True)) / (
        parts.var(-1, correction=0, keepdim=True) + 1e-5
    ).sqrt()
    want = (1 + scale) * normal.view(3, 12, 5, 6).float() + shift
    torch.testing.assert_close(net(h, embed), want, atol=1e-5, rtol=0)


def test_both_layouts_have_the_same_gradients():
    torch.manual_seed(0)
    net = AdaGN(12, 7, groups=4).double()
    start, embed, weight = (
        torch.randn(3, 12, 5, 6).double(),
        torch.randn(3, 7).double(),
        torch.randn(3, 12, 5, 6),
    )
    grads = []
    for layout in (torch.contiguous_format, torch.channels_last):
        h = start.contiguous(memory_format=layout).requires_grad_()
        grads.append(torch.autograd.grad((net(h, embed) * weight).sum(), [h, *net.parameters()]))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("size", ["stays", "halves", "doubles"])
@pytest.mark.parametrize("modulation", ["adagn", "add"])
@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_residual_block_equals_that_of_diffusers(size, modulation, rescale, layout):
    torch.manual_seed(0)
    ours = ResBlock(8, 12, embed=16, groups=4, modulation=modulation, rescale=rescale, eps=1e-6)
    twin = ResnetBlock2D(
        in_channels=8,
        out_channels=12,
        temb_channels=16,
        groups=4,
        eps=1e-6,
        time_embedding_norm="scale_shift" if modulation == "adagn" else "default",
        output_scale_factor=2**0.5 if rescale else 1.0,
        down=size == "halves",
        up=size == "doubles",
    )
    torch.nn.init.normal_(ours.last.weight)
    pairs = [
        (ours.norm, twin.norm1),
        (ours.conv, twin.conv1),
        (ours.last, twin.conv2),
        (ours.skip, twin.conv_shortcut),
    ]
    if isinstance(ours.adapt, AddGN):
        torch.nn.init.normal_(ours.adapt.norm.weight)
        pairs += [(ours.adapt.shift, twin.time_emb_proj), (ours.adapt.norm, twin.norm2)]
    else:
        pairs += [(ours.adapt.affine, twin.time_emb_proj)]
    for mine, theirs in pairs:
        theirs.load_state_dict(mine.state_dict())
    ours, twin = ours.double().to(memory_format=layout), twin.double()
    h = torch.randn(2, 8, 10, 6).double().contiguous(memory_format=layout)
    embed = torch.randn(2, 16).double()
    target = {"stays": None, "halves": (5, 3), "doubles": (20, 12)}[size]
    # diffusers applies the SiLU of the embedding inside the block, ours has it done once before.
    want = twin(h, embed)
    torch.testing.assert_close(ours(h, F.silu(embed), target), want, atol=1e-10, rtol=0)
    with torch.no_grad():  # where sums and activations are written over what nobody else holds
        torch.testing.assert_close(ours(h, F.silu(embed), target), want, atol=1e-10, rtol=0)


@pytest.mark.parametrize("pad", ["both", "after"])
def test_the_changes_of_size_equal_those_of_diffusers(pad):
    torch.manual_seed(0)
    down = Downsample(4, pad=pad).double()
    twin = Downsample2D(4, use_conv=True, padding=1 if pad == "both" else 0).double()
    twin.conv.load_state_dict(down.conv.state_dict())
    h, embed = torch.randn(2, 4, 8, 6).double(), torch.zeros(2, 1)
    torch.testing.assert_close(down(h, embed, (4, 3)), twin(h), atol=1e-12, rtol=0)
    up = Upsample(4).double()
    twin = Upsample2D(4, use_conv=True).double()
    twin.conv.load_state_dict(up.conv.state_dict())
    torch.testing.assert_close(up(h, embed, (16, 12)), twin(h), atol=1e-12, rtol=0)


def test_squares_cut_by_an_odd_side_are_the_mean_of_what_they_hold():
    h = torch.arange(15.0).view(1, 1, 3, 5)
    want = torch.tensor([[3.0, 5.0, 6.5], [10.5, 12.5, 14.0]])
    assert torch.equal(resized(h, (2, 3))[0, 0], want)
    assert torch.equal(resized(want[None, None], (3, 5))[0, 0, :, 4], torch.tensor([6.5, 6.5, 14.0]))
    assert resized(h, (3, 5)) is h


def test_rescaling_keeps_a_unit_variance_and_does_not_touch_the_shortcut():
    torch.manual_seed(0)
    a, b = torch.randn(2, 200_000)
    kept = a.clone()
    assert abs(joined(a, b, rescale=True).var() - 1) < 0.02
    assert abs(joined(a, b, rescale=False).var() - 2) < 0.04
    with torch.no_grad():
        assert abs(joined(a, b.clone(), rescale=True).var() - 1) < 0.02
    assert torch.equal(a, kept)


def test_the_activation_keeps_what_gradients_need():
    h = torch.randn(5, requires_grad=True)
    assert torch.equal(silu(h), F.silu(h))
    with torch.no_grad():
        fresh = h.clone()
        assert torch.equal(silu(fresh), F.silu(h))


def test_the_block_starts_as_its_shortcut():
    block = ResBlock(6, 6, embed=4, groups=2)
    torch.nn.init.zeros_(block.last.bias)
    h = torch.randn(1, 6, 4, 4)
    assert torch.equal(block(h, torch.randn(1, 4)), h)


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (1, 3)])
@pytest.mark.parametrize("pad", ["both", "after"])
def test_down_and_up_return_to_the_size(size, pad):
    h, embed = torch.randn(1, 4, *size), torch.zeros(1, 1)
    small = Downsample(4, pad=pad)(h, embed, halved(size))
    assert small.shape == (1, 4, -(-size[0] // 2), -(-size[1] // 2))
    assert Upsample(4)(small, embed, size).shape == h.shape
