"""A detector of this package under measurement, used as `anodiff fit` and `anodiff eval` use it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

import anodiff.detector as detectors
from anodiff import config as configuration
from anodiff.bench.subject import Fitted
from anodiff.detect.result import Result
from anodiff.detector import Detector
from anodiff.gather import gather

BATCH = 8  # pictures at a time, as eval's


class Ours:
    """A detector by its configuration; it scores as its file does, for it is read back from it."""

    def __init__(self, run: dict[str, Any], *, device: str, say: Any = lambda text: None) -> None:
        self.config = configuration.parse(run)
        self.device = device
        self.say = say
        self._detector: Detector | None = None
        self._bytes = 0

    @property
    def detector(self) -> Detector:
        """The detector once it is fitted."""
        if self._detector is None:
            raise RuntimeError("fit comes first")
        return self._detector

    @property
    def evaluations(self) -> int:
        """Evaluations of the denoiser a picture."""
        return self.detector.evaluations

    def fit(self, train: pd.DataFrame) -> Fitted:
        """Fit on good pictures, a share of which is held out for the threshold."""
        good = gather(train, self.config)
        fitted = Detector(config=self.config, device=self.device).fit(good, say=self.say)
        with tempfile.TemporaryDirectory() as folder:
            path = fitted.save(Path(folder) / "model.anodiff")
            self._bytes = path.stat().st_size
            self._detector = detectors.load(path, device=self.device)
        return Fitted(len(good.train), len(good.held))

    def one(self, path: str) -> Result:
        """The result of one picture."""
        return self.detector.predict(path)

    def stream(self, paths: Iterable[str]) -> Iterator[Result]:
        """One result a picture; the next batch is decoded while one is scored."""
        yield from self.detector.stream(paths, batch=BATCH)

    def size_mb(self) -> float:
        """The model's file."""
        return self._bytes / 1e6

    def with_steps(self, steps: int) -> Ours:
        """The same model with another number of steps; RefusalError for a score without steps."""
        other = Ours(self.config.model_dump(mode="json"), device=self.device, say=self.say)
        other._detector, other._bytes = self.detector.with_steps(steps), self._bytes
        return other
