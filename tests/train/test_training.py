"""Whole runs: what comes out."""

from __future__ import annotations

import threading
import warnings
from dataclasses import replace

import pytest
import torch
from small_run import OBJECTIVE, PLAN, Stripes, denoiser, equal, final, run, table
from torch import nn

from anodiff.train import checkpoint
from anodiff.train.ema import decay
from anodiff.train.fit import fit
from anodiff.train.plan import Plan, rate
from anodiff.train.source import Steps


def test_a_run_equals_the_plain_loop_it_stands_for():
    plan = replace(PLAN, steps=8, workers=0)
    ours = denoiser()
    outcome = fit(ours, Stripes(), plan, objective=OBJECTIVE)

    plain = denoiser()
    weights = list(plain.parameters())
    groups = [
        {"params": [w for w in weights if w.ndim > 1], "weight_decay": plan.weight_decay},
        {"params": [w for w in weights if w.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1.0, fused=True)
    average = [w.detach().clone() for w in weights]
    source, losses = Steps(Stripes(), plan, OBJECTIVE), []
    for step in range(plan.steps):
        for group in optimizer.param_groups:
            group["lr"] = rate(plan, step)
        batch = source[step]
        loss = OBJECTIVE.loss(plain, batch.z, OBJECTIVE.times(batch.u), batch.n).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, plan.clip)
        optimizer.step()
        losses.append(loss.item())
        for mean, weight in zip(average, weights, strict=True):
            mean.lerp_(weight.detach(), 1 - decay(step, cap=plan.ema))
    assert outcome.losses == losses
    assert all(torch.equal(mean, weight) for mean, weight in zip(average, ours.parameters(), strict=True))


def test_a_run_leaves_the_average_the_table_and_the_checkpoints(tmp_path):
    net = denoiser()
    state_before = torch.random.get_rng_state()
    outcome = fit(net, Stripes(), PLAN, objective=OBJECTIVE, folder=tmp_path)
    assert (outcome.steps, outcome.stopped_by, len(outcome.losses)) == (24, "steps", 24)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoints", "metrics.csv"]
    assert [p.name for p in checkpoint.found(tmp_path / "checkpoints")] == [
        "step-00000024.ckpt",
        "step-00000022.ckpt",
    ]
    rows = table(tmp_path)
    assert [int(row["step"]) for row in rows] == list(range(1, 25))
    assert [float(row["loss"]) for row in rows] == outcome.losses
    assert [float(row["lr"]) for row in rows] == [rate(PLAN, step) for step in range(24)]
    kept = final(tmp_path)
    assert all(torch.equal(value, kept.ema[name]) for name, value in net.state_dict().items())
    assert not all(torch.equal(value, kept.ema[name]) for name, value in kept.model.items())
    assert not net.training
    assert all(weight.requires_grad for weight in net.parameters())
    assert torch.equal(torch.random.get_rng_state(), state_before)


def test_two_runs_are_the_same_bits_and_another_seed_is_not(tmp_path, whole):
    torch.rand(3)  # the caller's generator does not matter
    run(tmp_path / "same", replace(PLAN, workers=1))
    run(tmp_path / "other", replace(PLAN, seed=1))
    assert equal(final(tmp_path / "same"), final(whole))
    assert not equal(final(tmp_path / "other"), final(whole))


def test_the_rate_rises_falls_and_ends_at_nothing():
    plan = Plan(steps=100, warmup=10, learning_rate=2.0)
    assert [rate(plan, k) for k in (0, 4, 9)] == pytest.approx([0.2, 1.0, 2.0])
    assert rate(plan, 10) == 2.0
    assert rate(plan, 55) == pytest.approx(1.0)
    assert 0 < rate(plan, 99) < 0.001
    flat = replace(plan, schedule="constant")
    assert {rate(flat, k) for k in range(10, 100)} == {2.0}


def test_a_run_is_silent_and_leaves_no_files(tmp_path, monkeypatch, capfd, recwarn):
    monkeypatch.chdir(tmp_path)
    warnings.simplefilter("always")
    fit(denoiser(), Stripes(), replace(PLAN, workers=1), objective=OBJECTIVE)
    assert capfd.readouterr() == ("", "")
    assert [str(w.message) for w in recwarn.list] == []
    assert list(tmp_path.iterdir()) == []


def test_a_run_works_outside_the_main_thread(tmp_path):
    thread = threading.Thread(target=run, args=(tmp_path,))
    thread.start()
    thread.join()
    assert final(tmp_path).step == 24


def test_mixed_precision_keeps_weights_and_average_single(tmp_path):
    outcome = run(tmp_path, replace(PLAN, precision="bf16-mixed"))
    single = run(None)
    assert all(value.dtype == torch.float32 for value in final(tmp_path).ema.values())
    assert outcome.losses != single.losses
    torch.testing.assert_close(outcome.losses, single.losses, rtol=0.05, atol=0)
