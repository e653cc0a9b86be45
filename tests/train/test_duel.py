"""Whole games of a real generator and discriminator: what comes out, and how they stop and go on."""

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
from small_duel import GAME, PLAN, TABLE, play, players
from small_run import Dies, Killed, Stripes, equal, final, table
from torch import nn

from anodiff.cond import Cond
from anodiff.errors import ConfigError, DataError, TrainingError
from anodiff.noise import PerImageNoise
from anodiff.train import checkpoint, duel, record
from anodiff.train.adversarial import FIGURES
from anodiff.train.ema import decay
from anodiff.train.fit import fit
from anodiff.train.plan import rate
from anodiff.train.source import Steps

PROGRAM = Path(__file__).with_name("small_duel.py")


@pytest.fixture(scope="module")
def whole_game(tmp_path_factory):
    """One that nobody interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    play(folder)
    torch.set_num_threads(before)
    return folder


def same(folder, whole):
    """The same bits in weights, average, both optimisers and the table."""
    mine, other = final(folder), final(whole)
    assert len(mine.optimizers) == len(other.optimizers) == 2
    assert mine.step == other.step
    assert equal(mine, other)
    assert [cells(row) for row in table(folder)] == [cells(row) for row in table(whole)]


def cells(row):
    return {name: value for name, value in row.items() if name != "seconds"}


def moved(before, module):
    """The names of the weights that are no longer as they were."""
    return {name for name, weight in module.named_parameters() if not torch.equal(weight, before[name])}


# ----------------------------------------------------------------------- a game


def test_a_game_equals_the_plain_loop_it_stands_for():
    """Critic first, then the generator against the new critic, on one batch; noise from the rows' seeds in order."""
    ours = players(dropout=0.0)
    outcome = fit(ours, Stripes(), PLAN, objective=GAME)

    plain = players(dropout=0.0)
    average = [w.detach().clone() for w in plain.parameters()]
    critic, generator = (
        torch.optim.Adam(p.parameters(), lr=1.0, betas=(0.5, 0.9), fused=True)
        for p in (plain.critic, plain.denoiser)
    )
    source, losses = Steps(Stripes(), PLAN, GAME, ahead=False), []
    for i in range(PLAN.steps):
        batch = source[i]
        noise = PerImageNoise(batch.seeds)
        cond = Cond(noise=noise)
        turn = GAME.turn(plain, batch.z, GAME.times(batch.u), noise)
        for optimizer, player, lr in (
            (critic, plain.critic, GAME.critic_rate * rate(PLAN, i)),
            (generator, plain.denoiser, rate(PLAN, i)),
        ):
            fake = GAME.drawn(plain, turn, noise, cond)
            if player is plain.critic:
                loss, _ = GAME.critic_loss(plain, turn, fake.detach(), cond, penalised=i % 3 == 0)
            else:
                loss = GAME.generator_loss(plain, turn, fake, cond)
            optimizer.param_groups[0]["lr"] = lr
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(player.parameters(), PLAN.clip)
            optimizer.step()
        losses.append(loss.item())
        for mean, weight in zip(average, plain.parameters(), strict=True):
            mean.lerp_(weight.detach(), 1 - decay(i, cap=PLAN.ema))
    assert outcome.losses == losses
    assert all(torch.equal(mean, weight) for mean, weight in zip(average, ours.parameters(), strict=True))


def test_both_players_learn_and_leave_as_they_came(tmp_path):
    model, state = players(), torch.random.get_rng_state()
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    outcome = fit(model, Stripes(), PLAN, objective=GAME, folder=tmp_path)
    assert (outcome.steps, outcome.stopped_by, outcome.alarms) == (8, "steps", ())
    changed = moved(before, model)
    assert changed == set(before)  # every weight of both
    assert {name.split(".")[0] for name in changed} == {"denoiser", "critic"}
    kept = final(tmp_path)
    assert all(torch.equal(value, kept.ema[name]) for name, value in model.state_dict().items())
    assert not all(torch.equal(value, kept.ema[name]) for name, value in kept.model.items())
    assert float(kept.ema["critic.net.spread.usual"]) > 0  # the usual spread goes along
    assert bool(kept.ema["critic.net.spread.seen"])
    assert not model.training
    assert all(weight.requires_grad for weight in model.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_table_tells_the_figures_of_the_game(tmp_path, monkeypatch):
    monkeypatch.setattr(duel, "LOOK_EVERY", 4)
    outcome = play(tmp_path)
    rows = table(tmp_path)
    assert list(rows[0]) == ["step", "loss", "lr", "seconds", *FIGURES]
    assert [int(row["step"]) for row in rows] == list(range(1, 9))
    assert [float(row["loss"]) for row in rows] == outcome.losses
    assert [float(row["lr"]) for row in rows] == [rate(PLAN, i) for i in range(8)]  # the generator's
    finite = {name: [math.isfinite(float(row[name])) for row in rows] for name in FIGURES}
    assert finite["r1"] == [i % 3 == 0 for i in range(8)]
    assert finite["diversity"] == [i in (3, 7) for i in range(8)]
    assert all(all(finite[name]) for name in ("critic_loss", "real", "fake"))
    assert all(0 < float(row[name]) < 1 for row in rows for name in ("real", "fake"))
    assert all(float(row["critic_loss"]) > 0 for row in rows)


def test_looking_at_the_chain_changes_nothing_of_the_run(tmp_path, whole_game, monkeypatch):
    monkeypatch.setattr(duel, "LOOK_EVERY", 1)
    play(tmp_path)
    assert equal(final(tmp_path), final(whole_game))
    assert all(float(row["diversity"]) > 0 for row in table(tmp_path))


def test_without_a_penalty_none_is_taken(tmp_path):
    fit(players(), Stripes(), PLAN, objective=replace(GAME, r1=0.0), folder=tmp_path)
    assert all(row["r1"] == "nan" for row in table(tmp_path))


def test_a_batch_of_one_and_a_short_float_are_played_too(tmp_path):
    plan = replace(PLAN, batch=1, precision="bf16-mixed")
    outcome = fit(players(), Stripes(), plan, objective=GAME, folder=tmp_path)
    assert all(map(math.isfinite, outcome.losses))
    assert math.isfinite(float(table(tmp_path)[0]["r1"]))


def test_two_games_are_the_same_bits_whoever_reads_ahead(tmp_path, whole_game):
    torch.rand(3)  # the caller's generator does not matter
    play(tmp_path / "same")
    same(tmp_path / "same", whole_game)
    play(tmp_path / "ahead", replace(PLAN, workers=2))
    same(tmp_path / "ahead", whole_game)
    play(tmp_path / "other", replace(PLAN, seed=1))
    assert not equal(final(tmp_path / "other"), final(whole_game))


def test_labels_and_the_null_reach_both_players():
    model = players(classes=3)
    tables = {name: m.table.weight for name, m in _labels(model)}
    before = {name: weight.detach().clone() for name, weight in tables.items()}
    plan = replace(PLAN, condition_dropout=0.4)
    fit(model, Stripes(), plan, objective=GAME, labels=[0, 1] * 5 + [0])
    assert {name.split(".")[0] for name in before} == {"denoiser", "critic"}
    for name, weight in tables.items():
        changed = (weight != before[name]).any(1)
        assert changed.tolist() == [True, True, False, True]  # no row has label 2; the last is the null
    with pytest.raises(
        DataError, match="a whole number from 0 to 2, a class of the network, but that of row 3 is 3"
    ):
        fit(players(classes=3), Stripes(), plan, objective=GAME, labels=[0, 1, 2, 3] + [0] * 7)


def _labels(model):
    return [(name, m) for name, m in model.named_modules() if type(m).__name__ == "LabelEmbedding"]


def test_without_dropout_the_null_is_not_taught():
    model = players(classes=3)
    weights = [m.table.weight for _, m in _labels(model)]
    before = [weight.detach().clone() for weight in weights]
    fit(model, Stripes(), PLAN, objective=GAME, labels=[0, 1] * 5 + [0])
    assert all(torch.equal(a[3], b[3]) for a, b in zip(weights, before, strict=True))
    assert not any(torch.equal(a[0], b[0]) for a, b in zip(weights, before, strict=True))


# --------------------------------------------------------------- stop and go on


@pytest.mark.parametrize("step", [4, 5])
def test_stopped_half_way_and_resumed_it_is_the_game_of_one_go(tmp_path, whole_game, step):
    """After step 4 the checkpoint of step 4 is not written yet: steps 3 and 4 are played and recorded again."""
    with pytest.raises(Killed):
        play(tmp_path, progress=Dies(step))
    assert final(tmp_path).step == 2 * ((step - 1) // 2)
    assert [int(row["step"]) for row in table(tmp_path)] == list(range(1, step + 1))
    outcome = play(tmp_path, resume="auto")
    same(tmp_path, whole_game)
    assert [int(row["step"]) for row in table(tmp_path)] == list(range(1, 9))
    assert outcome.losses == [float(row["loss"]) for row in table(whole_game)]


def test_out_of_time_and_resumed_it_is_the_game_of_one_go(tmp_path, whole_game):
    limit, steps = 1e-9, 0
    while steps < 8:
        outcome = play(tmp_path, replace(PLAN, max_time=limit), resume="auto")
        assert outcome.steps > steps  # at least one a go
        assert outcome.stopped_by == ("steps" if outcome.steps == 8 else "time")
        steps, limit = outcome.steps, outcome.seconds + 1e-9
    same(tmp_path, whole_game)


def test_resuming_what_is_done_changes_nothing(tmp_path):
    first = play(tmp_path)
    before = {path.name: path.read_bytes() for path in (tmp_path / "checkpoints").iterdir()}
    assert play(tmp_path, resume="auto") == first
    assert {path.name: path.read_bytes() for path in (tmp_path / "checkpoints").iterdir()} == before


def test_killed_at_random_moments_it_ends_with_the_same_bits(tmp_path, whole_game):
    options = {"kills": 3, "seed": random.randrange(2**31)}
    found = subprocess.run(
        [sys.executable, str(PROGRAM), str(tmp_path), json.dumps(options)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=200,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert len(json.loads(found.stdout)) >= 1, "the runs ended before they could be killed"
    same(tmp_path, whole_game)
    assert not list((tmp_path / "checkpoints").glob("*.part"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"r1": 0.2}, r"objective\.r1 was 0\.1, now 0\.2"),
        ({"interval": 4}, r"objective\.interval was 3, now 4"),
        ({"critic_rate": 1.0}, r"objective\.critic_rate was 0\.78, now 1\.0"),
        ({"momentum": (0.0, 0.9)}, r"objective\.momentum was \(0\.5, 0\.9\), now \(0\.0, 0\.9\)"),
    ],
)
def test_a_game_of_other_rules_does_not_go_on(whole_game, changes, said):
    before = (whole_game / "metrics.csv").read_bytes()
    with pytest.raises(ConfigError, match=said):
        fit(players(), Stripes(), PLAN, objective=replace(GAME, **changes), folder=whole_game, resume="auto")
    assert (whole_game / "metrics.csv").read_bytes() == before


def test_a_run_of_another_kind_does_not_go_on(tmp_path, whole):
    with pytest.raises(ConfigError, match=r"model was EpsDenoiser.*, now Adversaries.*start anew"):
        fit(
            players(),
            Stripes(),
            replace(PLAN, steps=24, warmup=4, weight_decay=0.01),
            objective=GAME,
            folder=tmp_path,
            resume=str(checkpoint.found(whole / "checkpoints")[0]),
        )
    play(tmp_path)
    other = players(table=TABLE[:3])
    with pytest.raises(ConfigError, match="model was Adversaries"):
        fit(other, Stripes(), PLAN, objective=GAME, folder=tmp_path, resume="auto")


# ------------------------------------------------------------------------ guards


def test_a_loss_that_is_no_number_says_where_and_what_to_try(tmp_path):
    plan = replace(PLAN, learning_rate=1e30, warmup=0, clip=None)
    with pytest.raises(
        TrainingError, match=r"at step \d of 8, learning rate \S+; .*lower train.learning_rate, such as"
    ):
        play(tmp_path, plan)
    kept = checkpoint.latest(tmp_path / "checkpoints")
    assert kept is None or all(value.isfinite().all() for value in kept.model.values())


def test_a_critic_that_breaks_alone_is_noticed():
    with pytest.raises(TrainingError, match=r"at step \d of 8.* a finite number was expected"):
        fit(players(), Stripes(), PLAN, objective=replace(GAME, critic_rate=1e35))


def test_pictures_that_are_no_numbers_are_blamed():
    class Broken(Stripes):
        def item(self, index, seed, /):
            return super().item(index, seed) / (0.0 if index == 4 else 1.0)

    with pytest.raises(
        TrainingError, match=r"1 of the 4 pictures of this step are not finite: check the data"
    ):
        fit(players(), Broken(), PLAN, objective=GAME)


# ----------------------------------------------------------------- several devices


@pytest.mark.enable_socket  # the two processes talk over the loopback
def test_two_devices_equal_one(tmp_path):
    """Up to the order of sums, where the critic does not compare rows (spread 1): a device sees its own rows alone."""
    runs = {"one": replace(PLAN, steps=6), "two": replace(PLAN, steps=6, devices=2)}
    models = {name: players(spread=1, dropout=0.0) for name in runs}
    for name, plan in runs.items():
        fit(models[name], Stripes(), plan, objective=GAME, folder=tmp_path / name)
    one, two = (record.read(tmp_path / name / "metrics.csv") for name in runs)
    assert [row.step for row in two] == list(range(1, 7))
    assert final(tmp_path / "two").stopped_by == "steps"
    torch.testing.assert_close([r.loss for r in one], [r.loss for r in two], rtol=1e-5, atol=0)
    for a, b in zip(one, two, strict=True):
        # The last figure is the widest gap among a device's own rows: its mean over devices is not that of all.
        torch.testing.assert_close(a.more[:-1], b.more[:-1], rtol=1e-4, atol=1e-5, equal_nan=True)
    # Where a weight's gradient is hardly more than rounding, Adam makes whole steps of it: a few stray, none far.
    pairs = zip(models["one"].parameters(), models["two"].parameters(), strict=True)
    apart = torch.cat([(a - b).detach().abs().flatten() for a, b in pairs])
    assert float((apart > 1e-5).float().mean()) < 1e-3
    assert float(apart.max()) < 1e-3
    y = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for what in (
            lambda model: model.denoiser(y, TABLE, Cond(noise=PerImageNoise([1, 2, 3, 4]))),
            lambda model: model.critic(y, 2 * y, TABLE),
        ):
            torch.testing.assert_close(*map(what, models.values()), rtol=0, atol=1e-4)
    assert not models["two"].training


# ------------------------------------------------------------------ the table


def test_a_table_with_figures_reads_back_and_is_cut_to_whole_rows(tmp_path):
    path = tmp_path / "metrics.csv"
    assert record.cut(path, 0, further=("a", "b")) == []
    rows = [record.Row(i, 1 / 3, 1e-3, 0.5 * i, (0.25 * i, math.nan)) for i in (1, 2, 3)]
    record.append(path, rows)
    found = record.read(path)
    assert [row[:4] for row in found] == [row[:4] for row in rows]
    assert [row.more[0] for row in found] == [0.25, 0.5, 0.75]
    assert all(math.isnan(row.more[1]) for row in found)
    kept = record.cut(path, 2, further=("a", "b"))
    assert [row.step for row in kept] == [1, 2]
    once = path.read_bytes()
    record.cut(path, 2, further=("a", "b"))
    assert path.read_bytes() == once
    assert once.decode().splitlines()[0] == "step,loss,lr,seconds,a,b"
    with path.open("a") as file:  # a kill in the middle of a row, with and without its line's end
        file.write("3,0.1,0.001,1.5,0.7")
    assert [row.step for row in record.read(path)] == [1, 2]
