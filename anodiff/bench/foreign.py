"""A model of anomalib under measurement: our pictures, split and resize, its own training and scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from anodiff.bench.subject import Fitted, result
from anodiff.data.image import prepare, read
from anodiff.detect.result import Result
from anodiff.errors import AnodiffError, DataError


class Scores(Protocol):
    """A trained model of another library."""

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Pictures [B, 3, s, s] in [0, 1] -> scores [B] and maps [B, h, w], raw."""
        ...

    def size_mb(self) -> float:
        """Its parameters and what it keeps of the training pictures."""
        ...


class Pictures(Sequence[Tensor]):
    """Pictures [3, s, s] in [0, 1], read when they are asked for."""

    def __init__(self, paths: Sequence[str], size: int) -> None:
        self.paths, self.size = list(paths), size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: Any) -> Tensor:
        return prepare(read(self.paths[place]), shape=(self.size, self.size))


class Foreign:
    """A model that another library trains.

    Args:
        train: pictures -> the trained model.
        size: side the pictures are brought to by our own resize, px.
        batch: pictures scored at a time by `stream`.
    """

    evaluations = 0

    def __init__(self, train: Callable[[Sequence[Tensor]], Scores], *, size: int, batch: int) -> None:
        self.train, self.size, self.batch = train, size, batch
        self._model: Scores | None = None

    def fit(self, train: pd.DataFrame) -> Fitted:
        """Train on all good pictures that can be read: nothing is held out, for no threshold is learnt."""
        good = [path for path in train["image"] if _readable(path)]
        if not good:
            raise DataError(f"None of the {len(train)} training pictures can be read.")
        self._model = self.train(Pictures(good, self.size))
        return Fitted(len(good), 0)

    def one(self, path: str) -> Result:
        """The result of one picture."""
        array = read(path)
        return self._scored([path], [array])[0]

    def stream(self, paths: Iterable[str]) -> Iterator[Result]:
        """One result a picture."""
        waiting = iter(paths)
        while group := list(islice(waiting, self.batch)):
            arrays = [_decoded(path) for path in group]
            there = [(p, a) for p, a in zip(group, arrays, strict=True) if isinstance(a, np.ndarray)]
            scored = iter(self._scored(*map(list, zip(*there, strict=True))) if there else [])
            for path, array in zip(group, arrays, strict=True):
                yield next(scored) if isinstance(array, np.ndarray) else Result.failed(array, path=path)

    def size_mb(self) -> float:
        """What the model keeps."""
        return 0.0 if self._model is None else self._model.size_mb()

    def _scored(self, paths: list[Any], arrays: list[Any]) -> list[Result]:
        if self._model is None:
            raise DataError("This model has seen nothing yet: call fit first.")
        images = torch.stack([prepare(array, shape=(self.size, self.size)) for array in arrays])
        scores, maps = self._model(images)
        heats = [None] * len(paths) if maps is None else list(maps.float().cpu().numpy())
        shapes = [(array.shape[0], array.shape[1]) for array in arrays]
        return [
            result(path, score, heat, shape)
            for path, score, heat, shape in zip(paths, scores.tolist(), heats, shapes, strict=True)
        ]


def _decoded(path: str) -> np.ndarray | str:
    try:
        return read(path)
    except AnodiffError as error:
        return str(error)


def _readable(path: str) -> bool:
    return isinstance(_decoded(path), np.ndarray)
