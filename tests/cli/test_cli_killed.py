"""A fit that is killed, at whatever moment, and resumed ends with the same file as one that was not."""

from __future__ import annotations

import csv
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from anodiff import artefact
from anodiff.data.demo import make_demo

STEPS = 40
SMALL = ("data.size=64", "net.width=16", "train.warmup=2", f"train.steps={STEPS}", "train.checkpoint_every=2")


def fit(good: Path, run: Path) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "anodiff", "fit", str(good), "-o", str(run), "--preset", "tiny"]
    words += [word for pair in SMALL for word in ("--set", pair)] + ["--device", "cpu", "--resume", "auto"]
    return subprocess.Popen(
        words, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def steps_done(run: Path) -> int:
    try:
        with (run / "metrics.csv").open(newline="") as file:
            return sum(1 for _ in csv.DictReader(file))
    except OSError:
        return 0


def killed(process: subprocess.Popen[str], run: Path, after: int) -> bool:
    """Kill the process some moment after `after` steps stand in its table; False when it was done before."""
    deadline = time.monotonic() + 200
    while steps_done(run) < after and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(random.random() * 0.05)
    if process.poll() is not None:
        return False
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return True


@pytest.mark.parametrize(
    "moments", [(15,), pytest.param((1, 8, 15, 22, 30), marks=pytest.mark.slow)], ids=["once", "often"]
)
def test_a_killed_fit_ends_bit_identical(moments: tuple[int, ...], tmp_path: Path) -> None:
    make_demo(tmp_path, categories=("brick",), train=10, good=1, bad=1)
    good = tmp_path / "brick"
    whole = fit(good, tmp_path / "whole")
    run = tmp_path / "killed"
    kills = sum(killed(fit(good, run), run, after) for after in moments)
    assert kills, "every process ended before it could be killed"
    assert not (run / "model.anodiff").exists() or kills < len(moments)
    last = fit(good, run)
    assert last.wait(200) == 0, last.communicate()
    assert whole.wait(200) == 0, whole.communicate()
    tensors, meta = artefact.read(run / "model.anodiff")
    expected, about = artefact.read(tmp_path / "whole" / "model.anodiff")
    assert tensors.keys() == expected.keys()
    assert all((tensors[name] == value).all() for name, value in expected.items())
    assert artefact.model_id(meta) == artefact.model_id(about)
    assert steps_done(run) == STEPS
