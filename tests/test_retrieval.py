"""Genre neighbours and the vote of the sources, against plain loops."""

from dataclasses import replace

import numpy as np
import pytest
from test_baselines import everywhere, make_genres, make_interactions, make_years

from movierec.config import DAY
from movierec.data.interactions import decade_matrix
from movierec.ranking.contributions import find_seed_items
from movierec.retrieval.als import ALS, ALSRecent
from movierec.retrieval.genre import GenreNeighbours, category_affinity, category_shares
from movierec.retrieval.hybrid import Hybrid
from movierec.retrieval.item_item import ItemItem
from movierec.retrieval.popularity import Popularity, PopularityRecent
from movierec.retrieval.sequential import Sequential
from movierec.serving.explain import explain_items

HALF_LIFE, HEAT = 30.0, 90.0


def make_hybrid(weights=None):
    sources = {"popularity": Popularity(), "item_item": ItemItem("cosine", 10), "als": ALS(factors=8), "genre": GenreNeighbours(HALF_LIFE, item_genres=make_genres(), item_years=make_years())}
    return Hybrid(sources, weights or everywhere(popularity=0.3, item_item=1.0, als=0.7, genre=0.2), pool_size=15, depth=15, rank_constant=60.0)


@pytest.fixture(scope="module")
def hybrid():
    return make_hybrid().fit(make_interactions())


@pytest.mark.parametrize("half_life", [None, HALF_LIFE])
def test_affinity_by_hand(half_life):
    interactions, genres = make_interactions(), make_genres()
    dense = genres.toarray()
    moments = np.random.default_rng(0).choice(interactions.timestamp, 30)
    expected = np.zeros((30, 5))
    for user, item, time, confidence in zip(interactions.user_idx, interactions.item_idx, interactions.timestamp, interactions.confidence, strict=True):
        if time < moments[user] and dense[item].any():
            age = (moments[user] - time) / DAY
            expected[user] += confidence * (1 if half_life is None else 0.5 ** (age / half_life)) * dense[item] / dense[item].sum()
    total = expected.sum(axis=1, keepdims=True)
    expected = np.divide(expected, total, out=np.zeros_like(expected), where=total > 0)
    assert np.allclose(category_affinity(interactions, category_shares(genres), np.arange(30), moments, (half_life,))[:, :, 0], expected, atol=1e-6)


def test_affinity_survives_any_age():
    interactions, genres = make_interactions(), make_genres()
    late = np.full(30, interactions.as_of + 200 * 365 * DAY)
    recent = category_affinity(interactions, category_shares(genres), np.arange(30), late, (1.0,))[:, :, 0]
    assert np.allclose(recent.sum(axis=1)[:29], 1) and recent.sum(axis=1)[29] == 0


def test_genre_scores_are_as_of_the_users_moment():
    """Against sums over the events before the last kept moment that isn't later than the request."""
    interactions, genres, decades = make_interactions(), make_genres(), decade_matrix(make_years())
    source = GenreNeighbours(HALF_LIFE, HEAT, item_genres=genres, item_years=make_years()).fit(interactions)
    assert source.times[-1] == interactions.as_of and np.diff(source.times).max() <= HEAT / 12 * DAY + 1
    moments = np.random.default_rng(1).choice(interactions.timestamp, 30)
    scores = source._scores(np.arange(30), moments)
    for user, moment in enumerate(moments):
        kept = source.times[source.times <= moment]
        if not len(kept):
            assert np.isneginf(scores[user]).all()
            continue
        taste, decade = (category_affinity(interactions, category_shares(kinds), np.array([user]), np.array([moment]), (HALF_LIFE,))[0, :, 0] for kinds in (genres, decades))
        past = interactions.timestamp < kept[-1]
        heat = np.zeros(40)
        np.add.at(heat, interactions.item_idx[past], (interactions.confidence * 0.5 ** ((kept[-1] - interactions.timestamp) / (HEAT * DAY)))[past])
        expected = heat.copy()
        for kinds, liked in ((genres.toarray(), taste), (decades.toarray(), decade)):
            total = kinds.T @ heat
            expected *= kinds @ np.divide(liked, total, out=np.zeros(len(liked)), where=total > 0)
        assert np.allclose(np.where(np.isneginf(scores[user]), 0, scores[user]), expected, atol=1e-6)
    later = interactions.select(interactions.timestamp < interactions.as_of)  # the same events under the same end
    assert np.array_equal(GenreNeighbours(HALF_LIFE, HEAT, item_genres=genres, item_years=make_years()).fit(later).top_k(np.arange(30), 5, moments)[0], source.top_k(np.arange(30), 5, moments)[0])


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
    plain = make_hybrid(everywhere(popularity=0.001, als=1.0)).fit(interactions)
    with_quota = make_hybrid(everywhere(popularity=0.001, als=1.0))
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


def test_sums_are_exact_in_any_order():
    from movierec.retrieval.linalg import round_for_exact_sums

    rng = np.random.default_rng(0)
    weights = round_for_exact_sums((rng.random((50, 12)) * 10.0 ** rng.integers(-12, 3, (50, 1))).astype(np.float32), 12)
    assert np.array_equal(weights.astype(np.float64).sum(axis=1), weights[:, ::-1].cumsum(axis=1, dtype=np.float32)[:, -1])
    given = rng.random((5, 4)).astype(np.float32)
    assert np.allclose(round_for_exact_sums(given, 4), given, rtol=1e-5) and round_for_exact_sums(np.zeros((3, 0), np.float32), 1).shape == (3, 0)
    assert (round_for_exact_sums(np.zeros((3, 2), np.float32), 2) == 0).all()


def test_a_catalogue_without_genres_or_years():
    from scipy import sparse

    interactions = make_interactions()
    source = GenreNeighbours(item_genres=sparse.csr_matrix((40, 0), dtype=np.float32), item_years=np.full(40, np.nan, np.float32)).fit(interactions)
    assert (source.top_k(np.arange(30), 5)[0] == -1).all(), "it has nothing to say, and says nothing"
