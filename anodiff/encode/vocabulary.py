"""The words of captions as numbers: a WordPiece tokenizer that a tuple of strings describes whole."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import NFKC, BertNormalizer, Normalizer
from tokenizers.normalizers import Sequence as Normalizers
from tokenizers.pre_tokenizers import BertPreTokenizer
from torch import Tensor

from anodiff.errors import ConfigError, DataError

SPECIAL = ("[PAD]", "[UNK]", "[START]", "[END]")
"""The first entries of every vocabulary, numbers 0 to 3; 0 is padding."""


@dataclass(frozen=True)
class Word:
    """One word of a text, and where it stands."""

    text: str  # as the vocabulary sees it: lower case
    start: int  # its characters in the text as it was written
    end: int
    places: tuple[int, ...]  # its pieces in the row of numbers


@dataclass(frozen=True)
class Vocabulary:
    """Texts as rows of numbers: START, the pieces of the words, END, then padding.

    A text is normalised (Unicode NFKC, lower case; accents stay), split at white space and around punctuation, and
    each word is divided into the longest pieces of `words` from its left; those that go on start with `##` (WordPiece,
    arXiv:1609.08144). What looks like a special token in a text is punctuation and letters.

    Args:
        words: the pieces in the order of their numbers, `SPECIAL` first: what `learn_vocabulary` gives.
        length: numbers in a row.
    """

    words: tuple[str, ...]
    length: int

    def ids(self, text: str) -> list[int]:
        """The numbers of a text, from START to END, without padding.

        Raises:
            ConfigError: if there are more than `length`.
        """
        pieces = self._tokenizer.encode(text, add_special_tokens=False).ids
        if len(pieces) + 2 > self.length:
            raise ConfigError(
                f"the text has {len(pieces)} pieces of words, but this model reads {self.length - 2} at most "
                f"(and where they start and end): shorten {text!r}"
            )
        return [SPECIAL.index("[START]"), *pieces, SPECIAL.index("[END]")]

    def row(self, text: str) -> Tensor:
        """The numbers of a text, [length] int64, 0 = padding. Raises what `ids` raises."""
        row = torch.zeros(self.length, dtype=torch.int64)
        ids = self.ids(text)
        row[: len(ids)] = torch.tensor(ids)
        return row

    def rows(self, texts: Sequence[str]) -> Tensor:
        """The numbers of several texts, [B, length] int64. Raises what `ids` raises."""
        if not texts:
            return torch.zeros(0, self.length, dtype=torch.int64)
        return torch.stack([self.row(text) for text in texts])

    def read(self, text: str) -> list[Word]:
        """The words of a text with their characters and their places in its row. Raises what `ids` raises."""
        self.ids(text)
        return located(self._tokenizer, text, first=1)

    def spans(self, text: str) -> list[tuple[str, tuple[int, ...]]]:
        """Each word of a text with the places of its pieces in the row. Raises what `ids` raises."""
        return [(word.text, word.places) for word in self.read(text)]

    def unknown(self, text: str) -> list[str]:
        """The words of a text that the vocabulary does not hold whole, each once, in their order.

        A model has hardly met them: they are spelled in pieces, or their letters are unknown too.
        """
        known = set(self.words)
        words = [word.text for word in located(self._tokenizer, text, first=1)]
        return list(dict.fromkeys(word for word in words if word not in known))

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        if self.words[: len(SPECIAL)] != SPECIAL or len(set(self.words)) != len(self.words):
            raise ConfigError(
                f"a vocabulary starts with {', '.join(SPECIAL)} and holds nothing twice, got {len(self.words)} "
                f"entries from {', '.join(self.words[:4]) or 'nothing'} on: take it from learn_vocabulary or from_file"
            )
        if self.length < 3:
            raise ConfigError(
                f"a row of numbers has a start, an end and a word between: length >= 3, got {self.length}"
            )
        numbers = {word: number for number, word in enumerate(self.words)}
        tokenizer = Tokenizer(
            WordPiece(
                numbers, unk_token="[UNK]", max_input_chars_per_word=100, continuing_subword_prefix="##"
            )
        )
        tokenizer.normalizer = _normal()  # pyright: ignore[reportAttributeAccessIssue]
        tokenizer.pre_tokenizer = BertPreTokenizer()  # pyright: ignore[reportAttributeAccessIssue]
        return tokenizer


def located(tokenizer: Tokenizer, text: str, *, first: int) -> list[Word]:
    """The words of a text by a tokenizer of any kind that splits into words first.

    Args:
        tokenizer: with a normalizer and a pre-tokenizer.
        text: as it was written.
        first: the place of the first piece in the row.
    """
    normal = tokenizer.normalizer.normalize_str(text)  # pyright: ignore[reportOptionalMemberAccess]
    names = [name for name, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal)]  # pyright: ignore[reportOptionalMemberAccess]
    encoding = tokenizer.encode(text, add_special_tokens=False)
    pieces: dict[int, list[int]] = {}
    for place, word in enumerate(encoding.word_ids):
        if word is not None:
            pieces.setdefault(word, []).append(place)
    return [
        Word(
            names[word],
            min(encoding.offsets[place][0] for place in places),
            max(encoding.offsets[place][1] for place in places),
            tuple(first + place for place in places),
        )
        for word, places in pieces.items()
    ]


def learn_vocabulary(captions: Iterable[str], *, size: int) -> tuple[str, ...]:
    """The vocabulary of `captions`: `SPECIAL`, then letters, then whole words, `size` entries at most.

    Letters come first, so that any word of them can be spelled: those seen, each also as `##` letter if it was seen
    inside a word; the most frequent ones if they are more than half of what there is room for. Then whole words, the
    most frequent first, equally frequent ones by alphabet. No pieces between the two: where all words find room, a
    model would never meet them. The result depends on which captions there are and on nothing else.

    Raises:
        ConfigError: `size` is too small for a single letter and a single word.
        DataError: there is no word in the captions.
    """
    room = size - len(SPECIAL)
    if room < 2:
        raise ConfigError(
            f"a vocabulary holds {len(SPECIAL)} marks, letters and words: size >= 6, got {size}"
        )
    normal, split = _normal(), BertPreTokenizer()
    words: Counter[str] = Counter()
    for caption in captions:
        words.update(word for word, _ in split.pre_tokenize_str(normal.normalize_str(caption)))
    if not words:
        raise DataError(
            "expected captions with words, got none: fill the column of captions, or leave words out"
        )
    letters: Counter[str] = Counter()
    for word, count in words.items():
        letters.update(dict.fromkeys(word, count))
        if len(word) > 1:
            letters.update({f"##{letter}": count for letter in set(word)})
    chosen = sorted(_ranked(letters)[: room // 2])
    whole = [word for word in _ranked(words) if word not in set(chosen)]
    return (*SPECIAL, *chosen, *whole[: room - len(chosen)])


def from_file(path: str | Path) -> tuple[str, ...]:
    """The vocabulary of a WordPiece file: `tokenizer.json`, or one piece a line as `vocab.txt` of BERT.

    `SPECIAL` takes the first numbers, the others follow in the file's order; the file's own marks ([CLS], [MASK],
    [unused7], what it lists as special) are left out, and so are pieces with capitals, which no lower-case text holds.

    Raises:
        DataError: there is no such file, or it holds another kind of vocabulary, such as byte-pair encoding.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"expected a vocabulary at {path}, could not read it: {error}") from error
    pieces = _from_json(text, path) if path.suffix == ".json" else _from_lines(text, path)
    kept = [piece for piece in dict.fromkeys(pieces) if piece == piece.lower()]
    if not kept:
        raise DataError(f"expected pieces of words in {path}, found none in lower case")
    return (*SPECIAL, *kept)


def _from_lines(text: str, path: Path) -> list[str]:
    """The pieces of a `vocab.txt`; its marks but the unused ones are in capitals."""
    lines = [line.strip() for line in text.splitlines()]
    if not {"[PAD]", "[UNK]"} <= set(lines):
        raise DataError(
            f"expected WordPiece's vocabulary at {path}, one piece a line with [PAD] and [UNK] among them, found no "
            "such lines: byte-pair encoding (merges) cannot be read"
        )
    return [line for line in lines if line and not line.startswith("[unused")]


def _from_json(text: str, path: Path) -> list[str]:
    """The pieces of a `tokenizer.json` by number, without what it lists as special."""
    try:
        content = json.loads(text)
        model = content["model"]
        kind, prefix = model.get("type"), model.get("continuing_subword_prefix")
        marks = {token["content"] for token in content.get("added_tokens") or () if token.get("special")}
        if kind == "WordPiece" and prefix == "##":
            pieces = sorted(model["vocab"], key=model["vocab"].get)
            return [piece for piece in pieces if piece not in marks and not piece.startswith("[unused")]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"expected a tokenizer.json at {path}, found another file: {error!r}") from error
    raise DataError(
        f"expected a WordPiece vocabulary with '##' in {path}, found {kind or 'a kind without a name'}"
        f"{f' with {prefix!r}' if kind == 'WordPiece' else ''}: take one of BERT's kind, or let the fit learn one "
        "from the captions"
    )


def _normal() -> Normalizer:
    return Normalizers(
        [
            NFKC(),
            BertNormalizer(clean_text=True, handle_chinese_chars=True, strip_accents=False, lowercase=True),
        ]
    )


def _ranked(counts: Counter[str]) -> list[str]:
    return sorted(counts, key=lambda entry: (-counts[entry], entry))
