"""Words of short fits, and what the command leaves behind as rows."""

from __future__ import annotations

import csv
from pathlib import Path

SHORT = (
    "--preset",
    "tiny",
    "--size",
    "64",
    "--set",
    "net.width=16",
    "--set",
    "train.warmup=2",
    "--device",
    "cpu",
)
"""Words of a fit of features that takes seconds."""

_WORDS = (
    "family.kind=eps",
    "train.weight=eps",
    "net.width=8",
    "net.multipliers=[1]",
    "net.attention=[]",
    "train.steps=3",
    "score.steps=4",
    "score.distances={l1: 1.0}",
)
PAINTER = (
    *("--preset", "pixels", "--size", "32", "--channels", "1", "--device", "cpu"),
    *(part for word in _WORDS for part in ("--set", word)),
)
"""Words of a fit of pixels for three steps: it paints noise, but it paints."""

_CRITIC = "critic: {width: 8, multipliers: [1], patch: 2}"
_GAME = ("train.batch=4", "train.learning_rate=0.01", "train.warmup=1")
_CHAIN = (
    "net.width=8",
    "net.multipliers=[1]",
    "net.attention=[]",
    f"family={{kind: ddgan, latent: 8, mapping: 2, {_CRITIC}}}",
    "train.steps=6",
    *_GAME,
    "score={levels: [3.413], steps: 2, eta: 1.0, draws: 2, latent: fixed, opinion: 0.5}",
    "score.distances={l1: 1.0, spread: 0.5}",
)
CHAIN = (
    *("--preset", "pixels", "--size", "32", "--channels", "1", "--device", "cpu"),
    *(part for word in _CHAIN for part in ("--set", word)),
)
"""Words of a fit of a DDGAN of pixels for six steps: four levels, restorations from the second, an opinion beside."""

CHAIN_OF_FEATURES = (
    *SHORT,
    *(
        part
        for word in (
            f"family={{kind: ddgan, latent: 8, mapping: 2, {_CRITIC}}}",
            "train.times=table",
            "train.steps=6",
            *_GAME,
            "score.sigmas=[0.954]",
            "score.opinion=0.5",
        )
        for part in ("--set", word)
    ),
)
"""Words of a fit of a DDGAN of features for six steps, scored in one evaluation and one opinion."""

FROZEN = (
    *CHAIN,
    *("--size", "16"),
    *(
        part
        for word in (
            "family.r1_every=50",
            "train.steps=100",
            "train.batch=8",
            "train.learning_rate=1.0e-9",
            "score={steps: 1, draws: 1, latent: drawn, opinion: 0.0, distances: {l1: 1.0}}",
        )
        for part in ("--set", word)
    ),
)
"""Words of a fit that leaves the generator as it began: of black and white pictures it draws the same grey."""

_LATENT = (
    "codec={kind: latent, stride: 4, width: 8, groups: 4, critic: 4, steps: 3, batch: 4, crop: null, perceptual: 0}",
    "net={width: 8, multipliers: [1], attention: [0], transformer: 1, patch: 1}",
    "family={kind: eps, schedule: {steps: 100}}",
    "train={steps: 3, batch: 4, warmup: 1, learning_rate: 0.02}",
    "data.draws=1",
    "score.steps=2",
)
LATENT = (
    *("--preset", "pixels", "--size", "32", "--device", "cpu"),
    *(part for word in _LATENT for part in ("--set", word)),
)
"""Words of a fit in the codes of an autoencoder, three steps for each of the two."""

TOLD = {
    "text": ("tokens={kind: text, channels: 16}",),
    "layout": ("tokens={kind: layout, channels: 16}",),
    "lowres": ("beside={kind: lowres, factor: 4}", "score={kind: detail, factor: 2, steps: 2}"),
    "masked": ("beside={kind: masked}", "score={kind: repair, cell: 2, steps: 2}"),
    "semantic": ("beside={kind: semantic, classes: 6}",),
}
"""What else such a model is told, by name."""


def table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file by column."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
