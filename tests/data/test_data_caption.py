"""Captions and boxes of a table: where they come from, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from data_tree import picture

from anodiff.data.boxes import boxes, class_names, parse, written
from anodiff.data.caption import captions, composed
from anodiff.data.index import index
from anodiff.data.manifest import write_manifest
from anodiff.errors import ConfigError, DataError

TEMPLATE = "a photo of a {state} {category}"
ROW = [["bolt", 0.1, 0.2, 0.3, 0.4], ["washer", 0, 0.5, 1, 1]]


def told(tmp_path: Path, **columns: list[object]) -> pd.DataFrame:
    """Three pictures, the last defective, with further columns."""
    images = [str(picture(tmp_path / "im" / f"{i}.png", i)) for i in range(3)]
    return index(
        pd.DataFrame(
            {
                "image": images,
                "category": "metal_nut",
                "split": ["train", "train", "test"],
                "defect": ["good", "", "broken_large"],
                "label": [0, 0, 1],
                **columns,
            }
        )
    )


def test_captions_are_composed_from_category_and_state(tmp_path):
    assert captions(told(tmp_path), template=TEMPLATE) == [
        "a photo of a good metal nut",
        "a photo of a good metal nut",
        "a photo of a broken large metal nut",
    ]
    assert composed("{state} {category}, {state}", category="bottle", state="oil_stain") == (
        "oil stain bottle, oil stain"
    )


def test_a_caption_of_ones_own_comes_first(tmp_path):
    table = told(tmp_path, caption=["a brass nut", "  ", None], words=["x", "y", "z"])
    assert captions(table) == [
        "a brass nut",
        "a photo of a good metal nut",
        "a photo of a broken large metal nut",
    ]
    assert captions(table, column="words") == ["x", "y", "z"]


def test_captions_that_are_missing_or_empty_are_refused(tmp_path):
    table = told(tmp_path, caption=["a brass nut", "", "..."])
    with pytest.raises(DataError, match=r"column 'words'.*columns: image, .*caption"):
        captions(table, column="words")
    with pytest.raises(DataError, match=r"row 2 \(.*1\.png\) is empty"):
        captions(table, template="")
    with pytest.raises(DataError, match=r"row 3 \(.*2\.png\) is empty"):
        captions(table)
    with pytest.raises(ConfigError, match=r"field 'colour'"):
        captions(table, template="a {colour} {category}")
    with pytest.raises(ConfigError, match="cannot be read"):
        captions(table, template="a {category")


def test_boxes_go_through_a_manifest_as_text_file_or_nothing(tmp_path):
    for i in range(3):
        picture(tmp_path / "im" / f"{i}.png", i)
    (tmp_path / "layouts").mkdir()
    (tmp_path / "layouts" / "1.json").write_text(json.dumps(ROW[:1]))
    text = json.dumps(ROW).replace('"', '""')
    lines = [
        "image,boxes,note",
        f'im/0.png,"{text}",see im/9.png',
        "im/1.png,layouts/1.json,im/2.png",
        "im/2.png,,",
    ]
    (tmp_path / "list.csv").write_text("\n".join(lines) + "\n")
    table = index(tmp_path / "list.csv")
    expected = [
        [("bolt", 0.1, 0.2, 0.3, 0.4), ("washer", 0.0, 0.5, 1.0, 1.0)],
        [("bolt", 0.1, 0.2, 0.3, 0.4)],
        [],
    ]
    assert boxes(table, column="boxes") == expected
    assert class_names(expected) == ("bolt", "washer")
    assert table["note"].tolist() == ["see im/9.png", str(tmp_path / "im" / "2.png"), ""]
    back = write_manifest(table, tmp_path / "again.csv")
    assert "layouts/1.json,im/2.png" in back.read_text()
    assert str(tmp_path) not in back.read_text()
    pd.testing.assert_frame_equal(index(back), table)


def test_boxes_of_a_table_may_be_lists(tmp_path):
    table = told(tmp_path, boxes=[ROW, [], ROW[:1]])
    assert [len(row) for row in boxes(table)] == [2, 0, 1]
    assert parse(written(boxes(table)[0]), where="there") == boxes(table)[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected boxes as JSON"),
        ('{"bolt": 1}', "expected a list of boxes"),
        ('[["bolt", 0.1, 0.2, 0.3]]', "box 1: expected a class and four numbers"),
        ('[["bolt", 0.1, 0.2, 0.3, "0.4"]]', "box 1: expected a class and four numbers"),
        ("[[1, 0.1, 0.2, 0.3, 0.4]]", "box 1: expected a class and four numbers"),
        ('[["bolt", 0.1, 0.2, NaN, 0.4]]', "box 1: expected a class and four numbers"),
        (
            '[["bolt", 0, 0, 1, 1], ["bolt", 0.3, 0.2, 0.3, 0.4]]',
            "box 2: expected 0 <= left < right <= 1.*left=0.3",
        ),
        ('[["bolt", 0.1, 0.4, 0.3, 0.2]]', "box 1: .*top=0.4, right=0.3, bottom=0.2"),
        ('[["bolt", -0.1, 0.2, 0.3, 0.4]]', "left=-0.1"),
        ('[["bolt", 10, 20, 30, 40]]', "Divide pixels by"),
        ("gone.json", r"gone\.json cannot be read"),
    ],
)
def test_boxes_that_are_none_name_picture_and_box(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        boxes(told(tmp_path, boxes=[json.dumps(ROW), text, ""]))
    if not text.endswith(".json"):
        with pytest.raises(DataError, match=r"1\.png, column 'boxes'"):
            boxes(told(tmp_path, boxes=["", text, ""]))


def test_a_table_without_boxes_is_refused(tmp_path):
    with pytest.raises(DataError, match="no box"):
        boxes(told(tmp_path, boxes=["", "[]", None]))
    with pytest.raises(DataError, match=r"column 'places'.*columns: image"):
        boxes(told(tmp_path), column="places")
