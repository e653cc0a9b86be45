"""What a model is told of a picture is made of the very picture it is trained on or asked about."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from anodiff import compose
from anodiff.codec.latent import LatentCodec
from anodiff.codec.pixel import PixelCodec
from anodiff.coding.codes import codes
from anodiff.compose.codec import autoencoder
from anodiff.cond import Cond
from anodiff.config import RunConfig, load
from anodiff.data.augment import Augmentation
from anodiff.data.dataset import ImageSet
from anodiff.data.index import index
from anodiff.data.parts import make_parts
from anodiff.detect.content import coarse_seed
from anodiff.detect.scorer import RestorationScorer
from anodiff.encode.beside import LowRes, Masked, Semantic
from anodiff.encode.vocabulary import Vocabulary
from anodiff.told import Teller, telling

CPU = torch.device("cpu")
SHAPE = (16, 16)
AUGMENT = Augmentation(flip_h=True, rotate90=True, translate=0.2, brightness=0.3)
LATENT = "codec={kind: latent, stride: 4, width: 8, groups: 4, crop: null, defect: 4}"
VOCABULARY = ("[PAD]", "[UNK]", "[START]", "[END]", "a", "nut", "bolt")


def configured(*words: str) -> RunConfig:
    return load(
        preset="pixels",
        overrides=[
            "data.size=16",
            "codec.patch=2",
            "net={width: 8, multipliers: [1], attention: [0]}",
            *words,
        ],
    )


@pytest.fixture
def pictures() -> ImageSet:
    chance = np.random.default_rng(0)
    arrays = [chance.integers(0, 255, (16, 16, 3), dtype=np.uint8) for _ in range(4)]
    return ImageSet(arrays, shape=SHAPE, channels=3, augment=AUGMENT, seed=3)


@pytest.fixture
def table(pictures: ImageSet) -> pd.DataFrame:
    return pd.DataFrame({"image": [f"{number}.png" for number in range(len(pictures))]})


@pytest.fixture
def latent() -> LatentCodec:
    codec = LatentCodec(autoencoder(configured(LATENT)))
    codec.learn([torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))])
    return codec.eval()


# ------------------------------------------------------------------------ in training


@pytest.mark.parametrize("seed", [0, 5, 2**40 + 1])
def test_the_small_picture_is_of_the_augmented_one(
    seed: int, pictures: ImageSet, table: pd.DataFrame
) -> None:
    teller = Teller(configured("beside={kind: lowres, factor: 4, noise: 0.1}"))
    codec = PixelCodec(3, patch=2)
    of = telling(teller.fixed(table, codec, SHAPE), pictures, teller.beside(codec))
    assert of is not None
    for row in range(4):
        shown = pictures.item(row, seed)
        expected = LowRes(4, 0.1).make(shown[None], (8, 8), [seed])[0]
        assert torch.equal(of(row, seed)["image"], expected)
        assert torch.equal(of(row, seed)["image"], of(row, seed)["image"])
    assert not torch.equal(of(0, seed)["image"], of(0, seed + 1)["image"])


def test_the_masked_picture_is_the_augmented_one_where_it_is_known(
    pictures: ImageSet, table: pd.DataFrame
) -> None:
    teller = Teller(configured("beside.kind=masked", "score={kind: repair, cell: 2}"))
    codec = PixelCodec(3, patch=2)
    of = telling(teller.fixed(table, codec, SHAPE), pictures, teller.beside(codec))
    assert of is not None
    shares = []
    for seed in range(12):
        told = of(1, seed)["image"]
        z, known = codec.encode(pictures.item(1, seed)[None])[0], told[-1:] == 1
        assert torch.equal(told[:-1] * known, z * known)
        shares.append(float(known.float().mean()))
    assert 0 < min(shares) < max(shares)  # the hole is drawn anew


def test_codes_bring_what_stands_beside_them(
    pictures: ImageSet, table: pd.DataFrame, latent: LatentCodec
) -> None:
    """The code of a draw, and the small picture of the very same draw."""
    teller = Teller(configured(LATENT, "beside={kind: lowres, factor: 4, noise: 0.0}"))
    beside = teller.beside(latent)
    rows = codes(pictures, latent, draws=3, beside=beside, device=CPU)
    of = telling(teller.fixed(table, latent, SHAPE), rows, beside)
    assert of is not None
    for row in range(4):
        for seed in (0, 1, 2, 7):
            shown = pictures.item(row, seed % 3)[None]
            assert torch.allclose(rows.item(row, seed), latent.encode(shown)[0], atol=5e-3)
            expected = LowRes(4, 0.0).make(shown, (4, 4), [0])[0]
            assert torch.allclose(of(row, seed)["image"], expected, atol=2e-3)


def test_texts_boxes_and_maps_follow_the_rows_of_the_table(tmp_path: Path) -> None:
    rows = index(make_parts(tmp_path, count=5, size=32))
    images = [torch.zeros(3, 32, 32)] * len(rows)

    class Still:
        def item(self, row: int, seed: int, /) -> Tensor:
            return images[row]

    codec = PixelCodec(3, patch=4)
    known = tuple(dict.fromkeys(word for text in rows["caption"] for word in text.replace(",", " ,").split()))
    config = configured("tokens={kind: text, channels: 16}")
    config = config.model_copy(
        update={"tokens": config.tokens.model_copy(update={"vocabulary": (*VOCABULARY[:4], *known)})}
    )
    of = telling(Teller(config).fixed(rows, codec, (32, 32)), Still(), None)
    assert of is not None
    vocabulary = Vocabulary(config.tokens.vocabulary, config.tokens.length)
    for row, caption in enumerate(rows["caption"]):
        assert torch.equal(of(row, 9)["words"], vocabulary.row(caption))
        assert set(of(row, 9)) == {"words"}
    teller = Teller(configured("beside={kind: semantic, classes: 6}"))
    of = telling(teller.fixed(rows, codec, (32, 32)), Still(), None)
    assert of is not None
    assert of(2, 0)["image"].shape == (6, 8, 8)
    drawn = torch.from_numpy(cv2.imread(str(rows["map"].iloc[2]), cv2.IMREAD_UNCHANGED))
    expected = Semantic(6).make(drawn[None].long(), (8, 8))[0]
    assert torch.equal(of(2, 0)["image"], expected)
    assert telling(Teller(configured()).fixed(rows, codec, (32, 32)), Still(), None) is None


# ------------------------------------------------------------------------- in scoring


def worded(normal: str) -> Teller:
    config = configured(f"tokens={{kind: text, channels: 16, normal: {normal}}}")
    return Teller(
        config.model_copy(update={"tokens": config.tokens.model_copy(update={"vocabulary": VOCABULARY})})
    )


def test_a_scored_picture_is_told_the_usual_text_of_its_label() -> None:
    teller = worded("[a nut, a bolt]")
    tell = teller.scoring(PixelCodec(3, patch=2))
    assert tell is not None
    image = torch.zeros(3, 3, 16, 16)
    texts = [["a nut"] * 3, ["a bolt", "a nut", "a bolt"]]
    for label, expected in zip((None, torch.tensor([1, 0, 1])), texts, strict=True):
        cond = tell(image, Cond(label=label), [1, 2, 3])
        assert torch.equal(cond.words, teller.vocabulary.rows(expected))
        assert cond.label is label
    one = worded("[a bolt]").scoring(PixelCodec(3, patch=2))
    assert one is not None
    assert torch.equal(
        one(image, Cond(label=torch.tensor([0, 4, 9])), [1, 2, 3]).words,
        teller.vocabulary.rows(["a bolt"] * 3),
    )


def test_a_scored_picture_stands_beside_itself_made_small() -> None:
    teller = Teller(configured("beside={kind: lowres, factor: 4, noise: 0.1}"))
    codec = PixelCodec(3, patch=2)
    tell = teller.scoring(codec)
    assert tell is not None
    image = torch.rand(2, 3, 16, 16)
    assert torch.equal(tell(image, Cond(), [4, 5]).image, LowRes(4, 0.1).make(image, (8, 8), [4, 5]))
    assert Teller(configured()).scoring(codec) is None


class Seen(torch.nn.Module):
    """A denoiser that keeps what stands beside the code and answers with the code itself."""

    def __init__(self, like: torch.nn.Module) -> None:
        super().__init__()
        self.levels = like.levels
        self.images: list[Tensor | None] = []

    def forward(self, y: Tensor, sigma: Tensor, cond: Cond | None = None) -> Tensor:
        assert cond is not None
        self.images.append(cond.image)
        return y


def scored(config: RunConfig, image: Tensor) -> list[Tensor | None]:
    """What stood beside the code at every evaluation, while the picture was scored."""
    predictor = compose.predictor(config, target_fpr=0.05, shape=SHAPE, weights=compose.LEARNT)
    seen = Seen(predictor.denoiser)
    predictor.denoiser = seen
    predictor.observe(image)
    return seen.images


def test_detail_is_told_the_small_picture_once_and_with_the_same_noise() -> None:
    image = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    words = ("beside={kind: lowres, factor: 4, noise: 0.1}", "score={kind: detail, factor: 2, steps: 2}")
    config = configured(*words, "seed=7")
    expected = LowRes(4, 0.1).make(image, (8, 8), [coarse_seed(row, 7) for row in image])
    found = scored(config, image)
    assert len(found) == 2
    assert all(one is not None and torch.equal(one, expected) for one in found)
    assert Teller(config).scoring(PixelCodec(3, patch=2)) is None


def test_repair_is_told_the_picture_without_the_cells_of_its_pass() -> None:
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    config = configured("beside.kind=masked", "score={kind: repair, cell: 2, masks: 2, steps: 2}")
    found = scored(config, image)
    assert len(found) == 4
    codec = PixelCodec(3, patch=2)
    board = (torch.arange(16)[:, None] // 4 + torch.arange(16) // 4) % 2  # cells of 2 positions of 2 pixels
    for passed, hidden in enumerate((0, 1)):
        expected = Masked().make(codec, image, (board != hidden)[None, None])
        for one in found[2 * passed : 2 * passed + 2]:
            assert one is not None
            assert torch.equal(one, expected)


def test_other_models_repair_and_add_detail_without_being_told() -> None:
    image = torch.rand(1, 3, 16, 16)
    for score in ("{kind: repair, cell: 2, steps: 2}", "{kind: detail, factor: 2, steps: 2}"):
        config = configured(f"score={score}")
        assert set(scored(config, image)) == {None}
        assert isinstance(compose.scorer(config), RestorationScorer)
