"""The configuration of a family that draws x0: its defaults, and what it asks of the other sections."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from anodiff.config import dump, load, parse
from anodiff.errors import ConfigError

DDGAN = {
    "codec": {"kind": "pixel", "patch": 1},
    "family": {"kind": "ddgan"},
    "score": {"kind": "partial_noise"},
}
NO_OPINION = (
    "an opinion is a discriminator's, and only family.kind ddgan has one; leave score.opinion out, or take another "
    "score.kind"
)
NEEDS_A_MEAN = (
    "needs the mean of x0, but ddgan draws x0 at random; take partial_noise, repair, detail, one_step or "
    "opinion"
)
OWN_GAME = (
    "family.kind ddgan is trained by its own game on every level of its table; leave train.loss and train.times out "
    "(simple, table)"
)


def test_a_ddgan_has_by_default_the_papers_numbers() -> None:
    family = parse(DDGAN).family
    assert (family.schedule.name, family.schedule.steps) == ("vp", 4)  # type: ignore[union-attr]
    assert (family.r1, family.r1_every, family.momentum) == (0.02, 15, (0.5, 0.9))  # type: ignore[union-attr]
    assert family.critic_rate == pytest.approx(1.25 / 1.6, abs=0.005)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"score": {"kind": "one_step", "sigmas": [0.4, 1.0], "latent": "fixed", "opinion": 0.5}},
        {"score": {"kind": "partial_noise", "sampler": "ddpm", "latent": "fixed", "opinion": 1.0}},
        {"score": {"kind": "partial_noise", "draws": 2, "distances": {"spread": 1.0}}},
        {"score": {"kind": "repair", "draws": 2, "distances": {"spread": 1.0}}},
        {"score": {"kind": "detail", "draws": 3, "eta": 1.0, "distances": {"spread": 1.0, "l1": 1.0}}},
        {"score": {"kind": "partial_noise", "levels": [0.4, 0.9], "distances": {"spread": 1.0, "l1": 0.5}}},
        {"score": {"kind": "opinion", "levels": [0.4, 2.0], "draws": 3}},
        {"train": {"precision": "bf16-mixed"}, "labels": {"kind": "category"}, "guidance": {"kind": "free"}},
        {
            "net": {"resample": "fir", "rescale": True},
            "family": {
                "kind": "ddgan",
                "schedule": {"name": "vp", "steps": 2},
                "latent": 8,
                "mapping": 2,
                "critic": {"width": 16, "multipliers": [1, 2], "patch": 2, "spread": 2},
                "r1": 0.0,
                "r1_every": 1,
                "critic_rate": 1.0,
                "momentum": [0.0, 0.9],
            },
        },
    ],
)
def test_good_ddgan_configurations_go_out_and_come_back(sections: dict[str, Any]) -> None:
    config = parse({**DDGAN, **sections})
    assert config.family.kind == "ddgan"
    assert parse(yaml.safe_load(dump(config))) == config


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        *(
            (
                {"train": {"noise": noise}},
                f"train.noise: {noise} does not fit family.kind ddgan, whose steps back are Gaussian; "
                "set it to gaussian",
            )
            for noise in ("simplex", "pyramid")
        ),
        ({"train": {"times": "log_uniform", "time_range": [0.1, 2.0]}}, OWN_GAME),
        ({"train": {"times": "log_normal", "time_range": [0.0, 1.0]}}, OWN_GAME),
        (
            {"train": {"precision": "16-mixed"}},
            "train.precision: 16-mixed is too narrow for the gradient penalty of ddgan; take 32-true or bf16-mixed",
        ),
        *(
            ({"score": {"kind": kind}}, f"score.kind: {kind} {NEEDS_A_MEAN}")
            for kind in ("inversion", "bound", "flow")
        ),
        *(
            (
                {"score": {"kind": kind, "sampler": sampler}},
                f"score.sampler: {sampler} follows an equation that needs the mean of x0, but ddgan draws x0 at "
                "random; take ddim or ddpm",
            )
            for sampler in ("heun", "dpmpp_2m")
            for kind in ("partial_noise", "repair", "detail")
        ),
    ],
)
def test_what_a_ddgan_asks_of_other_sections_is_said(sections: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse({**DDGAN, **sections})
    assert sentence in str(caught.value)
    assert caught.value.exit_code == 2
    eps = {**DDGAN, "family": {"kind": "eps"}, **sections}
    assert parse(eps).family.kind == "eps"  # each is fine elsewhere


@pytest.mark.parametrize("train", [{"loss": "vlb"}, {"loss": "hybrid"}, {"times": "second_moment"}])
def test_what_needs_a_mean_to_train_is_refused_of_a_ddgan(train: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="is trained by its own game on every level of its table"):
        parse({**DDGAN, "train": train})


@pytest.mark.parametrize("family", [{"kind": "eps"}, {"kind": "karras"}])
@pytest.mark.parametrize(
    ("score", "sentence"),
    [
        ({"kind": "opinion"}, NO_OPINION),
        ({"kind": "one_step", "opinion": 0.5}, NO_OPINION),
        ({"kind": "partial_noise", "opinion": 0.5}, NO_OPINION),
        *(
            (
                {"kind": kind, "latent": "fixed"},
                "score.latent: fixed holds the noise of a generator, and only family.kind ddgan has one; leave it out",
            )
            for kind in ("one_step", "partial_noise")
        ),
    ],
)
def test_what_only_a_ddgan_has_is_refused_elsewhere(
    family: dict[str, Any], score: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse({**DDGAN, "family": family, "score": score})
    assert sentence in str(caught.value)
    assert parse({**DDGAN, "score": score}).family.kind == "ddgan"


@pytest.mark.parametrize("score", ["partial_noise", "repair", "detail"])
@pytest.mark.parametrize("kind", ["ddgan", "eps", "karras"])
def test_one_restoration_has_no_spread(kind: str, score: str) -> None:
    alone = {"kind": score, "distances": {"spread": 1.0}}
    with pytest.raises(ConfigError) as caught:
        parse({**DDGAN, "family": {"kind": kind}, "score": alone})
    assert "score.distances: spread compares several restorations; set score.draws to 2 or more" in str(
        caught.value
    )


@pytest.mark.parametrize(
    ("family", "told"),
    [
        ({"r1": -0.1}, "family.ddgan.r1"),
        ({"r1_every": 0}, "family.ddgan.r1_every"),
        ({"critic_rate": 0}, "family.ddgan.critic_rate"),
        ({"momentum": [0.5, 1.0]}, "family.ddgan.momentum"),
        ({"momentum": [0.5]}, "family.ddgan.momentum"),
        ({"latent": 0}, "family.ddgan.latent"),
        ({"mapping": 0}, "family.ddgan.mapping"),
        ({"schedule": {"steps": 1}}, "family.ddgan.schedule.steps"),
        ({"critic": {"spread": 0}}, "family.ddgan.critic.spread"),
        ({"critic": {"widht": 3}}, "did you mean width?"),
        ({"low": 1.0}, "family.ddgan.low"),
    ],
)
def test_wrong_numbers_of_a_ddgan_are_told_with_their_place(family: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse({**DDGAN, "family": {"kind": "ddgan", **family}})
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("given", "whole"),
    [({"name": "vp"}, ("vp", 4)), ({"steps": 8}, ("vp", 8)), ({"name": "cosine"}, ("cosine", 4))],
)
def test_a_schedule_given_in_part_is_completed_by_the_chains(
    given: dict[str, Any], whole: tuple[str, int]
) -> None:
    """Not by the table of a thousand linear levels: eight linear ones would hardly add noise."""
    schedule = parse({**DDGAN, "family": {"kind": "ddgan", "schedule": given}}).family.schedule  # type: ignore[union-attr]
    assert (schedule.name, schedule.steps) == whole
    overridden = load(
        preset="pixels",
        overrides=["family.kind=ddgan", *(f"family.schedule.{k}={v}" for k, v in given.items())],
    )
    assert overridden.family.schedule == schedule  # type: ignore[union-attr]
