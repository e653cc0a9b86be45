from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from data_tree import mask, mvtec, picture, write

from anodiff.data.check import check
from anodiff.data.image import read
from anodiff.data.index import index
from anodiff.data.leak import Fingerprint, duplicates, fingerprints, grouped, leaks
from anodiff.data.split import divided
from anodiff.errors import ConfigError, DataError

REAL = Path(__file__).resolve().parents[3] / "shared" / "data"


def surface(seed: int, size: int = 64) -> np.ndarray:
    """A part: the same ring every time, and a surface of its own."""
    rng = np.random.default_rng(seed)
    grain = cv2.GaussianBlur(rng.standard_normal((size, size)), (0, 0), 2.5)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    return np.clip(110 + 60 * (np.hypot(x, y) < 0.7) + 70 * grain / grain.std() * 0.3, 1, 250)


def tile_set(root: Path, count: int = 12) -> Path:
    for i in range(count):
        write(root / "train" / "good" / f"{i}.png", surface(i).astype(np.uint8))
    for i in range(4):
        write(root / "test" / "good" / f"{i}.png", surface(100 + i).astype(np.uint8))
    return root


def names(pairs: pd.DataFrame) -> list[set[str]]:
    short = lambda path: "/".join(Path(path).parts[-3:])  # noqa: E731
    return [{short(a), short(b)} for a, b in zip(pairs["image_a"], pairs["image_b"], strict=True)]


def test_a_clean_set_has_no_pairs(tmp_path):
    assert duplicates(index(tile_set(tmp_path))).empty


def test_the_same_tile_at_another_exposure_is_found(tmp_path):
    root = tile_set(tmp_path)
    rng = np.random.default_rng(0)
    darker = surface(3) * 0.55 + rng.normal(0, 1.5, (64, 64))
    write(root / "test" / "good" / "dark.png", darker.clip(0, 255).astype(np.uint8))
    pairs = duplicates(index(root))
    assert pairs["kind"].tolist() == ["near"]
    assert names(leaks(pairs)) == [{"train/good/3.png", "test/good/dark.png"}]
    assert pairs["distance"][0] < 0.05
    assert duplicates(index(root), near=0).empty


def test_exact_copies_are_found_whatever_the_file(tmp_path):
    root = tile_set(tmp_path)
    for ending in ("bmp", "tif"):
        write(root / "test" / "good" / f"copy.{ending}", read(root / "train" / "good" / "5.png"))
    pairs = duplicates(index(root))
    assert pairs["kind"].tolist() == ["exact", "exact"]
    assert (pairs["image_a"] == str(root / "train" / "good" / "5.png")).all()
    assert len(leaks(pairs)) == 2


@pytest.mark.parametrize("count", [2, 3, 4])
def test_tiny_sets_raise_no_false_alarm_and_miss_no_copy(tmp_path, count):
    for i in range(count):
        write(tmp_path / "a" / f"{i}.png", surface(i).astype(np.uint8))
    assert duplicates(index(tmp_path / "a")).empty
    again = (surface(0) * 0.9).astype(np.uint8)
    write(tmp_path / "a" / "again.png", again)
    assert names(duplicates(index(tmp_path / "a"))) == [
        {f"{tmp_path.name}/a/0.png", f"{tmp_path.name}/a/again.png"}
    ]


def test_near_distance_is_the_correlation_about_the_mean_of_the_others(tmp_path):
    table = index(tile_set(tmp_path, count=5))
    prints = fingerprints(table["image"])
    x = np.array([found.thumbnail for found in prints.values() if isinstance(found, Fingerprint)])
    pairs = duplicates(table, near=2.0, prints=prints)
    assert len(pairs) == 9 * 8 // 2
    place = {path: i for i, path in enumerate(prints)}
    for a, b, distance in zip(pairs["image_a"], pairs["image_b"], pairs["distance"], strict=True):
        i, j = place[a], place[b]
        m = np.delete(x, [i, j], axis=0).mean(axis=0)
        u, v = x[i] - m, x[j] - m
        floor = 1e-4
        direct = 1 - (u @ v + floor) / np.sqrt((u @ u + floor) * (v @ v + floor))
        assert distance == pytest.approx(direct, abs=1e-9)


def test_groups_join_what_is_linked(tmp_path):
    table = index([picture(tmp_path / f"{i}.png", i) for i in range(6)])
    table["group"] = pd.Series(["p", None, "p", None, None, None], dtype=object)
    image = table["image"]
    pairs = pd.DataFrame({"image_a": [image[2], image[3]], "image_b": [image[3], image[4]]})
    assert grouped(table, pairs)["group"].tolist() == ["0", "1", "0", "0", "0", "2"]
    assert table["group"].tolist()[1] is None


def many(groups: int, size: int, bad: int) -> pd.DataFrame:
    rows = [
        {"image": f"/d/{g}_{i}.png", "mask": None, "category": "nut", "split": "train", "group": str(g)}
        | {"label": int(g < bad and i == 0), "defect": "crack" if g < bad and i == 0 else "good"}
        for g in range(groups)
        for i in range(size)
    ]
    return pd.DataFrame(rows)


def test_a_division_keeps_groups_whole_and_the_share(tmp_path):
    table = many(60, 3, bad=5)
    out = divided(table, share=0.25, column="split_grouped")
    assert (out["split"] == "train").all()
    assert (out.groupby("group")["split_grouped"].nunique() == 1).all()
    assert (out.loc[out["label"] == 1, "split_grouped"] == "test").all()
    good = out[out["label"] == 0]
    assert (good["split_grouped"] == "test").mean() == pytest.approx(0.25, abs=0.02)
    assert divided(table, share=0.25, column="split_grouped").equals(out)
    shuffled = divided(table.sample(frac=1, random_state=0), share=0.25, column="split_grouped").sort_index()
    assert shuffled["split_grouped"].tolist() == out["split_grouped"].tolist()
    assert not divided(table, share=0.25, seed=1, column="split_grouped").equals(out)


def test_a_division_is_made_in_each_category_and_leaves_something_to_train_on():
    a, b = many(20, 1, bad=0), many(2, 1, bad=0).assign(category="bolt")
    out = divided(pd.concat([a, b], ignore_index=True), share=0.5)
    assert out.groupby(["category", "split"]).size().to_dict() == {
        ("nut", "test"): 10,
        ("nut", "train"): 10,
        ("bolt", "test"): 1,
        ("bolt", "train"): 1,
    }
    with pytest.raises(DataError, match="none is left to train on"):
        divided(many(3, 2, bad=3))
    with pytest.raises(ConfigError, match="between 0 and 1"):
        divided(a, share=1.0)


def kinds(problems) -> dict[str, list[str]]:
    out: dict[str, list[str]] = {}
    for problem in problems:
        out.setdefault(problem.kind, []).append(Path(problem.path).name)
    return out


def test_a_clean_part_has_no_problem(tmp_path):
    assert check(index(mvtec(tmp_path / "nut", bad=3))) == []


def test_every_kind_of_problem_is_named_with_its_file(tmp_path):
    root = mvtec(tmp_path / "nut", train=4, bad=6)
    truth, bad, train = root / "ground_truth" / "scratch", root / "test" / "scratch", root / "train" / "good"
    (bad / "1.png").write_text("no picture")
    mask(truth / "2_mask.png", 3, shape=(20, 20))
    mask(truth / "3_mask.png", 0)
    (truth / "4_mask.png").unlink()
    (truth / "5_mask.png").write_text("no mask")
    write(bad / "6.png", read(train / "0.png"))
    write(root / "test" / "good" / "copy.png", read(train / "1.png"))
    write(train / "deep.png", (surface(1)[:24, :32] * 200).astype(np.uint16))
    picture(train / "colour.png", 50, shape=(30, 40, 3))
    found = check(index(root))
    assert {kind: sorted(files) for kind, files in kinds(found).items()} == {
        "unreadable": ["1.png"],
        "mask-size": ["2.png"],
        "mask-empty": ["3.png"],
        "mask-missing": ["4.png"],
        "mask-unreadable": ["5.png"],
        "label-conflict": ["6.png"],
        "leak-exact": ["6.png", "copy.png"],
        "mixed-size": ["nut"],
        "mixed-channels": ["nut"],
        "mixed-depth": ["nut"],
    }
    assert [p.kind for p in found][:5].count("mixed-size") == 0  # errors come first
    sizes = next(p.message for p in found if p.kind == "mask-size")
    assert "20 x 20, the picture 32 x 24" in sizes


def test_few_pictures_marks_on_good_ones_and_defects_in_train(tmp_path):
    picture(tmp_path / "0.png", 0)
    picture(tmp_path / "1.png", 1)
    mask(tmp_path / "m.png", 4)
    (tmp_path / "list.csv").write_text("image,mask,label,split\n0.png,m.png,0,train\n1.png,m.png,1,train\n")
    found = kinds(check(index(tmp_path / "list.csv")))
    assert found["mask-on-good"] == ["0.png"]
    assert found["train-defective"] == ["1.png"]
    assert "few-pictures" in found


@pytest.mark.real_data
def test_the_leak_of_a_random_split_of_real_tiles_is_found():
    path = REAL / "magnetic_tile" / "manifest.csv"
    if not path.is_file():
        pytest.skip("the shared folder of real pictures is not beside the checkout")
    prints, share = None, {}
    for column in ("split_random", "split_grouped"):
        table = index(path, split_column=column)
        prints = prints or fingerprints(table["image"])
        found = leaks(duplicates(table, prints=prints))
        tests = set(table.loc[(table["split"] == "test") & (table["label"] == 0), "image"])
        leaked = {
            image for pair in zip(found["image_a"], found["image_b"], strict=True) for image in pair
        } & tests
        share[column] = len(leaked) / len(tests)
    assert share["split_random"] > 0.6
    assert share["split_grouped"] < 0.1
