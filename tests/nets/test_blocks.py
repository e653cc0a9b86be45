import pytest
import torch
import torch.nn.functional as F
from diffusers.models.resnet import ResnetBlock2D

from anodiff.nets.blocks import Downsample, ResBlock, Upsample, halved
from anodiff.nets.norm import AdaGN, groups_for


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


def test_the_residual_block_equals_that_of_diffusers():
    torch.manual_seed(0)
    ours = ResBlock(8, 12, embed=16, groups=4)
    twin = ResnetBlock2D(
        in_channels=8,
        out_channels=12,
        temb_channels=16,
        groups=4,
        eps=1e-5,
        time_embedding_norm="scale_shift",
    )
    torch.nn.init.normal_(ours.last.weight)
    pairs = [
        (ours.norm, twin.norm1),
        (ours.conv, twin.conv1),
        (ours.adapt.affine, twin.time_emb_proj),
        (ours.last, twin.conv2),
        (ours.skip, twin.conv_shortcut),
    ]
    for mine, theirs in pairs:
        theirs.load_state_dict(mine.state_dict())
    h, embed = torch.randn(2, 8, 9, 7), torch.randn(2, 16)
    # diffusers applies the SiLU of the embedding inside the block, ours has it done once before.
    torch.testing.assert_close(ours(h, F.silu(embed)), twin(h, embed), atol=1e-5, rtol=1e-5)


def test_the_block_starts_as_its_shortcut():
    block = ResBlock(6, 6, embed=4, groups=2)
    torch.nn.init.zeros_(block.last.bias)
    h = torch.randn(1, 6, 4, 4)
    assert torch.equal(block(h, torch.randn(1, 4)), h)


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (1, 3)])
def test_down_and_up_return_to_the_size(size):
    h, embed = torch.randn(1, 4, *size), torch.zeros(1, 1)
    small = Downsample(4)(h, embed, halved(size))
    assert small.shape == (1, 4, -(-size[0] // 2), -(-size[1] // 2))
    assert Upsample(4)(small, embed, size).shape == h.shape
