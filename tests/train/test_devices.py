"""Several devices are one, up to the order of sums."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace

import pytest
import torch
from small_run import OBJECTIVE, PLAN, TABLE, Stripes, denoiser, final, run, table

from anodiff.diffusion.levels import column
from anodiff.errors import ConfigError, TrainingError
from anodiff.train import checkpoint
from anodiff.train.fit import fit
from anodiff.train.importance import LossSecondMoment


@pytest.mark.enable_socket
def test_what_cannot_travel_to_other_processes_is_said():
    local = replace(OBJECTIVE, weight=lambda sigma: sigma**-2)
    with pytest.raises(ConfigError, match=r"cannot be sent .* use train\.devices=1"):
        fit(denoiser(), Stripes(), replace(PLAN, devices=2), objective=local)


@pytest.mark.enable_socket  # the two processes talk over the loopback
def test_two_devices_equal_one(tmp_path):
    # All ranks share one history of the losses, which must be full before the end to be seen at work.
    objective = replace(OBJECTIVE, times=LossSecondMoment(TABLE, bins=4, length=4))
    plan = replace(PLAN, steps=10)
    one, two = denoiser(), denoiser()
    alone = fit(one, Stripes(), plan, objective=objective, folder=tmp_path / "one")
    pair = fit(two, Stripes(), replace(plan, devices=2), objective=objective, folder=tmp_path / "two")
    torch.testing.assert_close(alone.losses, pair.losses, rtol=1e-5, atol=0)
    y, sigma = torch.randn(4, 1, 8, 8), TABLE[[5, 30, 60, 99]]
    with torch.no_grad():
        eps_one, eps_two = (((y - d(y, sigma)) / column(sigma, y)) for d in (one, two))
    torch.testing.assert_close(eps_one, eps_two, rtol=0, atol=1e-5)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        # A bias before a normalisation has no gradient but rounding, which Adam blows up to whole steps.
        if a.ndim > 1:
            torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    seen, kept = (final(tmp_path / name).law for name in ("one", "two"))
    assert torch.equal(seen["seen"], kept["seen"])
    assert int(seen["seen"].min()) >= 4
    torch.testing.assert_close(seen["losses"], kept["losses"], rtol=1e-5, atol=0)
    assert pair.steps == len(table(tmp_path / "two")) == 10
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
