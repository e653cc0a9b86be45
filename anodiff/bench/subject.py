"""What a benchmark measures: anything that is fitted on good pictures and scores others."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from anodiff.data.table import rows_where
from anodiff.detect.result import Result


@dataclass(frozen=True)
class Fitted:
    """How many pictures a fit took."""

    train: int
    held: int  # kept for thresholds; 0 for methods that learn none


class Subject(Protocol):
    """A method under measurement; nothing of a test picture is known to it before `stream`."""

    @property
    def evaluations(self) -> int:
        """Evaluations of a denoiser a picture; 0 for a method without one."""
        ...

    def fit(self, train: pd.DataFrame) -> Fitted:
        """Learn from good pictures, a table as `data.index` gives it."""
        ...

    def one(self, path: str) -> Result:
        """The result of one picture, read from its file."""
        ...

    def stream(self, paths: Iterable[str]) -> Iterator[Result]:
        """One result a picture, in order, as fast as the method can; one that cannot be read is a failed result."""
        ...

    def size_mb(self) -> float:
        """What has to be kept to score, in 10^6 bytes."""
        ...


def result(path: str, score: float, heat: np.ndarray | None, shape: tuple[int, int]) -> Result:
    """The result of a method that knows no threshold: score, map [h, w] and the picture's own (height, width)."""
    nothing = float("nan")
    return Result(float(score), nothing, nothing, heat=heat, shape=shape, path=path)


def at_most(train: pd.DataFrame, most: int | None) -> pd.DataFrame:
    """The training pictures, `most` of them at most: those whose names have the lowest hashes, whatever the seed."""
    if most is None or len(train) <= most:
        return train
    places = [hashlib.blake2b(Path(p).name.encode(), digest_size=8).hexdigest() for p in train["image"]]
    limit = sorted(places)[most - 1]
    kept = [place <= limit for place in places]
    return rows_where(train, kept).head(most)
