"""Matrix factorisation: the loss, the direction of the matrix, warm starts and fold-in."""

import numpy as np
import pytest
from helpers import as_new_users, make_histories, make_interactions

from movierec.retrieval.als import ALS, ALSRecent

INTERACTIONS = make_interactions()


def loss(model: ALS, interactions) -> float:
    """Hu et al.'s loss with alpha 2 and regularization 1."""
    confidence = interactions.matrix.toarray()
    weight = np.where(confidence > 0, 1 + 2 * confidence, 1)
    squares = weight * ((confidence > 0) - model.user_factors @ model.item_factors.T) ** 2
    return squares.sum() + (model.user_factors**2).sum() + (model.item_factors**2).sum()


def test_user_vectors_minimise_the_loss():
    """Each side is the exact solution for the other (Hu et al. 2008, eq. 4), up to the last half-step."""
    model = ALS(factors=4, alpha=2.0, regularization=0.5, iterations=60).fit(INTERACTIONS)
    confidence, y = INTERACTIONS.matrix.toarray().astype(float), model.item_factors.astype(float)
    for user in (0, 7, 20):
        weighted = y * (1 + 2.0 * confidence[user])[:, None]
        solution = np.linalg.solve(weighted.T @ y + 0.5 * np.eye(4), weighted.T @ (confidence[user] > 0))
        assert np.allclose(solution, model.user_factors[user], atol=2e-3)


def test_the_matrix_is_users_by_items():
    """Two groups that like disjoint items: a transposed matrix would recommend across them."""
    rng = np.random.default_rng(0)
    interactions = make_histories([(rng.permutation(20)[:10] + 20 * (user % 2)).tolist() for user in range(60)], 40)
    model = ALS(factors=4).fit(interactions)
    assert model.user_factors.shape == (60, 4) and model.item_factors.shape == (40, 4)
    best = model.top_k(np.arange(60), 5)[0]
    assert (best // 20 == (np.arange(60) % 2)[:, None]).mean() > 0.95


def test_a_warm_start_saves_iterations(tmp_path):
    """A few iterations from the vectors of a part of the history get nearly as far as many from random ones."""
    part = INTERACTIONS.select(INTERACTIONS.timestamp < np.quantile(INTERACTIONS.timestamp, 0.9))
    earlier = ALS(factors=8, iterations=30).fit(part)
    earlier.save(tmp_path)
    start = ALS.load(tmp_path, None)
    warm = ALS(factors=8, continue_iterations=5, start_from=start).fit(INTERACTIONS)
    few, many = (loss(ALS(factors=8, iterations=n).fit(INTERACTIONS), INTERACTIONS) for n in (5, 30))
    assert loss(warm, INTERACTIONS) < min(few, 1.02 * many)
    assert "start_from" not in warm.parameters()
    assert np.array_equal(earlier.user_factors, start.user_factors), "the start must be left as it was"


def test_fold_in_gives_the_vectors_of_implicit():
    from implicit.cpu.als import AlternatingLeastSquares

    als = ALS(factors=8, alpha=3.0, regularization=0.7).fit(INTERACTIONS)
    reference = AlternatingLeastSquares(factors=8, regularization=0.7)
    reference.item_factors = als.item_factors
    weights = INTERACTIONS.matrix.copy()
    weights.data = 1 + 3 * weights.data
    expected = reference.recalculate_user(np.arange(30), weights)
    folded = als.fold_in(as_new_users(INTERACTIONS, np.arange(30)))
    assert folded.user_factors == pytest.approx(expected, abs=1e-4)


def test_recent_als_solves_for_the_last_events():
    als = ALS(factors=8).fit(INTERACTIONS)
    model = ALSRecent(last=3, decay=0.5, ridge=2.0, als=als).fit(INTERACTIONS)
    assert model.item_factors is als.item_factors, "one fit for both"
    y, history = als.item_factors.astype(float), INTERACTIONS.recent(np.arange(29), 3, 0.5).toarray()
    vectors = np.linalg.solve(y.T @ y + 2 * np.eye(8), y.T @ history.T).T
    assert np.allclose(model._scores(np.arange(29), np.zeros(29)), vectors @ y.T, atol=1e-4)
