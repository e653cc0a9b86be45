"""Runs that are killed with SIGKILL while they train, in processes of their own."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from small_run import equal, final, table

PROGRAM = Path(__file__).with_name("small_run.py")


def start(verb, folder, options):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), verb, str(folder), json.dumps(options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def finish(process):
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return json.loads(out), err


def agree(killed, whole):
    assert equal(final(killed), final(whole))
    assert [(r["step"], r["loss"], r["lr"]) for r in table(killed)] == [
        (r["step"], r["loss"], r["lr"]) for r in table(whole)
    ]
    assert not list((killed / "checkpoints").glob("*.part"))


def test_killed_at_random_moments_it_ends_with_the_same_bits(tmp_path, whole_adaptive):
    options = {"kills": 5, "seed": random.randrange(2**31), "adaptive": True}  # the law with the most state
    places, _ = finish(start("hunt", tmp_path, options))
    assert len(places) >= 2, "the runs ended before they could be killed"
    assert "step-00000024.ckpt" not in places[1]
    agree(tmp_path, whole_adaptive)


@pytest.mark.slow
def test_killed_as_a_program_of_its_own_it_ends_with_the_same_bits(tmp_path, whole):
    """As above with a new interpreter each time, so that nothing at all survives in memory."""
    rng = random.Random()
    for kill in range(4):
        process = start("fit", tmp_path, {"resume": "auto"})
        seen = len(table(tmp_path)) if (tmp_path / "metrics.csv").exists() else 0
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and process.poll() is None:
            if (tmp_path / "metrics.csv").exists() and len(table(tmp_path)) > seen + 2:
                break
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.1))
        process.kill()
        process.communicate()
        assert (tmp_path / "metrics.csv").exists(), f"kill {kill}"
    finish(start("fit", tmp_path, {"resume": "auto"}))
    agree(tmp_path, whole)


@pytest.mark.slow
def test_two_devices_work_from_a_program(tmp_path, whole):
    (steps, stopped_by, losses), err = finish(
        start("fit", tmp_path, {"plan": {"devices": 2}, "dropout": 0.0})
    )
    assert (steps, stopped_by, len(losses)) == (24, "steps", 24)
    assert err == ""
    (_, _, alone), _ = finish(start("fit", tmp_path / "alone", {"dropout": 0.0}))
    torch.testing.assert_close(losses, alone, rtol=1e-5, atol=0)
