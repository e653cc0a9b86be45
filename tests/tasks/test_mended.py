"""Pictures enlarged and filled in: what the model is told, and what stays as it was."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from small_model import CPU, SHAPE, TEXT, configured, made, painted

from anodiff.data.image import prepare
from anodiff.encode.beside import LowRes, Masked
from anodiff.errors import DataError, RefusalError
from anodiff.tasks.asked import Asked
from anodiff.tasks.mended import enlarged, filled, pasted
from anodiff.tasks.task import task


def noisy(*shape: int, dtype: type = np.uint8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def hole(height: int, width: int) -> np.ndarray:
    hidden = np.zeros((height, width), bool)
    hidden[height // 4 : height // 2, width // 4 : width // 2 + 1] = True
    return hidden


# -------------------------------------------------------------------------- pasting


@pytest.mark.parametrize("shape", [(20, 30, 3), (20, 30)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("size", [(20, 30), (16, 24), (40, 48)])
def test_known_pixels_are_the_pictures_own(
    shape: tuple[int, ...], dtype: type, size: tuple[int, int]
) -> None:
    picture, hidden = noisy(*shape, dtype=dtype), hole(20, 30)
    made = np.full((*size, shape[2] if len(shape) == 3 else 1), 77, np.uint8)
    found = pasted(made, picture, hidden)
    assert found.dtype == np.uint8
    own = picture.reshape(20, 30, -1)
    expected = own if dtype is np.uint8 else np.round(own / 65535 * 255)
    assert np.array_equal(found[~hidden], expected[~hidden])
    assert (found[hidden] == 77).all()


def test_a_grey_picture_is_pasted_into_a_model_of_colours() -> None:
    picture, hidden = noisy(20, 30), hole(20, 30)
    found = pasted(noisy(16, 24, 3), picture, hidden)
    assert found.shape == (20, 30, 3)
    assert np.array_equal(found[~hidden], np.repeat(picture[..., None], 3, -1)[~hidden])


def test_the_filled_part_keeps_its_place() -> None:
    """A ramp made at another size is the same ramp where it is pasted."""
    ramp = np.tile(np.linspace(0, 255, 64, dtype=np.float32).round().astype(np.uint8), (64, 1))[..., None]
    hidden = np.zeros((32, 32), bool)
    hidden[8:24, 8:24] = True
    found = pasted(ramp, np.zeros((32, 32), np.uint8), hidden)
    expected = cv2.resize(ramp, (32, 32), interpolation=cv2.INTER_AREA)[..., None]
    assert np.abs(found[hidden].astype(int) - expected[hidden]).max() <= 1


# --------------------------------------------------------------------------- filling


def test_a_model_that_was_trained_to_reads_the_hole() -> None:
    config = configured("beside.kind=masked", "score.kind=repair", "score.cell=2")
    predictor = made(config)
    picture, hidden = noisy(*SHAPE, 3), hole(*SHAPE)
    rows = filled(picture, hidden, predictor, config, SHAPE, device=CPU)(range(2))
    image = prepare(picture, shape=SHAPE, channels=3)[None]
    expected = Masked().make(predictor.codec, image, torch.from_numpy(~hidden)[None, None])
    assert torch.equal(rows.cond.image, expected.expand(2, -1, -1, -1))
    assert rows.begin is None
    changed = picture.copy()
    changed[hidden] = 255 - changed[hidden]
    again = filled(changed, hidden, predictor, config, SHAPE, device=CPU)(range(2))
    assert torch.equal(again.cond.image, rows.cond.image)  # nothing of what is hidden is told


@pytest.mark.parametrize("words", [(), TEXT, ("beside.kind=masked", "score.kind=repair", "score.cell=2")])
def test_what_is_hidden_has_no_say_and_what_is_known_stays(words: tuple[str, ...], tmp_path: Path) -> None:
    config = configured(*words)
    predictor = made(config)
    hidden = hole(*SHAPE)
    cv2.imwrite(str(tmp_path / "mask.png"), hidden.astype(np.uint8) * 255)
    shown = []
    for name, inside in (("a", 10), ("b", 250)):
        picture = noisy(*SHAPE, 3)
        picture[hidden] = inside
        cv2.imwrite(str(tmp_path / f"{name}.png"), picture[..., ::-1])
        wanted = task(
            predictor,
            config,
            SHAPE,
            asked=Asked(),
            inpaint=tmp_path / f"{name}.png",
            mask=tmp_path / "mask.png",
            device=CPU,
        )
        assert wanted.count == 1
        shown.append(painted(predictor, wanted))
        assert np.array_equal(shown[-1][:, ~hidden], np.stack([picture[~hidden]] * 2))
    assert np.array_equal(shown[0], shown[1])
    assert (shown[0][0][hidden] != shown[0][1][hidden]).any()  # two draws


@pytest.mark.parametrize(
    ("hidden", "told"),
    [
        (np.zeros((16, 16), bool), "hides nothing"),
        (np.ones((16, 16), bool), "hides everything"),
        (np.eye(20, dtype=bool), "The mask is 20 x 20, the picture 16 x 16"),
    ],
)
def test_masks_without_sense_are_told(hidden: np.ndarray, told: str) -> None:
    config = configured()
    with pytest.raises(DataError, match=told):
        filled(noisy(16, 16, 3), hidden, made(config), config, SHAPE, device=CPU)


# ------------------------------------------------------------------------- enlarging


def test_small_pictures_take_turns_and_are_told_as_in_training() -> None:
    config = configured("beside={kind: lowres, factor: 4, noise: 0.1}", "score.kind=detail")
    pictures = [noisy(4, 4, 3), noisy(9, 9, 3, seed=1)]
    rows = enlarged(pictures, config, SHAPE, stride=2, device=CPU)(range(1, 4))
    low = LowRes(4, 0.1)
    for row, number in enumerate((1, 2, 3)):
        small = prepare(pictures[number % 2], shape=(4, 4), channels=3)[None]
        expected = low.from_small(small, (8, 8), [number])
        assert torch.allclose(rows.cond.image[row], expected[0])
    large = noisy(*SHAPE, 3)
    reduced = cv2.resize(large.astype(np.float32), (4, 4), interpolation=cv2.INTER_AREA)
    given = enlarged([reduced / 255], config, SHAPE, stride=2, device=CPU)(range(1)).cond.image
    trained = low.make(prepare(large, shape=SHAPE, channels=3)[None], (8, 8), [0])
    assert torch.allclose(given, trained, atol=1e-4)


def test_another_small_picture_gives_another_large_one(tmp_path: Path) -> None:
    config = configured("beside={kind: lowres, factor: 4}", "score.kind=detail")
    predictor = made(config)
    files = [tmp_path / f"{number}.png" for number in range(2)]
    for number, file in enumerate(files):
        cv2.imwrite(str(file), np.full((4, 4, 3), 40 + 160 * number, np.uint8))
    shown = []
    for file in files:
        wanted = task(predictor, config, SHAPE, asked=Asked(), superres=[file], device=CPU)
        assert wanted.count == 1
        shown.append(painted(predictor, wanted, count=1))
    assert (shown[0] != shown[1]).any()


def test_a_model_that_adds_no_detail_says_so() -> None:
    with pytest.raises(RefusalError, match=r"fit one with beside\.kind=lowres"):
        enlarged([noisy(4, 4, 3)], configured(), SHAPE, stride=2, device=CPU)
