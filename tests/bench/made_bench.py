"""A bench's folder as `anodiff bench` leaves it, made up: 4 methods, 3 sets, 3 seeds, one cell failed, one refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import yaml

from anodiff.metrics.bootstrap import image_intervals

SETS = {"bottle": 40, "kolektor": 60, "magnetic_tile": 80}
METHODS = {
    "features": (2.2, "feature", 1.0),
    "pixels": (1.2, "pixel DDPM", 5.0),
    "patchcore": (2.0, "none", 0.0),
    "thumbnails": (0.7, "none", 0.0),
}
"""Skill, family, evaluations a picture."""
SEEDS = (0, 1, 2)
FAILED = ("kolektor", "patchcore", 1)
REFUSED = ("bottle", "pixels", 2)
STEPS = (1, 5, 20)


def make_bench(folder: Path) -> Path:
    """Write bench.yaml, audit.json and the cells."""
    cells = folder / "cells"
    named = {
        "name": "made-up",
        "seeds": list(SEEDS),
        "sets": {name: {} for name in SETS},
        "methods": {m: {} for m in METHODS},
    }
    cells.mkdir(parents=True)
    (folder / "bench.yaml").write_text(yaml.safe_dump(named, sort_keys=False))
    (folder / "audit.json").write_text(json.dumps({name: audited(name) for name in SETS}))
    for name, n in SETS.items():
        rng = np.random.default_rng(n)
        labels = (np.arange(n) >= n // 3).astype(int)
        hard = rng.normal(size=n)  # what every method finds hard in a picture
        for method, (skill, family, evaluations) in METHODS.items():
            for seed in SEEDS:
                place = cells / name / method / f"seed{seed}"
                place.mkdir(parents=True)
                command = f"anodiff bench DATA {method} {seed} -o OUT"
                about = {"family": family, "command": command, "commit": "e503bd0", "device": "cpu",
                         "threads": 2, "torch": "2.13.0", "seed": seed, "date": "2025-01-02"}  # fmt: skip
                head = {"set": name, "method": method, "seed": seed, "about": about}
                if (name, method, seed) in (FAILED, REFUSED):
                    status = "failed" if (name, method, seed) == FAILED else "refused"
                    error = "The fit asked for 9 GB and was killed; lower most_train." if status == "failed" else (
                        "The codec does not paint: nothing to restore <here> | there.")  # fmt: skip
                    head |= {"status": status, "error": error}
                    (place / "cell.json").write_text(json.dumps(head))
                    continue
                scores = hard + 0.5 * rng.normal(size=n) + skill * labels
                head |= {"status": "done", "error": None} | results(scores, labels, method, evaluations, rng)
                (place / "cell.json").write_text(json.dumps(head))
                predict(place / "predictions.csv", scores, labels)
    return folder


def audited(name: str) -> dict:
    leaks = name == "magnetic_tile"
    return {
        "exact": 0, "near": 12 * leaks, "leaking_pairs": 17 * leaks, "train": 100, "test": SETS[name],
        "groups": 31, "largest_group": 6, "test_share_leaking": 0.2125 * leaks,
        "note": "The same tile stands on both sides of the split." if leaks else "No picture is on both sides.",
    }  # fmt: skip


def results(scores: np.ndarray, labels: np.ndarray, method: str, evaluations: float, rng) -> dict:
    found = {key: vars(entry) for key, entry in image_intervals(scores, labels, draws=100, seed=0).items()}
    near = float(found["image_auroc"]["value"])
    for key, less in (("pixel_auroc", 0.01), ("aupro_30", 0.08)):
        value = near - less - 0.01 * rng.random()
        found[key] = {"value": value, "low": value - 0.02, "high": min(1.0, value + 0.02), "n": len(labels)}
    slow = {"features": 28, "pixels": 240, "patchcore": 60, "thumbnails": 3}[method] * (
        1 + 0.2 * rng.random()
    )
    made: dict = {
        "metrics": found,
        "cost": {
            "fit_seconds": 10 * slow, "ms_p50": slow, "ms_p95": 1.4 * slow, "ms_p99": 1.9 * slow,
            "pictures_per_second": 1500 / slow, "evaluations_per_image": evaluations,
            "gflops_per_image": None if method == "patchcore" else 0.3 * slow, "fit_peak_mb": 900 + slow,
            "score_peak_mb": 700.0, "model_mb": 17.25,
        },
    }  # fmt: skip
    if method == "pixels":
        made["generation"] = {"extractor": "lite0", "samples": 64, "real": 80, "singular": True,
                              "FD[lite0]": 30 + rng.random(), "KID[lite0]": 0.011 + 0.001 * rng.random(),
                              "KID sd[lite0]": 0.002, "precision[lite0]": 0.71 + 0.02 * rng.random(),
                              "recall[lite0]": 0.43, "nearest[lite0]": 0.92}  # fmt: skip
        made["curve"] = [
            {"evaluations": step, "ms_p50": 48.0 * step, "image_auroc": near - 0.06 + 0.02 * place}
            for place, step in enumerate(STEPS)
        ]
    return made


def predict(path: Path, scores: np.ndarray, labels: np.ndarray) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "defect", "score"])
        for place, (score, label) in enumerate(zip(scores, labels, strict=True)):
            writer.writerow([f"test/{place:03}.png", label, "scratch" if label else "", float(score)])
