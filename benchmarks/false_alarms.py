"""Hold the promised false-alarm rate of a fitted model against real good pictures, of pictures and of regions.

    python benchmarks/false_alarms.py runs/bottle/model.anodiff mvtec/bottle -o benchmarks/results/false_alarms-bottle

Two questions are answered. Does the rule keep its promise? The good pictures that the model was not trained on are
divided at random, a hundred times, into those that a threshold is learnt from and those that are judged; the rates
found lie beside their exact law, a beta-binomial one. Does this model keep it? Its own thresholds judge the good test
pictures. OUT gets false_alarms.json, false_alarms.md and false_alarms.png.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import betabinom

import anodiff
from anodiff.cli.tested import strangers
from anodiff.data.index import index
from anodiff.data.table import rows_where
from anodiff.metrics.false_alarms import Counted, false_alarms, rank
from anodiff.run import Run, environment, sha256_of

RESAMPLES = 100
RATES = (0.05, 0.1, 0.2)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("good", help="part in MVTec layout, folder of good pictures, or manifest")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument(
        "--share", type=float, default=0.6, help="of the pictures that a threshold is learnt from"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    detector = anodiff.load(args.model, device=args.device)
    paths, fresh = good_pictures(args.good, Run(args.model.parent))
    results = detector.predict(paths)
    scores = np.array([result.score for result in results])
    maxima = np.array([float(result.heat.max()) for result in results])
    found = {
        "pictures": len(paths),
        "resamples": RESAMPLES,
        "seed": args.seed,
        "model_id": detector.model_id,
        "rule": {
            kind: resampled(values, share=args.share, seed=args.seed)
            for kind, values in (("pictures", scores), ("regions", maxima))
        },
        "model": own(detector, [result for result, new in zip(results, fresh, strict=True) if new]),
    }
    about = environment(device=str(detector.device))
    found |= {key: about[key] for key in ("git_commit", "torch", "cpu_count", "device")}
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "false_alarms.json").write_text(json.dumps(found, indent=1) + "\n")
    (args.out / "false_alarms.md").write_text(table(found))
    draw(found).savefig(args.out / "false_alarms.png", dpi=110)
    print(table(found))


def good_pictures(source: str, run: Run) -> tuple[list[str], list[bool]]:
    """Good pictures that the model was not trained on, and of each whether the fit did not see it at all."""
    whole = index(source)
    test = rows_where(whole, (whole["split"] == "test") & (whole["label"] == 0))
    try:
        known = list(strangers(source, run)["image"])
    except anodiff.errors.DataError:  # trained on all that is no test picture
        known = []
    paths = list(dict.fromkeys([*test["image"], *known]))
    used = run.used()
    return paths, [sha256_of(path) not in used for path in paths]


def resampled(values: np.ndarray, *, share: float, seed: int) -> list[dict]:
    """For each rate what a hundred thresholds from some of the values flag among the others, and the law of it."""
    random = np.random.default_rng(seed)
    held = round(share * len(values))
    tested = len(values) - held
    rows = []
    for rate in RATES:
        if rate < 1 / (held + 1) or not tested:
            continue
        place = rank(held, rate)
        alarms = []
        for _ in range(RESAMPLES):
            order = random.permutation(len(values))
            limit = np.sort(values[order[:held]])[held - place]
            alarms.append(int((values[order[held:]] > limit).sum()))
        law = betabinom(tested, place, held + 1 - place)
        width = 3.3 * law.std() / math.sqrt(RESAMPLES)  # 999 of 1000 means lie inside
        mean = float(np.mean(alarms))
        rows.append(
            {
                "rate": rate,
                "held": held,
                "tested": tested,
                "expected": law.mean() / tested,
                "low": max(0.0, law.mean() - width) / tested,
                "high": (law.mean() + width) / tested,
                "mean": mean / tested,
                "inside": bool(law.mean() - width <= mean <= law.mean() + width),
                "alarms": alarms,
            }
        )
    return rows


def own(detector: anodiff.Detector, results: list[anodiff.Result]) -> dict:
    """The false alarms of the model's own thresholds among pictures it has never seen."""
    if not results or detector.thresholds:
        return {}
    rate = detector.info["target_fpr"]
    flagged = {
        "pictures": sum(bool(result.is_anomalous) for result in results),
        "regions": sum(bool(result.regions) for result in results),
    }
    return {
        kind: vars(false_alarms([Counted(count, len(results), detector.counted)], promised=rate))
        for kind, count in flagged.items()
    }


def table(found: dict) -> str:
    """The numbers as Markdown."""
    lines = [
        f"{found['pictures']} good pictures, {found['resamples']} divisions.",
        "",
        "| of | rate asked for | thresholds from | judged | expected | 99.9 % band of the mean | mean rate | inside |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind, rows in found["rule"].items():
        lines += [
            f"| {kind} | {row['rate']:.2f} | {row['held']} | {row['tested']} | {row['expected']:.3f} | "
            f"{row['low']:.3f} to {row['high']:.3f} | {row['mean']:.3f} | {'yes' if row['inside'] else 'no'} |"
            for row in rows
        ]
    if found["model"]:
        lines += [
            "",
            "| the model's own threshold, of | promised | found | 95 % of sound models | n | p |",
            "|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {kind} | {entry['promised']:.3f} | {entry['value']:.3f} | {entry['expected_low']:.3f} to "
            f"{entry['expected_high']:.3f} | {entry['n']} | {entry['p_value']:.2g} |"
            for kind, entry in found["model"].items()
        ]
    return "\n".join(lines) + "\n"


def draw(found: dict) -> Figure:
    """Bars of the rates found in the divisions, and their law as dots, one panel a rate."""
    kinds = list(found["rule"])
    columns = max(1, max(len(rows) for rows in found["rule"].values()))
    figure = Figure(figsize=(3.4 * columns, 2.6 * len(kinds)), layout="constrained")
    axes = figure.subplots(len(kinds), columns, squeeze=False)
    for line, kind in zip(axes, kinds, strict=True):
        for axis, row in zip(line, found["rule"][kind], strict=False):
            place = rank(row["held"], row["rate"])
            shape = (row["tested"], place, row["held"] + 1 - place)
            most = int(max(*row["alarms"], betabinom.ppf(0.999, *shape))) + 1
            counts = np.arange(most + 1)
            pmf = betabinom.pmf(counts, *shape)
            shares = np.bincount(row["alarms"], minlength=most + 1) / len(row["alarms"])
            axis.bar(
                counts / row["tested"], shares, width=0.8 / row["tested"], color="#9bb8d3", label="found"
            )
            axis.plot(counts / row["tested"], pmf, "o", ms=3.5, color="#1f3a5f", label="law")
            axis.axvline(row["rate"], color="#b5483a", lw=1.2, ls="--", label="asked for")
            axis.set_title(f"{kind}, {row['rate']:.0%}: mean {row['mean']:.3f}", fontsize=9)
            axis.set_xlabel("false-alarm rate", fontsize=8)
            axis.tick_params(labelsize=7)
            axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].legend(fontsize=7, frameon=False)
    return figure


if __name__ == "__main__":
    main()
