"""Baselines that learn nothing, against what can be said of them by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bench_tree import part, texture

from anodiff.bench.plain import FLOOR, Plain, nearest_thumbnail, pixel_gaussian
from anodiff.bench.subject import at_most
from anodiff.data.index import index, normals


def test_the_nearest_thumbnail_is_the_nearest_by_correlation() -> None:
    rng = np.random.default_rng(0)
    train, picture = rng.uniform(size=(5, 6, 6, 3)), rng.uniform(size=(6, 6, 3))
    score, heat = nearest_thumbnail(train)(picture)
    correlation = [np.corrcoef(picture.ravel(), other.ravel())[0, 1] for other in train]
    assert score == pytest.approx(np.sqrt(2 - 2 * max(correlation)))  # |u - v|^2 = 2 - 2 u.v
    assert heat.shape == (6, 6)


def test_exposure_does_not_count() -> None:
    rng = np.random.default_rng(0)
    train = rng.uniform(size=(5, 6, 6, 3))
    score, _ = nearest_thumbnail(train)(0.5 * train[2] + 0.1)
    assert score == pytest.approx(0, abs=1e-6)


def test_pixels_are_judged_by_their_own_deviation() -> None:
    rng = np.random.default_rng(0)
    deviation = np.where(np.arange(32)[:, None] < 16, 0.05, 0.2)[..., None]  # upper half steady
    train = 0.5 + deviation * rng.normal(size=(400, 32, 32, 3))
    judge = pixel_gaussian(train)
    steady, wild = (np.full((32, 32, 3), 0.5) for _ in range(2))
    steady[1:15, 4:18] += 0.2
    wild[17:31, 4:18] += 0.2
    assert judge(steady)[1][8, 11] == pytest.approx((0.2 / 0.05) ** 2, rel=0.2)
    assert judge(steady)[0] > 5 * judge(wild)[0]


def test_a_pixel_that_never_moved_has_a_floor() -> None:
    judge = pixel_gaussian(np.full((4, 8, 8, 3), 0.5))
    score, heat = judge(np.full((8, 8, 3), 0.5 + FLOOR))
    assert np.allclose(heat, 1)
    assert score == pytest.approx(1)


@pytest.mark.parametrize("baseline", ["nearest_thumbnail", "pixel_gaussian"])
def test_defects_score_above_good_parts(baseline: str, tmp_path: Path) -> None:
    root = part(tmp_path / "part")
    (root / "test" / "good" / "cut.png").write_bytes(b"")
    subject = Plain(baseline, size=24)
    assert subject.fit(normals(index(root))).train == 8
    results = {
        path.name: r for path in sorted((root / "test").rglob("*.png")) for r in subject.stream([str(path)])
    }
    good = [r.score for r in subject.stream([str(root / "test" / "good" / f"{i}.png") for i in range(4)])]
    bad = [r.score for r in subject.stream([str(root / "test" / "spot" / f"{i}.png") for i in range(4)])]
    assert min(bad) > max(good)
    assert results["cut.png"].error
    one = subject.one(str(root / "test" / "spot" / "0.png"))
    assert one.shape == (32, 32)
    assert one.heatmap[8:16, 8:16].mean() > 3 * one.heatmap[20:, 20:].mean()


def test_few_training_pictures_are_the_same_few_whatever_is_added(tmp_path: Path) -> None:
    for i in range(20):
        texture(tmp_path / "good" / f"{i}.png", i)
    table = index(tmp_path / "good")
    few = set(at_most(table, 5)["image"])
    assert len(few) == 5
    assert set(at_most(table[table["image"].isin(list(few))], 5)["image"]) == few
    assert len(at_most(table, None)) == 20
