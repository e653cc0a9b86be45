"""`anodiff calibrate`: a new threshold from good pictures the model has not seen."""

from __future__ import annotations

import argparse
from pathlib import Path

from anodiff import artefact
from anodiff.cli import console
from anodiff.cli.verbs import Verbs
from anodiff.run import Run, writable


def add(verbs: Verbs) -> None:
    """Add the verb."""
    verb = verbs.add_parser(
        "calibrate", help="set a model's threshold from good pictures that it was not fitted on"
    )
    verb.add_argument("model", metavar="MODEL", help="the .anodiff file")
    verb.add_argument(
        "good", metavar="GOOD", help="folder of good pictures, part in MVTec layout, or manifest CSV"
    )
    verb.add_argument("-o", "--out", metavar="FILE", help="where to write the model (default: over MODEL)")
    verb.add_argument(
        "--add-normal",
        action="store_true",
        help="add the pictures to those the threshold rests on, such as false alarms that a person found good; "
        "without it they take their place",
    )
    verb.add_argument("--target-fpr", type=float, metavar="RATE", help="false alarms accepted, such as 0.01")
    verb.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    verb.add_argument("--json", action="store_true", help="tell the outcome as JSON")
    verb.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Calibrate a model and write it."""
    artefact.read_header(args.model)  # a wrong file is told before anything heavy is loaded
    out = Path(args.out or args.model)
    writable(out.parent)

    import anodiff
    from anodiff.cli.tested import strangers
    from anodiff.cli.trust import rests_on
    from anodiff.counted import THRESHOLD
    from anodiff.detect.threshold import least_rate
    from anodiff.gather import readable

    detector = anodiff.load(args.model, device=args.device)
    before, added = detector.threshold, detector.info["provenance"].get("added", 0)
    good = readable(strangers(args.good, Run(Path(args.model).parent)), use=THRESHOLD)
    if args.add_normal:
        detector.add_normal(good, target_fpr=args.target_fpr)
    else:
        detector.calibrate(good, target_fpr=args.target_fpr)
    detector.save(out)
    outcome = {
        "model": str(out),
        "model_id": detector.model_id,
        "threshold": detector.threshold,
        "threshold_before": before,
        "target_fpr": detector.info["target_fpr"],
        "counted": detector.counted,
        "least_rate": least_rate(detector.counted),
        "unreadable": len(good.unreadable),
        **({"added": detector.info["provenance"]["added"] - added} if args.add_normal else {}),
    }
    if args.json:
        console.as_json(outcome)
        return 0
    more = f"{_pictures(outcome['added'])} added, " if args.add_normal else ""
    more += f"{_pictures(len(good.unreadable))} left out as unreadable, " if good.unreadable else ""
    console.result(
        f"{out}  (model {detector.model_id}, threshold {before:.6g} -> {detector.threshold:.6g}, {more}"
        f"{rests_on(detector)})"
    )
    return 0


def _pictures(count: int) -> str:
    return f"{count} picture{'' if count == 1 else 's'}"
