"""A predictor at work: pictures of any kind in, results out, in order and in constant memory."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anodiff import artefact, compose
from anodiff.cond import Cond
from anodiff.config import RunConfig
from anodiff.data.preparation import Placed, Preparation
from anodiff.detect.placement import Placement
from anodiff.detect.predictor import Predictor
from anodiff.detect.result import Result, unbatch
from anodiff.encode.label import number_of
from anodiff.errors import AnodiffError, ConfigError
from anodiff.frame import Frame, frame


@dataclass(frozen=True)
class Decoded:
    """One picture as it came, or why there is none."""

    name: str | None
    array: Frame | None
    error: str | None
    ms: float
    label: int = -1  # what it is known to be; -1: the model finds out


@dataclass(frozen=True, eq=False)
class Scoring:
    """A predictor that has learnt, with what its file says besides the tensors."""

    predictor: Predictor
    shape: tuple[int, int]  # working height and width
    config: RunConfig
    target_fpr: float
    about: Mapping[str, Any]  # where it comes from

    @cached_property
    def model_id(self) -> str:
        """Twelve hexadecimal digits that change with any weight or setting."""
        return artefact.identity(self.predictor.state_dict(), self.config.model_dump(mode="json"))

    @cached_property
    def preparation(self) -> Preparation:
        """What a picture goes through before the predictor sees it."""
        return compose.preparation(self.config, self.shape)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the labels, 0 first; none where the model is not conditional."""
        return self.config.labels.classes

    def rebuilt(self, config: RunConfig, target_fpr: float) -> Predictor:
        """A predictor of `config` on the CPU with everything this one has learnt."""
        fresh = compose.predictor(config, target_fpr=target_fpr, shape=self.shape, weights=compose.LEARNT)
        fresh.load_state_dict(self.predictor.state_dict())
        return fresh.eval()

    def one(self, source: Any, label: str | None = None) -> Result:
        """The result of one picture; DataError where it cannot be read."""
        array = frame(source)  # raises where `stream` would give a failed result
        return next(self._results([Decoded(_name(source), array, None, 0.0, self._number(label))]))

    def stream(
        self, sources: Iterable[Any], *, batch: int, labels: str | Iterable[str | None] | None = None
    ) -> Iterator[Result]:
        """One result a picture, in order; the next batch is decoded while one is scored.

        `labels` names what the pictures are known to be: one name for all, or one a picture, None where it is not.

        Raises:
            ConfigError: a label the model does not have, or fewer labels than pictures.
        """
        waiting = self._labelled(sources, labels)
        with ThreadPoolExecutor(1, thread_name_prefix="anodiff-decode") as pool:
            ahead = pool.submit(_decoded, list(islice(waiting, batch)))
            while group := ahead.result():
                ahead = pool.submit(_decoded, list(islice(waiting, batch)))
                yield from self._results(group)

    def _labelled(
        self, sources: Iterable[Any], labels: str | Iterable[str | None] | None
    ) -> Iterator[tuple[Any, int]]:
        """Each picture with the number of its label, -1 where it is not known."""
        known = repeat(labels) if labels is None or isinstance(labels, str) else iter(labels)
        for number, source in enumerate(sources):
            try:
                label = next(known)
            except StopIteration:  # a picture without a row would be worse than an error
                raise ConfigError(
                    f"Expected one label a picture, got {number} labels for more pictures."
                ) from None
            yield source, self._number(label)

    def _number(self, label: str | None) -> int:
        return -1 if label is None else number_of(label, self.names)

    def _results(self, group: Sequence[Decoded]) -> Iterator[Result]:
        predictor = self.predictor
        start = time.perf_counter()
        prepared = [self._prepared(item) for item in group]
        images = [found.image for found in prepared if isinstance(found, Placed)]
        labels = [
            item.label for item, found in zip(group, prepared, strict=True) if isinstance(found, Placed)
        ]
        ready = time.perf_counter()
        device = next(predictor.parameters()).device
        cond = Cond(label=torch.tensor(labels, device=device)) if self.names else None
        scored = predictor(torch.stack(images).to(device), cond) if images else None
        each = 1e3 / max(1, len(images))
        spent = {"prepare": each * (ready - start), "score": each * (time.perf_counter() - ready)}
        row = 0
        for item, found in zip(group, prepared, strict=True):
            if scored is None or isinstance(found, str) or item.array is None:
                error = found if isinstance(found, str) else "not scored"
                yield Result.failed(
                    error, path=item.name, threshold=predictor.threshold.value, model_id=self.model_id
                )
                continue
            yield unbatch(
                scored,
                row,
                shape=(item.array.shape[0], item.array.shape[1]),
                image=_eight_bit(item.array),
                placement=Placement.of(found.matrix, self.shape),
                path=item.name,
                names=self.names,
                model_id=self.model_id,
                timings_ms={"decode": item.ms, **spent},
            )
            row += 1

    def _prepared(self, item: Decoded) -> Placed | str:
        """The picture at the working shape, or the sentence that says why not."""
        if item.array is None:
            return item.error or "not read"
        try:
            return self.preparation.placed(item.array)
        except AnodiffError as error:
            return str(error)


def _decoded(sources: Sequence[tuple[Any, int]]) -> list[Decoded]:
    group = []
    for source, label in sources:
        start = time.perf_counter()
        array, problem = None, None
        try:
            array = frame(source)
        except AnodiffError as error:
            problem = str(error)
        group.append(Decoded(_name(source), array, problem, 1e3 * (time.perf_counter() - start), label))
    return group


def _name(source: Any) -> str | None:
    return str(source) if isinstance(source, str | Path) else None


def _eight_bit(array: np.ndarray) -> np.ndarray:
    """The picture for people to look at, uint8; a view where it is that already."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.uint16:
        return (array >> 8).astype(np.uint8)
    return (np.clip(array.astype(np.float32), 0, 1) * 255).astype(np.uint8)
