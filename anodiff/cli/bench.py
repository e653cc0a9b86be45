"""`anodiff bench`: methods x data sets x seeds from one file, audited, timed and written up."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anodiff.cli import console, exit
from anodiff.cli.verbs import Verbs
from anodiff.errors import ConfigError
from anodiff.run import writable

if TYPE_CHECKING:
    from anodiff.bench.run import Outcome

EPILOG = """\
examples:
  anodiff bench benchmarks/detection.yaml --data datasets -o results
  anodiff bench benchmarks/detection.yaml --data datasets -o results --sets bottle --methods features padim --seeds 0

Every cell runs in a process of its own; one that fails costs no other. The same command again goes on where it ended.
Exit codes: 0 every cell has its figures or a stated refusal · 11 some failed (log.txt beside their cell.json)."""

SHOWN = ("image_auroc", "pixel_auroc", "aupro_30")


def add(verbs: Verbs) -> None:
    """Add the verb."""
    verb = verbs.add_parser("bench", help="compare methods on data sets, over seeds", epilog=EPILOG)
    verb.add_argument("config", metavar="CONFIG", help="YAML file of the benchmark")
    verb.add_argument(
        "-o", "--out", metavar="OUT", required=True, help="folder for the results; made if needed"
    )
    verb.add_argument(
        "--data", metavar="DIR", help="what paths of sets are relative to (default: CONFIG's folder)"
    )
    verb.add_argument("--device", help="auto, cpu, cuda, cuda:1, mps (default: CONFIG's)")
    verb.add_argument("--sets", nargs="+", metavar="NAME", help="these sets alone")
    verb.add_argument("--methods", nargs="+", metavar="NAME", help="these methods alone")
    verb.add_argument("--seeds", nargs="+", type=int, metavar="N", help="these seeds alone")
    again = verb.add_mutually_exclusive_group()
    again.add_argument(
        "--resume", action="store_true", help="keep cells that are done and unchanged (default)"
    )
    again.add_argument("--fresh", action="store_true", help="run every cell anew")
    part = verb.add_mutually_exclusive_group()
    part.add_argument(
        "--audit-only", action="store_true", help="look for leaks between train and test, and stop"
    )
    part.add_argument(
        "--report-only", action="store_true", help="write the report of the cells there are, and stop"
    )
    verb.add_argument("--json", action="store_true", help="print the records of the cells, or the audit")
    verb.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the cells; 11 some failed, else 0."""
    from anodiff.config import bench as configuration

    file, out = Path(args.config).absolute(), Path(args.out).absolute()
    bench = configuration.load(file)
    root = file.parent if args.data is None else Path(args.data).absolute()
    if not root.is_dir():
        raise ConfigError(f"--data: expected a folder that holds the data sets, but there is none at {root}.")

    from anodiff.bench import plan
    from anodiff.bench.run import Job, audits
    from anodiff.bench.run import run as cells_of

    cells = plan.cells(bench, home=file.parent, sets=args.sets, methods=args.methods, seeds=args.seeds)
    writable(out)
    job = Job(bench=bench, file=file, root=root, out=out, device=args.device or bench.device)
    job.begin()
    if args.report_only:
        return _written(out)
    places = job.places(list(dict.fromkeys(cell.set for cell in cells)))
    found = audits(job, places, fresh=args.fresh, say=console.note)
    if args.audit_only:
        console.as_json(found) if args.json else _tell(found)
        return exit.DONE
    for name, entry in found.items():
        if entry["leaking_pairs"]:
            console.warning(f"{name}: {entry['note']}")
    records = []
    for outcome in cells_of(job, cells, places, fresh=args.fresh, say=console.note):
        records.append(outcome.record)
        if not args.json:
            console.result(line(outcome))
    if args.json:
        console.as_json(records)
    _written(out)
    failed = sum(record["status"] == "failed" for record in records)
    if failed:
        console.warning(
            f"{failed} of {len(records)} cells failed; log.txt in their folders below {out} says more"
        )
    return exit.PARTLY if failed else exit.DONE


def line(outcome: Outcome) -> str:
    """A cell in one line: its name, its figures, what it took."""
    found = outcome.record
    head = f"[{outcome.number}/{outcome.of}] {outcome.cell.name}"
    if found["status"] != "done":
        return f"{head}  {found['status']}: {found['error']}"
    metrics, cost = found["metrics"], found["cost"]
    told = [f"{name} {_figure(metrics[name])}" for name in SHOWN if name in metrics]
    told += [f"fit {cost['fit_seconds']:.1f} s", f"{cost['ms_p50']:.1f} ms a picture"]
    return f"{head}  {', '.join(told)}{'  (kept)' if outcome.reused else ''}"


def _figure(entry: Mapping[str, Any]) -> str:
    return f"{entry['value']:.3f} [{entry['low']:.3f}, {entry['high']:.3f}]"


def _tell(found: Mapping[str, Mapping[str, Any]]) -> None:
    keys = (
        "train",
        "test",
        "exact",
        "near",
        "leaking_pairs",
        "groups",
        "largest_group",
        "test_share_leaking",
    )
    console.table(
        ("set", *keys), [(name, *(str(entry[key]) for key in keys)) for name, entry in found.items()]
    )
    for name, entry in found.items():
        console.result(f"{name}: {entry['note']}")


def _written(out: Path) -> int:
    """Write rows.csv, report.md and report.html of all cells below `out`, those of earlier runs too."""
    from anodiff.bench.summary import summarise
    from anodiff.report.bench import write

    write(summarise(out), out)
    console.note(f"{out / 'report.html'}")
    return exit.DONE
