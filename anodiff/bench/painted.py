"""The pictures a model paints, judged against the good ones it was and was not fitted on."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from anodiff.codec.backbone import backbone
from anodiff.codec.fuse import fused
from anodiff.codec.pooled import Pooled
from anodiff.compose import preparation
from anodiff.config.bench import Generation
from anodiff.data.image import prepare, read
from anodiff.detector import Detector
from anodiff.metrics import generation as metrics
from anodiff.painting import paint
from anodiff.tasks.asked import Asked, conditions

LITE0 = "tf_efficientnet_lite0"  # called "lite0" in names of metrics
STAGES = (2, 3)
SUBSET = 256  # rows a draw of the kernel distance, at most
MOST = 2048  # real pictures compared with, at most


def judged(
    detector: Detector, how: Generation, *, train: Sequence[str], held: Sequence[str], weights: Path | None
) -> dict[str, Any]:
    """Distances of `how.samples` painted pictures to good ones, by the names `FD[lite0]`, `KID[lite0]`, ...

    Frechet and kernel distance, precision and recall compare with the training pictures; `nearest[...]` is the median
    distance to the nearest of them over that of good test pictures: well below 1 where training pictures are repeated.
    "FID" is the name of the first in Inception's features alone.

    Args:
        detector: fitted, with a codec that paints.
        how: counts and extractor.
        train: paths of good pictures it was fitted on.
        held: paths of good pictures it was not.
        weights: file of the extractor's weights.
    """
    device = detector.device
    extract = extractor(how.extractor, weights).to(device)
    pictures = paint(
        detector.predictor,
        detector.shape,
        count=how.samples,
        steps=how.steps,
        seed=detector.config.seed,
        batch=how.batch,
        device=device,
        cond_of=conditions(detector.config, Asked(), device),
    )
    channels = detector.config.data.channels
    ready = preparation(detector.config, detector.shape)

    def real(paths: Sequence[str]) -> np.ndarray:
        shown = (ready(read(path)) for path in paths[:MOST])
        return rows(shown, extract, batch=how.batch, device=device)

    made = rows(
        (prepare(p, shape=detector.shape, channels=channels) for p in pictures),
        extract,
        batch=how.batch,
        device=device,
    )
    return {**compared(real(train), made, real(held), name=how.extractor), "extractor": how.extractor}


def compared(train: np.ndarray, made: np.ndarray, held: np.ndarray, *, name: str) -> dict[str, Any]:
    """The figures of features [n, d], [m, d] and [k, d] taken by the extractor `name`, with the counts."""
    equal = min(len(train), len(made))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a singular covariance is told by `singular`
        distance = metrics.frechet(train, made)
    kid = metrics.kid(train, made, subset=min(SUBSET, equal), seed=0)
    shares = metrics.precision_recall(train[:equal], made[:equal])
    near = metrics.nearest(train, made, held=held)
    frechet = "FID" if name == "inception" else "FD"
    return {
        metrics.named(frechet, name): distance,
        metrics.named("KID", name): kid.mean,
        metrics.named("KID sd", name): kid.deviation,
        metrics.named("precision", name): shares.precision,
        metrics.named("recall", name): shares.recall,
        metrics.named("nearest", name): near.ratio,
        "samples": len(made),
        "real": len(train),
        "singular": equal <= train.shape[1],
    }


def extractor(name: str, weights: Path | None) -> nn.Module:
    """The network called `name`: pictures [B, C, H, W] in [0, 1] -> features [B, d].

    Raises:
        ModelFileError: its weights are not on this machine.
    """
    if name == "inception":
        from anodiff.codec.inception import inception

        return inception(weights or Path())
    network = LITE0 if name == "lite0" else name
    return Pooled(fused(backbone(network, STAGES, weights=weights or "auto"))).eval()


def rows(
    images: Iterable[Tensor], extract: Callable[[Tensor], Tensor], *, batch: int, device: torch.device
) -> np.ndarray:
    """Features [n, d] float64 of pictures [C, h, w] in [0, 1], rounded to 8 bit as a file would be."""
    found, waiting = [], []

    def flush() -> None:
        if waiting:
            seen = (torch.stack(waiting).clamp(0, 1) * 255).round() / 255
            found.append(extract(seen.to(device)).double().cpu())
            waiting.clear()

    for image in images:
        waiting.append(image)
        if len(waiting) == batch:
            flush()
    flush()
    return torch.cat(found).numpy()
