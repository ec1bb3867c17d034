"""Features as of a moment, against plain loops over the events strictly before it."""

import numpy as np
from conftest import tiny_settings, write_archive
from hypothesis import given, settings
from hypothesis import strategies as st
from test_baselines import make_genres, make_interactions

from movierec.config import DAY
from movierec.features import FEATURES, V1_FEATURES, V2_FEATURES, FeatureStore, Timeline, build_features, feature_tables
from movierec.ingest import ingest, query
from movierec.interactions import Interactions, build_interactions, item_genre_matrix, load_interactions, load_items

LOCKED = ("user_interactions", "user_conf_sum", "user_conf_decay_sum", "user_days_since_last", "item_interactions", "item_conf_sum",
          "item_conf_decay_sum", "item_days_since_last", "item_genre_count", "user_item_genre_aff", "user_item_genre_aff_decay")


def test_the_order_is_locked():
    assert V2_FEATURES == LOCKED and LOCKED[:8] == V1_FEATURES


@given(st.integers(0, 100_000), st.sampled_from([0.5, 30.0, 10_000.0]))
@settings(max_examples=40, deadline=None)
def test_timeline_against_a_loop(seed, half_life):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 60))
    entity, confidence = rng.integers(0, 6, n), rng.choice([0, 0.5, 2.5], n)
    timestamp = 10**9 + rng.integers(0, 20, n) * 3 * DAY  # many ties
    timeline = Timeline.of(entity, timestamp, confidence, 8, half_life)
    asked, moments = rng.integers(0, 8, 50), 10**9 + rng.integers(-2, 70, 50) * DAY
    for state, e, moment in zip(timeline.at(asked, moments), asked, moments, strict=True):
        past = (entity == e) & (timestamp < moment)
        age = (moment - timestamp[past]) / DAY
        expected = [past.sum(), confidence[past].sum(), (confidence[past] * 0.5 ** (age / half_life)).sum(), age.min() if past.any() else np.nan]
        np.testing.assert_allclose(state, expected, rtol=1e-9, atol=1e-12)


def test_timeline_does_not_overflow_over_decades():
    timeline = Timeline.of(np.zeros(3, int), np.array([0, 30 * 365, 60 * 365]) * DAY, np.ones(3), 1, half_life_days=1.0)
    assert timeline.at(np.zeros(3, int), np.array([1, 30 * 365 + 1, 60 * 365 + 1]) * DAY)[:, 2].tolist() == [0.5, 0.5, 0.5]


def test_an_empty_timeline():
    timeline = Timeline.of(np.array([], int), np.array([], np.int64), np.array([]), 2, 30.0)
    assert timeline.at(np.array([1]), np.array([10]))[0, :3].tolist() == [0, 0, 0]


def test_matrix_against_a_loop():
    interactions, genres = make_interactions(), make_genres()
    dense, store = genres.toarray(), FeatureStore(interactions, genres, 30.0)
    users = np.array([3, 29, 8])
    items = np.array([[1, 39, -1], [0, 5, 6], [7, 7, 2]])
    moments = np.array([interactions.as_of, 10**9 + 5 * 10**6, 10**9 + 5 * 10**6])
    matrix = store.matrix(users, items, moments)
    assert matrix.shape == (3, 3, len(FEATURES)) and matrix.dtype == np.float32 and np.isnan(matrix[0, 2]).all()
    for row, (user, moment) in enumerate(zip(users, moments, strict=True)):
        own = (interactions.user_idx == user) & (interactions.timestamp < moment)
        share = dense[interactions.item_idx[own]] / np.maximum(dense[interactions.item_idx[own]].sum(axis=1, keepdims=True), 1)
        taste = (share * interactions.confidence[own][:, None]).sum(axis=0)
        for place, item in enumerate(items[row]):
            if item < 0:
                continue
            theirs = (interactions.item_idx == item) & (interactions.timestamp < moment)
            age = (moment - interactions.timestamp[theirs]) / DAY
            expected = {"user_interactions": own.sum(), "item_interactions": theirs.sum(), "item_conf_sum": interactions.confidence[theirs].sum(),
                        "item_conf_decay_sum": (interactions.confidence[theirs] * 0.5 ** (age / 30)).sum(),
                        "item_genre_count": dense[item].sum(), "user_item_genre_aff": (taste / taste.sum() * dense[item]).sum() if taste.any() else 0}
            for name, value in expected.items():
                np.testing.assert_allclose(matrix[row, place, V2_FEATURES.index(name)], value, rtol=1e-5, err_msg=name)


def test_events_from_the_moment_on_change_nothing():
    interactions, genres = make_interactions(), make_genres()
    middle = int(np.median(interactions.timestamp))
    users, items = np.arange(30), np.random.default_rng(0).integers(0, 40, (30, 10))
    before = FeatureStore(interactions, genres, 30.0).matrix(users, items, np.full(30, middle))

    future = interactions.timestamp >= middle
    arrays = {name: getattr(interactions, name).copy() for name in ("user_idx", "item_idx", "rating", "confidence", "timestamp")}
    arrays["timestamp"][future] += 1_000 * DAY
    arrays["confidence"][future] = 99
    shifted = FeatureStore(Interactions(**arrays, n_users=30, n_items=40, as_of=interactions.as_of + 1_000 * DAY), genres, 30.0)
    assert np.array_equal(before, shifted.matrix(users, items, np.full(30, middle)), equal_nan=True)
    gone = FeatureStore(interactions.select(~future, as_of=middle), genres, 30.0)
    assert np.array_equal(before, gone.matrix(users, items, np.full(30, middle)), equal_nan=True)


def test_one_user_is_a_batch_of_one():
    interactions, genres = make_interactions(), make_genres()
    store = FeatureStore(interactions, genres, 30.0)
    items = np.random.default_rng(0).integers(0, 40, (30, 10))
    moments = np.full(30, interactions.as_of)
    together = store.matrix(np.arange(30), items, moments)
    for user in range(30):
        assert np.array_equal(together[user], store.matrix(np.array([user]), items[[user]], moments[:1])[0], equal_nan=True)


def test_tables_against_sql(tmp_path):
    """The Parquet tables are what a plain GROUP BY over the events gives."""
    config = tiny_settings(tmp_path)
    data = build_interactions(config, ingest(config, write_archive(tmp_path / "archive")))
    built = build_features(config, data)
    as_of = built.manifest["contents"]["as_of"]
    for entity in ("user", "item"):
        rows = query(f"""
            SELECT f.*, e.* FROM features f LEFT JOIN (
                SELECT {entity}_idx, count(*) AS n, sum(confidence) AS total, max(timestamp) AS last,
                       sum(confidence * pow(0.5, ({as_of} - timestamp) / (30.0 * 86400))) AS decayed
                FROM interactions GROUP BY {entity}_idx) e USING ({entity}_idx) ORDER BY {entity}_idx""",
            features=built.path / f"{entity}_features.parquet", interactions=data.path / "interactions.parquet")
        np.testing.assert_array_equal(rows[f"{entity}_interactions"], rows.n.fillna(0))
        np.testing.assert_allclose(rows[f"{entity}_conf_sum"], rows.total.fillna(0))
        np.testing.assert_allclose(rows[f"{entity}_conf_decay_sum"], rows.decayed.fillna(0), rtol=1e-9, atol=1e-15)
        np.testing.assert_allclose(rows[f"{entity}_days_since_last"], (as_of - rows["last"]) / DAY)
    genres = query("SELECT item_idx, list(genre ORDER BY genre) AS genres FROM g GROUP BY item_idx ORDER BY item_idx", g=built.path / "item_genres.parquet")
    assert [list(row) for row in genres.genres] == [sorted(set(row)) for row in load_items(data).genres]


def test_tables_hold_what_the_matrix_holds(tmp_path):
    config = tiny_settings(tmp_path)
    data = build_interactions(config, ingest(config, write_archive(tmp_path / "archive")))
    interactions = load_interactions(data)
    genres, names = item_genre_matrix(load_items(data))
    store = FeatureStore(interactions, genres, 30.0)
    tables = feature_tables(store, names, interactions.as_of)
    matrix = store.matrix(np.array([5]), np.arange(120)[None, :], np.array([interactions.as_of]))[0]
    for column, name in enumerate(V2_FEATURES[:8]):
        entity = name.split("_")[0]
        table = tables[f"{entity}_features"][name].to_numpy()
        np.testing.assert_allclose(matrix[:, column], table[5] if entity == "user" else table, rtol=1e-6)
    affinity = tables["user_genre_affinity"].query("user_idx == 5").set_index("genre").affinity
    for item in (0, 17, 119):
        expected = sum(affinity.get(names[g], 0) for g in genres[[item]].indices)
        np.testing.assert_allclose(matrix[item, 9], expected, rtol=1e-5)
