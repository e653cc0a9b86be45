from __future__ import annotations

import math
import re
from dataclasses import dataclass
from html.parser import HTMLParser

import numpy as np
import pytest

from anodiff.errors import DataError
from anodiff.report.table import (
    Table,
    cell,
    checked,
    comparison_table,
    html,
    interval,
    markdown,
    metric_table,
    number,
    pairs_table,
    parted,
    percent,
    quantity,
    share,
)  # fmt: skip


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.987, ".987"), (1.0, "1.000"), (0.0, ".000"), (0.99996, ">.999"), (0.0004, "<.001"), (-0.0004, ">-.001"),
        (-0.25, "-.250"), (2.5, "2.500"), (math.nan, "–"), (math.inf, "–"), (None, "–"),
    ],
)  # fmt: skip
def test_a_number_never_looks_perfect_by_rounding(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.57, "0.570"),
        (12.34, "12.3"),
        (183.6, "184"),
        (1234.4, "1,234"),
        (0, "0.00"),
        (3e-7, "3.00e-07"),
        (None, "–"),
    ],
)
def test_a_quantity_keeps_its_significant_digits(value, text):
    assert quantity(value) == text


def test_an_interval_says_value_bounds_and_count():
    entry = {"value": 0.987, "low": 0.961, "high": 1.0, "n": 83}
    assert interval(entry) == ".987 [.961, 1.000], n = 83"
    assert interval(entry, count=False) == ".987 [.961, 1.000]"
    assert interval({"value": 0.987, "low": math.nan, "high": math.nan, "n": 83}) == ".987, n = 83"
    assert interval({"value": math.nan, "n": 3}) == "–, n = 3"


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [(58, 60, "58 of 60 (97 %)"), (999, 1000, "999 of 1000 (>99 %)"), (1, 1000, "1 of 1000 (<1 %)"),
     (7, 7, "7 of 7 (100 %)"), (0, 7, "0 of 7 (0 %)"), (0, 0, "0 of 0")],
)  # fmt: skip
def test_a_share_is_not_rounded_to_all_or_none(part, whole, text):
    assert share(part, whole).replace("\N{NO-BREAK SPACE}", " ") == text


def test_a_percentage_is_not_parted_from_its_sign():
    assert " " not in percent(0.5)


def test_cells_of_plain_values():
    assert [cell(v) for v in (None, True, np.int64(3), np.float32(0.5), [1, 2.5], "a")] == [
        "–",
        "yes",
        "3",
        "0.5",
        "1, 2.5",
        "a",
    ]


def test_metrics_come_in_one_order_and_refuse_what_is_none():
    entry = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 9}
    table = metric_table({"own": entry, "pixel_ap": entry, "image_auroc": entry})
    assert [row[0].split("\N{NO-BREAK SPACE}")[0] for row in table.rows] == ["Image AUROC", "Pixel AP", "own"]
    assert table.rows[0][1:4] == (".500", "[.400, .600]", "9")
    with pytest.raises(DataError, match=r"metric 'seed'.*facts"):
        checked({"seed": 0})


def test_metrics_may_be_dataclasses():
    @dataclass(frozen=True)
    class Interval:
        value: float
        low: float
        high: float
        n: int

    assert checked({"image_ap": Interval(0.5, 0.4, 0.6, 9)})["image_ap"]["low"] == 0.4


def test_a_metrics_file_is_parted_into_metrics_and_facts():
    entry = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 9}
    assert parted({"image_ap": entry, "seed": 0, "device": "cpu"}) == (
        {"image_ap": entry},
        {"seed": 0, "device": "cpu"},
    )


def test_a_comparison_has_a_dash_where_a_metric_is_missing():
    one = {"image_auroc": {"value": 0.9, "low": 0.8, "high": 0.95, "n": 9}}
    table = comparison_table([("a", one), ("b", {"pixel_ap": {"value": 0.5}})])
    assert table.columns == ("", "Image AUROC", "Pixel AP")
    assert table.rows == (("a", ".900 [.800, .950]", "–"), ("b", "–", ".500"))


def test_markdown_and_html_hold_the_same_rows_and_no_foreign_markup():
    table = Table(
        ("a|b", "n"),
        (("<script>x</script>\nline", "1"), ("<b>", "<i>x</i>"), ("plain", ".9 [.8, .95]")),
        numeric=(1,),
    )
    text = markdown(table)
    lines = text.splitlines()
    assert len(lines) == 5
    assert lines[0] == "| a\\|b | n |"
    assert lines[1] == "| --- | ---: |"
    assert "<script>" not in text

    class Cells(HTMLParser):
        found: list[str] = []  # noqa: RUF012

        def handle_starttag(self, tag, attrs):
            if tag in ("td", "th"):
                self.found.append("")

        def handle_data(self, data):
            self.found[-1] += data

    page = str(html(table))
    Cells().feed(page)
    assert Cells.found == [
        "a|b",
        "n",
        "<script>x</script>\nline",
        "1",
        "<b>",
        "<i>x</i>",
        "plain",
        ".9 [.8, .95]",
    ]
    assert not {"<script>", "<b>", "<i>"} & set(re.findall(r"<[a-z]+>", page))


def test_nested_mappings_become_dotted_names():
    assert pairs_table({"a": {"b": 1, "c": {"d": 0.5}}, "e": None}).rows == (
        ("a.b", "1"),
        ("a.c.d", "0.5"),
        ("e", "–"),
    )
