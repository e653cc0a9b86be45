"""Noise levels are checked against the model that a configuration makes, and the check says what a score would."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from anodiff import compose
from anodiff.compose.levels import levels_of
from anodiff.config import RunConfig, load
from anodiff.config.load import presets
from anodiff.errors import ConfigError, RefusalError

ROOT = Path(__file__).parents[1]
SMALL = (
    "data.size=16", "data.channels=1", "codec.patch=1", "net.width=8", "net.multipliers=[1]", "net.attention=[]",
)  # fmt: skip
DDGAN = "family={kind: ddgan, latent: 4, mapping: 1, critic: {width: 8, multipliers: [1]}}"
TABLE = "family={kind: eps, schedule: {name: linear, steps: 100}}"
KARRAS = "family={kind: karras, low: 0.1, high: 10.0}"
SCORES = {
    "one_step": "score={kind: one_step, sigmas: [%s], residual: plain}",
    "partial_noise": "score={kind: partial_noise, levels: [%s], steps: 1, distances: {l1: 1.0}}",
    "inversion": "score={kind: inversion, level: %s, steps: 1}",
    "repair": "score={kind: repair, level: %s, steps: 1}",
    "resampled": "score={kind: repair, masks: 4, level: %s, steps: 1, resamples: 2}",
    "detail": "score={kind: detail, level: %s, steps: 1}",
    "bound": "score={kind: bound, level: %s, steps: 2}",
    "opinion": "score={kind: opinion, levels: [%s]}",
    "flow": "score={kind: flow, low: 0.5, high: %s, steps: 2}",
}
SENTENCES = [
    ("pixels", [DDGAN], "score.levels: 0.95 is no noise level of this model, which has 0.9537, 3.413, 17.02 and 152.2 "
     r"\(family.schedule times family.std\); choose among these\."),
    ("pixels", [DDGAN, "score.levels=[0.954]"], r"score.steps does not fit score.levels: 0.954: steps=10, but only 1 "
     r"noise level lies up to the start, sigma 0.9537; use at most 1\."),
    ("pixels", [DDGAN, "score.levels=[0.954, 8]", "score.steps=1"], "score.levels: 8 is no noise level"),
    ("pixels", [DDGAN, "score.levels=[3.413, 0.954]", "score.steps=2"], "score.levels: 0.954: steps=2, but only 1"),
    ("pixels", [DDGAN, "family.std=0.5", "score.levels=[0.954]"], "which has 0.4769, 1.706, 8.509 and 76.08"),
    ("pixels", [DDGAN, "family.schedule.steps=32", "score.levels=[0.001]"],
     r"which has 32 from 0\.\d+ to 152\.2 .*choose one between"),
    ("pixels", [DDGAN, "score={kind: opinion, levels: [0.95]}"], "score.levels: 0.95 is no noise level"),
    ("features", [DDGAN, "train.times=table", "score.sigmas=[2]"], "score.sigmas: 2 is no noise level"),
    ("features", ["score.sigmas=[1, 6]"], r"6 is no noise level of this model, which has those from 0\.2 to 5 "
     r"\(family.low, family.high\)"),
    ("pixels", ["score.levels=[0.001]"], r"which has 1000 from 0\.01 to 157\.4 \(family.schedule\); choose one bet"),
    ("pixels", ["score.steps=11", "family.schedule={name: vp, steps: 10}", "score.levels=[150]"],
     "only 10 noise levels"),
    ("pixels", ["score={kind: bound, level: 0.02, steps: 9}"],
     "only 3 noise levels lie up to the start, sigma 0.01897"),
    ("pixels", ["score={kind: bound, steps: 1}"], "score.steps: a bound lies between levels; take 2 or more"),
    ("pixels", ["score={kind: flow, steps: 1}"], "score.steps: a flow lies between levels; take 2 or more"),
    ("pixels", ["score={kind: flow, low: 5, high: 5}"], "score.low: 5 should lie below score.high: 5"),
    ("pixels", ["score={kind: inversion, level: 200}"], "score.level: 200 is no noise level"),
    ("pixels", ["score={kind: repair, level: 200}"], "score.level: 200 is no noise level"),
    ("pixels", ["score={kind: detail, level: 0.02, steps: 9}"], "score.steps does not fit score.level: 0.02: steps=9"),
    ("pixels", [DDGAN, "score={kind: repair, level: 2, steps: 1}"], "score.level: 2 is no noise level of this model"),
    ("pixels", [DDGAN, "score={kind: detail, level: 3.41}"], "steps=10, but only 2 noise levels"),
    ("pixels", ["score={kind: flow, low: 0.001}"], "score.low: 0.001 is no noise level"),
    ("pixels", ["score={kind: flow, high: 1000}"], "score.high: 1000 is no noise level"),
]  # fmt: skip


def tiny(*words: str) -> RunConfig:
    return load(preset="pixels", overrides=[*SMALL, *words])


@pytest.mark.parametrize(("preset", "words", "told"), SENTENCES)
def test_a_level_that_is_not_there_is_told_with_those_that_are(
    preset: str, words: list[str], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        compose.check_levels(load(preset=preset, overrides=words))


@pytest.mark.parametrize("count", [2, 4, 8, 16])
@pytest.mark.parametrize("std", [1.0, 0.3])
def test_the_levels_told_can_be_typed_in(count: int, std: float) -> None:
    chain = (DDGAN, f"family.schedule.steps={count}", f"family.std={std}")
    with pytest.raises(ConfigError) as caught:
        compose.check_levels(tiny(*chain, SCORES["opinion"] % 0.001))
    told = re.findall(r"\d[\d.e+]*", str(caught.value).partition("which has")[2])
    assert len(told) == count
    compose.check_levels(tiny(*chain, SCORES["opinion"] % ", ".join(told)))


@pytest.mark.parametrize("preset", presets())
def test_the_presets_ask_for_levels_that_are_there(preset: str) -> None:
    compose.check_levels(load(preset=preset))


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda path: path.stem)
def test_the_configurations_ask_for_levels_that_are_there(path: Path) -> None:
    compose.check_levels(load(path))


@pytest.mark.parametrize("family", [TABLE, KARRAS, DDGAN], ids=["table", "karras", "ddgan"])
def test_the_levels_are_those_of_the_network_that_is_trained(family: str) -> None:
    config = tiny(family, SCORES["one_step"] % 1.0)
    known, real = levels_of(config), compose.denoiser(config, 1).levels
    assert (known.low, known.high, known.draws) == (real.low, real.high, real.draws)
    assert (known.table is None) == (real.table is None)
    if known.table is not None and real.table is not None:
        assert torch.equal(known.table, real.table)


MEANS = ("one_step", "partial_noise", "inversion", "repair", "resampled", "detail", "bound", "flow")
DRAWS = ("one_step", "partial_noise", "repair", "resampled", "detail", "opinion")


@pytest.mark.parametrize(
    ("family", "kind"),
    [(family, kind) for family in (TABLE, KARRAS) for kind in MEANS] + [(DDGAN, kind) for kind in DRAWS],
)
def test_what_passes_can_be_scored_and_what_does_not_cannot(family: str, kind: str) -> None:
    """At both ends of the range: a scorer asks for its levels only when it scores, minutes after the training began."""
    known = levels_of(tiny(family, SCORES["one_step"] % 1.0))
    ends = ((known.low, known.low * 0.99), (known.high, known.high * 1.01))
    for there, beyond in ends[1:] if kind in ("bound", "flow") else ends:
        for asked, there_is in ((there, True), (beyond, False)):
            config = tiny(family, SCORES[kind] % asked)
            predictor = compose.predictor(
                config, target_fpr=0.05, shape=(16, 16), weights=compose.LEARNT
            ).eval()
            _stir(predictor)
            image = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
            if there_is:
                compose.check_levels(config)
                with torch.no_grad():
                    assert predictor.observe(image, predictor.labelled(image, None)).parts[0].isfinite().all()
            else:
                with pytest.raises(ConfigError, match="is no noise level"):
                    compose.check_levels(config)
                with pytest.raises((ConfigError, RefusalError)), torch.no_grad():
                    predictor.observe(image, predictor.labelled(image, None))


def _stir(model: nn.Module) -> None:
    """A fresh network's last layer is zero, after which nothing shows that it was asked."""
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.02)
