"""What is asked of a sample, as a caller words it: a label, a text, a layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from anodiff.cond import Cond
from anodiff.config import RunConfig, schema
from anodiff.encode.boxes import Classes, read_layout
from anodiff.encode.label import number_of
from anodiff.encode.prompt import Prompt, gains, parse
from anodiff.errors import RefusalError
from anodiff.told import Teller


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What to paint; what is left out the model chooses: labels and usual captions take turns."""

    label: str | None = None
    prompt: str | None = None  # words in brackets with a number weigh that much: (metal:1.6)
    layout: Path | None = None  # JSON: [["washer", left, top, right, bottom], ...]


def conditions(config: RunConfig, asked: Asked, device: torch.device) -> Callable[[range], Cond] | None:
    """From the numbers of pictures to their conditions; None for a model that is told nothing.

    Raises:
        RefusalError: words or boxes for a model that reads none.
        ConfigError: a label, class or box that does not fit, or a text that is too long.
    """
    names, tokens = config.labels.classes, config.tokens
    if asked.prompt is not None and not isinstance(tokens, schema.Text):
        raise RefusalError(
            "A prompt was given, but this model reads no words: leave --prompt out, or fit with tokens.kind=text."
        )
    if asked.layout is not None and not isinstance(tokens, schema.Layout):
        raise RefusalError(
            "A layout was given, but this model reads no boxes: leave --layout out, or fit with tokens.kind=layout."
        )
    if asked.label is None and not names and tokens.kind == "none":
        return None
    chosen: Sequence[int] = range(len(names)) if asked.label is None else [number_of(asked.label, names)]
    drawn = [] if asked.layout is None else read_layout(asked.layout)

    def of(pictures: range) -> Cond:
        labels = [chosen[i % len(chosen)] for i in pictures] if chosen else None
        label = None if labels is None else torch.tensor(labels, device=device)
        match tokens:
            case schema.Text():
                return worded(config, _texts(tokens, asked, pictures, labels), device, label=label)
            case schema.Layout(classes=classes, most=most):
                row = Classes(classes, most).row(drawn).to(device)
                keep = None if drawn else torch.zeros(len(pictures), dtype=torch.bool, device=device)
                return Cond(label=label, boxes=row.expand(len(pictures), -1, -1), keep=keep)
        return Cond(label=label)

    of(range(1))  # what does not fit is told before anything is painted
    return of


def worded(
    config: RunConfig, texts: Sequence[str], device: torch.device, *, label: Tensor | None = None
) -> Cond:
    """The conditions of one picture a text, weights of words among them.

    Raises:
        RefusalError: a text, or weights, that this model cannot read.
        ConfigError: brackets that do not close, or a text that is too long.
    """
    if not isinstance(config.tokens, schema.Text):
        raise RefusalError("This model reads no words: fit one with tokens.kind=text.")
    prompts = [parse(text) for text in texts]
    teller = Teller(config)
    cond = teller.worded([prompt.text for prompt in prompts]).to(device)
    return replace(cond, label=label, token_gain=_gains(teller, prompts, device))


def unknown(config: RunConfig, texts: Sequence[str | None]) -> list[str]:
    """The words that a model with a vocabulary of its own has hardly met, each once, in their order; no signs."""
    if not isinstance(config.tokens, schema.Text) or config.tokens.clip is not None:
        return []
    vocabulary = Teller(config).vocabulary
    given = [parse(text).text for text in texts if text is not None]
    found = dict.fromkeys(word for text in given for word in vocabulary.unknown(text))
    return [word for word in found if any(sign.isalnum() for sign in word)]


def away(named: str | None, config: RunConfig, device: torch.device) -> str | Cond | None:
    """What to lead away from: the conditions of a text, one row, or the name of a label as it is."""
    if named is None or not isinstance(config.tokens, schema.Text):
        return named
    return worded(config, [named], device)


def _gains(teller: Teller, prompts: Sequence[Prompt], device: torch.device) -> Tensor | None:
    if not any(prompt.gains for prompt in prompts):
        return None
    return torch.stack([gains(prompt, teller.reader) for prompt in prompts]).to(device)


def _texts(tokens: schema.Text, asked: Asked, pictures: range, labels: Sequence[int] | None) -> Sequence[str]:
    if asked.prompt is not None:
        return [asked.prompt] * len(pictures)
    usual = tokens.normal
    if labels is not None and len(usual) > 1:
        return [usual[label] for label in labels]
    return [usual[i % len(usual)] for i in pictures]
