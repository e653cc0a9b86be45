"""`anodiff data`: check a data set, divide it, or make a small one to try."""

from __future__ import annotations

import argparse
import dataclasses
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from anodiff.cli import console, exit
from anodiff.cli.verbs import Verbs
from anodiff.errors import DataError
from anodiff.run import writable

if TYPE_CHECKING:
    import pandas as pd


def add(verbs: Verbs) -> None:
    """Add the verb."""
    what = verbs.below("data", help="check a data set, divide it, or make a small one to try")

    check = what.add_parser("check", help="list every problem of a data set")
    _sourced(check)
    check.add_argument(
        "--split-column", default="split", metavar="NAME", help="of the manifest (default: split)"
    )
    check.add_argument("--json", action="store_true", help="as JSON")
    check.set_defaults(run=run_check)

    demo = what.add_parser("make-demo", help="write a small data set with exact masks")
    demo.add_argument("folder", metavar="FOLDER", help="where to; made if needed")
    demo.add_argument(
        "--seed", type=int, default=0, help="another seed, other tiles and defects (default: 0)"
    )
    demo.add_argument("--category", action="append", metavar="NAME", help="only this one; repeatable")
    demo.add_argument(
        "--train", type=int, default=32, metavar="N", help="good pictures to train on (default: 32)"
    )
    demo.add_argument(
        "--good", type=int, default=12, metavar="N", help="good pictures to test on (default: 12)"
    )
    demo.add_argument("--bad", type=int, default=20, metavar="N", help="defective pictures (default: 20)")
    demo.set_defaults(run=run_demo)

    parts = what.add_parser(
        "make-parts", help="write pictures of machine parts, with captions, boxes and maps of classes"
    )
    parts.add_argument("folder", metavar="FOLDER", help="where to; made if needed")
    parts.add_argument("--count", type=int, default=400, metavar="N", help="pictures (default: 400)")
    parts.add_argument("--size", type=int, default=64, metavar="PX", help="side of a picture (default: 64)")
    parts.add_argument("--seed", type=int, default=0, help="another seed, other pictures (default: 0)")
    parts.add_argument(
        "--most", type=int, default=4, metavar="N", help="parts a picture at most, 1 to 4 (default: 4)"
    )
    parts.set_defaults(run=run_parts)

    split = what.add_parser("split", help="write a manifest divided into train and test")
    _sourced(split)
    split.add_argument("-o", "--out", metavar="CSV", required=True, help="the manifest")
    split.add_argument(
        "--share", type=float, default=0.2, help="of the good pictures for testing (default: 0.2)"
    )
    split.add_argument("--seed", type=int, default=0, help="another seed, another division (default: 0)")
    split.add_argument("--column", default="split", metavar="NAME", help="where train or test is written")
    split.add_argument(
        "--by-content", action="store_true", help="keep near-duplicates on one side; every picture is read"
    )
    split.set_defaults(run=run_split)


def _sourced(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "source", metavar="DATA", help="folder, part in MVTec layout, good/bad folders, or manifest CSV"
    )
    verb.add_argument(
        "--category", action="append", metavar="NAME", help="only this kind of part; repeatable"
    )


def run_check(args: argparse.Namespace) -> int:
    """Print the problems of a data set; 3 where one of them spoils a result, else 0."""
    from anodiff.data.check import ERRORS, check
    from anodiff.data.index import index

    table = index(args.source, split_column=args.split_column, category=args.category)
    problems = check(table)
    spoilt = sum(problem.kind in ERRORS for problem in problems)
    pairs = Counter(zip(table["split"], table["defect"], strict=True))
    counts = {f"{split}/{defect}": count for (split, defect), count in sorted(pairs.items())}
    if args.json:
        console.as_json(
            {"pictures": counts, "problems": [dataclasses.asdict(problem) for problem in problems]}
        )
        return exit.DATA if spoilt else exit.DONE
    for problem in problems:
        sign = "error" if problem.kind in ERRORS else "note"
        console.result(f"{sign}  {problem.kind}  {problem.path}: {problem.message}")
    told = ", ".join(f"{count} {name}" for name, count in counts.items())
    console.result(f"{len(table)} pictures ({told}): {spoilt} errors, {len(problems) - spoilt} notes")
    return exit.DATA if spoilt else exit.DONE


def run_demo(args: argparse.Namespace) -> int:
    """Write the demo set and print where it is."""
    from anodiff.data.demo import PHOTOGRAPHS, make_demo

    writable(Path(args.folder))
    made = make_demo(
        args.folder,
        seed=args.seed,
        categories=args.category or tuple(PHOTOGRAPHS),
        train=args.train,
        good=args.good,
        bad=args.bad,
    )
    console.result(str(made))
    return exit.DONE


def run_parts(args: argparse.Namespace) -> int:
    """Write the pictures of parts and print where their manifest is."""
    from anodiff.data.parts import make_parts

    writable(Path(args.folder))
    made = make_parts(args.folder, count=args.count, size=args.size, seed=args.seed, most=args.most)
    console.result(str(made))
    return exit.DONE


def run_split(args: argparse.Namespace) -> int:
    """Write a divided manifest and print what is in it."""
    from anodiff.data.leak import duplicates, grouped
    from anodiff.data.manifest import write_manifest
    from anodiff.data.split import divided

    table = _undivided(Path(args.source), args.category)
    if args.by_content:
        table = grouped(table, duplicates(table))
    table = divided(table, share=args.share, seed=args.seed, column=args.column)
    out = Path(args.out)
    writable(out.parent)
    write_manifest(table, out)
    counts = Counter(table[args.column])
    console.result(f"{out}: {counts['train']} train, {counts['test']} test")
    return exit.DONE


def _undivided(source: Path, category: list[str] | None) -> pd.DataFrame:
    """The table of a source that need not say yet what is for training: `index` refuses defects without a split."""
    import pandas as pd

    from anodiff.cli.inputs import separator
    from anodiff.data.index import index
    from anodiff.data.manifest import normalise

    if source.suffix.lower() not in (".csv", ".tsv") or not source.is_file():
        return index(source, category=category)
    try:
        frame = pd.read_csv(
            source, dtype=str, keep_default_na=False, sep=separator(source), encoding="utf-8-sig"
        )
    except (OSError, ValueError) as error:
        raise DataError(f"The manifest {source} cannot be read: {error}") from None
    frame.columns = [str(column).strip() for column in frame.columns]
    home = source.absolute().parent
    table = normalise(frame.assign(split="train"), home=home, split_column="split", name=str(source))
    return index(table, category=category)
