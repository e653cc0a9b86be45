"""`anodiff eval`: a model against pictures of which it is known what they are."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anodiff import artefact
from anodiff.cli import case, console, exit
from anodiff.cli.cost import spoken
from anodiff.cli.gate import gate
from anodiff.cli.predictions import Table, cells, milliseconds, opened, shown
from anodiff.cli.tested import Tested, checked, rows_to_test
from anodiff.cli.verbs import Verbs
from anodiff.errors import DataError, GateError
from anodiff.run import Run, environment, writable, write_text, written

if TYPE_CHECKING:
    import pandas as pd

    from anodiff.detect.evaluate import Evaluation
    from anodiff.detector import Detector
    from anodiff.metrics.bootstrap import Interval
    from anodiff.report.case import Case

EPILOG = """\
examples:
  anodiff eval runs/bottle/model.anodiff mvtec/bottle -o runs/bottle/eval
  anodiff eval part.anodiff parts.csv --split-column split_grouped -o eval --gate 'image_auroc>=0.95'

Pictures that the model was fitted on (by the SHA-256 in split.csv beside the model) are left out and counted."""

TRUTH = ("truth", "defect", "category")
"""Columns of predictions.csv after those of `score`: 0 good or 1 defective, the kind of defect, the kind of part."""

LEFT_OUT = "The model was fitted on this picture; it is left out."

ALARMS = "false_alarm_rate"
"""The metric of metrics.json that hangs on the model's own threshold: good pictures flagged, beside the promise."""

FACTS = ("threshold", "evaluations_per_image", "opinions_per_image", "ms_p50", "ms_p99", "failed", "leaked")
"""Numbers of metrics.json beside the metrics that gates may name too; one that is not there is 0."""


def add(verbs: Verbs) -> None:
    """Add the verb."""
    verb = verbs.add_parser(
        "eval", help="evaluate a model on labelled pictures and write a report", epilog=EPILOG
    )
    verb.add_argument("model", metavar="MODEL", help="the .anodiff file")
    verb.add_argument("data", metavar="DATA", help="part in MVTec layout, good/ beside bad/, or manifest CSV")
    verb.add_argument(
        "-o", "--out", metavar="OUT", required=True, help="folder for the results; made if needed"
    )
    verb.add_argument(
        "--split-column", default="split", metavar="NAME", help="of the manifest (default: split)"
    )
    verb.add_argument(
        "--category", action="append", metavar="NAME", help="only this kind of part; repeatable"
    )
    verb.add_argument(
        "--gate",
        action="append",
        default=[],
        metavar="RULE",
        help="such as 'image_auroc>=0.95'; repeatable; exit code 12 where one is missed",
    )
    verb.add_argument("--batch", type=int, default=8, metavar="N", help="pictures at a time (default: 8)")
    verb.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    verb.add_argument(
        "--cases", type=int, default=4, metavar="N", help="pictures shown of each sort (default: 4)"
    )
    verb.add_argument("--json", action="store_true", help="print metrics.json")
    verb.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Evaluate; 12 a gate was missed, else 11 some pictures failed, 0."""
    out = Path(args.out)
    artefact.read_header(args.model)  # a wrong file is told before anything heavy is loaded

    import anodiff
    from anodiff.metrics.row import NAMES

    gates = [gate(text, known=(*NAMES, ALARMS, *FACTS)) for text in args.gate]
    table = rows_to_test(args.data, split_column=args.split_column, category=args.category)
    writable(out)
    detector = anodiff.load(args.model, device=args.device)
    tested = checked(table, Run(Path(args.model).parent))
    found = _scored(detector, tested, _root(args.data), out, batch=args.batch)
    metrics = found.evaluation.metrics(seed=detector.config.seed) | {ALARMS: _alarms(detector, found)}
    facts = {
        "seed": detector.config.seed,
        "data": str(args.data),
        "model_id": detector.model_id,
        "threshold": detector.threshold,
        **({"thresholds": detector.thresholds} if detector.thresholds else {}),
        **detector.costs,
        **_times(found.ms),
        "device": str(detector.device),
        "failed": found.evaluation.failures,
        "leaked": tested.leaked,
    }
    _write(out, args, detector, found, metrics, facts)
    if args.json:
        console.result((out / "metrics.json").read_text(encoding="utf-8").rstrip("\n"))
    else:
        _print(metrics, facts, out)
    values = {name: interval.value for name, interval in metrics.items()} | {
        name: facts.get(name, 0) for name in FACTS
    }
    missed = [sentence for rule in gates if (sentence := rule.missed(values)) is not None]
    if missed:
        raise GateError("Gate missed: " + "; ".join(missed) + f". The results are in {out}.")
    return exit.PARTLY if found.evaluation.failures else exit.DONE


@dataclass
class Found:
    """What came of the pictures, one after the other."""

    evaluation: Evaluation
    rows: list[dict[str, Any]] = field(default_factory=list)  # one a picture, for the report
    files: dict[str, tuple[str, str | None]] = field(default_factory=dict)  # name -> picture, mask
    ms: list[float] = field(default_factory=list)
    good: list[tuple[str, bool]] = field(
        default_factory=list
    )  # of each good picture, its label and whether flagged


def _root(data: str) -> Path:
    path = Path(os.path.abspath(os.path.expanduser(data)))
    return path if path.is_dir() else path.parent


def _scored(detector: Detector, tested: Tested, root: Path, out: Path, *, batch: int) -> Found:
    """Score picture after picture; predictions.csv grows along, in the order of the table."""
    from anodiff.data.image import known_mask
    from anodiff.detect.evaluate import Evaluation
    from anodiff.detect.result import Result
    from anodiff.metrics.pixel import PixelScores

    table = tested.table
    found = Found(Evaluation(pixels=PixelScores() if any(table["mask"]) else None))
    wanted = tested.left
    stream = detector.stream(wanted, batch=batch, labels=_labels(detector, tested))
    results = iter(console.counted(stream, label="eval", total=len(wanted)))
    columns = (table[name] for name in ("image", "mask", "label", "defect", "category"))
    with opened(out / "predictions.csv") as file:
        rows = Table(file, extra=TRUTH)
        rows.begin()
        for *about, held in zip(*columns, tested.held, strict=True):
            image, mask, label, defect, category = about
            name = Path(os.path.relpath(image, root)).as_posix()
            result = (
                Result.failed(LEFT_OUT, path=image, model_id=detector.model_id) if held else next(results)
            )
            truth = {"truth": str(label), "defect": defect, "category": category}
            rows.add({**cells(result, name), **truth})
            found.rows.append({
                "path": name, "score": result.score, "p_value": result.p_value, "threshold": result.threshold,
                "label": label, "defect": defect, "category": category, "error": result.error,
            })  # fmt: skip
            found.files[name] = (image, mask)
            if not held:
                found.evaluation.add(result, label, known_mask(mask, console.warning))
                if not label and result.is_anomalous is not None:
                    found.good.append((result.category or "", result.is_anomalous))
                if result.error is None and result.timings_ms:
                    found.ms.append(milliseconds(result))
        next(results, None)  # lets the bar end
    if not found.evaluation.scores:
        raise DataError(f"None of the {len(wanted)} pictures could be scored: {found.rows[-1]['error']}")
    return found


def _alarms(detector: Detector, found: Found) -> Interval:
    """The false alarms among good pictures; with a conformal threshold also what its rate lets expect."""
    from anodiff.metrics.false_alarms import Counted, false_alarms, flagged

    if detector.config.threshold.kind != "conformal":
        return flagged(sum(alarm for _, alarm in found.good), len(found.good))
    counts = detector.predictor.threshold.counts
    judged: dict[str, list[bool]] = {name: [] for name in counts}
    for label, alarm in found.good:
        judged[label if label in judged else ""].append(alarm)  # one threshold for all labels has no name
    groups = [Counted(sum(judged[name]), len(judged[name]), held) for name, held in counts.items()]
    return false_alarms(groups, promised=detector.info["target_fpr"])


def _labels(detector: Detector, tested: Tested) -> list[str | None] | None:
    """What each picture is known to be, where that is one of the model's labels; the model finds out the others."""
    labels = detector.config.labels
    column = getattr(labels, "column", None)  # labels from clusters are in no table
    if column is None or column not in tested.table:
        return None
    left = (value for value, held in zip(tested.table[column], tested.held, strict=True) if not held)
    return [str(value) if str(value) in labels.classes else None for value in left]


def _times(ms: list[float]) -> dict[str, float | None]:
    import numpy as np

    if not ms:
        return {"ms_p50": None, "ms_p99": None}
    median, high = np.percentile(ms, [50, 99])
    return {"ms_p50": round(float(median), 3), "ms_p99": round(float(high), 3)}


def _write(
    out: Path,
    args: argparse.Namespace,
    detector: Detector,
    found: Found,
    metrics: dict[str, Interval],
    facts: dict[str, Any],
) -> None:
    """Write metrics.json, rows.csv, curves.csv, run.json, cases/ and report.html."""
    import pandas as pd

    from anodiff.metrics import row
    from anodiff.report import page
    from anodiff.report.case import Report, pick_cases

    write_text(out / "metrics.json", row.to_json(metrics, **facts))
    predictions = pd.DataFrame(found.rows)
    with written(out / "rows.csv") as draft:
        _rows(predictions, metrics, facts).to_csv(draft, index=False, lineterminator="\n")
    evaluation = found.evaluation
    curves = row.curves(evaluation.scores, evaluation.labels, evaluation.pixels)
    with written(out / "curves.csv") as draft:
        curves.to_csv(draft, index=False, lineterminator="\n")
    about = {
        "threshold": detector.threshold,
        "settings": detector.config.model_dump(mode="json"),
        "environment": environment(device=str(detector.device)),
        **({"alarms": list(detector.alarms)} if detector.alarms else {}),
    }
    write_text(out / "run.json", json.dumps(about, indent=2, ensure_ascii=False) + "\n")
    cases = _cases(detector, pick_cases(predictions, count=args.cases), found.files)
    case.save(cases, out / "cases")
    report = Report(
        title=f"{Path(args.data).resolve().stem}, model {detector.model_id}",
        metrics={name: vars(interval) for name, interval in metrics.items()},
        predictions=predictions,
        curves=curves,
        cases=cases,
        facts=facts,
        **about,
    )
    page.write(report, out / "report.html")


def _rows(predictions: pd.DataFrame, metrics: dict[str, Interval], facts: dict[str, Any]) -> pd.DataFrame:
    """The metrics in long format; where there are several kinds of parts, image metrics of each follow those of all."""
    import pandas as pd

    from anodiff.data.table import rows_where
    from anodiff.metrics import row

    kinds = sorted(set(predictions["category"]))
    about = {name: facts[name] for name in ("data", "model_id", "seed")}
    tables = [row.rows(metrics, category="all" if len(kinds) > 1 else kinds[0], **about)]
    for kind in kinds if len(kinds) > 1 else ():
        part = rows_where(predictions, (predictions["category"] == kind) & predictions["error"].isna())
        if set(part["label"]) == {0, 1}:
            own = row.metrics(part["score"], part["label"], seed=facts["seed"])
            tables.append(row.rows(own, category=kind, **about))
    return pd.concat(tables, ignore_index=True)


def _cases(detector: Detector, chosen: pd.DataFrame, files: dict[str, tuple[str, str | None]]) -> list[Case]:
    """The chosen pictures with their maps; they are scored again, which gives the same, instead of keeping all maps."""
    import numpy as np

    from anodiff.data.image import known_mask
    from anodiff.report.case import Case

    records = chosen.to_dict("records")
    names = detector.labels
    known = (
        [record["category"] if record["category"] in names else None for record in records] if names else None
    )
    results = detector.stream([files[record["path"]][0] for record in records], labels=known)
    cases = []
    for record, result in zip(records, results, strict=True):
        path, mask_path = files[record["path"]]
        image, mask = shown(path), known_mask(mask_path, console.warning)
        restored = result.restored
        if restored is not None and restored.ndim == 2:
            restored = np.repeat(restored[..., None], 3, axis=2)
        fits = mask is not None and mask.shape == image.shape[:2]
        cases.append(
            Case(
                name=record["path"],
                image=image,
                heatmap=result.heatmap,
                score=float(result.score),
                label=int(record["label"]),
                defect=record["defect"] if record["label"] else None,
                p_value=float(result.p_value),
                mask=mask if fits else None,
                restored=restored,
                role=record["role"],
            )
        )
    return cases


def _print(metrics: dict[str, Interval], facts: dict[str, Any], out: Path) -> None:
    from anodiff.report.promise import promise

    lines = [
        (name, f"{found.value:.4f}", f"[{found.low:.4f}, {found.high:.4f}]", str(found.n))
        for name, found in metrics.items()
    ]
    console.table(("metric", "value", "95 % interval", "n"), lines)
    pace = (
        "" if facts["ms_p50"] is None else f", {facts['ms_p50']:.1f} ms a picture (p99 {facts['ms_p99']:.1f})"
    )
    if said := promise(vars(metrics[ALARMS])):
        console.result(f"{said[0].upper()}{said[1:]}.")
    asked = facts.get("opinions_per_image", 0)
    cost = f", {spoken(facts['evaluations_per_image'], asked)}" if asked else ""
    console.result(f"model {facts['model_id']}, threshold {facts['threshold']:.6g}{cost}{pace}")
    console.result(f"{out / 'report.html'}")
