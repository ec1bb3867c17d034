"""Feature tables by SQL over Parquet, against the feature store's arrays: two ways that share no code."""

from types import SimpleNamespace

import numpy as np
import pytest
from helpers import tiny_settings, write_archive

from movierec.config import DAY
from movierec.data.ingest import ingest
from movierec.data.interactions import build_interactions, load_interactions, load_items
from movierec.data.tables import query
from movierec.ranking.feature_store import FeatureStore
from movierec.ranking.feature_tables import build_features
from movierec.ranking.features import NEVER, V2_FEATURES
from movierec.retrieval.hybrid import make_hybrid


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The tiny archive, ingested, and a feature store over it."""
    folder = tmp_path_factory.mktemp("tables")
    settings = tiny_settings(folder)
    data = build_interactions(settings, ingest(settings, write_archive(folder / "archive")))
    interactions, items = load_interactions(data), load_items(data)
    store = FeatureStore(make_hybrid(settings, items).fit(interactions), 30.0)
    return SimpleNamespace(settings=settings, data=data, interactions=interactions, items=items, store=store)


@pytest.fixture(scope="module", params=["end", "middle"])
def as_of(request, tiny):
    """A prediction time."""
    interactions = tiny.interactions
    return interactions.as_of if request.param == "end" else int(np.median(interactions.timestamp))


@pytest.fixture(scope="module")
def table(tiny, as_of):
    """Read a feature table as of the time; the end is the default."""
    built = build_features(tiny.settings, tiny.data, None if as_of == tiny.interactions.as_of else as_of)
    assert built.manifest["contents"]["as_of"] == as_of
    return lambda name: query("SELECT * FROM t", t=built.path / f"{name}.parquet")


@pytest.fixture(scope="module")
def matrix(tiny, as_of):
    """V2's features of every user and item."""
    n, n_items = tiny.interactions.n_users, len(tiny.items)
    items, times = np.tile(np.arange(n_items, dtype=np.int32), (n, 1)), np.full(n, as_of)
    pool = tiny.store.hybrid.builder.pool_of_items(np.arange(n), items, times)
    return tiny.store.matrix(pool, times, V2_FEATURES)


def test_activity(table, matrix):
    for column, name in enumerate(V2_FEATURES[:8]):
        entity = name.split("_")[0]
        expected = table(f"{entity}_features").sort_values(f"{entity}_idx")[name].fillna(NEVER).to_numpy(float)
        found = matrix[:, 0, column] if entity == "user" else matrix[0, :, column]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-9, err_msg=name)


def test_genre_affinity(tiny, table, matrix):
    pairs, affinity = table("item_genres_expanded"), table("user_genre_affinity")
    genres = pairs.groupby("item_idx").genre.apply(sorted).tolist()
    assert genres == [sorted(set(row)) for row in tiny.items.genres if len(row)]
    joined = affinity.merge(pairs, on="genre").groupby(["user_idx", "item_idx"])[["affinity", "affinity_decay"]].sum()
    users, items = (joined.index.get_level_values(level) for level in (0, 1))
    for column, name in ((9, "affinity"), (10, "affinity_decay")):
        expected = np.zeros(matrix.shape[:2])
        expected[users, items] = joined[name]
        np.testing.assert_allclose(matrix[:, :, column], expected, rtol=1e-4, atol=1e-6, err_msg=name)


def test_genre_priors(tiny, as_of, table):
    priors = table("genre_item_priors")
    assert np.allclose(priors.groupby("genre").prior.sum(), 1) and (priors.prior > 0).all()
    past = tiny.interactions.timestamp < as_of
    age = (as_of - tiny.interactions.timestamp[past]) / DAY
    decayed = tiny.interactions.confidence[past] * 0.5 ** (age / 30)
    popularity = np.bincount(tiny.interactions.item_idx[past], decayed, len(tiny.items))
    genre = priors.genre.min()
    of_genre = priors[priors.genre == genre]
    members = [item for item, genres in enumerate(tiny.items.genres) if genre in genres]
    expected = popularity[of_genre.item_idx] / popularity[members].sum()
    np.testing.assert_allclose(of_genre.prior, expected, rtol=1e-9)
