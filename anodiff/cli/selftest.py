"""What a person is told of the self-test at the end of a fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from anodiff.cli import console
from anodiff.run import Run

if TYPE_CHECKING:
    from anodiff.detector import Detector

COLUMNS = ("painted", "image AUROC", "pixel AUROC", "AUPRO .3", "found", "found from")
METRICS = ("image_auroc", "pixel_auroc", "aupro_30", "found")


def tested(detector: Detector) -> Mapping[str, Any]:
    """The self-test of a detector as its file keeps it; empty where there was none."""
    return detector.info["provenance"].get("selftest", {})


def keep(detector: Detector, folder: Run) -> None:
    """Write the self-test to selftest.csv, or take an earlier one away where there was none."""
    from anodiff.selftest.report import rows

    if found := tested(detector):
        folder.write_selftest(rows(found))
    else:
        folder.selftest.unlink(missing_ok=True)


def tell(detector: Detector) -> None:
    """Print the self-test as a table: a row a kind and a strength, the last one with intervals over all."""
    found = tested(detector)
    if "kinds" not in found:
        return
    parts = {**found["kinds"], **{f"strength {name}": part for name, part in found["strengths"].items()}}
    console.table(
        COLUMNS,
        [
            *(
                (name, *(short(part[metric]) for metric in METRICS), _from(part))
                for name, part in parts.items()
            ),
            ("all", *(_interval(found[metric]) for metric in METRICS), _from(found)),
        ],
        title=f"self-test: {found['painted']} painted defects on {found['clean']} good pictures held out",
    )


def brief(found: Mapping[str, Any]) -> dict[str, Any]:
    """A self-test in a few lines: the figures over all, and what was chosen."""
    lines: dict[str, Any] = {name: _interval(found[name]) for name in METRICS if name in found}
    lines |= {name: found[name] for name in ("painted", "clean", "found_from") if name in found}
    if choice := found.get("choice"):
        chosen = choice["chosen"]
        lines |= {"candidates": len(choice["candidates"]), "chosen": chosen or "as configured"}
    return lines


def _from(part: Mapping[str, Any]) -> str:
    least = part["found_from"]
    return "-" if least is None else f"{least:g}"


def _interval(figure: Mapping[str, float]) -> str:
    return f"{short(figure['value'])} [{short(figure['low'])}, {short(figure['high'])}]"


def short(value: float) -> str:
    """Three digits after the point, without the zero before it."""
    return f"{value:.3f}".removeprefix("0")
