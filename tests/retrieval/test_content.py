"""Scores by attributes, against the same regression written out."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import make_genres, make_interactions, make_years
from scipy import sparse

from movierec.retrieval.content import Content, attribute_matrix, year_basis
from movierec.retrieval.linear import EASE
from movierec.retrieval.recommender import AmongItems

INTERACTIONS, GENRES, YEARS = make_interactions(), make_genres(), make_years()
WITHHELD = np.arange(3, INTERACTIONS.n_items, 5)
KNOWN = INTERACTIONS.select(~np.isin(INTERACTIONS.item_idx, WITHHELD))
USERS = np.arange(KNOWN.n_users)
AS_OF = np.full(len(USERS), KNOWN.as_of)


@pytest.fixture(scope="module")
def source():
    """A source fitted without the events of some items; read only."""
    ease = EASE(regularization=20, min_events=1).fit(KNOWN)
    return Content(3.0, item_genres=GENRES, item_years=YEARS, ease=ease).fit(KNOWN)


def test_attributes_by_hand():
    attributes, genres = attribute_matrix(GENRES, YEARS), GENRES.toarray()
    basis = year_basis(YEARS).toarray()
    assert np.isfinite(attributes.data).all() and attributes.shape[0] == len(YEARS)
    for item in range(len(YEARS)):
        expected = [1.0, *genres[item], *basis[item]]
        expected += [genres[item, i] * genres[item, j] for i in range(genres.shape[1]) for j in range(i)]
        expected += [genre * value for genre in genres[item] for value in basis[item]]
        own = np.sort(attributes[item].data)
        assert own == pytest.approx(np.sort([value for value in expected if value > 0]), abs=1e-6), item


def test_other_attributes_are_used_as_they_are():
    words = sparse.csr_matrix((np.ones(5, np.float32), (np.arange(5), [0, 1, 1, 0, 1])), shape=(len(YEARS), 2))
    plain, more = attribute_matrix(GENRES, YEARS), attribute_matrix(GENRES, YEARS, words)
    assert (more[:, : plain.shape[1]] != plain).nnz == 0 and (more[:, plain.shape[1] :] != words).nnz == 0


def test_scores_are_a_ridge_regression_of_each_users_ease_scores(source):
    ease, items = source.ease, source.items
    attributes = attribute_matrix(GENRES, YEARS).toarray().astype(float)
    history = np.zeros((KNOWN.n_users, KNOWN.n_items))
    history[KNOWN.user_idx, KNOWN.item_idx] = 1
    found = source.unseen_scores(USERS, AS_OF)
    square = attributes[items].T @ attributes[items] + 3 * np.eye(attributes.shape[1])
    for user in USERS:
        scores = history[user, items] @ ease.weights
        coefficients = np.linalg.solve(square, attributes[items].T @ scores)
        expected = attributes @ coefficients
        seen = history[user] > 0
        assert not np.isfinite(found[user, seen]).any() or not seen.any()
        if seen.any():
            assert found[user, ~seen] == pytest.approx(expected[~seen], abs=2e-3)


def test_items_without_events_are_proposed_and_nobody_without_history_gets_a_list(source):
    items, _ = source.top_k(USERS, 10, AS_OF)
    assert np.isin(items, WITHHELD).any()
    strangers = source.fold_in(KNOWN.fold_in_users(KNOWN.select(np.zeros(len(KNOWN), bool))))
    assert (strangers.top_k(USERS, 10, AS_OF)[0] == -1).all()


def test_a_saved_source_scores_alike(source, tmp_path):
    source.save(tmp_path)
    again = Content.load(tmp_path, KNOWN)
    assert again.takeover_events is None
    assert np.array_equal(again.unseen_scores(USERS, AS_OF), source.unseen_scores(USERS, AS_OF))


def test_events_take_over_smoothly(source):
    mixed = replace(source, takeover_events=4.0)
    mixed.interactions, mixed.items, mixed.attributes = KNOWN, source.items, source.attributes
    mixed.weights = source.weights
    plain, found = source.unseen_scores(USERS, AS_OF), mixed.unseen_scores(USERS, AS_OF)
    by_ease = source.ease.unseen_scores(USERS, AS_OF)
    for item in range(KNOWN.n_items):
        n = KNOWN.item_counts[item] if item in source.items else 0
        rows = np.isfinite(plain[:, item])
        expected = n / (n + 4) * (by_ease[rows, item] if n else 0) + 4 / (n + 4) * plain[rows, item]
        assert found[rows, item] == pytest.approx(expected, abs=1e-5), item


def test_new_items_are_those_without_events_that_the_user_has_not_seen(source):
    plain = source.unseen_scores(USERS, AS_OF)
    without = np.flatnonzero(KNOWN.item_counts == 0)
    items, scores = source.new_items(USERS, 4, exclude=without[:1])
    for user in USERS[KNOWN.user_counts > 0]:
        own = plain[user, without[1:]]
        best = without[1:][np.lexsort((without[1:], -own))[:4]]
        assert items[user].tolist() == best.tolist() and scores[user] == pytest.approx(plain[user, best], abs=1e-5)
    one = INTERACTIONS.select((INTERACTIONS.item_idx == WITHHELD[0]) | np.isin(INTERACTIONS.item_idx, source.items))
    seen = source.fold_in(KNOWN.fold_in_users(one))
    has = np.flatnonzero(one.csr(np.ones(len(one)))[:, [WITHHELD[0]]].toarray())
    assert len(has) and not (seen.new_items(has, 10)[0] == WITHHELD[0]).any()


def test_lists_among_some_items_are_in_the_order_of_the_scores(source):
    among = AmongItems(source, WITHHELD)
    items, scores = among.top_k(USERS, 8, AS_OF)
    expected = source.unseen_scores(USERS, AS_OF)[:, WITHHELD]
    for user in USERS[np.isfinite(expected).any(axis=1)]:
        order = np.lexsort((WITHHELD, -expected[user]))[:8]
        assert items[user].tolist() == WITHHELD[order].tolist()
        assert scores[user].tolist() == expected[user, order].tolist()
    folded = among.fold_in(KNOWN.fold_in_users(KNOWN))
    assert np.array_equal(folded.top_k(USERS, 8, AS_OF)[0], items) and folded.name == "content"
