"""The configurations that a fit compares where `selftest.choose` asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from anodiff.config.load import parse
from anodiff.config.schema import RunConfig
from anodiff.config.selftest import STEPS
from anodiff.errors import ConfigError


@dataclass(frozen=True)
class Candidate:
    """A configuration that needs no training of its own, and what it changes.

    One with other `train.steps` is the same training, stopped earlier: the average of the weights as it stood then.
    """

    config: RunConfig
    changes: Mapping[str, Any]  # by dotted key; none in the configuration that was asked for

    @property
    def name(self) -> str:
        """The changes in words, as `--set` takes them."""
        return " ".join(f"{key}={_plain(value)}" for key, value in self.changes.items()) or "as configured"


def candidates(config: RunConfig) -> tuple[Candidate, ...]:
    """The configuration itself, then every other combination of the values to choose from.

    Raises:
        ConfigError: a value that the configuration refuses, a key it does not have, one a learned head rests on, or a
            stop after the end of the training.
    """
    found = [Candidate(config, {})]
    asked = config.selftest.choose
    head = getattr(getattr(config.score, "head", None), "kind", "none")
    if late := [steps for steps in config.selftest.stops if steps > config.train.steps]:
        raise ConfigError(
            f"selftest.choose: the training ends after {config.train.steps} steps, so it cannot stop after {late[0]}; "
            "set train.steps to the largest of the values."
        )
    if head != "none" and (tied := [key for key in asked if key.startswith(("score.", STEPS))]):
        raise ConfigError(
            f"selftest.choose: {', '.join(tied)} changes what the head of the score was taught by; choose keys of "
            "calibration and pool, or set score.head.kind to none."
        )
    for values in product(*asked.values()) if asked else ():
        tree = config.model_dump(mode="json")
        for key, value in zip(asked, values, strict=True):
            *places, last = key.split(".")
            section = tree
            for place in places:
                section = section.setdefault(place, {})
                if not isinstance(section, dict):
                    raise ConfigError(f"selftest.choose: {key} names no key; {place} is a value.")
            section[last] = value
        try:
            made = parse(tree)
        except ConfigError as error:
            raise ConfigError(f"selftest.choose: {error}") from None
        if all(made != other.config for other in found):
            found.append(Candidate(made, dict(zip(asked, values, strict=True))))
    return tuple(found)


def _plain(value: Any) -> str:
    """The value as YAML in one line."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_plain, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_plain(entry)}" for key, entry in value.items()) + "}"
    return f"{value:g}" if isinstance(value, float) else str(value)
