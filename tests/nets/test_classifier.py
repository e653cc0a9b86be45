import math

import pytest
import torch
import torch.nn.functional as F

from anodiff.cond import Cond
from anodiff.errors import ConfigError
from anodiff.nets.classifier import Classifier
from anodiff.nets.pool import AdaptivePool, AttentionPool, SpatialPool

SMALL = {
    "in_channels": 3,
    "classes": 4,
    "width": 8,
    "multipliers": (1, 2),
    "blocks": 1,
    "attention": (1,),
    "head_channels": 8,
    "groups": 4,
    "size": (9, 6),
}
POOLS = ("attention", "adaptive", "spatial")


def awake(net: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(1)
    for p in net.parameters():
        if not p.any():
            torch.nn.init.normal_(p, std=0.1)
    return net.eval()


def test_attention_pooling_is_the_loop_over_heads_and_positions():
    torch.manual_seed(0)
    pool = AttentionPool(8, 3, size=(2, 3), heads=2, groups=4).double()
    h = torch.randn(2, 8, 2, 3).double()
    got = pool([h])
    q_weight, q_bias = pool.attend.query.weight, pool.attend.query.bias
    kv_weight, kv_bias = pool.attend.key_value.weight, pool.attend.key_value.bias
    for n in range(2):
        u = F.silu(F.group_norm(h[n : n + 1], 4))[0]  # its affine part is still 1 and 0
        places = [u[:, i, j] for i in range(2) for j in range(3)]
        tokens = [sum(places) / 6, *places]
        tokens = [token + pool.position[0, i] for i, token in enumerate(tokens)]
        query = q_weight @ tokens[0] + q_bias
        answer = []
        for head in range(2):
            part = slice(4 * head, 4 * head + 4)
            keys = [(kv_weight[:8] @ token + kv_bias[:8])[part] for token in tokens]
            values = [(kv_weight[8:] @ token + kv_bias[8:])[part] for token in tokens]
            weight = [torch.exp(query[part] @ key / math.sqrt(4)) for key in keys]
            answer.append(sum(w * v for w, v in zip(weight, values, strict=True)) / sum(weight))
        want = pool.attend.out.weight @ torch.cat(answer) + pool.attend.out.bias
        torch.testing.assert_close(got[n], want, atol=1e-12, rtol=0)


def test_adaptive_pooling_is_a_projection_of_the_mean_and_starts_at_zero():
    pool = AdaptivePool(8, 3, groups=4).double()
    h = torch.randn(2, 8, 5, 4).double()
    assert not pool([h]).any()
    torch.nn.init.normal_(pool.out.weight)
    mean = F.silu(F.group_norm(h, 4)).flatten(2).sum(2) / 20
    torch.testing.assert_close(pool([h]), mean @ pool.out.weight.T, atol=1e-12, rtol=0)


def test_spatial_pooling_reads_the_mean_of_every_map():
    pool = SpatialPool((2, 3), 4, hidden=16).double()
    maps = [torch.randn(2, 2, 4, 4).double(), torch.randn(2, 3, 2, 1).double()]
    means = torch.cat([m.flatten(2).sum(2) / m[0, 0].numel() for m in maps], dim=1)
    first, last = pool.mlp[0], pool.mlp[2]
    hidden = (means @ first.weight.T + first.bias).clamp(min=0)
    torch.testing.assert_close(pool(maps), hidden @ last.weight.T + last.bias, atol=1e-12, rtol=0)


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("resample", ["conv", "residual"])
@pytest.mark.parametrize("patch", [1, 2])
def test_every_kind_runs_at_an_odd_size_and_teaches_all_it_has(pool, resample, patch):
    net = awake(Classifier(**SMALL, pool=pool, resample=resample, patch=patch))
    x = torch.randn(2, 3, 9, 6, requires_grad=True)
    y = net(x, torch.tensor([1.0, 700.0]))
    assert y.shape == (2, 4)
    y.log_softmax(1)[:, 0].sum().backward()
    assert (x.grad.abs().amax((1, 2, 3)) > 0).all()  # what guidance follows
    dead = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert [n for n in dead if "key_value.bias" not in n] == []
    with torch.no_grad():
        torch.testing.assert_close(net(x, torch.tensor([1.0, 700.0])), y, atol=1e-5, rtol=0)


@pytest.mark.parametrize("pool", POOLS)
def test_a_row_is_the_same_alone_and_in_a_batch_and_time_matters(pool):
    net = awake(Classifier(**SMALL, pool=pool))
    x, t = torch.randn(3, 3, 9, 6), torch.tensor([0.0, 10.0, 900.0])
    y = net(x, t)
    for i in range(3):
        torch.testing.assert_close(net(x[i : i + 1], t[i : i + 1])[0], y[i], atol=1e-5, rtol=0)
    assert (net(x, t + 50) - y).abs().max() > 1e-4


def test_conditions_are_not_read():
    net = awake(Classifier(**SMALL))
    x, t = torch.randn(2, 3, 9, 6), torch.tensor(3.0)
    assert torch.equal(net(x, t, Cond(label=torch.tensor([99, -1]))), net(x, t))
    assert net.reads == frozenset()
    assert net.classes == 4


@pytest.mark.parametrize("pool", ["adaptive", "spatial"])
def test_pooling_that_knows_no_positions_takes_any_size(pool):
    net = awake(Classifier(**SMALL, pool=pool))
    assert net(torch.randn(1, 3, 17, 4), torch.tensor(3.0)).shape == (1, 4)


def test_another_size_is_refused_where_pooling_knows_positions():
    with pytest.raises(ConfigError, match="built for rows of 9 x 6, got 6 x 9: attention pooling knows"):
        Classifier(**SMALL)(torch.randn(1, 3, 6, 9), torch.tensor(3.0))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"classes": 1}, "at least 2 classes"),
        ({"pool": "max"}, "attention, adaptive, spatial, got 'max'"),
        ({"attention": (), "heads": 3}, "16 channels of the pooling"),
        ({"attention": (2,)}, "levels 0..1"),
        ({"size": (0, 4)}, "height and width"),
    ],
)
def test_a_classifier_that_cannot_be_built_says_why(change, says):
    with pytest.raises(ConfigError, match=says):
        Classifier(**SMALL | change)


def test_other_channels_say_what_was_expected():
    with pytest.raises(ConfigError, match=r"\[B, 3, H, W\], got \[1, 2, 9, 6\]"):
        Classifier(**SMALL)(torch.randn(1, 2, 9, 6), torch.tensor(3.0))


@pytest.mark.parametrize("pool", POOLS)
def test_it_learns(pool):
    torch.manual_seed(0)
    net = Classifier(**SMALL, pool=pool)
    label = torch.arange(8) % 4
    pattern = torch.randn(4, 3, 9, 6)
    optimiser = torch.optim.Adam(net.parameters(), lr=2e-3)
    for _ in range(25):
        x = pattern[label] + 0.3 * torch.randn(8, 3, 9, 6)
        loss = F.cross_entropy(net(x, torch.zeros(8)), label)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    fresh = pattern[label] + 0.3 * torch.randn(8, 3, 9, 6)
    assert (net(fresh, torch.zeros(8)).argmax(1) == label).float().mean() >= 0.9
