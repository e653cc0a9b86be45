"""How near the mathematics comes to its references: the largest difference each test of diffusion/ measures.

The tests compare with papers, closed forms and diffusers, and assert `difference <= bound`. Their docstrings name the
section and the independent reference, and say why where more than rounding is left:

    Law: guidance; reference: arXiv:2105.05233 algorithm 1 in x_t, written out
    Why: ...

This runs them, reads what they measured off the assertions, and prints a table a section: one line a test, the worst
over its cases, beside the bound. With --write the tables replace those of docs/parity.md. The exit code is that of the
tests, or 12 where a difference above 1e-10 is not explained or a measured test names no reference.

python benchmarks/parity.py --write
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests" / "diffusion"
PAGE = ROOT / "docs" / "parity.md"
SECTIONS = (
    "schedule",
    "parameterisation",
    "step",
    "posterior",
    "learned variance",
    "VLB terms",
    "DDIM",
    "solvers",
    "inversion",
    "guidance",
    "likelihood",
)
LOOSEST = 1e-4
"""Assertions with a bound above this are about something else than rounding."""
ROUNDING = 1e-10
"""Differences above this need a reason."""
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"

_NUMBER = r"(?:tensor\()?([-+0-9.e]+|nan|inf)(?:,[^)]*)?\)?"
_MEASURED = re.compile(rf"^{_NUMBER} <= ([-+0-9.e]+)$")
_LAW = re.compile(r"^\s*Law: (?P<section>[^;]+); reference: (?P<reference>.+)$", re.MULTILINE)
_WHY = re.compile(r"^\s*Why: (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Law:
    """What a test's docstring says of itself."""

    section: str
    reference: str
    why: str | None


def law_of(docstring: str | None) -> Law | None:
    """The law a docstring names, or None."""
    found = _LAW.search(docstring or "")
    if found is None:
        return None
    why = _WHY.search(docstring or "")
    return Law(found["section"].strip(), found["reference"].strip(), why[1].strip() if why else None)


@dataclass
class Measured:
    """What the assertions of a run measured, by the test's name."""

    worst: dict[str, tuple[float, float]] = field(default_factory=dict)  # difference, bound
    laws: dict[str, Law | None] = field(default_factory=dict)

    def pytest_assertion_pass(self, item: pytest.Item, expl: str) -> None:
        """Keep the largest difference of the assertions `difference <= bound`, with its bound."""
        found = _MEASURED.match(expl.splitlines()[0].strip())
        if found is None:
            return
        difference, bound = abs(float(found[1])), float(found[2])
        if bound > LOOSEST:
            return
        name = item.name.split("[")[0].removeprefix("test_").replace("_", " ")
        self.laws[name] = law_of(getattr(item, "function", None).__doc__)
        before = self.worst.get(name)
        if before is None or difference >= before[0]:
            self.worst[name] = difference, bound


def tables(measured: Measured) -> Iterator[str]:
    """A table a section, as Markdown, and below it a reason for whatever is above rounding."""
    for section in SECTIONS:
        names = [name for name, law in measured.laws.items() if law is not None and law.section == section]
        if not names:
            continue
        yield f"### {section[0].upper()}{section[1:]}"
        yield ""
        yield "| law | independent reference | largest difference | bound |"
        yield "|---|---|---|---|"
        reasons = []
        for name in sorted(names):
            law, (difference, bound) = measured.laws[name], measured.worst[name]
            assert law is not None
            yield f"| {name} | {law.reference} | {difference:.1e} | {bound:.0e} |"
            if difference > ROUNDING and law.why:
                reasons.append(f"Above 1e-10, {name}: {law.why}.")
        for reason in reasons:
            yield ""
            yield reason
        yield ""


def gaps(measured: Measured) -> list[str]:
    """What the tables lack: references, sections, reasons."""
    found = []
    for name, law in measured.laws.items():
        if law is None:
            found.append(f"{name}: its docstring names no law and reference")
        elif law.section not in SECTIONS:
            found.append(f"{name}: unknown section {law.section!r}, expected one of {', '.join(SECTIONS)}")
        elif measured.worst[name][0] > ROUNDING and law.why is None:
            found.append(f"{name}: {measured.worst[name][0]:.1e} is more than rounding and has no reason")
    return found


def main() -> int:
    """The exit code; the tables on stdout and, with --write, in the documentation."""
    parser = argparse.ArgumentParser(description="Tables of parity, measured by the tests.")
    parser.add_argument("--write", action="store_true", help="replace the tables of docs/parity.md")
    write = parser.parse_args().write
    measured = Measured()
    with tempfile.TemporaryDirectory() as folder:
        sys.pycache_prefix = folder  # assertions compiled without the hook would stay silent
        options = ["-q", "-p", "no:cacheprovider", "-o", "enable_assertion_pass_hook=true", "--no-header"]
        options += [
            "--ignore",
            str(TESTS / "test_parity_page.py"),
        ]  # that asks for the page which is made here
        code = int(pytest.main([str(TESTS), *options], plugins=[measured]))
    text = "\n".join(tables(measured)).rstrip()
    print(text)
    missing = gaps(measured)
    for gap in missing:
        print(gap, file=sys.stderr)
    if write and code == 0:
        page = PAGE.read_text("utf-8")
        head, tail = page.split(BEGIN)[0], page.split(END)[1]
        PAGE.write_text(f"{head}{BEGIN}\n\n{text}\n\n{END}{tail}", "utf-8")
    return code or (12 if missing else 0)


if __name__ == "__main__":
    sys.exit(main())
