"""The page and the Markdown of a bench say what the summary holds, and leave out what it does not."""

from __future__ import annotations

import csv
import math
import re
import subprocess
import sys

import numpy as np
import pytest
from test_report_page import sound

from anodiff.report.bench import page, text, verdict, write
from anodiff.report.bench_figure import forest_figure, trade_figure
from anodiff.report.bench_summary import (
    Cost,
    FamilyBest,
    Leak,
    Match,
    Pair,
    Range,
    Spread,
    Standing,
    Step,
    Summary,
    Trade,
    Trouble,
)
from anodiff.report.bench_table import (
    cost_table,
    gain_table,
    generation_table,
    leak_table,
    metric_table,
    pair_table,
    spread,
)

NASTY = "<b>PaDiM</b> & $x$"


def standing(name: str, method: str, mean: float, *, best: bool = False, seeds: int = 3, **more) -> Standing:
    main = Spread(mean, 0.01 if seeds > 1 else math.nan, mean - 0.03, min(1.0, mean + 0.02), seeds, 83)
    pixel = {"pixel_auroc": Spread(mean - 0.1, 0.002, seeds=seeds, n=83)} if name == "bottle" else {}
    return Standing(name, method, {"image_auroc": main, "fpr95": Spread(0.25), **pixel}, best=best, **more)


@pytest.fixture
def summary() -> Summary:
    painted = {
        "FD[lite0]": Spread(30.5, 0.4),
        "precision[lite0]": Spread(0.7, 0.0),
        "samples": Spread(64.0, 0.0),
    }
    here = [Trade("pixels", Step(5, 240, 0.85), 0.8, 0.9, [Step(1, 50, 0.8), Step(20, 900, 0.86)]),
            Trade(NASTY, Step(0, 60, 0.95), 0.92, 0.97)]  # fmt: skip
    return Summary(
        name="bench of parts",
        sets=["bottle", "tiles"],
        methods=["pixels", NASTY],
        families={"pixels": "pixel DDPM", NASTY: "none"},
        seeds=[0, 1, 2],
        done=9,
        total=12,
        standings=[
            standing("bottle", "pixels", 0.851, generation=painted),
            standing("bottle", NASTY, 0.952, best=True),
            standing("tiles", "pixels", 0.771, seeds=1),
        ],
        overall={"pixels": Spread(0.811, low=0.78, high=0.84, seeds=1, n=2)},
        common=["bottle", "tiles"],
        pairs=[Pair("bottle", NASTY, "pixels", 0.101, 0.05, 0.15, 0.0004, 0.004, 0.004, 83)],
        matches=[Match(NASTY, "pixels", 1, 0, 0, 0.101, 0.05, 0.15)],
        contributions=[
            FamilyBest("bottle", "pixel DDPM", "pixels", Spread(0.851), NASTY, -0.101, -0.15, -0.05, 0.004),
            FamilyBest("bottle", "none", NASTY, Spread(0.952)),
        ],
        costs=[
            Cost(
                "pixels",
                "cpu",
                {
                    "fit_seconds": Range(830.0, 800.0, 1200.0),
                    "ms_p50": Range(240.0, 239.0, 241.0),
                    "evaluations_per_image": Range(5.0, 5.0, 5.0),
                },
            )
        ],
        trades={"": here, "bottle": here},
        leaks=[
            Leak("bottle", 209, 83, 0, 0, 0, 292, 1, 0.0, "No picture is on both sides."),
            Leak("tiles", 762, 582, 0, 31, 17, 300, 6, 0.0004, "Divide it by groups."),
        ],
        troubles=[Trouble("tiles", NASTY, 0, "failed", "Killed | by <memory>.")],
        provenance={"commit": "e503bd0", "device": "cpu (x86_64)"},
        commands=["anodiff bench detection.yaml -o OUT"],
        rows=[
            {"set": "bottle", "seed": 0, "image_auroc": 0.851},
            {"set": "tiles", "error": 'Killed, by "x".'},
        ],
        notes=["tiles leaks. Divide it by groups."],
    )


def test_every_part_is_on_the_page_and_in_the_markdown(summary):
    seen, plain = sound(page(summary)), text(summary)
    for part in (".851", ".952", "failed", "1 of 3 seeds", "mean of 2 sets", "Pixel AUROC", "pixel DDPM",
                 "+.101 [+.050, +.150]", "-.101 [-.150, -.050]", "FD[lite0]", "830 [800, 1,200]", "17",
                 "Divide it by groups.", "e503bd0", "anodiff bench detection.yaml", "9 of 12 cells",
                 "FPR at 95 % TPR"):  # fmt: skip
        assert part in seen.text, part
        assert part in plain.replace("\\|", "|"), part
    assert "Killed | by <memory>." in seen.text
    assert seen.tags.count("svg") == 1 + 2 + 2  # at a glance; over sets; the set by itself
    assert "details" in seen.tags
    assert "script" not in seen.tags


def test_names_from_outside_are_text_not_markup(summary):
    assert NASTY in sound(page(summary)).text
    assert "<b>PaDiM" not in text(summary)


def test_the_best_is_bold_in_both(summary):
    assert "<b>.952" in page(summary)
    assert "<b>.851" not in page(summary)
    assert re.search(r"\| \*\*\.952\s±\s\.010 \[\.922, \.972\]\*\* \|", text(summary))


def test_the_main_table(summary):
    table = metric_table(summary, "image_auroc")
    assert table.columns == ("Set", "pixels", NASTY)
    assert [row[0] for row in table.rows] == ["bottle", "tiles", "mean of 2 sets"]
    assert table.rows[1][1:] == (".771 (1 of 3 seeds) [.741, .791]", "failed")
    assert table.rows[2][1:] == (".811 [.780, .840]", "–")
    assert table.strong == {(0, 2)}
    assert [row[0] for row in metric_table(summary, "pixel_auroc").rows] == ["bottle"]


def test_what_is_known_of_a_figure_is_written_and_no_more():
    assert spread(Spread(0.9876)) == ".988"
    assert spread(Spread(0.9876, 0.004, 0.961, 0.998)).replace("\xa0", " ") == ".988 ± .004 [.961, .998]"
    assert spread(Spread(0.9876, 0.004, 0.961, 0.998), interval=False).replace("\xa0", " ") == ".988 ± .004"


def test_cells_of_the_other_tables(summary):
    assert cost_table(summary).rows == (("pixels", "830 [800, 1,200]", "240", "5"),)
    assert gain_table(summary).rows == (("pixel DDPM", "-.101 [-.150, -.050]"),)
    assert [text.replace("\xa0", " ") for text in generation_table(summary).rows[0]] == [
        "bottle", "pixels", "30.5 ± 0.40", "0.700 ± 0.0", "64",
    ]  # fmt: skip
    assert leak_table(summary).strong == {(1, 5)}
    assert leak_table(summary).rows[1][6].replace("\xa0", " ") == "<1 %"
    assert pair_table(summary).rows[0][2:] == ("+.101 [+.050, +.150]", "<.001", ".004", ".004", "83")


def test_the_verdict(summary):
    assert verdict(summary) == (
        "2 methods on 2 sets, seeds 0, 1, 2; 9 of 12 cells have a result. Highest mean image AUROC over the 2 sets: "
        f"pixels, .811 [.780, .840]. The best of a set, or not to be told from it: {NASTY} on 1 of 2 sets."
    )


def test_a_bench_in_which_everything_failed_has_a_page():
    bare = Summary(name="x", sets=["a"], methods=["m"], seeds=[0], total=1,
                   troubles=[Trouble("a", "m", 0, "failed", "No disk.")])  # fmt: skip
    seen = sound(page(bare))
    assert "No disk." in seen.text
    assert "svg" not in seen.tags
    assert "Cost" not in text(bare)


def test_figures_show_what_they_are_given(summary):
    forest = forest_figure(
        {"bottle": {"pixels": Spread(0.8, low=0.7, high=0.9)}}, methods=["pixels"], title="t"
    ).axes[0]
    drawn = [np.asarray(line.get_xdata()).tolist() for line in forest.lines]
    assert [x for x in drawn if x] == [[0.7, 0.9], [0.8]]
    trade = trade_figure(summary.trades[""], methods=summary.methods, cost="evaluations", title="t").axes[0]
    shown = [np.asarray(line.get_xdata()).tolist() for line in trade.lines]
    assert [1, 20] in shown
    assert [5] in shown
    assert [0] in shown
    assert 0 in trade.get_xticks()
    missing = trade_figure(
        [Trade("m", Step(1, math.nan, 0.8), 0.7, 0.9)], methods=["m"], cost="ms", title="t"
    )
    assert len(missing.axes[0].lines) == 0


def test_files_are_written_and_the_page_is_made_without_torch(summary, tmp_path):
    assert [path.name for path in write(summary, tmp_path)] == ["report.html", "report.md", "rows.csv"]
    assert (tmp_path / "report.html").read_text("utf-8") == page(summary)
    with (tmp_path / "rows.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert lines[0] == {"set": "bottle", "seed": "0", "image_auroc": "0.851", "error": ""}
    assert lines[1]["error"] == 'Killed, by "x".'
    code = "import sys, anodiff.report.bench; print([n for n in ('torch', 'anodiff.metrics') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
