"""Where verbs add themselves to the command."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from rich_argparse import RawDescriptionRichHelpFormatter


@dataclass(frozen=True)
class Verbs:
    """Subparsers that all have the same formatter and the options every verb has.

    Attributes:
        parsers: those of argparse.
        every: the options that every verb has.
    """

    parsers: argparse._SubParsersAction
    every: argparse.ArgumentParser

    def add_parser(self, name: str, *, help: str, epilog: str | None = None) -> argparse.ArgumentParser:
        """A verb's parser, described by its own help."""
        return self.parsers.add_parser(
            name,
            help=help,
            description=help[0].upper() + help[1:] + ".",
            epilog=epilog,
            parents=[self.every],
            formatter_class=RawDescriptionRichHelpFormatter,
        )

    def below(self, name: str, *, help: str) -> Verbs:
        """The verbs below a verb, such as `data check`; one of them has to be given."""
        verb = self.parsers.add_parser(
            name,
            help=help,
            description=help[0].upper() + help[1:] + ".",
            formatter_class=RawDescriptionRichHelpFormatter,
        )
        return Verbs(verb.add_subparsers(dest="what", metavar="WHAT", required=True), self.every)
