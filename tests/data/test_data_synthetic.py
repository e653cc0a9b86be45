from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from anodiff.data.check import check
from anodiff.data.demo import PHOTOGRAPHS, make_demo
from anodiff.data.image import read, read_mask
from anodiff.data.index import index
from anodiff.data.synthetic import COARSE, KINDS, VISIBLE, paint
from anodiff.errors import ConfigError, DataError


def surface(channels: int, height: int = 96, width: int = 128, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.random((height, width, channels)), (0, 0), 2).reshape(
        height, width, channels
    )
    return torch.from_numpy(0.45 + 2 * (noise - noise.mean())).permute(2, 0, 1).clamp(0, 1).float()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_mask_is_exactly_where_the_picture_changed(kind, channels):
    image = surface(channels)
    before = image.clone()
    for seed in range(6):
        for strength in (1.0, 0.3):
            out, mask = paint(image, kind, seed=seed, strength=strength)
            assert out.shape == image.shape
            assert mask.shape == (1, *image.shape[1:])
            assert mask.dtype == torch.bool
            changed = (out - image).abs().amax(dim=0, keepdim=True)
            assert torch.equal(changed > 0, mask)
            assert float(changed[mask].min()) > VISIBLE - 1e-6
            assert 12 <= int(mask.sum()) <= 0.35 * mask.numel()
            assert 0 <= float(out.min()) <= float(out.max()) <= 1
    assert torch.equal(image, before)


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides_and_nothing_else(kind):
    image = surface(3)
    one, two, other = (paint(image, kind, seed=seed) for seed in (4, 4, 5))
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
    assert not torch.equal(one[1], other[1])


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("kind", KINDS)
def test_a_defect_shows_on_even_pictures_too(kind, value):
    _, mask = paint(torch.full((1, 64, 64), value), kind, seed=0, strength=0.3)
    assert mask.sum() >= 12


@pytest.mark.parametrize("kind", ["scratch", "blob", "missing", "stain"])
def test_strength_is_contrast(kind):
    image = surface(1, 160, 160)
    strong, weak = (
        np.mean(
            [float((paint(image, kind, seed=s, strength=strength)[0] - image).abs().max()) for s in range(12)]
        )
        for strength in (1.0, 0.25)
    )
    assert strong > 1.4 * weak


@pytest.mark.parametrize(("kind", "most"), [("hair", 0.02), ("pit", 0.0175)])
def test_the_smallest_kinds_are_small(kind, most):
    image = surface(1, 256, 256)
    shares = [float(paint(image, kind, seed=seed)[1].float().mean()) for seed in range(16)]
    assert max(shares) < most
    assert min(shares) < 0.002


def test_a_foreign_picture_is_what_shows():
    image, foreign = surface(3), torch.tensor([0.9, 0.1, 0.1]).view(3, 1, 1).expand(3, 96, 128)
    out, mask = paint(image, "texture", seed=1, foreign=foreign)
    core = cv2.erode(mask[0].numpy().astype(np.uint8), np.ones((5, 5))) > 0
    assert core.any()
    torch.testing.assert_close(out[:, core], foreign[:, core])


def test_wrong_calls_are_refused():
    image = surface(1)
    with pytest.raises(ConfigError, match="scratch, blob"):
        paint(image, "dent", seed=0)
    with pytest.raises(ConfigError, match="strength"):
        paint(image, "blob", seed=0, strength=0)
    with pytest.raises(ConfigError, match="1 or 3 channels"):
        paint(image[0], "blob", seed=0)
    with pytest.raises(ConfigError, match="foreign"):
        paint(image, "texture", seed=0, foreign=image[:, :50])


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    return make_demo(tmp_path_factory.mktemp("demo") / "set", train=6, good=3, bad=len(COARSE))


def digests(root: Path) -> dict[str, str]:
    files = (p for p in sorted(root.rglob("*")) if p.is_file())
    return {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_the_demo_is_a_set_without_errors(demo):
    table = index(demo)
    assert table.groupby("category").size().to_dict() == dict.fromkeys(PHOTOGRAPHS, 6 + 3 + len(COARSE))
    assert set(table["defect"]) == {"good", *COARSE}
    assert all(read(path).shape == (128, 128) for path in table["image"])
    kinds = {problem.kind for problem in check(table)}
    assert not kinds & {"unreadable", "mask-size", "mask-empty", "mask-missing", "leak-exact", "leak-near"}
    for mask in table["mask"].dropna():
        assert 12 <= read_mask(mask).sum() <= 0.35 * 128 * 128
    assert "CC0" in (demo / "README.md").read_text()


def test_the_demo_is_the_same_to_the_byte(demo, tmp_path):
    again = make_demo(tmp_path / "again", train=6, good=3, bad=len(COARSE), categories=["brick"])
    first = {name: digest for name, digest in digests(demo).items() if name.startswith("brick")}
    assert len(first) == 6 + 3 + 2 * len(COARSE)
    assert {name: digest for name, digest in digests(again).items() if name.startswith("brick")} == first
    other = make_demo(tmp_path / "other", train=6, good=3, bad=len(COARSE), seed=1, categories=["brick"])
    same = digests(other)
    assert all(same[name] != digest for name, digest in first.items())


def test_no_two_pictures_share_a_pixel_of_the_photograph(demo):
    import skimage.data

    for name in PHOTOGRAPHS:
        photograph = cv2.imread(str(Path(skimage.data.__file__).parent / f"{name}.png"), cv2.IMREAD_GRAYSCALE)
        tiles = [photograph[y : y + 64, x : x + 64] for y in range(0, 512, 64) for x in range(0, 512, 64)]
        both = np.stack([tile.ravel() for t in tiles for tile in (t, t[:, ::-1])]).astype(np.float64)
        taken = []
        for path in sorted((demo / name).glob("t*/good/*.png")):
            small = cv2.resize(read(path), (64, 64), interpolation=cv2.INTER_AREA).ravel()
            alike = np.array([np.corrcoef(small, tile)[0, 1] for tile in both])
            assert alike.max() > 0.9  # the tile it is
            taken.append(int(alike.argmax()) // 2)
        assert len(taken) == 9
        assert len(set(taken)) == len(taken)


def test_demo_refuses_what_it_cannot_make(demo, tmp_path):
    with pytest.raises(DataError, match="exists already"):
        make_demo(demo)
    with pytest.raises(ConfigError, match="brick, grass, gravel"):
        make_demo(tmp_path, categories=["sky"])
    with pytest.raises(ConfigError, match="at least one"):
        make_demo(tmp_path, train=0)
    with pytest.raises(ConfigError, match="64 tiles"):
        make_demo(tmp_path, train=60)
    with pytest.raises(ConfigError, match="kinds of defect"):
        make_demo(tmp_path, kinds=["dent"])
