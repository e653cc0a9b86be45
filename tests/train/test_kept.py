"""Averages that a run keeps on its way: those of a run that ended there, whatever happened in between."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_run import OBJECTIVE, PLAN, Stripes, denoiser, run

from anodiff.errors import ConfigError
from anodiff.train.fit import fit
from anodiff.train.plan import Plan

STEADY = replace(PLAN, schedule="constant", keep=(6, 15))


def fitted(plan: Plan):
    net = denoiser(dropout=0.1)
    return net, fit(net, Stripes(), plan, objective=OBJECTIVE)


def test_what_is_kept_is_what_a_run_ends_with_that_stops_there():
    whole, outcome = fitted(STEADY)
    assert sorted(outcome.kept) == [6, 15]
    for steps, average in outcome.kept.items():
        shorter, _ = fitted(replace(STEADY, steps=steps, keep=()))
        assert average.keys() == shorter.state_dict().keys()
        assert all(torch.equal(average[name], value) for name, value in shorter.state_dict().items())
        assert not all(torch.equal(average[name], value) for name, value in whole.state_dict().items())
    plain, nothing = fitted(replace(STEADY, keep=()))
    assert nothing.kept == {}
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in plain.state_dict().items())


def test_a_resumed_run_has_what_was_kept_before(tmp_path):
    short = replace(STEADY, max_time=1e-3)  # ends after one step
    plan = replace(STEADY, keep=(1, 15))
    assert sorted(run(tmp_path, replace(short, keep=(1, 15))).kept) == [1]
    resumed = run(tmp_path, plan, resume="auto")
    _, whole = fitted(plan)
    assert sorted(resumed.kept) == [1, 15]
    for steps, average in whole.kept.items():
        assert all(torch.equal(resumed.kept[steps][name], value) for name, value in average.items())


def test_a_step_that_will_not_be_is_refused():
    with pytest.raises(ConfigError, match=r"train\.keep must be from 1 to train\.steps each"):
        replace(STEADY, keep=(25,)).check()
