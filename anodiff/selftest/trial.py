"""How well a predictor tells painted pictures from the same ones clean, over all or over any draw of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anodiff.detect.bylabel import ThresholdByLabel
from anodiff.detect.crossed import Observed
from anodiff.detect.heatmap import to_size
from anodiff.detect.predictor import Predictor
from anodiff.metrics.bootstrap import PixelTable
from anodiff.metrics.curve import aupro, auroc
from anodiff.metrics.image import image_curve
from anodiff.metrics.pixel import PixelScores
from anodiff.selftest.painting import Batch, Defect, Painting

Floats = NDArray[np.float64]

Shown = tuple[Observed, Sequence[NDArray[np.bool_]]]
"""What a batch showed, and the mask of each of its pictures."""


Limit = Callable[[Tensor | None, int], Floats]
"""(labels [B] or None, B) -> the threshold [B] of each picture."""


@dataclass(frozen=True, eq=False)
class Trial:
    """Scores and maps of clean and painted pictures; the clean ones come first, `p` painted ones follow.

    Attributes:
        score: [n] higher = more anomalous.
        base: [n] which of the good pictures each shows, from 0 without a gap.
        limit: [p] the threshold of each painted picture; infinite where there is none.
        pixels: of the painted pictures. A clean one shows the same good pixels once more and is not asked.
        defects: [p] what was painted.
    """

    score: Floats
    base: NDArray[np.intp]
    limit: Floats
    pixels: PixelTable
    defects: Sequence[Defect]

    @property
    def bad(self) -> NDArray[np.bool_]:
        """[n] which pictures are painted."""
        return np.arange(self.score.size) >= self.score.size - len(self.defects)

    @property
    def found(self) -> NDArray[np.bool_]:
        """[p] which painted pictures lie above the threshold."""
        return self.score[self.bad] > self.limit

    def figures(self, times: Floats) -> Mapping[str, Floats]:
        """The figures [d] where picture i counts `times[d, i]` times; some clean and some painted one must.

        `image_auroc` of painted against clean pictures; `pixel_auroc` and `aupro_30` of the pixels of painted ones, all
        together; `found`, the share of painted pictures above the threshold.
        """
        painted = times[:, self.bad]  # [d, p]
        curve = self.pixels.curve(painted)
        return {
            "image_auroc": np.asarray(auroc(image_curve(self.score, self.bad, weights=times)), np.float64),
            "pixel_auroc": np.asarray(auroc(curve), np.float64),
            "aupro_30": np.asarray(aupro(curve, 0.3), np.float64),
            "found": painted @ self.found / painted.sum(axis=1),
        }

    def of(self, chosen: NDArray[np.bool_]) -> dict[str, float]:
        """The figures of the chosen [p] painted pictures against all clean ones."""
        times = np.ones((1, self.score.size))
        times[:, self.bad] = chosen
        return {name: float(value[0]) for name, value in self.figures(times).items()}

    def draws(self, *, draws: int, seed: int) -> Floats:
        """How often each picture counts [draws, n] in resamples of the good pictures.

        A good picture is drawn with its clean and all its painted forms: defects on one picture are no independent
        pictures, and intervals from drawing them singly would be too narrow (Efron & Tibshirani 1993, ch. 8).
        """
        count = int(self.base.max()) + 1
        rng = np.random.default_rng(seed)
        return rng.multinomial(count, np.full(count, 1 / count), size=draws)[:, self.base].astype(np.float64)


def observed(predictor: Predictor, batches: Iterable[Batch]) -> Iterable[Shown]:
    """What each batch shows the predictor, one after the other."""
    for image, label, masks in batches:
        yield predictor.look(image if label is None else (image, label)), masks


def never(label: Tensor | None, count: int) -> Floats:
    """No threshold: nothing lies above it."""
    return np.full(count, np.inf)


def learnt(predictor: Predictor) -> Limit:
    """The threshold that the predictor has learnt, that of each label where it has one for each."""
    threshold = predictor.threshold

    def limit(label: Tensor | None, count: int) -> Floats:
        if isinstance(threshold, ThresholdByLabel) and label is not None:
            return threshold.of(label).numpy()
        return np.full(count, threshold.value)

    return limit


@torch.no_grad()
def trial(
    predictor: Predictor,
    painting: Painting,
    clean: Iterable[Shown],
    painted: Iterable[Shown],
    *,
    limit: Limit = never,
) -> Trial:
    """What the predictor makes of the pictures of `painting`, from what they showed.

    Args:
        predictor: with scorer and calibration learnt; it may have no threshold yet.
        painting: what was shown.
        clean: of `painting.clean()`, see `observed`.
        painted: of `painting.painted()`.
        limit: the threshold of each picture.

    Raises:
        DataError: a score or a map that is not finite.
    """
    pixels = PixelScores()
    scores, limits = [], []
    for (parts, label), _ in clean:
        scores.append(predictor.pool(predictor.maps(parts, label).score).double().cpu().numpy())
    for (parts, label), masks in painted:
        maps = predictor.maps(parts, label)
        scores.append(predictor.pool(maps.score).double().cpu().numpy())
        limits.append(limit(label, len(masks)))
        for row, mask in zip(
            to_size(maps.place, masks[0].shape)[:, 0].float().cpu().numpy(), masks, strict=True
        ):
            pixels.update(row, mask)
    places = {base: place for place, base in enumerate(painting.bases)}
    shown = [*painting.bases, *(defect.base for defect in painting.defects)]
    return Trial(
        score=np.concatenate(scores),
        base=np.array([places[base] for base in shown]),
        limit=np.concatenate(limits),
        pixels=PixelTable.of(pixels.pictures),
        defects=painting.defects,
    )
