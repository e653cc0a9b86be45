"""What the model is told of a picture besides its label: words, boxes, and what stands beside its code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Protocol

import pandas as pd
import torch
from torch import Tensor

from anodiff.codec.protocol import Codec
from anodiff.cond import Cond
from anodiff.config import RunConfig, schema
from anodiff.data.boxes import boxes
from anodiff.data.caption import captions
from anodiff.data.classmap import class_maps, read_classes
from anodiff.detect.content import coarse_seed
from anodiff.detect.predictor import Tell
from anodiff.encode.beside import LowRes, Masked, Semantic
from anodiff.encode.boxes import Classes
from anodiff.encode.clip import ClipText
from anodiff.encode.holes import random_mask
from anodiff.encode.prompt import Reads
from anodiff.encode.vocabulary import Vocabulary

Fields = Mapping[str, Tensor]
Beside = Callable[[Tensor, Sequence[int]], Tensor]
"""(pictures [B, C, H, W] in [0, 1], one seed a row) -> what stands beside their codes, [B, C', h, w]."""


class Items(Protocol):
    """Pictures or codes by number."""

    def item(self, index: int, seed: int, /) -> Tensor:
        """Row `index` in the draw that `seed` chooses."""
        ...


class Teller:
    """From rows of a table, or pictures, to fields of `Cond`."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Of a model that reads words."""
        tokens = self.config.tokens
        assert isinstance(tokens, schema.Text)
        return Vocabulary(tokens.vocabulary, tokens.length)

    @cached_property
    def clip(self) -> ClipText:
        """The frozen text model of one that has it."""
        tokens = self.config.tokens
        assert isinstance(tokens, schema.Text)
        assert tokens.clip is not None
        return ClipText(tokens.clip)

    @property
    def reader(self) -> Reads:
        """What divides texts into tokens."""
        tokens = self.config.tokens
        return self.clip if isinstance(tokens, schema.Text) and tokens.clip is not None else self.vocabulary

    def texts(self, given: Sequence[str]) -> dict[str, Tensor]:
        """The fields of `Cond` of texts, one row a text."""
        tokens = self.config.tokens
        if isinstance(tokens, schema.Text) and tokens.clip is not None:
            found, mask = self.clip(list(given))
            return {"tokens": found, "token_mask": mask}
        return {"words": self.vocabulary.rows(list(given))}

    def worded(self, given: Sequence[str]) -> Cond:
        """The conditions of texts, one row a text."""
        told = self.texts(given)
        return Cond(words=told.get("words"), tokens=told.get("tokens"), token_mask=told.get("token_mask"))

    def rows(self, table: pd.DataFrame) -> dict[str, Tensor]:
        """The fields that do not depend on how a picture is augmented, one row a row of the table."""
        match self.config.tokens:
            case schema.Text(column=column, template=template):
                return self.texts(captions(table, column=column, template=template))
            case schema.Layout(column=column, classes=names, most=most):
                return {"boxes": Classes(names, most).rows(boxes(table, column=column))}
        return {}

    def fixed(self, table: pd.DataFrame, codec: Codec, shape: tuple[int, int]) -> dict[str, Tensor]:
        """`rows`, and the maps of classes at the size of codes of pictures of `shape`, one row a row of the table."""
        found = self.rows(table)
        maps = self.maps(table, shape, (shape[0] // codec.stride, shape[1] // codec.stride))
        return found if maps is None else {**found, "image": maps}

    def beside(self, codec: Codec) -> Beside | None:
        """What makes the picture beside a code from the picture itself; None where there is none to make."""
        match self.config.beside:
            case schema.LowRes(factor=factor, noise=noise):
                low = LowRes(factor, noise)
                return lambda image, seeds: low.make(image, _size(image, codec), seeds)
            case schema.Masked():
                hidden = Masked()
                return lambda image, seeds: hidden.make(
                    codec,
                    image,
                    torch.stack([random_mask(seed, (image.shape[-2], image.shape[-1])) for seed in seeds]).to(
                        image.device
                    ),
                )
        return None

    def scoring(self, codec: Codec) -> Tell | None:
        """What completes the conditions of pictures that are scored; None for a model that is told no more."""
        tokens = self.config.tokens
        makes = isinstance(self.config.score, schema.Detail)  # its restorer makes the small picture itself
        low = self.beside(codec) if isinstance(self.config.beside, schema.LowRes) and not makes else None
        if not isinstance(tokens, schema.Text) and low is None:
            return None

        def tell(image: Tensor, cond: Cond, seeds: Sequence[int]) -> Cond:
            if isinstance(tokens, schema.Text):
                texts = tokens.normal
                rows = torch.zeros(len(image), dtype=torch.int64) if cond.label is None else cond.label
                chosen = [texts[min(row, len(texts) - 1)] for row in rows.tolist()]
                cond = replace(cond, **{k: v.to(image.device) for k, v in self.texts(chosen).items()})
            return cond if low is None else replace(cond, image=low(image, seeds))

        return tell

    def repairing(self, codec: Codec) -> Callable[[Tensor, Tensor, Tensor], Tensor] | None:
        """What makes the picture with its hole for `Repair`, from (the picture [B, C, H, W], its code, the known
        positions [B, 1, h, w]); None for a model that reads none. All pixels of a hidden position are hidden.
        """
        if not isinstance(self.config.beside, schema.Masked):
            return None
        hidden, side = Masked(), codec.stride
        return lambda image, z, known: hidden.make(
            codec, image, known.repeat_interleave(side, -2).repeat_interleave(side, -1)
        )

    def detailing(self, codec: Codec) -> Callable[[Tensor, Tensor], Tensor] | None:
        """What makes the small picture for `Detail`, from (the picture [B, C, H, W], its code); None for a model that
        reads none. Its noise is keyed by the picture's content, as all noise of a score is.
        """
        low = self.beside(codec) if isinstance(self.config.beside, schema.LowRes) else None
        if low is None:
            return None
        return lambda image, z: low(image, [coarse_seed(row, self.config.seed) for row in image])

    def maps(self, table: pd.DataFrame, shape: tuple[int, int], size: tuple[int, int]) -> Tensor | None:
        """The maps of classes of the rows, [n, classes, *size], where the model reads them."""
        match self.config.beside:
            case schema.Semantic(column=column, classes=classes):
                found = [read_classes(path, shape=shape) for path in class_maps(table, column=column)]
                return torch.cat([Semantic(classes).make(torch.from_numpy(one)[None], size) for one in found])
        return None


def telling(fixed: Fields, rows: Items, beside: Beside | None) -> Callable[[int, int], Fields] | None:
    """What the trainer is told of a row in the draw that a seed chooses, as fields of `Cond`; None of nothing.

    Args:
        fixed: what is the same in every draw, `Teller.fixed`.
        rows: what is trained on; codes bring along what stands beside them, pictures have it made when they are read.
        beside: what makes it.
    """
    if not fixed and beside is None:
        return None

    def of(row: int, seed: int) -> Fields:
        found = {name: values[row] for name, values in fixed.items()}
        if beside is not None:
            kept = getattr(rows, "image", None)
            found["image"] = (
                beside(rows.item(row, seed)[None], [seed])[0] if kept is None else kept(row, seed)
            )
        return found

    return of


def _size(image: Tensor, codec: Codec) -> tuple[int, int]:
    return image.shape[-2] // codec.stride, image.shape[-1] // codec.stride
