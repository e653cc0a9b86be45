from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from anodiff.errors import DataError
from anodiff.nets.head import PRIOR, Head


def head(channels: int = 5, **changes) -> Head:
    torch.manual_seed(0)
    made = Head(channels, **{"width": 8, "depth": 2, **changes})
    for block in made.blocks:  # as after training: a block that starts as its shortcut sees no neighbour
        torch.nn.init.normal_(block.narrow.weight, std=0.3)
    return made.eval()


def test_it_is_one_logit_a_place_and_begins_near_its_prior():
    fresh = Head(5)
    logit = fresh(torch.randn(3, 5, 7, 9)).detach()
    assert logit.shape == (3, 1, 7, 9)
    assert float(logit.sigmoid().mean()) == pytest.approx(PRIOR, abs=0.03)


def test_the_usual_size_is_small():
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        Head(944)(torch.zeros(1, 944, 32, 32))
    assert 0.05e9 < counter.get_total_flops() < 0.15e9  # a multiplication and an addition count two


def test_standardised_evidence_needs_no_scale_of_its_own():
    torch.manual_seed(1)
    evidence = torch.randn(4, 5, 6, 6)
    evidence[:, 2] = 0.0  # never moves
    size, shift = torch.tensor([1e3, 1.0, 1.0, 5.0, 0.1]), torch.tensor([1e3, -2.0, 0.0, 1.0, 7.0])
    moved = evidence * size[:, None, None] + shift[:, None, None]
    one, other = head(), head()
    one.settle([evidence])
    other.settle(moved.split(1))
    torch.testing.assert_close(one(evidence), other(moved), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(head()(evidence), head()(moved), atol=0.1)  # else nothing was shown
    assert 0 < float(other.get_buffer("deviation")[2]) < 1e-2


def test_evidence_beyond_the_limit_says_no_more():
    net = head(limit=4.0)
    evidence = torch.zeros(1, 5, 5, 5)
    evidence[0, :, 2, 2] = 4.0
    assert torch.equal(net(evidence), net(1e4 * evidence))
    assert not torch.equal(net(evidence), net(0.5 * evidence))


def test_a_place_sees_so_many_places_around_it_as_there_are_blocks():
    for depth in (0, 1, 2):
        net = head(depth=depth)
        evidence = torch.zeros(1, 5, 9, 9)
        other = evidence.clone()
        other[0, :, 4, 4] = 3.0
        changed = (net(other) != net(evidence))[0, 0]
        rows = changed.any(1).nonzero().flatten().tolist()
        assert rows == list(range(4 - depth, 5 + depth))


def test_while_training_whole_channels_are_hidden():
    net, evidence = head(4, depth=0, limit=50.0), torch.randn(1, 4, 3, 3)
    known = []  # the logits by which channels are seen, twice as strongly, for half of them are hidden
    for number in range(16):
        shown = torch.tensor([float(number >> k & 1) for k in range(4)])
        known.append(net(2 * evidence * shown[:, None, None]))
    torch.manual_seed(2)
    found = [net.train()(evidence) for _ in range(8)]
    of = [
        [number for number, want in enumerate(known) if torch.allclose(got, want, atol=1e-5)] for got in found
    ]
    assert all(of)
    assert len({numbers[0] for numbers in of}) > 2


def test_there_must_be_finite_normals_to_standardise_by():
    with pytest.raises(DataError, match=r"finite evidence of normal pictures.*got 0 places"):
        head().settle([])
    with pytest.raises(DataError, match="finite evidence"):
        head().settle([torch.full((1, 5, 2, 2), torch.nan)])
