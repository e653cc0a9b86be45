"""Costs, against what is known of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from anodiff.bench import measure
from anodiff.bench.memory import Peak
from anodiff.bench.subject import Fitted
from anodiff.codec.fuse import FusedConv
from anodiff.detect.result import Result


class Fixed:
    """Runs one function a picture."""

    evaluations = 0

    def __init__(self, work: object) -> None:
        self.work = work
        self.seen: list[str] = []

    def fit(self, train: pd.DataFrame) -> Fitted:
        return Fitted(len(train), 0)

    @torch.no_grad()
    def one(self, path: str) -> Result:
        self.seen.append(path)
        self.work()  # type: ignore[operator]
        return Result(0.0, 0.0, 0.0, path=path)

    def stream(self, paths: Iterable[str]) -> Iterator[Result]:
        yield from (self.one(path) for path in paths)

    def size_mb(self) -> float:
        return 0.0


def test_a_product_of_matrices_and_attention_are_counted() -> None:
    a, b = torch.ones(30, 40), torch.ones(40, 50)
    assert measure.gflops(Fixed(lambda: a @ b), "x") == pytest.approx(2 * 30 * 40 * 50 / 1e9, abs=5e-5)
    q = torch.ones(1, 4, 256, 32)
    attend = torch.nn.functional.scaled_dot_product_attention
    both = 2 * 2 * 4 * 256 * 256 * 32 / 1e9
    assert measure.gflops(Fixed(lambda: attend(q, q, q)), "x") == pytest.approx(both, rel=1e-2)


def test_a_fused_convolution_counts_like_a_plain_one() -> None:
    conv = nn.Conv2d(16, 32, 3, padding=1, groups=4)
    image = torch.rand(1, 16, 64, 64)
    expected = 2 * 32 * (16 // 4) * 9 * 64 * 64 / 1e9
    for one in (conv, FusedConv(conv, nn.ReLU6())):
        assert measure.gflops(Fixed(partial(one, image)), "x") == pytest.approx(expected, abs=5e-5)


def test_pictures_are_spread_over_both_kinds_and_warmed_up() -> None:
    paths = [str(i) for i in range(200)]
    subject = Fixed(lambda: None)
    found = measure.latency(subject, paths)
    assert list(found) == ["ms_p50", "ms_p95", "ms_p99"]
    assert subject.seen[: measure.WARM] == subject.seen[measure.WARM : 2 * measure.WARM]
    assert (subject.seen[-1], len(set(subject.seen))) == ("199", measure.MOST)
    assert measure.throughput(subject, paths) > 0


def test_the_peak_of_a_stretch_is_seen() -> None:
    peak = Peak(torch.device("cpu"))
    before = peak.mb()
    block = np.ones(25_000_000)  # 200 MB
    assert peak.mb() > before + 150
    assert block.sum() > 0
    assert peak.device_mb() is None
