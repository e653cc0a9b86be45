"""Painted defects that are hard to see: of any size from tiny on, and of any contrast from hardly visible on."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from anodiff.data.synthetic import VISIBLE, paint

SMALLEST = 32
"""Pixels a side of the least window a defect is painted on; the largest is the picture."""

STRENGTHS = (0.1, 1.0)
"""Of the paint, log-uniform."""

FADING = (0.3, 1.0)
"""What is left of the painted difference, log-uniform: paint of the least strength still shows clearly."""

SEEN = 12
"""Pixels that must differ visibly; with fewer the defect is not faded."""


def faint(image: Tensor, kind: str, *, seed: int, foreign: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The picture with one painted defect and its exact mask: (image [C, H, W], mask [1, H, W] bool).

    The defect is painted by `synthetic.paint` on a window of the picture at a random place, whose side is drawn
    log-uniformly, then faded: `out = image + fade (painted - image)`. The mask is True exactly where `out` differs
    visibly (`VISIBLE`) from `image`, and everywhere else `out` equals `image` to the bit. The result depends on the
    arguments alone.

    Args:
        image: [C, H, W] in [0, 1], C of 1 or 3, at least 16 pixels a side; not modified.
        kind: one of `synthetic.KINDS`.
        seed: the same seed paints the same defect.
        foreign: another picture [C, H, W], whose texture some kinds show.

    Raises:
        ConfigError: as `synthetic.paint`.
    """
    rng = np.random.default_rng(seed)
    height, width = image.shape[-2:]
    largest = min(height, width)
    side = round(_log_uniform(rng, min(SMALLEST, largest), largest))
    top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    window = (slice(None), slice(top, top + side), slice(left, left + side))
    painted, _ = paint(
        image[window],
        kind,
        seed=int(rng.integers(2**31)),
        strength=_log_uniform(rng, *STRENGTHS),
        foreign=None if foreign is None else foreign[window],
    )
    out = image.clone()
    out[window] = image[window] + _log_uniform(rng, *FADING) * (painted - image[window])
    mask = _visible(out, image)
    if int(mask.sum()) < SEEN:
        out[window] = painted
        mask = _visible(out, image)
    return torch.where(mask, out, image), mask


def _visible(out: Tensor, image: Tensor) -> Tensor:
    """Where two pictures [C, H, W] differ visibly, [1, H, W] bool."""
    return (out - image).abs().amax(dim=0, keepdim=True) > VISIBLE


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
