"""The page of parity names every law of these tests, each with the reference its test compares with."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def parity():
    spec = importlib.util.spec_from_file_location("parity_command", ROOT / "benchmarks" / "parity.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def written(parity) -> dict[str, object]:
    """The law of every test that names one."""
    found = {}
    for path in sorted(parity.TESTS.glob("test_*.py")):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                law = parity.law_of(ast.get_docstring(node))
                if law is not None:
                    name = node.name.removeprefix("test_").replace("_", " ")
                    assert name not in found, f"two laws are called {name!r}"
                    found[name] = law
    return found


def test_the_page_lists_every_law_with_its_reference(parity):
    page = (ROOT / "docs" / "parity.md").read_text("utf-8")
    tables = page.split(parity.BEGIN)[1].split(parity.END)[0]
    rows = re.findall(
        r"^\| (?!law|-)([^|]+) \| ([^|]+) \| [-+.e0-9]+ \| [-+.e0-9]+ \|$", tables, re.MULTILINE
    )
    laws = written(parity)
    assert dict(rows) == {name: law.reference for name, law in laws.items()}, (
        "run: python benchmarks/parity.py --write"
    )
    assert {law.section for law in laws.values()} == set(parity.SECTIONS)


def test_what_is_above_rounding_needs_a_reason_and_a_reference(parity):
    measured = parity.Measured()
    measured.worst = {"a": (1e-6, 1e-5), "b": (1e-12, 1e-10), "c": (1e-6, 1e-5), "d": (0.0, 1e-9)}
    measured.laws = {
        "a": parity.law_of("Law: step; reference: a paper"),
        "b": parity.law_of("Law: step; reference: a paper"),
        "c": parity.law_of("Text.\n\n    Law: step; reference: a paper\n    Why: float32 inside\n    "),
        "d": parity.law_of("No law."),
    }
    gaps = parity.gaps(measured)
    assert [gap.split(":")[0] for gap in gaps] == ["a", "d"]
    table = "\n".join(parity.tables(measured))
    assert "| c | a paper | 1.0e-06 | 1e-05 |" in table
    assert "Above 1e-10, c: float32 inside." in table


def test_an_assertion_is_read_off_its_explanation(parity):
    measured = parity.Measured()

    class Item:
        name = "test_some_law[1-2]"

        @staticmethod
        def function():
            """Law: DDIM; reference: a scheduler"""

    for text in ("tensor(1.5e-13, dtype=torch.float64) <= 1e-10", "2e-14 <= 1e-10", "0.3 <= 0.5", "x <= 1"):
        measured.pytest_assertion_pass(Item(), text)  # type: ignore[arg-type]
    assert measured.worst == {"some law": (1.5e-13, 1e-10)}
    assert measured.laws["some law"].reference == "a scheduler"
