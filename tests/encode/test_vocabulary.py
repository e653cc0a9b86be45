"""The vocabulary of captions: a rule written out again, longest pieces by hand, and files of other programs."""

from __future__ import annotations

import json
import os
import pickle
import random
import subprocess
import sys

import pytest
import torch

from anodiff.encode.vocabulary import SPECIAL, Vocabulary, Word, from_file, learn_vocabulary
from anodiff.errors import ConfigError, DataError

CAPTIONS = [
    "a brass washer and a steel bolt",
    "a steel washer",
    "A scratched, blue gear",
    "a photo of a good bottle",
    "a brass bolt",
]


def vocabulary(length: int = 16, size: int = 200) -> Vocabulary:
    return Vocabulary(learn_vocabulary(CAPTIONS, size=size), length)


def longest(word: str, words: tuple[str, ...]) -> list[int]:
    """The longest pieces from the left, by their definition; one unknown for a word that has none."""
    found, start = [], 0
    while start < len(word):
        for end in range(len(word), start, -1):
            piece = ("##" if start else "") + word[start:end]
            if piece in words:
                found.append(words.index(piece))
                start = end
                break
        else:
            return [1]
    return found


def test_the_order_is_marks_letters_words_by_count_and_alphabet():
    words = learn_vocabulary(["b a b", "ab a b", "c, a"], size=100)
    # counts: a 3, b 3, "ab" 1, c 1, "," 1; letters inside a word: a and b
    assert words == (*SPECIAL, "##a", "##b", ",", "a", "b", "c", "ab")
    whole = learn_vocabulary(CAPTIONS, size=200)
    assert whole[:4] == ("[PAD]", "[UNK]", "[START]", "[END]")
    assert len(set(whole)) == len(whole)
    long = [word for word in whole[4:] if len(word.removeprefix("##")) > 1]
    assert long[:4] == ["bolt", "brass", "steel", "washer"]  # twice each
    assert long[4:] == ["and", "blue", "bottle", "gear", "good", "of", "photo", "scratched"]  # once each


@pytest.mark.parametrize("size", [60, 46, 12, 6])
def test_a_small_vocabulary_keeps_what_is_frequent(size):
    words = learn_vocabulary(CAPTIONS, size=size)
    assert len(words) <= size
    text = " ".join(CAPTIONS).lower().replace(",", " , ").split()
    counts = {word: text.count(word) for word in text}
    kept = [word for word in words if word in counts and len(word) > 1]
    left = [word for word in counts if word not in words]
    assert not left or not kept or max(counts[w] for w in left) <= min(counts[w] for w in kept)
    if size >= 46:
        assert {word for word, count in counts.items() if count > 1} <= set(words)


def test_it_is_the_same_in_any_order_and_process():
    shuffled = random.Random(0).sample(CAPTIONS, len(CAPTIONS))
    expected = learn_vocabulary(CAPTIONS, size=50)
    assert learn_vocabulary(iter(shuffled), size=50) == expected
    code = (
        "import json\nfrom anodiff.encode.vocabulary import learn_vocabulary\n"
        f"print(json.dumps(learn_vocabulary({CAPTIONS!r}, size=50)))"
    )
    env = {**os.environ, "PYTHONHASHSEED": "77", "TOKENIZERS_PARALLELISM": "false"}
    told = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert tuple(json.loads(told.stdout)) == expected


@pytest.mark.parametrize(
    "text", ["a steel washer", "a ratchet boulder, wholesale", "of, of, gears!", "a ßolt", "A  BRASS\tgear"]
)
def test_numbers_are_the_longest_pieces(text):
    """Law: words; reference: WordPiece's greedy rule, written out in the test"""
    words = learn_vocabulary(CAPTIONS, size=200)
    split = text.lower().replace(",", " , ").replace("!", " ! ").split()
    expected = [2, *(n for word in split for n in longest(word, words)), 3]
    assert Vocabulary(words, 40).ids(text) == expected


def test_the_numbers_are_those_of_berts_own_tokenizer(tmp_path):
    """Law: words; reference: transformers' BertTokenizer on the same vocabulary"""
    transformers = pytest.importorskip("transformers")
    words = learn_vocabulary(CAPTIONS, size=200)
    numbers = {word: number for number, word in enumerate(words)}
    theirs = transformers.BertTokenizer(
        vocab=numbers, pad_token="[PAD]", unk_token="[UNK]", cls_token="[START]", sep_token="[END]"
    )
    for text in ("A scratched, blue gear", "a shiny bolt (brass)", "naming nothing?"):
        assert Vocabulary(words, 64).ids(text) == theirs(text)["input_ids"]


def test_rows_are_padded_with_zeros():
    vocab = vocabulary(length=8)
    row = vocab.row("a steel washer")
    assert row.dtype == torch.int64
    assert row.tolist() == [*vocab.ids("a steel washer"), 0, 0, 0]
    rows = vocab.rows(["a steel washer", ""])
    assert torch.equal(rows[0], row)
    assert rows[1].tolist() == [2, 3, 0, 0, 0, 0, 0, 0]
    assert vocab.rows([]).shape == (0, 8)


def test_a_text_that_is_too_long_is_refused_with_its_number():
    vocab = vocabulary(length=5)
    assert len(vocab.ids("a steel washer")) == 5
    for call in (vocab.ids, vocab.row, vocab.spans, vocab.read):
        with pytest.raises(ConfigError, match=r"4 pieces .* 3 at most"):
            call("a steel washer,")


def test_words_know_their_characters_and_their_places():
    vocab = vocabulary(length=30)
    text = " A Shoes  steel-bolt"
    assert vocab.spans(text) == [
        ("a", (1,)),
        ("shoes", (2, 3, 4, 5, 6)),
        ("steel", (7,)),
        ("-", (8,)),
        ("bolt", (9,)),
    ]
    assert [text[word.start : word.end] for word in vocab.read(text)] == ["A", "Shoes", "steel", "-", "bolt"]
    assert vocab.read("Ⅻ bolt")[-1] == Word(
        "bolt", 2, 6, vocab.spans("xii bolt")[-1][1]
    )  # one sign, two letters
    row = vocab.row(text).tolist()
    assert [row[i] for _, places in vocab.spans(text) for i in places] == vocab.ids(text)[1:-1]


def test_unknown_words_are_those_it_does_not_hold_whole():
    vocab = vocabulary(length=40)
    assert vocab.unknown("a steel washer, Good!") == ["!"]
    assert vocab.unknown("a shiny steel Ωmega, shiny nut") == ["shiny", "ωmega", "nut"]
    assert vocab.ids("Ω") == [2, 1, 3]


def test_unicode_is_normalised_and_accents_stay():
    vocab = Vocabulary(learn_vocabulary(["Träger Trager 不锈"], size=60), 20)
    assert vocab.ids("tra\u0308ger") == vocab.ids("TRÄGER") != vocab.ids("trager")
    assert vocab.ids("ｔｒａｇｅｒ") == vocab.ids("trager")
    assert [text for text, _ in vocab.spans("不锈")] == ["不", "锈"]
    assert vocab.unknown("Träger trager 不") == []


def test_marks_in_a_text_are_only_signs():
    vocab = vocabulary(length=20)
    assert 3 not in vocab.ids("[END] a bolt [PAD]")[:-1]
    assert 0 not in vocab.ids("[END] a bolt [PAD]")


def test_it_travels_to_another_process():
    vocab = vocabulary()
    vocab.ids("a bolt")
    again = pickle.loads(pickle.dumps(vocab))
    assert again == vocab
    assert again.ids("a bolt") == vocab.ids("a bolt")


def test_a_wrong_vocabulary_is_refused():
    with pytest.raises(ConfigError, match="starts with"):
        Vocabulary(("a", "b"), 8).ids("a")
    with pytest.raises(ConfigError, match="nothing twice"):
        Vocabulary((*SPECIAL, "a", "a"), 8).ids("a")
    with pytest.raises(ConfigError, match="length >= 3"):
        Vocabulary((*SPECIAL, "a"), 2).ids("a")
    with pytest.raises(ConfigError, match="size >= 6"):
        learn_vocabulary(CAPTIONS, size=5)
    with pytest.raises(DataError, match="captions"):
        learn_vocabulary(["", "  "], size=50)


def test_files_of_other_programs(tmp_path):
    lines = [
        "[PAD]",
        "[unused0]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "a",
        "##b",
        "Bolt",
        "bolt",
        ",",
        "<s>",
    ]
    (tmp_path / "vocab.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert from_file(tmp_path / "vocab.txt") == (*SPECIAL, "a", "##b", "bolt", ",", "<s>")
    content = {
        "added_tokens": [{"content": "<s>", "special": True}, {"content": ",", "special": False}],
        "model": {
            "type": "WordPiece",
            "continuing_subword_prefix": "##",
            "vocab": {line: -number for number, line in enumerate(lines)},
        },
    }
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    assert from_file(str(path)) == (*SPECIAL, ",", "bolt", "##b", "a")
    assert Vocabulary(from_file(path), 8).ids("Bolt, ab") == [2, 5, 4, 7, 6, 3]


def test_files_it_cannot_read_are_refused(tmp_path):
    path = tmp_path / "tokenizer.json"
    for content, says in [
        ({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}, "found BPE"),
        ({"model": {"type": "WordPiece", "continuing_subword_prefix": "@@", "vocab": {"a": 0}}}, "'@@'"),
        (
            {"model": {"type": "WordPiece", "continuing_subword_prefix": "##", "vocab": {"A": 0}}},
            "lower case",
        ),
        ({"vocab": {}}, "another file"),
        ([1], "another file"),
    ]:
        path.write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(DataError, match=says):
            from_file(path)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="another file"):
        from_file(path)
    (tmp_path / "merges.txt").write_text("#version: 0.2\nb r\n", encoding="utf-8")
    with pytest.raises(DataError, match="byte-pair"):
        from_file(tmp_path / "merges.txt")
    with pytest.raises(DataError, match="could not read"):
        from_file(tmp_path / "none.txt")
