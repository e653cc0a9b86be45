from __future__ import annotations

import math
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from anodiff.errors import DataError
from anodiff.report import figure as charts
from anodiff.report.case import ROLES, Report
from anodiff.report.page import defect_table, render, render_many, verdict, write, write_many

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Tags in balance, every id, every address, and the text outside of styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self._seen(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self._seen(tag, attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data

    def _seen(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "srcset", "action", "data"):
                self.links.append(value)


def sound(text: str) -> Page:
    """The page, after the checks that hold for every page."""
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>")
    assert len(page.ids) == len(set(page.ids))
    assert all(link.startswith(("data:image/", "#")) for link in page.links)
    assert all(link[1:] in page.ids for link in page.links if link.startswith("#"))
    assert all(ref in page.ids for ref in re.findall(r"url\(#([^)]+)\)", text))
    assert not re.search(r"url\((?!#)|@import|https?://|//www|<script|<link|<iframe", text)
    assert "nan" not in page.text.lower().split()
    return page


def test_the_page_holds_every_part(report):
    page = sound(render(report))
    for part in ("brick <b>DDPM</b>", "Image AUROC", ".987", "[.961, 1.000]", "ROC", "Precision and recall",
                 "Scores by kind", "Kinds of defect", "Missed or nearly missed",
                 "False alarms or nearly", "Clearest finds", "restored", "true outline",
                 "p-value", "false alarm", "missed", "found", "kind: ddpm", "abc123", "183",
                 "Pictures that failed", "Expected a PNG, found 0 bytes.", "threshold 0.500"):  # fmt: skip
        assert part in page.text, part
    assert page.tags.count("img") == 3 * len(report.cases)
    assert page.tags.count("svg") == 4


def test_names_from_outside_are_text_not_markup(report):
    text = render(report)
    page = sound(text)
    assert '<script>alert("1")</script> & $x_1$' in page.text
    odd = report.predictions.assign(
        defect=['<img src=x onerror="y">$\\frac$\x00' if v else None for v in report.predictions["label"]]
    )
    page = sound(render(replace(report, predictions=odd, cases=())))
    assert "img" not in page.tags


@pytest.mark.parametrize(
    "gone", ["metrics", "curves", "cases", "settings", "environment", "facts", "threshold"]
)
def test_every_part_may_be_missing(report, gone):
    page = sound(render(replace(report, **{gone: getattr(Report("x"), gone)})))
    assert "brick" in page.text


def test_cases_without_mask_restoration_label_or_p_value(report):
    bare = [replace(c, mask=None, restored=None, p_value=None, label=None, defect=None) for c in report.cases]
    bare[0] = replace(bare[0], p_value=float("nan"))
    page = sound(render(replace(report, cases=bare)))
    assert page.tags.count("img") == 2 * len(bare)
    assert "true outline" not in page.text
    assert "p-value" not in page.text


def test_what_a_picture_costs_is_told_by_player_where_there_are_two(report):
    text = render(report)
    assert "<dt>network evaluations a picture</dt><dd>20</dd>" in text
    for other in ("generator", "discriminator"):
        assert other not in text
    facts = {**report.facts, "evaluations_per_image": 1, "opinions_per_image": 2}
    text = render(replace(report, facts=facts))
    assert "<dt>generator evaluations a picture</dt><dd>1</dd>" in text
    assert "<dt>discriminator evaluations a picture</dt><dd>2</dd>" in text
    assert "network evaluations" not in text


def test_what_looked_wrong_in_training_is_a_line_each(report):
    assert 'class="warning"' not in render(report)
    told = ("the critic is sure of <all> pairs", "what it draws is alike")
    page = sound(text := render(replace(report, alarms=told)))
    assert text.count('class="warning"') == 2
    for alarm in told:
        assert f"Warning from training {alarm}" in page.text
    text = render_many([report, replace(report, alarms=told)])
    sound(text)
    assert text.count('class="warning"') == 2


def test_an_empty_report(report):
    page = sound(render(Report("nothing")))
    assert "No picture was scored." in page.text
    assert "svg" not in page.tags
    sound(render(replace(report, predictions=pd.DataFrame(columns=["path", "score"]), cases=())))


@pytest.mark.parametrize("label", [0, 1])
def test_a_single_class(report, label):
    one = report.predictions[report.predictions["label"] == label]
    page = sound(render(replace(report, predictions=one, metrics={})))
    assert "Closer to the upper" not in page.text
    assert page.tags.count("svg") == 2


def test_only_failures(report):
    broken = report.predictions[report.predictions["error"].notna()]
    page = sound(render(replace(report, predictions=broken, cases=(), metrics={})))
    assert "1 picture could not be scored." in page.text


def test_scores_may_be_equal_tiny_huge_or_negative(report):
    table = report.predictions
    for scores in (
        np.full(len(table), 0.5),
        np.geomspace(1e-12, 1e12, len(table)),
        np.linspace(-9, -1, len(table)),
    ):
        sound(render(replace(report, predictions=table.assign(score=scores, error=None), cases=())))


def test_the_verdict_says_what_the_numbers_say(report):
    table = report.predictions[report.predictions["error"].isna()]
    found = int(((table["score"] > 0.5) & (table["label"] == 1)).sum())
    said = verdict(report).replace("\N{NO-BREAK SPACE}", " ")
    assert said == (
        f"At the threshold 0.500 the model finds {found} of 14 ({100 * found / 14:.0f} %) defective pictures and "
        "rejects 1 of 12 (8 %) good ones; image AUROC .987 [.961, 1.000], n = 26; 1 picture could not be scored."
    )
    nothing = verdict(replace(report, threshold=float("nan"), metrics={}))
    assert "there is no threshold" in nothing


def test_defects_are_counted_by_kind(report):
    rows = {row[0]: row for row in defect_table(report).rows}
    assert list(rows) == ["good", "scratch", "stain"]
    assert rows["stain"][1] == "6"
    assert rows["stain"][2].startswith("6 of 6")
    assert rows["stain"][3] == "[.61, 1.00]"  # Wilson's interval of 6 of 6: 6 / (6 + 1.96^2) = .6097
    assert rows["good"][5] == "–"


def test_a_case_with_a_map_of_another_size_is_named(report):
    wrong = replace(report.cases[0], heatmap=np.zeros((5, 5), np.float32))
    with pytest.raises(DataError, match=r"expected a map of the picture's shape \(60, 80\), found \(5, 5\)"):
        render(replace(report, cases=[wrong]))


def test_the_same_page_twice(report):
    assert render(report) == render(report)


def test_reports_side_by_side(report):
    others = [replace(report, title=title, cases=report.cases[:1]) for title in ("b", "b", "c $y$")]
    page = sound(render_many([report, *others]))
    assert "4 reports side by side" in page.text
    for name in ("b (1)", "b (2)", "c $y$"):
        assert name in page.text
    assert page.tags.count("section") == 4
    sound(render_many([Report("void"), report]))
    sound(render_many([report]))
    with pytest.raises(DataError, match="found none"):
        render_many([])


def test_a_page_stays_small(report, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (700, 900, 3), dtype=np.uint8)
    heat = np.zeros((700, 900), np.float32)
    case = replace(report.cases[0], image=noise, restored=noise, heatmap=heat, mask=None)
    heavy = [replace(case, name=str(i), role=ROLES[i % 3]) for i in range(18)]
    assert write(replace(report, cases=heavy), tmp_path / "deep" / "a.html").stat().st_size < 3e6
    many = [replace(report, title=str(i), cases=heavy[:3]) for i in range(6)]
    assert write_many(many, tmp_path / "b.html").stat().st_size < 3e6


def test_a_chart_of_many_pictures_stays_small():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=20_000), rng.integers(0, 2, 20_000)
    figure = charts.strip_figure(scores, labels, [f"kind {i % 40}" for i in range(20_000)], threshold=1.0)
    text = str(charts.svg(figure, name="a", label="b"))
    assert len(text) < 600_000
    assert "21 rare kinds" in text


def test_a_drawing_follows_the_theme_and_holds_no_address():
    figure = charts.histogram_figure(np.arange(20.0), np.arange(20) % 2, threshold=4.0)
    text = str(charts.svg(figure, name="h1", label="a < b"))
    root = ElementTree.fromstring(text)
    assert root.attrib["aria-label"] == "a < b"
    assert "var(--good)" in text
    assert "var(--bad)" in text
    assert "var(--font)" in text
    assert "http" not in text
    assert all(element.attrib.get("id", "h1-").startswith("h1-") for element in root.iter())


def test_every_bar_counts_its_class():
    scores = np.r_[np.zeros(30), np.ones(10)]
    figure = charts.histogram_figure(scores, scores)
    heights = [max(patch.get_xy()[:, 1]) for patch in figure.axes[0].patches]
    assert heights == pytest.approx([1.0, 1.0])


def test_an_interval_of_nan_is_a_bare_dot():
    figure = charts.interval_figure(
        {
            "a": {"value": 0.5, "low": math.nan, "high": math.nan},
            "b": {"value": 0.6, "low": 0.5, "high": 0.7},
        },
        title="x",
    )
    assert len(figure.axes[0].lines) == 3


def test_importing_the_room_loads_no_model():
    heavy = "'torch', 'matplotlib.pyplot', 'lightning'"
    code = f"import sys, anodiff.report.page; print([name for name in ({heavy}) if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
