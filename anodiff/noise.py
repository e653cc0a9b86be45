"""Sources of unit noise: Gaussian, simplex, pyramid; keyed by picture, so no score depends on its batch."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Generator, Tensor

from anodiff.errors import ConfigError

NoiseSource = Callable[[Tensor], Tensor]
"""like -> unit noise of that shape, device and dtype."""

NoiseDraw = Callable[[Generator, Sequence[int]], Tensor]
"""(CPU generator, shape [..., h, w]) -> float32 noise on the CPU, mean 0 and variance 1 at every pixel."""

_MASK = (1 << 63) - 1  # seeds of torch.Generator are kept in the non-negative int64 range


def gaussian(generator: Generator, shape: Sequence[int]) -> Tensor:
    """White Gaussian noise of `shape`, float32 on the CPU."""
    return torch.randn(tuple(shape), generator=generator)


def simplex(octaves: int = 6, persistence: float = 0.8, frequency: float = 2.0**-6) -> NoiseDraw:
    """A draw of simplex noise summed over octaves, with unit variance at every pixel.

    Octave `k` has `frequency * 2^k` lattice cells a pixel and amplitude `persistence^k`. One octave is
    `sum_i max(0, 1/2 - |d_i|^2)^4 (g_i . d_i)` over the three corners of the triangle that holds the
    point, with independent unit gradients `g_i`. The lattice is placed at random, which makes the field
    stationary; its variance is then the integral of one corner's square over its disc, times the corners
    per area: `sqrt(3) * (pi / 180) / 1024`.

    A 256 x 256 map of six octaves costs 5-10 ms on one CPU core; the maps of one call share the lattice's
    place, not its gradients.

    Args:
        octaves: number of octaves, at least 1.
        persistence: ratio of the amplitudes of two successive octaves, above 0.
        frequency: lattice cells a pixel of the coarsest octave.

    Raises:
        ConfigError: if a value is out of its range.

    Source: Perlin, "Improving noise" (2002); octaves and defaults of AnoDDPM (Wyatt et al., CVPR Workshops
        2022).
    """
    if octaves < 1 or persistence <= 0 or frequency <= 0:
        raise ConfigError(
            "simplex noise expects octaves >= 1, persistence > 0 and frequency > 0; "
            f"got octaves={octaves}, persistence={persistence}, frequency={frequency}"
        )
    amplitudes = [persistence**k for k in range(octaves)]
    norm = math.sqrt(sum(a * a for a in amplitudes) * _SIMPLEX_VARIANCE)

    return partial(_simplex, amplitudes=tuple(a / norm for a in amplitudes), frequency=frequency)


def _simplex(
    generator: Generator, shape: Sequence[int], *, amplitudes: Sequence[float], frequency: float
) -> Tensor:
    *lead, height, width = shape
    total = torch.zeros(math.prod(lead), height * width)  # [M, h*w]
    for k, amplitude in enumerate(amplitudes):
        octave = _simplex_octave(generator, len(total), height, width, frequency * 2.0**k)
        total.add_(octave, alpha=amplitude)
    return total.reshape(tuple(shape))  # [..., h, w]


_SIMPLEX_VARIANCE = math.sqrt(3) * math.pi / 180 / 1024
_SKEW = (math.sqrt(3) - 1) / 2  # square lattice -> triangles
_UNSKEW = (3 - math.sqrt(3)) / 6


def _simplex_octave(generator: Generator, maps: int, height: int, width: int, frequency: float) -> Tensor:
    """One octave [maps, height * width]; its variance is `_SIMPLEX_VARIANCE`."""
    # One lattice cell is (1, 0), (0, 1) in skewed coordinates: a uniform offset there is uniform over the
    # cell.
    a, b = torch.rand(2, generator=generator).tolist()
    rows = torch.arange(height) * frequency + a - (a + b) * _UNSKEW
    cols = torch.arange(width) * frequency + b - (a + b) * _UNSKEW
    y, x = rows[:, None], cols[None, :]
    skew = (y + x) * _SKEW  # [h, w]
    i, j = (y + skew).floor(), (x + skew).floor()
    unskew = (i + j) * _UNSKEW
    dy, dx = y - i + unskew, x - j + unskew  # from the first corner
    upper = (dy > dx).to(dy.dtype)  # which of the cell's two triangles
    i, j = (i - i.min()).double(), (j - j.min()).double()  # float32 counts corners exactly to 2^24 only
    columns = int(j.max()) + 2
    angle = torch.rand(maps, (int(i.max()) + 2) * columns, generator=generator) * (2 * math.pi)
    gradient_y, gradient_x = angle.sin(), angle.cos()  # [M, corners]

    first = i * columns + j
    corners = (
        (first, dy, dx),
        (first + 1 + upper * (columns - 1), dy - upper + _UNSKEW, dx - (1 - upper) + _UNSKEW),
        (first + columns + 1, dy - 1 + 2 * _UNSKEW, dx - 1 + 2 * _UNSKEW),
    )
    total = torch.zeros(maps, height * width)  # [M, h*w]
    for index, v, u in corners:
        fall = (0.5 - v * v - u * u).clamp_(min=0).square_().square_()
        index, down, right = index.reshape(-1).long(), (fall * v).reshape(-1), (fall * u).reshape(-1)
        # One map at a time: a gather along one contiguous row is 50 times faster than along the last of
        # two axes.
        for row, gy, gx in zip(total, gradient_y, gradient_x, strict=True):
            row.addcmul_(gy.index_select(0, index), down).addcmul_(gx.index_select(0, index), right)
    return total


def pyramid(scales: int = 6, discount: float = 0.8) -> NoiseDraw:
    """A draw of Gaussian noise summed over a pyramid of resolutions, with unit variance at every pixel.

    Level `k` is white noise at `ceil(h / 2^k) x ceil(w / 2^k)` brought to full size by bilinear
    interpolation and divided by the standard deviation which the interpolation leaves at each pixel;
    amplitudes are `discount^k`.

    Args:
        scales: number of resolutions, at least 1 (1 is white noise).
        discount: ratio of the amplitudes of two successive resolutions, above 0.

    Raises:
        ConfigError: if a value is out of its range.
    """
    if scales < 1 or discount <= 0:
        raise ConfigError(f"pyramid noise expects scales >= 1 and discount > 0; got {scales} and {discount}")
    norm = math.sqrt(sum(discount ** (2 * k) for k in range(scales)))

    return partial(_pyramid, amplitudes=tuple(discount**k / norm for k in range(scales)))


def _pyramid(generator: Generator, shape: Sequence[int], *, amplitudes: Sequence[float]) -> Tensor:
    *lead, height, width = shape
    total = torch.zeros(tuple(shape))
    for k, amplitude in enumerate(amplitudes):
        rows, cols = _bilinear(height, 2**k), _bilinear(width, 2**k)
        coarse = torch.randn((*lead, rows.shape[1], cols.shape[1]), generator=generator)
        total.add_(rows @ coarse @ cols.mT, alpha=amplitude)  # [..., h, w]
    return total


def _bilinear(size: int, factor: int) -> Tensor:
    """Interpolation matrix [size, ceil(size / factor)] whose rows have unit length, so variances stay 1."""
    coarse = math.ceil(size / factor)
    place = ((torch.arange(size, dtype=torch.float64) + 0.5) / factor - 0.5).clamp(0, coarse - 1)
    weight = (1 - (place[:, None] - torch.arange(coarse)).abs()).clamp(min=0)
    return (weight / weight.square().sum(1, keepdim=True).sqrt()).float()


def content_seed(image: Tensor, seed: int) -> int:
    """A seed in [0, 2^63) that is a function of one picture's content and the run's seed alone.

    Args:
        image: [C, H, W] in [0, 1]; it is rounded to 8 bit first, so that the bit depth of the file does
            not matter.
        seed: the run's seed, any integer.
    """
    if image.ndim != 3:
        raise ConfigError(
            f"content_seed expects one picture [C, H, W], got shape {tuple(image.shape)}; "
            "call it once a picture"
        )
    pixels = (image.detach() * 255).round().clamp(0, 255).to("cpu", torch.uint8).contiguous()
    digest = hashlib.blake2b(f"{tuple(image.shape)}|{seed}|".encode(), digest_size=8)
    digest.update(pixels.numpy().data)
    return int.from_bytes(digest.digest(), "big") & _MASK


class PerImageNoise:
    """Unit noise whose row `i` depends on seed `i` and the number of the call, never on the batch around it.

    Call `k` of an object is a fixed function of `(seeds[i], k)`: two objects with the same seeds give the
    same sequence, and the numbers are drawn on the CPU, so they are the same whatever device they are
    moved to.
    """

    def __init__(self, seeds: Sequence[int], *, draw: NoiseDraw = gaussian) -> None:
        self.seeds = tuple(seeds)
        self.draw = draw
        self.calls = 0

    def __call__(self, like: Tensor) -> Tensor:
        """Fresh noise of `like`'s shape [B, ...], device and dtype.

        Raises:
            ConfigError: if `like` has another number of rows than there are seeds.
        """
        if like.shape[0] != len(self.seeds):
            raise ConfigError(
                f"PerImageNoise has {len(self.seeds)} seeds but was asked for a batch of {like.shape[0]}; "
                "give one seed a picture"
            )
        call, self.calls = self.calls, self.calls + 1
        rows = [self.draw(_generator(seed, call), like.shape[1:]) for seed in self.seeds]
        noise = torch.stack(rows) if rows else torch.empty(like.shape)  # [B, ...]
        return noise.to(like.device, like.dtype, non_blocking=True)


def _generator(seed: int, call: int) -> Generator:
    # Hashed, not added: seed 5 at call 1 must not be seed 6 at call 0.
    digest = hashlib.blake2b(f"{seed}|{call}".encode(), digest_size=8).digest()
    return Generator().manual_seed(int.from_bytes(digest, "big") & _MASK)


def from_generator(generator: Generator, *, draw: NoiseDraw = gaussian) -> NoiseSource:
    """A source that draws a batch at once from one CPU generator; a row depends on its place in the batch."""

    def source(like: Tensor) -> Tensor:
        return draw(generator, like.shape).to(like.device, like.dtype, non_blocking=True)

    return source
