"""What the methods of a bench cost, and what that buys: figures of cost over cells, and accuracy against cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from anodiff.bench.finding import Finding
from anodiff.report.bench_summary import Cost, Range, Spread, Standing, Step, Trade

EVALUATIONS, LATENCY, MAIN = "evaluations_per_image", "ms_p50", "image_auroc"


def costs_of(done: Sequence[Finding]) -> list[Cost]:
    """One row a method and device, in the order of the cells; each figure the median over sets and seeds."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for method in dict.fromkeys(cell.method for cell in done):
        for cell in done:
            if cell.method == method and cell.cost:
                groups.setdefault((method, str(cell.about.get("device") or "")), []).append(cell)
    return [
        Cost(
            method,
            device,
            {
                name: _range([cell.cost[name] for cell in cells if name in cell.cost])
                for name in dict.fromkeys(name for cell in cells for name in cell.cost)
            },
        )
        for (method, device), cells in groups.items()
    ]


def trades_of(
    done: Sequence[Finding],
    standings: Sequence[Standing],
    overall: Mapping[str, Spread],
    common: Sequence[str],
) -> dict[str, list[Trade]]:
    """Set to the places of its methods; under "" those of the means over sets, where there is more than one set.

    A method's line over steps is the mean over its seeds, and over sets for "": only step counts that every one of them
    tried are on it, or a line would rise by which sets happen to be in its points.
    """
    found: dict[str, list[Trade]] = {}
    for name in dict.fromkeys(standing.set for standing in standings):
        found[name] = [
            _trade(
                [cell for cell in done if (cell.set, cell.method) == (name, standing.method)],
                standing.metrics[MAIN],
                standing.method,
            )
            for standing in standings
            if standing.set == name
        ]
    if overall:
        found[""] = [
            _trade([cell for cell in done if cell.method == method and cell.set in common], spread, method)
            for method, spread in overall.items()
        ]
    return found


def _trade(cells: Sequence[Finding], spread: Spread, method: str) -> Trade:
    here = Step(
        _median(cells, EVALUATIONS, missing=0.0), _median(cells, LATENCY, missing=np.nan), spread.mean
    )
    return Trade(method, here, spread.low, spread.high, _steps(cells))


def _steps(cells: Sequence[Finding]) -> list[Step]:
    """The line over evaluations: AUROC averaged over seeds within each set first, then over sets."""
    curves = [{float(step["evaluations"]): step for step in cell.curve} for cell in cells]
    shared = set.intersection(*(set(curve) for curve in curves)) if curves else set()
    steps = []
    for evaluations in sorted(shared):
        by_set: dict[str, list[float]] = {}
        for cell, curve in zip(cells, curves, strict=True):
            by_set.setdefault(cell.set, []).append(float(curve[evaluations]["image_auroc"]))
        times = [float(ms) for curve in curves if (ms := curve[evaluations].get("ms_p50")) is not None]
        steps.append(
            Step(
                evaluations,
                float(np.median(times)) if times else np.nan,
                float(np.mean([np.mean(values) for values in by_set.values()])),
            )
        )
    return steps if len(steps) > 1 else []


def _median(cells: Sequence[Finding], name: str, *, missing: float) -> float:
    values = [cell.cost[name] for cell in cells if name in cell.cost]
    return float(np.median(values)) if values else missing


def _range(values: Sequence[float]) -> Range:
    return Range(float(np.median(values)), min(values), max(values))
