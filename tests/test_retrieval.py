"""Genre neighbours and the vote of the sources, against plain loops."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import make_genres, make_interactions, make_years, same_in_all_contexts

from movierec.ranking.contributions import find_seed_items
from movierec.retrieval.als import ALS, ALSRecent
from movierec.retrieval.genre import GenreNeighbours
from movierec.retrieval.hybrid import Hybrid
from movierec.retrieval.item_item import ItemItem
from movierec.retrieval.popularity import Popularity, PopularityRecent
from movierec.retrieval.sequential import Sequential
from movierec.serving.explain import explain_items

HALF_LIFE, HEAT = 30.0, 90.0


def make_hybrid(weights=None):
    sources = {"popularity": Popularity(), "item_item": ItemItem("cosine", 10), "als": ALS(factors=8), "genre": GenreNeighbours(HALF_LIFE, item_genres=make_genres(), item_years=make_years())}
    return Hybrid(sources, weights or same_in_all_contexts(popularity=0.3, item_item=1.0, als=0.7, genre=0.2), pool_size=15, depth=15, rank_constant=60.0)


@pytest.fixture(scope="module")
def hybrid():
    return make_hybrid().fit(make_interactions())


def test_every_reason_is_about_its_source(hybrid):
    more = [source.fit(hybrid.interactions) for source in (PopularityRecent(), ALSRecent(als=hybrid.sources["als"]), Sequential())]
    hybrid = replace(hybrid, sources=hybrid.sources | {source.name: source for source in more})
    hybrid.interactions = more[0].interactions
    titles = [f"Film {i}" for i in range(40)]
    genre_names = [f"Genre {g}" for g in range(5)]
    items = hybrid.sources["genre"].top_k(np.array([4]), 4)[0][0]
    starts = {"popularity": "Liked by many: ", "item_item": "Because you watched Film ", "als": "People like you watched this", "als_recent": "Similar to your taste",
              "popularity_recent": "Trending now", "genre": "Matches your genres: Genre ", "sequential": "Because you watched Film "}
    for source, start in starts.items():
        items = hybrid.sources[source].top_k(np.array([4]), 4)[0][0]
        top_sources = np.full(4, source)
        told = explain_items(hybrid, 4, items, top_sources, find_seed_items(hybrid, np.array([4]), items[None], top_sources[None])[0], titles, genre_names)
        assert all(sentence.startswith(start) for sentence in told), told
    items = hybrid.sources["sequential"].top_k(np.array([4]), 4)[0][0]
    fresh = hybrid.sources["sequential"].seed_items(np.array([4]), items[None])[0]
    assert explain_items(hybrid, 4, items, np.full(4, "sequential"), fresh, titles, genre_names, fresh) == [f"Boosted by your likes: Film {item}" for item in fresh]


def test_batches_do_not_matter(hybrid):
    whole, parts = hybrid.pool(np.arange(30)), hybrid.pool(np.arange(30), batch_size=7)
    assert np.array_equal(whole.items, parts.items) and np.array_equal(whole.scores, parts.scores)
    assert all(np.array_equal(whole.ranks[name], parts.ranks[name]) for name in whole.ranks)
    assert hybrid.pool(np.array([], int)).items.shape == (0, 15)


def test_what_a_user_is_doing():
    interactions = make_interactions()
    hybrid = make_hybrid().fit(interactions)
    last = interactions.timestamp[interactions.indptr[1:30] - 1]
    assert (hybrid.user_context(np.arange(29), last + 3_600) == 0).all() and (hybrid.user_context(np.arange(29), last + 3_601) == 1).all()
    assert hybrid.user_context(np.array([29]), np.array([interactions.as_of])).tolist() == [2]
    hybrid.new_user_events = 13
    assert (hybrid.user_context(np.arange(30), np.full(30, interactions.as_of)) == 2).all()


def test_each_situation_has_its_weights():
    weights = {"in_session": {"als": 1.0}, "returning": {"item_item": 1.0}, "new_user": {"popularity": 1.0}}
    interactions = make_interactions()
    hybrid = make_hybrid(weights).fit(interactions)
    last = interactions.timestamp[interactions.indptr[1:30] - 1]
    for source, shift in (("als", 60), ("item_item", 7_200)):
        items, _ = hybrid.top_k(np.arange(29), 5, last + shift)
        assert np.array_equal(items, hybrid.sources[source].top_k(np.arange(29), 5, last + shift)[0])
        assert (hybrid.top_sources(hybrid.pool(np.arange(29), last + shift))[:, 0] == source).all()
    assert np.array_equal(hybrid.top_k(np.array([29]), 5)[0], hybrid.sources["popularity"].top_k(np.array([29]), 5)[0])


def test_quotas_guarantee_a_place():
    interactions = make_interactions()
    plain = make_hybrid(same_in_all_contexts(popularity=0.001, als=1.0)).fit(interactions)
    with_quota = make_hybrid(same_in_all_contexts(popularity=0.001, als=1.0))
    with_quota.quotas = {"popularity": 6}
    with_quota.fit(interactions)
    users = np.arange(29)
    first, pool = plain.sources["popularity"].top_k(users, 6)[0], with_quota.pool(users)
    missing = 0
    for user in users:
        assert set(first[user].tolist()) <= set(pool.items[user].tolist()) and len(set(pool.items[user].tolist())) == 15
        missing += not set(first[user].tolist()) <= set(plain.pool(users).items[user].tolist())
        assert (np.diff(pool.scores[user]) <= 0).all()
    assert missing, "without the quota some would be missing"


