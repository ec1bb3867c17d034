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

EMPTY = np.array([[-1, -1, -1]])


def random_case(rng, n_users=40, n_items=60, k=20):
    """Lists of different lengths, also empty ones, and one to thirty relevant items each."""
    ranked = np.full((n_users, k), -1)
    for row in ranked:
        length = rng.integers(0, k + 1)
        row[:length] = rng.permutation(n_items)[:length]
    relevant = np.zeros((n_users, n_items))
    for row in relevant:
        row[rng.permutation(n_items)[: rng.integers(1, 30)]] = 1
    return ranked, sparse.csr_matrix(relevant)


def test_against_trec_eval():
    ranked, relevant = random_case(np.random.default_rng(0))
    qrel = {str(u): {str(i): 1 for i in relevant[[u]].indices} for u in range(len(ranked))}
    run = {str(u): {str(i): 1.0 / (r + 1) for r, i in enumerate(row) if i >= 0} for u, row in enumerate(ranked)}
    measures = {f"{name}.5,10,20" for name in ("recall", "ndcg_cut", "success", "map_cut")} | {"recip_rank"}
    theirs = pytrec_eval.RelevanceEvaluator(qrel, measures).evaluate(run)
    ours = user_metrics(ranked, relevant, (5, 10, 20))
    for u in range(len(ranked)):
        expected = theirs.get(str(u), {})
        for k in (5, 10, 20):
            for mine, name in (("recall", "recall"), ("ndcg", "ndcg_cut"), ("hit_rate", "success"), ("map", "map_cut")):
                assert ours[f"{mine}@{k}"][u] == pytest.approx(expected.get(f"{name}_{k}", 0), abs=1e-9)
        assert ours["mrr@20"][u] == pytest.approx(expected.get("recip_rank", 0), abs=1e-9)


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
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
    assert unsorted.indices.tolist() == [4, 0, 2]  # the input isn't changed
    assert not hits(lists, sparse.csr_matrix((2, 5))).any()
    assert hits(np.empty((0, 3), int), sparse.csr_matrix((0, 5))).shape == (0, 3)


def test_padding_is_not_the_last_item_of_the_user_before():
    relevant = sparse.csr_matrix(np.array([[0, 0, 1], [1, 0, 0]]))
    assert not hits(np.array([[0, 1], [-1, -1]]), relevant).any()


def test_users_without_relevant_items_are_errors():
    relevant = sparse.csr_matrix(np.array([[1, 0], [0, 0]]))
    with pytest.raises(ValueError, match="without a relevant item"):
        user_metrics(np.array([[0, 1], [0, 1]]), relevant, (2,))


ROWS, GENRES, COUNTS = sparse.csr_matrix(np.ones((2, 3))), sparse.csr_matrix(np.ones((3, 2))), np.ones(3, int)
TWO_LISTS = np.zeros((2, 2), int)
OF_USERS = {  # measures that compare the lists with data of the same two users
    "hits": lambda lists, k: hits(lists, ROWS),
    "user_metrics": lambda lists, k: user_metrics(lists, ROWS, (k,)),
    "serendipity": lambda lists, k: serendipity(lists, ROWS, TWO_LISTS, k),
    "genre_miscalibration": lambda lists, k: genre_miscalibration(lists, ROWS, GENRES, k),
    "popularity_lift": lambda lists, k: popularity_lift(lists, ROWS, COUNTS, k),
}
OF_LISTS = {
    "novelty": lambda lists, k: novelty(lists, COUNTS, 5, k),
    "genre_diversity": lambda lists, k: genre_diversity(lists, GENRES, k),
    "gini": lambda lists, k: gini(lists, COUNTS > 0, k),
    "serendipity (popular)": lambda lists, k: serendipity(TWO_LISTS, ROWS, lists, k),
}


@pytest.mark.parametrize("measure", OF_USERS.values(), ids=OF_USERS)
@pytest.mark.parametrize("users", [1, 3])
def test_lists_of_other_users_are_errors(measure, users):
    with pytest.raises(ValueError, match=f"lists of {users} users can't be evaluated on data of 2"):
        measure(np.zeros((users, 1), int), 1)


@pytest.mark.parametrize("measure", (OF_USERS | OF_LISTS).values(), ids=OF_USERS | OF_LISTS)
def test_items_beyond_the_catalogue_are_errors(measure):
    """Their indices would be read as another user's items, or as memory beyond an array."""
    with pytest.raises(ValueError, match="item 3 is not in the catalogue of 3"):
        measure(np.array([[0], [3]]), 1)


@pytest.mark.parametrize("name", [name for name in OF_USERS | OF_LISTS if name != "hits"])
def test_short_lists_are_errors(name):
    with pytest.raises(ValueError, match="lists of length 1 can't be evaluated at cutoff 2"):
        (OF_USERS | OF_LISTS)[name](np.zeros((2, 1), int), 2)


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
few = settings(max_examples=15, deadline=None)


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

    def genre_shares(items, weights):
        total = np.zeros(genres.shape[1])
        for item, weight in zip(items, weights, strict=True):
            own = genres[[item]].indices
            total[own] += weight / max(len(own), 1)
        return total / total.sum() if total.sum() else None

    expected = []
    for u, row in enumerate(ranked):
        items = row[:6][row[:6] >= 0]
        p = genre_shares(history[[u]].indices, history[[u]].data.astype(float))
        q = genre_shares(items, np.ones(len(items)))
        expected.append(np.nan if p is None or q is None else entropy(p, 0.9 * q + 0.1 * p))
    same(genre_miscalibration(ranked, history, genres, 6, alpha=0.1), expected)


@seeds
@few
def test_serendipity_against_sets(seed):
    rng = np.random.default_rng(seed)
    ranked, relevant = random_case(rng)
    popular = random_case(rng)[0]
    expected = []
    for u, row in enumerate(ranked):
        unexpected_hits = set(row[:7]) & set(relevant[[u]].indices) - set(popular[u, :7])
        expected.append(len(unexpected_hits) / 7)
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


def test_an_empty_list_has_serendipity_zero_and_no_other_measure():
    history, genres, counts = sparse.csr_matrix(np.ones((1, 4))), sparse.csr_matrix(np.ones((4, 2))), np.ones(4, int)
    values = (
        novelty(EMPTY, counts, 3, 3),
        popularity_lift(EMPTY, history, counts, 3),
        genre_diversity(EMPTY, genres, 3),
        genre_miscalibration(EMPTY, history, genres, 3),
    )
    assert all(np.isnan(value).tolist() == [True] for value in values)
    assert serendipity(EMPTY, history, EMPTY, 3).tolist() == [0]


def test_one_item_has_novelty_but_no_diversity():
    one, genres = np.array([[1, -1, -1]]), sparse.csr_matrix(np.ones((4, 2)))
    assert novelty(one, np.array([8, 2, 0, 1]), 8, 3) == 2
    assert np.isnan(genre_diversity(one, genres, 3)).all()
    assert genre_diversity(np.array([[1, 2]]), genres, 2) == pytest.approx(0)


def test_novelty_of_items_without_events_and_with_more_events_than_users():
    lists = np.array([[0], [1], [2]])
    assert novelty(lists, np.array([0, 1, 20]), 8, 1).tolist() == [3, 3, 0]


def test_items_without_genres_are_left_out():
    genres = sparse.csr_matrix(np.array([[1, 0], [0, 1], [0, 0], [0, 0]]))
    history = sparse.csr_matrix(np.array([[1, 0, 5, 0], [0, 0, 1, 1]]))
    lists = np.array([[0, 2, 3], [0, 1, 2]])
    assert np.isnan(genre_diversity(np.array([[2, 3, 0]]), genres, 3)).all()
    assert genre_diversity(np.array([[2, 1, 0]]), genres, 3).tolist() == [1]
    same(genre_miscalibration(lists, history, genres, 3), [0, np.nan])


def test_events_count_for_popularity_whatever_their_weight():
    """A movie that was disliked has weight 0: it counts for the popularity lift, but not for the genre shares."""
    history = sparse.csr_matrix((np.array([0.0, 2.0]), np.array([0, 1]), np.array([0, 2])), shape=(1, 3))
    genres, counts = sparse.csr_matrix(np.eye(3)), np.array([3, 2, 1])
    assert popularity_lift(np.array([[0, 1]]), history, counts, 2).tolist() == [0]
    same(genre_miscalibration(np.array([[1, 1]]), history, genres, 2), [0])


@seeds
@few
def test_the_history_itself_has_no_lift_and_no_miscalibration(seed):
    _, history, genres, counts = beyond_case(seed)
    history.data[:] = 1
    lists = np.full((history.shape[0], 25), -1)
    for u, row in enumerate(lists):
        row[: history.indptr[u + 1] - history.indptr[u]] = history[[u]].indices
    for value in (popularity_lift(lists, history, counts, 25), genre_miscalibration(lists, history, genres, 25)):
        assert np.nanmax(np.abs(value), initial=0) == pytest.approx(0, abs=1e-12)


@given(st.lists(st.integers(0, 50), max_size=30))
@settings(max_examples=50, deadline=None)
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
