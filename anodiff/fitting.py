"""From good pictures to a predictor: what does not fit is told, networks are trained, what is usual is learnt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anodiff import compose
from anodiff.batches import batches, with_labels
from anodiff.coding.floor import check_size
from anodiff.config import RunConfig
from anodiff.config.schema import LatentCodec as LatentSection
from anodiff.config.selftest import STEPS
from anodiff.detect.predictor import Predictor
from anodiff.detect.threshold import check_rate, least_rate
from anodiff.encode.label import Labeller
from anodiff.errors import ModelFileError
from anodiff.gather import Gathered, label_numbers
from anodiff.selftest.choice import check_count, fewest_strangers, options, share_apart, weighs_strangers
from anodiff.selftest.report import told
from anodiff.told import Teller
from anodiff.train.progress import Progress
from anodiff.trainings import Trained, Way, train
from anodiff.usual import MOST_TAUGHT, Usual, usual

__all__ = ["DEFAULT_RATE", "MOST_TAUGHT", "Fitted", "about", "batches", "fit", "with_labels"]

DEFAULT_RATE = 0.05
"""The false-alarm rate where none is asked for and the held-out normals support it."""

STRANGERS = 1 / 8
"""Share of the pictures to train on that networks do not see, where kinds of evidence are weighed by p-values."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """A predictor that has learnt, and how it came about."""

    usual: Usual
    trained: Trained
    shape: tuple[int, int]
    target_fpr: float

    @property
    def predictor(self) -> Predictor:
        """The predictor."""
        return self.usual.predictor

    @property
    def config(self) -> RunConfig:
        """The configuration that was chosen: the one asked for, where there was nothing to choose."""
        return self.usual.choice.config

    @property
    def alarms(self) -> tuple[str, ...]:
        """What looks wrong, a sentence each; mostly nothing."""
        return (*self.trained.taught.warnings, *self.trained.outcome.alarms)


def fit(
    config: RunConfig,
    gathered: Gathered,
    *,
    folder: Path | None = None,
    resume: str | None = None,
    device: torch.device,
    devices: int | str = 1,
    start: Mapping[str, Tensor] | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Fitted:
    """A predictor fitted on the good pictures of `gathered`; nothing else is looked at.

    `start` gives the network its first weights, in place of random ones.

    Raises:
        TrainingError, ConfigError, DataError: as `train.fit.fit` and `Predictor.learn`.
        ModelFileError: `start` belongs to another network.
    """
    whole, asked = gathered, options(config)
    gathered, strangers = _divided(config, whole)
    held_labels = label_numbers(config, gathered.held_rows)
    fewest = _fewest(gathered, held_labels)
    target_fpr = config.threshold.target_fpr or max(DEFAULT_RATE, least_rate(fewest))
    if config.threshold.kind == "conformal":
        check_rate(target_fpr, fewest)  # told before anything is trained
    codec = compose.codec(config)
    teller = Teller(config)
    shape = whole.shape(config, compose.multiple(config, codec.stride))
    compose.check_shape(config, shape, codec.stride)
    if isinstance(config.codec, LatentSection):
        check_size(shape, defect=config.codec.defect)
    predictor = compose.predictor(config, target_fpr=target_fpr, shape=shape, ready=codec).to(device)
    if start is not None:
        _begin(predictor, start)
    fixed = teller.fixed(
        gathered.train_rows, codec, shape
    )  # what does not fit is told before anything is trained
    labels = _labels(config, gathered, predictor, shape, device, say)
    way = Way(folder, resume, device, devices, progress, say)
    trained = train(
        predictor,
        config,
        gathered,
        strangers,
        teller=teller,
        fixed=fixed,
        labels=labels,
        shape=shape,
        way=way,
    )
    found = usual(
        predictor,
        config,
        gathered,
        strangers,
        asked=asked,
        labels=labels,
        kept=trained.outcome.kept,
        shape=shape,
        target_fpr=target_fpr,
        device=device,
        say=say,
    )
    return Fitted(found, trained, shape, target_fpr)


def about(config: RunConfig, gathered: Gathered, fitted: Fitted) -> dict[str, Any]:
    """Where the predictor comes from, as its file tells it."""
    return {
        "seed": config.seed,
        "trained_on": len(gathered.train),
        **({"kept_from_networks": fitted.usual.apart} if fitted.usual.apart else {}),
        "held_out": len(gathered.held),
        "unreadable": len(gathered.unreadable),
        "steps": fitted.usual.choice.changes.get(STEPS, fitted.trained.outcome.steps),
        "training_seconds": round(fitted.trained.outcome.seconds, 1),
        **fitted.trained.taught.about,
        **({"head": fitted.trained.practised.about} if fitted.trained.practised is not None else {}),
        **told(fitted.usual.report, fitted.usual.choice),
        **({"alarms": list(fitted.alarms)} if fitted.alarms else {}),
        **({"suspects": fitted.usual.suspicion.to_dict()} if fitted.usual.suspicion.found else {}),
        **({"dropped": dict(gathered.dropped)} if gathered.dropped else {}),
        "counted": list(fitted.usual.counted),
    }


def _labels(
    config: RunConfig,
    gathered: Gathered,
    predictor: Predictor,
    shape: tuple[int, int],
    device: torch.device,
    say: Callable[[str], None],
) -> list[int] | None:
    """The label of each picture to train on, and a labeller that has learnt them; None without labels."""
    labeller = predictor.labeller
    if not isinstance(labeller, Labeller):
        return None
    say(f"learning {labeller.count} labels from {len(gathered.train)} pictures")
    images = batches(gathered.train, shape, config, device)
    features = torch.cat([labeller.features(image) for image in images])  # [n, d]
    known = label_numbers(config, gathered.train_rows)
    if known is not None:
        labeller.learn(features, known)
        return known
    labeller.cluster(features, seed=config.seed)
    return labeller.of(features).tolist()


def _divided(config: RunConfig, gathered: Gathered) -> tuple[Gathered, Gathered | None]:
    """The pictures without those that networks do not see and that judge kinds of evidence or candidates, and these;
    None where there is nothing to judge, or pictures are too few.
    """
    count = len(gathered.train)
    share = share_apart(config, count)
    if not share and (not weighs_strangers(config) or count * STRANGERS < fewest_strangers(config)):
        return gathered, None
    kept, apart = gathered.apart(share or STRANGERS, seed=config.seed + 1)
    if config.selftest.choose:
        check_count(len(apart.train), of=count)
    return kept, apart


def _fewest(gathered: Gathered, labels: Sequence[int] | None) -> int:
    """How many pictures the least threshold is learnt from."""
    return len(gathered.held) if labels is None else min(Counter(labels).values())


def _begin(predictor: Predictor, start: Mapping[str, Tensor]) -> None:
    try:
        predictor.denoiser.net.load_state_dict(dict(start))  # type: ignore[attr-defined]
    except RuntimeError as error:
        raise ModelFileError(
            f"The weights to start with are not those of the network of the configuration: {str(error)[:400]}"
        ) from error
