"""What is wrong with a data set, before anything is trained on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pandas as pd

from anodiff.data.image import read_mask
from anodiff.data.leak import NEAR, Fingerprint, duplicates, fingerprints
from anodiff.errors import DataError

Prints = Mapping[str, Fingerprint | DataError]

ERRORS = frozenset({"unreadable", "mask-unreadable", "mask-size", "mask-empty", "label-conflict"})
"""Kinds that spoil a result; the others are worth knowing."""

_MANY = 3  # of a kind of note, how many examples are named


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing to mend or to know: the picture (or category), the kind and a message for a person."""

    path: str
    kind: str
    message: str


def check(table: pd.DataFrame, *, near: float = NEAR) -> list[Problem]:
    """The problems of a table of pictures, errors first; an empty list is a clean set.

    Kinds: unreadable, mask-unreadable, mask-size, mask-empty, label-conflict (the same pixels good and defective);
    mask-missing, mask-on-good, train-defective, leak-exact, leak-near (train and test), duplicate-exact,
    duplicate-near, few-pictures, mixed-size, mixed-channels, mixed-depth.

    Args:
        table: as `index` gives it; every picture and mask of it is read.
        near: see `leak.duplicates`.
    """
    prints = fingerprints(table["image"])
    problems = [
        *_unreadable(prints),
        *_masks(table, prints),
        *_pairs(table, prints, near),
        *_counts(table),
        *_mixtures(table, prints),
    ]
    return sorted(problems, key=lambda problem: problem.kind not in ERRORS)


def _unreadable(prints: Prints) -> Iterator[Problem]:
    for path, found in prints.items():
        if isinstance(found, DataError):
            yield Problem(path=path, kind="unreadable", message=str(found))


def _masks(table: pd.DataFrame, prints: Prints) -> Iterator[Problem]:
    masked = {category for category, mask in zip(table["category"], table["mask"], strict=True) if mask}
    columns = (table["image"], table["mask"], table["label"], table["category"], table["split"])
    for image, mask, label, category, split in zip(*columns, strict=True):
        if label == 1 and split == "train":
            yield Problem(
                path=image, kind="train-defective", message="defective, in train: it is not trained on"
            )
        if not mask:
            if label == 1 and category in masked:
                yield Problem(
                    path=image, kind="mask-missing", message="defective, without a mask; others have one"
                )
            continue
        try:
            marked = read_mask(mask)
        except DataError as error:
            yield Problem(path=image, kind="mask-unreadable", message=str(error))
            continue
        found = prints[image]
        if isinstance(found, Fingerprint) and marked.shape != (found.height, found.width):
            sizes = f"{marked.shape[1]} x {marked.shape[0]}, the picture {found.width} x {found.height}"
            yield Problem(path=image, kind="mask-size", message=f"its mask {mask} is {sizes}")
        if label == 1 and not marked.any():
            yield Problem(
                path=image, kind="mask-empty", message=f"defective, but its mask {mask} marks nothing"
            )
        if label == 0 and marked.any():
            yield Problem(
                path=image, kind="mask-on-good", message=f"good, but its mask {mask} marks {marked.sum()} px"
            )


def _pairs(table: pd.DataFrame, prints: Prints, near: float) -> Iterator[Problem]:
    label = dict(zip(table["image"], table["label"], strict=True))
    pairs = duplicates(table, near=near, prints=prints)
    columns = (pairs[name] for name in ("kind", "image_a", "image_b", "distance", "split_a", "split_b"))
    for kind, a, b, distance, split_a, split_b in zip(*columns, strict=True):
        if kind == "exact" and label[a] != label[b]:
            yield Problem(
                path=b, kind="label-conflict", message=f"the same pixels as {a}, which has the other label"
            )
        leak = {split_a, split_b} == {"train", "test"}
        what = "the same pixels as" if kind == "exact" else f"nearly the same (distance {distance:.3f}) as"
        where = (
            f", and they are in {split_a} and {split_b}: the test is easier than the world" if leak else ""
        )
        yield Problem(path=b, kind=f"{'leak' if leak else 'duplicate'}-{kind}", message=f"{what} {a}{where}")


def _counts(table: pd.DataFrame) -> Iterator[Problem]:
    for category, part in table.groupby("category", sort=True):
        labels = [
            label for label, split in zip(part["label"], part["split"], strict=True) if split == "train"
        ]
        normals = labels.count(0)
        if normals == 1:
            message = "one good picture to train on: it is also calibrated on, so its threshold means little"
            yield Problem(path=str(category), kind="few-pictures", message=message)
        elif labels and normals == 0:
            yield Problem(path=str(category), kind="few-pictures", message="no good picture to train on")


def _mixtures(table: pd.DataFrame, prints: Prints) -> Iterator[Problem]:
    for category, part in table.groupby("category", sort=True):
        read = {p: found for p in part["image"] if isinstance(found := prints[p], Fingerprint)}
        facts = {
            "size": {path: f"{found.width} x {found.height}" for path, found in read.items()},
            "channels": {path: f"{found.channels} channel(s)" for path, found in read.items()},
            "depth": {path: f"{found.bits} bit" for path, found in read.items()},
        }
        for name, values in facts.items():
            counts = Counter(values.values()).most_common()
            if len(counts) > 1:
                rare = [path for path, value in values.items() if value != counts[0][0]]
                told = ", ".join(f"{count} of {value}" for value, count in counts[: _MANY + 1])
                more = f" and {len(counts) - _MANY - 1} more" if len(counts) > _MANY + 1 else ""
                message = f"pictures differ: {told}{more}; such as {', '.join(rare[:_MANY])}"
                yield Problem(path=str(category), kind=f"mixed-{name}", message=message)


__all__ = ["ERRORS", "Problem", "check"]
