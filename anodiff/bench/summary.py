"""From the files of a bench to what its report tells: means over seeds, intervals, paired comparisons, costs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from anodiff.bench.finding import Finding, audit, findings, settings
from anodiff.bench.judged import Judged, judged, pairs
from anodiff.bench.trade import costs_of, trades_of
from anodiff.metrics.paired import difference
from anodiff.metrics.seeds import deviation, summarised
from anodiff.report.bench_summary import (
    FamilyBest,
    Leak,
    Match,
    Pair,
    Spread,
    Standing,
    Summary,
    Trouble,
)

MAIN = "image_auroc"
NO_DIFFUSION = "none"  # the family of what uses no diffusion
DRAWS = 4000
PER_PAIR = 100  # draws for each pair of a set: an adjusted p must be able to fall well below .05
ROUNDED = 2e-3  # by how much scores rounded in a file may move an AUROC
SHOWN = ("commit", "device", "cpu_count", "threads", "torch", "date")


def summarise(folder: str | Path, *, draws: int = DRAWS, seed: int = 0) -> Summary:
    """What the report of a bench's folder tells; cells that are missing or failed take nothing from the others.

    Args:
        folder: Where `anodiff bench` wrote: cells/, and bench.yaml and audit.json where they are there.
        draws: Resamples of the pictures of each set; more where many pairs are compared.
        seed: Of the resampling. The same seed gives the same intervals, whatever else is in the folder.

    Raises:
        DataError: there is no cell at all, or labels of a picture differ between cells.
    """
    folder = Path(folder)
    cells = findings(folder)
    done = [cell for cell in cells if cell.done and MAIN in cell.metrics]
    sets, methods = (_ordered(getattr(cell, part) for cell in cells) for part in ("set", "method"))
    draws = max(draws, PER_PAIR * math.comb(max(len(methods), 2), 2))
    found = {
        name: one
        for name in sets
        if (one := judged([cell for cell in done if cell.set == name], draws=draws, seed=seed)) is not None
    }
    compared = {name: pairs(one) for name, one in found.items()}
    standings = _standings(done, found, compared)
    told = [name for name in sets if any(standing.set == name for standing in standings)]
    overall = _overall(told, standings, found)
    families = {cell.method: cell.family for cell in cells if cell.family is not None}
    leaks = [_leak(name, told) for name, told in audit(folder).items()]
    return Summary(
        name=str(settings(folder).get("name") or folder.resolve().name),
        sets=sets,
        methods=methods,
        families=families,
        seeds=sorted({cell.seed for cell in cells if cell.seed >= 0}),
        done=len(done),
        total=len(cells),
        standings=standings,
        overall=overall,
        common=told if overall else [],
        pairs=[pair for of_set in compared.values() for pair in of_set],
        matches=_matches(methods, found, compared),
        contributions=_contributions(standings, found, families),
        costs=costs_of(done),
        trades=trades_of(done, standings, overall, told),
        leaks=leaks,
        troubles=_troubles(cells),
        provenance=_provenance(done),
        commands=_ordered(str(cell.about["command"]) for cell in done if cell.about.get("command")),
        notes=list(_notes(cells, found, leaks)),
        rows=[cell.row() for cell in cells],
    )


def _ordered(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _standings(
    done: Sequence[Finding], found: Mapping[str, Judged], compared: Mapping[str, Sequence[Pair]]
) -> list[Standing]:
    groups: dict[tuple[str, str], list[Finding]] = {}
    for cell in done:
        groups.setdefault((cell.set, cell.method), []).append(cell)
    best = {name: _best(name, groups, compared.get(name, ())) for name in {cell.set for cell in done}}
    standings = []
    for (name, method), cells in groups.items():
        metrics = {
            key: _spread(cells, key) for key in _ordered(key for cell in cells for key in cell.metrics)
        }
        one = found.get(name)
        if one is not None and method in one.both:
            values = [float(cell.metrics[MAIN]["value"]) for cell in cells]
            over = summarised(values, one.both[method], n=one.n)
            metrics[MAIN] = Spread(over.mean, over.deviation, over.low, over.high, over.seeds, over.n)
        measures = _ordered(key for cell in cells for key in cell.generation)
        generation = {
            key: _of([cell.generation[key] for cell in cells if key in cell.generation]) for key in measures
        }
        standings.append(Standing(name, method, metrics, generation, method in best[name]))
    return standings


def _best(name: str, groups: Mapping[tuple[str, str], list[Finding]], compared: Sequence[Pair]) -> set[str]:
    """The method of the highest mean and those that cannot be told from it; none where there is one method only."""
    means = {
        method: float(np.mean([cell.metrics[MAIN]["value"] for cell in cells]))
        for (of_set, method), cells in groups.items()
        if of_set == name
    }
    if len(means) < 2:
        return set()
    top = max(means, key=lambda method: means[method])
    alike = {
        other
        for pair in compared
        for method, other in ((pair.first, pair.second), (pair.second, pair.first))
        if method == top and not pair.distinct
    }
    return {top} | alike | {method for method, mean in means.items() if mean == means[top]}


def _spread(cells: Sequence[Finding], key: str) -> Spread:
    """Mean and deviation over seeds; for one seed its own interval, which is one over pictures."""
    entries = [cell.metrics[key] for cell in cells if key in cell.metrics]
    found = _of([float(entry["value"]) for entry in entries])
    n = min((int(entry["n"]) for entry in entries if entry.get("n")), default=0)
    low, high = (
        float(bound) if len(entries) == 1 and (bound := entries[0].get(part)) is not None else math.nan
        for part in ("low", "high")
    )
    return Spread(found.mean, found.sd, low, high, found.seeds, n)


def _of(values: Sequence[float]) -> Spread:
    return Spread(float(np.mean(values)), deviation(values), seeds=len(values))


def _overall(
    sets: Sequence[str], standings: Sequence[Standing], found: Mapping[str, Judged]
) -> dict[str, Spread]:
    """The mean over sets of every method that has a figure on all of them: sets are drawn independently."""
    overall = {}
    for method in _ordered(standing.method for standing in standings):
        own = [standing for standing in standings if standing.method == method]
        if len(sets) < 2 or len(own) < len(sets):
            continue
        mean = float(np.mean([standing.metrics[MAIN].mean for standing in own]))
        low = high = math.nan
        if all(name in found and method in found[name].both for name in sets):
            drawn = np.mean([found[name].both[method] for name in sets], axis=0)
            low, high = (float(bound) for bound in np.quantile(drawn, [0.025, 0.975]))
        seeds = min(standing.metrics[MAIN].seeds for standing in own)
        overall[method] = Spread(mean, low=low, high=high, seeds=seeds, n=len(sets))
    return overall


def _matches(
    methods: Sequence[str], found: Mapping[str, Judged], compared: Mapping[str, Sequence[Pair]]
) -> list[Match]:
    matches = []
    for one, other in combinations(methods, 2):
        own = {
            name: pair for name, of_set in compared.items() for pair in of_set
            if {pair.first, pair.second} == {one, other}
        }  # fmt: skip
        if not own:
            continue
        value = float(np.mean([_signed(pair, one) for pair in own.values()]))
        first, second = (one, other) if value >= 0 else (other, one)
        drawn = [np.mean([found[name].both[method] for name in own], axis=0) for method in (first, second)]
        over = difference(abs(value), drawn[0], drawn[1], n=sum(pair.n for pair in own.values()))
        won = [pair.first for pair in own.values() if pair.distinct]
        matches.append(
            Match(
                first,
                second,
                wins=won.count(first),
                ties=len(own) - len(won),
                losses=won.count(second),
                value=over.value,
                low=over.low,
                high=over.high,
            )
        )
    return matches


def _signed(pair: Pair, first: str) -> float:
    return pair.value if pair.first == first else -pair.value


def _contributions(
    standings: Sequence[Standing], found: Mapping[str, Judged], families: Mapping[str, str]
) -> list[FamilyBest]:
    rows = []
    for name in _ordered(standing.set for standing in standings):
        best: dict[str, Standing] = {}
        for standing in standings:
            family = families.get(standing.method)
            if standing.set != name or family is None:
                continue
            if family not in best or standing.metrics[MAIN].mean > best[family].metrics[MAIN].mean:
                best[family] = standing
        base = best.get(NO_DIFFUSION)
        for family in _ordered(families.values()):
            if family in best:
                rows.append(_family(family, best[family], base, found.get(name)))
    return rows


def _family(family: str, own: Standing, base: Standing | None, one: Judged | None) -> FamilyBest:
    row = FamilyBest(own.set, family, own.method, own.metrics[MAIN])
    if base is None or base is own or one is None or not {own.method, base.method} <= set(one.both):
        return row
    value = own.metrics[MAIN].mean - base.metrics[MAIN].mean
    over = difference(value, one.both[own.method], one.both[base.method], n=one.n)
    return FamilyBest(
        own.set, family, own.method, row.auroc, base.method, over.value, over.low, over.high, over.p
    )


def _leak(name: str, told: Mapping[str, Any]) -> Leak:
    def count(key: str) -> int | None:
        return None if told.get(key) is None else int(told[key])

    share = told.get("test_share_leaking")
    return Leak(
        set=name,
        train=count("train"),
        test=count("test"),
        exact=count("exact"),
        near=count("near"),
        pairs=count("leaking_pairs"),
        groups=count("groups"),
        largest=count("largest_group"),
        share=None if share is None else float(share),
        note=str(told.get("note") or ""),
    )


def _troubles(cells: Sequence[Finding]) -> list[Trouble]:
    return [
        Trouble(cell.set, cell.method, cell.seed, cell.status, cell.error or "No reason was written down.")
        for cell in cells
        if not cell.done
    ]


def _provenance(done: Sequence[Finding]) -> dict[str, Any]:
    """Each part with its distinct values; of dates the first and the last."""
    found: dict[str, Any] = {}
    for key in SHOWN:
        values = _ordered(str(cell.about[key]) for cell in done if cell.about.get(key) is not None)
        if key == "date" and len(values) > 1:
            values = [f"{min(values)} to {max(values)}"]
        if values:
            found[key] = ", ".join(values)
    return found


def _notes(cells: Sequence[Finding], found: Mapping[str, Judged], leaks: Sequence[Leak]) -> list[str]:
    done = [cell for cell in cells if cell.done and MAIN in cell.metrics]
    notes = [
        f"{leak.set} leaks. {leak.note or 'Test pictures are, or nearly are, among those to train on.'}"
        for leak in leaks
        if leak.found
    ]
    notes += [
        f"{cell.set}, {cell.method}, seed {cell.seed}: done, but without an image AUROC; it is in no table."
        for cell in cells
        if cell.done and MAIN not in cell.metrics
    ]
    for name, one in found.items():
        if one.left_out:
            notes.append(
                f"{name}: methods are compared on the {one.n} pictures that all of them scored; "
                f"{one.left_out} more were scored by some only."
            )
            continue
        for method, values in one.values.items():
            scored = [c for c in done if (c.set, c.method) == (name, method) and c.scores]
            for cell, value in zip(scored, values, strict=True):
                if abs(value - float(cell.metrics[MAIN]["value"])) > ROUNDED:
                    notes.append(
                        f"{name}, {method}, seed {cell.seed}: cell.json says an image AUROC of "
                        f"{cell.metrics[MAIN]['value']:.4f}, but the scores in predictions.csv have {value:.4f}. "
                        "One of the two files is of another run."
                    )
    bare = _ordered(f"{cell.method} on {cell.set}" for cell in done if not cell.scores)
    if bare:
        notes.append(f"Not compared, for there is no predictions.csv with scores: {', '.join(bare)}.")
    few = _ordered(f"{cell.method} on {cell.set}" for cell in done if cell.singular)
    if few:
        notes.append(
            f"Too few samples for their features ({', '.join(few)}): the Frechet distance then says more about "
            "the count than about the pictures."
        )
    for key, what in (("commit", "commits"), ("device", "devices")):
        values = _ordered(str(cell.about[key]) for cell in done if cell.about.get(key))
        if len(values) > 1:
            notes.append(f"The cells were made with {len(values)} {what}: {', '.join(values)}.")
    return notes
