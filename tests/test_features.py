"""Features as of a moment, against plain loops over the events strictly before it."""

from copy import copy
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from helpers import tiny_settings, write_archive
from hypothesis import given, settings
from hypothesis import strategies as st
from test_baselines import everywhere, make_genres, make_interactions, make_years

from movierec.config import DAY
from movierec.data.ingest import ingest
from movierec.data.interactions import build_interactions, decay, load_interactions, load_items
from movierec.data.tables import query
from movierec.ranking.feature_store import FeatureStore
from movierec.ranking.feature_tables import build_features
from movierec.ranking.features import (
    FEATURE_GROUPS,
    FEATURES,
    V1_FEATURES,
    V2_FEATURES,
    V3_FEATURES,
)
from movierec.ranking.timeline import Timeline, _running_sums
from movierec.retrieval.als import ALS
from movierec.retrieval.genre import GenreNeighbours
from movierec.retrieval.hybrid import Hybrid, make_hybrid
from movierec.retrieval.item_item import ItemItem
from movierec.retrieval.sequential import Sequential

LOCKED = ("user_interactions", "user_conf_sum", "user_conf_decay_sum", "user_days_since_last", "item_interactions", "item_conf_sum",
          "item_conf_decay_sum", "item_days_since_last", "item_genre_count", "user_item_genre_aff", "user_item_genre_aff_decay")


def test_the_order_is_locked():
    assert V2_FEATURES == LOCKED == V3_FEATURES[:11] and LOCKED[:8] == V1_FEATURES


def test_every_feature_is_declared_once_and_in_one_group():
    assert len(set(V3_FEATURES)) == len(V3_FEATURES)
    assert sorted(feature.name for group in FEATURE_GROUPS.values() for feature in group) == sorted(V3_FEATURES)
    assert all(feature.meaning and feature.source and feature.dtype == "float32" for feature in FEATURES)


def fitted(interactions):
    """A small hybrid with every source that features read."""
    sources = {"item_item": ItemItem("cosine", 10), "als": ALS(factors=8), "sequential": Sequential(3, smoothing=2.0),
               "genre": GenreNeighbours(30.0, item_genres=make_genres(), item_years=make_years())}
    return Hybrid(sources, everywhere(item_item=1.0, als=0.7, sequential=1.0, genre=0.2), pool_size=15, depth=15).fit(interactions)


@pytest.fixture(scope="module")
def store():
    return FeatureStore(fitted(make_interactions()), 30.0)


def matrix_of(store, users, items, moments, features=V3_FEATURES):
    return store.matrix(store.hybrid.pool_of_items(users, np.asarray(items, np.int32), moments), moments, features)


@given(st.integers(0, 100_000), st.sampled_from([0.5, 30.0, 10_000.0]))
@settings(max_examples=40, deadline=None)
def test_timeline_against_a_loop(seed, half_life):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 60))
    entity, confidence = rng.integers(0, 6, n), rng.choice([0, 0.5, 2.5], n)
    timestamp = 10**9 + rng.integers(0, 20, n) * 3 * DAY  # many ties
    timeline = Timeline.of(entity, timestamp, confidence, 8, half_life)
    asked, moments = rng.integers(0, 8, 50), 10**9 + rng.integers(-2, 70, 50) * DAY
    for state, e, moment in zip(timeline.at(asked, moments, (1, 7.5)), asked, moments, strict=True):
        past = (entity == e) & (timestamp < moment)
        age = (moment - timestamp[past]) / DAY
        expected = [past.sum(), confidence[past].sum(), (confidence[past] * 0.5 ** (age / half_life)).sum(), age.min() if past.any() else np.nan,
                    age.max() if past.any() else np.nan, (age <= 1).sum(), (age <= 7.5).sum()]
        np.testing.assert_allclose(state, expected, rtol=1e-9, atol=1e-12)


def test_running_sums_are_those_of_a_loop_whoever_else_is_there():
    rng = np.random.default_rng(0)
    for n_entities in (1, 3, 40):
        counts = rng.integers(0, 60, n_entities)
        counts[0] = 200
        start = np.concatenate([[0], np.cumsum(counts)])
        timestamp, values = np.concatenate([np.sort(rng.integers(0, 10**8, count)) for count in counts]), rng.random(start[-1]).astype(np.float32)
        plain, decayed = np.zeros(len(values)), np.zeros(len(values))
        for first, stop in pairwise(start):
            for here in range(first, stop):
                earlier = here > first
                plain[here] = values[here] + (plain[here - 1] if earlier else 0)
                decayed[here] = values[here] + (decayed[here - 1] * decay(timestamp[here] - timestamp[here - 1], 30.0) if earlier else 0)
        for few in (0, 16, 1_000):
            assert all(map(np.array_equal, _running_sums(values, timestamp, start, 30.0, few), (plain, decayed)))


def test_timeline_does_not_overflow_over_decades():
    timeline = Timeline.of(np.zeros(3, int), np.array([0, 30 * 365, 60 * 365]) * DAY, np.ones(3), 1, half_life_days=1.0)
    assert timeline.at(np.zeros(3, int), np.array([1, 30 * 365 + 1, 60 * 365 + 1]) * DAY)[:, 2].tolist() == [0.5, 0.5, 0.5]


def test_an_empty_timeline():
    timeline = Timeline.of(np.array([], int), np.array([], np.int64), np.array([]), 2, 30.0)
    assert timeline.at(np.array([1]), np.array([10]))[0, :3].tolist() == [0, 0, 0]


def test_matrix_against_a_loop(store):
    interactions, genres, years = store.interactions, make_genres().toarray(), make_years()
    users = np.array([3, 29, 8])
    items = np.array([[1, 39, -1], [0, 5, 6], [7, 7, 2]], np.int32)
    moments = np.array([interactions.as_of, 10**9 + 5 * 10**6, 10**9 + 5 * 10**6])
    pool = store.hybrid.pool_of_items(users, items, moments)
    matrix = store.matrix(pool, moments)
    assert matrix.shape == (3, 3, len(FEATURES)) and matrix.dtype == np.float32 and np.isnan(matrix[0, 2]).all()
    unit = lambda v: v / np.linalg.norm(v) if np.linalg.norm(v) else v  # noqa: E731
    vectors, lift = store.hybrid.sources["als"].item_factors, store.hybrid.sources["sequential"].lift.toarray()
    for row, (user, moment) in enumerate(zip(users, moments, strict=True)):
        own = (interactions.user_idx == user) & (interactions.timestamp < moment)
        mine, confidence = interactions.item_idx[own], interactions.confidence[own]
        share = genres[mine] / np.maximum(genres[mine].sum(axis=1, keepdims=True), 1)
        taste = (share * confidence[:, None]).sum(axis=0)
        decades = np.array([confidence[years[mine] == year].sum() for year in years])
        for place, item in enumerate(items[row]):
            if item < 0:
                continue
            theirs = (interactions.item_idx == item) & (interactions.timestamp < moment)
            age = (moment - interactions.timestamp[theirs]) / DAY
            expected = {"user_interactions": own.sum(), "item_interactions": theirs.sum(), "item_conf_sum": interactions.confidence[theirs].sum(),
                        "item_conf_decay_sum": (interactions.confidence[theirs] * 0.5 ** (age / 30)).sum(),
                        "item_genre_count": genres[item].sum(), "user_item_genre_aff": (taste / taste.sum() * genres[item]).sum() if taste.any() else 0,
                        "user_item_decade_aff": decades[item] / confidence.sum() if confidence.sum() else 0,
                        "item_events_30d": (age <= 30).sum(), "item_age_days": age.max() if len(age) else 0, "item_year": years[item],
                        "item_mean_conf": (interactions.confidence[theirs].sum() + 5) / (theirs.sum() + 5),
                        "item_trend": np.log(((age <= 7).sum() + 1) / 14 / (((age <= 30).sum() + 1) / 37)),
                        "user_events_week": (own & (interactions.timestamp >= moment - 7 * DAY)).sum(), "hour_of_day": moment // 3600 % 24,
                        "n_sources": sum(int(rank[row, place] > 0) for rank in pool.ranks.values()), "fused_rank": place + 1}
            if len(mine):
                fame = np.log1p([((interactions.item_idx == other) & (interactions.timestamp < moment)).sum() for other in mine])
                expected |= {"popularity_gap_1": np.log1p(theirs.sum()) - fame[-1], "popularity_gap_20": np.log1p(theirs.sum()) - fame.mean(),
                             "year_gap_20": years[item] - years[mine].mean(), "lift_1": lift[mine[-1], item], "lift_5": lift[mine[-5:], item].mean(),
                             "cosine_5": unit(vectors[item]) @ unit(np.mean([unit(vectors[other]) for other in mine[-5:]], axis=0)),
                             "genres_1": unit(genres[item]) @ unit(genres[mine[-1]])}
            for name, value in expected.items():
                np.testing.assert_allclose(matrix[row, place, V3_FEATURES.index(name)], value, rtol=1e-4, atol=1e-6, err_msg=f"{name} of user {user}, item {item}")


def test_scores_in_standard_deviations(store):
    moments = np.full(30, store.interactions.as_of)
    pool = store.hybrid.pool(np.arange(30), moments)
    values = store.matrix(pool, moments, ("als_z",))[:, :, 0]
    for user in range(29):
        scores = pool.source_scores["als"][user]
        np.testing.assert_allclose(values[user], (scores - np.nanmean(scores)) / np.nanstd(scores), rtol=1e-3, atol=1e-5)


def test_some_columns_are_those_of_the_whole(store):
    users, moments = np.arange(30), np.full(30, store.interactions.as_of)
    pool = store.hybrid.pool(users, moments)
    whole = store.matrix(pool, moments)
    for names in (V1_FEATURES, V2_FEATURES, ("lift_5", "user_interactions"), ("fused_score",), ("user_item_decade_aff",)):
        assert np.array_equal(store.matrix(pool, moments, names), whole[:, :, [V3_FEATURES.index(name) for name in names]], equal_nan=True)


def test_facts_looked_up_by_item_or_by_pair_are_the_same(store):
    """Many users at one moment share a table of items; users at moments of their own don't."""
    interactions = store.interactions
    users, items = np.arange(29), np.random.default_rng(0).integers(0, 40, (29, 40)).astype(np.int32)
    one = np.full(29, interactions.as_of - 10**6)
    shared = store._item_facts(items, one)
    apart = np.stack([store.items.at(row, np.full(40, one[0]), (1, 7, 30, 365)) for row in items])
    assert np.array_equal(shared, apart, equal_nan=True)
    few = np.where(users % 2, one, one - 10**6)
    assert np.array_equal(store._item_facts(items, few)[1::2], shared[1::2], equal_nan=True)


def test_events_after_the_moment_change_nothing():
    """Sources fitted on the past; later events of everybody are moved, made over, or taken away."""
    interactions = make_interactions()
    middle = int(np.median(interactions.timestamp))
    later = interactions.timestamp > middle
    hybrid = fitted(interactions.select(~later))
    users, items, moments = np.arange(30), np.random.default_rng(0).integers(0, 40, (30, 10)).astype(np.int32), np.full(30, middle)
    pool = hybrid.pool_of_items(users, items, moments)
    before = FeatureStore(hybrid, 30.0).matrix(pool, moments)
    assert np.isfinite(before[:29]).mean() > 0.6
    moved = replace(interactions, timestamp=interactions.timestamp + later * 1_000 * DAY, confidence=np.where(later, np.float32(99), interactions.confidence),
                    item_idx=np.where(later, 39 - interactions.item_idx, interactions.item_idx).astype(np.int32), as_of=interactions.as_of + 1_000 * DAY)
    for others in (moved, interactions):
        known = copy(hybrid)
        known.interactions = others
        assert np.array_equal(FeatureStore(known, 30.0).matrix(pool, moments), before, equal_nan=True)


def test_one_user_is_a_batch_of_one(store):
    items = np.random.default_rng(0).integers(0, 40, (30, 10)).astype(np.int32)
    moments = np.full(30, store.interactions.as_of)
    together = matrix_of(store, np.arange(30), items, moments)
    for user in range(30):
        assert np.array_equal(together[user], matrix_of(store, np.array([user]), items[[user]], moments[:1])[0], equal_nan=True)


def test_sources_that_are_not_there_are_unknown_and_newcomers_are_described(store):
    matrix = matrix_of(store, np.array([29]), [[1, 2]], np.array([store.interactions.as_of]))[0]
    assert np.isnan(matrix[:, V3_FEATURES.index("sasrec_score")]).all() and np.isnan(matrix[:, V3_FEATURES.index("popularity_gap_20")]).all()
    assert (matrix[:, V3_FEATURES.index("lift_20")] == 0).all() and (matrix[:, V3_FEATURES.index("user_interactions")] == 0).all()


def test_where_there_is_nothing_to_look_at_stands_the_declared_default(store):
    """A user and an item that nobody has met: whatever isn't about the request or the catalogue is its default."""
    matrix = matrix_of(store, np.array([29]), [[38]], np.array([store.interactions.as_of]))[0, 0]
    given = {"item_genre_count", "item_year", "hour_of_day", "user_context", "fused_rank"}
    for feature, value in zip(FEATURES, matrix, strict=True):
        if feature.name not in given:
            np.testing.assert_allclose(value, feature.default, rtol=1e-6, err_msg=feature.name)


@pytest.mark.parametrize("moment", [None, "middle"])
def test_tables_against_the_matrix(tmp_path, moment):
    """Two ways that share nothing, SQL over Parquet and arrays, give the same numbers, whatever the moment."""
    config = tiny_settings(tmp_path)
    data = build_interactions(config, ingest(config, write_archive(tmp_path / "archive")))
    interactions, items = load_interactions(data), load_items(data)
    as_of = None if moment is None else int(np.median(interactions.timestamp))
    built = build_features(config, data, as_of)
    as_of = built.manifest["contents"]["as_of"]
    assert as_of == (interactions.as_of if moment is None else int(np.median(interactions.timestamp)))
    store = FeatureStore(make_hybrid(config, items).fit(interactions), 30.0)
    everything = np.tile(np.arange(len(items), dtype=np.int32), (interactions.n_users, 1))
    moments = np.full(interactions.n_users, as_of)
    matrix = matrix_of(store, np.arange(interactions.n_users), everything, moments, V2_FEATURES)

    def table(name):
        return query("SELECT * FROM t", t=built.path / f"{name}.parquet")

    for column, name in enumerate(V2_FEATURES[:8]):
        entity = name.split("_")[0]
        expected = table(f"{entity}_features").sort_values(f"{entity}_idx")[name].fillna(36_500).to_numpy(float)
        np.testing.assert_allclose(matrix[:, 0, column] if entity == "user" else matrix[0, :, column], expected, rtol=1e-5, atol=1e-9, err_msg=name)
    pairs, affinity = table("item_genres_expanded"), table("user_genre_affinity")
    assert pairs.groupby("item_idx").genre.apply(sorted).tolist() == [sorted(set(row)) for row in items.genres if len(row)]
    joined = affinity.merge(pairs, on="genre").groupby(["user_idx", "item_idx"])[["affinity", "affinity_decay"]].sum()
    for column, name in ((9, "affinity"), (10, "affinity_decay")):
        expected = np.zeros(everything.shape)
        expected[joined.index.get_level_values(0), joined.index.get_level_values(1)] = joined[name]
        np.testing.assert_allclose(matrix[:, :, column], expected, rtol=1e-4, atol=1e-6, err_msg=name)
    priors = table("genre_item_priors")
    assert np.allclose(priors.groupby("genre").prior.sum(), 1) and (priors.prior > 0).all()
    past = interactions.timestamp < as_of
    heat = np.bincount(interactions.item_idx[past], interactions.confidence[past] * 0.5 ** ((as_of - interactions.timestamp[past]) / (30 * DAY)), len(items))
    first = priors[priors.genre == priors.genre.min()]
    members = [i for i, genres in enumerate(items.genres) if priors.genre.min() in genres]
    np.testing.assert_allclose(first.prior, heat[first.item_idx] / heat[members].sum(), rtol=1e-9)
