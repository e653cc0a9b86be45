"""The pictures a model is evaluated on, and the check that it was not fitted on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anodiff.cli import console
from anodiff.errors import DataError
from anodiff.run import Run, sha256_of

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Tested:
    """Pictures to evaluate on, and what the check against the training split found.

    Attributes:
        table: as `data.index` gives it, of the split `test`.
        held: of each row, whether the model was fitted on it.
        leaked: how many of them; None where there is no split.csv to check against.
    """

    table: pd.DataFrame
    held: tuple[bool, ...]
    leaked: int | None

    @property
    def left(self) -> list[str]:
        """The paths of the pictures that are evaluated on."""
        return [path for path, held in zip(self.table["image"], self.held, strict=True) if not held]


def rows_to_test(data: str, *, split_column: str, category: Sequence[str] | None) -> pd.DataFrame:
    """The test pictures of a source, good and defective ones among them.

    Raises:
        DataError: nothing there, or not both.
    """
    from anodiff.data.index import index
    from anodiff.data.table import rows_where

    whole = index(data, split_column=split_column, category=category)
    table = rows_where(whole, whole["split"] == "test")
    kinds = set(table["label"])
    if kinds != {0, 1}:
        names = {0: "good pictures only", 1: "defective pictures only"}
        has = names.get(next(iter(kinds), -1), "no test pictures")
        raise DataError(
            f"An evaluation needs good and defective test pictures; {data} has {has}. Expected test/good beside "
            "test/<defect>, good/ beside bad/, or a manifest with the columns image, label and split. To score "
            "pictures of which nothing is known, use `anodiff score`."
        )
    return table


def strangers(good: str, run: Run) -> pd.DataFrame:
    """The good pictures of a source but for those, by content, that the model of `run` was trained on.

    Their scores are flattering, and a threshold that rests on them is too low. Those held out are none of them.

    Raises:
        DataError: none is left.
    """
    from anodiff.data.index import index, normals
    from anodiff.data.table import rows_where

    table = normals(index(good))
    used = run.used()
    trained_on = [used.get(sha256_of(path) or "") == "train" for path in table["image"]]
    if all(trained_on):
        raise DataError(
            f"The model was trained on all {len(table)} good pictures of {good}: a threshold needs others that taught "
            "it nothing."
        )
    if any(trained_on):
        console.warning(
            f"the model was trained on {sum(trained_on)} of these {len(table)} pictures; they are left out"
        )
    return rows_where(table, [not known for known in trained_on])


def checked(table: pd.DataFrame, run: Run) -> Tested:
    """The pictures, with those marked whose files, by content, went into the fit of `run`.

    Both the pictures trained on and those held out count: the threshold is learnt from the latter.

    Raises:
        DataError: without them no good picture, or no defective one, is left.
    """
    used = run.used()
    if not used:
        console.note(
            f"no {run.split.name} beside the model: not checked whether it was fitted on these pictures"
        )
        return Tested(table, (False,) * len(table), None)
    held = tuple(sha256_of(path) in used for path in table["image"])
    if not any(held):
        return Tested(table, held, 0)
    kept = {label for label, out in zip(table["label"], held, strict=True) if not out}
    if kept != {0, 1}:
        what = "good" if 0 not in kept else "defective"
        raise DataError(
            f"The model was fitted on {sum(held)} of these {len(table)} pictures, and no {what} picture is left to "
            "evaluate on. Keep some pictures apart from the fit: `anodiff data split` divides a set."
        )
    console.warning(f"the model was fitted on {sum(held)} of these {len(table)} pictures; they are left out")
    return Tested(table, held, sum(held))
