"""The model of ratings, against plain loops and on ratings whose structure is known."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import make_interactions

from movierec.retrieval.ratings import RatingModel


@pytest.fixture(scope="module")
def rated():
    """Ratings made of item means, user biases and one taste that splits users and items into halves; some missing."""
    interactions, rng = make_interactions(), np.random.default_rng(1)
    users, items = interactions.user_idx, interactions.item_idx
    item_mean, user_bias = rng.normal(3.5, 0.5, interactions.n_items), rng.normal(0, 0.4, interactions.n_users)
    taste = np.where(users % 2 == items % 2, 0.6, -0.6)
    ratings = item_mean[items] + user_bias[users] + taste + rng.normal(0, 0.1, len(users))
    ratings[rng.random(len(users)) < 0.1] = np.nan
    return replace(interactions, rating=ratings.astype(np.float32))


@pytest.fixture(scope="module")
def model(rated):
    return RatingModel(factors=4, regularization=0.5).fit(rated)


def predict_by_a_loop(model, events, user, item, as_of):
    """One prediction, event by event."""
    own = [
        (i, r) for u, i, r, t in zip(events.user_idx, events.item_idx, events.rating, events.timestamp, strict=True)
        if u == user and t <= as_of and not np.isnan(r)
    ]
    residuals = np.array([r - model.item_means[i] for i, r in own])
    bias = residuals.sum() / (len(own) + model.user_shrinkage)
    vectors = np.array([model.item_vectors[i] for i, _ in own]).reshape(len(own), model.factors)
    left = vectors.T @ vectors + model.regularization * np.eye(model.factors)
    vector = np.linalg.solve(left, vectors.T @ (residuals - bias))
    return model.item_means[item] + bias + vector @ model.item_vectors[item]


def test_predictions_against_a_loop(model, rated):
    users, as_of = np.array([0, 3, 29]), np.full(3, rated.as_of)
    as_of[1] = rated.timestamp[rated.indptr[3] + 2]
    items = np.tile(np.arange(0, rated.n_items, 7), (3, 1))
    predicted = model.predict(users, items, as_of)
    expected = [
        [predict_by_a_loop(model, rated, user, item, time) for item in row]
        for user, row, time in zip(users, items, as_of, strict=True)
    ]
    assert np.allclose(predicted, expected, atol=1e-5)


def test_it_finds_the_structure(model, rated):
    """Held-in ratings are predicted better than by item means and user biases."""
    known = np.isfinite(rated.rating)
    users, items = rated.user_idx[known], rated.item_idx[known]
    bias, vectors = model.user_side(np.arange(rated.n_users), np.full(rated.n_users, rated.as_of))
    by_biases = model.item_means[items] + bias[users]
    predicted = by_biases + (vectors[users] * model.item_vectors[items]).sum(axis=1)
    errors = [np.sqrt(np.mean((rated.rating[known] - guess) ** 2)) for guess in (by_biases, predicted)]
    assert errors[1] < 0.6 * errors[0]


def test_nothing_after_the_prediction_time_is_used(model, rated):
    middle = int(np.median(rated.timestamp))
    users, times = np.arange(rated.n_users), np.full(rated.n_users, middle)
    items = np.tile(np.arange(rated.n_items), (rated.n_users, 1))
    changed = replace(rated, rating=np.where(rated.timestamp > middle, 1, rated.rating).astype(np.float32))
    now = model.fold_in(rated.fold_in_users(rated)).predict(users, items, times)
    assert np.array_equal(model.fold_in(rated.fold_in_users(changed)).predict(users, items, times), now)
    earlier = rated.select(rated.timestamp <= middle)
    assert np.array_equal(model.fold_in(rated.fold_in_users(earlier)).predict(users, items, times), now)


def test_saved_and_loaded_it_predicts_the_same(model, rated, tmp_path):
    model.save(tmp_path)
    loaded, users = RatingModel.load(tmp_path, rated), np.arange(rated.n_users)
    items, as_of = np.tile(np.arange(10), (rated.n_users, 1)), np.full(rated.n_users, rated.as_of)
    assert np.array_equal(loaded.predict(users, items, as_of), model.predict(users, items, as_of))
    again = RatingModel(factors=4, regularization=0.5).fit(rated)
    assert np.array_equal(again.item_vectors, model.item_vectors)


def test_without_ratings_there_is_no_prediction(rated):
    implicit = replace(rated, rating=np.full(len(rated), np.nan, np.float32))
    model = RatingModel().fit(implicit)
    assert np.isnan(model.predict(np.array([1]), np.array([[0, 5]]), np.array([rated.as_of]))).all()
