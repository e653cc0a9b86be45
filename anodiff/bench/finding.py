"""What the cells of a bench left behind, read from their files."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from anodiff.errors import DataError

DONE = "done"


@dataclass(frozen=True, eq=False)
class Finding:
    """One cell: a method on a set with a seed.

    Attributes:
        set: Name of the data set.
        method: Name of the method.
        seed: Of the training.
        status: done, failed or refused.
        error: Why there is no result; "" where there is one.
        metrics: Metric to `{"value", "low", "high", "n"}`.
        cost: Name to number; what was not measured is left out.
        about: What the numbers were made with.
        generation: Measure of the samples, with its extractor in the name, to number.
        singular: Whether the samples are too few for their features, so that a Frechet distance tells little.
        curve: One mapping a tried number of steps, with `evaluations`, `ms_p50` and `image_auroc`.
        scores: Picture to (label, score), of pictures that were scored; None without predictions.csv.
    """

    set: str
    method: str
    seed: int
    status: str
    error: str = ""
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    generation: Mapping[str, float] = field(default_factory=dict)
    singular: bool = False
    curve: Sequence[Mapping[str, float]] = ()
    scores: Mapping[str, tuple[int, float]] | None = None

    @property
    def done(self) -> bool:
        """Whether there is a result."""
        return self.status == DONE

    @property
    def family(self) -> str | None:
        """What kind of diffusion the method uses, as its configuration tells; None where it does not."""
        told = self.about.get("family")
        return None if told is None else str(told)

    def row(self) -> dict[str, Any]:
        """The cell as one flat line: metrics with their bounds, costs, measures of samples, provenance."""
        flat: dict[str, Any] = {
            "set": self.set, "method": self.method, "family": self.family, "seed": self.seed,
            "status": self.status, "error": self.error,
        }  # fmt: skip
        for name, entry in self.metrics.items():
            flat[name] = entry["value"]
            flat |= {f"{name}_{bound}": entry.get(bound) for bound in ("low", "high", "n")}
        flat |= {**self.cost, **self.generation}
        plain = (str, int, float, type(None))
        told = {
            name: value
            for name, value in self.about.items()
            if isinstance(value, plain) and name != "command"
        }
        return flat | {name: value for name, value in told.items() if name not in flat}


def findings(folder: Path) -> list[Finding]:
    """All cells of a bench's folder, sets and methods in the order of its bench.yaml, seeds rising.

    A cell whose files cannot be read is one without a result, with a sentence; the others are not lost.

    Raises:
        DataError: there is no cell at all.
    """
    files = sorted(folder.glob("cells/*/*/seed*/cell.json"))
    if not files:
        raise DataError(
            f"Expected cells/SET/METHOD/seedN/cell.json in {folder}, found none. "
            "Run `anodiff bench CONFIG -o FOLDER` first."
        )
    found = [_finding(file) for file in files]
    sets, methods = (ranked(folder, part) for part in ("sets", "methods"))

    def place(finding: Finding) -> tuple[int, str, int, str, int]:
        return (
            sets.get(finding.set, len(sets)), finding.set,
            methods.get(finding.method, len(methods)), finding.method, finding.seed,
        )  # fmt: skip

    return sorted(found, key=place)


def ranked(folder: Path, part: str) -> dict[str, int]:
    """Name to place of the `sets` or `methods` of bench.yaml; empty where there is none."""
    names = settings(folder).get(part) or {}
    return {str(name): place for place, name in enumerate(names)}


def settings(folder: Path) -> dict[str, Any]:
    """What bench.yaml says; empty where it is not there or not a mapping."""
    path = folder / "bench.yaml"
    try:
        told = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    except yaml.YAMLError:
        told = None
    return told if isinstance(told, dict) else {}


def audit(folder: Path) -> dict[str, Mapping[str, Any]]:
    """Set to what the leak audit found; empty where there was none."""
    path = folder / "audit.json"
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} cannot be read: {error}. Run the audit again.") from None


def parsed(record: Mapping[str, Any], scores: Mapping[str, tuple[int, float]] | None = None) -> Finding:
    """The cell of a cell.json's content.

    Raises:
        KeyError, TypeError, ValueError: a part is missing or not of its kind.
    """
    return Finding(
        set=str(record["set"]),
        method=str(record["method"]),
        seed=int(record["seed"]),
        status=str(record["status"]),
        error=str(record.get("error") or ""),
        metrics={
            name: entry for name, entry in (record.get("metrics") or {}).items() if _is_number(entry["value"])
        },
        cost={name: float(value) for name, value in (record.get("cost") or {}).items() if _is_number(value)},
        about=record.get("about") or {},
        generation=dict(_measures(record.get("generation") or {})),
        singular=bool((record.get("generation") or {}).get("singular")),
        curve=[step for step in record.get("curve") or () if _is_number(step["image_auroc"])],
        scores=scores,
    )


def _finding(file: Path) -> Finding:
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        return parsed(record, _scores(file.with_name("predictions.csv")))
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        place = file.parent
        return Finding(
            set=place.parent.parent.name,
            method=place.parent.name,
            seed=int(place.name.removeprefix("seed")) if place.name[4:].isdigit() else -1,
            status="failed",
            error=f"The files of this cell cannot be read ({type(error).__name__}: {error}); run it again.",
        )


def _scores(path: Path) -> dict[str, tuple[int, float]] | None:
    """Picture to (label, score); a picture without a finite score is left out."""
    if not path.is_file():
        return None
    found: dict[str, tuple[int, float]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            score = float(line["score"]) if line["score"] else math.nan
            if line["path"] in found:
                raise ValueError(f"predictions.csv has {line['path']} twice")
            if math.isfinite(score) and line["label"] != "":
                found[line["path"]] = (int(float(line["label"])), score)
    return found


def _measures(told: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Name, its extractor in brackets, and number; what is no number (extractor, singular) is left out."""
    for name, value in told.items():
        if isinstance(value, Mapping):
            value = value.get("value")
        if not _is_number(value):
            continue
        yield str(name), float(value)  # type: ignore[arg-type]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
