"""A configuration is made whole from captions, boxes and a published autoencoder, and what does not fit is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from diffusers import AutoencoderKL

from anodiff.complete import MOVES, complete
from anodiff.config import load
from anodiff.encode.vocabulary import SPECIAL
from anodiff.errors import ConfigError, DataError
from anodiff.gather import Gathered

LABELLED = "labels={kind: category}"


def gathered(**columns: list[str]) -> Gathered:
    """Good pictures of which a table tells this; one of each column is held out."""
    count = len(next(iter(columns.values())))
    rows = {
        "image": [f"{i}.png" for i in range(count)],
        "category": ["part"] * count,
        "defect": ["good"] * count,
        **columns,
    }
    table = pd.DataFrame(rows)
    pictures = list(table["image"])
    return Gathered(pictures, pictures[:1], [(32, 32)] * count, table, table.iloc[:1])


def test_nothing_is_added_to_a_model_that_is_told_nothing() -> None:
    config = load(preset="pixels")
    assert complete(config, gathered(category=["nut"] * 3)) == config


def test_the_vocabulary_and_the_usual_caption_come_from_the_captions() -> None:
    config = load(preset="pixels", overrides=["tokens.kind=text"])
    told = complete(config, gathered(caption=["a nut", "a bolt", "a bolt", "two nuts"])).tokens
    assert told.normal == ("a bolt",)
    assert told.vocabulary[: len(SPECIAL)] == SPECIAL
    assert {"a", "nut", "bolt", "two", "nuts"} <= set(told.vocabulary)
    again = complete(config.model_copy(update={"tokens": told}), gathered(caption=["a gear"] * 2)).tokens
    assert again == told  # what is known stays


def test_captions_are_composed_where_there_are_none() -> None:
    config = load(preset="pixels", overrides=["tokens.kind=text"])
    told = complete(config, gathered(category=["bottle"] * 3)).tokens
    assert told.normal == ("a photo of a good bottle",)
    given = load(preset="pixels", overrides=["tokens={kind: text, normal: [a fine bottle]}"])
    told = complete(given, gathered(category=["bottle"] * 3)).tokens
    assert told.normal == ("a fine bottle",)
    assert "fine" in told.vocabulary


def test_every_label_has_its_usual_caption_in_the_order_of_labels() -> None:
    config = load(preset="pixels", overrides=["tokens.kind=text", LABELLED])
    found = gathered(
        category=["nut", "bolt", "nut", "bolt", "nut"],
        caption=["a nut", "a bolt", "two nuts", "a bolt", "two nuts"],
    )
    whole = complete(config, found)
    assert whole.labels.classes == ("bolt", "nut")
    assert whole.tokens.normal == ("a bolt", "two nuts")


def test_a_label_that_only_held_out_pictures_have_takes_the_commonest_caption() -> None:
    config = load(preset="pixels", overrides=["tokens.kind=text", LABELLED])
    found = gathered(category=["bolt", "nut", "nut"], caption=["a bolt", "a nut", "a nut"])
    held = pd.DataFrame({"image": ["x.png"], "category": ["gear"], "defect": ["good"], "caption": ["a gear"]})
    whole = complete(config, replace(found, held_rows=held))
    assert whole.labels.classes == ("bolt", "gear", "nut")
    assert whole.tokens.normal == ("a bolt", "a nut", "a nut")


def test_classes_of_boxes_are_found_or_kept() -> None:
    cells = ['[["nut", 0, 0, 0.5, 0.5]]', '[["bolt", 0, 0, 1, 1], ["nut", 0.1, 0.1, 0.2, 0.2]]', ""]
    config = load(preset="pixels", overrides=["tokens.kind=layout"])
    assert complete(config, gathered(boxes=cells)).tokens.classes == ("bolt", "nut")
    named = load(preset="pixels", overrides=["tokens={kind: layout, classes: [nut, gear, bolt]}"])
    assert complete(named, gathered(boxes=cells)).tokens.classes == ("nut", "gear", "bolt")
    few = load(preset="pixels", overrides=["tokens={kind: layout, most: 1}"])
    with pytest.raises(ConfigError, match=r"a picture has 2 boxes, more than 1"):
        complete(few, gathered(boxes=cells))
    with pytest.raises(DataError, match="holds no box"):
        complete(config, gathered(boxes=["", ""]))


@pytest.mark.parametrize("name", MOVES)
@pytest.mark.parametrize("words", ["tokens.kind=layout", "beside={kind: semantic, classes: 3}"])
def test_pictures_are_not_moved_away_from_their_boxes_or_maps(words: str, name: str) -> None:
    much = "true" if name in ("flip_h", "flip_v", "rotate90") else "0.1"
    config = load(preset="pixels", overrides=[words, f"data.augment.{name}={much}"])
    with pytest.raises(ConfigError, match=f"data.augment.{name} moves the pictures"):
        complete(config, gathered(boxes=['[["nut", 0, 0, 0.5, 0.5]]'], map=["m.png"]))


def test_a_text_that_no_row_holds_is_told_before_the_fit() -> None:
    config = load(preset="pixels", overrides=["tokens={kind: text, length: 6}"])
    with pytest.raises(ConfigError, match="shorten 'a b c d e f'"):
        complete(config, gathered(caption=["a b", "a b c d e f"]))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    net = AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=3,
    )
    net.save_pretrained(folder, safe_serialization=True)
    return folder


def test_the_layout_of_a_published_autoencoder_is_taken_over(published: Path) -> None:
    config = load(preset="pixels", overrides=[f"codec={{kind: latent, weights: {published}}}"])
    section = complete(config, gathered(category=["nut"])).codec
    assert (section.stride, section.channels, section.width, section.blocks) == (2, 3, 8, 1)
    assert section.levels == (1.0, 2.0)
    assert section.attention
    grey = load(
        preset="pixels", overrides=[f"codec={{kind: latent, weights: {published}}}", "data.channels=1"]
    )
    with pytest.raises(ConfigError, match=r"set data\.channels=3"):
        complete(grey, gathered(category=["nut"]))
