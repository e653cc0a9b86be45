"""What a method costs a picture: time, throughput, arithmetic."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from anodiff.bench.subject import Subject

WARM = 3  # pictures before the clock starts
MOST = 50  # pictures timed
SECONDS = 20.0  # after which no further picture is timed
LEAST = 5  # pictures that are timed all the same


def spread(paths: Sequence[str], most: int) -> list[str]:
    """At most `most` of the paths, evenly chosen, so that good and defective ones are among them."""
    chosen = np.linspace(0, len(paths) - 1, min(most, len(paths))).round()
    return [paths[int(i)] for i in dict.fromkeys(chosen)]


def latency(subject: Subject, paths: Sequence[str], *, seconds: float = SECONDS) -> dict[str, float]:
    """Percentiles of the time of one picture alone, decoding included, in milliseconds, when all is warm."""
    chosen = spread(paths, MOST)
    for path in chosen[:WARM]:
        subject.one(path)
    spent: list[float] = []
    for path in chosen:
        start = time.perf_counter()
        subject.one(path)
        spent.append(1e3 * (time.perf_counter() - start))
        if sum(spent) > 1e3 * seconds and len(spent) >= LEAST:
            break
    found = np.percentile(spent, [50, 95, 99])
    return {f"ms_p{p}": round(float(ms), 3) for p, ms in zip((50, 95, 99), found, strict=True)}


def throughput(subject: Subject, paths: Sequence[str], *, seconds: float = SECONDS) -> float:
    """Pictures a second in a stream, decoding included."""
    start, done = time.perf_counter(), 0
    for _ in subject.stream(spread(paths, MOST)):
        done += 1
        if time.perf_counter() - start > seconds:
            break
    return round(done / (time.perf_counter() - start), 3)


def gflops(subject: Subject, path: str) -> float:
    """10^9 floating-point operations of one picture, a multiply-add counting two, matrix products and convolutions.

    What is no tensor of torch, such as the decoding or a baseline of numpy, is not counted.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False, custom_mapping=_fused()) as counter:
        subject.one(path)
    return round(counter.get_total_flops() / 1e9, 4)


def _fused() -> dict[Any, Callable[..., int]]:
    """Formulas of operators of a CPU that torch's counter does not know: fused convolution, attention."""
    from torch.utils.flop_counter import conv_flop_count, sdpa_flop_count

    def convolution(x: Any, weight: Any, *rest: Any, out_shape: Any = None, **more: Any) -> int:
        del rest, more
        return conv_flop_count(list(x), list(weight), list(out_shape), transposed=False)

    def attention(query: Any, key: Any, value: Any, *rest: Any, out_shape: Any = None, **more: Any) -> int:
        del rest, out_shape, more
        return sdpa_flop_count(query, key, value)

    found: dict[Any, Callable[..., int]] = {
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention
    }
    if hasattr(torch.ops.mkldnn, "_convolution_pointwise"):
        found[torch.ops.mkldnn._convolution_pointwise] = convolution
    return found
