"""Histograms on the bit pattern of float32: no range need be known, no value is sorted."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from anodiff.metrics.sketch import Points, Precision

BLOCK = 1 << 20  # values a pass holds in wide integers at a time
SLACK = 1.4  # a bin is aimed at 1/1.4 of what it may hold, so that few need to be mended


def keys(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    """One unsigned integer a value, ascending where the values descend; equal values have equal keys.

    The bits of positive floats are ordered like the floats, those of negative ones the other way round.
    """
    bits = (values + np.float32(0.0)).view(np.uint32)  # -0.0 + 0.0 is 0.0
    negative = (bits.view(np.int32) >> 31).view(np.uint32)  # all ones where the sign is set
    return ~(bits ^ (negative | np.uint32(0x80000000)))


def values_of(key: NDArray[np.uint32]) -> NDArray[np.float32]:
    """The value of each key: the inverse of `keys`."""
    ordered = ~key
    positive = (ordered.view(np.int32) >> 31).view(np.uint32)
    return (ordered ^ (~positive | np.uint32(0x80000000))).view(np.float32)


def _blocks(values: NDArray[np.float32]) -> Iterator[NDArray[np.uint32]]:
    for start in range(0, values.size, BLOCK):
        yield keys(values[start : start + BLOCK])


def histogram(values: NDArray[np.float32], precision: Precision) -> Points:
    """Points that stand for all values; none stands for more different values than `precision` allows.

    Two passes. The first counts the upper 16 bits (sign, exponent and 7 bits of mantissa: cells 1/128 wide in
    relative terms). The second splits each cell into as many equal bins as its count and rank ask for, down
    to single float32 values. Bins that are still too full, and all bins among the first 1/growth ranks, are
    replaced by their exact values. Any rank is therefore wrong by at most `precision.allowed(rank)`; a bin of
    equal values is exact. There are about twice as many points as `precision` asks for, plus one for each of
    the 65,536 cells that holds a value.

    Args:
        values: [n] float32, finite, in any order.
        precision: how many values a point may stand for.
    """
    cell_count = np.zeros(1 << 16, dtype=np.int64)
    for key in _blocks(values):
        cell_count += np.bincount(key >> 16, minlength=1 << 16)
    total = int(cell_count.sum())
    rank = np.cumsum(cell_count) - cell_count
    wanted = SLACK * cell_count / precision.allowed(rank, total)
    bits = np.ceil(np.log2(np.maximum(wanted, 1.0))).clip(0, 16).astype(np.uint32)  # [65536] 2^bits bins each
    shift = np.uint32(16) - bits
    offset = np.cumsum(1 << bits.astype(np.int64)) - (1 << bits.astype(np.int64))
    # what turns a key into its bin: (key >> shift) counts the cell's own bins from (cell << bits)
    base = offset - (np.arange(1 << 16, dtype=np.int64) << bits)
    bins = int(offset[-1]) + (1 << int(bits[-1]))

    count = np.zeros(bins)
    below = np.zeros(bins)  # sum over a bin's values of their lower bits, for the mean
    for key in _blocks(values):
        cell = key >> 16
        place = base[cell] + (key >> shift[cell])
        count += np.bincount(place, minlength=bins)
        below += np.bincount(place, key & 0xFFFF, minlength=bins)

    rank = np.cumsum(count) - count
    split = np.repeat(bits < 16, 1 << bits)  # bins wider than one value
    inexact = split & (count > 0) & ((count > precision.allowed(rank, total)) | (rank < 1 / precision.growth))
    exact: list[NDArray[np.uint32]] = []
    if inexact.any():
        for key in _blocks(values):
            cell = key >> 16
            exact.append(key[inexact[base[cell] + (key >> shift[cell])]])
    kept = np.flatnonzero((count > 0) & ~inexact)
    cell_of = np.repeat(np.arange(1 << 16, dtype=np.uint32), 1 << bits)[kept]
    mean = np.rint(below[kept] / count[kept]).astype(np.uint32)
    more, times = np.unique(np.concatenate([np.zeros(0, np.uint32), *exact]), return_counts=True)
    key = np.concatenate([(cell_of << np.uint32(16)) | mean, more]).astype(np.uint32)
    order = np.argsort(key)
    amount = np.concatenate([count[kept], times.astype(np.float64)])
    return Points(values_of(key[order]), amount[order][None])
