"""Checkpoints are whole or absent, checked when read, and refuse another configuration."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch
from small_run import OBJECTIVE, PLAN, TABLE, denoiser

from anodiff.diffusion.denoiser import EpsDenoiser
from anodiff.errors import ConfigError, ModelFileError
from anodiff.noise import simplex
from anodiff.train import checkpoint
from anodiff.train.checkpoint import State, describe
from anodiff.train.objective import MinSNR, UniformTable


def state(step, **changes):
    given = {
        "step": step,
        "seconds": 1.5,
        "stopped_by": None,
        "fingerprint": {"train.batch": "4"},
        "model": {"w": torch.arange(5.0) + step},
        "ema": {"w": torch.arange(5.0) - step},
        "optimizers": [
            {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"betas": (0.9, 0.999)}]}
        ],
        "precision": {},
    }
    return State(**{**given, **changes})


def test_a_state_comes_back_as_it_was(tmp_path):
    path = checkpoint.save(tmp_path / "c", state(12))
    back = checkpoint.load(path)
    assert (back.step, back.seconds, back.stopped_by) == (12, 1.5, None)
    assert torch.equal(back.model["w"], state(12).model["w"])
    assert back.optimizers[0]["param_groups"] == [{"betas": (0.9, 0.999)}]


def test_the_last_two_are_kept_and_nothing_else(tmp_path):
    for step in (2, 4, 6, 110):
        checkpoint.save(tmp_path, state(step))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000006.ckpt", "step-00000110.ckpt"]
    assert checkpoint.latest(tmp_path).step == 110


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "foreign"])
def test_an_unreadable_newest_falls_back_to_the_one_before(tmp_path, damage):
    checkpoint.save(tmp_path, state(2))
    path = checkpoint.save(tmp_path, state(4))
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1  # a single bit
    path.write_bytes({"cut": raw[: len(raw) // 2], "flip": raw, "empty": b"", "foreign": b"PK" * 50}[damage])
    with pytest.raises(ModelFileError, match=r"step-00000004.*remove it and resume from another"):
        checkpoint.load(path)
    assert checkpoint.latest(tmp_path).step == 2


def test_none_readable_is_said_and_none_at_all_is_none(tmp_path):
    assert checkpoint.latest(tmp_path) is None
    checkpoint.save(tmp_path, state(2)).write_bytes(b"x")
    with pytest.raises(ModelFileError, match="none of the 1 checkpoints can be read"):
        checkpoint.latest(tmp_path)
    with pytest.raises(ModelFileError, match="No such file"):
        checkpoint.load(tmp_path / "step-00000009.ckpt")


def test_code_in_a_checkpoint_is_not_executed(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    path = checkpoint.save(tmp_path / "c", state(2, precision={"x": Bomb()}))
    with pytest.raises(ModelFileError):
        checkpoint.load(path)
    assert not (tmp_path / "executed").exists()


def test_a_failed_write_leaves_the_one_before(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, state(2))

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(tmp_path, state(4))
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000002.ckpt"]
    assert checkpoint.latest(tmp_path).step == 2


def marks(plan=PLAN, objective=OBJECTIVE, net=None, rows=11, **identity):
    return checkpoint.fingerprint(plan, objective, net or denoiser(), rows=rows, identity=identity)


def test_another_configuration_is_refused_by_name():
    written = state(8, fingerprint=marks())
    checkpoint.agree(written, marks())
    checkpoint.agree(written, marks(replace(PLAN, max_time=9.0, checkpoint_every=7, devices=2, workers=1)))
    checkpoint.agree(written, marks(net=denoiser(seed=5)))  # values come from the checkpoint
    with pytest.raises(ConfigError, match=r"train.learning_rate was 0.001, now 0.1.*start anew"):
        checkpoint.agree(written, marks(replace(PLAN, learning_rate=0.1)))
    with pytest.raises(ConfigError, match=r"objective\.weight was EpsWeight"):
        checkpoint.agree(written, marks(objective=replace(OBJECTIVE, weight=MinSNR(5.0))))
    with pytest.raises(ConfigError, match=r"model was EpsDenoiser for .*, now EpsDenoiser for"):
        checkpoint.agree(written, marks(net=EpsDenoiser(denoiser().net, TABLE * 2)))
    with pytest.raises(ConfigError, match="number of training pictures was 11, now 12"):
        checkpoint.agree(written, marks(rows=12))
    with pytest.raises(ConfigError, match="network was"):
        checkpoint.agree(written, marks(net=torch.nn.Linear(2, 2)))
    with pytest.raises(ConfigError, match="config was absent, now abc"):
        checkpoint.agree(written, marks(config="abc"))


def test_values_that_differ_are_described_differently():
    tables = (UniformTable(TABLE), UniformTable(TABLE * 1.001))
    draws = (simplex(4, 0.8, 0.1), simplex(4, 0.8, 0.2))
    for one, other in (tables, draws):
        assert checkpoint.describe(one) != checkpoint.describe(other)
    assert checkpoint.describe(simplex(4, 0.8, 0.1)) == checkpoint.describe(simplex(4, 0.8, 0.1))


def test_draws_with_arguments_are_told_apart_and_are_the_same_in_another_process() -> None:
    assert describe(simplex()) == describe(simplex())
    assert describe(simplex()) != describe(simplex(octaves=2))
    assert " at 0x" not in describe(simplex())
