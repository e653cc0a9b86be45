"""What is said of a game that goes wrong, and that nothing is said of one that does not."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from small_duel import GAME, PLAN, play, players
from small_run import Killed, Stripes

from anodiff.diffusion.schedule import table
from anodiff.train.adversarial import FIGURES
from anodiff.train.collapse import WINDOW, alarms, figures
from anodiff.train.fit import fit
from anodiff.train.objective import UniformTable
from anodiff.train.progress import Silent
from anodiff.train.record import Row

NAN = math.nan


def rows(count, *, real=0.6, fake=0.4, diversity=0.9, gap=0.3, first=1):
    """Rows of a game as it records them: a penalty now and then, a look at the chain every fifty steps."""
    return [
        Row(
            i,
            0.7,
            1e-4,
            i / 10,
            (1.3, real, fake, 0.1 if i % 15 == 1 else NAN, diversity if i % 50 == 0 else NAN, gap),
        )
        for i in range(first, first + count)
    ]


def test_figures_are_means_of_what_there_is():
    found = figures([*rows(50, real=0.9, diversity=0.5), *rows(50, real=0.7, diversity=0.7, first=51)])
    assert list(found) == list(FIGURES)
    assert found == pytest.approx(
        {"critic_loss": 1.3, "real": 0.8, "fake": 0.4, "r1": 0.1, "diversity": 0.6, "gap": 0.3}
    )
    assert figures(rows(300, real=0.1)[:200] + rows(WINDOW, real=0.3))["real"] == pytest.approx(
        0.3
    )  # the last
    assert "diversity" not in figures(rows(40))
    assert figures([]) == {}
    assert figures([Row(i, 0.1, 1e-3, 1.0) for i in range(WINDOW)]) == {}  # no game


def test_a_healthy_game_and_one_that_is_too_young_give_no_alarm():
    assert alarms(rows(WINDOW)) == ()
    assert alarms(rows(WINDOW - 1, real=1.0, fake=0.0, diversity=0.0)) == ()
    assert alarms([]) == ()
    # A critic that says the same of all, or is sometimes sure, is none that is always sure.
    assert alarms(rows(WINDOW, real=0.99, fake=0.98)) == ()
    assert alarms([*rows(60, real=1.0, fake=0.0), *rows(60, first=61)]) == ()
    assert alarms([Row(i, 0.1, 1e-3, 1.0) for i in range(2 * WINDOW)]) == ()


def test_a_critic_that_is_always_sure_is_told():
    (alarm,) = alarms(rows(WINDOW, real=0.98, fake=0.02))
    assert alarm.startswith(
        "the critic tells real from drawn pairs nearly always (probability 0.98 against 0.02)"
    )
    assert alarm.endswith("raise family.r1 or lower family.critic_rate")
    assert alarms(rows(WINDOW, real=0.94, fake=0.05)) == ()


def test_a_level_at_which_the_critic_is_always_sure_is_told_though_the_mean_hides_it():
    (alarm,) = alarms(rows(WINDOW, real=0.7, fake=0.4, gap=0.97))
    assert alarm.startswith("at one of its noise levels the critic tells real from drawn pairs nearly always")
    assert "0.97 apart, 0.30 over all levels" in alarm
    assert len(alarms(rows(WINDOW, real=0.98, fake=0.02, gap=0.99))) == 1  # said once, of all levels


def test_draws_that_are_all_alike_are_told():
    (alarm,) = alarms(rows(WINDOW, diversity=0.1))
    assert alarm.startswith("what the chain draws varies 0.10 times as much as the data")
    assert "collapsed; raise family.r1" in alarm
    assert alarms(rows(WINDOW, diversity=0.35)) == ()
    assert alarms(rows(WINDOW, diversity=NAN)) == ()  # batches of one: never looked at


def test_both_at_once_and_only_the_last_steps_count():
    bad = rows(WINDOW, real=0.99, fake=0.01, diversity=0.05, first=1001)
    assert len(alarms([*rows(1000), *bad])) == 2
    assert alarms([*bad, *rows(WINDOW, first=2001)]) == ()


# ---------------------------------------------------------------- a run that does


class Loud(Stripes):
    """Pictures of a range that a bounded generator cannot reach: stripes from -7 to 13."""

    def item(self, index, seed, /):
        return 3 + 10 * super().item(index, seed)


class Notes(Silent):
    """Keeps what is said, and may die as a killed process does."""

    def __init__(self, *, dies: int = 0) -> None:
        self.said: list[str] = []
        self.dies = dies

    def update(self, step, loss, seconds):
        if step == self.dies:
            raise Killed

    def note(self, text):
        self.said.append(text)


def lost(folder, *, resume=None, progress):
    """A game that the generator cannot win: it hardly moves, and its pixels end at 1."""
    grid = table("vp", 2)
    return fit(
        players(table=grid, bounded=True, dropout=0.0),
        Loud(),
        replace(PLAN, steps=120, learning_rate=1e-7, schedule="constant", warmup=0, checkpoint_every=10),
        objective=replace(GAME, times=UniformTable(grid), r1=0.0, critic_rate=1e5),
        folder=folder,
        resume=resume,
        progress=progress,
    )


def test_a_run_that_is_lost_says_so_while_it_goes_on_and_at_its_end(tmp_path):
    first = Notes(dies=113)
    with pytest.raises(Killed):
        lost(tmp_path, progress=first)
    # Each once, at the first checkpoint behind the window, though that of step 110 could say it again.
    assert [note.split(":")[0] for note in first.said] == ["step 100", "step 100"]
    assert "the critic tells real from drawn pairs nearly always" in first.said[0]
    assert "what the chain draws varies 0." in first.said[1]

    # Resumed, the steps of this process are too few to judge by; those before are in the table.
    again = Notes()
    outcome = lost(tmp_path, resume="auto", progress=again)
    assert [f"step 120: {alarm}" for alarm in outcome.alarms] == again.said
    assert len(again.said) == 2
    assert [note[10:50] for note in again.said] == [note[10:50] for note in first.said]


def test_a_young_run_says_nothing(tmp_path):
    notes = Notes()
    assert play(tmp_path, progress=notes).alarms == ()
    assert notes.said == []
