"""What a fit leaves behind, and what a person is told of it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from anodiff.cli import console, contest, selftest
from anodiff.cli.gallery import hang
from anodiff.run import Run, writable

if TYPE_CHECKING:
    from anodiff.detector import Detector
    from anodiff.gather import Gathered

SAMPLES, SAMPLE_STEPS = 9, 25
"""Of samples/, at a working area of up to `SAMPLE_AREA` pixels; a larger one gets fewer, so that they cost no more."""

SAMPLE_AREA = 256 * 256


def finish(detector: Detector, good: Gathered, folder: Run, args: argparse.Namespace) -> int:
    """Write what the run leaves behind beside its course, and tell the outcome."""
    from anodiff.cli.trust import rests_on, tell_suspects
    from anodiff.detect.threshold import least_rate

    detector.save(folder.model)
    selftest.keep(detector, folder)
    if detector.predictor.codec.paints and not args.no_samples:
        _paint(detector, folder)
    outcome = {
        "model": str(folder.model),
        "model_id": detector.model_id,
        "threshold": detector.threshold,
        **detector.costs,
        "trained_on": len(good.train),
        "held_out": len(good.held),
        "least_rate": least_rate(detector.counted),
        "suspects": len(detector.suspects),
        **({"dropped": dict(good.dropped)} if good.dropped else {}),
        **({"selftest": dict(tried)} if (tried := selftest.tested(detector)) else {}),
        **({"contest": dict(compared)} if (compared := detector.info["provenance"].get("contest")) else {}),
        **({"alarms": list(detector.alarms)} if detector.alarms else {}),
    }
    if args.json:
        console.as_json(outcome)
    else:
        selftest.tell(detector)
        if compared:
            contest.tell(compared)
        console.result(
            f"{folder.model}  (model {detector.model_id}, threshold {detector.threshold:.6g}, "
            f"trained on {len(good.train)} pictures{_apart(detector)}, held out {len(good.held)}; {rests_on(detector)})"
        )
    tell_suspects(detector, folder)
    for alarm in detector.alarms:
        console.warning(alarm)
    return 0


def _apart(detector: Detector) -> str:
    """How many of the pictures to train on no network saw, in words; nothing where all were seen."""
    apart = detector.info["provenance"].get("kept_from_networks")
    return f" ({apart} of them weigh the evidence and train no network)" if apart else ""


def _paint(detector: Detector, folder: Run) -> None:
    """Fill samples/ with new pictures at the working shape; smaller ones would show what the model never saw."""
    from anodiff.guiding import guiding
    from anodiff.painting import paint, usual_steps
    from anodiff.tasks.asked import Asked, conditions

    height, width = detector.shape
    count = max(1, min(SAMPLES, SAMPLES * SAMPLE_AREA // (height * width)))
    console.note(f"painting {count} pictures into {folder.samples}")
    guided = guiding(detector.predictor, detector.labels, kept=detector.config.guidance)
    pictures = paint(
        detector.predictor,
        detector.shape,
        count=count,
        steps=usual_steps(detector.predictor.denoiser.levels, most=SAMPLE_STEPS),
        sampler=guided.sampler,
        seed=detector.config.seed,
        device=detector.device,
        guided=guided,
        cond_of=conditions(detector.config, Asked(), detector.device),
    )
    hang(writable(folder.samples), pictures, count=count)
