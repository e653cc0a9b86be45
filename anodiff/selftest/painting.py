"""Good pictures with painted defects: which, how strong, on which picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anodiff.config.selftest import SelfTest
from anodiff.data.synthetic import KINDS, paint
from anodiff.detect.predictor import Images
from anodiff.errors import DataError

PAINTED = 96
"""Painted pictures where nothing else is asked and each is quick."""

EVALUATIONS = 384
"""Evaluations of the denoiser that painted pictures may take where their number is not asked for."""

PIXELS = 16_000_000
"""Pixels that may be painted on likewise: 96 pictures of about 400 px a side."""

SMALLEST = 16
"""Side of a picture that can be painted on."""

SIZE = 8
"""Pictures in a batch."""

Row = tuple[Tensor, Tensor | None, NDArray[np.bool_]]
"""A picture [C, H, W], its label where it is known, and its mask [H, W]."""

Batch = tuple[Tensor, Tensor | None, list[NDArray[np.bool_]]]
"""Pictures [B, C, H, W], their labels [B], and the mask [H, W] of each."""


@dataclass(frozen=True)
class Defect:
    """One painted picture, before it is painted."""

    base: int  # which of the good pictures, from 0
    kind: str
    strength: float
    seed: int


@dataclass(frozen=True, eq=False)
class Painting:
    """Good pictures, some of them painted on; every pass gives the same pictures in the same order.

    Attributes:
        normals: the good pictures; every call goes once through all of them.
        defects: what is painted, ascending by `base`; each good picture that is named is also shown clean.
    """

    normals: Images
    defects: Sequence[Defect]

    @property
    def bases(self) -> list[int]:
        """The good pictures that are painted on, ascending, each once."""
        return sorted({defect.base for defect in self.defects})

    def clean(self) -> Iterator[Batch]:
        """The good pictures that are painted on, as they are; nothing is True in their masks."""
        wanted = set(self.bases)
        return _batches(
            (image, label, np.zeros(image.shape[1:], dtype=bool))
            for number, (image, label) in enumerate(_one_by_one(self.normals))
            if number in wanted
        )

    def painted(self) -> Iterator[Batch]:
        """The painted pictures, in the order of `defects`."""
        return _batches(self._painted())

    def _painted(self) -> Iterator[Row]:
        left = list(self.defects)[::-1]
        for number, (image, label) in enumerate(_one_by_one(self.normals)):
            while left and left[-1].base == number:
                defect = left.pop()
                out, mask = paint(image, defect.kind, seed=defect.seed, strength=defect.strength)
                yield out, label, mask[0].cpu().numpy()


def planned(
    count: int, section: SelfTest, *, shape: tuple[int, int], evaluations: int, seed: int
) -> list[Defect]:
    """What to paint on `count` good pictures: every kind at every strength equally often, pictures in turn.

    Args:
        count: of good pictures.
        section: how many, how strong.
        shape: height and width of the pictures.
        evaluations: of the denoiser a picture.
        seed: the same seed gives the same defects.

    Raises:
        DataError: pictures that are too small to be painted on.
    """
    if min(shape) < SMALLEST:
        raise DataError(
            f"Expected pictures of {SMALLEST} px or more a side to paint defects on, got {shape[0]} x {shape[1]}: "
            "set data.size higher, or selftest.kind to none."
        )
    pairs = [(kind, strength) for strength in section.strengths for kind in KINDS]
    usual = min(PAINTED, EVALUATIONS // max(1, evaluations), PIXELS // (shape[0] * shape[1]))
    rounds = max(1, (section.painted or usual) // len(pairs))
    rng = np.random.default_rng([seed, 0x5E1F])
    total = rounds * len(pairs)
    shown = np.linspace(0, count - 1, min(count, total)).round().astype(int)  # evenly, all where they suffice
    bases = np.concatenate([rng.permutation(shown) for _ in range(-(-total // len(shown)))])[:total]
    seeds = rng.integers(2**31, size=total)
    found = [
        Defect(int(base), kind, strength, int(own))
        for base, own, (kind, strength) in zip(bases, seeds, pairs * rounds, strict=True)
    ]
    return sorted(found, key=lambda defect: defect.base)


def _one_by_one(images: Images) -> Iterator[tuple[Tensor, Tensor | None]]:
    for batch in images():
        image, label = batch if isinstance(batch, tuple) else (batch, None)
        for row in range(len(image)):
            yield image[row], None if label is None else label[row]


def _batches(rows: Iterable[Row]) -> Iterator[Batch]:
    waiting = iter(rows)
    while group := list(islice(waiting, SIZE)):
        labels = [label for _, label, _ in group if label is not None]
        image = torch.stack([image for image, _, _ in group])
        yield image, torch.stack(labels) if labels else None, [mask for _, _, mask in group]
