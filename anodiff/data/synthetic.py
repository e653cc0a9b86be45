"""Painted defects on pictures of good parts, with exact masks."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch
from torch import Tensor

from anodiff.data.field import centre, fbm, line, polygon, region
from anodiff.errors import ConfigError

VISIBLE = 4 / 255
"""A pixel counts as changed where some channel moved by more than this; smaller changes are taken back."""

_SMALLEST, _LARGEST = 12, 0.35  # pixels; share of the picture
_ATTEMPTS = 12

Layer = tuple[np.ndarray, np.ndarray]
"""(how much of the paint [h, w] in [0, 1], the paint [C, h, w])"""


def paint(
    image: Tensor, kind: str, *, seed: int, strength: float = 1.0, foreign: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The picture with one painted defect and its exact mask: (image [C, H, W], mask [1, H, W] bool).

    `out = image + cover * (paint - image)`; the mask is True exactly where `out` differs visibly (`VISIBLE`)
    from `image`, and everywhere else `out` equals `image` to the bit. The result depends on the arguments
    alone.

    Args:
        image: [C, H, W] in [0, 1], C of 1 or 3, at least 16 pixels a side; not modified.
        kind: one of `KINDS`.
        seed: the same seed paints the same defect.
        strength: contrast of the defect in (0, 1]: 1 is easy to see, 0.3 is subtle.
        foreign: another picture [C, H, W] for the kinds "texture" and "perlin"; without it a texture is made up.

    Raises:
        ConfigError: an unknown kind, a wrong shape or strength.
    """
    if kind not in KINDS:
        raise ConfigError(f"Expected a kind of defect among {', '.join(KINDS)}, got {kind!r}.")
    if image.ndim != 3 or image.shape[0] not in (1, 3) or min(image.shape[1:]) < 16:
        raise ConfigError(
            f"Expected an image [C, H, W] with 1 or 3 channels of 16 px or more, got {tuple(image.shape)}."
        )
    if not 0.0 < strength <= 1.0:
        raise ConfigError(f"Expected a strength in (0, 1], got {strength}.")
    if foreign is not None and foreign.shape != image.shape:
        raise ConfigError(f"Expected foreign of shape {tuple(image.shape)}, got {tuple(foreign.shape)}.")
    good = image.detach().cpu().numpy().astype(np.float32)
    other = None if foreign is None else foreign.detach().cpu().numpy().astype(np.float32)
    for attempt in range(_ATTEMPTS):
        rng = np.random.default_rng([seed, KINDS.index(kind), attempt])
        # a defect that does not show (dark paint on a dark place) is tried elsewhere, and a little stronger
        cover, colour = _PAINTERS[kind](good, rng, min(1.0, strength * 1.15**attempt), other)
        out = np.clip(good + cover * (colour - good), 0.0, 1.0).astype(np.float32)
        mask = np.abs(out - good).max(axis=0) > VISIBLE  # [H, W]
        if _SMALLEST <= mask.sum() <= _LARGEST * mask.size:
            break
    else:
        mask = region(rng, mask.shape, area=0.01) > 0.5  # type: ignore[possibly-undefined]
        out = np.where(good > 0.5, good - 0.3, good + 0.3)  # shows on any picture
    out = np.where(mask, out, good).astype(np.float32)
    return torch.from_numpy(out).to(image.device, image.dtype), torch.from_numpy(mask[None]).to(image.device)


def _scratch(good: np.ndarray, rng: np.random.Generator, strength: float, _: np.ndarray | None) -> Layer:
    shape, scale = good.shape[1:], min(good.shape[1:]) / 256
    cover = line(rng, shape, length=rng.uniform(40, 170) * scale, width=rng.uniform(1.0, 3.2) * scale)
    return cover * (0.35 + 0.65 * strength), _tone(good, cover, rng, 0.15 + 0.45 * strength)


def _blob(good: np.ndarray, rng: np.random.Generator, strength: float, _: np.ndarray | None) -> Layer:
    shape = good.shape[1:]
    cover = region(rng, shape, area=_area(rng, 0.001, 0.012), rough=0.25)
    cover = cv2.GaussianBlur(cover, (0, 0), 1.0 + rng.uniform(0, 1.0))
    grain = 0.04 * fbm(rng, shape, coarse=24, octaves=3)
    return cover * (0.5 + 0.5 * strength), _tone(good, cover, rng, 0.12 + 0.4 * strength) + grain


def _stain(good: np.ndarray, rng: np.random.Generator, strength: float, _: np.ndarray | None) -> Layer:
    shape = good.shape[1:]
    body = region(rng, shape, area=_area(rng, 0.015, 0.07), rough=0.3)
    body = cv2.GaussianBlur(body, (0, 0), 0.012 * min(shape))
    cover = body * np.clip(0.75 + 0.3 * fbm(rng, shape, coarse=6), 0.2, 1.0)
    rim = np.clip(4 * body * (1 - body), 0, 1)  # a dried drop is darkest at its edge
    absorbed = (0.18 + 0.45 * strength) * rng.uniform(0.7, 1.1, size=(good.shape[0], 1, 1))
    return np.clip(cover + 0.4 * rim, 0, 1), good * (1 - absorbed)


def _missing(good: np.ndarray, rng: np.random.Generator, strength: float, _: np.ndarray | None) -> Layer:
    height, width = good.shape[1:]
    corners = np.sort(rng.uniform(0, 2 * np.pi, size=int(rng.integers(4, 8))))
    reach = np.sqrt(_area(rng, 0.003, 0.02) * height * width)
    outline = (
        np.stack([np.cos(corners), np.sin(corners)], axis=1)
        * reach
        * rng.uniform(0.6, 1.1, (len(corners), 1))
    )
    cover = polygon(outline + centre(rng, (height, width), reach=reach), (height, width))
    floor = good.min(axis=(1, 2), keepdims=True) * 0.5 + 0.02
    depth = cv2.GaussianBlur(cover, (0, 0), 0.25 * reach + 0.5)  # the hole is darker towards its middle
    rough = 0.02 * fbm(rng, (height, width), coarse=32, octaves=2)
    return cover * (0.45 + 0.55 * strength), floor + 0.15 * (1 - depth) + rough


def _texture(
    good: np.ndarray, rng: np.random.Generator, strength: float, foreign: np.ndarray | None
) -> Layer:
    cover = region(rng, good.shape[1:], area=_area(rng, 0.006, 0.04))
    return cover * (0.3 + 0.7 * strength), _foreign(good, rng) if foreign is None else foreign


def _brightness(good: np.ndarray, rng: np.random.Generator, strength: float, _: np.ndarray | None) -> Layer:
    shape = good.shape[1:]
    cover = region(rng, shape, area=_area(rng, 0.02, 0.08), rough=0.2)
    cover = cv2.GaussianBlur(cover, (0, 0), 0.03 * min(shape))
    gain = 1 + (0.2 + 0.5 * strength) * (1 if _mean_under(good, cover).mean() < 0.5 else -1)
    return cover, good * gain + (0.03 if gain > 1 else 0.0)


def _cutpaste(good: np.ndarray, rng: np.random.Generator, strength: float, _: np.ndarray | None) -> Layer:
    height, width = good.shape[1:]
    high, wide = (max(4, round(rng.uniform(0.06, 0.2) * side)) for side in (height, width))
    top, left, y, x = (int(rng.integers(0, n + 1)) for n in (height - high, width - wide) * 2)
    patch = good[:, top : top + high, left : left + wide].copy()
    patch = patch[:, ::-1, ::-1] if rng.random() < 0.5 else patch[:, :, ::-1]
    jitter = rng.uniform(0.06, 0.16) * strength * rng.choice([-1.0, 1.0])
    paste, cover = good.copy(), np.zeros((height, width), np.float32)
    paste[:, y : y + high, x : x + wide] = patch + jitter
    cover[y : y + high, x : x + wide] = 0.4 + 0.6 * strength
    return cover, paste


def _perlin(good: np.ndarray, rng: np.random.Generator, strength: float, foreign: np.ndarray | None) -> Layer:
    """A foreign texture where fractal noise is high, as DRAEM paints it (Zavrtanik 2021, arXiv:2108.07610, 3.2)."""
    field = fbm(rng, good.shape[1:], coarse=int(rng.choice([3, 4, 6])), octaves=3)
    near = region(rng, good.shape[1:], area=0.12, rough=0.2)
    level = float(np.quantile(field[near > 0.5], rng.uniform(0.6, 0.85))) if (near > 0.5).any() else 1.0
    cover = near * np.clip((field - level) * 6, 0, 1)
    return cover * (0.3 + 0.7 * strength), _foreign(good, rng) if foreign is None else foreign


def _hair(good: np.ndarray, rng: np.random.Generator, strength: float, _: np.ndarray | None) -> Layer:
    """A thin bent line, 0.5 to 2 px wide and 15 to 180 px long, on a picture of 256 px; never below half a pixel."""
    shape, scale = good.shape[1:], min(good.shape[1:]) / 256
    length = max(_SMALLEST + 4.0, _area(rng, 15, 180) * scale)
    cover = line(rng, shape, length=length, width=max(0.5, rng.uniform(0.5, 2.0) * scale), bend=1.2)
    return cover * (0.5 + 0.5 * strength), _tone(good, cover, rng, 0.15 + 0.45 * strength)


def _pit(good: np.ndarray, rng: np.random.Generator, strength: float, _: np.ndarray | None) -> Layer:
    """One to five small spots of one colour."""
    shape = good.shape[1:]
    least = (_SMALLEST + 4) / (shape[0] * shape[1])  # so many pixels, whatever the size of the picture
    count = int(rng.integers(1, 6))
    spots = [region(rng, shape, area=max(least, _area(rng, 1.2e-4, 2.5e-3)), rough=0.2) for _ in range(count)]
    cover = cv2.GaussianBlur(np.max(spots, axis=0), (0, 0), 0.6)
    return cover * (0.5 + 0.5 * strength), _tone(good, cover, rng, 0.15 + 0.45 * strength)


def _foreign(good: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A made-up texture [C, h, w] with the picture's own mean and spread: a weave, stripes or grains."""
    channels, height, width = good.shape
    y, x = np.mgrid[:height, :width].astype(np.float32) * (256 / min(height, width))
    turn, step = rng.uniform(0, np.pi), rng.uniform(4, 11)
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    warp = 1.2 * fbm(rng, (height, width), coarse=6, octaves=2)
    which = int(rng.integers(3))
    if which == 0:
        pattern = np.sin(2 * np.pi * along / step + warp) * np.sin(2 * np.pi * across / step + warp) * 2
    elif which == 1:
        pattern = np.sin(2 * np.pi * along / step + warp) * 1.4
    else:
        pattern = fbm(rng, (height, width), coarse=40, octaves=2)
    pattern = pattern + 0.3 * fbm(rng, (height, width), coarse=48, octaves=2)
    tint = rng.normal(0, 0.06, size=(channels, 1, 1)) * (channels > 1)
    spread = max(float(good.std()), 0.08)
    return (good.mean() + rng.choice([-0.12, 0.12]) + tint + spread * pattern[None]).astype(np.float32)


def _tone(good: np.ndarray, cover: np.ndarray, rng: np.random.Generator, contrast: float) -> np.ndarray:
    """An even colour [C, 1, 1] that differs from what lies under the cover by `contrast`, to the side with room."""
    under = _mean_under(good, cover)
    lighter = rng.random() < np.clip(1.5 - 2 * under.mean(), 0.05, 0.95)  # on a dark part mostly lighter
    tint = rng.normal(0, 0.04, size=under.shape) * (len(under) > 1)
    return np.clip(under + (contrast if lighter else -contrast) + tint, 0.02, 0.98)


def _mean_under(good: np.ndarray, cover: np.ndarray) -> np.ndarray:
    weight = cover / max(float(cover.sum()), 1e-6)
    return (good * weight).sum(axis=(1, 2), keepdims=True)  # [C, 1, 1]


def _area(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


_PAINTERS: dict[str, Callable[[np.ndarray, np.random.Generator, float, np.ndarray | None], Layer]] = {
    "scratch": _scratch,
    "blob": _blob,
    "stain": _stain,
    "missing": _missing,
    "texture": _texture,
    "brightness": _brightness,
    "cutpaste": _cutpaste,
    "perlin": _perlin,
    "hair": _hair,
    "pit": _pit,
}

KINDS = tuple(_PAINTERS)
"""The kinds of defect, in the order their seeds count: new ones at the end."""

COARSE = KINDS[: KINDS.index("hair")]
"""Without the smallest, which a picture of few pixels hardly shows."""
