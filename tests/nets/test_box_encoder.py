import math

import pytest
import torch

from anodiff.errors import ConfigError
from anodiff.nets.attention import Attention, Seam
from anodiff.nets.boxes import BoxEncoder
from anodiff.nets.embed import OCTAVES, fourier
from anodiff.nets.place import LEAN, leaning

NONE = [-1.0, 0, 0, 0, 0]
BOXES = torch.tensor(
    [
        [[0, 0.1, 0.2, 0.4, 0.5], [2, 0.0, 0.0, 1.0, 1.0], NONE, NONE],
        [[1, 0.3, 0.3, 0.6, 0.9], [1, 0.2, 0.1, 0.7, 0.8], [0, 0.5, 0.5, 0.6, 0.6], [2, 0.0, 0.1, 0.2, 0.3]],
        [NONE, [1, 0.25, 0.5, 0.75, 1.0], NONE, NONE],
    ]
)


def made(*, depth: int = 2) -> BoxEncoder:
    torch.manual_seed(0)
    net = BoxEncoder(classes=3, channels=12, depth=depth, heads=4)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.4)
    return net


def test_waves_are_those_of_the_formula_and_tell_the_ends_apart():
    got = fourier(torch.tensor([[0.0, 1.0, 0.3]]))
    assert got.shape == (1, 3, 2 * OCTAVES)
    want = [math.cos(math.pi * 2**k * 0.3) for k in range(OCTAVES)]
    want += [math.sin(math.pi * 2**k * 0.3) for k in range(OCTAVES)]
    torch.testing.assert_close(got[0, 2], torch.tensor(want), atol=1e-4, rtol=0)
    assert (got[0, 0] - got[0, 1]).abs().max() == pytest.approx(2, abs=1e-5)
    steps = fourier(torch.linspace(0, 1, 513))
    gaps = torch.cdist(steps, steps) + 10 * torch.eye(513)
    assert gaps.min() > 0.5  # half a five-hundredth of a side apart, and not alike


def test_without_layers_a_token_is_the_norm_of_its_class_and_its_waves():
    net = made(depth=0).eval()
    tokens, mask = net(BOXES)
    h = net.kind.weight[2] + net.mlp(fourier(torch.tensor([0.0, 0.0, 1.0, 1.0])).flatten())
    torch.testing.assert_close(tokens[0, 1], net.encoder.norm(h), atol=1e-5, rtol=0)
    torch.testing.assert_close(tokens[0, -1], net.encoder.norm(net.ground[0, 0]), atol=1e-5, rtol=0)
    assert torch.equal(mask[:, :-1], BOXES[..., 0] >= 0)
    assert mask[:, -1].all()


def test_boxes_in_another_order_are_the_same_tokens_in_that_order():
    net = made().eval()
    order = torch.tensor([2, 0, 3, 1])
    tokens, mask = net(BOXES)
    moved, moved_mask = net(BOXES[:, order])
    order = torch.cat([order, torch.tensor([4])])  # the ground stays the last
    torch.testing.assert_close(moved, tokens[:, order], atol=1e-5, rtol=0)
    assert torch.equal(moved_mask, mask[:, order])


def test_tokens_depend_on_their_own_boxes_alone():
    net = made().eval()
    tokens, mask = net(BOXES)
    for i, row in enumerate(BOXES):
        alone = net(row[row[:, 0] >= 0][None])[0][0]
        torch.testing.assert_close(alone, tokens[i, mask[i]], atol=1e-5, rtol=0)
    empty = BOXES.clone()
    empty[..., 1:] = torch.where(mask[:, :-1, None], BOXES[..., 1:], torch.nan)
    torch.testing.assert_close(net(empty)[0], tokens)
    assert not tokens[~mask].any()


@pytest.mark.parametrize("column", range(5))
def test_each_of_the_five_numbers_matters_and_is_heard_by_the_other_boxes(column):
    net = made().eval()
    tokens, _ = net(BOXES)
    other = BOXES.clone()
    other[1, 0, column] += 1 if column == 0 else 0.05
    change = (net(other)[0] - tokens).abs().amax(-1)
    assert (change[1] > 1e-4).all()
    assert not change[[0, 2]].max() > 1e-5


def test_a_row_without_boxes_is_zeros_and_spoils_no_gradient():
    net = made()
    boxes = BOXES.clone()
    boxes[0, :, 0] = -1
    tokens, mask = net(boxes)
    assert not tokens[0].any()
    assert not mask[0].any()
    (tokens * torch.randn_like(tokens)).sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.abs().sum() > 1e-4 for p in net.parameters())
    with torch.no_grad():
        torch.testing.assert_close(net.eval()(boxes)[0], tokens, atol=1e-5, rtol=0)
        tokens, mask = net(torch.zeros(2, 0, 5))
        assert tokens.shape == (2, 1, 12)
        assert not mask.any()


def test_a_position_leans_towards_the_boxes_it_lies_in_and_to_the_ground_in_none():
    net = made()
    _, mask = net(BOXES)
    lean = leaning(net.places(BOXES), mask, 4, 5)  # [3, 20, 5]
    assert set(lean.unique().tolist()) == {0.0, LEAN}
    for i, row in enumerate(BOXES):
        for n in range(20):
            x, y = (n % 5 + 0.5) / 5, (n // 5 + 0.5) / 4
            held = [k >= 0 and left <= x < right and top <= y < bottom for k, left, top, right, bottom in row]
            assert (lean[i, n] > 0).tolist() == [*held, not any(held)]


def test_attention_with_a_lean_is_the_softmax_of_shifted_logits():
    torch.manual_seed(2)
    net = Attention(8, heads=2, place="p.cross", context=6)
    x, tokens = torch.randn(2, 5, 8), torch.randn(2, 3, 6)
    mask, lean = torch.tensor([[True, True, False], [True] * 3]), 2 * torch.randn(2, 5, 3)
    seen = {}

    def watch(probs, place, t):
        seen["probs"] = probs
        return probs

    y = net(x, Seam(tokens=tokens, token_mask=mask, edit=watch), lean)
    torch.testing.assert_close(net(x, Seam(tokens=tokens, token_mask=mask), lean), y)
    net(x, Seam(tokens=tokens, token_mask=mask, edit=watch))
    plain = seen["probs"]
    net(x, Seam(tokens=tokens, token_mask=mask, edit=watch), lean)
    want = plain * lean.exp()[:, None]
    torch.testing.assert_close(seen["probs"], want / want.sum(-1, keepdim=True))
    torch.testing.assert_close(
        net(x, Seam(tokens=tokens), lean), net(x, Seam(tokens=tokens, edit=watch), lean)
    )


@pytest.mark.parametrize(
    ("boxes", "says"),
    [
        (torch.zeros(2, 3, 4), r"\[B, N, 5\].* got \[2, 3, 4\]"),
        (torch.zeros(3, 5), r"got \[3, 5\]"),
        (torch.tensor([[[3.0, 0, 0, 1, 1]]]), "classes 0 to 2, and -1 for no box, got 3"),
        (torch.tensor([[[0.5, 0, 0, 1, 1]]]), "got 0.5"),
        (torch.tensor([[[-2.0, 0, 0, 1, 1]]]), "got -2"),
        (torch.tensor([[[1.0, 0, 0, 40, 1]]]), r"in \[0, 1\].* got 40"),
        (torch.tensor([[[1.0, 0, 0, math.nan, 1]]]), "got nan"),
    ],
)
def test_boxes_that_do_not_fit_say_what_was_expected(boxes, says):
    with pytest.raises(ConfigError, match=says):
        made()(boxes)


def test_an_encoder_that_cannot_be_built_says_why():
    with pytest.raises(ConfigError, match="needs a class"):
        BoxEncoder(0, 12)
    with pytest.raises(ConfigError, match="heads that divide"):
        BoxEncoder(3, 10, heads=4)
