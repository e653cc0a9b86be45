"""Small parts for the tests of the benchmark, and what a cell is told about them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from anodiff.bench.cell import Spec
from anodiff.bench.sets import Place


def texture(path: Path, seed: int, *, spot: bool = False, shape: tuple[int, int] = (32, 32)) -> Path:
    """A picture of grey grain about one ramp, a bright square in it where `spot`; mask beside it is the caller's."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(60, 160, shape[1])[None].repeat(shape[0], 0)
    array = ramp + rng.normal(0, 6, shape)
    if spot:
        array[8:16, 8:16] += 90
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), array.clip(0, 255).round().astype(np.uint8))
    return path


def part(root: Path, *, train: int = 8, good: int = 4, bad: int = 4) -> Path:
    """A part in MVTec layout whose defects are bright squares, with exact masks."""
    for i in range(train):
        texture(root / "train" / "good" / f"{i}.png", i)
    for i in range(good):
        texture(root / "test" / "good" / f"{i}.png", 100 + i)
    for i in range(bad):
        texture(root / "test" / "spot" / f"{i}.png", 200 + i, spot=True)
        mask = np.zeros((32, 32), np.uint8)
        mask[8:16, 8:16] = 255
        (root / "ground_truth" / "spot").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / "ground_truth" / "spot" / f"{i}_mask.png"), mask)
    return root


def spec(data: Path, folder: Path, how: dict[str, Any], **more: Any) -> Spec:
    """What the parent would tell the process of a cell."""
    place = Place(name=data.name, shown=data.name, source=str(data))
    told = {
        "set": data.name,
        "method": "m",
        "seed": 0,
        "digest": "d",
        "device": "cpu",
        "command": "anodiff bench",
    }
    hidden = {str(data.parent): "DATA", str(folder): "OUT"}
    return Spec(**{**told, "how": how, "place": place, "folder": folder, "hidden": hidden, **more})


def told(spec: Spec, path: Path) -> Path:
    """The spec in a file, as a process reads it."""
    values = {**vars(spec), "place": vars(spec.place), "folder": str(spec.folder)}
    path.write_text(json.dumps(values))
    return path
