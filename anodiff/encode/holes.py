"""Random holes in pictures, for a model that learns to fill them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from anodiff.errors import ConfigError

LEAST, MOST = 0.1, 0.6
"""The share of a picture that is hidden, at least and at most."""

_TRIES = 64
_SMALLEST = 8


def random_mask(seed: int, shape: tuple[int, int]) -> Tensor:
    """What is known of a picture, bool [1, H, W]: False in boxes, along thick strokes, or on one side of a line.

    The three are equally likely, and between `LEAST` and `MOST` of the picture is hidden. A pure function of its
    arguments. Source: the recipe of large holes (LaMa, arXiv:2109.07161, section 2.3) that arXiv:2112.10752 takes in
    section 4.5; half planes stand for its holes that reach the border.

    Args:
        seed: 0 or more.
        shape: (H, W), at least 8 pixels a side.

    Raises:
        ConfigError: a negative seed, or a picture that is too small.
    """
    if seed < 0 or min(shape) < _SMALLEST:
        raise ConfigError(
            f"Expected a seed of 0 or more and a picture of at least {_SMALLEST} px a side, got seed {seed} and "
            f"{shape[0]} x {shape[1]}."
        )
    rng = np.random.default_rng(seed)
    kind = int(rng.integers(3))
    hidden = None if kind == 2 else _gathered(rng, shape, (_box, _stroke)[kind])
    hidden = _half(rng, shape) if hidden is None else hidden
    return torch.from_numpy(~hidden)[None]  # [1, H, W]


def _gathered(
    rng: np.random.Generator,
    shape: tuple[int, int],
    draw: Callable[[np.random.Generator, tuple[int, int]], np.ndarray],
) -> np.ndarray | None:
    """Pieces one over the other until enough is hidden; None where that does not come about."""
    hidden = np.zeros(shape, bool)
    wanted = rng.uniform(LEAST, 0.8 * MOST)
    for _ in range(_TRIES):
        more = hidden | draw(rng, shape)
        if more.mean() > MOST:
            continue
        hidden = more
        if hidden.mean() >= wanted:
            return hidden
    return None


def _box(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    height, width = (max(2, round(rng.uniform(0.1, 0.5) * side)) for side in shape)
    top, left = (int(rng.integers(0, n + 1)) for n in (shape[0] - height, shape[1] - width))
    hidden = np.zeros(shape, bool)
    hidden[top : top + height, left : left + width] = True
    return hidden


def _stroke(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """A thick line of a few straight pieces, round at its ends and turns."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32) + 0.5
    side = min(shape)
    thick = rng.uniform(0.04, 0.12) * side  # half of its width
    at, turn = rng.uniform((0.0, 0.0), shape[::-1]), rng.uniform(0, 2 * np.pi)
    hidden = np.zeros(shape, bool)
    for _ in range(int(rng.integers(1, 6))):
        turn += rng.uniform(-0.6, 0.6) * np.pi
        step = rng.uniform(0.1, 0.4) * side * np.array([np.cos(turn), np.sin(turn)])
        along = ((x - at[0]) * step[0] + (y - at[1]) * step[1]) / (step @ step)
        along = along.clip(0, 1)  # the nearest point of the piece
        near = (x - at[0] - along * step[0]) ** 2 + (y - at[1] - along * step[1]) ** 2
        hidden |= near < thick**2
        at = (at + step).clip(0, shape[::-1])
    return hidden


def _half(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """One side of a line, of exactly the share that was drawn."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    turn, share = rng.uniform(0, 2 * np.pi), rng.uniform(1.2 * LEAST, 0.95 * MOST)
    place = (x * np.cos(turn) + y * np.sin(turn)).ravel()
    hidden = np.zeros(place.shape, bool)
    hidden[np.argsort(place, kind="stable")[: round(share * place.size)]] = True
    return hidden.reshape(shape)
