"""From good pictures to a predictor: codec, training, calibration, in that order."""

from __future__ import annotations

import copy
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anodiff import compose
from anodiff.codec.pixel import PixelCodec
from anodiff.coding.codes import codes
from anodiff.coding.floor import check_size
from anodiff.coding.teach import LOOKED_AT, Taught, teach
from anodiff.config import RunConfig, dump
from anodiff.config.schema import LatentCodec as LatentSection
from anodiff.config.schema import SelfTest
from anodiff.data.dataset import ImageSet, Picture
from anodiff.detect.bylabel import ThresholdByLabel
from anodiff.detect.content import digest
from anodiff.detect.predictor import Images, Lesson, Predictor
from anodiff.detect.suspects import Suspicion, named, verdicts
from anodiff.detect.threshold import Conformal, check_rate, least_rate
from anodiff.diffusion.gan import Critic, DDGANDenoiser
from anodiff.encode.label import Labeller
from anodiff.errors import ModelFileError
from anodiff.gather import Gathered, label_numbers
from anodiff.practice import Practised, practise
from anodiff.selftest.choice import Choice, check_count, choose, options, share_apart, weighs_strangers
from anodiff.selftest.report import Report, told, tried
from anodiff.told import Teller, telling
from anodiff.train.adversarial import Adversaries
from anodiff.train.fit import Outcome
from anodiff.train.fit import fit as train
from anodiff.train.progress import Progress

DEFAULT_RATE = 0.05
"""The false-alarm rate where none is asked for and the held-out normals support it."""

STRANGERS = 1 / 8
"""Share of the pictures to train on that networks do not see, where kinds of evidence are weighed by p-values."""

MOST_TAUGHT = 400
"""Pictures at most, evenly chosen, from which scorer and calibration learn: more change little and take long."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """A predictor that has learnt, and how it came about."""

    predictor: Predictor
    shape: tuple[int, int]
    target_fpr: float
    outcome: Outcome
    taught: Taught  # what teaching the codec brought to light
    suspicion: Suspicion  # which pictures look unlike the rest
    counted: tuple[str, ...]  # digests of the pictures that the thresholds rest on
    practised: Practised | None  # how the head learnt, where there is one
    choice: Choice  # of knobs that need no training
    report: Report | None  # what is found of painted defects
    apart: int = 0  # pictures to train on that no network saw, and that weighed evidence or candidates

    @property
    def config(self) -> RunConfig:
        """The configuration that was chosen: the one asked for, where there was nothing to choose."""
        return self.choice.config

    @property
    def alarms(self) -> tuple[str, ...]:
        """What looks wrong, a sentence each; mostly nothing."""
        return (*self.taught.warnings, *self.outcome.alarms)


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
    if isinstance(config.codec, LatentSection):
        check_size(shape, defect=config.codec.defect)
    predictor = compose.predictor(config, target_fpr=target_fpr, shape=shape, ready=codec).to(device)
    if start is not None:
        _begin(predictor, start)
    fixed = teller.fixed(
        gathered.train_rows, codec, shape
    )  # what does not fit is told before anything is trained
    labels = _labels(config, gathered, predictor, shape, device, say)
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
    plan = compose.plan(config, devices=devices, accelerator=_accelerator(device))
    taught = teach(
        codec,
        config,
        pictures,
        batches(_some(gathered.held), shape, config, device),
        lambda: batches(gathered.train, shape, config, device),
        plan=plan,
        folder=folder,
        resume=resume,
        identity=identity,
        device=device,
        progress=progress,
        say=say,
    )
    beside = teller.beside(codec)
    if isinstance(codec, PixelCodec):
        rows, online = pictures, codec
    else:
        say("encoding the pictures")
        draws = config.data.draws if pictures.augment is not None or beside is not None else 1
        rows, online = codes(pictures, codec, draws=draws, beside=beside, device=device), None
    told = telling(fixed, rows, beside)
    model = predictor.denoiser
    if isinstance(model, DDGANDenoiser) and isinstance(predictor.critic, Critic):
        model = Adversaries(model, predictor.critic)
    outcome = train(
        model,  # type: ignore[arg-type]
        rows,
        plan,
        objective=compose.objective(config),
        folder=folder,
        resume=resume,
        labels=labels,
        told=told,
        codec=online,
        identity=identity,
        progress=progress,
    )
    if predictor.classifier is not None:
        say("training the classifier that guides")
        train(
            predictor.classifier,
            rows,
            compose.classifier_plan(config, devices=devices, accelerator=_accelerator(device)),
            objective=compose.classifier_objective(config),
            folder=None if folder is None else folder / "classifier",
            resume="auto" if resume is not None else None,
            labels=labels,
            codec=online,
            identity=identity,
            progress=progress,
        )
    practised = None
    if predictor.head is not None:
        practised = practise(
            predictor,
            config,
            pictures,
            None if strangers is None else _plain(strangers.train, shape, config),
            labels=labels,
            strangers_labels=None if strangers is None else label_numbers(config, strangers.train_rows),
            plan=compose.head_plan(config, devices=devices, accelerator=_accelerator(device)),
            folder=None if folder is None else folder / "head",
            resume="auto" if resume is not None else None,
            identity=identity,
            device=device,
            progress=progress,
            say=say,
        )
    say("learning what is usual, and the threshold from the pictures held out")
    predictor.eval().to(device)
    places = _evenly(len(gathered.train), MOST_TAUGHT)
    shown = [gathered.train[k] for k in places]
    shown_labels = None if labels is None else [labels[k] for k in places]

    def of(rows: Sequence[Picture], known: Sequence[int] | None) -> Images:
        return lambda: with_labels(batches(rows, shape, config, device), known)

    normals, held, unknown, apart = of(shown, shown_labels), of(gathered.held, held_labels), None, 0
    if strangers is not None:
        unknown = of(strangers.train, label_numbers(config, strangers.train_rows))
        apart = len(strangers.train)
    choice = choose(asked, predictor, normals, unknown, count=apart, shape=shape, rate=target_fpr, say=say)
    predictor = choice.predictor
    lesson = predictor.learn(normals, held, strangers=unknown if weighs_strangers(choice.config) else None)
    report = tried(predictor, held, choice.config, count=len(gathered.held), shape=shape, say=say)
    names = {split: list(rows["image"]) for split, rows in gathered.rows.items()}
    names["train"] = [names["train"][k] for k in places]
    counted = digests(gathered.held, shape, config)
    suspicion = _suspicion(predictor, names, lesson)
    return Fitted(
        predictor, shape, target_fpr, outcome, taught, suspicion, counted, practised, choice, report, apart
    )


def about(config: RunConfig, gathered: Gathered, fitted: Fitted) -> dict[str, Any]:
    """Where the predictor comes from, as its file tells it."""
    return {
        "seed": config.seed,
        "trained_on": len(gathered.train),
        **({"kept_from_networks": fitted.apart} if fitted.apart else {}),
        "held_out": len(gathered.held),
        "unreadable": len(gathered.unreadable),
        "steps": fitted.outcome.steps,
        "training_seconds": round(fitted.outcome.seconds, 1),
        **fitted.taught.about,
        **({"head": fitted.practised.about} if fitted.practised is not None else {}),
        **told(fitted.report, fitted.choice),
        **({"alarms": list(fitted.alarms)} if fitted.alarms else {}),
        **({"suspects": fitted.suspicion.to_dict()} if fitted.suspicion.found else {}),
        **({"dropped": dict(gathered.dropped)} if gathered.dropped else {}),
        "counted": list(fitted.counted),
    }


def batches(
    pictures: Sequence[Picture],
    shape: tuple[int, int],
    config: RunConfig,
    device: torch.device,
    *,
    size: int = 8,
) -> Iterator[Tensor]:
    """The pictures in order, [B, C, H, W] in [0, 1] on `device`, without augmentation."""
    rows = _plain(pictures, shape, config)
    for first in range(0, len(rows), size):
        yield torch.stack([rows[k] for k in range(first, min(first + size, len(rows)))]).to(device)


def _plain(pictures: Sequence[Picture], shape: tuple[int, int], config: RunConfig) -> ImageSet:
    return ImageSet(pictures, shape=shape, channels=config.data.channels, upright=compose.upright(config))


def with_labels(
    images: Iterable[Tensor], labels: Sequence[int] | None
) -> Iterator[Tensor | tuple[Tensor, Tensor]]:
    """The batches, each with the labels [B] of its pictures where they are known."""
    first = 0
    for image in images:
        if labels is None:
            yield image
        else:
            yield image, torch.tensor(labels[first : first + len(image)], device=image.device)
        first += len(image)


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


def digests(pictures: Sequence[Picture], shape: tuple[int, int], config: RunConfig) -> tuple[str, ...]:
    """What each picture shows at the working shape, in sixteen hexadecimal digits."""
    found = batches(pictures, shape, config, torch.device("cpu"))
    return tuple(digest(row) for batch in found for row in batch)


def _suspicion(predictor: Predictor, names: Mapping[str, list[str]], lesson: Lesson) -> Suspicion:
    """Which of the named pictures look unlike the rest, and what the threshold would be without them."""
    shown, held = verdicts(
        lesson.shown, lesson.held, shown_label=lesson.shown_label, held_label=lesson.held_label
    )
    found = named(names, {"train": lesson.shown, "holdout": lesson.held}, {"train": shown, "holdout": held})
    looked_at = len(lesson.shown) + len(lesson.held)
    threshold = predictor.threshold
    without = None
    suspects = {suspect.image for suspect in found if suspect.split == "holdout"}
    if suspects and not isinstance(threshold, ThresholdByLabel):
        kept = lesson.held[[name not in suspects for name in names["holdout"]]]
        again = copy.deepcopy(threshold)
        if isinstance(again, Conformal):
            again.target_fpr = max(again.target_fpr, least_rate(len(kept)))
        again.learn(kept)
        without = again.value if again.value < threshold.value else None
    return Suspicion(found, looked_at, threshold.value, without)


def _divided(config: RunConfig, gathered: Gathered) -> tuple[Gathered, Gathered | None]:
    """The pictures without those that networks do not see and that judge kinds of evidence or candidates, and these;
    None where there is nothing to judge, or pictures are too few.
    """
    count = len(gathered.train)
    share = share_apart(config, count)
    if not share and (not weighs_strangers(config) or count * STRANGERS < 2):
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


def _evenly(count: int, most: int) -> list[int]:
    """Places of at most `most` out of `count`, evenly chosen, in order."""
    taken = min(count, most)
    return [k * count // taken for k in range(taken)]


def _some(pictures: Sequence[Picture]) -> Sequence[Picture]:
    """Pictures at most `LOOKED_AT`, evenly chosen."""
    return pictures[:: -(-len(pictures) // LOOKED_AT)]


def _accelerator(device: torch.device) -> str:
    return {"cuda": "gpu", "mps": "mps"}.get(device.type, "cpu")


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
