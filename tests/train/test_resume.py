"""How runs end, and how they go on."""

from __future__ import annotations

import os
import random
import signal
from dataclasses import replace

import pytest
import torch
from small_run import OBJECTIVE, PLAN, Stripes, denoiser, equal, final, run, table

from anodiff.errors import ConfigError
from anodiff.train import checkpoint
from anodiff.train.fit import fit
from anodiff.train.progress import Lines


def test_time_ends_a_run_and_counts_over_resumptions(tmp_path):
    plan = replace(PLAN, steps=100_000, max_time=0.5, checkpoint_every=1000)
    outcome = run(tmp_path, plan)
    assert outcome.stopped_by == "time"
    assert 0 < outcome.steps < 100_000
    assert 0.5 <= outcome.seconds < 5
    assert final(tmp_path).step == outcome.steps == len(table(tmp_path))
    spent = run(tmp_path, plan, resume="auto")  # nothing is left to spend
    assert (spent.steps, spent.stopped_by, spent.losses) == (outcome.steps, "time", outcome.losses)
    more = run(tmp_path, replace(plan, max_time=outcome.seconds + 0.3), resume="auto")
    assert more.steps > outcome.steps
    assert outcome.seconds + 0.3 <= more.seconds < outcome.seconds + 5
    assert more.losses[: outcome.steps] == outcome.losses


class PressesCtrlC(Lines):
    """Sends this process what a terminal sends on Ctrl-C, after a certain step."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def update(self, step, loss, seconds):
        if step == self.step:
            os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_saves_raises_and_resumes_to_the_same_bits(tmp_path, whole):
    handler = signal.getsignal(signal.SIGINT)
    net = denoiser(dropout=0.1)
    plan = replace(PLAN, checkpoint_every=1000)
    with pytest.raises(KeyboardInterrupt, match=r"after step 1[01] of 24; the checkpoint is in"):
        fit(net, Stripes(), plan, objective=OBJECTIVE, folder=tmp_path / "cut", progress=PressesCtrlC(10))
    assert signal.getsignal(signal.SIGINT) is handler
    stopped = final(tmp_path / "cut")
    assert stopped.step in (10, 11)
    assert all(torch.equal(value, stopped.ema[name]) for name, value in net.state_dict().items())
    outcome = run(tmp_path / "cut", plan, resume="auto")
    assert outcome.steps == 24
    assert equal(final(tmp_path / "cut"), final(whole))
    assert [r["loss"] for r in table(tmp_path / "cut")] == [r["loss"] for r in table(whole)]


@pytest.mark.parametrize("step", [23, 24])
def test_ctrl_c_in_the_last_step_is_heard_too(tmp_path, whole, step):
    with pytest.raises(KeyboardInterrupt, match=r"after step 24 of 24; the checkpoint is in"):
        fit(
            denoiser(dropout=0.1),
            Stripes(),
            PLAN,
            objective=OBJECTIVE,
            folder=tmp_path,
            progress=PressesCtrlC(step),
        )
    assert final(tmp_path).step == 24
    assert run(tmp_path, resume="auto").steps == 24  # nothing is left to do
    assert equal(final(tmp_path), final(whole))


def test_a_damaged_newest_checkpoint_costs_steps_not_the_run(tmp_path, whole):
    run(tmp_path / "hurt")
    newest = checkpoint.found(tmp_path / "hurt" / "checkpoints")[0]
    newest.write_bytes(newest.read_bytes()[:-100])
    outcome = run(tmp_path / "hurt", resume="auto")
    assert equal(final(tmp_path / "hurt"), final(whole))
    assert [int(row["step"]) for row in table(tmp_path / "hurt")] == list(range(1, 25))
    assert len(outcome.losses) == 24


def test_a_table_cut_in_the_middle_of_a_row_goes_on(tmp_path):
    run(tmp_path)
    path = tmp_path / "metrics.csv"
    path.write_bytes(path.read_bytes()[:-9])
    checkpoint.found(tmp_path / "checkpoints")[0].unlink()
    run(tmp_path, resume="auto")
    assert [int(row["step"]) for row in table(tmp_path)] == list(range(1, 25))


def test_resuming_what_is_done_changes_nothing(tmp_path):
    first = run(tmp_path)
    again = run(tmp_path, resume="auto")
    assert again == first
    by_path = run(tmp_path, resume=str(checkpoint.found(tmp_path / "checkpoints")[0]))
    assert by_path == first


def test_without_resume_a_run_starts_anew(tmp_path):
    run(tmp_path)
    outcome = run(tmp_path, replace(PLAN, steps=10))
    assert outcome.steps == len(table(tmp_path)) == 10
    assert final(tmp_path).step == 10


def test_another_configuration_is_refused_and_touches_nothing(tmp_path):
    run(tmp_path)
    before = (tmp_path / "metrics.csv").read_bytes()
    with pytest.raises(ConfigError, match=r"train\.batch was 4, now 6"):
        run(tmp_path, replace(PLAN, batch=6), resume="auto")
    assert (tmp_path / "metrics.csv").read_bytes() == before
    with pytest.raises(ConfigError, match="without a folder"):
        run(None, resume="auto")


@pytest.mark.slow
def test_a_run_stopped_many_times_by_chance_ends_the_same(tmp_path, whole):
    rng = random.Random(5)
    done = 0
    while done < 24:
        limit = 0.02 + rng.random() * 0.3 + (final(tmp_path / "cut").seconds if done else 0)
        done = run(tmp_path / "cut", replace(PLAN, max_time=limit, checkpoint_every=3), resume="auto").steps
    assert equal(final(tmp_path / "cut"), final(whole))
