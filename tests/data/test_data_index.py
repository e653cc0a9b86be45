from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from data_tree import mask, mvtec, picture

from anodiff.data.image import read_mask
from anodiff.data.index import holdout, index, normals
from anodiff.data.manifest import write_manifest
from anodiff.data.table import COLUMNS, natural
from anodiff.errors import DataError


def test_natural_order_counts_numbers():
    names = ["10.png", "9.png", "1.png", "a2b10.png", "a2b9.png"]
    assert sorted(names, key=natural) == ["1.png", "9.png", "10.png", "a2b9.png", "a2b10.png"]


@pytest.mark.parametrize("ending", ["_mask", ""])
def test_masks_are_paired_by_name(tmp_path, ending):
    # sorted, 1_mask.png comes after 10_mask.png and 11_mask.png, but 1.png before 10.png
    table = index(mvtec(tmp_path / "part", bad=11, ending=ending))
    bad = table[table["label"] == 1]
    assert [Path(image).stem for image in bad["image"]] == [str(i) for i in range(1, 12)]
    assert [read_mask(m).sum() for m in bad["mask"]] == list(range(1, 12))


def test_a_missing_mask_shifts_no_other(tmp_path):
    root = mvtec(tmp_path / "part", bad=4)
    (root / "ground_truth" / "scratch" / "2_mask.png").unlink()
    bad = index(root).query("label == 1")
    assert [None if m is None else int(read_mask(m).sum()) for m in bad["mask"]] == [1, None, 3, 4]


def test_masks_of_several_regions_are_united(tmp_path):
    root = mvtec(tmp_path / "part", bad=1)
    (root / "ground_truth" / "scratch" / "1_mask.png").unlink()
    mask(root / "ground_truth" / "scratch" / "1" / "000.png", 3)
    mask(root / "ground_truth" / "scratch" / "1" / "001.png", 7)
    (row,) = index(root).query("label == 1").to_dict("records")
    assert read_mask(row["mask"]).sum() == 7


def test_a_part_in_mvtec_layout(tmp_path):
    table = index(mvtec(tmp_path / "nut"))
    assert tuple(table.columns) == COLUMNS
    assert table.groupby(["category", "split", "defect", "label"]).size().to_dict() == {
        ("nut", "train", "good", 0): 4,
        ("nut", "test", "good", 0): 1,
        ("nut", "test", "scratch", 1): 3,
    }
    assert all(Path(image).is_absolute() for image in table["image"])
    assert table["mask"].isna().tolist() == (table["label"] == 0).tolist()


def test_a_root_of_parts_and_the_choice_of_one(tmp_path):
    mvtec(tmp_path / "nut")
    mvtec(tmp_path / "bolt", train=2)
    assert sorted(index(tmp_path)["category"].unique()) == ["bolt", "nut"]
    assert len(index(tmp_path, category="bolt").query("split == 'train'")) == 2
    with pytest.raises(DataError, match="Did you mean 'bolt'"):
        index(tmp_path, category="bolts")


def test_only_good_training_pictures_are_normals_and_no_test_file_is_opened(tmp_path):
    root = mvtec(tmp_path / "nut")
    for path in [*(root / "test").rglob("*.png"), *(root / "ground_truth").rglob("*.png")]:
        path.unlink()
        path.symlink_to("/nowhere/at/all.png")  # opening it would raise
    rows = normals(index(root))
    assert len(rows) == 4
    assert all("/train/good/" in image for image in rows["image"])


def test_good_beside_bad_is_for_testing(tmp_path):
    picture(tmp_path / "s" / "good" / "a.png", 1)
    picture(tmp_path / "s" / "bad" / "b.png", 2)
    mask(tmp_path / "s" / "masks" / "bad" / "b.png", 5)
    table = index(tmp_path / "s")
    assert table[["split", "defect", "label"]].to_numpy().tolist() == [
        ["test", "bad", 1],
        ["test", "good", 0],
    ]
    assert read_mask(table["mask"][0]).sum() == 5
    with pytest.raises(DataError, match="none; found 1 test/bad, 1 test/good"):
        normals(table)


def test_plain_folder_list_pattern_picture_and_table_agree(tmp_path):
    paths = [picture(tmp_path / "good" / f"{i}.png", i) for i in (2, 10, 1)]
    (tmp_path / "good" / "notes.txt").write_text("x")
    picture(tmp_path / "good" / ".hidden.png")
    folder = index(tmp_path / "good")
    assert [Path(i).name for i in folder["image"]] == ["1.png", "2.png", "10.png"]
    assert (folder["split"] == "train").all()
    assert (folder["label"] == 0).all()
    others = [index(paths), index(str(tmp_path / "good" / "*.png")), index(folder)]
    for other in others:
        assert other["image"].tolist() == folder["image"].tolist()
    assert len(index(paths[0])) == 1


@pytest.mark.parametrize("inner", ["test/good", "bad", "ground_truth"])
def test_a_plain_folder_hiding_a_judged_one_is_refused(tmp_path, inner):
    picture(tmp_path / "sets" / "a" / "b" / inner / "1.png")
    with pytest.raises(DataError, match="Name the folder"):
        index(tmp_path / "sets")


def test_missing_and_empty_sources_say_so(tmp_path):
    picture(tmp_path / "parts" / "x.png")
    with pytest.raises(DataError, match=r"nothing is there\. Beside it there are: parts"):
        index(tmp_path / "prats")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="the folder is empty"):
        index(tmp_path / "empty")
    (tmp_path / "empty" / "a.txt").write_text("x")
    with pytest.raises(DataError, match=r"found only a\.txt"):
        index(tmp_path / "empty")
    with pytest.raises(DataError, match="matches none"):
        index(str(tmp_path / "empty" / "*.png"))
    with pytest.raises(DataError, match="list is empty"):
        index([])
    with pytest.raises(DataError, match="manifest CSV, got"):
        index(tmp_path / "empty" / "a.txt")
    picture(tmp_path / "half" / "bad" / "1.png")
    with pytest.raises(DataError, match="folder `good` beside `bad`"):
        index(tmp_path / "half")


def manifest(tmp_path: Path, text: str) -> Path:
    for i in range(3):
        picture(tmp_path / "im" / f"{i}.png", i)
    mask(tmp_path / "m" / "2.png", 2)
    path = tmp_path / "manifest.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_manifest_with_words_extra_columns_and_two_splits(tmp_path):
    text = (
        "image;mask;defect;label;group;split_random;split_grouped\n"
        "im/0.png;;good;OK;7;train;train\nim/1.png;;;0;7;test;train\nim/2.png;m/2.png;crack;Defective;8;test;test\n"
    )
    table = index(manifest(tmp_path, text), split_column="split_grouped")
    assert table["label"].tolist() == [0, 0, 1]
    assert table["defect"].tolist() == ["good", "good", "crack"]
    assert table["split"].tolist() == ["train", "train", "test"]
    assert table["group"].tolist() == ["7", "7", "8"]
    assert table["mask"].tolist() == [None, None, str(tmp_path / "m" / "2.png")]
    assert table["split_random"].tolist() == ["train", "test", "test"]
    with pytest.raises(DataError, match=r"no column `split`.*split_random, split_grouped"):
        index(tmp_path / "manifest.csv")
    with pytest.raises(DataError, match="Did you mean `split_grouped`"):
        index(tmp_path / "manifest.csv", split_column="split_group")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("imgae,label\nim/0.png,0\n", "needs a column `image`.*Did you mean `imgae`"),
        ("image,label\nim/0.png,scratch\n", "Row 2 .*'scratch'; expected 0 or 1"),
        ("image,label\nim/0.png,0\nim/2.png,1\n", "no column `split`"),
        ("image,split\nim/0.png,fit\n", "should say train or test; found"),
        ("image\nelsewhere/0.png\n", "None of the 1 pictures"),
        ("image,label\n", "has no rows"),
    ],
)
def test_manifests_that_do_not_fit(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        index(manifest(tmp_path, text))


def test_manifest_goes_out_and_comes_back(tmp_path):
    table = index(mvtec(tmp_path / "nut"))
    back = index(write_manifest(table, tmp_path / "nut" / "list.csv"))
    pd.testing.assert_frame_equal(back, table)
    assert "train/good/0.png,,nut" in (tmp_path / "nut" / "list.csv").read_text()


def frame(names: list[str], groups: list[str | None] | None = None, category: str = "nut") -> pd.DataFrame:
    rows = {"image": [f"/d/{name}" for name in names], "mask": None, "category": category, "split": "train"}
    return pd.DataFrame({**rows, "defect": "good", "label": 0, "group": groups or [None] * len(names)})


def test_holdout_moves_no_picture_when_others_are_added():
    few, many = frame([f"{i}.png" for i in range(100)]), frame([f"{i}.png" for i in range(150)])
    train, held = holdout(few)
    later_train, later_held = holdout(many)
    assert set(held["image"]) <= set(later_held["image"])
    assert set(train["image"]) <= set(later_train["image"])
    assert 10 <= len(held) <= 32
    assert sorted([*train["image"], *held["image"]]) == sorted(few["image"])
    assert set(holdout(few, seed=1)[1]["image"]) != set(held["image"])


def test_holdout_does_not_depend_on_order_or_folder():
    table = frame([f"{i}.png" for i in range(40)])
    held = {Path(p).name for p in holdout(table)[1]["image"]}
    moved = table.iloc[::-1].assign(image=table["image"].str.replace("/d/", "/elsewhere/"))
    assert {Path(p).name for p in holdout(moved)[1]["image"]} == held


def test_holdout_keeps_groups_together():
    table = frame([f"{i}.png" for i in range(60)], [str(i // 6) for i in range(60)])
    train, held = holdout(table)
    assert not set(train["group"]) & set(held["group"])
    assert len(held["group"].unique()) >= 4


@pytest.mark.parametrize("count", range(2, 12))
@pytest.mark.parametrize("seed", range(4))
def test_holdout_of_a_small_set_leaves_no_side_empty(count, seed):
    train, held = holdout(frame([f"{i}.png" for i in range(count)]), seed=seed)
    assert len(train) >= 1
    assert len(held) >= min(4, count // 2)
    assert not set(train["image"]) & set(held["image"])


def test_one_picture_stands_on_both_sides():
    with pytest.warns(UserWarning, match="one picture"):
        train, held = holdout(frame(["a.png"]))
    assert train["image"].tolist() == held["image"].tolist() == ["/d/a.png"]


def test_one_group_only_is_divided_by_picture():
    with pytest.warns(UserWarning, match="one group"):
        train, held = holdout(frame([f"{i}.png" for i in range(20)], ["a"] * 20))
    assert len(train) + len(held) == 20
    assert min(len(train), len(held)) >= 1


def test_every_category_holds_some_out():
    table = pd.concat([frame([f"{i}.png" for i in range(8)], category=name) for name in ("a", "b", "c")])
    held = holdout(table.reset_index(drop=True))[1]
    assert (held.groupby("category").size() >= 4).all()
    assert len(held["category"].unique()) == 3


def test_index_and_check_load_no_torch():
    code = "import sys; import anodiff.data.index, anodiff.data.check; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
