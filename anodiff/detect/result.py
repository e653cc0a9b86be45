"""What one picture was found to be."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import cv2
import numpy as np
import tifffile

from anodiff.detect.heatmap import array_to_size
from anodiff.detect.placement import Placement
from anodiff.detect.predictor import Scored
from anodiff.detect.regions import Region, regions
from anodiff.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Result:
    """Score, decision, map and regions of one picture; what costs time is made when it is first asked for.

    A picture that could not be scored has `error` set, a score of NaN and no decision (None): neither good
    nor bad. Results compare equal when all they hold is equal. They have no truth value, since `if result:`
    would say nothing about the part; ask `result.is_anomalous`.
    """

    score: float  # raw, higher = more anomalous
    p_value: float  # share of normals at least as anomalous, conformal
    threshold: float  # a score above it is anomalous
    mask_threshold: float = math.nan  # a pixel of the heat map above it is anomalous
    maxima: np.ndarray | None = None  # [n] of held-out good pictures' maps, ascending; shared by results
    shape: tuple[int, int] | None = None  # height and width of the input
    heat: np.ndarray | None = None  # [h, w] float32 at the scorer's resolution
    painted: np.ndarray | None = None  # [h, w, C] float32 in [0, 1] at the working size
    image: np.ndarray | None = None  # the input, [H, W] or [H, W, 3] uint8 RGB, where it was kept
    placement: Placement | None = None  # where the part was moved to; None: the whole picture was seen
    smallest: int = 1  # regions of fewer pixels are left out
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    model_id: str = ""
    error: str | None = None
    path: str | None = None
    category: str | None = None  # the label it was judged by, where the model has labels

    @classmethod
    def failed(
        cls, error: str, *, path: str | None = None, threshold: float = math.nan, model_id: str = ""
    ) -> Result:
        """The result of a picture that could not be scored, with the sentence that says why."""
        return cls(math.nan, math.nan, threshold, error=error, path=path, model_id=model_id)

    @property
    def is_anomalous(self) -> bool | None:
        """Whether the score lies above the threshold; None for a picture that could not be scored."""
        return None if self.error is not None else bool(self.score > self.threshold)

    @cached_property
    def heatmap(self) -> np.ndarray:
        """The map [H, W] float32 at the input's size, higher = more anomalous."""
        return self.heat_at(self._mapped()[1])

    def heat_at(self, shape: tuple[int, int]) -> np.ndarray:
        """The map of the whole input drawn at `shape` (height, width), float32, such as the size of a mask."""
        heat, size = self._mapped()
        if self.placement is None:
            return array_to_size(heat, shape)
        return self.placement.heat(heat, size, shape)

    @cached_property
    def mask(self) -> np.ndarray:
        """Where the map lies above `mask_threshold` [H, W] bool at the input's size."""
        if self._calm:
            return np.zeros(self._mapped()[1], dtype=bool)
        return self.heatmap > np.float32(self.mask_threshold)

    @cached_property
    def regions(self) -> tuple[Region, ...]:
        """The connected places of the mask at the input's size, highest peak first; none without a map.

        A good picture shows any region with `p_value <= a` with probability a at most (`regions.family_p_value`).
        """
        if self.heat is None or self._calm:
            return ()
        return regions(self.heatmap, self.mask_threshold, smallest=self.smallest, maxima=self.maxima)

    @cached_property
    def restored(self) -> np.ndarray | None:
        """What the model would have painted at the input's size, uint8 [H, W] or RGB; None without paint."""
        if self.painted is None or self.shape is None:
            return None
        height, width = self.shape
        painted = (self.painted * 255).round().astype(np.uint8)
        if self.placement is not None:
            return self.placement.painted(painted, self.shape, self.image)
        return cv2.resize(
            painted, (width, height), interpolation=cv2.INTER_LINEAR
        )  # drops a single channel's axis

    def overlay(self, image: np.ndarray | None = None) -> np.ndarray:
        """The picture [H, W, 3] uint8 RGB with the map laid over it and the regions outlined.

        The colours run from 0 to twice `mask_threshold`, the same for every picture of a model, so that two
        overlays compare. `image` ([H, W] or [H, W, 3] uint8 RGB) is needed where the result did not keep its
        own.
        """
        picture = self.image if image is None else image
        if picture is None:
            raise ConfigError(
                "This result did not keep its picture: call overlay(image) with the picture itself."
            )
        if picture.dtype != np.uint8 or picture.shape[:2] != self._mapped()[1]:
            raise ConfigError(
                f"Expected a uint8 picture of {self.shape} pixels, got {picture.dtype} of {picture.shape}."
            )
        base = np.repeat(picture[..., None], 3, axis=2) if picture.ndim == 2 else picture
        heat = np.clip(self.heatmap / (2 * max(abs(self.mask_threshold), 1e-12)), 0, 1)[
            ..., None
        ]  # .5 = threshold
        colour = cv2.applyColorMap((heat * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[
            ..., ::-1
        ]  # BGR -> RGB
        drawn = np.ascontiguousarray(
            (base * (1 - 0.7 * heat) + colour * (0.7 * heat)).round().astype(np.uint8)
        )
        outlines = [np.array(region.polygon, dtype=np.int32) for region in self.regions]
        thickness = max(1, round(max(drawn.shape[:2]) / 400))
        return cv2.polylines(drawn, outlines, True, (0, 255, 255), thickness)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, words and lists: everything but the pictures. NaN becomes None."""
        height, width = self.shape or (None, None)
        return {
            "path": self.path,
            "score": number(self.score),
            "p_value": number(self.p_value),
            "threshold": number(self.threshold),
            "is_anomalous": self.is_anomalous,
            "mask_threshold": number(self.mask_threshold),
            "n_regions": len(self.regions),
            "max_region_area": max((region.area for region in self.regions), default=0),
            "regions": [region.to_dict() for region in self.regions],
            "width": width,
            "height": height,
            "timings_ms": dict(self.timings_ms),
            "category": self.category,
            "model_id": self.model_id,
            "error": self.error,
        }

    def to_json(self) -> str:
        """One line of JSON with `to_dict`'s content."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)

    def save(self, folder: str | Path, *, name: str | None = None) -> list[Path]:
        """The files written under `folder`: `name.json` and, where there is a map, `_heatmap.tiff` (float32),
        `_mask.png`, `_overlay.png` (where the picture was kept) and `_restored.png`.

        `name` defaults to the stem of the input's path; give one where two inputs share a stem.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        name = name or (Path(self.path).stem if self.path else "result")
        written = [folder / f"{name}.json"]
        written[0].write_text(self.to_json() + "\n", encoding="utf-8")
        if self.error is not None:
            return written
        written.append(folder / f"{name}_heatmap.tiff")
        tifffile.imwrite(written[1], self.heatmap)
        pictures = {"mask": self.mask.astype(np.uint8) * 255, "restored": self.restored}
        pictures["overlay"] = self.overlay() if self.image is not None else None
        for kind, picture in pictures.items():
            if picture is not None:
                written.append(folder / f"{name}_{kind}.png")
                coded = cv2.imencode(".png", picture[..., ::-1] if picture.ndim == 3 else picture)[
                    1
                ]  # RGB -> BGR
                written[-1].write_bytes(coded.tobytes())
        return written

    def __bool__(self) -> NoReturn:
        raise TypeError(
            "A result has no truth value: it would not say whether the part is good. Ask "
            "result.is_anomalous, and result.error for a picture that could not be scored."
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Result):
            return NotImplemented
        return all(same(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))

    def __hash__(self) -> int:
        return hash(
            (self.path, self.model_id, self.error)
        )  # equal results agree on these; arrays cannot be hashed

    @property
    def _calm(self) -> bool:
        # A map brought to another size never exceeds its maximum, so a calm picture needs no resize.
        return not float(self._mapped()[0].max()) > self.mask_threshold

    def _mapped(self) -> tuple[np.ndarray, tuple[int, int]]:
        if self.heat is None or self.shape is None:
            raise ConfigError(f"This picture has no map: {self.error or 'the result was made without one'}.")
        return self.heat, self.shape


def unbatch(
    scored: Scored,
    row: int,
    *,
    shape: tuple[int, int],
    image: np.ndarray | None = None,
    placement: Placement | None = None,
    path: str | None = None,
    names: Sequence[str] = (),
    model_id: str = "",
    timings_ms: Mapping[str, float] | None = None,
    smallest: int = 1,
) -> Result:
    """The result of one row of a scored batch; `shape` is the input's own (height, width), `names` the labels', and
    `placement` says where the part was moved to.

    A score that is not finite becomes an error, so that no picture passes as good for want of a number.
    """
    painted = None
    if scored.restored is not None:
        painted = scored.restored[row].movedim(0, -1).cpu().numpy()  # [h, w, C]
    score = float(scored.score[row])
    sound = math.isfinite(score)
    return Result(
        score=score if sound else math.nan,
        p_value=float(scored.p_value[row]),
        threshold=float(scored.threshold[row]),
        mask_threshold=float(scored.mask_threshold[row]),
        maxima=scored.maxima[row].numpy() if scored.maxima else None,
        category=None if scored.label is None else names[int(scored.label[row])],
        shape=shape,
        heat=scored.heat[row, 0].float().cpu().numpy(),
        painted=painted,
        image=image,
        placement=placement,
        smallest=smallest,
        timings_ms=timings_ms or {},
        model_id=model_id,
        error=None
        if sound
        else "The model gave a score that is not a finite number; the picture was not judged.",
        path=path,
    )


def number(value: float) -> float | None:
    """The value, or None where it is not finite: JSON knows no NaN."""
    return value if math.isfinite(value) else None


def same(a: Any, b: Any) -> bool:
    """Equality of fields, of arrays too; NaN equals NaN."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return (
            isinstance(a, np.ndarray)
            and isinstance(b, np.ndarray)
            and a.dtype == b.dtype
            and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
        )
    both_nan = isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b)
    return both_nan or a == b
