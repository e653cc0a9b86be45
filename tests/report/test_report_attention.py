"""The sheet of where words look: a row a picture, a column a word, heat where the map is high."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from anodiff.report.attention import DOTS, SIDE, Looked, attention_png


def sheet(*rows: Looked) -> np.ndarray:
    """The sheet as whole numbers [H, W, 3], RGB."""
    return cv2.imdecode(np.frombuffer(attention_png(rows), np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int)


def grey(*shape: int) -> np.ndarray:
    return np.full(shape, 128, np.uint8)


@pytest.mark.parametrize("picture", [grey(32, 32, 1), grey(32, 32, 3)])
def test_a_word_is_drawn_where_it_looks(picture: np.ndarray) -> None:
    left = np.zeros((1, 8, 8), np.float32)
    left[:, :, :3] = 1
    found = sheet(Looked(picture, ["bolt"], left))
    height, width = found.shape[:2]
    assert width == pytest.approx(2 * SIDE * DOTS, abs=2)
    middle = found[height * 2 // 3]  # below the title; two panels side by side
    coloured = np.ptp(middle, axis=-1) > 40
    assert not coloured[: width // 2].any()  # the picture alone
    assert coloured[width // 2 + 20 : width // 2 + 40].all()
    assert not coloured[-40:-10].any()  # nothing is laid over where no word looks
    assert middle[-40:-10] == pytest.approx(128, abs=2)


def test_rows_of_fewer_words_leave_the_rest_empty() -> None:
    maps = np.ones((3, 4, 4), np.float32)
    found = sheet(
        Looked(grey(16, 16, 3), ["a", "$b$", "c" * 40], maps), Looked(grey(16, 16, 3), ["a"], maps[:1])
    )
    height, width = found.shape[:2]
    assert width == pytest.approx(4 * SIDE * DOTS, abs=2)
    assert (found[height // 2 + 40 :, width // 2 + 10 :] == 255).all()
    assert (found[height // 2 - 40, width // 2 + 40] != 255).any()


def test_the_sheet_keeps_the_pictures_shape() -> None:
    wide = sheet(Looked(grey(16, 32, 3), ["a"], np.ones((1, 4, 8), np.float32)))
    tall = sheet(Looked(grey(32, 16, 3), ["a"], np.ones((1, 8, 4), np.float32)))
    assert wide.shape[0] < tall.shape[0]
    assert wide.shape[1] == tall.shape[1]
