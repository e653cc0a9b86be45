"""The set of drawn parts: what its manifest says is what its pictures show."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from anodiff.cli.main import main
from anodiff.data.boxes import Box, boxes, class_names
from anodiff.data.caption import captions
from anodiff.data.check import check
from anodiff.data.classmap import class_maps, read_classes
from anodiff.data.hardware import CLASSES, DARKEST, FINISHES, Pose, draw, ground, outline
from anodiff.data.image import read
from anodiff.data.index import index
from anodiff.data.parts import BRIGHT, make_parts
from anodiff.errors import ConfigError, DataError

COUNT = 60


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return make_parts(tmp_path_factory.mktemp("parts"), count=COUNT)


@pytest.fixture(scope="module")
def table(made) -> pd.DataFrame:
    return index(made)


def found(picture: np.ndarray) -> list[tuple[float, float, float, float]]:
    """The boxes of what is bright and hangs together, 12 pixels or more."""
    bright = (picture.max(axis=2) > BRIGHT * 255).astype(np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(bright, connectivity=8)
    high, wide = bright.shape
    return [
        (x / wide, y / high, (x + w) / wide, (y + h) / high) for x, y, w, h, area in stats[1:] if area >= 12
    ]


def overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Intersection over union of two boxes."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    both = max(0.0, wide) * max(0.0, high)
    return both / (sum((b[2] - b[0]) * (b[3] - b[1]) for b in (one, other)) - both)


def test_the_boxes_are_where_bright_things_are(table):
    for path, row in zip(table["image"], boxes(table), strict=True):
        seen = found(read(path))
        assert len(seen) == len(row)
        for box in row:
            assert max(overlap(box[1:], other) for other in seen) > 0.75


def test_the_map_shows_each_class_in_its_boxes_alone(table):
    for path, row in zip(class_maps(table), boxes(table), strict=True):
        numbers = read_classes(path, shape=(64, 64))
        expected = np.zeros((64, 64), bool)
        for box in row:
            inside = inside_of(box, 64)
            assert set(np.unique(numbers[inside])) == {0, CLASSES.index(box[0]) + 1}
            assert (numbers[inside] > 0).mean() > 0.15
            expected[inside] = True
        assert not numbers[~expected].any()


def inside_of(box: Box, size: int) -> tuple[slice, slice]:
    left, top, right, bottom = (round(side * size) for side in box[1:])
    return slice(top, bottom), slice(left, right)


def test_the_caption_tells_the_parts_of_the_boxes(table):
    numbers = {"a": 1, "two": 2, "three": 3, "four": 4}
    for caption, row in zip(captions(table), boxes(table), strict=True):
        told: Counter[str] = Counter()
        for number, finish, kind in re.findall(r"(a|two|three|four) (\w+) (\w+?)s?\b", caption):
            assert finish in FINISHES
            told[kind] += numbers[number]
        assert told == Counter(box[0] for box in row)
        middle = (row[0][1] + row[0][3]) / 2, (row[0][2] + row[0][4]) / 2
        if len(row) == 1:
            assert ("left" in caption) == (middle[0] < 0.42)
            assert ("right" in caption) == (middle[0] > 0.58)
            assert ("top" in caption) == (middle[1] < 0.42)
            assert ("bottom" in caption) == (middle[1] > 0.58)


def test_the_colour_named_is_the_colour_seen(table):
    """Of pictures with one part: the nearest finish to the mean colour, both without their brightness."""
    finishes = {name: np.array(colour) / sum(colour) for name, colour in FINISHES.items()}
    seen = 0
    for path, mask, caption in zip(table["image"], class_maps(table), captions(table), strict=True):
        if not caption.startswith("a ") or " and " in caption:
            continue
        colour = read(path)[read_classes(mask, shape=(64, 64)) > 0].mean(axis=0)
        colour = colour / colour.sum()
        assert min(finishes, key=lambda name: np.abs(finishes[name] - colour).sum()) == caption.split()[1]
        seen += 1
    assert seen > 8


def test_the_set_is_whole_and_sound(made, table):
    assert len(table) == COUNT
    assert table["split"].value_counts().to_dict() == {"train": 48, "test": 12}
    assert (table["label"] == 0).all()
    assert set(table["category"]) == {"parts"}
    assert class_names(boxes(table)) == CLASSES
    assert {word for caption in captions(table) for word in caption.split()} >= set(FINISHES)
    assert {len(row) for row in boxes(table)} == {1, 2, 3, 4}
    assert {read(path).shape for path in table["image"]} == {(64, 64, 3)}
    assert not check(table)
    assert made.read_text().splitlines()[1].startswith("images/00000.png,")


def digests(root: Path) -> dict[str, str]:
    files = (p for p in sorted(root.rglob("*")) if p.is_file())
    return {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_the_same_seed_gives_the_same_bytes_and_more_pictures_add_to_them(made, tmp_path):
    few, whole = digests(make_parts(tmp_path / "few", count=5).parent), digests(made.parent)
    assert len(few) == 11
    assert {name: whole[name] for name in few if name != "manifest.csv"} == {
        name: digest for name, digest in few.items() if name != "manifest.csv"
    }
    assert digests(make_parts(tmp_path / "again", count=5).parent) == few
    other = digests(make_parts(tmp_path / "other", count=5, seed=1).parent)
    assert not set(other.values()) & set(few.values())
    assert read(tmp_path / "few" / "images" / "00000.png").shape == (64, 64, 3)


@pytest.mark.parametrize("kind", CLASSES)
def test_a_part_is_brighter_than_any_ground(kind):
    for seed in range(6):
        rng = np.random.default_rng(seed)
        pose = Pose(x=20, y=26, radius=14, turn=rng.uniform(0, 6))
        shown = outline(kind, rng)
        for finish in FINISHES:
            cover, colour = draw(shown, pose, finish, shape=(48, 40), rng=rng)
            assert cover.shape == (48, 40)
            assert 0 <= cover.min() <= cover.max() <= 1
            assert colour[cover > 0].max(axis=-1).min() >= DARKEST - 1e-6
            rows, columns = np.nonzero(cover > 0)
            left, top, right, bottom = pose.bounds(shown)
            edge = 0.3  # a smoothed edge reaches a little beyond
            assert abs(columns.min() - np.floor(left - edge)) <= 1
            assert np.floor(left - edge) <= columns.min() <= columns.max() <= np.floor(right + edge)
            assert np.floor(top - edge) <= rows.min() <= rows.max() <= np.floor(bottom + edge)
        assert ground(rng, (48, 40)).max() <= DARKEST / 2


def test_a_washer_covers_the_area_of_its_ring_around_its_centre():
    rng = np.random.default_rng(3)
    shown = outline("washer", rng)
    inner = float(np.hypot(*shown.holes[0][0]))
    cover, _ = draw(shown, Pose(x=50, y=50, radius=40, turn=1.0), "steel", shape=(100, 100), rng=rng)
    assert float(cover.sum()) == pytest.approx(np.pi * 40**2 * (1 - inner**2), rel=0.02)
    middle = (cover.sum(axis=0) @ (np.arange(100) + 0.5), cover.sum(axis=1) @ (np.arange(100) + 0.5))
    np.testing.assert_allclose(np.array(middle) / cover.sum(), 50, atol=0.05)


def test_the_command_writes_the_set_once(tmp_path, capsys):
    words = ["data", "make-parts", str(tmp_path / "set"), "--count", "3", "--size", "48", "--most", "1"]
    assert main(words) == 0
    table = index(tmp_path / "set" / "manifest.csv")
    assert capsys.readouterr().out.strip() == str(tmp_path / "set" / "manifest.csv")
    assert [len(row) for row in boxes(table)] == [1, 1, 1]
    assert read(next(iter(table["image"]))).shape == (48, 48, 3)
    assert main(words) == 3
    assert "exists already" in capsys.readouterr().err


def test_wrong_numbers_are_refused(tmp_path, made):
    for wrong in ({"count": 0}, {"size": 16}, {"most": 5}, {"seed": -1}):
        with pytest.raises(ConfigError, match=f"got .*{next(iter(wrong))}={next(iter(wrong.values()))}"):
            make_parts(tmp_path, **wrong)
    with pytest.raises(DataError, match="exists already"):
        make_parts(made.parent)
