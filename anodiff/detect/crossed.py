"""Maps of normals by what the other normals taught, so that none is judged by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from anodiff.detect.scorer import Maps, Parts

Observed = tuple[Parts, Tensor | None]
"""What a batch showed, and the label [B] of each picture where the model has labels."""

FOLDS = 5
"""Parts of the normals; each is judged by what the other four taught."""


@dataclass(frozen=True, eq=False)
class Kept:
    """Observations that stay in memory: every call goes once through them, at no cost of a network."""

    batches: Sequence[Observed]

    def __call__(self) -> Iterator[Observed]:
        """The observations, in order."""
        return iter(self.batches)


@dataclass(frozen=True, eq=False)
class Crossed:
    """Maps of normals by what others taught, one row a picture, on the CPU."""

    maps: Maps  # [n, 1, h, w]
    labels: Tensor | None  # [n]
    fold: Tensor  # [n] the part each is in, which taught nothing for it

    def rows(self, chosen: Tensor) -> tuple[Maps, Tensor | None]:
        """The maps and labels of the chosen rows [n]."""
        labels = None if self.labels is None else self.labels[chosen]
        return Maps(*(maps[chosen] for maps in self.maps)), labels


def crossed_maps(
    observed: Callable[[], Iterable[Observed]],
    teach: Callable[[Callable[[], Iterable[Observed]]], None],
    maps: Callable[[Parts, Tensor | None], Maps],
    *,
    folds: int = FOLDS,
) -> Crossed | None:
    """The maps of each normal by what those of the other folds taught.

    A picture with a defect hides behind what it taught itself: the deviation of its own place grows by it.
    Cross-fitting takes that back for all that is learnt from observations; the networks saw every picture all the same.

    Args:
        observed: the normals' observations in a fixed order.
        teach: learns what is usual from observations, from scratch. The caller teaches it with all of them afterwards.
        maps: from a batch's observation and labels to its maps, by what was taught last.
        folds: how many.

    Returns:
        None where observations are too many to be kept in memory, so that each fold would run the networks anew, and
        where a label has fewer pictures than folds.
    """
    if not isinstance(observed, Kept):
        return None
    labels = all_labels([label for _, label in observed()])
    count = sum(len(parts[0]) for parts, _ in observed())
    place = _places(count, labels, folds)
    if place is None:
        return None
    order, found = [], []
    for fold in range(folds):
        teach(Kept(list(_rows(observed, place != fold))))
        inside = place == fold
        order.append(inside.nonzero().flatten())
        found += [maps(*row) for row in _rows(observed, inside)]
    back = torch.cat(order).argsort()
    score = torch.cat([one.score.cpu() for one in found])[back]
    if all(one.place is one.score for one in found):
        return Crossed(Maps(score, score), labels, place)
    return Crossed(Maps(score, torch.cat([one.place.cpu() for one in found])[back]), labels, place)


def all_labels(labels: Sequence[Tensor | None]) -> Tensor | None:
    """The labels of all batches as one [n] on the CPU; None for a model without."""
    known = [label.cpu() for label in labels if label is not None]
    return torch.cat(known) if known else None


def _places(count: int, labels: Tensor | None, folds: int) -> Tensor | None:
    """The fold [n] of each picture; the pictures of one label take turns."""
    kinds = torch.zeros(count, dtype=torch.long) if labels is None else labels
    place = torch.empty(count, dtype=torch.long)
    for kind in kinds.unique():
        rows = kinds == kind
        size = int(rows.sum())
        if size < folds:
            return None
        place[rows] = torch.arange(size) % folds
    return place


def _rows(observed: Kept, chosen: Tensor) -> Iterator[Observed]:
    """The observations of the chosen rows [n], batch by batch; batches without any are left out."""
    first = 0
    for parts, label in observed():
        rows = chosen[first : first + len(parts[0])]
        first += len(parts[0])
        if bool(rows.any()):
            where = rows.to(parts[0].device)
            yield tuple(part[where] for part in parts), None if label is None else label[where]
