"""Quality gates: `image_auroc>=0.95` and what becomes of it."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from anodiff.errors import ConfigError

_COMPARE = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}


@dataclass(frozen=True)
class Gate:
    """A number that must be reached."""

    name: str
    sign: str
    bound: float

    def __str__(self) -> str:
        return f"{self.name}{self.sign}{self.bound:g}"

    def missed(self, values: Mapping[str, float | None]) -> str | None:
        """Why the gate is not reached, in a sentence; None where it is. A number that is not known misses."""
        value = values.get(self.name)
        if value is None or math.isnan(value):
            return f"{self}: {self.name} is not known here (pixel metrics need masks)"
        return None if _COMPARE[self.sign](value, self.bound) else f"{self}: {self.name} is {value:.6g}"


def gate(text: str, *, known: Collection[str]) -> Gate:
    """The gate in a text such as `image_auroc>=0.95`; ConfigError, with the near miss, for any other."""
    found = re.fullmatch(r"\s*(\w+)\s*(>=|<=|>|<)\s*(\S+)\s*", text)
    if not found:
        raise ConfigError(
            f"--gate expects a metric, a sign and a number, such as image_auroc>=0.95; got {text!r}."
        )
    name, sign, number = found.groups()
    try:
        bound = float(number)
    except ValueError:
        raise ConfigError(f"--gate expects a number after {sign}, got {number!r}.") from None
    if name not in known:
        import difflib

        near = difflib.get_close_matches(name, list(known), n=1)
        meant = f" Did you mean {near[0]}?" if near else ""
        raise ConfigError(f"--gate knows no metric {name!r}.{meant} Known: {', '.join(known)}.")
    return Gate(name, sign, bound)
