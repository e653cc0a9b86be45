"""One cell of a benchmark in its own process: `python -m anodiff.bench.cell SPEC.json`.

Whatever happens, cell.json is left behind, unless the process is killed; then the parent writes it. Nobody imports this
module but its tests: it alone joins the benchmark with other libraries' models.
"""

from __future__ import annotations

import csv
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from anodiff.bench import measure, record
from anodiff.bench.foreign import Foreign
from anodiff.bench.memory import Peak
from anodiff.bench.plain import Plain
from anodiff.bench.sets import Divided, Place, divided
from anodiff.bench.subject import Subject, at_most
from anodiff.config.bench import Generation
from anodiff.data.image import known_mask
from anodiff.detect.evaluate import Evaluation
from anodiff.detect.result import Result
from anodiff.device import device_of
from anodiff.errors import AnodiffError, DataError, RefusalError
from anodiff.metrics.image import image_auroc
from anodiff.metrics.pixel import PixelScores
from anodiff.run import environment, written

if TYPE_CHECKING:
    from anodiff.bench.ours import Ours


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What the parent asks for."""

    set: str
    method: str
    seed: int
    digest: str
    how: dict[str, Any]
    place: Place
    device: str
    folder: Path  # where the files of the cell go
    command: str  # that makes this cell again, without paths of this machine
    hidden: dict[str, str]  # paths of this machine, and what stands for them in what is kept
    generation: dict[str, Any] | None = None
    weights: str | None = None  # of the extractor

    @classmethod
    def read(cls, path: str | Path) -> Spec:
        """The spec in a JSON file."""
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        return cls(**{**values, "place": Place(**values["place"]), "folder": Path(values["folder"])})

    @property
    def key(self) -> dict[str, Any]:
        """What a record begins with."""
        return {"set": self.set, "method": self.method, "seed": self.seed, "digest": self.digest}

    def clean(self, text: str) -> str:
        """The text without paths of this machine."""
        for path in sorted(self.hidden, key=len, reverse=True):
            text = text.replace(path, self.hidden[path])
        return text


def main(argv: Iterable[str]) -> int:
    """0 once cell.json is written, whatever stands in it."""
    (path,) = argv
    spec = Spec.read(path)
    try:
        found = measured(spec)
    except RefusalError as error:
        found = record.stopped(spec.key, "refused", spec.clean(str(error)))
    except AnodiffError as error:
        found = record.stopped(spec.key, "failed", spec.clean(str(error)))
    except Exception as error:  # one cell's bug must not cost the others
        traceback.print_exc()
        found = record.stopped(spec.key, "failed", spec.clean(f"{type(error).__name__}: {error}"))
    _say(found["error"] or "done")
    record.write(spec.folder, found)
    return 0


def measured(spec: Spec) -> dict[str, Any]:
    """The record of a cell: fitted, scored, timed."""
    device = device_of(spec.device)
    split = divided(spec.place.table())
    train = at_most(split.train, spec.how.get("most_train"))
    one = subject(spec, device)
    _say(f"fit on {len(train)} pictures, {device}")
    peak, start = Peak(device), time.perf_counter()
    fitted = one.fit(train)
    cost: dict[str, Any] = {"fit_seconds": round(time.perf_counter() - start, 3)}
    fit_peak = peak.mb(), peak.device_mb()

    paths = list(split.test["image"])
    _say(f"score {len(paths)} pictures")
    peak = Peak(device)
    metrics, counts = evaluated(one, split, spec)
    good = [path for path, label in zip(paths, split.test["label"], strict=True) if not label]
    _say("time")
    cost |= measure.latency(one, paths)
    cost["pictures_per_second"] = measure.throughput(one, paths)
    cost["evaluations_per_image"] = one.evaluations
    cost["gflops_per_image"] = measure.gflops(one, paths[0])
    cost |= {"fit_peak_mb": round(fit_peak[0], 1), "score_peak_mb": round(peak.mb(), 1)}
    if fit_peak[1] is not None:
        cost |= {
            "fit_peak_device_mb": round(fit_peak[1], 1),
            "score_peak_device_mb": round(peak.device_mb() or 0, 1),
        }
    cost["model_mb"] = round(one.size_mb(), 3)
    found = {**spec.key, "status": "done", "error": None, "metrics": metrics, "cost": cost}
    found["about"] = about(spec, device, split) | {"train": fitted.train, "held": fitted.held, **counts}
    if spec.how["kind"] == "ours":
        own = cast("Ours", one)
        found |= curves(own, split, spec) | painted(own, spec, train=list(train["image"]), held=good)
    return found


def subject(spec: Spec, device: torch.device) -> Subject:
    """The method under measurement."""
    how = spec.how
    match how["kind"]:
        case "ours":
            from anodiff.bench.ours import (
                Ours,
            )  # the detector is heavy, and would count in a baseline's memory

            return Ours(how["run"], device=str(device), say=_say)
        case "baseline":
            return Plain(how["baseline"], size=how["size"])
    from anodiff.interop import anomalib

    model = anomalib.Foreign(
        path=how["anomalib"],
        args=how["args"],
        size=how["size"],
        backbone=how["backbone"],
        layers=None if how["layers"] is None else tuple(how["layers"]),
        coreset=how["coreset"],
        batch=how["batch"],
        epochs=how["epochs"],
        seed=spec.seed,
        device=device,
    )
    return Foreign(partial(anomalib.train, how=model), size=model.size, batch=model.batch)


def evaluated(one: Subject, split: Divided, spec: Spec) -> tuple[dict[str, Any], dict[str, Any]]:
    """The metrics as `anodiff eval` computes them, and how many pictures stand behind them; writes predictions.csv."""
    test = split.test
    evaluation = Evaluation(pixels=PixelScores() if any(test["mask"]) else None)
    error = None
    columns = (test[name] for name in ("image", "mask", "label", "defect"))
    with (
        written(spec.folder / "predictions.csv") as draft,
        draft.open("w", newline="", encoding="utf-8") as file,
    ):
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("path", "label", "defect", "score"))
        results = one.stream(list(test["image"]))
        for result, image, mask, label, defect in zip(results, *columns, strict=True):
            evaluation.add(result, label, known_mask(mask, _say))
            score = "" if result.error is not None else repr(float(result.score))
            rows.writerow((spec.place.relative(image), label, defect, score))
            error = result.error or error
    if len(set(evaluation.labels)) < 2:
        raise DataError(f"Too few of the {len(test)} test pictures could be scored; the last error: {error}")
    metrics = {name: vars(found) for name, found in evaluation.metrics(seed=spec.seed).items()}
    labels = np.asarray(evaluation.labels)
    counts = {
        "test_good": int((labels == 0).sum()),
        "test_defective": int((labels == 1).sum()),
        "unreadable": evaluation.failures,
        "left_out": split.left_out,
    }
    return metrics, counts


def curves(one: Ours, split: Divided, spec: Spec) -> dict[str, Any]:
    """Accuracy against evaluations and time, at the numbers of steps the method names; nothing where it names none."""
    found = []
    for steps in spec.how["steps"]:
        _say(f"score with {steps} steps")
        other = one.with_steps(steps)
        results = list(_scores(other.stream(split.test["image"]), split.test["label"]))
        scores, labels = zip(*results, strict=True)
        found.append(
            {
                "evaluations": other.evaluations,
                "ms_p50": measure.latency(other, list(split.test["image"]), seconds=5)["ms_p50"],
                "image_auroc": image_auroc(scores, labels),
            }
        )
    return {"curve": found} if found else {}


def painted(one: Ours, spec: Spec, *, train: list[str], held: list[str]) -> dict[str, Any]:
    """What the painted pictures are worth; nothing where none were asked for, or the model paints none."""
    if spec.generation is None or not one.detector.predictor.codec.paints:
        return {}
    from anodiff.bench.painted import judged

    _say(f"paint {spec.generation['samples']} pictures")
    how = Generation(**spec.generation)
    weights = None if spec.weights is None else Path(spec.weights)
    return {"generation": judged(one.detector, how, train=train, held=held, weights=weights)}


def about(spec: Spec, device: torch.device, split: Divided) -> dict[str, Any]:
    """What a figure must carry to be made again."""
    machine = environment(device=str(device))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    family = {} if spec.how.get("family") is None else {"family": spec.how["family"]}
    return {
        "command": spec.command,
        "commit": machine["git_commit"],
        "device": f"{device.type} ({name})",
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": machine["torch"],
        "seed": spec.seed,
        "data": spec.place.shown,
        "split_column": spec.place.split_column,
        "date": time.strftime("%Y-%m-%d"),
        **family,
    }


def _scores(results: Iterable[Result], labels: Iterable[int]) -> Iterable[tuple[float, int]]:
    for result, label in zip(results, labels, strict=True):
        if result.error is None:
            yield result.score, label


def _say(text: str) -> None:
    """A line of the log."""
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
