"""The distances between sets of features: against closed forms, torch-fidelity, and loops written out."""

import warnings

import numpy as np
import pytest
import torch

from anodiff.errors import ConfigError, DataError
from anodiff.metrics.generation import frechet, kid, named, nearest, precision_recall

ALL = [frechet, lambda a, b: kid(a, b, subset=5), precision_recall, lambda a, b: nearest(a, b, held=a + 1)]


def cloud(n, d, seed, *, shift=0.0, spread=1.0):
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(99).normal(size=(d, d)) / np.sqrt(d)
    return shift + spread * rng.normal(size=(n, d)) @ mix


def exactly(mean, covariance, n=400):
    """Rows whose sample mean and unbiased covariance are the given ones to the last digits."""
    d = len(mean)
    rows = np.random.default_rng(0).normal(size=(n, d))
    rows -= rows.mean(0)
    white = rows @ np.linalg.inv(np.linalg.cholesky(np.atleast_2d(np.cov(rows, rowvar=False)))).T
    return mean + white @ np.linalg.cholesky(covariance).T


def oracle(metric, first, second, **options):
    """torch-fidelity's answer to the same features."""
    fidelity = pytest.importorskip(
        "torch_fidelity", reason="torch-fidelity is the oracle: pip install 'anodiff[test]'"
    )
    from torch_fidelity import metric_fid, metric_kid, metric_prc

    del fidelity
    one, two = torch.from_numpy(first), torch.from_numpy(second)
    if metric == "fid":
        statistics = [metric_fid.fid_features_to_statistics(rows) for rows in (one, two)]
        return metric_fid.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    if metric == "kid":
        return metric_kid.kid_features_to_metric(one, two, verbose=False, **options)
    return metric_prc.prc_features_to_metric(one, two, verbose=False, **options)


# ------------------------------------------------------------------ Frechet distance


def test_frechet_of_two_gaussians_in_one_dimension():
    # (m1 - m2)^2 + (s1 - s2)^2
    first, second = exactly([1.0], np.array([[4.0]])), exactly([3.0], np.array([[0.25]]))
    assert frechet(first, second) == pytest.approx(2.0**2 + 1.5**2, abs=1e-12)


def test_frechet_of_gaussians_with_commuting_covariances():
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))[0]
    a, b = np.array([1.0, 2, 3, 4, 5]), np.array([5.0, 0.1, 2, 4, 1])
    first = exactly(np.zeros(5), (turn * a) @ turn.T)
    second = exactly(np.arange(5.0), (turn * b) @ turn.T)
    wanted = (np.arange(5.0) ** 2).sum() + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    assert frechet(first, second) == pytest.approx(wanted, rel=1e-11)


@pytest.mark.parametrize("d", [3, 20])
def test_frechet_is_torch_fidelitys(d):
    first, second = cloud(300, d, 0), cloud(200, d, 1, shift=0.3, spread=1.4)
    assert frechet(first, second) == pytest.approx(oracle("fid", second, first), rel=1e-9)


def test_frechet_is_a_distance():
    first, second = cloud(300, 6, 0), cloud(300, 6, 1, shift=0.5)
    assert frechet(first, first) == pytest.approx(0, abs=1e-12)
    assert frechet(first, second) == pytest.approx(frechet(second, first), rel=1e-10)
    assert frechet(first + 7, second + 7) == pytest.approx(frechet(first, second), rel=1e-8)


def test_too_few_samples_are_said_to_be_too_few_and_the_number_is_still_finite():
    first, second = cloud(500, 40, 0), cloud(20, 40, 1)
    with pytest.warns(UserWarning, match=r"20 generated samples with 40 features.*singular") as said:
        value = frechet(first, second)
    assert len(said) == 1  # the other set is large enough
    assert np.isfinite(value)
    # independent: tr (C1 C2)^(1/2) is the nuclear norm of the product of the centred rows
    rows = [(x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (first, second)]
    nuclear = np.linalg.svd(rows[0] @ rows[1].T, compute_uv=False).sum()
    shift = first.mean(0) - second.mean(0)
    wanted = shift @ shift + sum((x**2).sum() for x in rows) - 2 * nuclear
    assert value == pytest.approx(wanted, rel=1e-6)


def test_enough_samples_are_not_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frechet(cloud(41, 40, 0), cloud(41, 40, 1))


# ------------------------------------------------------------------ kernel distance


def test_kid_of_whole_sets_is_torch_fidelitys():
    # Subsets as large as the sets: no matter how rows are drawn, all are in.
    first, second = cloud(80, 7, 0), cloud(80, 7, 1, shift=0.4)
    theirs = oracle("kid", first, second, kid_subsets=2, kid_subset_size=80)
    ours = kid(first, second, subsets=2, subset=80)
    assert ours.mean == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-9)
    assert ours.deviation == pytest.approx(0, abs=1e-12)


def test_kid_is_its_sum_written_out():
    first, second = cloud(6, 3, 0), cloud(6, 3, 1, shift=1.0)

    def k(x, y):
        return (sum(x[i] * y[i] for i in range(3)) / 3 + 1) ** 3

    within = sum(k(s[i], s[j]) for s in (first, second) for i in range(6) for j in range(6) if i != j) / 30
    across = sum(k(x, y) for x in first for y in second) / 36
    assert kid(first, second, subsets=3, subset=6).mean == pytest.approx(within - 2 * across, rel=1e-12)


def test_kid_is_without_bias_at_any_count():
    same = [kid(cloud(60, 4, 2 * i), cloud(60, 4, 2 * i + 1), subsets=20, subset=30).mean for i in range(60)]
    assert abs(np.mean(same)) < 3 * np.std(same) / np.sqrt(60)
    assert min(same) < 0 < max(same)  # an estimate without bias of 0 falls on both sides


def test_kid_sees_a_shift_and_draws_by_seed():
    first, second = cloud(200, 5, 0), cloud(200, 5, 1, shift=1.0)
    found = kid(first, second, subset=100, seed=1)
    assert found.mean > 10 * found.deviation > 0
    assert found == kid(first, second, subset=100, seed=1) != kid(first, second, subset=100, seed=2)


# ------------------------------------------------------------------ precision and recall


@pytest.mark.parametrize("neighbours", [1, 3, 5])
def test_precision_and_recall_are_torch_fidelitys(neighbours):
    real, made = cloud(150, 6, 0), cloud(130, 6, 1, shift=0.5, spread=0.7)
    theirs = oracle("prc", made, real, prc_neighborhood=neighbours, prc_batch_size=50, save_cpu_ram=False)
    ours = precision_recall(real, made, neighbours=neighbours)
    assert (ours.precision, ours.recall) == pytest.approx((theirs["precision"], theirs["recall"]), abs=1e-7)
    assert 0 < ours.recall < ours.precision < 1  # narrower than the real law


def test_precision_is_fidelity_and_recall_diversity():
    real = np.concatenate([cloud(100, 4, 0), cloud(100, 4, 1, shift=40.0)])
    one_mode = cloud(100, 4, 2)
    both_and_rubbish = np.concatenate(
        [cloud(100, 4, 3), cloud(100, 4, 4, shift=40.0), cloud(200, 4, 5, shift=-90.0)]
    )
    lost = precision_recall(real, one_mode)
    wild = precision_recall(real, both_and_rubbish)
    assert lost.precision > 0.8
    assert lost.recall < 0.55
    assert wild.precision < 0.55
    assert wild.recall > 0.8


def test_more_points_than_a_block_are_all_counted():
    points = cloud(2100, 2, 0)
    assert precision_recall(points, points) == precision_recall(points, points[::-1])
    assert precision_recall(points, points).precision == 1.0


# ------------------------------------------------------------------ nearness to training


def test_nearest_is_its_loops_written_out():
    train, made, held = cloud(30, 4, 0), cloud(20, 4, 1), cloud(25, 4, 2)

    def least(rows):
        return [min(np.linalg.norm(x - t) for t in train) for x in rows]

    ours, theirs = least(made), least(held)
    found = nearest(train, made, held=held)
    assert (found.generated, found.held) == pytest.approx((np.median(ours), np.median(theirs)))
    assert found.ratio == pytest.approx(np.median(ours) / np.median(theirs))
    assert found.closer == pytest.approx(np.mean([[a < b for b in theirs] for a in ours]))


def test_copies_are_found_and_new_samples_are_not():
    train, held, fresh = (cloud(400, 5, seed) for seed in range(3))
    copies = train[:300] + 0.01 * cloud(300, 5, 7)
    assert nearest(train, copies, held=held).closer > 0.98
    assert nearest(train, copies, held=held).ratio < 0.2
    assert nearest(train, fresh, held=held).closer == pytest.approx(0.5, abs=0.06)
    assert nearest(train, held, held=held).closer == 0.5  # all ties


def test_held_out_rows_that_were_trained_on_say_nothing():
    train = cloud(40, 3, 0)
    with pytest.raises(DataError, match="held-out samples are training samples"):
        nearest(train, cloud(10, 3, 1), held=train[:20])


# ------------------------------------------------------------------ names and bad input


def test_names_carry_the_extractor_and_fid_is_inceptions_alone():
    assert named("FD", "lite0") == "FD[lite0]"
    assert named("FID", "inception") == "FID[inception]"
    with pytest.raises(ConfigError, match="call it FD"):
        named("FID", "lite0")


@pytest.mark.parametrize("metric", ALL)
def test_features_that_do_not_fit_are_refused(metric):
    good = cloud(10, 3, 0)
    spoilt = good.copy()
    spoilt[4, 1] = np.nan
    for bad, reason in [
        (good[:, :2], "one d"),
        (good[0], "one d"),
        (spoilt, "1 of 10 rows are not"),
        (good[:0], "at least"),
    ]:
        with pytest.raises(DataError, match=reason):
            metric(good, bad)


def test_counts_out_of_range_are_refused():
    few = cloud(8, 3, 0)
    with pytest.raises(DataError, match="subset=8 or less"):
        kid(few, few)
    with pytest.raises(ConfigError, match="subsets >= 1"):
        kid(few, few, subsets=0)
    with pytest.raises(ConfigError, match="neighbours"):
        precision_recall(few, few, neighbours=0)
    with pytest.raises(DataError, match="at least 4"):
        precision_recall(few[:3], few)
