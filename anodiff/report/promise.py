"""What the false alarms of a test set say about the promised rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

UNLIKELY = 0.01
"""The chance below which more false alarms than promised are not put down to chance."""


def promise(entry: Mapping[str, Any]) -> str:
    """Return a sentence on promised and found false alarms; "" where there is no promise.

    Args:
        entry: `false_alarm_rate` of metrics.json: `value`, `n` and, with a conformal threshold, `promised`,
            `expected_low`, `expected_high` and `p_value`.
    """
    if entry.get("promised") is None:
        return ""
    n = int(entry["n"])
    found = round(float(entry["value"]) * n)
    low, high = (round(float(entry[key]) * n) for key in ("expected_low", "expected_high"))
    chance = float(entry["p_value"])
    text = (
        f"the threshold promises at most {100 * float(entry['promised']):.3g} % false alarms, which lets expect {low} "
        f"to {high} among {n} good pictures; there are {found}"
    )
    if chance >= UNLIKELY:
        return text
    return f"{text}, more than chance explains (p = {chance:.1g}): these pictures are not like those held out"
