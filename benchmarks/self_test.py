"""How well models find painted defects on held-out good pictures: how presets are compared without test labels.

    python benchmarks/self_test.py DATA MODEL [MODEL ...] [--strengths .15 .35 .8] [--painted 96] [-o OUT.json]

Each fit ends with this test; here it is made again for models of several fits, with as many and as strong defects as
asked. The held-out good pictures of each model (they taught its threshold, nothing else) are scored as they are and
painted on; DATA's test folder is not opened. All models must have been fitted on DATA with the same seed, so that they
held out the same pictures, and at one working size, so that the same defects are painted on them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import anodiff
from anodiff.fitting import batches, with_labels
from anodiff.gather import gather, label_numbers
from anodiff.selftest.report import tried


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--strengths", type=float, nargs="+", default=[0.15, 0.35, 0.8], help="contrasts")
    parser.add_argument("--painted", type=int, default=96, help="painted pictures, about")
    parser.add_argument("-o", "--out", type=Path)
    args = parser.parse_args()
    found = {path: judged(args.data, path, args.painted, args.strengths) for path in args.models}
    if args.out:
        args.out.write_text(json.dumps({"models": found}, indent=1) + "\n")


def judged(data: str, path: str, painted: int, strengths: list[float]) -> dict[str, object]:
    """The self-test of one model, printed over all kinds."""
    detector = anodiff.load(path)
    asked = {"kind": "painted", "painted": painted, "strengths": tuple(strengths)}
    section = detector.config.selftest.model_copy(update=asked)
    config = detector.config.model_copy(update={"selftest": section})
    gathered = gather(data, config)
    known = label_numbers(config, gathered.held_rows)
    report = tried(
        detector.predictor,
        lambda: with_labels(batches(gathered.held, detector.shape, config, detector.device), known),
        config,
        count=len(gathered.held),
        shape=detector.shape,
        say=lambda text: print(path, text),
    )
    if report is None:
        return {"model_id": detector.model_id}
    print(path, json.dumps({name: vars(value) for name, value in report.overall.items()}))
    return {"model_id": detector.model_id, **report.to_dict()}


if __name__ == "__main__":
    main()
