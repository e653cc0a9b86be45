from __future__ import annotations

import numpy as np
import pytest
import torch

from anodiff.detect.evaluate import Evaluation
from anodiff.detect.predictor import Scored
from anodiff.detect.result import Result, unbatch
from anodiff.errors import DataError
from anodiff.metrics.pixel import PixelScores


def result(score: float, shape: tuple[int, int], spot: bool) -> Result:
    heat = torch.zeros(1, 1, 16, 16)
    if spot:
        heat[0, 0, 4:8, 4:8] = score
    scored = Scored(
        score=torch.tensor([score]), p_value=torch.tensor([0.5]), heat=heat, restored=None,
        threshold=torch.ones(1), mask_threshold=torch.ones(1),
    )  # fmt: skip
    return unbatch(scored, 0, shape=shape)


def test_maps_meet_masks_at_the_masks_own_size() -> None:
    evaluation = Evaluation(pixels=PixelScores())
    for index in range(6):
        shape = (64 + index, 128)
        evaluation.add(result(0.1 + index / 100, shape, spot=False), 0)
        mask = np.zeros(shape, dtype=bool)
        mask[shape[0] // 4 : shape[0] // 2, 32:64] = True
        evaluation.add(result(3.0 + index, shape, spot=True), 1, mask)
    evaluation.add(Result.failed("unreadable"), 1)
    found = evaluation.metrics(seed=0, draws=50)
    assert found["image_auroc"].value == 1
    assert found["pixel_auroc"].value > 0.97
    assert found["aupro_30"].value > 0.85
    assert found["image_auroc"].n == 12
    assert evaluation.failures == 1
    assert evaluation.pixels is not None
    assert evaluation.pixels.pixels == 2 * sum((64 + index) * 128 for index in range(6))


def test_a_thin_scratch_keeps_its_area() -> None:
    """One pixel wide at native size: resized to the map it would vanish or grow sixteenfold."""
    evaluation = Evaluation(pixels=PixelScores())
    mask = np.zeros((256, 256), dtype=bool)
    mask[:, 77] = True
    evaluation.add(result(1.0, (256, 256), spot=True), 1, mask)
    evaluation.add(result(0.0, (256, 256), spot=False), 0)
    assert evaluation.pixels is not None
    assert evaluation.pixels.curve().bad[-1] == 256


def test_without_masks_there_are_image_metrics_only() -> None:
    evaluation = Evaluation()
    for score, label in [(0.1, 0), (0.2, 0), (0.9, 1), (0.15, 1)]:
        evaluation.add(result(score, (8, 8), spot=False), label)
    assert "pixel_auroc" not in evaluation.metrics(seed=0, draws=20)
    with pytest.raises(DataError, match=r"0 .good. or 1"):
        evaluation.add(result(1.0, (8, 8), spot=False), 2)
    unmarked = Evaluation(pixels=PixelScores())
    unmarked.add(result(1.0, (8, 8), spot=True), 1)  # defective, and nobody knows where
    assert unmarked.pixels is not None
    assert unmarked.pixels.pixels == 0
