"""Features as of a time, against plain loops over the events strictly before it."""

from copy import copy
from dataclasses import replace

import numpy as np
import pytest
from helpers import make_genres, make_interactions, make_years, same_in_all_contexts

from movierec.config import DAY
from movierec.ranking.feature_store import FeatureStore, item_states, states_by_pair
from movierec.ranking.features import FEATURES, V1_FEATURES, V2_FEATURES, V3_FEATURES
from movierec.retrieval.als import ALS
from movierec.retrieval.genre import GenreNeighbours
from movierec.retrieval.hybrid import Hybrid
from movierec.retrieval.item_item import ItemItem
from movierec.retrieval.sequential import Sequential

NEW_USER, NEW_ITEM = 29, 38  # without events


def fitted(interactions):
    """A small hybrid with every source that features read."""
    sources = {
        "item_item": ItemItem("cosine", 10),
        "als": ALS(factors=8),
        "sequential": Sequential(3, smoothing=2.0),
        "genre": GenreNeighbours(30.0, item_genres=make_genres(), item_years=make_years()),
    }
    weights = same_in_all_contexts(item_item=1.0, als=0.7, sequential=1.0, genre=0.2)
    return Hybrid(sources, weights, pool_size=15, depth=15).fit(interactions)


@pytest.fixture(scope="module")
def store():
    return FeatureStore(fitted(make_interactions()), 30.0)


def matrix_of(store, users, items, times, features=V3_FEATURES):
    pool = store.hybrid.builder.pool_of_items(users, np.asarray(items, np.int32), times)
    return store.matrix(pool, times, features)


def unit(vector):
    length = np.linalg.norm(vector)
    return vector / length if length else vector


def expected_of_item(interactions, item, as_of):
    """Some features of an item by a loop, and its age at each event."""
    past = (interactions.item_idx == item) & (interactions.timestamp < as_of)
    confidence, age = interactions.confidence[past], (as_of - interactions.timestamp[past]) / DAY
    week, month = (age <= 7).sum(), (age <= 30).sum()
    return {
        "item_interactions": past.sum(),
        "item_conf_sum": confidence.sum(),
        "item_conf_decay_sum": (confidence * 0.5 ** (age / 30)).sum(),
        "item_events_30d": month,
        "item_age_days": age.max() if len(age) else 0,
        "item_mean_conf": (confidence.sum() + 5) / (past.sum() + 5),
        "item_trend": np.log((week + 1) / 14 / ((month + 1) / 37)),
        "item_genre_count": make_genres().toarray()[item].sum(),
        "item_year": make_years()[item],
    }


def expected_of_pair(store, user, item, as_of):
    """Some features of a user and an item by a loop."""
    interactions, genres, years = store.interactions, make_genres().toarray(), make_years()
    past = (interactions.user_idx == user) & (interactions.timestamp < as_of)
    history, confidence = interactions.item_idx[past], interactions.confidence[past]
    shares = genres[history] / np.maximum(genres[history].sum(axis=1, keepdims=True), 1)
    affinity = (shares * confidence[:, None]).sum(axis=0)
    decade = confidence[years[history] == years[item]].sum()
    of_item = expected_of_item(interactions, item, as_of)
    expected = of_item | {
        "user_interactions": past.sum(),
        "user_item_genre_aff": (affinity / affinity.sum() * genres[item]).sum() if affinity.any() else 0,
        "user_item_decade_aff": decade / confidence.sum() if confidence.sum() else 0,
        "user_events_week": (past & (interactions.timestamp >= as_of - 7 * DAY)).sum(),
        "hour_of_day": as_of // 3600 % 24,
    }
    if not len(history):
        return expected
    vectors = store.hybrid.sources["als"].item_factors
    lift = store.hybrid.sources["sequential"].lift.toarray()
    similarity = store.hybrid.sources["item_item"].similarity.toarray()
    popularity = np.log1p([expected_of_item(interactions, other, as_of)["item_interactions"] for other in history])
    mean_vector = np.mean([unit(vectors[other]) for other in history[-5:]], axis=0)
    return expected | {
        "popularity_difference_1": np.log1p(of_item["item_interactions"]) - popularity[-1],
        "popularity_difference_20": np.log1p(of_item["item_interactions"]) - popularity.mean(),
        "year_difference_20": years[item] - years[history].mean(),
        "lift_1": lift[history[-1], item],
        "lift_5": lift[history[-5:], item].mean(),
        "item_item_5": similarity[history[-5:], item].mean(),
        "als_cosine_5": unit(vectors[item]) @ unit(mean_vector),
        "genre_cosine_1": unit(genres[item]) @ unit(genres[history[-1]]),
    }


def test_matrix_against_a_loop(store):
    users = np.array([3, NEW_USER, 8])
    items = np.array([[1, 39, -1], [0, 5, 6], [7, 7, 2]], np.int32)
    times = np.array([store.interactions.as_of, 10**9 + 5 * 10**6, 10**9 + 5 * 10**6])
    pool = store.hybrid.builder.pool_of_items(users, items, times)
    matrix = store.matrix(pool, times)
    assert matrix.shape == (3, 3, len(FEATURES)) and matrix.dtype == np.float32
    assert np.isnan(matrix[0, 2]).all(), "no item, no features"
    for row, place in np.argwhere(items >= 0):
        expected = expected_of_pair(store, users[row], items[row, place], times[row])
        expected |= {"n_sources": sum(rank[row, place] > 0 for rank in pool.ranks.values()), "fused_rank": place + 1}
        for name, value in expected.items():
            found = matrix[row, place, V3_FEATURES.index(name)]
            message = f"{name} of user {users[row]}, item {items[row, place]}"
            np.testing.assert_allclose(found, value, rtol=1e-4, atol=1e-6, err_msg=message)


def test_scores_in_standard_deviations(store):
    times = np.full(30, store.interactions.as_of)
    pool = store.hybrid.pool(np.arange(30), times)
    values = store.matrix(pool, times, ("als_z",))[:, :, 0]
    for user in range(29):
        scores = pool.source_scores["als"][user]
        expected = (scores - np.nanmean(scores)) / np.nanstd(scores)
        np.testing.assert_allclose(values[user], expected, rtol=1e-3, atol=1e-5)


def test_some_columns_are_those_of_the_whole_matrix(store):
    users, times = np.arange(30), np.full(30, store.interactions.as_of)
    pool = store.hybrid.pool(users, times)
    whole = store.matrix(pool, times)
    some = (V1_FEATURES, V2_FEATURES, ("lift_5", "user_interactions"), ("fused_score",), ("user_item_decade_aff",))
    for names in some:
        columns = [V3_FEATURES.index(name) for name in names]
        assert np.array_equal(store.matrix(pool, times, names), whole[:, :, columns], equal_nan=True)
    with pytest.raises(KeyError):
        store.matrix(pool, times, ("item_gross",))


def test_items_looked_up_once_or_pair_by_pair_have_the_same_states(store):
    """Many users at one time share a table of items; users at times of their own don't."""
    items = np.random.default_rng(0).integers(0, 40, (29, 40)).astype(np.int32)
    one = np.full(29, store.interactions.as_of - 10**6)
    few = np.where(np.arange(29) % 2, one, one - 10**6)
    for times in (one, few, store.interactions.as_of - np.arange(29) * DAY):
        states = item_states(store.items, items, times, 40)
        assert np.array_equal(states, states_by_pair(store.items, items, times), equal_nan=True)


def test_events_after_the_prediction_time_change_nothing():
    """Sources fitted on the past; all later events are moved, changed, or taken away."""
    interactions = make_interactions()
    middle = int(np.median(interactions.timestamp))
    later = interactions.timestamp > middle
    hybrid = fitted(interactions.select(~later))
    users, times = np.arange(30), np.full(30, middle)
    items = np.random.default_rng(0).integers(0, 40, (30, 10)).astype(np.int32)
    pool = hybrid.builder.pool_of_items(users, items, times)
    before = FeatureStore(hybrid, 30.0).matrix(pool, times)
    assert np.isfinite(before[:29]).mean() > 0.6
    changed = replace(
        interactions,
        timestamp=interactions.timestamp + later * 1_000 * DAY,
        confidence=np.where(later, np.float32(99), interactions.confidence),
        item_idx=np.where(later, 39 - interactions.item_idx, interactions.item_idx).astype(np.int32),
        as_of=interactions.as_of + 1_000 * DAY,
    )
    for future in (changed, interactions):
        knowing = copy(hybrid)
        knowing.interactions = future
        assert np.array_equal(FeatureStore(knowing, 30.0).matrix(pool, times), before, equal_nan=True)


def test_one_user_is_a_batch_of_one(store):
    items = np.random.default_rng(0).integers(0, 40, (30, 10)).astype(np.int32)
    times = np.full(30, store.interactions.as_of)
    together = matrix_of(store, np.arange(30), items, times)
    for user in range(30):
        alone = matrix_of(store, np.array([user]), items[[user]], times[:1])[0]
        assert np.array_equal(together[user], alone, equal_nan=True)


def test_absent_sources_are_unknown_and_new_users_are_described(store):
    matrix = matrix_of(store, np.array([NEW_USER]), [[1, 2]], np.array([store.interactions.as_of]))[0]
    for name in ("sasrec_score", "popularity_difference_20"):
        assert np.isnan(matrix[:, V3_FEATURES.index(name)]).all()
    for name in ("lift_20", "user_interactions"):
        assert (matrix[:, V3_FEATURES.index(name)] == 0).all()


def test_without_anything_to_look_up_features_have_their_declared_default(store):
    """A user and an item without events: all but the request's and the catalogue's features have their default."""
    matrix = matrix_of(store, np.array([NEW_USER]), [[NEW_ITEM]], np.array([store.interactions.as_of]))[0, 0]
    not_looked_up = {"item_genre_count", "item_year", "hour_of_day", "fused_rank"}
    for feature, value in zip(FEATURES, matrix, strict=True):
        if feature.name not in not_looked_up:
            np.testing.assert_allclose(value, feature.default, rtol=1e-6, err_msg=feature.name)
