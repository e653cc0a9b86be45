"""The audit finds a part on both sides of a split, from the pictures alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from bench_tree import part

from anodiff.bench.audit import audit
from anodiff.bench.sets import divided
from anodiff.data.index import index
from anodiff.errors import DataError

REAL = Path(__file__).parents[3] / "shared" / "data"


def pattern(seed: int, exposure: float = 1.0) -> np.ndarray:
    """A picture of blotches, other blotches for every seed."""
    rng = np.random.default_rng(seed)
    small = rng.uniform(60, 180, (8, 8)).astype(np.float32)
    return (
        (cv2.resize(small, (64, 64), interpolation=cv2.INTER_CUBIC) * exposure).clip(0, 255).astype(np.uint8)
    )


def tree(root: Path, *, again: int = 0) -> Path:
    """Thirty parts to train on and ten to test with, `again` of which are trained-on parts in another light."""
    names = [("train", "good", i, i, 1.0) for i in range(30)]
    names += [("test", "good", i, i if i < again else 100 + i, 0.7 if i < again else 1.0) for i in range(10)]
    names += [("test", "bad", i, 200 + i, 1.0) for i in range(5)]
    for split, kind, number, seed, exposure in names:
        path = root / split / kind / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), pattern(seed, exposure))
    return root


def test_a_clean_split_is_called_clean(tmp_path: Path) -> None:
    found = audit(index(tree(tmp_path / "clean")))
    assert (found.leaking_pairs, found.test_share_leaking, found.groups, found.largest_group) == (
        0,
        0.0,
        45,
        1,
    )
    assert (found.train, found.test) == (30, 15)
    assert found.note.startswith("No picture or part of the 15 test pictures")


def test_the_same_parts_in_another_light_are_found(tmp_path: Path) -> None:
    found = audit(index(tree(tmp_path / "leak", again=6)))
    assert (found.leaking_pairs, found.near, found.exact) == (6, 6, 0)
    assert found.test_share_leaking == pytest.approx(6 / 15)
    assert (found.groups, found.largest_group) == (39, 2)
    assert "flatter every method" in found.note


def test_copies_are_counted_and_left_out_of_the_test(tmp_path: Path) -> None:
    root = part(tmp_path / "part")
    shutil.copy(root / "train" / "good" / "0.png", root / "test" / "good" / "copy.png")
    found = audit(index(root), near=0)
    assert (found.exact, found.leaking_pairs) == (1, 1)
    split = divided(index(root))
    assert split.left_out == 1
    assert not [path for path in split.test["image"] if path.endswith("copy.png")]


def test_a_test_without_defects_is_refused(tmp_path: Path) -> None:
    root = part(tmp_path / "part", bad=0)
    with pytest.raises(DataError, match="4 good and 0 defective"):
        divided(index(root))


@pytest.mark.real_data
@pytest.mark.skipif(not (REAL / "magnetic_tile").is_dir(), reason="the shared pictures are not there")
def test_exposures_of_a_tile_cross_the_random_split_and_hardly_the_grouped_one() -> None:
    manifest = REAL / "magnetic_tile" / "manifest.csv"
    crossing, kept = (audit(index(manifest, split_column=f"split_{name}")) for name in ("random", "grouped"))
    assert crossing.test_share_leaking > 0.2
    assert kept.test_share_leaking < 0.05
