"""What a run shows, and how often."""

from __future__ import annotations

import io
import sys

import pytest

from anodiff.train import progress as shown
from anodiff.train.plan import Plan

PLAN = Plan(steps=200, max_time=60.0)


def test_pace_counts_from_where_this_process_began():
    pace = shown.Pace(100, 40.0, PLAN)
    assert pace.speed == 0
    assert pace.left == 20.0
    for step in range(101, 111):
        pace.update(step, 2.0, 40.0 + (step - 100) * 0.1)
    assert pace.speed == pytest.approx(10.0)
    assert pace.left == pytest.approx(9.0)  # 90 steps at 10 a second, before the 19 s that are left
    assert pace.loss == pytest.approx(2.0)
    assert "loss 2  10 steps/s  0:00:09 left" in pace.text()


def test_lines_come_now_and_then_and_at_the_end(capsys):
    lines = shown.Lines(label="train", every=1e9)
    lines.begin(0, 0.0, PLAN)
    for step in range(1, 51):
        lines.update(step, 0.25, step * 0.5)
    assert capsys.readouterr().err == ""
    lines.end()
    lines.end()
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "train 50/200  loss 0.25  2 steps/s  0:00:35 left\n"
    often = shown.Lines(every=0.0)
    often.begin(0, 0.0, PLAN)
    for step in range(1, 4):
        often.update(step, 0.25, step * 0.5)
    assert capsys.readouterr().err.count("\n") == 3


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_a_bar_on_stderr(monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    bar = shown.progress("train")
    assert isinstance(bar, shown.Bar)
    bar.begin(0, 0.0, PLAN)
    bar.update(120, 0.5, 12.0)
    bar.end()
    bar.end()
    assert "120/200" in terminal.getvalue()
    assert "loss 0.5" in terminal.getvalue()
    assert capsys.readouterr().out == ""


def test_elsewhere_there_are_lines_and_an_end_without_a_beginning_is_harmless():
    assert isinstance(shown.progress(), shown.Lines)
    shown.progress().end()
    shown.Bar().end()
