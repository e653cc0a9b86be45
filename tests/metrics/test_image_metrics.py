import numpy as np
import pytest
import slow
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from anodiff.errors import DataError
from anodiff.metrics import image

METRICS = [
    image.image_auroc,
    image.image_ap,
    image.image_f1max,
    image.fpr95,
    image.overkill_at_zero_escapes,
]


def both_kinds(seed, size=60, levels=None):
    rng = np.random.default_rng(seed)
    labels = rng.random(size) < 0.4
    labels[:2] = (False, True)
    scores = rng.normal(size=size) + labels
    return (np.round(scores * levels) if levels else scores), labels


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=40))
def test_every_metric_equals_its_slow_twin_and_sklearn_with_ties(pairs):
    scores = np.array([s for s, _ in pairs], dtype=float)
    labels = np.array([b for _, b in pairs])
    assume(0 < labels.sum() < len(labels))
    assert image.image_auroc(scores, labels) == pytest.approx(slow.auroc(scores, labels), abs=1e-12)
    assert image.image_auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert image.image_ap(scores, labels) == pytest.approx(slow.average_precision(scores, labels), abs=1e-12)
    assert image.image_ap(scores, labels) == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    assert image.image_f1max(scores, labels) == pytest.approx(slow.f1max(scores, labels), abs=1e-12)
    assert image.fpr95(scores, labels) == pytest.approx(slow.fpr_at_tpr(scores, labels, 95), abs=1e-12)
    overkill = image.overkill_at_zero_escapes(scores, labels)
    assert overkill == pytest.approx(slow.fpr_at_tpr(scores, labels, 100), abs=1e-12)
    assert overkill == pytest.approx((scores[~labels] >= scores[labels].min()).mean(), abs=1e-12)


@pytest.mark.parametrize("bad", [20, 40, 60, 140, 1000])
def test_fpr95_needs_exactly_95_percent_and_not_one_more(bad):
    # bad parts score bad, bad-1, ..., 1; one good part sits just below the 95th percentile's part
    needed = 95 * bad // 100
    scores = np.append(np.arange(bad, 0, -1.0), bad - needed + 0.5)
    labels = np.append(np.ones(bad, bool), False)
    assert image.fpr95(scores, labels) == 0.0
    scores[-1] += 1.0  # now above the last part needed
    assert image.fpr95(scores, labels) == 1.0


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    "change",
    [lambda s: 1e6 * s + 37.0, lambda s: 1e-9 * s - 5e-10, lambda s: np.exp(5 * s), lambda s: s - 100],
)
def test_only_the_order_of_scores_matters_so_no_sigmoid_is_hidden(metric, change):
    scores, labels = both_kinds(3)
    assert metric(change(scores), labels) == pytest.approx(metric(scores, labels), abs=1e-12)


def test_large_scores_do_not_saturate():
    scores, labels = np.array([100.0, 101.0, 102.0, 103.0]), np.array([0, 0, 1, 1])
    assert image.image_auroc(scores, labels) == 1.0  # a sigmoid makes four ones of these, and .5 of the AUROC


def test_order_of_pictures_does_not_matter():
    scores, labels = both_kinds(5, levels=2)
    mixed = np.random.default_rng(0).permutation(scores.size)
    for metric in METRICS:
        assert metric(scores[mixed], labels[mixed]) == pytest.approx(metric(scores, labels), abs=1e-12)


def test_perfect_constant_and_inverted_scores():
    labels = np.array([0, 0, 0, 1, 1])
    perfect, constant, inverted = np.arange(5.0), np.ones(5), -np.arange(5.0)
    assert [m(perfect, labels) for m in METRICS] == [1.0, 1.0, 1.0, 0.0, 0.0]
    assert [m(constant, labels) for m in METRICS] == pytest.approx([0.5, 0.4, 4 / 7, 1.0, 1.0])
    assert image.image_auroc(inverted, labels) == 0.0
    assert image.overkill_at_zero_escapes(inverted, labels) == 1.0


def test_f1max_threshold_reaches_f1max():
    scores, labels = both_kinds(7, levels=3)
    called = scores >= image.f1max_threshold(scores, labels)
    f1 = 2 * (called & labels).sum() / (called.sum() + labels.sum())
    assert f1 == pytest.approx(image.image_f1max(scores, labels), abs=1e-12)
    precision, recall, _ = precision_recall_curve(labels, scores)
    assert f1 == pytest.approx(np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12)))


def test_curves_run_from_nothing_to_everything_and_hold_the_areas():
    scores, labels = both_kinds(11)
    fpr, tpr, threshold = image.roc(scores, labels)
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(tpr, fpr) == pytest.approx(image.image_auroc(scores, labels))
    assert (np.diff(threshold) < 0).all()
    recall, precision, threshold = image.pr(scores, labels)
    assert (recall[0], precision[0], recall[-1]) == (0, 1, 1)
    assert (np.diff(recall) * precision[1:]).sum() == pytest.approx(image.image_ap(scores, labels))
    assert recall.shape == precision.shape == threshold.shape


@pytest.mark.parametrize("metric", [*METRICS, image.roc, image.pr, image.f1max_threshold])
@pytest.mark.parametrize(
    ("scores", "labels", "says"),
    [
        ([0.1, np.nan, 0.3], [0, 1, 1], "score 1 is nan"),
        ([0.1, 0.2, np.inf], [0, 1, 1], "score 2 is inf"),
        ([0.1, 0.2], [0, 1, 1], "one score and one label"),
        ([0.1, 0.2, 0.3], [0, 1, 2], "0 \\(good\\) or 1 \\(bad\\)"),
        ([0.1, 0.2, 0.3], [0, 0, 0], "3 good and 0 bad"),
        ([0.1, 0.2, 0.3], [1, 1, 1], "0 good and 3 bad"),
        ([], [], "0 good and 0 bad"),
    ],
)
def test_what_cannot_be_ranked_is_refused_with_a_sentence(metric, scores, labels, says):
    with pytest.raises(DataError, match=says):
        metric(scores, labels)
