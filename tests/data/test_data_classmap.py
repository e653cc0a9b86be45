"""Maps of classes: read as numbers, resized without mixing two of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from data_tree import picture, write

from anodiff.data.classmap import class_maps, read_classes
from anodiff.errors import DataError


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_values_are_classes(tmp_path, kind):
    numbers = np.arange(48).reshape(6, 8).astype(kind)
    path = write(tmp_path / "map.png", numbers)
    assert read_classes(path, shape=(6, 8)).dtype == np.int64
    assert np.array_equal(read_classes(path, shape=(6, 8)), numbers)
    assert np.array_equal(read_classes(path, shape=(12, 16)), numbers.repeat(2, axis=0).repeat(2, axis=1))
    assert np.array_equal(read_classes(path, shape=(2, 8)), numbers[1::3])  # the middle of three rows


def test_no_class_is_made_up_between_two(tmp_path):
    numbers = np.random.default_rng(0).choice([0, 7], size=(40, 56)).astype(np.uint8)
    path = write(tmp_path / "map.png", numbers)
    for shape in [(16, 16), (33, 91), (64, 64)]:
        assert set(np.unique(read_classes(path, shape=shape))) == {0, 7}


def test_what_is_no_map_is_refused(tmp_path):
    coloured = picture(tmp_path / "colour.png", shape=(24, 32, 3))
    with pytest.raises(DataError, match=r"colour\.png: expected a map of classes"):
        read_classes(coloured, shape=(8, 8))
    table = pd.DataFrame({"image": ["a.png", "b.png"], "map": ["m/a.png", None]})
    with pytest.raises(DataError, match=r"b\.png has no map"):
        class_maps(table)
    with pytest.raises(DataError, match=r"column 'classes'.*columns: image, map"):
        class_maps(table, column="classes")
    assert class_maps(table.head(1)) == ["m/a.png"]
