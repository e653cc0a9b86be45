"""Whether a test is a test: the same picture, or the same part, on both sides of a split."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass

import pandas as pd

from anodiff.data.leak import NEAR, duplicates, grouped, leaks
from anodiff.data.table import rows_where

FEW = 0.05
"""Share of the test pictures up to which a leak is called small."""


@dataclass(frozen=True)
class Audit:
    """What was found in one data set, by content alone: what its table says of groups is not looked at."""

    exact: int  # pairs of the same pixels, anywhere in train and test
    near: int  # pairs of pictures of the same part
    leaking_pairs: int  # pairs with one picture in train and the other in test
    train: int
    test: int
    groups: int  # pictures linked by pairs are one group
    largest_group: int
    test_share_leaking: float  # of the test pictures, those with such a partner in train
    note: str

    def to_dict(self) -> dict[str, object]:
        """Plain values."""
        return asdict(self)


def audit(table: pd.DataFrame, *, near: float = NEAR) -> Audit:
    """The audit of the good training pictures and all test pictures of a table as `data.index` gives it.

    Two pictures pass for the same part where `data.leak.duplicates` says so: their thumbnails, free of exposure and of
    what the whole category shares, differ by less than `near`. Every picture is read once.
    """
    used = rows_where(
        table, ((table["split"] == "train") & (table["label"] == 0)) | (table["split"] == "test")
    )
    pairs = duplicates(used, near=near)
    across = leaks(pairs)
    split = dict(zip(used["image"], used["split"], strict=True))
    tainted = {
        path for pair in zip(across["image_a"], across["image_b"], strict=True) for path in pair
        if split[path] == "test"
    }  # fmt: skip
    blind = used.assign(group=pd.Series([None] * len(used), index=used.index, dtype=object))
    sizes = Counter(grouped(blind, pairs)["group"])
    kinds, crossing = Counter(pairs["kind"]), Counter(across["kind"])
    test = Counter(used["split"])["test"]
    return Audit(
        exact=kinds["exact"],
        near=kinds["near"],
        leaking_pairs=len(across),
        train=len(used) - test,
        test=test,
        groups=len(sizes),
        largest_group=max(sizes.values(), default=0),
        test_share_leaking=round(len(tainted) / test, 4) if test else 0.0,
        note=_note(len(across), crossing["exact"], len(tainted), test),
    )


def _note(across: int, exact: int, tainted: int, test: int) -> str:
    if not across:
        return f"No picture or part of the {test} test pictures was found among those to train on."
    copies = f", {exact} of them exact copies" if exact else ""
    few = tainted <= FEW * test
    advice = (
        "Few enough to leave the figures about as they are."
        if few
        else "Figures on this split flatter every method: divide it by groups."
    )
    return f"{tainted} of {test} test pictures show a part that is also trained on ({across} pairs{copies}). {advice}"
