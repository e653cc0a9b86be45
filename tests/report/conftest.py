"""A small set of scored pictures: 12 good, 8 scratched, 6 stained, one that could not be read."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from anodiff.report.case import Case, Report, pick_cases

THRESHOLD = 0.5
NASTY = 'test/scratch/<script>alert("1")</script> & $x_1$.png'


@pytest.fixture
def predictions() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    good = [
        (f"test/good/{i:02}.png", s, 0, None)
        for i, s in enumerate(np.append(rng.uniform(0.1, 0.45, 11), 0.6))
    ]
    scratch = [(f"test/scratch/{i:02}.png", s, 1, "scratch") for i, s in enumerate(rng.uniform(0.3, 0.8, 7))]
    stain = [(f"test/stain/{i:02}.png", s, 1, "stain") for i, s in enumerate(rng.uniform(0.7, 1.2, 6))]
    table = pd.DataFrame(
        [*good, *scratch, (NASTY, 0.2, 1, "scratch"), *stain], columns=["path", "score", "label", "defect"]
    )
    table["p_value"], table["threshold"], table["error"] = 0.04, THRESHOLD, None
    broken = {
        "path": "test/stain/broken.png",
        "label": 1,
        "defect": "stain",
        "error": "Expected a PNG, found 0 bytes.",
    }
    return pd.concat([table, pd.DataFrame([broken])], ignore_index=True)


def picture(row: pd.Series, *, shape: tuple[int, int] = (60, 80)) -> Case:
    rng = np.random.default_rng(len(str(row["path"])))
    image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    heatmap = np.full(shape, 0.05, np.float32)
    heatmap[20:30, 10:40] = row["score"]
    bad = row["label"] == 1
    mask = np.zeros(shape, bool)
    mask[20:30, 10:40] = bad
    return Case(
        name=row["path"], image=image, heatmap=heatmap, score=float(row["score"]), label=int(row["label"]),
        defect=row["defect"] if bad else None, p_value=0.04, mask=mask, restored=image[::-1],
    )  # fmt: skip


@pytest.fixture
def report(predictions: pd.DataFrame) -> Report:
    cases = [picture(row) for _, row in pick_cases(predictions, 2).iterrows()]
    return Report(
        title="brick <b>DDPM</b>",
        metrics={
            "image_auroc": {"value": 0.987, "low": 0.961, "high": 1.0, "n": 26},
            "aupro_30": {"value": 0.9, "low": float("nan"), "high": float("nan"), "n": 14},
        },
        predictions=predictions,
        threshold=THRESHOLD,
        cases=cases,
        settings={"family": {"kind": "ddpm", "levels": (0.34, np.float64(0.95))}},
        environment={"python": "3.11", "commit": "abc123", "command": "anodiff eval 'a&b'"},
        facts={"device": "cpu", "seed": 0, "evaluations_per_image": 20, "ms_p50": 183.2, "ms_p99": 240.1},
    )
