"""Metrics against hand-worked cases, plain loops, trec_eval (through pytrec_eval), scipy and scikit-learn."""

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.stats import entropy, rankdata
from sklearn.metrics.pairwise import cosine_similarity

from movierec.metrics import (
    METRICS,
    coverage,
    genre_diversity,
    genre_miscalibration,
    gini,
    hits,
    item_tiers,
    novelty,
    popularity_lift,
    popularity_percentile,
    serendipity,
    times_shown,
    user_metrics,
)
from movierec.statistics import (
    bootstrap_interval,
    holm,
    intervals,
    paired_difference,
    paired_p,
    resampled_means,
)

EMPTY = np.array([[-1, -1, -1]])


def random_case(rng, n_users=40, n_items=60, k=20):
    """Lists of different lengths, also empty ones, and one to thirty relevant items each."""
    ranked = np.full((n_users, k), -1)
    for row in ranked:
        length = rng.integers(0, k + 1)
        row[:length] = rng.permutation(n_items)[:length]
    relevant = sparse.csr_matrix(np.stack([np.isin(np.arange(n_items), rng.permutation(n_items)[: rng.integers(1, 30)]) for _ in range(n_users)]).astype(float))
    return ranked, relevant


def test_against_trec_eval():
    ranked, relevant = random_case(np.random.default_rng(0))
    qrel = {str(u): {str(i): 1 for i in relevant[[u]].indices} for u in range(len(ranked))}
    run = {str(u): {str(i): 1.0 / (r + 1) for r, i in enumerate(row) if i >= 0} for u, row in enumerate(ranked)}
    theirs = pytrec_eval.RelevanceEvaluator(qrel, {"recall.5,10,20", "ndcg_cut.5,10,20", "success.5,10,20", "map_cut.5,10,20", "recip_rank"}).evaluate(run)
    ours = user_metrics(ranked, relevant, (5, 10, 20))
    for u in range(len(ranked)):
        expected = theirs.get(str(u), {})
        for k in (5, 10, 20):
            for mine, name in (("recall", "recall"), ("ndcg", "ndcg_cut"), ("hit_rate", "success"), ("map", "map_cut")):
                assert ours[f"{mine}@{k}"][u] == pytest.approx(expected.get(f"{name}_{k}", 0), abs=1e-9)
        assert ours["mrr@20"][u] == pytest.approx(expected.get("recip_rank", 0), abs=1e-9)


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_against_a_plain_loop(seed):
    ranked, relevant = random_case(np.random.default_rng(seed), n_users=8)
    ours = user_metrics(ranked, relevant, (3, 10))
    for u, row in enumerate(ranked):
        wanted = set(relevant[[u]].indices.tolist())
        for k in (3, 10):
            found = [rank for rank, item in enumerate(row[:k], 1) if item in wanted]
            ideal = sum(1 / np.log2(rank + 1) for rank in range(1, min(k, len(wanted)) + 1))
            assert ours[f"recall@{k}"][u] == pytest.approx(len(found) / len(wanted))
            assert ours[f"truncated_recall@{k}"][u] == pytest.approx(len(found) / min(k, len(wanted)))
            assert ours[f"ndcg@{k}"][u] == pytest.approx(sum(1 / np.log2(rank + 1) for rank in found) / ideal)
            assert ours[f"mrr@{k}"][u] == pytest.approx(1 / found[0] if found else 0)
            assert ours[f"hit_rate@{k}"][u] == bool(found)
            assert ours[f"map@{k}"][u] == pytest.approx(sum(n / rank for n, rank in enumerate(found, 1)) / len(wanted))


def test_a_perfect_list_scores_one_and_an_empty_one_zero():
    relevant = sparse.csr_matrix(np.array([[1, 1, 1, 0], [1, 1, 1, 0]]))
    values = user_metrics(np.array([[2, 0, 1], [-1, -1, -1]]), relevant, (2, 3))
    for name, value in values.items():
        assert value[0] == (pytest.approx(2 / 3) if name in ("recall@2", "map@2") else pytest.approx(1)), name
        assert value[1] == 0, name


def test_every_metric_at_every_cutoff():
    ranked, relevant = random_case(np.random.default_rng(0))
    assert list(user_metrics(ranked, relevant, (3, 10))) == [f"{name}@{k}" for k in (3, 10) for name in METRICS]


def test_hits_need_no_sorted_rows_and_no_relevant_items():
    unsorted = sparse.csr_matrix((np.ones(3), np.array([4, 0, 2]), np.array([0, 3, 3])), shape=(2, 5))
    lists = np.array([[0, 1, 2, -1], [4, 0, 2, -1]])
    assert hits(lists, unsorted).tolist() == [[True, False, True, False], [False] * 4]
    assert unsorted.indices.tolist() == [4, 0, 2]  # what is judged stays as it was
    assert not hits(lists, sparse.csr_matrix((2, 5))).any()
    assert hits(np.empty((0, 3), int), sparse.csr_matrix((0, 5))).shape == (0, 3)


def test_padding_is_not_the_last_item_of_the_user_before():
    relevant = sparse.csr_matrix(np.array([[0, 0, 1], [1, 0, 0]]))
    assert not hits(np.array([[0, 1], [-1, -1]]), relevant).any()


def test_impossible_requests_are_errors():
    relevant = sparse.csr_matrix(np.array([[1, 0], [0, 0]]))
    with pytest.raises(ValueError, match="lists of 2 can't be judged at 3"):
        user_metrics(np.array([[0, 1]]), relevant[:1], (3,))
    with pytest.raises(ValueError, match="without a relevant item"):
        user_metrics(np.array([[0, 1], [0, 1]]), relevant, (2,))
    with pytest.raises(ValueError, match="same users"):
        paired_difference(np.ones(3), np.ones(4))
    with pytest.raises(ValueError, match="no users to draw from"):
        bootstrap_interval(np.array([]))


def test_lists_of_other_users_or_another_catalogue_are_errors():
    """Indices beyond the catalogue would be read as another user's items, or as memory beyond an array."""
    rows, genres, counts = sparse.csr_matrix(np.ones((2, 3))), sparse.csr_matrix(np.ones((3, 2))), np.ones(3, int)
    for evaluate_system in (lambda lists: hits(lists, rows), lambda lists: user_metrics(lists, rows, (1,)),
                  lambda lists: serendipity(lists, rows, lists, 1), lambda lists: genre_miscalibration(lists, rows, genres, 1),
                  lambda lists: popularity_lift(lists, rows, counts, 1)):
        for users in (1, 3):
            with pytest.raises(ValueError, match=f"lists of {users} users can't be judged by what is known of 2"):
                evaluate_system(np.zeros((users, 1), int))
        with pytest.raises(ValueError, match="item 3 is not one of the 3"):
            evaluate_system(np.array([[0], [3]]))
    for evaluate_system in (lambda lists: novelty(lists, counts, 5, 1), lambda lists: genre_diversity(lists, genres, 1), lambda lists: gini(lists, counts > 0, 1)):
        with pytest.raises(ValueError, match="item 3 is not one of the 3"):
            evaluate_system(np.array([[0], [3]]))
    for evaluate_system in (lambda lists: novelty(lists, counts, 5, 2), lambda lists: genre_diversity(lists, genres, 2), lambda lists: gini(lists, counts > 0, 2),
                  lambda lists: serendipity(np.zeros((2, 2), int), rows, lists, 2), lambda lists: serendipity(lists, rows, np.zeros((2, 2), int), 2),
                  lambda lists: popularity_lift(lists, rows, counts, 2), lambda lists: genre_miscalibration(lists, rows, genres, 2)):
        with pytest.raises(ValueError, match="lists of 1 can't be judged at 2"):
            evaluate_system(np.zeros((2, 1), int))


def test_coverage():
    assert coverage(np.array([[0, 1], [1, -1]]), 4, 2) == 0.5
    assert coverage(np.array([[0, 1], [1, -1]]), 4, 1) == 0.5
    assert coverage(np.array([[-1, -1]]), 4, 2) == 0


def beyond_case(seed, n_users=12, n_items=25, k=8):
    """Lists with holes and empty ones, items without genres or events, users without history."""
    rng = np.random.default_rng(seed)
    ranked = np.stack([rng.permutation(n_items)[:k] for _ in range(n_users)])
    ranked[rng.random(ranked.shape) < 0.2] = -1
    ranked[rng.random(n_users) < 0.2] = -1
    history = rng.integers(1, 5, (n_users, n_items)) * (rng.random((n_users, n_items)) < 0.25) / 2
    history[rng.random(n_users) < 0.2] = 0
    history[:, rng.random(n_items) < 0.2] = 0
    genres = (rng.random((n_items, 4)) < 0.4).astype(np.float32)
    return ranked, sparse.csr_matrix(history.astype(np.float32)), sparse.csr_matrix(genres), (history > 0).sum(axis=0)


def same(ours, expected):
    np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-9)


seeds = given(st.integers(0, 10_000))
few = settings(max_examples=25, deadline=None)


@seeds
@few
def test_novelty_and_popularity_against_a_plain_loop(seed):
    ranked, history, _, counts = beyond_case(seed)
    percentile = np.zeros(len(counts))
    percentile[counts > 0] = rankdata(counts[counts > 0]) / max((counts > 0).sum(), 1)
    same(popularity_percentile(counts), percentile)
    surprise, shift = [], []
    for u, row in enumerate(ranked):
        items, profile = row[:5][row[:5] >= 0], history[[u]].indices
        surprise.append(np.mean([-np.log2(max(counts[i], 1) / len(ranked)) for i in items]) if len(items) else np.nan)
        shift.append(percentile[items].mean() - percentile[profile].mean() if len(items) and len(profile) else np.nan)
    same(novelty(ranked, counts, len(ranked), 5), surprise)
    same(popularity_lift(ranked, history, counts, 5), shift)


@seeds
@few
def test_genre_diversity_against_scikit_learn(seed):
    ranked, _, genres, _ = beyond_case(seed)
    expected = []
    for row in ranked:
        vectors = genres.toarray().astype(float)[row[:6][row[:6] >= 0]]
        vectors = vectors[vectors.any(axis=1)]
        pairs = np.triu_indices(len(vectors), 1)
        expected.append(1 - cosine_similarity(vectors)[pairs].mean() if len(vectors) > 1 else np.nan)
    same(genre_diversity(ranked, genres, 6), expected)


@seeds
@few
def test_miscalibration_against_scipy(seed):
    ranked, history, genres, _ = beyond_case(seed)

    def category_shares(items, weights):
        total = np.zeros(genres.shape[1])
        for item, weight in zip(items, weights, strict=True):
            kinds = genres[[item]].indices
            total[kinds] += weight / max(len(kinds), 1)
        return total / total.sum() if total.sum() else None

    expected = []
    for u, row in enumerate(ranked):
        items = row[:6][row[:6] >= 0]
        p, q = category_shares(history[[u]].indices, history[[u]].data.astype(float)), category_shares(items, np.ones(len(items)))
        expected.append(np.nan if p is None or q is None else entropy(p, 0.9 * q + 0.1 * p))
    same(genre_miscalibration(ranked, history, genres, 6, alpha=0.1), expected)


@seeds
@few
def test_serendipity_against_sets(seed):
    rng = np.random.default_rng(seed)
    ranked, relevant = random_case(rng)
    popular = random_case(rng)[0]
    expected = [len(set(row[:7]) & set(relevant[[u]].indices) - set(popular[u, :7])) / 7 for u, row in enumerate(ranked)]
    same(serendipity(ranked, relevant, popular, 7), expected)
    assert not serendipity(ranked, relevant, ranked, 7).any()


@seeds
@few
def test_gini_against_the_mean_difference_of_all_pairs(seed):
    ranked, _, _, counts = beyond_case(seed)
    known = counts > 0
    times = np.array([(ranked[:, :5] == i).sum() for i in np.flatnonzero(known)])
    assert times_shown(ranked, known, 5).tolist() == sorted(times.tolist())
    value = gini(ranked, known, 5)
    if times.sum():
        assert value == pytest.approx(np.abs(times[:, None] - times).mean() / (2 * times.mean()))
        assert 0 <= value < 1
    else:
        assert np.isnan(value)


def test_gini_counts_known_items_only():
    assert gini(np.array([[0, 3], [1, 3]]), np.array([True, True, True, False]), 2) == pytest.approx(1 / 3)  # 0, 1, 1
    assert np.isnan(gini(np.array([[3], [3]]), np.array([True, True, True, False]), 1))
    assert np.isnan(gini(EMPTY, np.ones(4, bool), 3))


def test_an_empty_list_has_no_character_but_scores_no_surprise():
    history, genres, counts = sparse.csr_matrix(np.ones((1, 4))), sparse.csr_matrix(np.ones((4, 2))), np.ones(4, int)
    for value in (novelty(EMPTY, counts, 3, 3), popularity_lift(EMPTY, history, counts, 3), genre_diversity(EMPTY, genres, 3), genre_miscalibration(EMPTY, history, genres, 3)):
        assert np.isnan(value).tolist() == [True]
    assert serendipity(EMPTY, history, EMPTY, 3).tolist() == [0]


def test_one_item_has_novelty_but_no_diversity():
    one, genres = np.array([[1, -1, -1]]), sparse.csr_matrix(np.ones((4, 2)))
    assert novelty(one, np.array([8, 2, 0, 1]), 8, 3) == 2
    assert np.isnan(genre_diversity(one, genres, 3)).all()
    assert genre_diversity(np.array([[1, 2]]), genres, 2) == pytest.approx(0)


def test_novelty_of_the_unmet_and_of_the_met_again():
    lists = np.array([[0], [1], [2]])
    assert novelty(lists, np.array([0, 1, 20]), 8, 1).tolist() == [3, 3, 0]


def test_items_without_genres_say_nothing():
    genres = sparse.csr_matrix(np.array([[1, 0], [0, 1], [0, 0], [0, 0]]))
    history = sparse.csr_matrix(np.array([[1, 0, 5, 0], [0, 0, 1, 1]]))
    lists = np.array([[0, 2, 3], [0, 1, 2]])
    assert np.isnan(genre_diversity(np.array([[2, 3, 0]]), genres, 3)).all()
    assert genre_diversity(np.array([[2, 1, 0]]), genres, 3).tolist() == [1]
    same(genre_miscalibration(lists, history, genres, 3), [0, np.nan])


def test_watching_counts_for_popularity_whatever_its_weight():
    """A film watched and disliked is stored with weight 0: it belongs to the profile of popularity, not to that of taste."""
    history = sparse.csr_matrix((np.array([0.0, 2.0]), np.array([0, 1]), np.array([0, 2])), shape=(1, 3))
    genres, counts = sparse.csr_matrix(np.eye(3)), np.array([3, 2, 1])
    assert popularity_lift(np.array([[0, 1]]), history, counts, 2).tolist() == [0]
    same(genre_miscalibration(np.array([[1, 1]]), history, genres, 2), [0])


@seeds
@few
def test_showing_the_history_again_is_in_tune(seed):
    _, history, genres, counts = beyond_case(seed)
    history.data[:] = 1
    lists = np.full((history.shape[0], 25), -1)
    for u, row in enumerate(lists):
        row[: history.indptr[u + 1] - history.indptr[u]] = history[[u]].indices
    for value in (popularity_lift(lists, history, counts, 25), genre_miscalibration(lists, history, genres, 25)):
        assert np.nanmax(np.abs(value), initial=0) == pytest.approx(0, abs=1e-12)


@given(st.lists(st.integers(0, 50), max_size=30))
@settings(max_examples=100, deadline=None)
def test_tiers_against_a_plain_loop(counts):
    counts = np.array(counts, dtype=np.int64)
    expected, passed = np.full(len(counts), -1), 0
    for item in sorted(np.flatnonzero(counts), key=lambda i: (-counts[i], i)):
        expected[item] = 0 if passed * 10 < counts.sum() * 5 else 1 if passed * 10 < counts.sum() * 8 else 2
        passed += counts[item]
    tiers = item_tiers(counts)
    assert tiers.dtype == np.int8 and tiers.tolist() == expected.tolist()


def test_tiers_at_their_borders():
    assert item_tiers(np.array([5, 3, 2])).tolist() == [0, 1, 2]  # exactly 50, 30 and 20 %
    assert item_tiers(np.array([1, 1, 1])).tolist() == [0, 0, 1]  # ties by item_idx; the second crosses the half
    assert item_tiers(np.array([0, 9])).tolist() == [-1, 0]
    assert item_tiers(np.zeros(2, int)).tolist() == [-1, -1] and len(item_tiers(np.zeros(0, int))) == 0


def test_bootstrap_interval_has_its_level():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        low, high = bootstrap_interval((rng.random(300) < 0.3).astype(float), resamples=400, seed=trial)
        covered += low <= 0.3 <= high
    assert 0.90 <= covered / 200 <= 0.99


def test_bootstrap_is_the_same_whatever_the_chunks():
    """So many users that the resamples come in chunks: the same numbers as one draw of them all."""
    values, seed = np.random.default_rng(0).random(100_001), 3
    at_once = values[np.random.default_rng(seed).integers(0, len(values), (100, len(values)), dtype=np.int32)].mean(axis=1)
    assert bootstrap_interval(values, resamples=100, seed=seed) == pytest.approx(np.quantile(at_once, [0.025, 0.975]), abs=1e-12)
    assert bootstrap_interval(values, resamples=100, seed=4) != bootstrap_interval(values, resamples=100, seed=seed)


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
    np.testing.assert_allclose(together[:3], [bootstrap_interval(column, 0.9, 200, 5) for column in values.T[:3]], rtol=0, atol=1e-12)
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
