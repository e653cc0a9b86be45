"""`anodiff fit`: from a folder of good pictures to a model file."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anodiff.cli import console, contest
from anodiff.cli.config import configured
from anodiff.cli.duration import seconds
from anodiff.cli.fitted import finish
from anodiff.cli.verbs import Verbs
from anodiff.errors import ConfigError
from anodiff.run import Run, environment

if TYPE_CHECKING:
    import pandas as pd

    from anodiff.config import RunConfig
    from anodiff.detector import Detector
    from anodiff.gather import Gathered

EPILOG = """\
examples:
  anodiff fit photos/good -o runs/part
  anodiff fit mvtec/bottle -o runs/bottle --preset pixels --max-time 30m
  anodiff fit parts.csv --split-column split_grouped -o runs/part --set train.steps=500
  anodiff fit photos/good -o runs/part --best-of features fine pixels
  anodiff fit photos/good -o runs/part --resume auto        (go on after Ctrl-C)"""


def add(verbs: Verbs) -> None:
    """Add the verb."""
    verb = verbs.add_parser("fit", help="learn from good pictures and write a model", epilog=EPILOG)
    verb.add_argument(
        "good",
        metavar="GOOD",
        help="folder of good pictures, a part in MVTec layout (only train/good is read), or a manifest CSV",
    )
    verb.add_argument("-o", "--out", metavar="RUN", required=True, help="folder of the run; made if needed")
    configured(verb)
    verb.add_argument(
        "--best-of",
        nargs="+",
        metavar="PRESET",
        help="fit each of these presets (RUN/presets/) and take the one that finds painted defects best",
    )
    sized = verb.add_argument_group("what is learnt")
    sized.add_argument(
        "--size", type=int, metavar="PX", help="side of the square of the working area (data.size)"
    )
    sized.add_argument("--channels", type=int, choices=(1, 3), help="1 grey or 3 colour (data.channels)")
    sized.add_argument("--seed", type=int, help="of everything random (seed)")
    sized.add_argument(
        "--target-fpr", type=float, metavar="RATE", help="false alarms accepted (threshold.target_fpr)"
    )
    sized.add_argument(
        "--split-column", default="split", metavar="NAME", help="of the manifest (default: split)"
    )
    sized.add_argument(
        "--category", action="append", metavar="NAME", help="only this kind of part; repeatable"
    )
    course = verb.add_argument_group("how long and where")
    course.add_argument(
        "--epochs", type=float, metavar="N", help="passes over the pictures (sets train.steps)"
    )
    course.add_argument(
        "--max-time", type=seconds, metavar="TIME", help="such as 90s, 5m or 1h30m (train.max_time)"
    )
    course.add_argument(
        "--resume",
        metavar="auto|FILE",
        help="go on from the newest checkpoint in RUN, or from this one; with neither "
        "--config nor --preset the configuration kept in RUN is used",
    )
    course.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    course.add_argument("--devices", type=int, default=1, metavar="N", help="how many of them (default: 1)")
    verb.add_argument(
        "--drop-suspects",
        action="store_true",
        help="leave out pictures that look unlike the rest (RUN/dropped.csv) and fit once more without them",
    )
    verb.add_argument(
        "--no-samples", action="store_true", help="leave out RUN/samples/, which a model that paints fills"
    )
    verb.add_argument("--json", action="store_true", help="tell the outcome as JSON")
    verb.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Fit a model and write the run folder."""
    configs = {name: _configuration(args, name) for name in _entrants(args)}
    config = next(iter(configs.values()))

    from anodiff.compose import check_levels

    for each in configs.values():
        check_levels(each)  # before a folder is made or a picture read
    folder = Run(Path(args.out)).create()

    from anodiff.complete import complete
    from anodiff.gather import gather

    good = gather(args.good, config, split_column=args.split_column, category=args.category)
    if args.epochs is not None:
        configs = {name: _with_steps(each, args.epochs, len(good.train)) for name, each in configs.items()}
        config = next(iter(configs.values()))
    if args.resume is None and (folder.interrupted or folder.model.exists()):
        console.note(f"{folder.path} holds an earlier run: starting anew (--resume auto would go on with it)")
    if args.resume is None:
        folder.dropped.unlink(missing_ok=True)
    if args.best_of:
        detector, good = _contest({name: each for name, each in configs.items() if name}, good, folder, args)
        return finish(detector, good, folder, args)
    config = complete(config, good, say=console.note)
    before = [row["image"] for row in folder.read_dropped() if row["split"] == "train" and args.drop_suspects]
    if before:  # killed, or done, after a first fit had named them
        good = good.without(before)
    detector = _fit(config, good, folder, args, resume=args.resume)
    if args.drop_suspects:
        detector, good = _drop(detector, config, good, folder, args, again=not before)
    return finish(detector, good, folder, args)


def _fit(
    config: RunConfig, good: Gathered, folder: Run, args: argparse.Namespace, *, resume: str | None
) -> Detector:
    """A fitted detector, its course kept in the run; an interruption says where it can go on."""
    from anodiff.config import dump
    from anodiff.detector import Detector
    from anodiff.train.progress import progress

    detector = Detector(config=config, device=args.device)
    folder.write_config(dump(config))
    folder.write_split(_rows(good.train_rows), _rows(good.held_rows))
    folder.write_environment(environment(device=str(detector.device)))
    console.note(
        f"{len(good.train)} pictures to train on, {len(good.held)} held out for the threshold, on {detector.device}"
    )
    try:
        return detector.fit(
            good,
            folder=folder.path,
            resume=resume,
            devices=args.devices,
            progress=progress("train"),
            say=console.note,
        )
    except KeyboardInterrupt:
        if folder.interrupted:
            raise KeyboardInterrupt(
                f"interrupted; checkpoint saved in {folder.kept}; resume with --resume auto"
            ) from None
        raise KeyboardInterrupt("interrupted before the first checkpoint; nothing to resume from") from None


def _contest(
    configs: Mapping[str, RunConfig], good: Gathered, folder: Run, args: argparse.Namespace
) -> tuple[Detector, Gathered]:
    """The detector of the best preset, and the pictures that it was fitted on; the others are in RUN/presets."""
    found = contest.held(
        configs,
        good,
        folder,
        lambda config, pictures, place: _fit(config, pictures, place, args, resume=args.resume),
    )
    folder.write_split(_rows(good.train_rows), _rows(good.held_rows))  # those kept apart have chosen
    folder.write_environment(environment(device=str(found.detector.device)))
    return found.detector, found.fitted_on


def _drop(
    detector: Detector,
    config: RunConfig,
    good: Gathered,
    folder: Run,
    args: argparse.Namespace,
    *,
    again: bool,
) -> tuple[Detector, Gathered]:
    """A detector that the suspects taught nothing, and the pictures that are left; they are kept in dropped.csv.

    Those it was trained on cost a second fit (`again`: not yet made), those held out other thresholds alone.
    """
    from anodiff.cli.trust import rows_of

    gone: list[Mapping[str, Any]] = [row for row in folder.read_dropped() if row["split"] == "train"]
    taught = [row for row in rows_of(detector) if row["split"] == "train"]
    if again and taught:
        gone = list(taught)
        folder.forget()  # nothing goes on from the fit with them
        folder.write_dropped(gone)
        good = good.without(row["image"] for row in gone)
        console.note(
            f"fitting again without {len(gone)} pictures that look unlike the rest: {folder.dropped}"
        )
        detector = _fit(config, good, folder, args, resume=None)
    held = [row for row in rows_of(detector) if row["split"] == "holdout"]
    if held:
        share = len(held) / (len(good.held) + 1)
        good = good.without(row["image"] for row in held)
        detector.leave_out(good)
        folder.write_dropped([*gone, *held])
        folder.write_split(_rows(good.train_rows), _rows(good.held_rows))
        console.warning(
            f"left out of the threshold because they look unlike the rest: {len(held)} held out ({folder.dropped}); "
            f"if good after all, up to {share:.2g} more good pictures are flagged than promised"
        )
    return detector, good


def _entrants(args: argparse.Namespace) -> list[str | None]:
    """The presets to fit: those of --best-of, or the one of the command line (None: the default)."""
    if not args.best_of:
        return [args.preset]
    taken = {"--preset": args.preset, "--config": args.config, "--drop-suspects": args.drop_suspects}
    if both := [option for option, value in taken.items() if value]:
        raise ConfigError(f"--best-of names the presets by itself and fits each once; leave {both[0]} out.")
    if args.resume not in (None, "auto"):
        raise ConfigError("--best-of goes on with every preset from its own checkpoints: --resume auto.")
    names = list(dict.fromkeys(args.best_of))
    if len(names) < 2:
        raise ConfigError(f"--best-of compares two presets or more, got {names[0]} alone; --preset fits one.")
    return names


def _configuration(args: argparse.Namespace, preset: str | None) -> RunConfig:
    """The configuration of the command line: preset, file, --set and the options that name a key, in that order."""
    from anodiff.config import load

    keys = {
        "data.size": args.size,
        "data.channels": args.channels,
        "seed": args.seed,
        "threshold.target_fpr": args.target_fpr,
        "train.max_time": args.max_time,
    }
    if args.epochs is not None and not args.epochs > 0:
        raise ConfigError(f"--epochs should be above 0, got {args.epochs:g}.")
    if args.devices < 1:
        raise ConfigError(f"--devices should be at least 1, got {args.devices}.")
    options = [f"{key}={value}" for key, value in keys.items() if value is not None]
    kept = Run(Path(args.out)).config
    path = args.config
    if args.resume is not None and path is None and preset is None and kept.is_file():
        path = kept
    return load(path, preset=preset, overrides=[*args.set, *options])


def _with_steps(config: RunConfig, epochs: float, count: int) -> RunConfig:
    """The configuration with the steps that pass `epochs` times over `count` pictures, the last one whole."""
    steps = max(1, math.ceil(epochs * count / config.train.batch))
    return config.model_copy(update={"train": config.train.model_copy(update={"steps": steps})})


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
