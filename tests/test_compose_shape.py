"""A network whose deepest map has one position is refused exactly where a group norm would meet one value alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anodiff import Detector, compose
from anodiff.config import RunConfig, load
from anodiff.errors import ConfigError

GUIDED = "guidance={kind: classifier, net: {width: %d, multipliers: [1, 1], attention: [], pool: adaptive}}"
LABELS = "labels={kind: cluster, count: 2}"
SINGLE = ("codec.patch=1", "net.attention=[]", "net.blocks=1")


def config(*words: str) -> RunConfig:
    return load(preset="pixels", overrides=[*SINGLE, *words])


@pytest.mark.parametrize("modulation", ["adagn", "add"])
@pytest.mark.parametrize(
    ("width", "multipliers", "size", "holds"),
    [
        (8, [1, 2], 2, False),  # 8 and 16 channels, in as many groups
        (8, [1, 2], 4, True),
        (8, [1], 1, False),
        (32, [1, 1.25], 2, False),  # 40 channels there, but 32 that enter it
        (34, [1, 1.25], 2, True),
        (34, [1, 0.5], 2, False),
    ],
)
def test_what_is_refused_cannot_run_and_what_is_not_runs(
    width: int, multipliers: list[float], size: int, holds: bool, modulation: str
) -> None:
    words = config(
        f"net.width={width}", f"net.multipliers={multipliers}", "net.patch=1", f"net.modulation={modulation}"
    )
    net = compose.denoiser(words, 3)
    y, sigma = torch.randn(1, 3, size, size), torch.ones(1)
    if holds:
        compose.check_shape(words, (size, size), 1)
        assert net(y, sigma).isfinite().all()
        return
    with pytest.raises(ConfigError, match=r"one position.*data\.size.*net\.multipliers.*net\.patch"):
        compose.check_shape(words, (size, size), 1)
    with pytest.raises(ValueError, match="more than 1 value"):
        net(y, sigma)


def test_two_positions_are_enough_and_the_stride_counts() -> None:
    words = config("net.width=8", "net.multipliers=[1, 1]", "net.patch=2")
    compose.check_shape(words, (32, 64), 8)
    with pytest.raises(ConfigError, match="--size 64"):
        compose.check_shape(words, (32, 32), 8)


def test_the_classifier_is_looked_at_too() -> None:
    wide = ("net.width=64", "net.multipliers=[1]", "net.patch=1", LABELS)
    compose.check_shape(config(*wide, GUIDED % 64), (2, 2), 1)
    with pytest.raises(ConfigError, match=r"\(guidance\.net\) has one position"):
        compose.check_shape(config(*wide, GUIDED % 16), (2, 2), 1)


def test_it_is_told_before_anything_is_trained() -> None:
    narrow = load(
        preset="tiny", overrides=["data.size=32", "net.width=16", "train.steps=1", "train.warmup=0"]
    )
    pictures = [np.random.default_rng(seed).integers(0, 255, (32, 32), np.uint8) for seed in range(6)]
    said: list[str] = []
    with pytest.raises(ConfigError, match="At 32 x 32 the deepest map"):
        Detector(config=narrow, device="cpu").fit(pictures, say=said.append)
    assert not said
