"""The tables of a bench's report, each from the summary alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from anodiff.report.bench_summary import Range, Spread, Summary
from anodiff.report.table import MISSING, Table, bounds, cell, number, pairs_table, percent, quantity

COSTS = {
    "fit_seconds": "Fit, s",
    "ms_p50": "ms a picture, p50",
    "ms_p95": "p95",
    "ms_p99": "p99",
    "pictures_per_second": "Pictures/s",
    "evaluations_per_image": "Evaluations a picture",
    "gflops_per_image": "GFLOPs a picture",
    "fit_peak_mb": "Fit peak, MB",
    "score_peak_mb": "Score peak, MB",
    "fit_peak_device_mb": "Fit peak on the device, MB",
    "score_peak_device_mb": "Score peak on the device, MB",
    "model_mb": "Model, MB",
}
MEASURES = (
    "fid",
    "fd",
    "kid",
    "kid sd",
    "precision",
    "recall",
    "nearest",
)  # columns of samples, in this order
LOWER_IS_BETTER = ("fid", "fd", "kid")
PLUS_MINUS = "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}"
SETTLED = 0.05  # a range narrower than this share of the median is not printed


def spread(value: Spread, *, interval: bool = True, remark: str = "") -> str:
    """Return `.987 ± .004 [.961, .998]`: mean, deviation between seeds, 95 % interval; what is unknown is left out."""
    text = number(value.mean)
    if math.isfinite(value.sd):
        text = f"{text}{PLUS_MINUS}{number(value.sd)}"
    text = f"{text} {remark}" if remark else text
    between = bounds({"low": value.low, "high": value.high})
    return f"{text} {between}" if interval and between != MISSING else text


def signed(value: float) -> str:
    """Return a difference with its sign: `+.012`, `-.003`, `.000`."""
    return f"+{number(value)}" if value > 0 else number(value)


def between(low: float, high: float) -> str:
    """Return the bounds of a difference, `[-.003, +.027]`, or nothing where they are not known."""
    return f"[{signed(low)}, {signed(high)}]" if math.isfinite(low) and math.isfinite(high) else ""


def metric_table(summary: Summary, metric: str, *, interval: bool = True) -> Table:
    """Return one row a set and one column a method, the best in bold; a mean over sets below, where it is known.

    Args:
        summary: Of the bench.
        metric: A name of metrics.json. Bold, mean over sets and seeds that are missing are told for image AUROC.
        interval: Whether cells show the 95 % interval.
    """
    main = metric == "image_auroc"
    methods = _with(summary, metric)
    sets = [
        name for name in summary.sets if any(s.set == name and metric in s.metrics for s in summary.standings)
    ]
    rows, strong = [], []
    for name in sets:
        row = [name]
        for column, method in enumerate(methods, 1):
            standing = summary.standing(name, method)
            value = None if standing is None else standing.metrics.get(metric)
            if standing is None or value is None:
                row.append("failed" if _failed(summary, name, method) else MISSING)
                continue
            most = _most_seeds(summary, method)
            remark = f"({value.seeds} of {most} seeds)" if main and value.seeds < most else ""
            row.append(spread(value, interval=interval, remark=remark))
            if main and standing.best:
                strong.append((len(rows), column))
        rows.append(tuple(row))
    if main and summary.overall:
        cells = (
            spread(summary.overall[method], interval=interval) if method in summary.overall else MISSING
            for method in methods
        )
        rows.append((f"mean of {len(summary.common)} sets", *cells))
    columns = ("Set", *methods)
    return Table(columns, tuple(rows), tuple(range(1, len(columns))), frozenset(strong))


def cost_table(summary: Summary) -> Table:
    """Return one row a method, the median over sets and seeds, with the range where cells differ much."""
    present = [key for key in COSTS if any(key in cost.values for cost in summary.costs)]
    several = len({cost.device for cost in summary.costs}) > 1
    rows = []
    for cost in summary.costs:
        name = f"{cost.method}, {cost.device}" if several else cost.method
        rows.append((name, *(_ranged(key, cost.values.get(key)) for key in present)))
    columns = ("Method", *(COSTS[key] for key in present))
    return Table(columns, tuple(rows), tuple(range(1, len(columns))))


def match_table(summary: Summary) -> Table:
    """Return one row a pair of methods: sets won, tied and lost by the first, the mean difference with its interval."""
    rows = tuple(
        (
            f"{match.first} against {match.second}",
            str(match.wins),
            str(match.ties),
            str(match.losses),
            f"{signed(match.value)} {between(match.low, match.high)}".rstrip(),
        )
        for match in summary.matches
    )
    columns = ("Pair", "Wins", "Ties", "Losses", "Mean difference")
    return Table(columns, rows, numeric=(1, 2, 3, 4))


def pair_table(summary: Summary) -> Table:
    """Return one row a set and pair: the difference, its interval, the p-values; told apart in bold."""
    rows, strong = [], []
    for pair in summary.pairs:
        if pair.distinct:
            strong.append((len(rows), 2))
        rows.append(
            (
                pair.set,
                f"{pair.first} against {pair.second}",
                f"{signed(pair.value)} {between(pair.low, pair.high)}".rstrip(),
                number(pair.p),
                number(pair.p_seeds),
                number(pair.adjusted),
                str(pair.n),
            )
        )
    columns = ("Set", "Pair", "Difference", "p", "p, other seeds too", "adjusted", "n")
    return Table(columns, tuple(rows), (2, 3, 4, 5, 6), frozenset(strong))


def family_table(summary: Summary) -> Table:
    """Return one row a family and one column a set: its best figure, that method, and the gain over no diffusion."""
    families = list(dict.fromkeys(row.family for row in summary.contributions))
    sets = [name for name in summary.sets if any(row.set == name for row in summary.contributions)]
    found = {(row.family, row.set): row for row in summary.contributions}
    rows = []
    for family in families:
        cells = [family]
        for name in sets:
            row = found.get((family, name))
            if row is None:
                cells.append(MISSING)
                continue
            cells.append(f"{row.method}: {spread(row.auroc)}")
        rows.append(tuple(cells))
    return Table(("Family", *sets), tuple(rows), tuple(range(1, len(sets) + 1)))


def gain_table(summary: Summary) -> Table:
    """Return one row a family and one column a set: the difference to the best without diffusion, its interval."""
    gains = [row for row in summary.contributions if row.baseline is not None]
    families = list(dict.fromkeys(row.family for row in gains))
    sets = [name for name in summary.sets if any(row.set == name for row in gains)]
    found = {(row.family, row.set): row for row in gains}
    rows, strong = [], []
    for family in families:
        cells = [family]
        for column, name in enumerate(sets, 1):
            row = found.get((family, name))
            if row is None:
                cells.append(MISSING)
                continue
            cells.append(f"{signed(row.value)} {between(row.low, row.high)}".rstrip())
            if row.low > 0:
                strong.append((len(rows), column))
        rows.append(tuple(cells))
    return Table(("Family", *sets), tuple(rows), tuple(range(1, len(sets) + 1)), frozenset(strong))


def generation_table(summary: Summary) -> Table:
    """Return one row a set and method that paints: the measures of its samples, mean and deviation over seeds."""
    painted = [standing for standing in summary.standings if standing.generation]
    keys = list(dict.fromkeys(key for standing in painted for key in standing.generation))

    def place(key: str) -> tuple[int, str]:
        name = _bare(key)
        return (MEASURES.index(name) if name in MEASURES else len(MEASURES), key)

    keys = sorted(keys, key=place)
    rows = [
        (standing.set, standing.method, *(_measure(key, standing.generation.get(key)) for key in keys))
        for standing in painted
    ]
    heads = (f"{key}\N{NO-BREAK SPACE}↓" if _bare(key) in LOWER_IS_BETTER else key for key in keys)
    return Table(("Set", "Method", *heads), tuple(rows), tuple(range(2, len(keys) + 2)))


def leak_table(summary: Summary) -> Table:
    """Return one row a set: counts, duplicates between train and test, groups that cross, and the audit's sentence."""
    rows, strong = [], []
    for leak in summary.leaks:
        if leak.found:
            strong.append((len(rows), 5))
        counts = (leak.train, leak.test, leak.exact, leak.near, leak.pairs)
        rows.append(
            (
                leak.set,
                *(_count(value) for value in counts),
                MISSING if leak.share is None else percent(leak.share),
                _count(leak.groups),
                _count(leak.largest),
                leak.note,
            )
        )
    columns = ("Set", "Train", "Test", "Exact twins", "Near twins", "Leaking pairs", "Test share leaking", "Groups",
               "Largest group", "What it means")  # fmt: skip
    return Table(columns, tuple(rows), tuple(range(1, 9)), frozenset(strong))


def trouble_table(summary: Summary) -> Table:
    """Return one row a cell without a result, with its sentence."""
    rows = tuple((t.set, t.method, str(t.seed), t.status, t.error) for t in summary.troubles)
    return Table(("Set", "Method", "Seed", "Status", "Why"), rows, numeric=(2,))


def provenance_table(summary: Summary) -> Table:
    """Return what the numbers were made with, one row a part."""
    seeds: Mapping[str, object] = {"seeds": list(summary.seeds)}
    return pairs_table({**summary.provenance, **seeds})


def _with(summary: Summary, metric: str) -> Sequence[str]:
    """The methods that have the metric somewhere; for image AUROC also those that failed everywhere."""
    have = {standing.method for standing in summary.standings if metric in standing.metrics}
    if metric == "image_auroc":
        have |= {trouble.method for trouble in summary.troubles}
    return [method for method in summary.methods if method in have]


def _failed(summary: Summary, name: str, method: str) -> bool:
    return any((trouble.set, trouble.method) == (name, method) for trouble in summary.troubles)


def _most_seeds(summary: Summary, method: str) -> int:
    return max(s.metrics["image_auroc"].seeds for s in summary.standings if s.method == method)


def _ranged(key: str, value: Range | None) -> str:
    if value is None:
        return MISSING
    shown = cell if key == "evaluations_per_image" else quantity  # a count needs no digits after the point
    wide = value.high - value.low > SETTLED * abs(value.median)
    return f"{shown(value.median)} [{shown(value.low)}, {shown(value.high)}]" if wide else shown(value.median)


def _measure(key: str, value: Spread | None) -> str:
    if value is None:
        return MISSING
    if "[" not in key:  # no features behind it: a count
        return cell(value.mean)
    if not math.isfinite(value.sd):
        return quantity(value.mean)
    sd = value.sd if value.sd > 1e-9 * abs(value.mean) else 0.0  # rounding of a mean of equal values
    return f"{quantity(value.mean)}{PLUS_MINUS}{quantity(sd, significant=2)}"


def _count(value: int | None) -> str:
    return MISSING if value is None else str(value)


def _bare(key: str) -> str:
    return key.partition("[")[0].strip().lower()
