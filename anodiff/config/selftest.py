"""What is found out with painted defects at the end of a fit, and what may be chosen by them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from anodiff.config.section import Section

FREE = ("score", "calibration", "pool")
"""Sections whose keys say how a trained network is asked, so that another value needs no other training."""

STEPS = "train.steps"
"""The key beside those: the average of the weights as it stood after so many steps of the one training."""

MOST = 64
"""Candidates at most: the whole grid is compared, and each more makes a gain by chance likelier."""


class SelfTest(Section):
    """Defects painted on good parts: how many are found, and which values of some keys find them best."""

    kind: Literal["none", "painted"] = "painted"
    painted: PositiveInt | None = None  # pictures with a defect; null: 96, fewer where each takes long
    strengths: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)] = (
        0.15,
        0.35,
        0.8,
    )  # contrast of the defects; 1 is easy to see
    choose: dict[str, tuple[Any, ...]] = Field(default_factory=dict)  # values to compare, by dotted key

    @field_validator("choose", mode="before")
    @classmethod
    def _dotted(cls, value: Any) -> Any:
        """Nested sections, as `--set selftest.choose.pool.share=[...]` makes them, by dotted keys."""
        return dict(_flat(value)) if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _possible(self) -> SelfTest:
        for key, values in self.choose.items():
            section, _, rest = key.partition(".")
            if key == STEPS:
                if not all(type(value) is int and value >= 1 for value in values):
                    raise ValueError(f"choose: {key} takes whole numbers of steps from 1, got {list(values)}")
            elif section not in FREE or not rest:
                raise ValueError(
                    f"choose: {key} cannot be chosen without training anew; take {STEPS} and keys of "
                    f"{', '.join(FREE)}, such as pool.share, or compare two fits"
                )
            if key == "score.kind" or rest.split(".")[0] == "head":
                raise ValueError(
                    f"choose: {key} changes more than one value, or is trained itself; compare two fits instead"
                )
            if not values:
                raise ValueError(f"choose: {key} has no values; list two or more, or leave it out")
        if self.choose and self.kind == "none":
            raise ValueError("choose: candidates are compared by painted defects; set kind to painted")
        if (count := prod(len(values) for values in self.choose.values())) > MOST:
            raise ValueError(
                f"choose: {count} combinations, and every one is compared; list fewer values, at most {MOST} in all"
            )
        return self

    @property
    def stops(self) -> tuple[int, ...]:
        """Steps of the training after which the average is a candidate, ascending."""
        return tuple(sorted(set(self.choose.get(STEPS, ()))))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
