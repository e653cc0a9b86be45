"""Methods that learn nothing: what a diffusion model has to beat before it is worth its time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import cv2
import numpy as np
import pandas as pd

from anodiff.bench.subject import Fitted, result
from anodiff.data.image import prepare, read
from anodiff.detect.result import Result
from anodiff.errors import AnodiffError, DataError

SIZES = {"nearest_thumbnail": 48, "pixel_gaussian": 128}
"""Side of the pictures each looks at, px."""

FLOOR = 0.02  # deviation below which a pixel is not called steady: the noise of an 8-bit camera is about 1/255 to 5/255
SHARE = 0.01  # of the map's highest pixels, whose mean is the score, as in the presets
SMOOTH = 2.0  # deviation of the Gaussian over the map, px

Judge = Callable[[np.ndarray], tuple[float, np.ndarray]]
"""A picture [s, s, 3] in [0, 1] -> its score, and its map [s, s]."""


class Plain:
    """A baseline on small pictures, sides as they come: `nearest_thumbnail` or `pixel_gaussian`."""

    evaluations = 0

    def __init__(self, baseline: str, *, size: int | None = None) -> None:
        self.baseline = baseline
        self.size = SIZES[baseline] if size is None else size
        self._judge: Judge | None = None
        self._kept = 0

    def fit(self, train: pd.DataFrame) -> Fitted:
        """Keep the pictures, or their mean and deviation."""
        rows = []
        for path in train["image"]:
            try:
                rows.append(self._small(path)[0])
            except DataError:
                continue  # as every method does: a picture that cannot be read is not trained on
        if not rows:
            raise DataError(f"None of the {len(train)} training pictures can be read.")
        stack = np.stack(rows)  # [n, s, s, 3]
        self._judge = (
            nearest_thumbnail(stack) if self.baseline == "nearest_thumbnail" else pixel_gaussian(stack)
        )
        self._kept = stack.nbytes if self.baseline == "nearest_thumbnail" else 2 * stack[0].nbytes
        return Fitted(len(rows), 0)

    def one(self, path: str) -> Result:
        """The result of one picture."""
        if self._judge is None:
            raise DataError("This baseline has seen nothing yet: call fit first.")
        small, shape = self._small(path)
        score, heat = self._judge(small)
        return result(path, score, heat.astype(np.float32), shape)

    def stream(self, paths: Iterable[str]) -> Iterator[Result]:
        """One result a picture."""
        for path in paths:
            try:
                yield self.one(path)
            except AnodiffError as error:
                yield Result.failed(str(error), path=path)

    def size_mb(self) -> float:
        """The numbers that are kept."""
        return self._kept / 1e6

    def _small(self, path: str) -> tuple[np.ndarray, tuple[int, int]]:
        array = read(path)
        small = prepare(array, shape=(self.size, self.size)).numpy().transpose(1, 2, 0)  # [s, s, 3]
        return small, (array.shape[0], array.shape[1])


def nearest_thumbnail(train: np.ndarray) -> Judge:
    """Judges by the nearest training picture: its distance, and where the two differ.

    Thumbnails lose their mean and are scaled to length 1, `u = (x - m) / |x - m|`, so that exposure drops out. The
    score is `min_i |u - u_i|`, in [0, 2]; the map the mean over channels of `|u - u_i|`.

    Args:
        train: [n, s, s, 3] in [0, 1].
    """
    seen = np.stack([_unit(picture) for picture in train])

    def judge(picture: np.ndarray) -> tuple[float, np.ndarray]:
        unit = _unit(picture)
        apart = np.sqrt(((seen - unit) ** 2).sum(axis=(1, 2, 3)))  # [n]
        nearest = int(apart.argmin())
        return float(apart[nearest]), np.abs(unit - seen[nearest]).mean(axis=2)

    return judge


def pixel_gaussian(train: np.ndarray) -> Judge:
    """Judges every pixel by its own mean and deviation over the training pictures.

    The map is the mean over channels of `((x - m) / s)^2`, smoothed; the score the mean of its highest hundredth. It
    sees what is out of place in a part that always lies the same way, and nothing else.

    Args:
        train: [n, s, s, 3] in [0, 1].
    """
    mean, deviation = train.mean(axis=0), np.maximum(train.std(axis=0), FLOOR)

    def judge(picture: np.ndarray) -> tuple[float, np.ndarray]:
        heat = (((picture - mean) / deviation) ** 2).mean(axis=2)
        heat = cv2.GaussianBlur(heat, (0, 0), SMOOTH, borderType=cv2.BORDER_REPLICATE)
        top = max(1, round(SHARE * heat.size))
        return float(np.sort(heat, axis=None)[-top:].mean()), heat

    return judge


def _unit(picture: np.ndarray) -> np.ndarray:
    """The picture less its mean, of length 1; an even picture is 0."""
    centred = picture - picture.mean()
    return centred / max(float(np.linalg.norm(centred)), 1e-6)
