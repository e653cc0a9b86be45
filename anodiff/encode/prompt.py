"""Prompts: a text with weights on some of its words, and which word of one text is which of another."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Protocol

import torch
from torch import Tensor

from anodiff.encode.vocabulary import Word
from anodiff.errors import ConfigError

_PARTS = re.compile(
    r"\((?P<held>(?:\\.|[^()\\])*)\)|(?P<plain>(?:\\.|[^()\\]|\\\Z)+)|(?P<stray>[()])", re.DOTALL
)


class Reads(Protocol):
    """What splits a text into words and numbers them: a `Vocabulary`, or a text model's own tokenizer."""

    @property
    def length(self) -> int:
        """Numbers in a row, L."""
        ...

    def read(self, text: str) -> list[Word]:
        """The words of a text with their places in its row, the start at place 0 and the end behind the last."""
        ...


@dataclass(frozen=True)
class Prompt:
    """A text, and factors on the attention to some of its characters' words."""

    text: str
    gains: tuple[tuple[tuple[int, int], float], ...] = ()  # ((first character, one past the last), factor)


def parse(written: str) -> Prompt:
    r"""The prompt that `written` stands for: `scratched (metal:1.6) plate` weighs "metal" by 1.6.

    A bracket holds a word or several and, behind its last colon, a factor of at least 0; 0 masks the words out. A
    bracket is written `\(` or `\)` where it is part of the text, a backslash `\\`.

    Raises:
        ConfigError: a bracket is without a factor, within another, empty or not closed, or a factor is no number of at
            least 0.
    """
    text, weighed = "", []
    for part in _PARTS.finditer(written):
        if part["stray"]:
            raise ConfigError(_stray(written, part.start()))
        if part["held"] is None:
            text += _plain(part["plain"])
            continue
        words, gain = _weighed(part["held"], written)
        weighed.append(((len(text), len(text) + len(words)), gain))
        text += words
    return Prompt(text, tuple(weighed))


def gains(prompt: Prompt, vocabulary: Reads) -> Tensor:
    """The factor of every number of the prompt's row, [L] float32, for `Cond.token_gain`; 1 where nothing is said.

    A word has the factor of the bracket that holds any of its characters, and all its pieces have it.
    Source: arXiv:2208.01626, section 3.2, attention re-weighting.

    Raises:
        ConfigError: the text is too long for the vocabulary's rows.
    """
    row = torch.ones(vocabulary.length)
    for word in vocabulary.read(prompt.text):
        for (start, end), gain in prompt.gains:
            if word.start < end and start < word.end:
                row[list(word.places)] = gain
    return row


def alignment(source: str, target: str, vocabulary: Reads) -> Tensor:
    """The place in the source's row of every place in the target's, [L] int64; -1 where there is none.

    Words are matched as `difflib.SequenceMatcher` does (the longest common run, then the same to its left and right).
    Where as many words stand between two matches in one text as in the other, they are taken for swapped one for one
    and mapped onto each other; others are new, and -1. A swapped word of another number of pieces spreads over the
    source's in order: piece k of q has piece `floor(k p / q)` of p. Start maps to start, end to end, padding to -1.

    Source: the function A of arXiv:2208.01626, section 3.2.

    Raises:
        ConfigError: a text is too long for the vocabulary's rows.
    """
    ours, theirs = vocabulary.read(source), vocabulary.read(target)
    row = torch.full((vocabulary.length,), -1, dtype=torch.int64)
    row[0] = 0
    row[_behind(theirs)] = _behind(ours)
    matcher = SequenceMatcher(None, [w.text for w in ours], [w.text for w in theirs], autojunk=False)
    for what, start, end, start_new, end_new in matcher.get_opcodes():
        if what == "equal" or (what == "replace" and end - start == end_new - start_new):
            for old, new in zip(ours[start:end], theirs[start_new:end_new], strict=True):
                for k, place in enumerate(new.places):
                    row[place] = old.places[k * len(old.places) // len(new.places)]
    return row


def _behind(words: list[Word]) -> int:
    return 1 + max((place for word in words for place in word.places), default=0)


def _plain(escaped: str) -> str:
    return re.sub(r"\\([()\\])", r"\1", escaped)


def _weighed(held: str, written: str) -> tuple[str, float]:
    """The words of a bracket and their factor."""
    words, colon, number = held.rpartition(":")
    if not colon:
        raise ConfigError(
            rf"the bracket ({held}) in a prompt has no factor: write ({held}:1.5), or \({held}\) for the signs"
        )
    try:
        gain = float(number)
    except ValueError:
        gain = math.nan
    if not (math.isfinite(gain) and gain >= 0):
        raise ConfigError(f"a factor in a prompt is a number of at least 0, got {number!r} in {written!r}")
    if not words.strip():
        raise ConfigError(
            f"a bracket in a prompt holds a word, got none before the factor {number} in {written!r}"
        )
    return _plain(words), gain


def _stray(written: str, place: int) -> str:
    """Why the bracket at `place` is none."""
    if written[place] == ")":
        return rf"the prompt {written!r} closes a bracket that it did not open: write \) for the sign"
    if "(" in re.sub(r"\\.", "", written[place + 1 :]).partition(")")[0]:
        return f"a bracket in a prompt holds no other: close the first one before the second in {written!r}"
    return rf"the prompt {written!r} opens a bracket and does not close it: write \( for the sign"
