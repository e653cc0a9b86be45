"""Spans of time as people write them."""

from __future__ import annotations

import argparse
import re

_UNITS = {"h": 3600.0, "m": 60.0, "min": 60.0, "s": 1.0}


def seconds(text: str) -> float:
    """The seconds in `90`, `90s`, `5m` or `1h30m`; an error of argparse for anything else, and for none at all."""
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*(h|min|m|s)", text)
    rest = re.sub(r"\d+(?:\.\d+)?\s*(?:h|min|m|s)", "", text).strip()
    try:
        total = sum(float(number) * _UNITS[unit] for number, unit in parts) + (float(rest) if rest else 0.0)
    except ValueError:
        total = 0.0
    if not 0 < total < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a span of time such as 90s, 5m or 1h30m, got {text!r}")
    return total
