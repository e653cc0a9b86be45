"""Trainings that follow each other share one time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from anodiff.train.plan import TINY, Plan, in_turn

PLANS = [Plan(steps=steps, max_time=60.0) for steps in (300, 600, 100)]


def test_each_gets_the_share_of_its_steps_and_what_was_left_over_goes_on() -> None:
    assert in_turn(PLANS) == replace(PLANS[0], max_time=18.0)
    assert in_turn(PLANS[1:], spent=18.0).max_time == pytest.approx(36.0)
    assert in_turn(PLANS[1:], spent=4.0).max_time == pytest.approx(48.0)  # the first was done early
    assert in_turn(PLANS[2:], spent=54.0).max_time == pytest.approx(6.0)


def test_used_up_each_to_its_share_the_whole_time_is_kept() -> None:
    spent = 0.0
    for first in range(len(PLANS)):
        share = in_turn(PLANS[first:], spent=spent).max_time
        assert share is not None
        spent += share
    assert spent == pytest.approx(60.0)


def test_without_a_time_nothing_is_shared_and_overdrawn_it_is_still_a_time() -> None:
    free = Plan(steps=5)
    assert in_turn([free, free], spent=99.0) is free
    late = in_turn(PLANS[2:], spent=61.0)
    assert late.max_time == TINY
    late.check()
