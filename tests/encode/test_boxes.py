"""Boxes with classes as rows of numbers."""

from __future__ import annotations

import json

import pytest
import torch

from anodiff.encode.boxes import Classes, read_layout
from anodiff.errors import ConfigError, DataError
from anodiff.nets.boxes import BoxEncoder

KNOWN = Classes(names=("bolt", "gear", "washer"), most=3)


def test_a_row_holds_class_numbers_corners_and_empty_places():
    row = KNOWN.row([("washer", 0.1, 0.2, 0.3, 0.4), ("bolt", 0.0, 0.5, 1.0, 1.0)])
    assert row.dtype == torch.float32
    assert row[:, 0].tolist() == [2, 0, -1]
    torch.testing.assert_close(row[:2, 1:], torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.0, 0.5, 1.0, 1.0]]))


def test_rows_of_pictures_are_their_rows():
    pictures = [[("gear", 0.0, 0.0, 0.5, 0.5)], []]
    rows = KNOWN.rows(pictures)
    assert torch.equal(rows, torch.stack([KNOWN.row(boxes) for boxes in pictures]))
    assert rows[1, :, 0].tolist() == [-1, -1, -1]
    assert KNOWN.rows([]).shape == (0, 3, 5)


def test_the_encoder_of_boxes_reads_them():
    tokens, mask = BoxEncoder(len(KNOWN.names), 8)(KNOWN.rows([[("gear", 0.0, 0.0, 0.5, 0.5)], []]))
    assert tokens.shape == (2, 4, 8)
    assert mask.tolist() == [[True, False, False, True], [False] * 4]


def test_what_the_model_does_not_know_is_refused():
    with pytest.raises(ConfigError, match="no class 'nut'; its classes are bolt, gear, washer"):
        KNOWN.row([("nut", 0.1, 0.2, 0.3, 0.4)])
    with pytest.raises(ConfigError, match="3 boxes of a picture at most, got 4"):
        KNOWN.row([("bolt", 0.1, 0.2, 0.3, 0.4)] * 4)
    with pytest.raises(DataError, match="box 2: expected 0 <= left < right <= 1"):
        KNOWN.row([("bolt", 0.1, 0.2, 0.3, 0.4), ("bolt", 0.3, 0.2, 0.1, 0.4)])


def test_a_layout_is_read_from_a_file(tmp_path):
    path = tmp_path / "layout.json"
    path.write_text(json.dumps([["bolt", 0.1, 0.2, 0.3, 0.4]]))
    assert read_layout(path) == [("bolt", 0.1, 0.2, 0.3, 0.4)]
    path.write_text("[]")
    with pytest.raises(DataError, match="holds no box"):
        read_layout(path)
    path.write_text('[["bolt", 0.1, 0.2, 0.3, 40]]')
    with pytest.raises(DataError, match=r"layout\.json, box 1: .*bottom=40"):
        read_layout(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_layout(tmp_path / "gone.json")
