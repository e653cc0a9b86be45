"""Results against what is known of the pictures, one at a time, in constant memory."""

from __future__ import annotations

import numpy as np

from anodiff.detect.result import Result
from anodiff.errors import DataError
from anodiff.metrics.bootstrap import Interval
from anodiff.metrics.pixel import PixelScores
from anodiff.metrics.row import metrics


class Evaluation:
    """Gathers scores and labels, and maps and masks where `pixels` is given; `metrics` tells what came of it.

    A picture that could not be scored counts in `failures` and nowhere else: it has no rank.
    """

    def __init__(self, *, pixels: PixelScores | None = None) -> None:
        self.pixels = pixels
        self.scores: list[float] = []
        self.labels: list[int] = []
        self.failures = 0

    def add(self, result: Result, label: int, mask: np.ndarray | None = None) -> None:
        """Take in one picture.

        The map is brought to the mask's own size; the mask never to the map's, which would change the area
        of a thin scratch. A good picture needs no mask; a defective one without a mask counts for its score
        only.

        Args:
            result: what the picture was found to be.
            label: 0 = good, 1 = defective.
            mask: [H, W] bool at its native size, True where defective.
        """
        if label not in (0, 1):
            raise DataError(f"Expected label 0 (good) or 1 (defective) for {result.path}, got {label!r}.")
        if result.error is not None:
            self.failures += 1
            return
        self.scores.append(result.score)
        self.labels.append(int(label))
        if self.pixels is None or result.heat is None or (mask is None and label):
            return
        if mask is None:
            if result.shape is None:
                return
            mask = np.zeros(result.shape, dtype=bool)
        self.pixels.update(result.heat_at((mask.shape[0], mask.shape[1])), mask)

    def metrics(self, *, seed: int, draws: int = 1000) -> dict[str, Interval]:
        """All metrics by name with their intervals; DataError without both good and defective pictures."""
        return metrics(self.scores, self.labels, self.pixels, seed=seed, draws=draws)
