"""Where each word of a text looks, kept while pictures are painted from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from anodiff.config import RunConfig, schema
from anodiff.diffusion.editing import Both, Recorder
from anodiff.encode.prompt import Reads, parse
from anodiff.encode.vocabulary import Word
from anodiff.errors import RefusalError
from anodiff.painting import Rows
from anodiff.told import Teller

MOST = 4
"""Pictures of which it is kept."""


@dataclass(frozen=True, eq=False)
class Look:
    """A picture, and where the words of its text looked while it was painted."""

    picture: np.ndarray  # uint8 [H, W, C]
    words: tuple[str, ...]
    maps: np.ndarray  # [words, h, w] in [0, 1], each of maximum 1


class Looks:
    """Watches one painting: `watched` stands in the way of its rows, `passed` in the way of its pictures.

    Kept are the pictures of the first batch, at most `MOST`, and the cross-attention of each, averaged over heads,
    layers and the whole walk (`Recorder`); with guidance that of the rows that are told the text.

    Args:
        texts: the text of every share of a batch: one for all rows, or two for pictures and their edits.
        reader: divides texts into words.
        shape: (h, w) of a code.
    """

    def __init__(self, texts: Sequence[str], reader: Reads, shape: tuple[int, int]) -> None:
        self.texts = texts
        self.reader = reader
        self.shape = shape
        self._recorder: Recorder | None = None
        self._rows = 0  # of the first batch
        self._kept: dict[int, np.ndarray] = {}

    def watched(self, rows_of: Callable[[range], Rows]) -> Callable[[range], Rows]:
        """The same rows, with the attention of the first batch recorded."""

        def of(numbers: range) -> Rows:
            rows = rows_of(numbers)
            if self._recorder is not None:
                return rows
            self._recorder, self._rows = Recorder(self.shape), len(rows.numbers)
            before = rows.cond.edit
            edit = self._recorder if before is None else Both(before, self._recorder)
            return replace(rows, cond=rows.cond.edited(edit))

        return of

    def passed(self, pictures: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The same pictures, uint8 [H, W, C], one after the other; those that are looked at are kept."""
        for number, picture in enumerate(pictures):
            if number in self._chosen():
                self._kept[number] = picture
            yield picture

    def found(self) -> list[Look]:
        """What was kept, after the painting: a picture and its edit one after the other."""
        if self._recorder is None:
            raise RefusalError("Nothing was painted yet, so no word has looked anywhere.")
        read = [self.reader.read(text) for text in self.texts]
        rows = [read[row // self._share()] for row in range(self._rows)]
        maps = [self._maps(self._recorder, rows, place) for place in range(max(map(len, read)))]
        return [
            Look(
                self._kept[row],
                tuple(word.text for word in rows[row]),
                np.stack([maps[place][row] for place in range(len(rows[row]))]),
            )
            for row in self._chosen()
        ]

    def _maps(self, recorder: Recorder, rows: Sequence[Sequence[Word]], place: int) -> np.ndarray:
        """Where the word `place` of every row's text looks, [B, h, w]."""
        places = [words[place].places if place < len(words) else () for words in rows]
        return recorder.maps(places)[:, 0].cpu().numpy()

    def _share(self) -> int:
        """Rows of the first batch that have one text."""
        return self._rows // len(self.texts)

    def _chosen(self) -> list[int]:
        """Rows of the first batch whose pictures are kept, those of one number next to each other."""
        share, texts = self._share(), len(self.texts)
        return [number + text * share for number in range(min(share, MOST // texts)) for text in range(texts)]


def looks(
    config: RunConfig, shape: tuple[int, int], *, stride: int, prompt: str | None, edit: str | None = None
) -> Looks:
    """What watches a painting of `prompt`, and of its edit.

    Args:
        config: of the model.
        shape: working (height, width).
        stride: of its codec.
        prompt: as `Asked` has it.
        edit: the other text of a pair.

    Raises:
        RefusalError: a model that reads no words, or no prompt.
        ConfigError: brackets that do not close, or a text that is too long or without a word.
    """
    if prompt is None or not isinstance(config.tokens, schema.Text):
        raise RefusalError(
            "Only words of a text look somewhere: give --attention together with --prompt, for a model fitted with "
            "tokens.kind=text."
        )
    texts = [parse(text).text for text in (prompt, edit) if text is not None]
    reader = Teller(config).reader
    for text in texts:
        if not reader.read(text):
            raise RefusalError(f"The text {text!r} has no word that could look somewhere.")
    return Looks(texts, reader, (shape[0] // stride, shape[1] // stride))
