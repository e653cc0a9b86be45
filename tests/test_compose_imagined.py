"""Scores that paint anew what is hidden, or what is fine: from a configuration to a predictor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
import yaml

from anodiff import compose
from anodiff.codec.pixel import PixelCodec
from anodiff.compose.detection import steering
from anodiff.config import RunConfig, dump, load, parse
from anodiff.detect import teaching
from anodiff.detect.detail import Detail
from anodiff.detect.repair import Repair
from anodiff.detect.resampled import Resampled
from anodiff.detect.restore import PartialNoise, Restorer
from anodiff.detect.scorer import RestorationScorer
from anodiff.errors import ConfigError

SMALL = (
    "data.size=16", "data.channels=1", "codec.patch=1", "net.width=8", "net.multipliers=[1]", "net.attention=[]",
)  # fmt: skip


def configured(score: str) -> RunConfig:
    return load(preset="pixels", overrides=[*SMALL, f"score={{{score}}}"])


def restorer(config: RunConfig) -> Restorer:
    made = compose.scorer(config)
    assert isinstance(made, RestorationScorer)
    return made.restorer


MADE: dict[str, tuple[Restorer, int]] = {
    "kind: repair": (Repair(PartialNoise((0.95,), 10, "ddpm"), cell=4, masks=2), 20),
    "kind: repair, cell: 2, masks: 4, level: 2, steps: 3, sampler: heun, draws: 2": (
        Repair(PartialNoise((2.0,), 3, "heun", draws=2), cell=2, masks=4),
        4 * 2 * 5,
    ),
    "kind: repair, resamples: 3, steps: 5": (Repair(Resampled(0.95, 5, 3), cell=4), 30),
    "kind: repair, resamples: 2, steps: 5, sampler: ddim, eta: 0.5, draws: 2": (
        Repair(Resampled(0.95, 5, 2, eta=0.5, draws=2), cell=4),
        40,
    ),
    "kind: detail": (Detail(PartialNoise((0.95,), 10), factor=4), 10),
    "kind: detail, factor: 2, level: 3, steps: 4, sampler: ddim, eta: 1, draws: 3": (
        Detail(PartialNoise((3.0,), 4, eta=1.0, draws=3), factor=2),
        12,
    ),
}


@pytest.mark.parametrize("score", MADE)
def test_a_score_is_made_of_what_the_configuration_says(score: str) -> None:
    config = configured(score)
    expected, evaluations = MADE[score]
    assert restorer(config) == expected
    assert restorer(config).evaluations == evaluations
    text = dump(config)
    assert parse(yaml.safe_load(text)) == config
    compose.check_levels(config)


@pytest.mark.parametrize(
    ("score", "told"),
    [
        ("kind: repair, masks: 3", "score.repair.masks"),
        ("kind: repair, cell: 0", "score.repair.cell"),
        ("kind: repair, eta: 0.5", "eta: 0.5 belongs to the sampler ddim; ddpm draws all"),
        ("kind: detail, sampler: heun, eta: 1", "eta: 1 belongs to the sampler ddim; heun draws"),
        (
            "kind: repair, sampler: heun, resamples: 2",
            "resamples: 2 goes back up with fresh noise, and heun draws",
        ),
        ("kind: detail, factor: 1", "score.detail.factor"),
        ("kind: detail, levels: [1]", "did you mean level?"),
        ("kind: repair, mask: 2", "did you mean masks?"),
    ],
)
def test_what_does_not_fit_is_told(score: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configured(score)
    assert told in str(caught.value)


def test_a_cell_must_leave_something_of_the_picture() -> None:
    def made(cell: int) -> Any:
        config = configured(f"kind: repair, cell: {cell}")
        return compose.predictor(config, target_fpr=0.05, shape=(8, 16), weights=compose.LEARNT)

    with pytest.raises(
        ConfigError, match=r"score\.cell: 16 hides the whole code of 8 x 16 .* take at most 15"
    ):
        made(16)
    assert made(15).evaluations == 20


@dataclass(frozen=True)
class Latents:
    """A codec that says of itself what a clamp asks."""

    paints: bool
    bounded: bool
    channels: int = 4
    stride: int = 4


def test_only_codes_of_known_range_are_clamped() -> None:
    config = configured("kind: repair")
    assert steering(config, PixelCodec(1), None).clamp
    assert not steering(config, Latents(paints=True, bounded=False), None).clamp  # type: ignore[arg-type]
    assert steering(config, Latents(paints=True, bounded=True), None).clamp  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["repair", "detail"])
def test_a_predictor_learns_and_scores(kind: str) -> None:
    config = configured(f"kind: {kind}, steps: 2, draws: 2, distances: {{l1: 1.0, latent: 0.5, spread: 0.5}}")
    predictor = compose.predictor(config, target_fpr=0.2, shape=(16, 16), weights=compose.LEARNT).eval()
    with torch.no_grad():
        for value in predictor.denoiser.parameters():  # type: ignore[attr-defined]
            value.add_(0.02)  # a fresh network's last layer is zero
    images = torch.rand(12, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    teaching.learn(predictor, lambda: [images[:6]], lambda: [images[6:]])
    found = predictor(images[:2])
    assert found.heat.shape == (2, 1, 16, 16)
    assert found.heat.isfinite().all()
    assert found.restored is not None
    torch.testing.assert_close(predictor(images[:1]).score, found.score[:1], atol=1e-5, rtol=1e-5)
