"""What makes no sense is said, before a run or at the step where it shows."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from small_run import OBJECTIVE, PLAN, Stripes, denoiser, run
from torch import nn

from anodiff.errors import ConfigError, DataError, DeviceError, TrainingError
from anodiff.train import checkpoint
from anodiff.train.fit import fit


def test_a_loss_that_is_no_number_says_where_and_what_to_try(tmp_path):
    plan = replace(PLAN, learning_rate=1e30, warmup=0, clip=None)
    with pytest.raises(
        TrainingError, match=r"at step \d+ of 24, learning rate \S+; .*lower train.learning_rate, such as"
    ):
        run(tmp_path, plan)
    kept = checkpoint.latest(tmp_path / "checkpoints")
    assert kept is None or all(value.isfinite().all() for value in kept.model.values())


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


class Classes(nn.Module):
    """A denoiser whose network knows three classes."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(1, 1)
        self.net.classes = 3


@pytest.mark.parametrize(
    ("label", "said"),
    [
        (3, "a whole number from 0 to 2, a class of the network, but that of row 4 is 3"),
        (-1, "row 4 is -1"),
        (1.0, r"row 4 is 1\.0"),
        (torch.tensor(0.5), r"row 4 is tensor\(0\.5"),
        ("crack", "row 4 is 'crack'"),
        (None, "row 4 is None"),
    ],
)
def test_labels_that_are_no_class_are_refused_by_row(label, said):
    labels = [2] * 4 + [label] + [0] * 6
    with pytest.raises(DataError, match=said):
        fit(Classes(), Stripes(), PLAN, objective=OBJECTIVE, labels=labels)
    if not isinstance(label, int) or label < 0:  # where the classes are not known
        with pytest.raises(DataError, match="a whole number from 0 up, but that of row 4"):
            fit(denoiser(), Stripes(), PLAN, objective=OBJECTIVE, labels=labels)
