"""Whole trainings of a small autoencoder and its critic: what comes out, and how they stop and go on."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_rebuild import GOALS, KL, PLAN, VQ, Pictures, pair, rebuild
from small_run import Dies, Killed, equal, final, table
from torch import nn

from anodiff.errors import ConfigError, TrainingError
from anodiff.nets.autoencoder import Autoencoder
from anodiff.nets.patches import PatchDiscriminator
from anodiff.noise import PerImageNoise
from anodiff.train import checkpoint
from anodiff.train.autoencoding import FIGURES, Criticised, places
from anodiff.train.ema import decay
from anodiff.train.fit import fit
from anodiff.train.plan import rate
from anodiff.train.progress import Silent
from anodiff.train.source import REVIVE, Steps, key

PROGRAM = Path(__file__).with_name("small_rebuild.py")


@pytest.fixture(scope="module")
def whole_of(tmp_path_factory):
    """Runs that nobody interrupted, by form."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    folders = {}
    for form in GOALS:
        folders[form] = tmp_path_factory.mktemp(form)
        rebuild(folders[form], form=form)
    torch.set_num_threads(before)
    return folders


def same(folder, whole):
    """The same bits in weights, average, optimisers and the table."""
    mine, other = final(folder), final(whole)
    assert len(mine.optimizers) == len(other.optimizers) == 2
    assert mine.step == other.step
    assert equal(mine, other)
    assert [cells(row) for row in table(folder)] == [cells(row) for row in table(whole)]


def cells(row):
    return {name: value for name, value in row.items() if name != "seconds"}


# -------------------------------------------------------------------- a training


@pytest.mark.parametrize("form", ["kl", "vq"])
def test_a_training_equals_the_plain_loop_it_stands_for(form):
    """One reconstruction a step: the critic learns from it, then the autoencoder against the new critic."""
    goal, ours = GOALS[form], pair(form)
    outcome = fit(ours, Pictures(), PLAN, objective=goal)

    plain = pair(form)
    model, critic = plain.autoencoder, plain.critic
    average = [w.detach().clone() for w in plain.parameters()]
    optimizers = [
        torch.optim.Adam(p.parameters(), lr=1.0, betas=(0.5, 0.9), fused=True) for p in (model, critic)
    ]
    source, losses = Steps(Pictures(), PLAN, goal, ahead=False), []

    def learn(optimizer, player, loss):
        optimizer.param_groups[0]["lr"] = rate(PLAN, i)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(player.parameters(), PLAN.clip)
        optimizer.step()

    for i in range(PLAN.steps):
        batch = source[i]
        x = 2 * batch.z - 1
        code = model.code(x, PerImageNoise(batch.seeds))
        x_hat = model.decode(code.z)
        error = (x - x_hat).abs().mean() + 0.3 * goal.features(x, x_hat).mean()
        loss = error + goal.weight * code.penalty.mean()
        if i >= 4:
            hinge = (1 - critic(x)).clamp(min=0).mean() + (1 + critic(x_hat.detach())).clamp(min=0).mean()
            learn(optimizers[1], critic, hinge)
            against = -critic(x_hat).mean()
            norms = [
                torch.autograd.grad(v, model.last, retain_graph=True)[0].norm() for v in (error, against)
            ]
            loss = loss + 0.5 * norms[0] / (norms[1] + 1e-4) * against
        learn(optimizers[0], model, loss)
        losses.append(error.item())
        dead = torch.zeros(16, dtype=torch.bool)
        if form == "vq" and i % 3 == 2:
            dead = model.codebook.counts == 0
            with torch.no_grad():
                model.codebook.revive(places(model.encode(x)), key(0, REVIVE, i))
        for mean, weight in zip(average, plain.parameters(), strict=True):
            mean.lerp_(weight.detach(), 1 - decay(i, cap=PLAN.ema))
            if form == "vq" and weight is model.codebook.vectors:
                mean[dead] = weight.detach()[dead]
    torch.testing.assert_close(outcome.losses, losses, rtol=1e-5, atol=0)
    for mean, weight in zip(average, ours.parameters(), strict=True):
        torch.testing.assert_close(mean, weight, rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", ["kl", "vq"])
def test_both_players_learn_and_leave_as_they_came(tmp_path, form):
    model, state = pair(form), torch.random.get_rng_state()
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    outcome = fit(model, Pictures(), PLAN, objective=GOALS[form], folder=tmp_path)
    assert (outcome.steps, outcome.stopped_by, outcome.alarms) == (8, "steps", ())
    still = {name for name, weight in model.named_parameters() if torch.equal(weight, before[name])}
    assert still <= {"critic.2.bias"}  # while both hinges are open it drops out of the loss
    kept = final(tmp_path)
    assert all(torch.equal(value, kept.ema[name]) for name, value in model.state_dict().items())
    assert not all(torch.equal(value, kept.ema[name]) for name, value in kept.model.items())
    assert not model.training
    assert all(weight.requires_grad for weight in model.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("form", ["kl", "vq"])
def test_the_table_tells_the_figures(whole_of, form):
    rows = table(whole_of[form])
    assert list(rows[0]) == ["step", "loss", "lr", "seconds", *FIGURES]
    assert [float(row["lr"]) for row in rows] == [rate(PLAN, i) for i in range(8)]
    for row in rows:
        told = {name: float(row[name]) for name in ("loss", *FIGURES)}
        assert told["loss"] == pytest.approx(told["l1"] + 0.3 * told["perceptual"], rel=1e-4)  # no other part
        playing = int(row["step"]) > 4
        assert all(
            math.isfinite(told[name]) == playing for name in ("adversarial", "adaptive", "critic_loss")
        )
        assert math.isfinite(told["used"]) == (form == "vq")
        assert told["penalty"] > 0
    if form == "vq":
        assert all(0 < float(row["used"]) <= 1 for row in rows)


def test_before_its_time_and_without_one_there_is_no_critic(tmp_path):
    """Its weights stay as they were drawn until the first step that it plays."""
    with pytest.raises(Killed):
        rebuild(tmp_path, progress=Dies(5))  # step 5 is not saved
    untouched, drawn = final(tmp_path), pair("vq")
    assert untouched.step == 4
    assert all(torch.equal(untouched.model[f"critic.{k}"], v) for k, v in drawn.critic.state_dict().items())
    alone = pair(critic=False)
    outcome = fit(alone, Pictures(), PLAN, objective=replace(KL, adversarial=0.0), folder=tmp_path / "alone")
    assert outcome.steps == 8
    assert len(final(tmp_path / "alone").optimizers) == 1
    assert all(row["critic_loss"] == "nan" for row in table(tmp_path / "alone"))


@pytest.mark.parametrize("form", ["kl", "vq"])
def test_it_learns_to_rebuild(form):
    plan = replace(PLAN, steps=150, learning_rate=1e-2, ema=0.9)
    goal = replace(
        GOALS[form], perceptual=0.0, start=0.8, revive_every=20, weight=1e-6 if form == "kl" else 1.0
    )
    model = pair(form)
    outcome = fit(model, Pictures(), plan, objective=goal)
    assert sum(outcome.losses[-10:]) < 0.4 * sum(outcome.losses[:10])
    x = torch.stack([2 * Pictures().item(i, i) - 1 for i in range(11)])
    with torch.no_grad():
        z = model.autoencoder.encode(x) if form == "kl" else model.autoencoder.code(x, torch.zeros_like).z
        rebuilt = model.autoencoder.decode(z)
    assert float((rebuilt - x).abs().mean()) < 0.4 * float(
        (x - x.mean()).abs().mean()
    )  # the averaged weights'


def test_short_floats_and_a_batch_of_one_are_trained_too(tmp_path):
    for form in GOALS:
        outcome = rebuild(tmp_path / form, replace(PLAN, batch=1, precision="bf16-mixed"), form=form)
        assert all(map(math.isfinite, outcome.losses))


def test_trainings_are_the_same_bits_whoever_reads_ahead(tmp_path, whole_of):
    torch.rand(3)  # the caller's generator does not matter
    rebuild(tmp_path / "same")
    same(tmp_path / "same", whole_of["vq"])
    rebuild(tmp_path / "ahead", replace(PLAN, workers=2))
    same(tmp_path / "ahead", whole_of["vq"])
    rebuild(tmp_path / "other", replace(PLAN, seed=1), form="kl")
    assert not equal(final(tmp_path / "other"), final(whole_of["kl"]))


# ------------------------------------------------------------- the package's networks


class Larger(Pictures):
    """The same stripes at twice the size."""

    def item(self, index, seed, /):
        return super().item(index, seed).repeat(1, 2, 2)


def real(form: str, seed: int = 0) -> Criticised:
    torch.manual_seed(seed)
    net = Autoencoder(
        image_channels=1,
        channels=3,
        width=8,
        multipliers=(1, 2),
        attention=True,
        form=form,
        codes=128,
        groups=4,
    )
    return Criticised(net, PatchDiscriminator(1, 8, 1))


@pytest.mark.parametrize("form", ["kl", "vq"])
def test_the_packages_networks_learn_and_go_on_with_the_same_bits(tmp_path, form):
    plan = replace(PLAN, steps=6, learning_rate=5e-3)
    model, cut = real(form), real(form)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    outcome = fit(model, Larger(), plan, objective=GOALS[form], folder=tmp_path / "whole")
    assert outcome.losses[-1] < outcome.losses[0]
    still = {name for name, weight in model.named_parameters() if torch.equal(weight, before[name])}
    assert still <= {"critic.last.bias"}  # as above
    with pytest.raises(Killed):
        fit(cut, Larger(), plan, objective=GOALS[form], folder=tmp_path / "cut", progress=Dies(5))
    fit(real(form, 1), Larger(), plan, objective=GOALS[form], folder=tmp_path / "cut", resume="auto")
    same(tmp_path / "cut", tmp_path / "whole")
    used = [float(row["used"]) for row in table(tmp_path / "whole")]
    assert all(0 < share <= 1 for share in used) if form == "vq" else all(map(math.isnan, used))


# ---------------------------------------------------------------------- the codebook


def test_a_code_that_begins_anew_does_so_in_the_average_and_the_others_do_not(tmp_path):
    # 64 places a step: some codes are never chosen.
    model, plan = pair("vq", codes=64), replace(PLAN, steps=6)
    goal = replace(VQ, revive_every=6, start=0.9)
    fit(model, Pictures(), plan, objective=goal, folder=tmp_path)
    kept = final(tmp_path)
    name = "autoencoder.codebook.vectors"
    dead = (kept.model[name] == kept.ema[name]).all(1)
    assert 0 < int(dead.sum()) < 64
    used = float(table(tmp_path)[-1]["used"])
    assert int(dead.sum()) == round(64 * (1 - used))
    assert int(kept.model["autoencoder.codebook.counts"].sum()) == 0  # counted anew, and so in the average
    assert torch.equal(kept.model["autoencoder.codebook.counts"], kept.ema["autoencoder.codebook.counts"])
    # They stand on codes of the last step's pictures.
    x = 2 * Steps(Pictures(), plan, goal, ahead=False)[5].z - 1
    trained = pair("vq", codes=64)
    trained.load_state_dict(kept.model)
    with torch.no_grad():
        found = places(trained.autoencoder.encode(x))  # [64, 4]
    apart = (kept.model[name][dead][:, None] - found).abs().amax(-1)  # [dead, 64]
    assert float(apart.amin(1).max()) < 1e-6


def test_revival_keeps_more_of_a_codebook_in_use():
    plan = replace(PLAN, steps=60, learning_rate=3e-3)
    found = {}
    for every in (10, 1000):
        model = pair("vq", codes=64)
        fit(model, Pictures(), plan, objective=replace(VQ, revive_every=every))
        book = model.autoencoder.codebook
        book.counts.zero_()
        x = torch.stack([2 * Pictures().item(i, i) - 1 for i in range(11)])
        model.train()
        model.autoencoder.code(x, torch.zeros_like)
        found[every] = book.used
    assert found[10] > 1.5 * found[1000]


# ------------------------------------------------------------------ stop and go on


@pytest.mark.parametrize("form", ["kl", "vq"])
@pytest.mark.parametrize("step", [3, 6])
def test_stopped_half_way_and_resumed_it_is_the_training_of_one_go(tmp_path, whole_of, form, step):
    """Before the critic plays and after; codes are revived in steps 3 and 6, which are done again."""
    with pytest.raises(Killed):
        rebuild(tmp_path, form=form, progress=Dies(step))
    assert final(tmp_path).step == 2 * ((step - 1) // 2)
    outcome = rebuild(tmp_path, form=form, resume="auto")
    same(tmp_path, whole_of[form])
    assert outcome.losses == [float(row["loss"]) for row in table(whole_of[form])]


def test_out_of_time_and_resumed_it_is_the_training_of_one_go(tmp_path, whole_of):
    limit, steps = 1e-9, 0
    while steps < 8:
        outcome = rebuild(tmp_path, replace(PLAN, max_time=limit), resume="auto")
        assert outcome.steps > steps
        assert outcome.stopped_by == ("steps" if outcome.steps == 8 else "time")
        steps, limit = outcome.steps, outcome.seconds + 1e-9
    same(tmp_path, whole_of["vq"])


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_bits(tmp_path, whole_of):
    options = {"kills": 3, "seed": random.randrange(2**31), "form": "vq"}
    found = subprocess.run(
        [sys.executable, str(PROGRAM), str(tmp_path), json.dumps(options)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=200,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert int(found.stdout) >= 1, "the runs ended before they could be killed"
    same(tmp_path, whole_of["vq"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"start": 0.25}, r"objective\.start was 0\.5, now 0\.25"),
        ({"weight": 0.5}, r"objective\.weight was 1\.0, now 0\.5"),
        ({"features": nn.L1Loss()}, r"objective\.features was slopes_apart\(\), now L1Loss:[0-9a-f]{16}"),
    ],
)
def test_a_training_for_something_else_does_not_go_on(whole_of, changes, said):
    before = (whole_of["vq"] / "metrics.csv").read_bytes()
    with pytest.raises(ConfigError, match=said):
        rebuild(whole_of["vq"], resume="auto", **changes)
    assert (whole_of["vq"] / "metrics.csv").read_bytes() == before


# ------------------------------------------------------------------------ guards


@pytest.mark.parametrize("changes", [{}, {"critic_rate": 1e35, "start": 0.0}])
def test_numbers_that_are_none_are_noticed(tmp_path, changes):
    plan = replace(PLAN, clip=None) if changes else replace(PLAN, learning_rate=1e30, warmup=0, clip=None)
    with pytest.raises(TrainingError, match=r"at step \d of 8.* a finite number was expected"):
        rebuild(tmp_path, plan, **changes)
    kept = checkpoint.latest(tmp_path / "checkpoints")
    assert kept is None or all(value.isfinite().all() for value in kept.model.values())


class Notes(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text):
        self.said.append(text)


def test_a_codebook_of_which_nearly_nothing_is_used_is_told_at_once_and_at_the_end():
    """400 codes, of which a step of one picture can choose 16 and hardly moves."""
    notes, plan = Notes(), replace(PLAN, batch=1, steps=104, learning_rate=1e-7, checkpoint_every=50)
    goal = replace(VQ, revive_every=1000, adversarial=0.0)
    outcome = fit(pair("vq", codes=400, critic=False), Pictures(), plan, objective=goal, progress=notes)
    assert [note.split(":")[0] for note in notes.said] == ["step 100"]
    assert len(outcome.alarms) == 1
    assert outcome.alarms[0].endswith("lower codec.codes, or train longer")


# ----------------------------------------------------------------- several devices


@pytest.mark.slow
@pytest.mark.enable_socket  # the two processes talk over the loopback
def test_two_devices_equal_one(tmp_path):
    """Up to the order of sums: the weight of the critic is that of the whole batch on both."""
    runs = {"one": PLAN, "two": replace(PLAN, devices=2)}
    for name, plan in runs.items():
        rebuild(tmp_path / name, plan, form="kl")
    for a, b in zip(table(tmp_path / "one"), table(tmp_path / "two"), strict=True):
        for column in ("loss", *FIGURES[:-1]):
            assert float(a[column]) == pytest.approx(float(b[column]), rel=1e-3, abs=1e-5, nan_ok=True)
    one, two = final(tmp_path / "one"), final(tmp_path / "two")
    apart = torch.cat([(one.model[k] - two.model[k]).abs().flatten() for k in one.model])
    assert float((apart > 1e-5).float().mean()) < 1e-2


@pytest.mark.slow
@pytest.mark.enable_socket
def test_codes_are_revived_on_two_devices(tmp_path):
    outcome = rebuild(tmp_path, replace(PLAN, devices=2), form="vq")
    assert outcome.steps == 8
    assert all(math.isfinite(loss) for loss in outcome.losses)
