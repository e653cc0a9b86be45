"""What a person sees while a verb runs: lines and a bar on stderr, results on stdout."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

EVERY = 5.0
"""Seconds between two lines where stderr is not a terminal."""


def note(text: str) -> None:
    """Say something on stderr."""
    _stderr(text, "")


def warning(text: str) -> None:
    """Say on stderr what a person should know although the work goes on."""
    _stderr(f"warning: {text}", "yellow")


def error(text: str) -> None:
    """Say on stderr why the work ends."""
    _stderr(f"error: {text}", "bold red")


def result(text: str) -> None:
    """Print a result on stdout."""
    sys.stdout.write(text + "\n")


def as_json(value: Any) -> None:
    """Print a value on stdout as JSON."""
    result(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, default=str))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "") -> None:
    """Print a table on stdout, cut nowhere."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    out = Console(file=sys.stdout, highlight=False, markup=False)
    if not out.is_terminal:
        out.width = 10_000  # a pipe has no width; nothing is wrapped
    found = Table(
        title=title or None, box=box.SIMPLE_HEAD, title_justify="left", show_header=bool(any(columns))
    )
    for column in columns:
        found.add_column(column, overflow="fold")
    for row in rows:
        found.add_row(*row)
    out.print(found)


def counted(items: Iterable[T], *, label: str, total: int | None = None) -> Iterator[T]:
    """The items, while a bar on a terminal, or a line every few seconds elsewhere, counts them on stderr."""
    return _bar(items, label, total) if sys.stderr.isatty() else _lines(items, label, total)


def _bar(items: Iterable[T], label: str, total: int | None) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=Console(stderr=True), redirect_stdout=False, redirect_stderr=False
    ) as bar:
        task = bar.add_task(label, total=total)
        for item in items:
            yield item
            bar.advance(task)


def _lines(items: Iterable[T], label: str, total: int | None) -> Iterator[T]:
    start = said = time.monotonic()
    of = "" if total is None else f"/{total}"
    for count, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - said >= EVERY:
            said = now
            note(f"{label} {count}{of}  {count / (now - start):.3g} pictures/s")


def _stderr(text: str, style: str) -> None:
    if not sys.stderr.isatty():
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
        return
    from rich.console import Console

    Console(stderr=True, highlight=False, markup=False).print(text, style=style or None)
