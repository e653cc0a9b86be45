"""Whole runs: what comes out, how they end, and how they go on."""

from __future__ import annotations

import math
import os
import random
import signal
import threading
import time
import warnings
from dataclasses import replace

import pytest
import torch
from small_run import OBJECTIVE, PLAN, Stripes, denoiser, equal, final, run, table
from torch import nn

from anodiff.cond import Cond
from anodiff.diffusion.denoiser import KarrasDenoiser
from anodiff.diffusion.levels import column, level
from anodiff.errors import ConfigError, DataError, DeviceError, TrainingError
from anodiff.train import checkpoint
from anodiff.train.ema import decay
from anodiff.train.fit import fit
from anodiff.train.objective import KarrasWeight, LogUniform, Objective
from anodiff.train.plan import Plan, rate
from anodiff.train.progress import Lines
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
        loss = OBJECTIVE.loss(plain, batch.z, batch.sigma, batch.n).mean()
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
    assert not all(torch.equal(value, kept.ema[name]) for name, value in kept.denoiser.items())
    assert not net.training
    assert all(weight.requires_grad for weight in net.parameters())
    assert torch.equal(torch.random.get_rng_state(), state_before)


def test_two_runs_are_the_same_bits_and_another_seed_is_not(tmp_path, whole):
    torch.rand(3)  # the caller's generator does not matter
    run(tmp_path / "same", replace(PLAN, workers=1))
    run(tmp_path / "other", replace(PLAN, seed=1))
    assert equal(final(tmp_path / "same"), final(whole))
    assert not equal(final(tmp_path / "other"), final(whole))


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


def test_a_loss_that_is_no_number_says_where_and_what_to_try(tmp_path):
    plan = replace(PLAN, learning_rate=1e30, warmup=0, clip=None)
    with pytest.raises(
        TrainingError, match=r"at step \d+ of 24, learning rate \S+; .*lower train.learning_rate, such as"
    ):
        run(tmp_path, plan)
    kept = checkpoint.latest(tmp_path / "checkpoints")
    assert kept is None or all(value.isfinite().all() for value in kept.denoiser.values())


def test_pictures_that_are_no_numbers_are_blamed():
    class Broken(Stripes):
        def item(self, index, seed, /):
            return super().item(index, seed) / (0.0 if index == 4 else 1.0)

    with pytest.raises(
        TrainingError, match=r"1 of the 4 pictures of this step are not finite: check the data"
    ):
        fit(denoiser(), Broken(), PLAN, objective=OBJECTIVE)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 0}, "train.steps must be at least 1, got 0"),
        ({"batch": 0}, "train.batch"),
        ({"learning_rate": math.nan}, "train.learning_rate must be above 0"),
        ({"schedule": "linear"}, "'cosine' or 'constant'"),
        ({"warmup": 24}, "below train.steps"),
        ({"ema": 1.0}, "train.ema"),
        ({"clip": 0.0}, "train.clip"),
        ({"max_time": 0.0}, "train.max_time"),
        ({"precision": "8-bit"}, "one of 32-true"),
        ({"condition_dropout": 0.1}, "no condition to drop"),
    ],
)
def test_numbers_without_sense_are_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        run(None, replace(PLAN, **changes))


def test_data_and_devices_without_sense_are_refused():
    class Nothing(Stripes):
        def __len__(self):
            return 0

    with pytest.raises(DataError, match="at least one picture"):
        fit(denoiser(), Nothing(), PLAN, objective=OBJECTIVE)
    with pytest.raises(DataError, match="3 labels for 11 pictures"):
        fit(denoiser(), Stripes(), PLAN, objective=OBJECTIVE, labels=[0, 1, 2])
    with pytest.raises(ConfigError, match=r"train.batch=5 .* 2 devices; take a multiple of 2"):
        run(None, replace(PLAN, batch=5, devices=2))
    with pytest.raises(DeviceError, match=r"train.devices=1 .*Try devices=1, accelerator='auto'"):
        run(None, replace(PLAN, accelerator="abacus"))


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


class Labelled(nn.Module):
    """The ideal denoiser of point masses, one a label, learned as a table."""

    def __init__(self):
        super().__init__()
        self.points = nn.Embedding(4, 2)  # the last is the null

    def forward(self, y, sigma, cond: Cond | None = None):
        row = cond.label if cond.keep is None else torch.where(cond.keep, cond.label, 3)
        return self.points(row)[:, :, None, None]


class Points:
    def __len__(self):
        return 6

    def item(self, index, seed, /):
        return torch.tensor([[0.0, 1.0], [1.0, 0.0], [-1.0, -1.0]])[index % 3].view(2, 1, 1)


def test_labels_and_the_null_reach_the_denoiser():
    net = Labelled()
    plan = Plan(steps=300, batch=6, learning_rate=0.1, condition_dropout=0.3)
    fit(
        net,
        Points(),
        plan,
        objective=Objective(weight=lambda s: s**0, times=LogUniform(1, 2)),
        labels=[0, 1, 2] * 2,
    )
    learnt = net.points.weight.detach()
    torch.testing.assert_close(
        learnt[:3], torch.tensor([[0.0, 1.0], [1.0, 0.0], [-1.0, -1.0]]), atol=0.02, rtol=0
    )
    torch.testing.assert_close(learnt[3], torch.zeros(2), atol=0.1, rtol=0)


class Doubling(nn.Module):
    """A codec with a shape of its own and a weight that must stay."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(2.0))
        self.modes = []

    def encode(self, image):
        self.modes.append((self.training, torch.is_grad_enabled()))
        return nn.functional.avg_pool2d(image, 2) * self.gain


def test_a_codec_goes_before_the_denoiser_and_is_not_trained(tmp_path):
    class Coded(Stripes):
        def item(self, index, seed, /):
            return nn.functional.avg_pool2d(super().item(index, seed), 2) * 2

    codec, one, other = Doubling(), denoiser(), denoiser()
    before = fit(one, Coded(), PLAN, objective=OBJECTIVE)
    after = fit(other, Stripes(), PLAN, objective=OBJECTIVE, codec=codec, folder=tmp_path)
    assert before.losses == after.losses
    assert codec.gain.item() == 2.0
    assert set(codec.modes) == {(False, False)}
    assert not any("gain" in name for name in final(tmp_path).denoiser)


MEANS = torch.tensor([[1.0, 0.5], [-0.5, 1.0], [0.0, -1.0]])
SPREAD = 0.2


class Mixture:
    """Draws of a mixture of three round Gaussians in the plane, a fresh one each time."""

    def __len__(self):
        return 3

    def item(self, index, seed, /):
        generator = torch.Generator().manual_seed(seed)
        return (MEANS[index] + SPREAD * torch.randn(2, generator=generator)).view(2, 1, 1)


def ideal(y, sigma, cond=None):
    """The posterior mean of the mixture: what no denoiser can beat."""
    total = column(SPREAD**2 + level(sigma) ** 2, y)
    apart = y[:, None] - MEANS[None, :, :, None, None]  # [B, 3, 2, 1, 1]
    share = (-apart.square().sum(2, keepdim=True) / (2 * total[:, None])).softmax(1)
    means = MEANS[None, :, :, None, None] + SPREAD**2 / total[:, None] * apart
    return (share * means).sum(1)


class Planar(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(5, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 2)
        )

    def forward(self, x, t, cond):
        t = 4 * t[:, None]
        return self.layers(torch.cat([2 * x.flatten(1), t, t.sin(), t.cos()], 1))[:, :, None, None]


def test_training_reaches_the_least_loss_there_is():
    std = float((MEANS.var(0, correction=0).mean() + SPREAD**2).sqrt())
    torch.manual_seed(0)
    net = KarrasDenoiser(Planar(), std=std, low=0.1, high=3.0)
    objective = Objective(weight=KarrasWeight(std), times=LogUniform(0.1, 3.0))
    test = Steps(Mixture(), Plan(steps=1, batch=6000, seed=99), objective)[0]

    def score(d):
        with torch.no_grad():
            return objective.loss(d, test.z, test.sigma, test.n).mean().item()

    untrained, least = score(net), score(ideal)
    fit(net, Mixture(), Plan(steps=400, batch=64, learning_rate=1e-2, seed=1), objective=objective)
    assert untrained > 1.35 * least
    assert least < score(net) < 1.05 * least


def test_mixed_precision_keeps_weights_and_average_single(tmp_path):
    outcome = run(tmp_path, replace(PLAN, precision="bf16-mixed"))
    single = run(None)
    assert all(value.dtype == torch.float32 for value in final(tmp_path).ema.values())
    assert outcome.losses != single.losses
    torch.testing.assert_close(outcome.losses, single.losses, rtol=0.05, atol=0)


@pytest.mark.enable_socket
def test_what_cannot_travel_to_other_processes_is_said():
    local = replace(OBJECTIVE, weight=lambda sigma: sigma**-2)
    with pytest.raises(ConfigError, match=r"cannot be sent .* use train\.devices=1"):
        fit(denoiser(), Stripes(), replace(PLAN, devices=2), objective=local)


@pytest.mark.enable_socket  # the two processes talk over the loopback
def test_two_devices_equal_one(tmp_path):
    plan = replace(PLAN, steps=10)
    one, two = denoiser(), denoiser()
    alone = fit(one, Stripes(), plan, objective=OBJECTIVE)
    pair = fit(two, Stripes(), replace(plan, devices=2), objective=OBJECTIVE, folder=tmp_path)
    torch.testing.assert_close(alone.losses, pair.losses, rtol=1e-5, atol=0)
    y, sigma = torch.randn(4, 1, 8, 8), OBJECTIVE.times.table[[5, 30, 60, 99]]
    with torch.no_grad():
        eps_one, eps_two = (((y - d(y, sigma)) / column(sigma, y)) for d in (one, two))
    torch.testing.assert_close(eps_one, eps_two, rtol=0, atol=1e-5)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        # A bias before a normalisation has no gradient but rounding, which Adam blows up to whole steps.
        if a.ndim > 1:
            torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    assert pair.steps == len(table(tmp_path)) == 10
    assert pair.stopped_by == "steps"
    assert not two.training


@pytest.mark.slow
@pytest.mark.enable_socket
def test_ctrl_c_and_bad_numbers_cross_processes(tmp_path):
    plan = replace(PLAN, steps=100_000, devices=2, checkpoint_every=50)

    def press():
        while not checkpoint.found(tmp_path / "checkpoints"):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    with pytest.raises(KeyboardInterrupt, match="the checkpoint is in"):
        run(tmp_path, plan)
    assert final(tmp_path).stopped_by == "interrupt"
    with pytest.raises(TrainingError, match=r"lower train.learning_rate, such as \S+, or"):
        run(None, replace(PLAN, learning_rate=1e30, clip=None, devices=2))


@pytest.mark.slow
def test_a_run_stopped_many_times_by_chance_ends_the_same(tmp_path, whole):
    rng = random.Random(5)
    done = 0
    while done < 24:
        limit = 0.02 + rng.random() * 0.3 + (final(tmp_path / "cut").seconds if done else 0)
        done = run(tmp_path / "cut", replace(PLAN, max_time=limit, checkpoint_every=3), resume="auto").steps
    assert equal(final(tmp_path / "cut"), final(whole))
