from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_curve

from anodiff.errors import DataError
from anodiff.report.case import Case, flagged, pick_cases, role_of, threshold_of, tidy
from anodiff.report.curve import curves_of, kind_auroc, operating_point, thinned


def test_the_lowest_defective_and_the_highest_good_are_picked(predictions):
    picked = pick_cases(predictions, 2)
    scored = predictions[predictions["error"].isna()]
    good, bad = scored[scored["label"] == 0]["score"], scored[scored["label"] == 1]["score"]
    by_role = picked.groupby("role")["score"].apply(lambda s: sorted(s))
    assert by_role["weakest_defective"] == sorted(bad)[:2]
    assert by_role["strongest_good"] == sorted(good)[-2:]
    assert by_role["clearest_defective"] == sorted(bad)[-2:]
    assert picked["path"].is_unique
    assert set(predictions.columns) < set(picked.columns)
    assert picked.index.isin(predictions.index).all()


def test_no_picture_is_picked_twice_and_no_failed_one(predictions):
    picked = pick_cases(predictions, 100)
    assert picked["path"].is_unique
    assert len(picked) == len(predictions) - 1
    assert "test/stain/broken.png" not in set(picked["path"])


def test_picking_does_not_depend_on_the_order_or_the_index(predictions):
    tied = predictions.assign(score=predictions["score"].round(1))
    shuffled = tied.sample(frac=1, random_state=1)
    shuffled.index = [0] * len(shuffled)
    assert pick_cases(tied)["path"].tolist() == pick_cases(shuffled)["path"].tolist()


def test_without_labels_the_two_ends_are_picked():
    table = pd.DataFrame({"path": list("abcdef"), "score": [5, 1, 4, 2, 6, 3]})
    picked = pick_cases(table, 2)
    assert picked[picked["role"] == "highest"]["path"].tolist() == ["e", "a"]
    assert picked[picked["role"] == "lowest"]["path"].tolist() == ["b", "d"]


@pytest.mark.parametrize("table", [pd.DataFrame(), pd.DataFrame(columns=["path", "score", "label"])])
def test_an_empty_table_gives_no_case(table):
    assert len(pick_cases(table)) == 0
    assert len(tidy(table)) == 0


def test_a_score_that_is_no_number_is_an_error_row():
    table = tidy(pd.DataFrame({"path": ["a", "b", "c"], "score": [1.0, np.nan, np.inf]}))
    assert (table.error == "").tolist() == [True, False, False]
    assert table.done.path.tolist() == ["a"]


def test_labels_are_zero_one_or_empty():
    table = tidy(pd.DataFrame({"score": [1, 2, 3, 4, 5], "label": [0, True, "1", None, ""]}))
    np.testing.assert_array_equal(table.label, [0, 1, 1, np.nan, np.nan])
    assert table.kind.tolist() == ["good", "defective", "defective", "not labelled", "not labelled"]
    with pytest.raises(DataError, match=r"expected 0 \(good\), 1 \(defective\) or empty, found 'bad'"):
        tidy(pd.DataFrame({"score": [1], "label": ["bad"]}))


def test_nullable_columns_are_read():
    table = tidy(pd.DataFrame({"score": [1.0, 2.0], "label": pd.array([1, None], dtype="Int64")}))
    np.testing.assert_array_equal(table.label, [1, np.nan])


def test_a_score_equal_to_the_threshold_is_no_alarm():
    assert flagged(np.array([0.4, 0.5, 0.6]), 0.5).tolist() == [False, False, True]
    assert not flagged(np.array([np.inf, 1.0]), None).any()


def test_the_threshold_is_read_from_the_predictions(report):
    assert threshold_of(replace(report, threshold=None)) == 0.5
    two = report.predictions.assign(threshold=range(len(report.predictions)))
    assert threshold_of(replace(report, threshold=None, predictions=two)) is None
    assert threshold_of(replace(report, threshold=float("nan"))) is None


def test_roles_are_known_words():
    case = Case("a", np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2)), 1.0, role="best")
    with pytest.raises(DataError, match="expected a role"):
        role_of(case, {})
    assert role_of(replace(case, role=None), {"a": "lowest"}) == "lowest"
    assert role_of(replace(case, role=None), {}) == "highest"


def test_curves_are_those_given_or_those_of_the_scores(report):
    table = tidy(report.predictions).labelled
    fpr, tpr, _ = roc_curve(table.label, table.score)
    x, y = curves_of(report)["roc"]
    np.testing.assert_array_equal(x, fpr)
    np.testing.assert_array_equal(y, tpr)
    given = pd.DataFrame(
        {"curve": ["image_roc"] * 3 + ["pro"] * 2, "x": [0, 0.5, 1, 0, 0.3], "y": [0, np.nan, 1, 0, 1]}
    )
    curves = curves_of(replace(report, curves=given))
    assert set(curves) == {"roc", "pro"}
    assert curves["roc"][0].tolist() == [0, 1]
    with pytest.raises(DataError, match="missing y"):
        curves_of(replace(report, curves=given.drop(columns="y")))


def test_one_class_has_no_curve(report):
    good = report.predictions[report.predictions["label"] == 0]
    assert curves_of(replace(report, predictions=good)) == {}
    assert operating_point(tidy(good), 0.5) is None


def test_the_operating_point_counts_pictures(report):
    table = tidy(report.predictions)
    done = table.labelled
    fpr, tpr = operating_point(table, 0.5)  # pyright: ignore[reportGeneralTypeIssues]
    assert fpr == sum(s > 0.5 for s, y in zip(done.score, done.label, strict=True) if y == 0) / 12
    assert tpr == sum(s > 0.5 for s, y in zip(done.score, done.label, strict=True) if y == 1) / 14


def test_the_auroc_of_a_kind_is_the_share_of_pairs_won(predictions):
    table = tidy(predictions)
    done = table.labelled
    good = done.score[done.label == 0]
    pairs = [(b > g) + 0.5 * (b == g) for b in done.score[done.kind == "scratch"] for g in good]
    assert kind_auroc(table, "scratch") == pytest.approx(np.mean(pairs), abs=1e-12)
    assert np.isnan(kind_auroc(table, "good"))


def test_thinning_keeps_the_ends_and_the_shape():
    x = np.linspace(0, 1, 20001)
    y = np.sqrt(x)
    short = thinned(x, y, points=200)
    assert len(short[0]) <= 202
    assert (short[0][0], short[0][-1]) == (0, 1)
    assert np.abs(np.interp(x, *short) - y).max() < 5e-3
