"""The batches are functions of seed, step and row alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.data import DataLoader

from anodiff.noise import PerImageNoise, simplex
from anodiff.train.objective import EpsWeight, LogUniform, Objective
from anodiff.train.plan import Plan
from anodiff.train.source import Steps, key, rows, uniform

OBJECTIVE = Objective(weight=EpsWeight(), times=LogUniform(0.01, 10.0))
PLAN = Plan(steps=40, batch=6, seed=3, condition_dropout=0.3)


class Numbers:
    """Row i is i plus a hundredth that depends on the seed."""

    def __len__(self):
        return 10

    def item(self, index, seed, /):
        return torch.full((1, 4, 4), index + (seed % 97) / 100.0)


LABELS = list(range(10))


def source(**changes):
    plan = replace(PLAN, **{k: v for k, v in changes.items() if k in ("seed", "batch")})
    rest = {k: v for k, v in changes.items() if k in ("rank", "world", "ahead")}
    return Steps(Numbers(), plan, OBJECTIVE, labels=LABELS, **rest)


def same(a, b):
    return (
        all(torch.equal(x, y) for x, y in zip(a, b, strict=True) if isinstance(x, torch.Tensor))
        and a[3] == b[3]
    )


def test_a_step_is_the_same_whenever_it_is_asked_for():
    one, other = source(), source()
    late = one[17]
    for step in (3, 39, 0):
        one[step]
    assert same(late, one[17])
    assert same(late, other[17])
    assert not same(late, one[18])
    assert not torch.equal(late.n, source(seed=4)[17].n)


@pytest.mark.parametrize("world", [2, 3])
def test_the_ranks_of_a_step_are_the_rows_of_the_whole(world):
    whole = source()[7]
    for rank in range(world):
        part = source(rank=rank, world=world)[7]
        for name in ("z", "u", "n", "label", "keep"):
            assert torch.equal(getattr(part, name), getattr(whole, name)[rank::world]), name
        assert part.seeds == whole.seeds[rank::world]


def test_workers_give_what_the_process_itself_gives():
    own = DataLoader(source(), batch_size=None, sampler=range(5, 12))
    read_ahead = DataLoader(source(), batch_size=None, sampler=range(5, 12), num_workers=2)
    assert all(same(a, b) for a, b in zip(own, read_ahead, strict=True))


def test_every_epoch_is_a_permutation_and_no_two_are_alike():
    # 6 rows a step, 10 pictures: 5 steps are 3 epochs, and batches reach over their borders.
    drawn = [index for step in range(15) for index in rows(3, step, 6, 10)]
    epochs = [drawn[i : i + 10] for i in range(0, 90, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 9


def test_a_batch_may_be_larger_than_the_set():
    assert sorted(rows(0, 0, 25, 10)[:20]) == sorted(2 * list(range(10)))


def test_levels_of_a_step_are_stratified_and_each_row_is_uniform():
    u = torch.stack([source()[step].u for step in range(40)])
    cells = (u * 6).floor().sort(1).values  # [40, 6]
    assert torch.equal(cells, torch.arange(6.0).double().expand(40, 6))
    starts = torch.tensor([uniform(3, 1, step) for step in range(4000)])
    assert abs(starts.mean() - 0.5) < 0.02
    assert abs(starts.var() - 1 / 12) < 0.005


def test_noise_is_that_of_the_restorer_and_the_same_before_and_after_a_codec():
    ahead, later = source()[2], source(ahead=False)[2]
    assert later.n is None
    assert torch.equal(ahead.n, PerImageNoise(later.seeds, draw=OBJECTIVE.draw)(later.z))
    other = Objective(weight=EpsWeight(), times=OBJECTIVE.times, draw=simplex(2, 0.8, 0.1))
    fed = Steps(Numbers(), PLAN, other)[2]
    assert torch.equal(fed.n, PerImageNoise(fed.seeds, draw=other.draw)(fed.z))
    assert not torch.equal(fed.n, ahead.n)


def test_labels_follow_their_rows_and_conditions_are_dropped_at_the_stated_rate():
    batches = [source()[step] for step in range(40)]
    for batch in batches:
        assert torch.equal(batch.label, batch.z[:, 0, 0, 0].floor().long())
    kept = torch.cat([batch.keep for batch in batches]).float().mean()
    assert 0.6 < kept < 0.8


def test_augmentation_seeds_differ_by_row_and_step():
    seen = torch.cat([source()[step].z[:, 0, 0, 0] % 1 for step in range(10)])
    assert len(seen.unique()) > 30


def test_keys_depend_on_every_counter():
    keys = {key(seed, a, b) for seed in range(5) for a in range(5) for b in range(5)}
    assert len(keys) == 125
    assert all(0 <= k < 2**63 for k in keys)
    assert key(1, 2) != key(1, 2, 0)
    assert isinstance(key(-1, 0), int)
