"""What is asked of a sample becomes the conditions of its rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from small_model import CAPTIONS, CPU, TEXT, configured

from anodiff.config import RunConfig
from anodiff.encode.vocabulary import Vocabulary
from anodiff.errors import ConfigError, RefusalError
from anodiff.tasks.asked import Asked, away, conditions, unknown, worded

LABELLED = ("labels={kind: category, names: [nut, bolt]}",)


@pytest.fixture(scope="module")
def reading() -> RunConfig:
    return configured(*TEXT)


@pytest.fixture(scope="module")
def vocabulary(reading: RunConfig) -> Vocabulary:
    return Vocabulary(reading.tokens.vocabulary, reading.tokens.length)


def test_a_model_that_is_told_nothing_is_asked_nothing() -> None:
    assert conditions(configured(), Asked(), CPU) is None


def test_every_row_is_told_the_prompt(reading: RunConfig, vocabulary: Vocabulary) -> None:
    of = conditions(reading, Asked(prompt=CAPTIONS[0]), CPU)
    assert of is not None
    cond = of(range(3, 5))
    assert torch.equal(cond.words, vocabulary.rows([CAPTIONS[0]] * 2))
    assert cond.token_gain is None
    assert cond.label is None


def test_weights_of_words_become_gains_and_leave_the_text_alone(
    reading: RunConfig, vocabulary: Vocabulary
) -> None:
    of = conditions(reading, Asked(prompt="a (brass:1.5) washer"), CPU)
    assert of is not None
    cond = of(range(1))
    assert torch.equal(cond.words[0], vocabulary.row("a brass washer"))
    expected = torch.ones(vocabulary.length)
    expected[2] = 1.5  # start, a, brass
    assert torch.equal(cond.token_gain[0], expected)


def test_usual_texts_take_turns_where_nobody_asks(reading: RunConfig, vocabulary: Vocabulary) -> None:
    config = reading.model_copy(update={"tokens": reading.tokens.model_copy(update={"normal": CAPTIONS[:2]})})
    of = conditions(config, Asked(), CPU)
    assert of is not None
    assert torch.equal(of(range(3)).words, vocabulary.rows([CAPTIONS[0], CAPTIONS[1], CAPTIONS[0]]))
    # however the numbers are divided into batches
    assert torch.equal(of(range(1, 2)).words, vocabulary.rows([CAPTIONS[1]]))


def test_the_usual_text_of_a_label_comes_with_it(vocabulary: Vocabulary) -> None:
    config = configured(*LABELLED, *TEXT)
    config = config.model_copy(
        update={"tokens": config.tokens.model_copy(update={"normal": (CAPTIONS[2], CAPTIONS[0])})}
    )
    of = conditions(config, Asked(label="bolt"), CPU)
    assert of is not None
    cond = of(range(2))
    assert cond.label.tolist() == [1, 1]
    assert torch.equal(cond.words, vocabulary.rows([CAPTIONS[0]] * 2))
    of = conditions(config, Asked(), CPU)
    assert of is not None
    assert of(range(3)).label.tolist() == [0, 1, 0]


def test_labels_take_turns_and_one_can_be_chosen_by_name_or_number() -> None:
    config = configured(*LABELLED)
    told = {label: conditions(config, Asked(label=label), CPU) for label in (None, "bolt", "0")}
    assert {label: of(range(1, 4)).label.tolist() for label, of in told.items() if of is not None} == {
        None: [1, 0, 1],
        "bolt": [1, 1, 1],
        "0": [0, 0, 0],
    }


def test_a_layout_becomes_a_row_of_boxes_and_none_is_the_null(tmp_path: Path) -> None:
    config = configured("tokens={kind: layout, channels: 16, classes: [nut, bolt], most: 3}")
    file = tmp_path / "layout.json"
    file.write_text(json.dumps([["bolt", 0.25, 0.0, 0.75, 0.5]]))
    of = conditions(config, Asked(layout=file), CPU)
    assert of is not None
    cond = of(range(2))
    assert cond.keep is None
    assert cond.boxes.shape == (2, 3, 5)
    assert cond.boxes[1, 0].tolist() == [1, 0.25, 0.0, 0.75, 0.5]
    assert cond.boxes[:, 1:, 0].eq(-1).all()
    of = conditions(config, Asked(), CPU)
    assert of is not None
    assert of(range(2)).keep.tolist() == [False, False]


@pytest.mark.parametrize(
    ("words", "asked", "error", "told"),
    [
        ((), Asked(prompt="a nut"), RefusalError, "reads no words.*tokens.kind=text"),
        ((), Asked(layout=Path("x.json")), RefusalError, "reads no boxes.*tokens.kind=layout"),
        (TEXT, Asked(prompt="nut " * 40), ConfigError, "shorten"),
        (TEXT, Asked(prompt="a (nut"), ConfigError, "does not close"),
        (TEXT, Asked(label="nut"), ConfigError, "label"),
        (LABELLED, Asked(label="gear"), ConfigError, "nut"),
    ],
)
def test_what_cannot_be_asked_is_told_at_once(
    words: tuple[str, ...], asked: Asked, error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        conditions(configured(*words), asked, CPU)


def test_what_to_lead_away_from_is_a_text_or_the_name_of_a_label(
    reading: RunConfig, vocabulary: Vocabulary
) -> None:
    found = away("a blue nut", reading, CPU)
    assert torch.equal(found.words, vocabulary.rows(["a blue nut"]))
    assert away("bolt", configured(*LABELLED), CPU) == "bolt"
    assert away(None, reading, CPU) is None
    with pytest.raises(RefusalError, match="reads no words"):
        worded(configured(), ["a nut"], CPU)


def test_words_that_no_caption_had_are_found(reading: RunConfig) -> None:
    assert unknown(reading, ["a (zylonit:2) nut", None, "an Onyx bolt, zylonit"]) == [
        "zylonit",
        "an",
        "onyx",
    ]
    assert unknown(reading, list(CAPTIONS)) == []
    assert unknown(configured(), ["anything"]) == []
