import copy

import pytest
import torch
from torch import nn

from anodiff.codec.backbone import Backbone, backbone
from anodiff.codec.fuse import FusedConv, fused
from anodiff.errors import DataError

LITE = "tf_efficientnet_lite0"


def agree(a: Backbone, b: Backbone, image: torch.Tensor) -> None:
    """Both give the same maps, within 1e-5 of the largest value of each."""
    for x, y in zip(a(image), b(image), strict=True):
        assert x.shape == y.shape
        assert (x - y).abs().max() <= 1e-5 * x.abs().max()


@pytest.fixture(scope="module")
def pair() -> tuple[Backbone, Backbone]:
    plain = backbone(LITE, (1, 2, 3))
    return plain, fused(plain)


@pytest.mark.parametrize("size", [(64, 64), (63, 65), (64, 63), (40, 72), (50, 70), (96, 34)])
def test_the_fused_network_gives_the_same_maps(pair, size):
    torch.manual_seed(0)
    image = torch.rand(2, 3, *size)
    agree(*pair, image)  # as trained code runs: no gradient is wanted, oneDNN
    with torch.inference_mode():
        agree(*pair, image)


def test_without_onednn_it_gives_the_same_maps(pair):
    image = torch.rand(1, 3, 64, 64)
    with torch.backends.mkldnn.flags(enabled=False):
        agree(*pair, image)


def test_it_lets_gradients_through_to_the_picture(pair):
    grads = []
    torch.manual_seed(0)
    image = torch.rand(1, 3, 64, 64)
    for net in (copy.deepcopy(pair[0]), pair[1]):
        for m in net.modules():  # timm's in-place activations are no hindrance
            if hasattr(m, "inplace"):
                m.inplace = False
        x = image.clone().requires_grad_()
        sum(m.square().mean() for m in net(x)).backward()
        grads.append(x.grad)
    assert grads[0].abs().max() > 0
    assert (grads[0] - grads[1]).abs().max() <= 1e-4 * grads[0].abs().max()


def test_no_norm_and_no_unread_layer_is_left(pair):
    plain, fast = pair
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fast.modules())
    assert sum(p.numel() for p in fast.parameters()) < 0.3 * sum(p.numel() for p in plain.parameters())
    assert any(isinstance(m, nn.BatchNorm2d) for m in plain.modules()), "the source stays as it was"
    assert (fast.channels, fast.strides) == ((24, 40, 112), (4, 8, 16))


@pytest.mark.parametrize(
    "name", ["resnet10t", "mobilenetv3_small_050", "convnext_atto", "efficientnet_lite0"]
)
def test_other_networks_give_the_same_maps(name):
    torch.manual_seed(0)
    plain = backbone(name, (1, 2), weights="random")
    for m in plain.modules():
        if isinstance(m, nn.BatchNorm2d):  # statistics that folding must not lose
            nn.init.uniform_(m.running_mean, -0.1, 0.1)
            nn.init.uniform_(m.running_var, 0.5, 2)
            nn.init.uniform_(m.weight, 0.5, 2)
    fast = fused(plain)
    assert any(isinstance(m, FusedConv) for m in fast.modules()) == (name != "convnext_atto")
    agree(plain, fast, torch.rand(1, 3, 64, 64))


class Shared(nn.Module):
    """A convolution whose result is read twice, once past its norm, and one norm called twice."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(3, 3, 3) for _ in range(3))
        self.norm_a, self.norm = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        for m in (self.norm_a, self.norm):
            nn.init.uniform_(m.running_mean)

    def forward(self, x):
        y = self.a(x)
        return [self.norm_a(y) + y, self.norm(self.b(x)) + self.norm(self.c(x))]


class Branching(nn.Module):
    """What cannot be traced: the way depends on the values."""

    def forward(self, x):
        return [x if x.sum() > 0 else -x]


def test_what_cannot_be_folded_is_left_alone():
    parts = {"channels": (3, 3), "strides": (1, 1), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    plain = Backbone(Shared(), **parts)
    fast = fused(plain)
    assert not any(isinstance(m, FusedConv) for m in fast.modules())
    agree(plain, fast, torch.rand(1, 3, 8, 8))
    wild = Backbone(Branching(), **parts)
    assert fused(wild) is wild


def test_a_backbone_is_frozen_and_sees_grey_as_colour(pair):
    for net in pair:
        net.train()
        assert not any(m.training for m in net.modules())
        assert not any(p.requires_grad for p in net.parameters())
        grey = torch.rand(1, 1, 32, 32)
        for a, b in zip(net(grey), net(grey.expand(-1, 3, -1, -1)), strict=True):
            assert torch.equal(a, b)
        with pytest.raises(DataError, match=r"\[B, 1 or 3, H, W\], got \[1, 4, 8, 8\]"):
            net(torch.rand(1, 4, 8, 8))
