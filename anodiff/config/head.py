"""The learnt head: a network that marks defects in evidence, trained on painted ones."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from anodiff.config.section import NotNegative, Section


class NoHead(Section):
    """The evidence alone."""

    kind: Literal["none"] = "none"


class LearnedHead(Section):
    """A small network over residuals and code; it never sees a real defect."""

    kind: Literal["learned"] = "learned"
    weight: NotNegative = 1.0  # of its marks, beside the residual's 1
    width: PositiveInt = 48
    depth: Annotated[int, Field(ge=0)] = 2  # blocks, each seeing one position further
    painted: Annotated[int, Field(ge=4)] = 600  # pictures, three of four with a painted defect
    steps: PositiveInt = 400
    batch: PositiveInt = 16
    learning_rate: PositiveFloat = 2e-3


Head = Annotated[NoHead | LearnedHead, Field(discriminator="kind")]
