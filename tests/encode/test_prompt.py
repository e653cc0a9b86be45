"""Prompts with weights, and the alignment of two texts."""

from __future__ import annotations

import pytest

from anodiff.encode.prompt import Prompt, alignment, gains, parse
from anodiff.encode.vocabulary import Vocabulary, learn_vocabulary
from anodiff.errors import ConfigError

VOCABULARY = Vocabulary(
    learn_vocabulary(["a scratched metal plate and a brass washer with a steel bolt on red cloth"], size=200),
    16,
)


def test_a_bracket_weighs_its_words():
    prompt = parse("scratched (metal:1.6) plate")
    assert prompt == Prompt("scratched metal plate", (((10, 15), 1.6),))
    assert gains(prompt, VOCABULARY).tolist() == pytest.approx([1, 1, 1.6, 1, *[1] * 12])
    many = parse("(a brass: 0) washer (and:2)(bolt:.5)")
    assert many.text == "a brass washer andbolt"
    assert many.gains == (((0, 7), 0.0), ((15, 18), 2.0), ((18, 22), 0.5))
    assert gains(many, VOCABULARY)[:5].tolist() == [1, 0, 0, 1, 0.5]


def test_a_text_without_brackets_is_itself():
    for text in ("", "a brass washer", "ratio 1:2", "50 % [red]", "back\\slash\\"):
        assert parse(text) == Prompt(text)
    assert gains(parse("a bolt"), VOCABULARY).tolist() == [1.0] * 16


def test_signs_are_escaped():
    assert parse(r"a \(red\) (bolt\):2) \\ \n") == Prompt(r"a (red) bolt) \ \n", (((8, 13), 2.0),))
    assert parse("(ratio 1:2:1.5)") == Prompt("ratio 1:2", (((0, 9), 1.5),))


def test_all_pieces_of_a_word_have_its_factor():
    prompt = parse("a shi(ne:3) bolt")  # "shine" is spelled
    assert VOCABULARY.spans(prompt.text)[1] == ("shine", (2, 3, 4, 5, 6))
    assert gains(prompt, VOCABULARY)[:9].tolist() == [1, 1, 3, 3, 3, 3, 3, 1, 1]
    assert gains(parse("a (steel-bolt:0)"), VOCABULARY)[:6].tolist() == [1, 1, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("a (bolt)", "no factor"),
        ("a ((bolt:2):3)", "holds no other"),
        ("a (red (bolt:2):3)", "holds no other"),
        ("a (bolt:2", "does not close"),
        (r"a (bolt \( red", "does not close"),
        ("a bolt:2)", "did not open"),
        ("a (bolt:two)", "at least 0"),
        ("a (bolt:-1)", "at least 0"),
        ("a (bolt:nan)", "at least 0"),
        ("a (bolt:inf)", "at least 0"),
        ("a (bolt:)", "at least 0"),
        ("a ( :2)", "holds a word"),
    ],
)
def test_what_means_nothing_is_refused(written, says):
    with pytest.raises(ConfigError, match=says):
        parse(written)


def aligned(source: str, target: str) -> list[int]:
    """The alignment from the start to the end of the target; the rest must be padding."""
    row = alignment(source, target, VOCABULARY).tolist()
    used = len(VOCABULARY.ids(target))
    assert row[used:] == [-1] * (16 - used)
    return row[:used]


def test_the_same_text_is_aligned_with_itself():
    assert aligned("a brass washer", "A  brass washer") == [0, 1, 2, 3, 4]


def test_swapped_words_are_mapped_onto_each_other():
    assert aligned("a brass washer and a bolt", "a steel plate and a bolt") == [0, 1, 2, 3, 4, 5, 6, 7]


def test_new_words_are_mapped_to_nothing():
    assert aligned("a washer", "a scratched brass washer on red cloth") == [0, 1, -1, -1, 2, -1, -1, -1, 3]
    assert aligned("a scratched brass washer", "a washer") == [0, 1, 4, 5]


def test_another_number_of_words_is_not_swapped():
    assert aligned("a brass washer", "a red steel washer") == [0, 1, -1, -1, 3, 4]
    assert aligned("", "a bolt") == [0, -1, -1, 1]
    assert aligned("a bolt", "") == [0, 3]


def test_a_repeated_word_keeps_its_order():
    assert aligned("a bolt and a washer", "a bolt and a red washer") == [0, 1, 2, 3, 4, -1, 5, 6]


def test_pieces_of_a_swapped_word_share_those_of_the_old():
    assert aligned("a brass bolt", "a tin bolt") == [0, 1, 2, 2, 2, 3, 4]  # t ##i ##n
    assert aligned("a tin bolt", "a brass bolt") == [0, 1, 2, 5, 6]
    assert aligned("a tin bolt", "a shine bolt") == [0, 1, 2, 2, 3, 3, 4, 5, 6]  # floor(3 k / 5)
