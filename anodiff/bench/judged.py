"""The methods of one set on the pictures that all of them scored, resampled together."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from anodiff.bench.finding import Finding
from anodiff.errors import DataError
from anodiff.metrics.paired import Draws, difference, holm, resampled, whole_auroc
from anodiff.metrics.seeds import crossed
from anodiff.report.bench_summary import Pair


@dataclass(frozen=True, eq=False)
class Judged:
    """Image AUROC of every method of a set, and its draws on common resamples of the pictures.

    Attributes:
        set: Name of the data set.
        n: Pictures that all methods scored with all seeds.
        left_out: Pictures that some cell did not score.
        values: Method to [seeds], from all `n` pictures.
        pictures: Method to the draws of its mean over seeds: other pictures, these trainings.
        both: Method to draws for other pictures and other seeds.
    """

    set: str
    n: int
    left_out: int
    values: Mapping[str, np.ndarray]
    pictures: Mapping[str, Draws]
    both: Mapping[str, Draws]


def judged(cells: Sequence[Finding], *, draws: int, seed: int) -> Judged | None:
    """The set's methods on the same resamples; None where no cell has scores of good and defective pictures.

    Args:
        cells: Of one set, with results.
        draws: Resamples.
        seed: Of the resampling; each set and each method's seeds are drawn independently of all others.

    Raises:
        DataError: a picture has different labels in two cells.
    """
    cells = [cell for cell in cells if cell.scores]
    if not cells:
        return None
    scores = [cell.scores or {} for cell in cells]
    paths = sorted(set.intersection(*(set(found) for found in scores)))
    seen = set().union(*scores)
    labels = np.array([scores[0][path][0] for path in paths])
    for cell, found in zip(cells, scores, strict=True):
        other = next((path for path in paths if found[path][0] != scores[0][path][0]), None)
        if other is not None:
            raise DataError(
                f"{other} of {cell.set} has another label in {cell.method}, seed {cell.seed} than in "
                f"{cells[0].method}, seed {cells[0].seed}: the data changed between runs. "
                "Run the set anew with --fresh."
            )
    if len(set(labels.tolist())) < 2:
        return None
    table = np.array([[found[path][1] for path in paths] for found in scores])  # [cells, n]
    name = cells[0].set
    drawn = resampled(table, labels, draws=draws, seed=_seed(seed, name))
    whole = whole_auroc(table, labels)
    rows: dict[str, list[int]] = {}
    for row, cell in enumerate(cells):
        rows.setdefault(cell.method, []).append(row)
    return Judged(
        set=name,
        n=len(paths),
        left_out=len(seen) - len(paths),
        values={method: whole[places] for method, places in rows.items()},
        pictures={method: drawn[places].mean(axis=0) for method, places in rows.items()},
        both={
            method: crossed(drawn[places], seed=_seed(seed, f"{name}\n{method}"))
            for method, places in rows.items()
        },
    )


def pairs(found: Judged) -> list[Pair]:
    """Every two methods of the set, the better one first, with p-values adjusted for all of them."""
    order = sorted(found.values, key=lambda method: -found.values[method].mean())
    raw = [_pair(found, first, second) for first, second in combinations(order, 2)]
    adjusted = holm([max(pair.p, pair.p_seeds) for pair in raw])
    return [replace(pair, adjusted=value) for pair, value in zip(raw, adjusted, strict=True)]


def _pair(found: Judged, first: str, second: str) -> Pair:
    value = float(found.values[first].mean() - found.values[second].mean())
    here = difference(value, found.pictures[first], found.pictures[second], n=found.n)
    anywhere = difference(value, found.both[first], found.both[second], n=found.n)
    return Pair(
        set=found.set, first=first, second=second, value=value, low=here.low, high=here.high,
        p=here.p, p_seeds=anywhere.p, adjusted=1.0, n=found.n,
    )  # fmt: skip


def _seed(seed: int, name: str) -> int:
    """A seed of its own for each name, the same whatever else is in the bench."""
    return zlib.crc32(f"{seed}\n{name}".encode())
