"""What a model is told besides a label: words or boxes as tokens, pictures beside the code."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from anodiff.config.section import NotNegative, Section


class NoTokens(Section):
    """Nothing: attention looks at the picture alone."""

    kind: Literal["none"] = "none"


class Text(Section):
    """Captions, read by cross-attention over an encoder that is trained with the model (arXiv:2112.10752, 4.3.1)."""

    kind: Literal["text"] = "text"
    column: str = "caption"
    template: str = "a photo of a {state} {category}"  # of pictures without a caption
    vocabulary: tuple[str, ...] = ()  # pieces of words; found by the fit
    size: Annotated[int, Field(ge=8)] = 512  # pieces at most
    length: Annotated[int, Field(ge=4)] = 24  # pieces of a text, at most
    normal: tuple[str, ...] = ()  # what a score tells the model, one a label or one for all; found by the fit
    channels: PositiveInt = 64
    depth: PositiveInt = 2  # layers of the encoder
    heads: PositiveInt = 4
    clip: str | None = None  # folder of a CLIP text model, frozen, in place of the encoder


class Layout(Section):
    """Boxes with classes, read by cross-attention."""

    kind: Literal["layout"] = "layout"
    column: str = "boxes"
    classes: tuple[str, ...] = ()  # found by the fit
    most: PositiveInt = 16  # boxes of a picture
    channels: PositiveInt = 64
    depth: PositiveInt = 1
    heads: PositiveInt = 4


class NoBeside(Section):
    """Nothing: the network sees the noisy code alone."""

    kind: Literal["none"] = "none"


class LowRes(Section):
    """The picture itself at low resolution: a model that adds detail (super-resolution)."""

    kind: Literal["lowres"] = "lowres"
    factor: Annotated[int, Field(ge=2)] = 4
    noise: NotNegative = 0.05  # deviation of what is added to it, so that other small pictures do too


class Masked(Section):
    """The picture with parts hidden, and where: a model that fills in (inpainting)."""

    kind: Literal["masked"] = "masked"


class Semantic(Section):
    """A map of classes, one number a pixel."""

    kind: Literal["semantic"] = "semantic"
    column: str = "map"
    classes: Annotated[int, Field(ge=2)] = 2


Tokens = Annotated[NoTokens | Text | Layout, Field(discriminator="kind")]
Beside = Annotated[NoBeside | LowRes | Masked | Semantic, Field(discriminator="kind")]
