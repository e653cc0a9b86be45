"""What is kept of a cell: cell.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anodiff.run import write_text

FILE = "cell.json"
SETTLED = ("done", "refused")
"""States that another run would not change."""


def read(folder: Path) -> dict[str, Any] | None:
    """The record in a cell's folder; None where there is none that can be read."""
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and "status" in found else None


def write(folder: Path, record: Mapping[str, Any]) -> None:
    """Keep a record, whole or not at all."""
    write_text(folder / FILE, json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def stopped(cell: Mapping[str, Any], status: str, error: str) -> dict[str, Any]:
    """The record of a cell without figures: `failed`, or `refused` with the stated reason."""
    return {**cell, "status": status, "error": error, "metrics": {}, "cost": {}, "about": {}}
