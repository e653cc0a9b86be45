import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from anodiff.cond import Cond
from anodiff.errors import ConfigError
from anodiff.nets.discriminator import BareBlock, Discriminator
from anodiff.nets.spread import Spread

SMALL = {"in_channels": 2, "width": 8, "multipliers": (1, 1.5, 2)}


def made(*, seed: int = 0, **switches) -> Discriminator:
    torch.manual_seed(seed)
    return Discriminator(**SMALL | switches)


def two(batch: int, *size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(7)
    x_next, x = torch.randn(2, batch, 2, *(size or (16, 16)))
    return x_next, x, torch.arange(batch).float() % 4


@pytest.mark.parametrize(("batch", "group"), [(2, 2), (3, 3), (4, 4), (6, 3), (8, 4), (9, 3), (10, 2)])
def test_the_spread_is_that_of_numpy_over_the_largest_group_that_divides(batch, group):
    torch.manual_seed(0)
    h = torch.randn(batch, 5, 3, 4).double()
    y = Spread(4)(h)
    rows = h.numpy().reshape(batch // group, group, -1)
    want = np.sqrt(rows.var(axis=1) + 1e-8).mean(axis=1).repeat(group)
    assert torch.equal(y[:, :5], h)
    np.testing.assert_allclose(y[:, 5], np.broadcast_to(want[:, None, None], (batch, 3, 4)), atol=1e-12)


@pytest.mark.parametrize("batch", [1, 5, 7])
def test_rows_that_no_group_divides_get_the_usual_spread_and_not_that_of_a_collapse(batch):
    torch.manual_seed(0)
    net = Spread(4)
    assert not net(torch.randn(batch, 5, 3, 4))[:, 5].any()  # nothing was seen yet
    net(torch.randn(4, 5, 3, 4))
    usual = net.usual.clone()
    assert usual > 0.5
    assert (net(torch.randn(batch, 5, 3, 4))[:, 5] == usual).all()
    assert torch.equal(net.usual, usual)  # and teach nothing


def test_the_usual_spread_starts_at_the_first_and_moves_by_a_hundredth():
    net = Spread(4).double()
    h = torch.randn(4, 5, 3, 4).double()
    s = net(h)[0, 5, 0, 0]
    assert net.usual == s
    net(3 * h)
    torch.testing.assert_close(net.usual, 0.99 * s + 0.01 * 3 * s, atol=1e-6, rtol=0)
    before = net.usual.clone()
    net.eval()
    assert (net(h)[:, 5] == before).all()
    assert torch.equal(net.usual, before)
    twin = Spread(4).double().eval()
    twin.load_state_dict(net.state_dict())
    assert torch.equal(twin(h), net(h))


def test_rows_that_are_all_alike_have_no_spread_and_finite_gradients_twice():
    h = torch.randn(1, 3, 2, 2).double().expand(4, -1, -1, -1).clone().requires_grad_()
    y = Spread(4)(h)
    assert (y[:, 3] < 1.1e-4).all()
    (grad,) = torch.autograd.grad(y.square().sum(), h, create_graph=True)
    (again,) = torch.autograd.grad(grad.square().sum(), h)
    assert grad.isfinite().all()
    assert again.isfinite().all()


def test_half_precision_keeps_small_differences():
    h = 1 + 1e-3 * torch.arange(4.0).view(4, 1, 1, 1).expand(4, 2, 2, 2)
    torch.testing.assert_close(Spread(4)(h.half())[:, 2].float(), Spread(4)(h)[:, 2], atol=1e-4, rtol=0.05)


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 7, 8])
def test_any_batch_teaches_both_inputs_and_every_parameter(batch):
    net = made(patch=2, classes=3)
    x_next, x, t = two(batch)
    x_next.requires_grad_()
    x.requires_grad_()
    cond = Cond(label=torch.arange(batch) % 3)
    logit = net(x_next, x, t, cond)
    assert logit.shape == (batch,)
    logit.square().sum().backward()
    assert (x_next.grad.abs().amax((1, 2, 3)) > 0).all()
    assert (x.grad.abs().amax((1, 2, 3)) > 0).all()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 7, 8])
def test_in_evaluation_a_row_depends_on_nothing_but_itself(batch):
    net = made(patch=2)
    for _ in range(3):
        net(*two(8))
    x_next, x, t = two(8)
    trained = net(x_next, x, t)
    assert (net(x_next[:4], x[:4], t[:4]) - trained[:4]).abs().max() < 1e-5  # the group is its own company
    assert (net(x_next[1:5], x[1:5], t[1:5])[0] - trained[1]).abs() > 1e-7  # another company is not
    net.eval()
    kept = {k: v.clone() for k, v in net.state_dict().items()}
    places = net.places(x_next, x, t)
    order = torch.randperm(8)[:batch]
    torch.testing.assert_close(
        net.places(x_next[order], x[order], t[order]), places[order], atol=1e-6, rtol=0
    )
    assert all(torch.equal(v, kept[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize("size", [(16, 16), (13, 7), (9, 24), (1, 1)])
@pytest.mark.parametrize("patch", [1, 2, 3])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_shares_of_the_places_add_up_to_the_logit_at_any_size(size, patch, layout):
    net = made(patch=patch).double().eval()
    x_next, x, t = two(3, *size)
    want = net(x_next.double(), x.double(), t)
    net = net.to(memory_format=layout)
    x_next, x = (v.double().contiguous(memory_format=layout) for v in (x_next, x))
    places = net.places(x_next, x, t)
    assert net.stride == 4 * patch
    assert places.shape == (3, 1, *(math.ceil(s / net.stride) for s in size))
    torch.testing.assert_close(places.sum((1, 2, 3)), net(x_next, x, t), atol=1e-12, rtol=0)
    torch.testing.assert_close(net(x_next, x, t), want, atol=1e-12, rtol=0)


def test_a_logit_is_the_sum_of_what_the_places_say():
    net = made().eval()
    with torch.no_grad():  # every place of the same opinion
        net.last.weight.zero_()
        net.last.bias.fill_(1)
        net.out.bias.fill_(0.25)
    small, large = net(*two(2, 8, 8)), net(*two(2, 40, 32))
    one = net.out.weight.sum() + 0.25
    torch.testing.assert_close(small, one.expand(2) * math.ceil(8 / net.stride) ** 2)
    torch.testing.assert_close(large, one.expand(2) * math.ceil(40 / net.stride) * math.ceil(32 / net.stride))


def test_the_penalty_on_the_gradient_can_be_learnt_from():
    net = made(width=4, classes=2).double()
    x_next, x, t = two(4, 8, 8)
    x_next, x = x_next.double().requires_grad_(), x.double()
    cond = Cond(label=torch.tensor([0, 1, 1, 0]))
    weights = [p for n, p in net.named_parameters() if not n.endswith("out.bias")]

    def penalty() -> torch.Tensor:  # arXiv:1801.04406, R1
        logit = net(x_next, x, t, cond)
        (grad,) = torch.autograd.grad(logit.sum(), x_next, create_graph=True)
        return grad.square().sum((1, 2, 3)).mean()

    grads = torch.autograd.grad(penalty(), weights)
    torch.manual_seed(2)
    ways = [torch.randn_like(p) for p in weights]
    slope = sum((g * w).sum() for g, w in zip(grads, ways, strict=True)).item()
    ends = []
    for step in (1e-7, -2e-7):
        with torch.no_grad():
            for p, w in zip(weights, ways, strict=True):
                p += step * w
        ends.append(penalty().item())
    assert abs(slope) > 1e-6
    assert slope == pytest.approx((ends[0] - ends[1]) / 2e-7, rel=1e-3)


def test_time_label_and_order_of_the_neighbours_matter():
    net = made(classes=3).eval()
    x_next, x, t = two(3)
    label = torch.tensor([0, 1, 2])
    logit = net(x_next, x, t, Cond(label=label))
    for changed in (
        net(x_next, x, t + 1, Cond(label=label)),
        net(x_next, x, t, Cond(label=(label + 1) % 3)),
        net(x_next, x, t),
        net(x, x_next, t, Cond(label=label)),
    ):
        assert (changed - logit).abs().min() > 1e-5
    null = Cond(label=label, keep=torch.zeros(3).bool())
    torch.testing.assert_close(net(x_next, x, t, null), net(x_next, x, t))
    assert torch.equal(made().eval()(x_next, x, t, Cond(label=label)), made().eval()(x_next, x, t))
    assert (net.reads, net.classes, made().reads, made().classes) == ({"label"}, 3, frozenset(), None)


def test_a_block_is_the_formula():
    torch.manual_seed(0)
    block = BareBlock(3, 5, embed=4).double()
    h, embed = torch.randn(2, 3, 8, 6).double(), torch.randn(2, 4).double()
    kinked = torch.where(h > 0, h, 0.2 * h)
    y = F.conv2d(kinked, block.conv.weight, padding=1)
    y = y + (embed @ block.shift.weight.T + block.shift.bias)[:, :, None, None]
    y = F.conv2d(torch.where(y > 0, y, 0.2 * y), block.last.weight, padding=1)
    want = (F.conv2d(h, block.skip.weight) + y) / math.sqrt(2)
    torch.testing.assert_close(block(h, embed), want, atol=1e-12, rtol=0)
    assert block(h, embed, (4, 3)).shape == (2, 5, 4, 3)


def test_a_fresh_one_keeps_the_scale_of_what_goes_through():
    torch.manual_seed(0)
    h, embed = torch.randn(8, 32, 16, 16), torch.zeros(8, 4)
    for _ in range(6):
        h = BareBlock(32, 32, embed=4)(h, embed)
    assert 0.5 < h.square().mean().sqrt() < 2


@pytest.mark.parametrize("blocks", [1, 3])
def test_the_first_block_of_a_level_halves_the_size(blocks):
    net = made(blocks=blocks)
    assert len(net.down) == 3 * blocks
    assert net.places(*two(2)).shape == (2, 1, 4, 4)


def test_what_does_not_fit_is_refused():
    net = made(classes=2)
    x_next, x, t = two(2)
    with pytest.raises(ConfigError, match=r"expected x_next of shape \[B, 2, H, W\], got \[2, 1, 16, 16\]"):
        net(x_next[:, :1], x, t)
    with pytest.raises(ConfigError, match=r"expected x of shape \[B, 2, H, W\]"):
        net(x_next, x.repeat(1, 2, 1, 1), t)
    with pytest.raises(ConfigError, match="two neighbours of one shape"):
        net(x_next[..., :8], x, t)
    with pytest.raises(ConfigError, match="labels 0 to 1, got 5"):
        net(x_next, x, t, Cond(label=torch.tensor([0, 5])))


@pytest.mark.parametrize(
    "change", [{"multipliers": ()}, {"blocks": 0}, {"spread": 0}, {"patch": 0}, {"width": 0}]
)
def test_one_that_cannot_be_built_says_why(change):
    with pytest.raises(ConfigError, match="a level and at least 1 of everything"):
        made(**change)


def test_it_learns_to_tell_neighbours_from_strangers():
    net = made(patch=2)
    optimiser = torch.optim.Adam(net.parameters(), lr=4e-3, betas=(0.5, 0.9))
    right = []
    for _ in range(40):
        x_next = F.interpolate(torch.randn(8, 2, 4, 4), scale_factor=4)
        x = x_next + 0.3 * torch.randn_like(x_next)
        t = torch.zeros(8)
        real, fake = net(x_next, x, t), net(x_next.roll(1, 0), x, t)
        loss = F.softplus(-real).mean() + F.softplus(fake).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        right.append(((real > 0).float().mean() + (fake < 0).float().mean()).item() / 2)
    assert np.mean(right[-10:]) > 0.9
