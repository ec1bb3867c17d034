"""Affinities and scores of genre neighbours, against plain loops."""

import numpy as np
import pytest
from helpers import make_genres, make_interactions, make_years
from scipy import sparse

from movierec.config import DAY
from movierec.data.interactions import decade_matrix
from movierec.retrieval.genre import GenreNeighbours, category_affinity, category_shares

INTERACTIONS, GENRES, YEARS = make_interactions(), make_genres(), make_years()
SHARES, USERS = category_shares(GENRES), np.arange(30)
HALF_LIFE, POPULARITY_HALF_LIFE = 30.0, 90.0


@pytest.fixture(scope="module")
def source():
    """A fitted source; read only."""
    return GenreNeighbours(HALF_LIFE, POPULARITY_HALF_LIFE, item_genres=GENRES, item_years=YEARS).fit(INTERACTIONS)


@pytest.mark.parametrize("half_life", [None, HALF_LIFE])
def test_affinity_by_hand(half_life):
    genres, times = GENRES.toarray(), np.random.default_rng(0).choice(INTERACTIONS.timestamp, 30)
    expected = np.zeros((30, 5))
    events = zip(
        INTERACTIONS.user_idx, INTERACTIONS.item_idx, INTERACTIONS.timestamp, INTERACTIONS.confidence, strict=True
    )
    for user, item, time, confidence in events:
        if time < times[user] and genres[item].any():
            weight = 1 if half_life is None else 0.5 ** ((times[user] - time) / DAY / half_life)
            expected[user] += confidence * weight * genres[item] / genres[item].sum()
    total = expected.sum(axis=1, keepdims=True)
    expected = np.divide(expected, total, out=np.zeros_like(expected), where=total > 0)
    affinity = category_affinity(INTERACTIONS, SHARES, USERS, times, (half_life,))[:, :, 0]
    assert np.allclose(affinity, expected, atol=1e-6)


def test_affinity_survives_any_age():
    late = np.full(30, INTERACTIONS.as_of + 200 * 365 * DAY)
    affinity = category_affinity(INTERACTIONS, SHARES, USERS, late, (1.0,))[:, :, 0]
    assert np.allclose(affinity.sum(axis=1)[:29], 1) and affinity.sum(axis=1)[29] == 0


def test_snapshots_end_with_the_history(source):
    assert source.times[-1] == INTERACTIONS.as_of
    assert np.diff(source.times).max() <= POPULARITY_HALF_LIFE / 12 * DAY + 1


def expected_scores(user: int, snapshot: int, as_of: int) -> np.ndarray:
    """Popularity at the snapshot, times affinity over popularity, summed over genres, and over decades."""
    is_past = INTERACTIONS.timestamp < snapshot
    age = (snapshot - INTERACTIONS.timestamp) / DAY
    weight = INTERACTIONS.confidence * 0.5 ** (age / POPULARITY_HALF_LIFE)
    popularity = np.bincount(INTERACTIONS.item_idx[is_past], weight[is_past], 40).astype(float)
    scores = popularity.copy()
    for membership in (GENRES, decade_matrix(YEARS)):
        shares, ones = category_shares(membership), membership.toarray()
        affinity = category_affinity(INTERACTIONS, shares, np.array([user]), np.array([as_of]), (HALF_LIFE,))[0, :, 0]
        total = ones.T @ popularity
        scores *= ones @ np.divide(affinity, total, out=np.zeros(len(affinity)), where=total > 0)
    return scores


def test_scores_are_as_of_the_prediction_time(source):
    times = np.random.default_rng(1).choice(INTERACTIONS.timestamp, 30)
    scores = source._scores(USERS, times)
    for user, time in enumerate(times):
        earlier = source.times[source.times <= time]
        if not len(earlier):
            assert np.isneginf(scores[user]).all()
            continue
        expected = expected_scores(user, earlier[-1], time)
        assert np.allclose(np.where(np.isneginf(scores[user]), 0, scores[user]), expected, atol=1e-6)


def test_a_catalogue_without_genres_or_years():
    no_genres = sparse.csr_matrix((40, 0), dtype=np.float32)
    source = GenreNeighbours(item_genres=no_genres, item_years=np.full(40, np.nan, np.float32)).fit(INTERACTIONS)
    assert (source.top_k(USERS, 5)[0] == -1).all()
