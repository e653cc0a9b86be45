"""A head that learns to mark defects: painted on good pictures, seen through the codec and the denoiser, once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from anodiff import compose
from anodiff.compose.codec import Codec
from anodiff.cond import Cond
from anodiff.config import RunConfig
from anodiff.config.schema import LearnedHead
from anodiff.data.dataset import ImageSet
from anodiff.data.faint import faint
from anodiff.data.synthetic import KINDS
from anodiff.detect.bylabel import ScorerByLabel
from anodiff.detect.headed import Headed
from anodiff.detect.predictor import Predictor
from anodiff.detect.scorer import Fused, Scorer
from anodiff.metrics.curve import auroc
from anodiff.metrics.image import image_curve
from anodiff.nets.head import Head
from anodiff.train.fit import fit
from anodiff.train.marked import Marked
from anodiff.train.plan import Plan
from anodiff.train.progress import Progress

CLEAN = 4
"""One picture of so many has no defect."""

MEMORY = 2**30
"""Bytes of evidence kept for the training, in half precision; fewer pictures are painted where it would be more."""

TESTED = 32
"""Painted pictures of each kind, at most, that the head is tested on."""

_BATCH = 8
_WIDEST = 6e4  # float16 ends at 65504; evidence as large is cut by the head's own clamp


@dataclass(frozen=True)
class Found:
    """How well a head tells one kind of painted defect from good: AUROC, in [0, 1]."""

    pictures: float  # painted against clean, by the largest logit of each
    places: float  # painted against clean, over all pictures


@dataclass(frozen=True, eq=False)
class Practised:
    """How a head learnt, and how well it marks painted defects on pictures that no network saw."""

    pictures: int  # it learnt from
    steps: int
    found: Mapping[str, Found]  # by kind of painted defect; empty where there was nothing to test on

    @property
    def about(self) -> dict[str, Any]:
        """The figures, for provenance."""
        told: dict[str, Any] = {"pictures": self.pictures, "steps": self.steps}
        if self.found:
            told["image_auroc"] = {kind: round(found.pictures, 3) for kind, found in self.found.items()}
            told["place_auroc"] = {kind: round(found.places, 3) for kind, found in self.found.items()}
        return told


@dataclass(frozen=True, eq=False)
class Exercises:
    """Evidence of pictures in half precision, and how much of each place was painted: rows for the trainer."""

    evidence: Tensor  # [n, c, h, w] float16
    share: Tensor  # [n, 1, h, w] float16 in [0, 1]

    def __len__(self) -> int:
        return len(self.evidence)

    def item(self, index: int, seed: int) -> Tensor:
        """The evidence of row `index`, [c, h, w]; the seed changes nothing."""
        return self.evidence[index].float()

    def told(self, index: int, seed: int) -> dict[str, Tensor]:
        """How much of each place of that row was painted, [1, h, w]."""
        return {"image": self.share[index].float()}

    def clean(self) -> Iterator[Tensor]:
        """The evidence [1, c, h, w] of the pictures without a defect."""
        for row in range(CLEAN - 1, len(self), CLEAN):
            yield self.evidence[row : row + 1].float()


def practise(
    predictor: Predictor,
    config: RunConfig,
    pictures: ImageSet,
    strangers: ImageSet | None,
    *,
    labels: Sequence[int] | None,
    strangers_labels: Sequence[int] | None,
    plan: Plan,
    folder: Path | None,
    resume: str | None,
    identity: Mapping[str, str],
    device: torch.device,
    progress: Progress | None,
    say: Callable[[str], None],
) -> Practised:
    """How the head of `predictor`, trained in place, learnt to mark painted defects.

    Args:
        predictor: with a head; its codec and its denoiser have learnt all they will.
        config: its score tells how.
        pictures: good ones, with their augmentation; defects are painted on them.
        strangers: good ones that no network saw, on which the head is tested; None: it is not tested.
        labels: of the pictures, where the model has labels.
        strangers_labels: likewise; None: the labeller is asked.
        plan: of the head's training.
        folder: gets its checkpoints.
        resume: "auto" goes on from the newest of them.
        identity: what a resumed run must share.
        device: where it is trained.
        progress: shows the course.
        say: is told what is being done.
    """
    head, section = predictor.head, getattr(config.score, "head", None)
    assert isinstance(head, Head)
    assert isinstance(section, LearnedHead)
    predictor.eval().to(device)
    count = _affordable(predictor, pictures, labels, section.painted, device)
    short = (
        ""
        if count == section.painted
        else f" (score.head.painted: {section.painted} would not fit in memory)"
    )
    say(f"painting defects on good pictures for the head to learn from: {count} pictures{short}")
    rows = _exercises(predictor, pictures, labels, count, seed=config.seed, device=device)
    head.settle(row.to(device) for row in rows.clean())
    say(f"training the head on {count} pictures")
    outcome = fit(
        head,
        rows,
        plan,
        objective=compose.head_objective(config),
        folder=folder,
        resume=resume,
        told=rows.told,
        identity=identity,
        progress=progress,
    )
    found: dict[str, Found] = {}
    if strangers is None:
        say("no pictures are left to test the head on")
    else:
        found = _tested(predictor, strangers, strangers_labels, seed=config.seed + 1, device=device)
        told = ", ".join(f"{kind} {each.pictures:.2f} ({each.places:.2f})" for kind, each in found.items())
        say(
            f"AUROC of the head for painted defects on {len(strangers)} good pictures that no network saw, of pictures "
            f"(of places): {told}"
        )
    return Practised(count, outcome.steps, found)


def exercise(pictures: ImageSet, number: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Picture `number` of the exercises [C, H, W], and its mask [1, H, W] bool; a function of the arguments alone.

    The pictures take turns, each time in another augmentation; so do the kinds of defect, and every `CLEAN`-th picture
    has none. Half of them have another good picture's texture to show, where their kind shows one.
    """
    index, draw = number % len(pictures), number // len(pictures)
    image = pictures.item(index, draw)
    if number % CLEAN == CLEAN - 1:
        return image, torch.zeros_like(image[:1], dtype=torch.bool)
    kind = KINDS[(number - number // CLEAN) % len(KINDS)]
    return _painted(pictures, image, kind, [seed, number])


@torch.no_grad()
def _exercises(
    predictor: Predictor,
    pictures: ImageSet,
    labels: Sequence[int] | None,
    count: int,
    *,
    seed: int,
    device: torch.device,
) -> Exercises:
    """The evidence of `count` exercises, batch by batch into memory that is taken once."""
    evidence, share = torch.empty(0), torch.empty(0)
    for first in range(0, count, _BATCH):
        numbers = range(first, min(first + _BATCH, count))
        made = [exercise(pictures, number, seed=seed) for number in numbers]
        known = None if labels is None else [labels[number % len(pictures)] for number in numbers]
        found = _evidence(predictor, torch.stack([image for image, _ in made]).to(device), known)
        covered = _share(torch.stack([mask for _, mask in made]), predictor, found)
        if not first:
            evidence = torch.empty((count, *found.shape[1:]), dtype=torch.float16)
            share = torch.empty((count, *covered.shape[1:]), dtype=torch.float16)
        evidence[first : numbers.stop] = found.clamp(-_WIDEST, _WIDEST).cpu()
        share[first : numbers.stop] = covered
    return Exercises(evidence, share)


@torch.no_grad()
def _tested(
    predictor: Predictor, pictures: ImageSet, labels: Sequence[int] | None, *, seed: int, device: torch.device
) -> dict[str, Found]:
    """How well the head tells painted from clean, pictures and places, by kind of defect."""
    each = max(1, TESTED // len(pictures))  # defects of a kind on a picture
    chosen = range(0, len(pictures), -(-len(pictures) // TESTED))
    clean: list[Tensor] = []  # logits [n, 1, h, w]
    painted: dict[str, list[tuple[Tensor, Tensor]]] = {kind: [] for kind in KINDS}  # with the shares
    for row in chosen:
        image = pictures.item(row, 0)
        clean.append(_marks(predictor, [image], row, labels, device)[0])
        for number, kind in enumerate(KINDS):
            made = [_painted(pictures, image, kind, [seed, row, number, again]) for again in range(each)]
            logit, evidence = _marks(predictor, [picture for picture, _ in made], row, labels, device)
            painted[kind].append((logit, _share(torch.stack([m for _, m in made]), predictor, evidence)))
    good = torch.cat(clean)
    return {
        kind: _found(good, torch.cat([logit for logit, _ in of]), torch.cat([share for _, share in of]))
        for kind, of in painted.items()
    }


def _marks(
    predictor: Predictor,
    images: Sequence[Tensor],
    row: int,
    labels: Sequence[int] | None,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """The head's logits [n, 1, h, w] of versions of one picture, on the CPU, and what it was shown."""
    known = None if labels is None else [labels[row]] * len(images)
    evidence = _evidence(predictor, torch.stack(list(images)).to(device), known)
    assert predictor.head is not None
    return predictor.head(evidence).cpu(), evidence


def _found(good: Tensor, painted: Tensor, share: Tensor) -> Found:
    """The figures of logits [n, 1, h, w] of clean pictures and [m, 1, h, w] of painted ones with their shares."""
    defect, clean = Marked().kinds(share)
    return Found(
        pictures=_auroc(good.amax(dim=(1, 2, 3)), painted.amax(dim=(1, 2, 3))),
        places=_auroc(torch.cat([good.flatten(), painted[clean]]), painted[defect]),
    )


def _auroc(good: Tensor, bad: Tensor) -> float:
    scores = torch.cat([good, bad]).double().numpy()
    return float(auroc(image_curve(scores, np.arange(len(scores)) >= len(good))))


def _painted(pictures: ImageSet, image: Tensor, kind: str, key: Sequence[int]) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(key)
    foreign = pictures.item(int(rng.integers(len(pictures))), 0) if rng.random() < 0.5 else None
    return faint(image, kind, seed=int(rng.integers(2**31)), foreign=foreign)


def _evidence(predictor: Predictor, images: Tensor, labels: Sequence[int] | None) -> Tensor:
    """What the head is shown of pictures [B, C, H, W], [B, c, h, w]."""
    cond = None if labels is None else Cond(label=torch.tensor(labels, device=images.device))
    return _headed(predictor.scorer).evidence(predictor.observe(images, cond).parts)


def _headed(scorer: Scorer) -> Headed:
    """The scorer that asks the head, whose parts come first in whatever holds it."""
    while not isinstance(scorer, Headed):
        scorer = cast("ScorerByLabel | Fused", scorer).scorers[0]
    return scorer


def _share(mask: Tensor, predictor: Predictor, evidence: Tensor) -> Tensor:
    """How much of each place is painted [B, 1, h, w], of masks [B, 1, H, W]; beyond the border nothing is."""
    stride = cast("Codec", predictor.codec).stride
    high, wide = (stride * side for side in evidence.shape[-2:])
    padded = F.pad(mask.float(), (0, wide - mask.shape[-1], 0, high - mask.shape[-2]))
    return F.avg_pool2d(padded, stride)


def _affordable(
    predictor: Predictor, pictures: ImageSet, labels: Sequence[int] | None, wanted: int, device: torch.device
) -> int:
    """How many of the wanted exercises fit into `MEMORY`."""
    known = None if labels is None else [labels[0]]
    one = _evidence(predictor, pictures.item(0, 0)[None].to(device), known)
    return max(CLEAN, min(wanted, MEMORY // (2 * one.numel())))
