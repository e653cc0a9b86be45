"""Pictures for people: heatmaps laid over the part, outlines of masks, contact sheets, inlined images."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from matplotlib import colormaps
from PIL import Image

from anodiff.errors import DataError
from anodiff.report.case import Case

COLOURS = "inferno"  # perceptually even and told apart by colour-blind eyes
DARKEST = 0.15  # the map's black start is cut off: it could not be told from a dark part
STRONGEST = 0.75  # opacity at the top, so that the part stays visible below


@dataclass(frozen=True)
class Scale:
    """The two map values between which colours run; one for all pictures of a report, never per picture.

    Attributes:
        low: Typical of normal pixels; drawn as fully transparent.
        high: Clearly anomalous; everything above looks the same.
        threshold: The value of a score's threshold when maps have the unit of scores, else None.
    """

    low: float
    high: float
    threshold: float | None = None


def scale_of(cases: Sequence[Case], threshold: float | None) -> Scale:
    """Return one colour scale for all cases.

    `low` is the median pixel of the good cases (of all when none is good). Where scores are in the unit of
    the maps (each lies within its own map's range, or a quarter of it above), `high` is half as far above the
    threshold as the threshold is above `low`; else it is the 99.5 % quantile of all pixels.
    """
    maps = [_thinned(case.heatmap) for case in cases]
    if not any(pixels.size for pixels in maps):
        return Scale(0.0, 1.0)
    good = [
        pixels for case, pixels in zip(cases, maps, strict=True) if case.label == 0 and pixels.size
    ] or maps
    low = float(np.median(np.concatenate(good)))
    same_unit = all(_holds(case) for case in cases)
    if same_unit and threshold is not None and threshold > low:
        return Scale(low, threshold + 0.5 * (threshold - low), threshold)
    high = float(np.quantile(np.concatenate(maps), 0.995))
    return Scale(low, high if high > low else low + 1.0)


def overlay(image: np.ndarray, heatmap: np.ndarray, *, low: float, high: float) -> np.ndarray:
    """Return the picture under its heatmap, [H, W, 3] uint8 RGB.

    Colour and opacity grow together from `low` (the bare picture) to `high`. The range is an argument:
    stretched to each map's own range, a perfect part would glow like a broken one.

    Args:
        image: [H, W, 3] or [H, W] uint8, or float in [0, 1].
        heatmap: [H, W]; NaN counts as `low`.
        low: Map value drawn transparent.
        high: Map value drawn at full strength, above `low`.
    """
    image = rgb(image)
    if heatmap.shape != image.shape[:2]:
        raise DataError(
            f"overlay: expected a map of the picture's shape {image.shape[:2]}, found {heatmap.shape}"
        )
    if not high > low:
        raise DataError(f"overlay: expected low < high, found low={low} and high={high}")
    level = np.nan_to_num((heatmap.astype(np.float64) - low) / (high - low), nan=0.0, posinf=1.0, neginf=0.0)
    level = level.clip(0, 1)
    colour = colormaps[COLOURS](DARKEST + (1 - DARKEST) * level)[..., :3] * 255  # [H, W, 3]
    alpha = (STRONGEST * level)[..., None]
    return np.rint((1 - alpha) * image + alpha * colour).astype(np.uint8)


def outline(
    image: np.ndarray, mask: np.ndarray, *, colour: tuple[int, int, int] = (0, 229, 255)
) -> np.ndarray:
    """Return a copy of the picture with a thin line on a dark halo around the mask, 4 px outside of it.

    Args:
        image: [h, w, 3] uint8 RGB.
        mask: [H, W]; of the same shape or larger, its contours are scaled, never its pixels.
        colour: RGB of the line.
    """
    drawn = np.ascontiguousarray(rgb(image)).copy()
    factor = np.array([drawn.shape[1] / mask.shape[1], drawn.shape[0] / mask.shape[0]])
    reach = math.ceil(4 / factor.min())  # a line on a thin scratch would hide it
    wider = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    padded = cv2.dilate((mask > 0).astype(np.uint8), wider)
    found, _ = cv2.findContours(padded, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    smooth = [cv2.approxPolyDP(line, 0.8 / factor.min(), True) for line in found]
    lines = [np.rint(16 * ((line + 0.5) * factor - 0.5)).astype(np.int32) for line in smooth]  # 1/16 px
    for shade, thickness in (((0, 0, 0), 3), (colour, 1)):
        cv2.polylines(drawn, lines, True, shade, thickness=thickness, lineType=cv2.LINE_AA, shift=4)
    return drawn


def rgb(image: np.ndarray) -> np.ndarray:
    """Return [H, W, 3] uint8 from grey or RGB; floats are in [0, 1] by their type, whatever their maximum."""
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[..., 0]
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise DataError(f"picture: expected [H, W], [H, W, 1] or [H, W, 3], found {image.shape}")
    if np.issubdtype(image.dtype, np.floating):
        image = np.rint(np.nan_to_num(image).clip(0, 1) * 255).astype(np.uint8)
    elif image.dtype != np.uint8:
        raise DataError(f"picture: expected uint8 or float in [0, 1], found {image.dtype}; convert it first")
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)


def shrunk(image: np.ndarray, *, side: int) -> np.ndarray:
    """Return the picture with its longer side at most `side` px, averaged; smaller ones as they are."""
    height, width = _fitted(image.shape[:2], side)
    if (height, width) == image.shape[:2]:
        return image
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def shrunk_map(heatmap: np.ndarray, *, side: int) -> np.ndarray:
    """Return the map with its longer side at most `side` px, by the local maximum.

    An average would dilute a scratch of two pixels until it is no longer seen.
    """
    height, width = _fitted(heatmap.shape, side)
    if (height, width) == heatmap.shape:
        return heatmap
    filled = np.nan_to_num(heatmap, nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    rows = np.arange(height) * heatmap.shape[0] // height
    columns = np.arange(width) * heatmap.shape[1] // width
    return np.maximum.reduceat(np.maximum.reduceat(filled, rows, axis=0), columns, axis=1)  # [h, w]


def grid(images: Sequence[np.ndarray], *, columns: int, gap: int = 4) -> np.ndarray:
    """Return a contact sheet [H, W, 3] uint8: row by row, each picture centred in a cell of the largest size.

    Args:
        images: Grey or RGB, uint8 or float in [0, 1]; sizes may differ.
        columns: Pictures in a row; fewer when there are fewer.
        gap: White pixels between and around the cells.
    """
    if not images or columns < 1:
        raise DataError(f"grid: expected pictures and columns >= 1, found {len(images)} and {columns}")
    tiles = [rgb(image) for image in images]
    height, width = (max(tile.shape[axis] for tile in tiles) for axis in (0, 1))
    columns = min(columns, len(tiles))
    rows = math.ceil(len(tiles) / columns)
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, np.uint8)
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        top = gap + row * (height + gap) + (height - tile.shape[0]) // 2
        left = gap + column * (width + gap) + (width - tile.shape[1]) // 2
        sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return sheet


def data_uri(image: np.ndarray, *, quality: int = 85) -> str:
    """Return the picture as a `data:image/jpeg;base64,...` address."""
    buffer = io.BytesIO()
    # full chroma: the thin coloured outline would smear at half of it
    Image.fromarray(rgb(image)).save(buffer, "JPEG", quality=quality, subsampling=0, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def gradient() -> str:
    """Return the overlay's colours as a CSS gradient from `low` to `high`."""
    stops = colormaps[COLOURS](DARKEST + (1 - DARKEST) * np.linspace(0, 1, 9))
    parts = []
    for place, (red, green, blue, _) in zip(np.linspace(0, 1, 9), stops, strict=True):
        mixed = ", ".join(str(round(255 * part)) for part in (red, green, blue))
        parts.append(f"rgba({mixed}, {STRONGEST * place:.2f}) {100 * place:.0f}%")
    return f"linear-gradient(to right, {', '.join(parts)})"


def _fitted(shape: tuple[int, ...], side: int) -> tuple[int, int]:
    factor = min(1.0, side / max(shape[:2]))
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def _holds(case: Case) -> bool:
    pixels = case.heatmap[np.isfinite(case.heatmap)]
    if not pixels.size:
        return False
    low, high = float(pixels.min()), float(pixels.max())
    # a map brought to the picture's size by interpolation loses some of the peak that gave the score
    return low <= case.score <= high + 0.25 * (high - low) + 1e-6 * abs(high)


def _thinned(heatmap: np.ndarray) -> np.ndarray:
    pixels = heatmap[np.isfinite(heatmap)]
    return pixels[:: max(1, pixels.size // 20000)]  # enough for a quantile, whatever the size
