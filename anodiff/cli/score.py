"""`anodiff score`: scores, maps and regions of pictures, written as they come."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from anodiff import artefact
from anodiff.cli import console, exit
from anodiff.cli.inputs import Inputs, inputs
from anodiff.cli.predictions import JUDGED, KINDS, Folder, Table, cells, kinds, line
from anodiff.cli.verbs import Verbs
from anodiff.errors import ConfigError
from anodiff.run import environment, writable, write_text

if TYPE_CHECKING:
    from anodiff.detect.result import Result
    from anodiff.detector import Detector

EPILOG = """\
examples:
  anodiff score part.anodiff photos/ -o scores --save csv,maps,overlays
  find line3 -name '*.png' | anodiff score part.anodiff - --json --fail-on anomaly
  anodiff score part.anodiff 'photos/**/*.tif' > scores.csv

A picture that cannot be read is a row with an error, never a missing row."""


def add(verbs: Verbs) -> None:
    """Add the verb."""
    verb = verbs.add_parser("score", help="score pictures with a model", epilog=EPILOG)
    verb.add_argument("model", metavar="MODEL", help="the .anodiff file")
    verb.add_argument(
        "input",
        metavar="INPUT",
        nargs="+",
        help="pictures, folders, patterns, a manifest CSV, or - for paths on stdin",
    )
    verb.add_argument(
        "-o", "--out", metavar="OUT", help="folder for the results; without it rows go to stdout"
    )
    verb.add_argument(
        "--save", metavar="LIST", help=f"what to write to OUT, of {','.join(KINDS)} (default: csv,jsonl)"
    )
    verb.add_argument(
        "--threshold", type=float, metavar="X", help="decide at this score instead of the model's own"
    )
    verb.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help="denoising steps of a restoring model, instead of its own; thresholds were learnt with its own",
    )
    verb.add_argument(
        "--label",
        metavar="NAME",
        help="what the parts are, for a model of several; without it the model finds out",
    )
    verb.add_argument("--batch", type=int, default=8, metavar="N", help="pictures at a time (default: 8)")
    verb.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    verb.add_argument(
        "--fail-on", choices=("anomaly",), help="leave with exit code 10 where an anomaly was found"
    )
    verb.add_argument(
        "--json", action="store_true", help="rows (without OUT) or the summary (with it) as JSON"
    )
    verb.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Score pictures; 10 an anomaly was found and --fail-on asks, else 11 some failed, 3 all failed, 0."""
    if args.batch < 1:
        raise ConfigError(f"--batch should be at least 1, got {args.batch}.")
    if args.save is not None and args.out is None:
        raise ConfigError("--save says what to write to a folder; name the folder with -o OUT.")
    save = kinds(args.save or "csv,jsonl")
    artefact.read_header(args.model)  # a wrong file is told before anything heavy is loaded
    named = inputs(args.input)
    out = writable(Path(args.out)) if args.out is not None else None

    import anodiff
    from anodiff.encode.label import number_of

    detector = anodiff.load(args.model, device=args.device)
    if args.steps is not None:
        detector = detector.with_steps(args.steps)
    if args.label is not None:
        number_of(args.label, detector.labels)  # a wrong one is told before the first row
    extra = JUDGED if detector.labels else ()
    start = time.monotonic()
    results = _results(detector, named, args)
    tally = (
        _to_stdout(results, named, extra, json_lines=args.json)
        if out is None
        else _to_folder(results, named, out, save, extra)
    )
    tally.seconds = time.monotonic() - start
    if out is not None:
        write_text(out / "run.json", _about(args, detector, named, tally))
        _conclude(tally, out, as_json=args.json)
    if tally.total == 0:
        console.warning("no picture came in")
    return _code(tally, fail_on_anomaly=args.fail_on == "anomaly")


@dataclasses.dataclass
class Tally:
    """How many pictures came to what."""

    total: int = 0
    anomalous: int = 0
    failed: int = 0
    seconds: float = 0.0

    def add(self, result: Result) -> None:
        """Count one picture."""
        self.total += 1
        self.failed += result.error is not None
        self.anomalous += bool(result.is_anomalous)


def _results(detector: Detector, named: Inputs, args: argparse.Namespace) -> Iterator[tuple[str, Result]]:
    """Each path with its result, as they come; the paths under way are all that is held."""
    waiting: deque[str] = deque()

    def passed() -> Iterator[str]:
        for path in named.paths:
            waiting.append(path)
            yield path

    stream = detector.stream(passed(), batch=args.batch, labels=args.label)
    for result in console.counted(stream, label="score", total=named.total):
        if args.threshold is not None:
            result = dataclasses.replace(result, threshold=args.threshold)
        yield waiting.popleft(), result


def _to_folder(
    results: Iterator[tuple[str, Result]],
    named: Inputs,
    out: Path,
    save: tuple[str, ...],
    extra: tuple[str, ...],
) -> Tally:
    tally = Tally()
    with Folder(out, save, extra=extra) as folder:
        for path, result in results:
            folder.add(result, path=path, name=named.name(path))
            tally.add(result)
    return tally


def _to_stdout(
    results: Iterator[tuple[str, Result]], named: Inputs, extra: tuple[str, ...], *, json_lines: bool
) -> Tally:
    tally, table = Tally(), Table(sys.stdout, extra=extra)
    if not json_lines:
        table.begin()
    for path, result in results:
        if json_lines:
            sys.stdout.write(line(result, named.name(path)))
            sys.stdout.flush()
        else:
            table.add(cells(result, named.name(path)))
        tally.add(result)
    return tally


def _about(args: argparse.Namespace, detector: Detector, named: Inputs, tally: Tally) -> str:
    about = {
        "model": str(args.model),
        "model_id": detector.model_id,
        "threshold": args.threshold if args.threshold is not None else detector.threshold,
        **({"thresholds": detector.thresholds} if args.threshold is None and detector.thresholds else {}),
        "label": args.label,
        "root": str(named.root),
        "pictures": tally.total,
        "anomalous": tally.anomalous,
        "failed": tally.failed,
        "seconds": round(tally.seconds, 3),
        **detector.costs,
        "batch": args.batch,
        "settings": detector.config.model_dump(mode="json"),
        "environment": environment(device=str(detector.device)),
    }
    return json.dumps(about, indent=2, ensure_ascii=False) + "\n"


def _conclude(tally: Tally, out: Path, *, as_json: bool) -> None:
    if as_json:
        console.as_json({"out": str(out), **dataclasses.asdict(tally)})
        return
    pace = f", {tally.total / tally.seconds:.3g} pictures/s" if tally.seconds else ""
    failed = f", {tally.failed} failed" if tally.failed else ""
    console.result(f"{out}: {tally.total - tally.failed} scored, {tally.anomalous} anomalous{failed}{pace}")


def _code(tally: Tally, *, fail_on_anomaly: bool) -> int:
    """An anomaly goes before failures: it is what --fail-on was asked to tell."""
    if fail_on_anomaly and tally.anomalous:
        return exit.ANOMALY
    if tally.failed == tally.total:
        return exit.DATA
    return exit.PARTLY if tally.failed else exit.DONE
