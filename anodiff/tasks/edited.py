"""A picture and its edit, side by side: prompt-to-prompt as a caller words it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from anodiff.config import RunConfig, schema
from anodiff.detect.predictor import Predictor, bare
from anodiff.diffusion.blend import LocalBlend
from anodiff.diffusion.editing import Both, KeepShape, Recorder, Refine
from anodiff.encode.prompt import Reads, alignment, parse
from anodiff.errors import ConfigError, RefusalError
from anodiff.painting import Rows
from anodiff.tasks.asked import Asked, worded
from anodiff.told import Teller


@dataclass(frozen=True)
class Edit:
    """Another text for the same picture (arXiv:2208.01626)."""

    text: str
    window: Sequence[float] | None = (
        None  # lowest and highest noise level at which the layout is kept; None: all
    )
    blend: str | None = None  # a word of either text: only where it looks the picture changes
    threshold: float = 0.3  # share of its highest attention from which on a word looks somewhere


def edited(
    predictor: Predictor,
    config: RunConfig,
    shape: tuple[int, int],
    asked: Asked,
    edit: Edit,
    *,
    device: torch.device,
) -> Callable[[range], Rows]:
    """From numbers of samples to pairs of rows of the same noise: the pictures of the prompt, then their edits.

    Words that both texts have, and words swapped one for one, look where the prompt's did (`Refine`); so do the
    positions of the picture at each other on coarse maps (`KeepShape`), while the noise level is in the window.

    Args:
        predictor: of a model that reads words.
        config: of the model.
        shape: working (height, width).
        asked: its prompt is the source.
        edit: what the target is.
        device: where the predictor lives.

    Raises:
        RefusalError: a model that reads no words, or an edit without a prompt.
        ConfigError: a text that is too long, a window out of order, or a word to blend that neither text has.
    """
    if asked.prompt is None or not isinstance(config.tokens, schema.Text):
        raise RefusalError(
            "An edit changes the picture of a prompt, by a model that reads words: give --prompt, and fit such a model "
            "with tokens.kind=text."
        )
    low, high = edit.window or (0.0, torch.inf)
    if not 0 <= low < high:
        raise ConfigError(f"--window expects the lower noise level first, got {low:g} and {high:g}.")
    reader = Teller(config).reader
    source, target = parse(asked.prompt).text, parse(edit.text).text
    mapped = alignment(source, target, reader).to(device)
    places = [places_of(edit.blend, text, reader) if edit.blend else [] for text in (source, target)]
    if edit.blend and not any(places):
        raise ConfigError(
            f"The word {edit.blend!r} to blend stands in neither text: name one of {source!r} or {target!r}."
        )
    size = (shape[0] // predictor.codec.stride, shape[1] // predictor.codec.stride)
    prompt = asked.prompt

    def of(numbers: range) -> Rows:
        count = len(numbers)
        cond = worded(config, [prompt] * count + [edit.text] * count, device)
        recorder = Recorder(shape=size)
        changes = Both(Refine(low, high, mapped), KeepShape(low, high), recorder)
        words = [places[0]] * count + [places[1]] * count
        around = (
            partial(LocalBlend, recorder=recorder, words=words, threshold=edit.threshold)
            if edit.blend
            else bare
        )
        return Rows([*numbers, *numbers], cond.edited(changes), around=around)

    return of


def places_of(word: str, text: str, reader: Reads) -> list[int]:
    """The places among a text's tokens of every piece of `word`, wherever it stands; none where it does not."""
    wanted = word.casefold()
    return [place for found in reader.read(text) if found.text.casefold() == wanted for place in found.places]
