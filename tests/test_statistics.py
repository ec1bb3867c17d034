"""Bootstrap, p-values and Holm's correction against plain draws and cases worked by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from movierec.statistics import (
    bootstrap_interval,
    holm,
    intervals,
    paired_difference,
    paired_p,
    resampled_means,
)

seeds = given(st.integers(0, 10_000))
few = settings(max_examples=15, deadline=None)


def same(ours, expected):
    np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-9)


def test_intervals_have_their_level():
    """Of 300 samples of 300 users, about 95 % have the true mean in their interval."""
    samples = (np.random.default_rng(0).random((300, 300)) < 0.3).astype(float)
    bounds = intervals(resampled_means(samples, 400, seed=1))
    covered = (bounds[:, 0] <= 0.3) & (bounds[:, 1] >= 0.3)
    assert 0.90 <= covered.mean() <= 0.99


def test_the_same_whatever_the_chunks(monkeypatch):
    """Resamples that come in chunks, to save memory, give the same numbers as one draw of them all."""
    values, seed = np.random.default_rng(0).random(1_001), 3
    monkeypatch.setattr("movierec.statistics._DRAWS_AT_A_TIME", 30 * len(values))
    draws = np.random.default_rng(seed).integers(0, len(values), (100, len(values)), dtype=np.int32)
    expected = np.quantile(values[draws].mean(axis=1), [0.025, 0.975])
    assert bootstrap_interval(values, resamples=100, seed=seed) == pytest.approx(expected, abs=1e-12)
    other_seed = bootstrap_interval(values, resamples=100, seed=4)
    assert bootstrap_interval(values, resamples=100, seed=seed) != other_seed


def test_impossible_requests_are_errors():
    with pytest.raises(ValueError, match="same users"):
        paired_difference(np.ones(3), np.ones(4))
    with pytest.raises(ValueError, match="no users to draw from"):
        bootstrap_interval(np.array([]))


def test_paired_difference_sees_what_intervals_hide():
    rng = np.random.default_rng(0)
    base = rng.random(500)
    mean, low, high = paired_difference(base + 0.01 + rng.normal(0, 0.01, 500), base)
    assert 0 < low < mean < high and mean == pytest.approx(0.01, abs=0.002)


def with_gaps(seed, n=70, m=9):
    rng = np.random.default_rng(seed)
    values = rng.random((n, m)).astype(np.float32)
    values[:, 3:5][rng.random(n) < 0.5] = np.nan  # two columns of one segment
    values[rng.random((n, m)) < rng.random(m) * [0, 0, 0, 0, 0, 1, 1, 1, 1]] = np.nan
    return values


@seeds
@few
def test_resampled_means_against_plain_draws(seed):
    values = with_gaps(seed)
    rng, means = np.random.default_rng(seed), resampled_means(values, 40, seed)
    for row in means:
        drawn = values[rng.integers(0, len(values), len(values), dtype=np.int32)].astype(float)
        sizes = (~np.isnan(drawn)).sum(axis=0)
        expected = np.nansum(drawn, axis=0) / np.where(sizes, sizes, np.nan)
        np.testing.assert_allclose(row, expected, rtol=0, atol=1e-12)


def test_resampled_means_of_more_users_than_a_block():
    values = np.random.default_rng(0).random((5_001, 3))
    values[2_500:, 1] = np.nan
    drawn = values[np.random.default_rng(7).integers(0, 5_001, (30, 5_001), dtype=np.int32)]
    np.testing.assert_allclose(resampled_means(values, 30, 7), np.nanmean(drawn, axis=1), rtol=0, atol=1e-12)


def test_a_column_is_the_same_alone_and_among_others():
    values = with_gaps(1)
    together = intervals(resampled_means(values, 200, 5), 0.9)
    alone = [bootstrap_interval(column, 0.9, 200, 5) for column in values.T[:3]]
    np.testing.assert_allclose(together[:3], alone, rtol=0, atol=1e-12)
    means = resampled_means(values, 200, 5)
    difference = paired_difference(values[:, 0].astype(float), values[:, 2].astype(float), 0.9, 200, 5)
    np.testing.assert_allclose(intervals(means[:, [0]] - means[:, [2]], 0.9)[0], difference[1:], rtol=0, atol=1e-12)


def test_a_small_segment_is_missing_from_some_resamples():
    values = np.full((20, 2), np.nan)
    values[0, 0] = 0.7
    means = resampled_means(values, 300, 0)
    assert 60 < np.isnan(means[:, 0]).sum() < 160  # (1 − 1/20)^20 = 36 % of 300
    assert np.isnan(means[:, 1]).all()
    bounds = intervals(means)
    same(bounds[0], [0.7, 0.7])
    assert np.isnan(bounds[1]).all() and np.isnan(paired_p(means)[1])


def test_p_values_agree_with_intervals():
    rng = np.random.default_rng(0)
    differences = resampled_means(rng.normal(0.0, 1, (400, 60)) + np.linspace(-0.2, 0.2, 60), 999)
    p, bounds = paired_p(differences), intervals(differences)
    outside = (bounds[:, 0] > 0) | (bounds[:, 1] < 0)
    clear = np.abs(p - 0.05) > 0.004  # quantiles are interpolated between resamples
    assert (outside == (p < 0.05))[clear].all() and 10 < outside.sum() < 50


def test_p_values_by_hand():
    column = np.array([1, 2, 3, -1, np.nan, 5, 6, 7, 8, 9])  # one of nine on the other side
    assert paired_p(column[:, None]).tolist() == [2 * (1 + 1) / (9 + 1)]
    assert paired_p(-column[:, None]).tolist() == [2 * (1 + 1) / (9 + 1)]
    assert paired_p(np.zeros((9, 1))).tolist() == [1]
    assert paired_p(np.ones((999, 1))).tolist() == [2 / 1_000]
    assert paired_p(np.full((9, 1), 1e-17)).tolist() == [1]  # a difference of zero, but for rounding


def test_holm_by_hand():
    same(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    same(holm(np.array([0.5, np.nan, 0.02, 0.9])), [1, np.nan, 0.06, 1])
    assert holm(np.array([])).shape == (0,) and np.isnan(holm(np.array([np.nan]))).all()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
@settings(max_examples=50, deadline=None)
def test_holm_lies_between_no_correction_and_bonferroni(p):
    p = np.array(p)
    adjusted = holm(p)
    assert (adjusted >= p).all() and (adjusted <= np.minimum(p * len(p), 1)).all()
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all() and adjusted.min() == min(p.min() * len(p), 1)


def test_users_are_drawn_with_all_of_their_rows():
    """Against draws of whole users by hand, with missing values and users of different sizes."""
    rng = np.random.default_rng(5)
    clusters = rng.integers(0, 30, 200) * 3
    values = rng.normal(size=(200, 4)) + clusters[:, None] / 50
    values[rng.random(values.shape) < 0.2] = np.nan
    values[:, 2] = np.where(clusters < 40, np.nan, values[:, 2])
    means = resampled_means(values, 50, 9, clusters)
    users, draws = np.unique(clusters), np.random.default_rng(9)
    for row in means:
        drawn = users[draws.integers(0, len(users), len(users), dtype=np.int32)]
        rows = np.concatenate([np.flatnonzero(clusters == user) for user in drawn])
        np.testing.assert_allclose(row, np.nanmean(values[rows], axis=0), rtol=0, atol=1e-12)


def test_clusters_of_one_row_are_users():
    values = np.random.default_rng(1).normal(size=(50, 3))
    clustered = resampled_means(values, 30, 2, np.arange(50))
    np.testing.assert_allclose(clustered, resampled_means(values, 30, 2), atol=1e-14)


def test_rows_that_resemble_each_other_tell_less():
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(40), 25)
    values = np.repeat(rng.normal(size=40), 25) + rng.normal(0, 0.1, 1000)
    low, high = bootstrap_interval(values)
    wide_low, wide_high = bootstrap_interval(values, clusters=clusters)
    assert wide_high - wide_low > 3 * (high - low)
