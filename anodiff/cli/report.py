"""`anodiff report`: the page of one evaluation, or of several side by side, made anew from their files."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anodiff.cli import case, console
from anodiff.cli.verbs import Verbs
from anodiff.errors import ConfigError, DataError
from anodiff.run import writable

if TYPE_CHECKING:
    from anodiff.report.case import Report


def add(verbs: Verbs) -> None:
    """Add the verb."""
    verb = verbs.add_parser(
        "report", help="write one HTML page about one evaluation, or several side by side"
    )
    verb.add_argument(
        "folder", metavar="RUN", nargs="+", help="folder that `anodiff eval` or `anodiff score -o` wrote"
    )
    verb.add_argument(
        "-o", "--out", metavar="FILE", default="report.html", help="the page (default: report.html)"
    )
    verb.add_argument("--title", metavar="TEXT", help="heading of a page about one evaluation")
    verb.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write a page."""
    from anodiff.report import page

    if args.title and len(args.folder) > 1:
        raise ConfigError(
            "--title is for a page about one evaluation; several bear the names of their folders."
        )
    reports = [read(Path(folder), title=args.title) for folder in args.folder]
    out = Path(args.out)
    writable(out.parent)
    console.result(str(page.write(reports[0], out) if len(reports) == 1 else page.write_many(reports, out)))
    return 0


def read(folder: Path, *, title: str | None = None) -> Report:
    """The report of a folder that `eval` or `score` wrote.

    Raises:
        DataError: the folder holds no predictions.csv, or a file in it cannot be read.
    """
    import pandas as pd

    from anodiff.report.case import Report

    if not (folder / "predictions.csv").is_file():
        what = "is not there" if not folder.exists() else "has no predictions.csv"
        is_run = (folder / "model.anodiff").exists()
        hint = " It is the run of a fit: evaluate its model.anodiff first." if is_run else ""
        raise DataError(f"Expected a folder that `anodiff eval` wrote, but {folder} {what}.{hint}")
    try:
        predictions = pd.read_csv(
            folder / "predictions.csv", keep_default_na=False, na_values={"score": [""]}
        )
        metrics, facts = divided(_json(folder / "metrics.json"))
        about = _json(folder / "run.json")
        curves = pd.read_csv(folder / "curves.csv") if (folder / "curves.csv").is_file() else None
    except ValueError as error:  # of JSON and of pandas alike
        raise DataError(f"{folder} cannot be read: {error}. Evaluate again.") from None
    return Report(
        title=title or folder.resolve().name,
        metrics=metrics,
        predictions=with_truth(predictions),
        threshold=about.get("threshold", facts.get("threshold")),
        curves=curves,
        cases=case.load(folder / "cases"),
        settings=about.get("settings", {}),
        environment=about.get("environment", {}),
        alarms=about.get("alarms", ()),
        facts=facts,
    )


def divided(metrics: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What metrics.json holds in two: metrics with their intervals, and facts."""
    is_metric = {name: isinstance(entry, dict) and "value" in entry for name, entry in metrics.items()}
    return (
        {name: entry for name, entry in metrics.items() if is_metric[name]},
        {name: entry for name, entry in metrics.items() if not is_metric[name]},
    )


def with_truth(predictions: Any) -> Any:
    """The predictions with `label` as reports understand it: what is known of the picture, not what the model says."""
    return predictions.assign(label=predictions.get("truth")).drop(columns=["truth"], errors="ignore")


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
