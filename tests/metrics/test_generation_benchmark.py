"""The data of the generation benchmarks: crops are functions of their seed, and held-out ones share no pixel."""

import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def generation():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import generation
    finally:
        sys.path.pop(0)
    return generation


def test_no_block_of_a_texture_is_both_trained_on_and_held_out(generation):
    train, held = generation.textures()
    assert (len(train), len(held)) == (36, 12)
    assert sorted(set(train.labels)) == sorted(set(held.labels)) == [0, 1, 2]
    blocks = [picture.numpy().tobytes() for picture in train.pictures + held.pictures]
    assert len(set(blocks)) == 48


def test_crops_are_functions_of_their_seed_and_lie_within_their_picture(generation):
    ramp = torch.linspace(0, 1, 40 * 50).reshape(1, 40, 50)
    patches = generation.Patches([ramp, 1 - ramp], [0, 1], ("up", "down"))
    assert torch.equal(patches.crop(0, 5), patches.crop(0, 5))
    assert not torch.equal(patches.crop(0, 5), patches.crop(0, 6))
    assert torch.equal(patches.item(1, 5), 2 * patches.crop(1, 5) - 1)
    step = float(ramp[0, 0, 1])
    mirrored = set()
    for seed in range(20):
        crop = patches.crop(0, seed)
        assert crop.shape == (1, 32, 32)
        slope = float(crop[0, 0, 1] - crop[0, 0, 0])
        assert abs(slope) == pytest.approx(step, rel=1e-3)
        mirrored.add(slope < 0)
    assert mirrored == {False, True}
    crops, labels = patches.drawn(6, seed=1)
    assert crops.shape == (6, 1, 32, 32)
    assert labels.tolist() == [0, 1, 0, 1, 0, 1]


def test_features_do_not_tell_grey_from_its_copy_in_colour(generation):
    from anodiff.codec.backbone import backbone
    from anodiff.codec.pooled import Pooled

    pooled = Pooled(backbone("tf_efficientnet_lite0", (2, 3), weights="random").eval(), size=64)
    image = generation.textures()[0].drawn(3, seed=0)[0]
    assert torch.allclose(pooled(image), pooled(image.expand(-1, 3, -1, -1)), atol=1e-6)


@pytest.mark.real_data
def test_parts_of_a_manifest_are_on_one_side_only(generation):
    folder = ROOT.parent / "shared" / "data" / "magnetic_tile"
    if not folder.is_dir():
        pytest.skip("the shared folder of real pictures is absent")
    from anodiff.data.index import index

    table = index(folder / "manifest.csv", split_column="split_grouped")
    good = table[table["label"] == 0]
    assert not set(good[good["split"] == "train"]["group"]) & set(good[good["split"] == "test"]["group"])
