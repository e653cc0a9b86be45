"""Noise schedules of the literature as float64 tables of betas and sigmas.

Entry `i` of a table belongs to the network's time `t = i` (the papers' step `i + 1`). `sigma` is the
noise-to-signal ratio `sqrt((1 - abar) / abar)`, so `abar = 1 / (1 + sigma^2)`.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from anodiff.errors import ConfigError

Schedule = Literal["linear", "quadratic", "sigmoid", "scaled_linear", "scaled_linear_ldm", "cosine", "vp"]

ZERO_SNR_SIGMA = 2.0**20
"""Stands for the infinite sigma of zero signal: a signal of 1e-6 is lost on float16 and on 8-bit pictures."""


def betas(
    name: Schedule, steps: int = 1000, *, first: float | None = None, last: float | None = None
) -> Tensor:
    """Betas of a named schedule, [steps] float64 in (0, 1).

    | name | formula, i = 0..T-1 | first, last | source |
    |---|---|---|---|
    | linear | linspace(first, last) | 1e-4, .02 (made for T = 1000) | Ho 2020, arXiv:2006.11239 |
    | quadratic | linspace(sqrt(first), sqrt(last))^2 | 1e-4, .02 | same |
    | sigmoid | first + (last - first) sigmoid(linspace(-6, 6)) | 1e-4, .02 | |
    | scaled_linear | as quadratic | .00085, .012 | Stable Diffusion |
    | scaled_linear_ldm | as quadratic | .0015, .0195 | Rombach 2022, arXiv:2112.10752 |
    | cosine | min(1 - f(i + 1) / f(i), .999) | - | Nichol 2021, arXiv:2102.09672 eq. 17 |
    | vp | 1 - exp(-first / T - (last - first) (2 i + 1) / (2 T^2)) | .1, 20 | Xiao 2022, arXiv:2112.07804 |

    with `f(i) = cos^2((i / T + .008) / 1.008 pi / 2)`.

    Args:
        name: one of the names above.
        steps: T, the length of the table.
        first: the first value, where the schedule has one.
        last: the last value, where the schedule has one.

    Raises:
        ConfigError: if the name is unknown, or a value lies outside its range.
    """
    if name not in _FORMULAS:
        near = difflib.get_close_matches(str(name), get_args(Schedule), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"unknown schedule {name!r}: expected one of {', '.join(get_args(Schedule))}{hint}")
    if steps < 1:
        raise ConfigError(f"a schedule needs at least one step, got steps={steps}")
    formula, default_first, default_last = _FORMULAS[name]
    if default_first is None and (first is not None or last is not None):
        raise ConfigError(f"schedule {name!r} has no first and last value; leave both out")
    start = default_first if first is None else first
    end = default_last if last is None else last
    table = formula(steps, start or 0.0, end or 0.0)
    if not bool(((table > 0) & (table < 1)).all()):
        raise ConfigError(
            f"schedule {name!r} with steps={steps}, first={start}, last={end} leaves (0, 1): "
            f"its betas run from {float(table.min()):.3g} to {float(table.max()):.3g}; choose other ends"
        )
    return table


def table(
    name: Schedule, steps: int = 1000, *, first: float | None = None, last: float | None = None
) -> Tensor:
    """The sigma table of a named schedule, [steps] ascending float64; arguments as in `betas`."""
    return sigmas_of(betas(name, steps, first=first, last=last))


def sigmas_of(betas: Tensor) -> Tensor:
    """The ascending sigma table of `betas`, both [T] float64.

    `abar_t = prod(1 - beta)` and
    `sigma_t = sqrt((1 - abar_t) / abar_t) = sqrt(expm1(-sum log(1 - beta)))`; the last form keeps its
    digits where abar is near 1.
    """
    return torch.expm1(-torch.log1p(-betas.double()).cumsum(0)).sqrt()


def abar_of(table: Tensor) -> Tensor:
    """The share of signal `abar = 1 / (1 + sigma^2)` of a sigma table."""
    return 1 / (1 + table.double().square())


def betas_of(table: Tensor) -> Tensor:
    """The betas of an ascending sigma table, [T] float64.

    `beta_t = (sigma_t^2 - sigma_{t-1}^2) / (1 + sigma_t^2)` with `sigma_{-1} = 0`.
    """
    squares = table.double().square()
    before = torch.cat((squares.new_zeros(1), squares[:-1]))
    return (squares - before) / (1 + squares)


def zero_terminal(table: Tensor) -> Tensor:
    """The table rescaled so that its last level holds no signal and its first stays as it is, [T] float64.

    `sqrt(abar)` is shifted by its last value and stretched back to its first. The last sigma, infinite on
    paper, is `ZERO_SNR_SIGMA`. Only for networks that predict v or x0: with no signal left, the noise says
    nothing about x0.

    Source: Lin 2023, arXiv:2305.08891, algorithm 1.
    """
    if len(table) < 2:
        raise ConfigError("a zero-terminal table needs at least two levels, got one")
    root = abar_of(table).sqrt()
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    root[0] = abar_of(table[:1]).sqrt()[0]
    floor = 1 / math.sqrt(1 + ZERO_SNR_SIGMA**2)
    sigma = (1 / root.clamp(min=floor).square() - 1).sqrt()
    sigma[0] = table[0]
    return sigma


def _linear(steps: int, first: float, last: float) -> Tensor:
    return torch.linspace(first, last, steps, dtype=torch.float64)


def _quadratic(steps: int, first: float, last: float) -> Tensor:
    return torch.linspace(math.sqrt(first), math.sqrt(last), steps, dtype=torch.float64).square()


def _sigmoid(steps: int, first: float, last: float) -> Tensor:
    return first + (last - first) * torch.linspace(-6, 6, steps, dtype=torch.float64).sigmoid()


def _cosine(steps: int, first: float, last: float) -> Tensor:
    share = torch.arange(steps + 1, dtype=torch.float64) / steps
    signal = ((share + 0.008) / 1.008 * (math.pi / 2)).cos().square()
    return (1 - signal[1:] / signal[:-1]).clamp(max=0.999)


def _vp(steps: int, first: float, last: float) -> Tensor:
    i = torch.arange(1, steps + 1, dtype=torch.float64)
    return -torch.expm1(-first / steps - (last - first) * (2 * i - 1) / (2 * steps**2))


_Formula = Callable[[int, float, float], Tensor]
_FORMULAS: dict[str, tuple[_Formula, float | None, float | None]] = {
    "linear": (_linear, 1e-4, 0.02),
    "quadratic": (_quadratic, 1e-4, 0.02),
    "sigmoid": (_sigmoid, 1e-4, 0.02),
    "scaled_linear": (_quadratic, 0.00085, 0.012),
    "scaled_linear_ldm": (_quadratic, 0.0015, 0.0195),
    "cosine": (_cosine, None, None),
    "vp": (_vp, 0.1, 20.0),
}
