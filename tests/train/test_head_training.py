"""The training of a head: its loss against the words of its papers, and its run like every other."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from anodiff.errors import ConfigError
from anodiff.nets.head import Head
from anodiff.train.fit import Outcome, fit
from anodiff.train.marked import Marked
from anodiff.train.plan import Plan

PLAN = Plan(steps=60, batch=4, learning_rate=1e-2, warmup=4, ema=0.9, checkpoint_every=7, accelerator="cpu")


class Marks:
    """Evidence of three channels, noise but for one square, where the first is raised; every fourth row has none."""

    def __init__(self, count: int = 12, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.evidence = torch.randn(count, 3, 8, 8, generator=generator)
        self.share = torch.zeros(count, 1, 8, 8)
        for row in range(count):
            if row % 4 != 3:
                top, left = (int(torch.randint(0, 6, (), generator=generator)) for _ in range(2))
                self.share[row, 0, top : top + 2, left : left + 2] = 1.0
        self.evidence[:, :1] += 3 * self.share

    def __len__(self) -> int:
        return len(self.evidence)

    def item(self, index: int, seed: int, /) -> Tensor:
        return self.evidence[index]

    def told(self, row: int, seed: int) -> dict[str, Tensor]:
        return {"image": self.share[row]}


def run(folder: Path | None = None, plan: Plan = PLAN, **options) -> tuple[Head, Outcome]:
    torch.manual_seed(3)
    head, rows = Head(3, width=8, depth=1, dropout=0.2), Marks()
    outcome = fit(head, rows, plan, objective=Marked(), folder=folder, told=rows.told, **options)
    return head, outcome


def test_the_loss_is_the_focal_one_of_each_kind_and_the_overlap():
    logit = torch.tensor([[0.3, -1.2, 2.0], [0.5, -0.4, 0.0]], dtype=torch.float64)
    share = torch.tensor([[1.0, 0.1, 0.0], [0.0, 0.3, 0.0]])  # .1: painted in part, and counts nowhere
    found = Marked(focus=2.0, dice=0.5).loss(
        lambda _: logit[None, None], torch.zeros(1, 1, 2, 3), share[None, None]
    )
    p = {
        place: 1 / (1 + math.exp(-float(logit[place]))) for place in ((0, 0), (0, 2), (1, 0), (1, 1), (1, 2))
    }
    defect, good = [(0, 0), (1, 1)], [(0, 2), (1, 0), (1, 2)]
    focal = (
        sum((1 - p[x]) ** 2 * -math.log(p[x]) for x in defect) / 2
        + sum(p[x] ** 2 * -math.log(1 - p[x]) for x in good) / 3
    ) / 2
    overlap = 1 - (2 * sum(p[x] for x in defect) + 1) / (sum(p.values()) + 2 + 1)
    assert float(found) == pytest.approx(focal + 0.5 * overlap, rel=1e-12)


def test_a_hair_thinner_than_a_place_still_has_some():
    share = torch.zeros(2, 1, 4, 4)
    share[0, 0, 1] = torch.tensor([0.02, 0.06, 0.08, 0.03])  # a hair: the half of its most covered place, .04
    share[1, 0, 2, 1:] = torch.tensor([0.1, 1.0, 0.25])  # a blob
    defect, good = Marked().kinds(share)
    assert defect[0, 0, 1].tolist() == [False, True, True, False]
    assert defect[1, 0, 2].tolist() == [False, False, True, True]
    assert good.sum(dim=(1, 2, 3)).tolist() == [12, 13]
    assert not (defect & good).any()
    nothing = Marked().kinds(torch.zeros(1, 1, 2, 2))
    assert not nothing[0].any()
    assert nothing[1].all()


def test_a_loss_without_a_defect_asks_for_silence_alone():
    quiet, loud = (
        Marked().loss(
            lambda _, v=v: torch.full((1, 1, 3, 3), v), torch.zeros(1, 1, 3, 3), torch.zeros(1, 1, 3, 3)
        )
        for v in (-9.0, 2.0)
    )
    assert float(quiet) < 0.01 < 1 < float(loud)


def test_it_learns_to_mark_what_it_has_not_seen():
    head, outcome = run()
    other = Marks(40, seed=9)
    with torch.no_grad():
        logit = head(other.evidence)
    bad, good = logit[other.share > 0], logit[other.share == 0]
    ahead = (bad[:, None] > good[None]).float().mean()
    assert outcome.losses[-1] < 0.5 * outcome.losses[0]
    assert float(ahead) > 0.95


def test_a_run_that_was_cut_ends_with_the_same_bits(tmp_path):
    whole, _ = run()
    again, _ = run()
    begun, outcome = run(tmp_path / "cut", replace(PLAN, max_time=1e-9))
    assert outcome.stopped_by == "time"
    assert outcome.steps < PLAN.steps
    assert any(not torch.equal(a, b) for a, b in zip(begun.parameters(), whole.parameters(), strict=True))
    resumed, outcome = run(tmp_path / "cut", resume="auto")
    assert outcome.steps == PLAN.steps
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_what_makes_no_sense_is_refused():
    rows = Marks()
    for objective, plan, told in (
        (Marked(covered=0.0), PLAN, "covered.*above 0, up to 1, got 0"),
        (Marked(focus=-1.0), PLAN, "focus.*0 or above, got -1"),
        (Marked(dice=-0.5), PLAN, "dice.*0 or above"),
        (Marked(), replace(PLAN, condition_dropout=0.1), "condition_dropout.*must be 0, got 0.1"),
    ):
        with pytest.raises(ConfigError, match=told):
            fit(Head(3, width=8), rows, plan, objective=objective, told=rows.told)
    with pytest.raises(ConfigError, match="the rows tell nothing; give told"):
        fit(Head(3, width=8), rows, PLAN, objective=Marked())
