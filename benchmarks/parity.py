"""How near the mathematics comes to its references: the largest difference each test of diffusion/ measures.

The tests compare with papers, closed forms and diffusers, and assert `difference <= bound`. This runs them, reads what
they measured off those assertions, and prints one line a test: the worst over its cases, beside the bound.

python benchmarks/parity.py
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1] / "tests" / "diffusion"
LOOSEST = 1e-4
"""Assertions with a bound above this are about something else than rounding."""

_NUMBER = r"(?:tensor\()?([-+0-9.e]+|nan|inf)(?:,[^)]*)?\)?"
_MEASURED = re.compile(rf"^{_NUMBER} <= ([-+0-9.e]+)$")


@dataclass
class Measured:
    """What the assertions of a run measured."""

    worst: dict[str, tuple[float, float]] = field(default_factory=dict)  # test -> difference, bound

    def pytest_assertion_pass(self, item: pytest.Item, expl: str) -> None:
        """Keep the assertion `difference <= bound` that came nearest to its bound."""
        found = _MEASURED.match(expl.splitlines()[0].strip())
        if found is None:
            return
        name = f"{item.path.stem.removeprefix('test_')}: {item.name.split('[')[0].removeprefix('test_')}"
        difference, bound = abs(float(found[1])), float(found[2])
        if bound > LOOSEST:
            return
        before = self.worst.get(name)
        if before is None or difference / bound >= before[0] / before[1]:
            self.worst[name] = difference, bound


def lines(measured: Measured) -> Iterator[str]:
    """The table, as Markdown."""
    yield "| law | largest difference | bound |"
    yield "|---|---|---|"
    for name, (difference, bound) in sorted(measured.worst.items()):
        yield f"| {name.replace('_', ' ')} | {difference:.1e} | {bound:.0e} |"


def main() -> int:
    """The exit code of pytest; the table on stdout."""
    measured = Measured()
    with tempfile.TemporaryDirectory() as folder:
        sys.pycache_prefix = folder  # assertions compiled without the hook would stay silent
        options = ["-q", "-p", "no:cacheprovider", "-o", "enable_assertion_pass_hook=true", "--no-header"]
        code = pytest.main([str(TESTS), *options], plugins=[measured])
    print("\n".join(lines(measured)))
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
