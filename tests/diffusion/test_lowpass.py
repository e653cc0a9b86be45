"""Low frequencies as a projection, and estimates held to those of a known code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from truth import Gaussian, Mixture

from anodiff.cond import Cond
from anodiff.diffusion.ancestral import ancestral
from anodiff.diffusion.guidance import Bind
from anodiff.diffusion.levels import spaced
from anodiff.diffusion.lowpass import KeepLow, low
from anodiff.diffusion.sampling import ddim, dpmpp_2m, heun
from anodiff.errors import ConfigError, RefusalError

F64 = torch.float64


def code(seed: int = 0, shape=(2, 3, 8, 12)) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 5, 8, 20])
@pytest.mark.parametrize("shape", [(2, 3, 8, 12), (1, 1, 7, 5), (1, 2, 1, 9)])
def test_low_is_the_mean_of_each_cell_written_out(factor: int, shape) -> None:
    z = code(shape=shape)
    found = low(z, factor).numpy()
    expected = np.empty_like(found)
    for top in range(0, shape[-2], factor):
        for left in range(0, shape[-1], factor):
            cell = (..., slice(top, top + factor), slice(left, left + factor))
            expected[cell] = z.numpy()[cell].mean((-2, -1), keepdims=True)
    assert np.abs(found - expected).max() <= 1e-14


@pytest.mark.parametrize("factor", [2, 3, 5, 20])
@pytest.mark.parametrize("shape", [(2, 3, 8, 12), (1, 1, 7, 5)])
def test_low_is_an_orthogonal_projection(factor: int, shape) -> None:
    """low(low(z)) = low(z), linear, and <low(a), b> = <a, low(b)>. Measured: 1.8e-15.

    Law: guidance; reference: the definition of an orthogonal projection
    """
    a, b = code(0, shape), code(1, shape)
    assert (low(low(a, factor), factor) - low(a, factor)).abs().max() <= 1e-14
    assert low(a - low(a, factor), factor).abs().max() <= 1e-14
    assert (low(2 * a - b, factor) - (2 * low(a, factor) - low(b, factor))).abs().max() <= 1e-14
    assert float((low(a, factor) * b).sum() - (a * low(b, factor)).sum()) == pytest.approx(0, abs=1e-12)


def test_an_estimate_keeps_its_own_details_and_takes_the_known_means() -> None:
    """Law: guidance; reference: the estimate's own details, the known code's block means"""
    known, y, sigma = code(1), code(2), torch.tensor(0.7, dtype=F64)
    inner = Gaussian(0.2, 0.5)
    x0 = KeepLow(inner, known, 4)(y, sigma)
    own = inner(y, sigma)
    assert (low(x0, 4) - low(known, 4)).abs().max() <= 1e-14
    assert ((x0 - low(x0, 4)) - (own - low(own, 4))).abs().max() <= 1e-14
    assert (KeepLow(inner, known, 1)(y, sigma) - known).abs().max() <= 1e-14


SAMPLERS = {
    "ddim": lambda d, y, s: ddim(d, y, s),
    "eta": lambda d, y, s: ddim(d, y, s, eta=0.7, noise=lambda like: code(9)),
    "ancestral": lambda d, y, s: ancestral(d, y, s, noise=lambda like: code(9)),
    "heun": lambda d, y, s: heun(d, y, s),
    "dpmpp_2m": lambda d, y, s: dpmpp_2m(d, y, s),
}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_walk_ends_at_the_known_means_and_knows_nothing_else_of_the_known(sampler: str) -> None:
    """Law: guidance; reference: the block means of the known code"""
    known, n = code(1), code(3)
    inner = Mixture()
    sigmas = spaced(inner.levels, 6, start=5.0)

    def walked(target: Tensor) -> Tensor:
        held = Bind(KeepLow(inner, target, 4), Cond())
        return SAMPLERS[sampler](held, low(target, 4) + sigmas[0] * n, sigmas)

    found = walked(known)
    assert (low(found, 4) - low(known, 4)).abs().max() <= 1e-13
    other = code(4)
    other = other + low(known - other, 4)  # the same means, other details
    assert (other - known).abs().max() > 1
    assert (walked(other) - found).abs().max() <= 1e-12


def test_low_frequencies_go_down_as_those_of_the_noised_known_code() -> None:
    """ILVR puts low(known + sigma n) in the place of low(y); under DDIM the walk is there by itself, with one n.

    Law: guidance; reference: arXiv:2108.02938 eq. 8, low(known + sigma n)
    """
    known, n = code(1), code(3)
    inner = Mixture()
    sigmas = spaced(inner.levels, 8, start=5.0)
    seen: list[tuple[float, Tensor]] = []
    ddim(
        KeepLow(inner, known, 4),
        known + sigmas[0] * n,
        sigmas,
        watch=lambda sigma, y, x0: seen.append((sigma, y)),
    )
    assert len(seen) == 8
    for sigma, y in seen:
        assert (low(y, 4) - low(known + sigma * n, 4)).abs().max() <= 1e-12


def test_details_of_a_white_law_are_those_of_the_law_above_kept_means() -> None:
    """White noise of deviation s has details independent of its means, and a walk from far above draws them.

    Their variance in cells of 16 is s^2 (1 - 1/16), to 4 % from 12800 numbers (1.3 % by chance).
    """
    inner, known = Gaussian(0.0, 0.5), code(1, (200, 1, 8, 8)) * 2
    sigmas = spaced(inner.levels, 60, start=50.0)
    y = known + sigmas[0] * code(5, (200, 1, 8, 8))
    found = heun(KeepLow(inner, known, 4), y, sigmas)
    details = found - low(found, 4)
    assert float(details.square().mean()) == pytest.approx(0.25 * 15 / 16, rel=0.04)


def test_promises_are_the_inner_denoisers() -> None:
    inner = Gaussian()
    held = KeepLow(inner, code(), 2)
    assert held.levels is inner.levels
    with pytest.raises(RefusalError, match="learned variance"):
        held.moments(code(), torch.tensor(1.0))
    with pytest.raises(ConfigError, match="got a factor of 0"):
        low(code(), 0)
