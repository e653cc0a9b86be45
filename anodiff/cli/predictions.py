"""Results as rows and pictures on disk, written as they come."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from anodiff.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from anodiff.detect.result import Result

COLUMNS = (
    "path", "score", "p_value", "threshold", "label", "n_regions", "max_region_area", "width", "height", "ms",
    "error", "model_id",
)  # fmt: skip
"""Of predictions.csv. `label` is the model's: 0 good, 1 anomalous, empty where the picture could not be scored."""

JUDGED = ("category",)
"""After those, for a model with labels: the one a picture was judged by."""

KINDS = ("csv", "jsonl", "maps", "masks", "overlays")
ENDINGS = {"maps": ".tiff", "masks": ".png", "overlays": ".png"}


def kinds(text: str) -> tuple[str, ...]:
    """The kinds of output in a list such as `csv,maps`; ConfigError for one that is not known."""
    chosen = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    unknown = [kind for kind in chosen if kind not in KINDS]
    if unknown or not chosen:
        raise ConfigError(f"--save expects some of {', '.join(KINDS)}, got {text!r}.")
    return chosen


def cells(result: Result, name: str) -> dict[str, str]:
    """The row of one result by column; empty where there is nothing to tell."""
    scored = result.error is None
    height, width = result.shape or ("", "")
    return {
        "path": name,
        "score": _number(result.score),
        "p_value": _number(result.p_value),
        "threshold": _number(result.threshold),
        "label": str(int(bool(result.is_anomalous))) if scored else "",
        "n_regions": str(len(result.regions)) if scored else "",
        "max_region_area": str(max((region.area for region in result.regions), default=0)) if scored else "",
        "width": str(width),
        "height": str(height),
        "ms": f"{milliseconds(result):.3f}" if result.timings_ms else "",
        "error": result.error or "",
        "model_id": result.model_id,
        **({"category": result.category} if result.category is not None else {}),
    }


def milliseconds(result: Result) -> float:
    """The time one picture took, in ms: the total where it is told, else the sum of the parts."""
    times = result.timings_ms
    return float(times["total"]) if "total" in times else float(sum(times.values()))


class Table:
    """predictions.csv, a row at a time; what was written so far is on disk after each row.

    Args:
        file: text, opened with newline="".
        extra: columns after `COLUMNS`.
    """

    def __init__(self, file: IO[str], *, extra: Sequence[str] = ()) -> None:
        self.file = file
        self.columns = (*COLUMNS, *extra)
        self.writer = csv.DictWriter(file, self.columns, lineterminator="\n")

    def begin(self) -> None:
        """Write the names of the columns."""
        self.writer.writeheader()

    def add(self, row: Mapping[str, str]) -> None:
        """Write one row."""
        self.writer.writerow(row)
        self.file.flush()


class Folder:
    """OUT/{predictions.csv, predictions.jsonl, maps/, masks/, overlays/}, for as long as the `with` lasts.

    A picture's files carry its name with another ending, in folders of the same names: `a/x.png` gives
    `maps/a/x.tiff`. Where that is taken by another picture (`a/x.jpg`) the whole name is kept: `maps/a/x.jpg.tiff`.
    """

    def __init__(self, path: Path, save: Iterable[str], *, extra: Sequence[str] = ()) -> None:
        self.path = path
        self.save = tuple(save)
        self.extra = tuple(extra)
        self.taken: dict[str, str] = {}
        self.open = ExitStack()

    def __enter__(self) -> Folder:
        self.table = self.lines = None
        if "csv" in self.save:
            self.table = Table(
                self.open.enter_context(opened(self.path / "predictions.csv")), extra=self.extra
            )
            self.table.begin()
        if "jsonl" in self.save:
            self.lines = self.open.enter_context(opened(self.path / "predictions.jsonl"))
        return self

    def __exit__(self, *_: object) -> None:
        self.open.close()

    def add(self, result: Result, *, path: str, name: str) -> None:
        """Write all that was asked for about one picture."""
        if self.table is not None:
            self.table.add(cells(result, name))
        if self.lines is not None:
            self.lines.write(line(result, name))
            self.lines.flush()
        if result.error is not None or not set(self.save) & set(ENDINGS):
            return
        stem = self._stem(name)
        for kind in ENDINGS.keys() & set(self.save):
            target = self.path / kind / f"{stem}{ENDINGS[kind]}"
            target.parent.mkdir(parents=True, exist_ok=True)
            _draw(kind, result, path, target)

    def _stem(self, name: str) -> str:
        """Where the picture's files go, below each kind's folder and never outside of it."""
        parts = [
            {"..": "_up"}.get(part, part)
            for part in PurePosixPath(name.replace(":", "_")).parts
            if part != "/"
        ]
        whole = "/".join(parts)
        short = str(PurePosixPath(whole).with_suffix(""))
        return short if self.taken.setdefault(short, name) == name else whole


def line(result: Result, name: str) -> str:
    """The line of predictions.jsonl about one picture."""
    return json.dumps({**result.to_dict(), "path": name}, ensure_ascii=False, allow_nan=False) + "\n"


def opened(path: Path) -> IO[str]:
    """A text file to write a table to; names that are no UTF-8 are written with escapes."""
    return path.open("w", newline="", encoding="utf-8", errors="backslashreplace")


def shown(path: str) -> np.ndarray:
    """The picture of a file for people: uint8 [H, W, 3] RGB at its own size."""
    import numpy as np

    from anodiff.data.image import read, to_unit

    unit = to_unit(read(path))  # [H, W, C]
    colour = np.repeat(unit, 3, axis=2) if unit.shape[2] == 1 else unit
    return (colour * 255).round().astype(np.uint8)


def png(path: Path, picture: np.ndarray) -> None:
    """Write uint8 [H, W] or [H, W, 3] RGB as PNG; OSError where the disk does not take it."""
    import cv2

    # encoded in memory: OpenCV's own writer tells of a full disk by a False only
    coded = cv2.imencode(".png", picture[..., ::-1] if picture.ndim == 3 else picture)[1]
    path.write_bytes(coded.tobytes())


def _draw(kind: str, result: Result, path: str, target: Path) -> None:
    import numpy as np
    import tifffile

    if kind == "maps":
        tifffile.imwrite(target, result.heatmap.astype(np.float32, copy=False))
    elif kind == "masks":
        png(target, result.mask.astype(np.uint8) * 255)
    else:
        png(target, result.overlay(None if result.image is not None else shown(path)))


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.9g}"  # nine digits give a float32 back exactly
