"""The command `anodiff`: from the words on the command line to a verb, and from its outcome to an exit code."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rich_argparse import RawDescriptionRichHelpFormatter

from anodiff.cli import (
    bench,
    bound,
    calibrate,
    config,
    console,
    data,
    eval,
    exit,
    fit,
    info,
    report,
    sample,
    score,
)
from anodiff.cli.verbs import Verbs

VERBS = (fit, score, eval, sample, bound, bench, report, info, config, data, calibrate)

EPILOG = """\
exit codes: 0 done · 1 bug · 2 usage or configuration · 3 data · 4 model file · 5 device, memory or disk
  6 missing extra · 10 anomaly found (--fail-on anomaly) · 11 some inputs failed, the rest were scored
  12 a gate failed · 130 interrupted

results go to stdout, logs and progress to stderr; nothing is ever downloaded."""


class _Version(argparse.Action):
    """Prints the version; it is looked up only when asked for, which keeps --help quick."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(
            option_strings, dest, nargs=0, default=argparse.SUPPRESS, help="print the version and leave"
        )

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from anodiff.version import __version__

        console.result(f"anodiff {__version__}")
        parser.exit()


def parser() -> argparse.ArgumentParser:
    """The parser of all verbs; building it loads nothing but argparse."""
    every = argparse.ArgumentParser(add_help=False)
    every.add_argument("--debug", action="store_true", help="show tracebacks and the warnings of libraries")
    whole = argparse.ArgumentParser(
        prog="anodiff",
        description="Finds what is not normal in pictures with diffusion models trained on good parts only.",
        epilog=EPILOG,
        formatter_class=RawDescriptionRichHelpFormatter,
    )
    whole.add_argument("--version", action=_Version)
    verbs = whole.add_subparsers(dest="verb", metavar="COMMAND", required=True)
    for verb in VERBS:
        verb.add(Verbs(verbs, every))
    return whole


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of one command.

    Args:
        argv: the words after `anodiff`; None takes those of the process.
    """
    try:
        args = parser().parse_args(argv)
    except SystemExit as left:  # argparse leaves with 2 after a usage error, with 0 after --help
        return left.code if isinstance(left.code, int) else 2
    return exit.guarded(args.run, args)
