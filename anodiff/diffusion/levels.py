"""Noise levels: what a denoiser was trained for, and the grids a sampler walks through."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from anodiff.errors import ConfigError, RefusalError

Spacing = Literal["trailing", "leading", "linspace", "quadratic", "karras", "all"]

_TOLERANCE = (
    1e-3  # relative; admits sigmas that went through float16, and no level beyond the ends of a table
)
_RUNGS = 1000  # a continuous range is counted through on a Karras ladder of so many levels


@dataclass(frozen=True, eq=False)
class Levels:
    """The noise levels a denoiser was trained for, and what it promises there. Lives on the CPU."""

    low: float
    high: float
    table: Tensor | None = None  # [T] ascending float64; None = every level between low and high
    draws: bool = False  # True: the denoiser returns a draw of x0, not its mean

    def index(self, sigma: Tensor) -> Tensor:
        """The index of the table's entry nearest to each `sigma` by ratio, int64 on the CPU, sigma's shape.

        Raises:
            RefusalError: if the levels have no table, or a sigma lies outside it.
        """
        if self.table is None:
            raise RefusalError("these levels are continuous and have no table to look up; feed sigma itself")
        sigma = level(sigma)
        self.check(sigma)
        return torch.bucketize(sigma, (self.table[1:] * self.table[:-1]).sqrt())

    def check(self, sigma: Tensor | float) -> None:
        """Refuse any `sigma` outside [low, high] by more than a thousandth.

        Raises:
            RefusalError: with the range and what came.
        """
        lowest, highest = (float(v) for v in level(sigma).aminmax())
        # Written so that a NaN is refused too.
        if not (lowest >= self.low * (1 - _TOLERANCE) and highest <= self.high * (1 + _TOLERANCE)):
            raise RefusalError(
                f"noise levels from {self.low:.6g} to {self.high:.6g} were trained, but sigma {lowest:.6g} "
                f"to {highest:.6g} was asked for; choose levels with `spaced`, which stays inside"
            )

    def covers(self, other: Levels) -> bool:
        """Whether every level of `other` lies inside these."""
        return self.low <= other.low * (1 + _TOLERANCE) and self.high >= other.high * (1 - _TOLERANCE)


def level(sigma: Tensor | float) -> Tensor:
    """`sigma` as float64 on the CPU, where all coefficients are computed; no wait if it lives there."""
    if isinstance(sigma, Tensor):
        return sigma.to("cpu", torch.float64)
    return torch.tensor(sigma, dtype=torch.float64)  # as_tensor would round a Python number to float32 first


def column(value: Tensor, like: Tensor) -> Tensor:
    """A coefficient made to multiply `like` [B, ...]: [B] becomes [B, 1, ...], [] stays a CPU scalar."""
    if value.ndim == 0:
        return value  # a scalar mixes with any device and does not widen the dtype
    return value.to(like.device, like.dtype, non_blocking=True).reshape(-1, *[1] * (like.ndim - 1))


def karras(low: float, high: float, steps: int, *, rho: float = 7.0) -> Tensor:
    """`steps` levels from `high` down to `low`, [steps] float64, denser towards `low` the larger `rho` is.

    `sigma_i = (high^(1/rho) + i / (steps - 1) (low^(1/rho) - high^(1/rho)))^rho`. Source: arXiv:2206.00364
    eq. 5.
    """
    if not (0 < low <= high and steps >= 1 and rho > 0) or (low == high and steps > 1):
        raise ConfigError(
            f"a Karras grid expects 0 < low < high, steps >= 1 and rho > 0; got low={low}, high={high}, "
            f"steps={steps}, rho={rho}"
        )
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    top, bottom = high ** (1 / rho), low ** (1 / rho)
    grid = (top + ramp * (bottom - top)) ** rho
    grid[-1] = low  # the ends are exact, not rounded
    grid[0] = high
    return grid


def spaced(
    levels: Levels, steps: int | None, *, start: float | None = None, spacing: Spacing = "trailing"
) -> Tensor:
    """The grid of a sampler: `steps` descending levels followed by exactly 0, [steps + 1] float64 on the CPU.

    The first entry **is** the level a partially noised input must be noised to: it lies on the grid by
    construction, while `start` itself may fall between two entries of the table (then the entry nearest by
    ratio is taken). With `N` the number of levels up to `start`, the indices visited are

    | spacing | indices, before reversal | visits the top? |
    |---|---|---|
    | trailing | round(N (i + 1) / steps) - 1 | yes |
    | linspace | round(linspace(0, N - 1)) | yes |
    | quadratic | round(linspace(0, sqrt(N - 1))^2), each at least one further (arXiv:2010.02502 D.2) | yes |
    | leading | i floor(N / steps) | no: the top level is never visited |
    | all | every one (`steps` None or N) | yes |
    | karras | none: `karras` between the lowest level and the start, between the entries of a table | yes |

    Continuous levels are counted through on a Karras ladder of 1000 rungs whose top is `start`, so
    `trailing` there is nearly `karras`.

    Args:
        levels: what the denoiser was trained for.
        steps: number of evaluations of a first-order sampler; None only with "all".
        start: the highest level wanted, a sigma within `levels`; None = the highest.
        spacing: how the levels between are chosen.

    Raises:
        ConfigError: if the levels cannot hold such a grid.
        RefusalError: if `karras` is asked of a denoiser that draws, which knows the entries of its table
            only.
    """
    if spacing not in get_args(Spacing):
        raise ConfigError(f"unknown spacing {spacing!r}: expected one of {', '.join(get_args(Spacing))}")
    if start is not None and not (levels.low * (1 - _TOLERANCE) <= start <= levels.high * (1 + _TOLERANCE)):
        raise ConfigError(
            f"start={start:.6g} is outside the trained noise levels {levels.low:.6g} to {levels.high:.6g}; "
            "choose one inside"
        )
    rungs = _rungs(levels, start)
    count = len(rungs)
    if spacing == "all":
        if steps not in (None, count):
            raise ConfigError(
                f"spacing 'all' visits {count} levels, but steps={steps}; leave steps out (None)"
            )
        chosen = rungs.flip(0)
    elif steps is None or steps < 1:
        raise ConfigError(f"spacing {spacing!r} needs steps >= 1, got {steps}")
    elif steps > count and (spacing != "karras" or count == 1):
        there = "1 noise level lies" if count == 1 else f"{count} noise levels lie"
        top = float(rungs[-1])
        raise ConfigError(
            f"steps={steps}, but only {there} up to the start, sigma {top:.4g}; use at most {count}"
        )
    elif spacing == "karras":
        if levels.draws:
            raise RefusalError(
                "a denoiser that draws x0 knows only the levels of its table, and a Karras grid leaves them; "
                "use spacing 'trailing' or 'all'"
            )
        chosen = karras(float(rungs[0]), float(rungs[-1]), steps)
    else:
        chosen = rungs[_indices(spacing, steps, count)].flip(0)
    return torch.cat((chosen, chosen.new_zeros(1)))  # [steps + 1]


def _rungs(levels: Levels, start: float | None) -> Tensor:
    """All levels up to `start`, ascending."""
    if levels.table is None:
        top = levels.high if start is None else min(max(start, levels.low), levels.high)
        return karras(levels.low, top, _RUNGS if top > levels.low * (1 + _TOLERANCE) else 1).flip(0)
    if start is None:
        return levels.table
    return levels.table[: int(levels.index(torch.tensor(start, dtype=torch.float64))) + 1]


def _indices(spacing: str, steps: int, count: int) -> Tensor:
    """`steps` strictly ascending indices into `count` levels."""
    i = torch.arange(steps, dtype=torch.float64)
    match spacing:
        case "trailing":
            # Counted down from the top as published grids are, so that halves round the same way.
            return (count - i * (count / steps)).round().long().flip(0) - 1
        case "leading":
            return i.long() * (count // steps)
        case "linspace":
            return (
                torch.linspace(0, count - 1, steps, dtype=torch.float64).round().long()
                if steps > 1
                else _top(count)
            )
        case _:
            if steps == 1:
                return _top(count)
            square = torch.linspace(0, math.sqrt(count - 1), steps, dtype=torch.float64).square().round()
            return torch.maximum(
                square, i
            ).long()  # where squares are closer than one level, walk every level


def _top(count: int) -> Tensor:
    return torch.tensor([count - 1])
