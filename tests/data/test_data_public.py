from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from data_tree import mask, mvtec, picture

from anodiff.data.elpv import make_elpv
from anodiff.data.image import read, read_mask
from anodiff.data.index import index, normals
from anodiff.data.public import SETS, public
from anodiff.data.table import COLUMNS
from anodiff.errors import ConfigError, DataError, MissingExtraError


def marks(table) -> dict[str, int]:
    bad = table[table["label"] == 1]
    return {Path(i).stem: int(read_mask(m).sum()) for i, m in zip(bad["image"], bad["mask"], strict=True)}


@pytest.mark.parametrize("name", ["mvtec_ad", "MVTec-AD", "visa", "mpdd"])
@pytest.mark.parametrize("ending", ["_mask", ""])
def test_sets_of_mvtec_shape_pair_masks_by_name(tmp_path, name, ending):
    mvtec(tmp_path / "nut", bad=11, ending=ending)
    table = public(name, tmp_path, "nut")
    assert tuple(table.columns) == COLUMNS
    assert marks(table) == {str(i): i for i in range(1, 12)}
    assert table.groupby(["split", "label"]).size().to_dict() == {
        ("train", 0): 4,
        ("test", 0): 1,
        ("test", 1): 11,
    }
    assert len(normals(table)) == 4
    assert set(table["category"]) == {"nut"}


def test_anomalib_and_our_index_agree(tmp_path):
    mvtec(tmp_path / "nut", bad=4)
    assert public("mvtec_ad", tmp_path, "nut").equals(index(tmp_path / "nut"))


def test_visa_as_its_authors_pack_it(tmp_path):
    picture(tmp_path / "candle" / "Data" / "Images" / "Normal" / "0.JPG", 0)
    picture(tmp_path / "candle" / "Data" / "Images" / "Normal" / "1.JPG", 1)
    picture(tmp_path / "candle" / "Data" / "Images" / "Anomaly" / "0.JPG", 2)
    mask(tmp_path / "candle" / "Data" / "Masks" / "Anomaly" / "0.png", 9)
    (tmp_path / "split_csv").mkdir()
    (tmp_path / "split_csv" / "1cls.csv").write_text(
        "object,split,label,image,mask\n"
        "candle,train,normal,candle/Data/Images/Normal/0.JPG,\n"
        "candle,test,normal,candle/Data/Images/Normal/1.JPG,\n"
        "candle,test,anomaly,candle/Data/Images/Anomaly/0.JPG,candle/Data/Masks/Anomaly/0.png\n"
        "cashew,test,normal,cashew/Data/Images/Normal/1.JPG,\n"
    )
    table = public("visa", tmp_path, "candle")
    assert sorted(zip(table["split"], table["label"], strict=True)) == [
        ("test", 0),
        ("test", 1),
        ("train", 0),
    ]
    assert marks(table) == {"0": 9}
    assert not (tmp_path / "visa_pytorch").exists()
    with pytest.raises(DataError, match="lists no object 'fryum'"):
        public("visa", tmp_path, "fryum")


def test_btech(tmp_path):
    picture(tmp_path / "01" / "train" / "ok" / "1.bmp", 1)
    picture(tmp_path / "01" / "test" / "ok" / "2.bmp", 2)
    for i in (1, 10, 2):
        picture(tmp_path / "01" / "test" / "ko" / f"{i}.bmp", i)
        mask(tmp_path / "01" / "ground_truth" / "ko" / f"{i}.png", i)
    table = public("btad", tmp_path, "01")
    assert marks(table) == {"1": 1, "2": 2, "10": 10}
    assert set(table["defect"]) == {"good", "defect"}
    assert table["mask"].isna().sum() == 2


def test_mvtec_ad_2_and_loco(tmp_path):
    part = tmp_path / "ad2" / "can"
    for i, place in enumerate(("train/good", "validation/good", "test_public/good", "test_public/bad")):
        picture(part / place / "000.png", i)
    mask(part / "test_public" / "ground_truth" / "bad" / "000_mask.png", 4)
    table = public("mvtec_ad_2", tmp_path / "ad2", "can")
    assert sorted(table["split"]) == ["test", "test", "train", "val"]
    assert marks(table) == {"000": 4}
    assert len(normals(table)) == 1
    part = tmp_path / "loco" / "pushpins"
    for i, place in enumerate(("train/good", "validation/good", "test/good", "test/logical_anomalies")):
        picture(part / place / "005.png", i)
    mask(part / "ground_truth" / "logical_anomalies" / "005" / "000.png", 4)
    mask(part / "ground_truth" / "logical_anomalies" / "005" / "001.png", 6)
    table = public("mvtec_loco", tmp_path / "loco", "pushpins")
    assert sorted(table["split"]) == ["test", "test", "train", "val"]
    assert marks(table) == {"005": 6}


def test_kolektor_groups_the_photographs_of_one_part(tmp_path):
    for item in range(5):
        for part in range(2):
            picture(tmp_path / f"kos{item:02}" / f"Part{part}.jpg", 2 * item + part)
            mask(tmp_path / f"kos{item:02}" / f"Part{part}_label.bmp", 5 if (item, part) == (3, 1) else 0)
    table = public("kolektor", tmp_path, "kolektor")
    assert marks(table) == {"Part1": 5}
    assert table["group"].nunique() == 5
    assert table.groupby("label")["mask"].count().to_dict() == {0: 0, 1: 1}


def test_real_iad(tmp_path):
    home = tmp_path / "realiad_256" / "audiojack"
    rows = {"train": [], "test": []}
    for split, kind, word in (("train", "OK", "OK"), ("test", "NG", "AK")):
        name = f"{kind}/{word}/S0001/audiojack_0001_{kind}_C1.png"
        picture(home / name, len(word))
        rows[split].append({"image_path": name, "mask_path": None, "anomaly_class": word})
    rows["test"][0]["mask_path"] = "NG/AK/S0001/audiojack_0001_mask.png"
    mask(home / rows["test"][0]["mask_path"], 8)
    listing = tmp_path / "realiad_jsons" / "realiad_jsons" / "audiojack.json"
    listing.parent.mkdir(parents=True)
    listing.write_text(json.dumps(rows))
    table = public("Real-IAD", tmp_path, "audiojack")
    assert dict(zip(table["split"], table["defect"], strict=True)) == {"train": "good", "test": "AK"}
    assert list(marks(table).values()) == [8]
    assert table["group"].nunique() == 2


@pytest.mark.parametrize("name", sorted(SETS))
def test_a_missing_set_says_where_to_get_it_and_downloads_nothing(tmp_path, name):
    root = tmp_path / "absent"
    with pytest.raises(
        DataError, match=r"(?s)was expected at .*absent.*Nothing is downloaded; get it from https://"
    ):
        public(name, root, "bottle")
    assert not root.exists()
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_set_is_named_among_the_known(tmp_path):
    with pytest.raises(ConfigError, match=r"BTech.*VisA"):
        public("imagenet", tmp_path, "cat")


@pytest.fixture(scope="module")
def elpv(tmp_path_factory):
    pytest.importorskip("elpv_dataset", reason="the extra `elpv` is not installed")
    return index(make_elpv(tmp_path_factory.mktemp("elpv")))


def test_elpv_follows_its_split_rule(elpv):
    assert len(elpv) == 2624
    counts = elpv.groupby(["split", "label", "probability"]).size().to_dict()
    assert counts == {
        ("train", 0, "0.0"): 1206,
        ("test", 0, "0.0"): 302,
        ("test", 1, "1.0"): 715,
        ("unsure", 1, "0.333"): 295,
        ("unsure", 1, "0.667"): 106,
    }
    assert len(normals(elpv)) == 1206
    assert read(elpv["image"].iloc[0]).shape == (300, 300)
    assert all(Path(path).is_file() for path in elpv["image"])


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "elpv_dataset", None)
    monkeypatch.setattr("anodiff.data.elpv.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"anodiff\[elpv\]"):
        make_elpv(tmp_path)
