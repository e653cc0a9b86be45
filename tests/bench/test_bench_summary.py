"""From cells on disk to a summary: figures are those of the files, one bad cell takes nothing from the others."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from made_bench import FAILED, METHODS, REFUSED, SEEDS, SETS, make_bench
from sklearn.metrics import roc_auc_score

from anodiff.bench.finding import findings
from anodiff.bench.summary import summarise
from anodiff.errors import DataError
from anodiff.metrics.paired import paired
from anodiff.report.bench_summary import Summary

DRAWS = 400


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module")
def summary(folder: Path) -> Summary:
    return summarise(folder, draws=DRAWS)


def table(folder: Path, name: str, method: str) -> tuple[np.ndarray, np.ndarray]:
    """Scores [seeds, n] and labels [n] of a method, read anew."""
    cells = [cell for cell in findings(folder) if (cell.set, cell.method) == (name, method) and cell.scores]
    tables = [cell.scores or {} for cell in cells]
    paths = sorted(tables[0])
    return (
        np.array([[scores[path][1] for path in paths] for scores in tables]),
        np.array([tables[0][path][0] for path in paths]),
    )


def change(folder: Path, name: str, method: str, seed: int, **parts: object) -> None:
    path = folder / "cells" / name / method / f"seed{seed}" / "cell.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | parts))


def test_what_was_planned_and_what_came(summary):
    assert (summary.name, summary.done, summary.total) == ("made-up", 34, 36)
    assert (tuple(summary.sets), tuple(summary.methods)) == (tuple(SETS), tuple(METHODS))  # order of the file
    assert tuple(summary.seeds) == SEEDS
    troubles = {(t.set, t.method, t.seed): t for t in summary.troubles}
    assert set(troubles) == {FAILED, REFUSED}
    assert "9 GB" in troubles[FAILED].error
    assert troubles[REFUSED].status == "refused"


def test_mean_and_deviation_are_those_of_the_scores(folder, summary):
    for standing in summary.standings:
        scores, labels = table(folder, standing.set, standing.method)
        each = [roc_auc_score(labels, row) for row in scores]
        spread = standing.metrics["image_auroc"]
        assert (spread.mean, spread.sd) == pytest.approx((np.mean(each), np.std(each, ddof=1)))
        assert (spread.seeds, spread.n) == (len(each), SETS[standing.set])
        assert spread.low <= spread.mean <= spread.high


def test_a_pair_is_that_of_the_paired_bootstrap(folder, summary):
    for pair in summary.pairs:
        first, labels = table(folder, pair.set, pair.first)
        second, _ = table(folder, pair.set, pair.second)
        exact = paired(first, second, labels, draws=3000, seed=5)
        assert pair.value == pytest.approx(exact.value)
        assert pair.value >= 0
        assert (pair.low, pair.high) == pytest.approx((exact.low, exact.high), abs=0.03)
        assert pair.adjusted >= max(pair.p, pair.p_seeds) - 1e-12
    assert len(summary.pairs) == 3 * 6


def test_bold_is_the_best_and_what_cannot_be_told_from_it(summary):
    for name in SETS:
        own = {s.method: s for s in summary.standings if s.set == name}
        top = max(own, key=lambda method: own[method].metrics["image_auroc"].mean)
        lost = {
            pair.second for pair in summary.pairs if (pair.set, pair.first) == (name, top) and pair.distinct
        }
        assert {method for method, s in own.items() if s.best} == set(own) - lost
        assert "thumbnails" in lost


def test_wins_ties_and_losses_count_sets(summary):
    assert len(summary.matches) == 6
    for match in summary.matches:
        assert match.wins + match.ties + match.losses == 3
        assert match.value >= 0
        assert match.low <= match.value <= match.high
    lead = next(m for m in summary.matches if {m.first, m.second} == {"features", "thumbnails"})
    assert (lead.first, lead.wins, lead.losses) == ("features", 3, 0)


def test_the_mean_over_sets_is_narrower_than_a_set(summary):
    for method, spread in summary.overall.items():
        own = [s.metrics["image_auroc"] for s in summary.standings if s.method == method]
        assert spread.mean == pytest.approx(np.mean([one.mean for one in own]))
        assert spread.high - spread.low < max(one.high - one.low for one in own)


def test_families_are_compared_with_the_best_without_diffusion(summary):
    rows = {(row.set, row.family): row for row in summary.contributions}
    for name in SETS:
        own = {s.method: s.metrics["image_auroc"].mean for s in summary.standings if s.set == name}
        row = rows[name, "pixel DDPM"]
        assert (row.method, row.baseline) == ("pixels", "patchcore")
        assert row.value == pytest.approx(own["pixels"] - own["patchcore"])
        assert row.low < row.value < row.high
        assert rows[name, "none"].baseline is None


def test_lines_over_steps_and_costs(summary):
    over = {trade.method: trade for trade in summary.trades[""]}
    assert [step.evaluations for step in over["pixels"].steps] == [1, 5, 20]
    assert over["patchcore"].here.evaluations == 0
    assert over["features"].steps == []
    cost = next(cost for cost in summary.costs if cost.method == "pixels")
    assert cost.values["ms_p50"].low < cost.values["ms_p50"].median < cost.values["ms_p50"].high
    assert "gflops_per_image" not in next(c for c in summary.costs if c.method == "patchcore").values


def test_every_cell_is_a_row(folder, summary):
    rows = {(row["set"], row["method"], row["seed"]): row for row in summary.rows}
    assert len(rows) == len(summary.rows) == 36
    done = rows["bottle", "pixels", 0]
    record = json.loads((folder / "cells/bottle/pixels/seed0/cell.json").read_text())
    assert done["image_auroc_low"] == record["metrics"]["image_auroc"]["low"]
    assert (done["ms_p50"], done["FD[lite0]"]) == (
        record["cost"]["ms_p50"],
        record["generation"]["FD[lite0]"],
    )
    assert (done["commit"], done["family"]) == ("e503bd0", "pixel DDPM")
    assert "9 GB" in rows[FAILED]["error"]


def test_leaks_and_few_samples_are_notes(summary):
    assert [leak.set for leak in summary.leaks if leak.found] == ["magnetic_tile"]
    text = " ".join(summary.notes)
    assert "magnetic_tile leaks. The same tile stands on both sides" in text
    assert "Too few samples" in text
    assert len(summary.notes) == 2


def test_the_figures_of_a_set_do_not_depend_on_the_others(summary, tmp_path):
    made = make_bench(tmp_path / "bench")
    for path in made.glob("cells/kolektor/*/*/*"):
        path.unlink()
    fewer = summarise(made, draws=DRAWS)
    assert list(fewer.pairs) == [p for p in summary.pairs if p.set != "kolektor"]
    assert list(fewer.standings) == [s for s in summary.standings if s.set != "kolektor"]


def test_a_damaged_cell_takes_nothing_from_the_others(tmp_path):
    made = make_bench(tmp_path / "bench")
    (made / "cells/bottle/features/seed1/cell.json").write_text('{"set": "bottle"')
    (made / "cells/bottle/thumbnails/seed2/predictions.csv").write_text("path,label,defect,score\na,0,,x\n")
    found = summarise(made, draws=DRAWS)
    assert (found.done, found.total) == (32, 36)
    broken = {(t.set, t.method, t.seed) for t in found.troubles} - {FAILED, REFUSED}
    assert broken == {("bottle", "features", 1), ("bottle", "thumbnails", 2)}
    standing = found.standing("bottle", "features")
    assert standing is not None
    assert standing.metrics["image_auroc"].seeds == 2


def test_a_figure_that_is_not_that_of_its_scores_is_told(tmp_path):
    made = make_bench(tmp_path / "bench")
    change(
        made,
        "bottle",
        "patchcore",
        0,
        metrics={"image_auroc": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 40}},
    )
    assert any(
        "patchcore, seed 0: cell.json says an image AUROC of 0.5000" in n
        for n in summarise(made, draws=DRAWS).notes
    )


def test_pictures_that_a_cell_could_not_score_are_left_out_of_all(tmp_path):
    made = make_bench(tmp_path / "bench")
    path = made / "cells/bottle/patchcore/seed0/predictions.csv"
    lines = path.read_text().splitlines()
    lines[5] = lines[5].rpartition(",")[0] + ","
    path.write_text("\n".join(lines) + "\n")
    found = summarise(made, draws=DRAWS)
    assert {pair.n for pair in found.pairs if pair.set == "bottle"} == {39}
    assert any("bottle: methods are compared on the 39 pictures" in note for note in found.notes)


def test_labels_that_changed_between_runs_are_refused(tmp_path):
    made = make_bench(tmp_path / "bench")
    path = made / "cells/bottle/patchcore/seed0/predictions.csv"
    path.write_text(path.read_text().replace("test/000.png,0", "test/000.png,1"))
    with pytest.raises(DataError, match=r"test/000\.png of bottle has another label in patchcore, seed 0"):
        summarise(made, draws=DRAWS)


def test_one_method_with_one_seed(tmp_path):
    made = make_bench(tmp_path / "bench")
    for path in made.glob("cells/*/*/seed*/*"):
        if "bottle/features/seed0" not in path.as_posix():
            path.unlink()
    (made / "bench.yaml").unlink()
    (made / "audit.json").unlink()
    found = summarise(made, draws=DRAWS)
    spread = found.standings[0].metrics["image_auroc"]
    assert math.isnan(spread.sd)
    assert spread.low < spread.mean <= spread.high
    assert not found.standings[0].best
    assert (found.pairs, found.overall, found.leaks, found.name) == ([], {}, [], "bench")


def test_a_folder_without_cells_is_refused(tmp_path):
    with pytest.raises(DataError, match="Run `anodiff bench"):
        summarise(tmp_path)
