"""Pools of a hybrid over fitted sources: where their candidates come from, and that batches don't matter."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import make_genres, make_interactions, make_years, same_in_all_contexts

from movierec.data.interactions import without_order
from movierec.retrieval.als import ALS
from movierec.retrieval.genre import GenreNeighbours
from movierec.retrieval.hybrid import Hybrid, ranks_of_items
from movierec.retrieval.item_item import ItemItem
from movierec.retrieval.popularity import Popularity

USERS = np.arange(30)  # the last one has no events
WEIGHTS = {"popularity": 0.3, "item_item": 1.0, "als": 0.7, "genre": 0.2}


def make_small_hybrid(weights=None):
    sources = {
        "popularity": Popularity(),
        "item_item": ItemItem("cosine", 10),
        "als": ALS(factors=8),
        "genre": GenreNeighbours(30.0, item_genres=make_genres(), item_years=make_years()),
    }
    return Hybrid(sources, weights or same_in_all_contexts(**WEIGHTS), pool_size=15, depth=15, rank_constant=60.0)


@pytest.fixture(scope="module")
def hybrid():
    return make_small_hybrid().fit(make_interactions())


def test_pool_against_a_loop(hybrid):
    pool = hybrid.pool(USERS)
    labels, top_sources = pool.sources(), hybrid.fusion.top_sources(pool)
    for user in USERS:
        scores, ranks = {}, {}
        for name, weight in WEIGHTS.items():
            items, _ = hybrid.sources[name].top_k(np.array([user]), 15)
            for rank, item in enumerate(items[0][items[0] >= 0].tolist(), 1):
                scores[item] = scores.get(item, 0) + weight / (60 + rank)
                ranks.setdefault(item, {})[name] = rank
        best = sorted(scores, key=lambda item: (-scores[item], item))[:15]
        found = pool.items[user][pool.items[user] >= 0].tolist()
        assert len(found) == len(best) and np.allclose([scores[i] for i in found], [scores[i] for i in best])
        for place, item in enumerate(found):
            proposed = {name: int(rank[user, place]) for name, rank in pool.ranks.items() if rank[user, place]}
            assert proposed == ranks[item] and set(labels[user, place].split("+")) == set(proposed)
            shares = {name: WEIGHTS[name] / (60 + rank) for name, rank in proposed.items()}
            assert shares[top_sources[user, place]] == max(shares.values())


def test_scores_of_sources_travel_with_the_candidates(hybrid):
    pool = hybrid.pool(USERS)
    for name, source in hybrid.sources.items():
        scores = source.unseen_scores(USERS, np.full(30, hybrid.interactions.as_of))
        expected = np.where(pool.items >= 0, scores[USERS[:, None], pool.items], -np.inf)
        assert np.allclose(np.nan_to_num(pool.source_scores[name], nan=-np.inf), expected)
        assert np.isfinite(pool.source_scores[name][pool.ranks[name] > 0]).all(), "what is proposed has a score"
    beyond = np.isfinite(pool.source_scores["als"]) & (pool.ranks["als"] == 0)
    assert beyond.any(), "scores are known beyond a source's own list"


def test_a_new_user_gets_what_needs_no_history(hybrid):
    pool = hybrid.pool(np.array([29]))
    assert (pool.items[0] >= 0).all() and set(pool.sources()[0]) == {"popularity"}


def test_a_source_without_weight_is_not_asked():
    hybrid = make_small_hybrid(same_in_all_contexts(popularity=1.0, als=0.0)).fit(make_interactions())
    assert list(hybrid.pool(np.arange(3)).ranks) == ["popularity"]


def test_provenance_of_any_list(hybrid):
    users = np.arange(5)
    pool = hybrid.pool(users)
    again = hybrid.builder.pool_of_items(users, pool.items[:, ::-1].copy())
    for name in pool.ranks:
        assert np.array_equal(again.ranks[name][:, ::-1], pool.ranks[name])


def test_batches_do_not_matter(hybrid):
    whole, parts = hybrid.pool(USERS), hybrid.pool(USERS, batch_size=7)
    assert np.array_equal(whole.items, parts.items) and np.array_equal(whole.scores, parts.scores)
    assert all(np.array_equal(whole.ranks[name], parts.ranks[name]) for name in whole.ranks)
    assert hybrid.pool(np.array([], int)).items.shape == (0, 15)


def test_each_user_context_has_its_weights():
    weights = {
        "in_session": {"als": 1.0},
        "returning": {"item_item": 1.0},
        "new_user": {"popularity": 1.0},
        "unordered": {"genre": 1.0},
    }
    interactions = make_interactions()
    hybrid = make_small_hybrid(weights).fit(interactions)
    users, last = np.arange(29), interactions.timestamp[interactions.indptr[1:30] - 1]
    for source, shift in (("als", 60), ("item_item", 7_200)):
        items, _ = hybrid.top_k(users, 5, last + shift)
        assert np.array_equal(items, hybrid.sources[source].top_k(users, 5, last + shift)[0])
        assert (hybrid.fusion.top_sources(hybrid.pool(users, last + shift))[:, 0] == source).all()
    unordered = hybrid.fold_in(interactions.fold_in_users(without_order(interactions)))
    assert np.array_equal(unordered.top_k(users, 5)[0], unordered.sources["genre"].top_k(users, 5)[0])
    new_user = np.array([29])
    assert np.array_equal(hybrid.top_k(new_user, 5)[0], hybrid.sources["popularity"].top_k(new_user, 5)[0])


def test_ranks_of_items_are_those_in_the_lists(hybrid):
    """Users in batches, items in any order."""
    users, rng = np.array([4, 1, 9, 29, 2]), np.random.default_rng(0)
    rows, items = rng.integers(0, 5, 40), rng.integers(0, 40, 40)
    times = np.full(5, hybrid.interactions.as_of)
    ranks = ranks_of_items(hybrid.builder, users, rows, items, 15, times, batch_size=2)
    shallow = replace(hybrid, depth=15)
    shallow.interactions = hybrid.interactions
    lists = {"hybrid": shallow.top_k(users, 15)[0]}
    lists |= {name: source.top_k(users, 15)[0] for name, source in hybrid.sources.items()}
    for name, ranked in lists.items():
        listed = [ranked[row].tolist() for row in rows]
        expected = [one.index(item) + 1 if item in one else 0 for one, item in zip(listed, items, strict=True)]
        assert ranks[name].tolist() == expected, name
