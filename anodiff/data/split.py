"""A division of a table into training and testing."""

from __future__ import annotations

import hashlib

import pandas as pd

from anodiff.errors import ConfigError, DataError


def divided(table: pd.DataFrame, *, share: float = 0.2, seed: int = 0, column: str = "split") -> pd.DataFrame:
    """The table with a split column: defective pictures and about `share` of the good ones are test.

    No group is on both sides: a group with a defective picture is test as a whole. Each category is divided by itself,
    its groups in the order of a hash of their name and the seed, until enough good pictures are in test. At
    least one good picture is left for training in every category that has one.

    Args:
        table: as `index` gives it; `leak.grouped` fills in groups found by content.
        share: of the good pictures, in (0, 1).
        seed: another seed, another division.
        column: where the result is written; the other columns stay.

    Raises:
        DataError: a category whose good pictures all share groups with defective ones: none is left to train on.
    """
    if not 0.0 < share < 1.0:
        raise ConfigError(f"Expected a share between 0 and 1 for testing, got {share}.")
    columns = (table["category"], table["image"], table["group"])
    units = [
        f"{category}/{image if pd.isna(group) else f'group:{group}'}"
        for category, image, group in zip(*columns, strict=True)
    ]
    by_unit = pd.DataFrame({"unit": units, "category": table["category"], "bad": table["label"] == 1})
    test: set[str] = set()
    for category, part in by_unit.groupby("category", sort=True):
        test |= _test_units(part, f"{category}", share, seed)
    return table.assign(**{column: ["test" if unit in test else "train" for unit in units]})


def _test_units(part: pd.DataFrame, category: str, share: float, seed: int) -> set[str]:
    bad = {unit for unit, is_bad in zip(part["unit"], part["bad"], strict=True) if is_bad}
    goods = [unit for unit, is_bad in zip(part["unit"], part["bad"], strict=True) if not is_bad]
    size = {unit: goods.count(unit) for unit in dict.fromkeys(goods)}
    free = sorted((unit for unit in size if unit not in bad), key=lambda unit: _place(unit, seed))
    if goods and not free:
        raise DataError(
            f"{category}: every good picture shares a group with a defective one, so none is left to train on. "
            "Check the column `group`, or add good pictures of other parts."
        )
    wanted = share * len(goods)
    taken, test = sum(size[unit] for unit in bad if unit in size), set(bad)
    for unit in free[:-1]:  # the last one stays in train, whatever the share
        if taken + size[unit] / 2 > wanted:
            break
        test.add(unit)
        taken += size[unit]
    return test


def _place(unit: str, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed}:{unit}".encode(), digest_size=8).digest()
