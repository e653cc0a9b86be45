"""How parts are brought to lie alike before a model sees them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, model_validator

from anodiff.config.section import Section


class KeepPose(Section):
    """Pictures are looked at as they are."""

    kind: Literal["keep"] = "keep"


class UprightPose(Section):
    """Each part is moved to the middle and turned upright; the fit finds how, from the good pictures alone."""

    kind: Literal["upright"] = "upright"
    turn: Literal["none", "shape", "look"] | None = None  # null: found by the fit
    canvas: tuple[PositiveFloat, PositiveFloat, PositiveFloat, PositiveFloat] | None = (
        None  # how far it goes left, up, right and down of the part's centre, over sqrt(height x width) of a picture
    )

    @model_validator(mode="after")
    def _whole(self) -> UprightPose:
        if self.canvas is not None and self.turn is None:
            raise ValueError("canvas: belongs to a turn; name that too, or leave both to the fit")
        return self


class AutoPose(Section):
    """The fit chooses between the two."""

    kind: Literal["auto"] = "auto"


Pose = Annotated[KeepPose | UprightPose | AutoPose, Field(discriminator="kind")]
