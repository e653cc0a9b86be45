"""What is seen in pictures of drawn parts: parts by their brightness, finishes by their colour, classes by features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import cv2
import numpy as np
import pandas as pd
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from anodiff.codec.backbone import backbone
from anodiff.codec.fuse import fused
from anodiff.codec.pooled import Pooled
from anodiff.data.boxes import boxes
from anodiff.data.hardware import CLASSES, FINISHES
from anodiff.data.image import read
from anodiff.data.parts import BRIGHT

LEAST = 24  # pixels of what counts as a part; the smallest drawn ones have twice as many
MARGIN = 3  # pixels around a box that a part is named by
Sides = tuple[float, float, float, float]

_SHADES = {name: np.array(colour) / sum(colour) for name, colour in FINISHES.items()}


@dataclass(frozen=True, eq=False)
class Seen:
    """A part that was found: left, top, right and bottom in shares of the side, and its pixels."""

    sides: Sides
    inside: np.ndarray  # bool [h, w]
    colour: np.ndarray  # mean RGB, divided by its sum

    @property
    def finish(self) -> str:
        """The finish whose colour is nearest, both without their brightness."""
        return min(_SHADES, key=lambda name: float(np.abs(_SHADES[name] - self.colour).sum()))

    def towards(self, finish: str, *, plain: str = "steel") -> float:
        """How far the colour lies from that of plain steel (0) to that of `finish` (1), on the line between them."""
        line = _SHADES[finish] - _SHADES[plain]
        return float((self.colour - _SHADES[plain]) @ line / (line @ line))


def seen(picture: np.ndarray) -> list[Seen]:
    """The parts of a picture uint8 [h, w, 3], the largest first: what is bright and hangs together."""
    bright = (picture.max(axis=2) > BRIGHT * 255).astype(np.uint8)
    _, numbers, stats, _ = cv2.connectedComponentsWithStats(bright, connectivity=8)
    high, wide = bright.shape
    found = []
    for number in sorted(range(1, len(stats)), key=lambda k: -stats[k, cv2.CC_STAT_AREA]):
        x, y, w, h, area = stats[number]
        if area >= LEAST:
            inside = numbers == number
            colour = picture[inside].mean(axis=0)
            sides = (x / wide, y / high, (x + w) / wide, (y + h) / high)
            found.append(Seen(sides, inside, colour / max(colour.sum(), 1e-9)))
    return found


def overlap(one: Sides, other: Sides) -> float:
    """Intersection over union of two boxes."""
    wide = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    high = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    both = wide * high
    return both / (sum((b[2] - b[0]) * (b[3] - b[1]) for b in (one, other)) - both)


def matched(told: Sequence[Sides], found: Sequence[Seen]) -> list[tuple[float, Seen | None]]:
    """For each told box its overlap with the part assigned to it (0 and None without), the sum being the largest."""
    result: list[tuple[float, Seen | None]] = [(0.0, None)] * len(told)
    if told and found:
        table = np.array([[overlap(box, part.sides) for part in found] for box in told])
        for row, column in zip(*linear_sum_assignment(-table), strict=True):
            result[row] = float(table[row, column]), found[column]
    return result


def covered(picture: np.ndarray) -> np.ndarray:
    """The pixels of all parts, bool [h, w]."""
    return np.logical_or.reduce([np.zeros(picture.shape[:2], bool), *(part.inside for part in seen(picture))])


def common(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two sets of pixels; 1 where both are empty."""
    either = int((one | other).sum())
    return int((one & other).sum()) / either if either else 1.0


class Judge:
    """Features of a network that no model used, and the names of parts by them."""

    def __init__(self) -> None:
        self.pooled = Pooled(fused(backbone("tf_efficientnet_lite0", (2, 3))))

    def features(self, pictures: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """Features [n, d] float64 of pictures uint8 [h, w, 3]."""
        image = torch.from_numpy(np.stack(list(pictures))).movedim(-1, 1).float() / 255
        return torch.cat([self.pooled(part) for part in image.split(32)]).double().numpy()

    def learn(self, table: pd.DataFrame, *, apart: int = 4) -> float:
        """The share of parts named right of every `apart`-th picture, once the others' taught the names."""
        crops, labels, held = [], [], []
        for number, (path, row) in enumerate(zip(table["image"], boxes(table), strict=True)):
            picture = read(path)
            for box in row:
                crops.append(cut(picture, box[1:]))
                labels.append(CLASSES.index(box[0]))
                held.append(number % apart == 0)
        rows, names, away = self.features(crops), np.array(labels), np.array(held)
        self.namer = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, C=0.1))
        self.namer.fit(rows[~away], names[~away])
        return float((self.namer.predict(rows[away]) == names[away]).mean())

    def names(self, pictures: Sequence[np.ndarray], parts: Sequence[Seen | None]) -> list[str | None]:
        """The class of a part of each picture; None where there is none."""
        there = [k for k, part in enumerate(parts) if part is not None]
        found: list[str | None] = [None] * len(parts)
        if there:
            crops = [cut(pictures[k], parts[k].sides) for k in there]  # type: ignore[union-attr]
            for k, number in zip(there, self.namer.predict(self.features(crops)), strict=True):
                found[k] = CLASSES[int(number)]
        return found


def mean_distance(rows: np.ndarray) -> float:
    """The mean distance between features [n, d] of different pictures."""
    return float(np.mean([np.linalg.norm(a - b) for a, b in combinations(rows, 2)]))


def cut(picture: np.ndarray, sides: Sides) -> np.ndarray:
    """A square around a box, 48 x 48 pixels; beyond the border the picture is mirrored."""
    high, wide = picture.shape[:2]
    left, top, right, bottom = sides[0] * wide, sides[1] * high, sides[2] * wide, sides[3] * high
    side = round(max(right - left, bottom - top)) + 2 * MARGIN
    around = np.pad(picture, ((side, side), (side, side), (0, 0)), mode="symmetric")
    x, y = round((left + right - side) / 2) + side, round((top + bottom - side) / 2) + side
    return cv2.resize(around[y : y + side, x : x + side], (48, 48), interpolation=cv2.INTER_LINEAR)
