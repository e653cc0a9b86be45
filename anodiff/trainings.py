"""The trainings of a fit in their order: the codec's, the denoiser's, the guiding classifier's and the head's."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from anodiff import compose
from anodiff.batches import batches, plain
from anodiff.codec.pixel import PixelCodec
from anodiff.coding.codes import codes
from anodiff.coding.teach import LOOKED_AT, Taught, teach
from anodiff.compose.codec import Codec
from anodiff.config import RunConfig, dump
from anodiff.config.schema import ClassifierGuidance, LatentCodec, LearnedHead, SelfTest
from anodiff.data.dataset import ImageSet, Picture
from anodiff.detect.predictor import Predictor
from anodiff.gather import Gathered, label_numbers
from anodiff.practice import Practised, practise
from anodiff.told import Teller, telling
from anodiff.train.fit import Outcome, fit
from anodiff.train.plan import Plan, in_turn
from anodiff.train.progress import Progress


@dataclass(frozen=True, eq=False)
class Way:
    """How the trainings of one fit are carried out."""

    folder: Path | None  # where they keep their course
    resume: str | None  # how that of the denoiser goes on
    device: torch.device
    devices: int | str
    progress: Progress | None
    say: Callable[[str], None]

    @property
    def again(self) -> str | None:
        """How the trainings beside the denoiser's go on, for which nobody names a checkpoint."""
        return None if self.resume is None else "auto"

    def place(self, name: str) -> Path | None:
        """Where such a training keeps its course."""
        return None if self.folder is None else self.folder / name


@dataclass(frozen=True, eq=False)
class Trained:
    """How the trainings ended; the weights themselves are in the predictor."""

    taught: Taught  # what teaching the codec brought to light
    outcome: Outcome  # of the denoiser's
    practised: Practised | None  # how the head learnt, where there is one


def train(
    predictor: Predictor,
    config: RunConfig,
    gathered: Gathered,
    strangers: Gathered | None,
    *,
    teller: Teller,
    fixed: Mapping[str, Tensor],
    labels: Sequence[int] | None,
    shape: tuple[int, int],
    way: Way,
) -> Trained:
    """How the networks of `predictor` came to be trained, in place; they share the time of `train.max_time`.

    Args:
        predictor: as `compose.predictor(config)` made it.
        config: tells how.
        gathered: pictures to train on; those held out measure what an autoencoder loses, and train nothing.
        strangers: pictures that no network sees, on which a head is tested.
        teller: tells the denoiser what stands beside a picture.
        fixed: what else each row is told, as `Teller.fixed` gives it.
        labels: of the pictures to train on, where the model has labels.
        shape: working (height, width).
        way: how it is carried out.

    Raises:
        TrainingError, ConfigError, DataError: as `train.fit.fit`.
    """
    codec, device = cast("Codec", predictor.codec), way.device
    pictures = ImageSet(
        gathered.train,
        shape=shape,
        channels=config.data.channels,
        upright=compose.upright(config),
        augment=compose.augmentation(config),
        seed=config.seed,
        cache=torch.uint8,
    )
    identity = {"configuration": _digest(config), "pictures": _fingerprint(gathered.train)}
    if fixed:
        identity["captions, boxes or maps"] = _contents(fixed)
    plans = _plans(config, way)
    taught = teach(
        codec,
        config,
        pictures,
        batches(_some(gathered.held), shape, config, device),
        lambda: batches(gathered.train, shape, config, device),
        plan=in_turn(plans),
        folder=way.folder,
        resume=way.resume,
        identity=identity,
        device=device,
        progress=way.progress,
        say=way.say,
    )
    still, spent = (plans[1:] if _teaches(config) else plans), taught.seconds
    beside = teller.beside(codec)
    if isinstance(codec, PixelCodec):
        rows, online = pictures, codec
    else:
        way.say("encoding the pictures")
        draws = config.data.draws if pictures.augment is not None or beside is not None else 1
        rows, online = codes(pictures, codec, draws=draws, beside=beside, device=device), None
    outcome = fit(
        compose.learner(predictor),
        rows,
        replace(in_turn(still, spent=spent), keep=config.selftest.stops),
        objective=compose.objective(config),
        folder=way.folder,
        resume=way.resume,
        labels=labels,
        told=telling(fixed, rows, beside),
        codec=online,
        identity=identity,
        progress=way.progress,
    )
    still, spent = still[1:], spent + outcome.seconds
    if predictor.classifier is not None:
        way.say("training the classifier that guides")
        led = fit(
            predictor.classifier,
            rows,
            in_turn(still, spent=spent),
            objective=compose.classifier_objective(config),
            folder=way.place("classifier"),
            resume=way.again,
            labels=labels,
            codec=online,
            identity=identity,
            progress=way.progress,
        )
        still, spent = still[1:], spent + led.seconds
    practised = None
    if predictor.head is not None:
        practised = practise(
            predictor,
            config,
            pictures,
            None if strangers is None else plain(strangers.train, shape, config),
            labels=labels,
            strangers_labels=None if strangers is None else label_numbers(config, strangers.train_rows),
            plan=in_turn(still, spent=spent),
            folder=way.place("head"),
            resume=way.again,
            identity=identity,
            device=device,
            progress=way.progress,
            say=way.say,
        )
    return Trained(taught, outcome, practised)


def _teaches(config: RunConfig) -> bool:
    """Whether an autoencoder is trained."""
    return isinstance(config.codec, LatentCodec) and config.codec.weights is None


def _plans(config: RunConfig, way: Way) -> list[Plan]:
    """Those of all trainings, in their order."""
    kind = {"cuda": "gpu", "mps": "mps"}.get(way.device.type, "cpu")
    plan = compose.plan(config, devices=way.devices, accelerator=kind)
    plans = [compose.codec_plan(config, plan), plan] if _teaches(config) else [plan]
    if isinstance(config.guidance, ClassifierGuidance):
        plans.append(compose.classifier_plan(config, devices=way.devices, accelerator=kind))
    if isinstance(getattr(config.score, "head", None), LearnedHead):
        plans.append(compose.head_plan(config, devices=way.devices, accelerator=kind))
    return plans


def _some(pictures: Sequence[Picture]) -> Sequence[Picture]:
    """Pictures at most `LOOKED_AT`, evenly chosen."""
    return pictures[:: -(-len(pictures) // LOOKED_AT)]


def _digest(config: RunConfig) -> str:
    """What a resumed run must share with the run it goes on with; how long it may take and what is tried at
    its end are not part of it."""
    free = {"max_time": None, "checkpoint_every": 100, "workers": 0}
    same = config.model_copy(update={"train": config.train.model_copy(update=free), "selftest": SelfTest()})
    return hashlib.sha256(dump(same).encode()).hexdigest()[:16]


def _fingerprint(pictures: Sequence[Picture]) -> str:
    """Of the pictures trained on, by name (content for arrays), in order."""
    digest = hashlib.sha256()
    for picture in pictures:
        digest.update(Path(picture).name.encode() if isinstance(picture, str) else picture.tobytes())
    return digest.hexdigest()[:16]


def _contents(told: Mapping[str, Tensor]) -> str:
    """Of what the rows are told, by name and value: a resumed run is not told otherwise."""
    digest = hashlib.sha256()
    for name in sorted(told):
        digest.update(name.encode())
        digest.update(told[name].contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
