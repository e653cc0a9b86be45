from __future__ import annotations

import numpy as np
import pytest
import torch
from data_tree import picture
from torch.utils.data import DataLoader

from anodiff.data.augment import Augmentation
from anodiff.data.dataset import ImageSet, item_seed
from anodiff.data.image import prepare, read
from anodiff.errors import ConfigError, DataError

EVERYTHING = Augmentation(
    flip_h=True, flip_v=True, rotate90=True, rotate=10, translate=0.1, scale=0.1, brightness=0.1, contrast=0.2
)


def pictures(count: int, height: int = 40, width: int = 40) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_with_the_defaults_nothing_changes():
    image = pictures(3)
    assert torch.equal(Augmentation()(image, [1, 2, 3]), image)


@pytest.mark.parametrize("width", [40, 56])
def test_a_row_depends_on_its_own_picture_and_seed_only(width):
    image, seeds = pictures(5, width=width), [5, 6, 7, 8, 9]
    together = EVERYTHING(image, seeds)
    assert together.shape == image.shape
    for i in range(5):
        torch.testing.assert_close(
            EVERYTHING(image[i : i + 1], seeds[i : i + 1])[0], together[i], rtol=0, atol=1e-6
        )
    torch.testing.assert_close(EVERYTHING(image.flip(0), seeds[::-1]).flip(0), together, rtol=0, atol=1e-6)
    assert torch.equal(EVERYTHING(image, seeds), together)
    assert not torch.allclose(EVERYTHING(image, [50, 60, 70, 80, 90]), together, atol=1e-2)


def test_no_global_randomness_is_touched():
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    EVERYTHING(pictures(2), [0, 1])
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002


def test_no_black_corners_appear():
    bright = torch.full((16, 1, 48, 64), 0.7)
    moved = Augmentation(rotate=45, translate=0.2, scale=0.3)(bright, list(range(16)))
    torch.testing.assert_close(moved, bright, rtol=0, atol=1e-4)


def test_flips_and_quarter_turns_move_pixels_exactly():
    image = pictures(1)
    seen = set()
    for seed in range(80):
        out = Augmentation(flip_h=True, flip_v=True, rotate90=True)(image, [seed])[0]
        matches = [
            (turn, flip)
            for turn in range(4)
            for flip in (False, True)
            if torch.equal(out, (image[0].flip(2) if flip else image[0]).rot90(turn, (1, 2)))
        ]
        assert matches
        seen.add(matches[0])
    assert len(seen) == 8
    oblong = pictures(1, 40, 56)
    for seed in range(10):
        out = Augmentation(rotate90=True)(oblong, [seed])[0]
        assert torch.equal(out, oblong[0]) or torch.equal(out, oblong[0].rot90(2, (1, 2)))


def test_a_shift_is_by_the_share_of_the_side():
    ramp = torch.linspace(0.2, 0.8, 100).expand(1, 1, 20, 100)
    shifts = [
        float((Augmentation(translate=0.1)(ramp, [seed]) - ramp)[0, 0, 10, 30:70].mean()) / (0.6 / 99) / 100
        for seed in range(60)
    ]
    assert max(np.abs(shifts)) <= 0.1 + 1e-3
    assert max(shifts) > 0.07
    assert min(shifts) < -0.07


def test_brightness_and_contrast_stay_in_their_ranges():
    image = 0.3 + 0.4 * pictures(40)
    out = Augmentation(brightness=0.1)(image, list(range(40)))
    moved = (out - image).flatten(1)
    assert float(moved.std(dim=1).max()) < 1e-6
    assert 0.07 < float(moved.mean(dim=1).max()) <= 0.1
    assert -0.1 <= float(moved.mean(dim=1).min()) < -0.07
    out = Augmentation(contrast=0.2)(image, list(range(40)))
    gain = out.flatten(1).std(dim=1) / image.flatten(1).std(dim=1)
    assert 1 / 1.2 - 1e-3 <= float(gain.min()) < 0.9
    assert 1.1 < float(gain.max()) <= 1.2 + 1e-3


def test_ranges_without_meaning_are_refused():
    with pytest.raises(ConfigError, match=r"`translate` between 0 and 0\.5, got 2"):
        Augmentation(translate=2)
    with pytest.raises(ConfigError, match="B seeds"):
        EVERYTHING(pictures(2), [1])


def paths(tmp_path) -> list[str]:
    return [str(picture(tmp_path / f"{i}.png", i)) for i in range(4)]


@pytest.mark.parametrize("cache", [None, torch.uint8, torch.float16, torch.float32])
def test_items_are_a_pure_function_of_seed_index_and_draw(tmp_path, cache):
    files = paths(tmp_path)
    make = lambda seed: ImageSet(files, shape=(16, 24), augment=EVERYTHING, draws=3, seed=seed, cache=cache)  # noqa: E731
    one, two = make(7), make(7)
    assert len(one) == 12
    order = [11, 3, 0, 5, 5, 3]
    for k in order:
        assert torch.equal(one[k], two.item(k % 4, k // 4))
        assert torch.equal(one[k], make(7)[k])
    assert not torch.allclose(one[0], one[4], atol=1e-2)
    assert not torch.allclose(one[0], make(8)[0], atol=1e-2)
    batches = torch.cat(list(DataLoader(one, batch_size=5)))
    assert torch.equal(batches, torch.stack([two[k] for k in range(12)]))


def test_a_plain_set_gives_the_prepared_picture_and_survives_writing(tmp_path):
    files = paths(tmp_path)
    expected = prepare(read(files[2]), shape=(16, 16), channels=1)
    for cache, within in (
        (None, 0),
        (torch.float32, 0),
        (torch.float16, 6e-4),
        (torch.uint8, 0.5 / 255 + 1e-6),
    ):
        images = ImageSet(files, shape=(16, 16), channels=1, cache=cache)
        for _ in range(2):
            item = images[2]
            torch.testing.assert_close(item, expected, rtol=0, atol=within)
            item.zero_()
    with pytest.raises(IndexError):
        images[4]
    (tmp_path / "1.png").write_text("gone")
    with pytest.raises(DataError, match=r"1\.png"):
        ImageSet(files, shape=(16, 16))[1]


def test_item_seeds_do_not_collide():
    assert len({item_seed(s, i, d) for s in range(5) for i in range(20) for d in range(20)}) == 2000
