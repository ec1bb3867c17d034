"""Calibrators: known probabilities are found, orders are kept, files say the same."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from movierec.config import ArtifactError, load_settings
from movierec.ranking.calibration import (
    CALIBRATION_FILE,
    METHODS,
    CalibrationSet,
    calibration_bins,
    calibration_error,
    choose_calibrator,
    cross_fitted,
    describe_horizon,
    fit_calibrator,
    fit_logistic,
    load_calibrators,
    log_loss,
    save_calibrators,
)

RANKS = np.arange(1, 11)[None]


def made_up(seed=0, n=3_000, slope=2.0, new_users_gain=0.0):
    """Lists whose log odds are `slope` times the score, less 1; more for new users, who are every third."""
    rng = np.random.default_rng(seed)
    scores = np.sort(rng.normal(0, 0.5, (n, 10)), axis=1)[:, ::-1]
    n_events = np.where(np.arange(n) % 3, 40, 0)
    odds = slope * scores - 1 + new_users_gain * (n_events == 0)[:, None]
    watched = rng.random(odds.shape) < expit(odds)
    return CalibrationSet(scores, watched, np.ones(odds.shape, bool), n_events), expit(odds)


@pytest.mark.parametrize("method", ["platt", "beta", "isotonic", "score and activity"])
def test_known_probabilities_are_found(method):
    known, _ = made_up()
    new, probability = made_up(seed=1)
    found = fit_calibrator(known, method).predict(new.scores, RANKS, new.n_events)
    assert np.abs(found - probability).mean() < 0.015
    assert calibration_error(found.ravel(), new.is_watched.ravel()) < 0.06


def test_activity_is_learned():
    known, _ = made_up(new_users_gain=2.0)
    new, probability = made_up(seed=1, new_users_gain=2.0)
    errors = {}
    for method in ("platt", "score and activity"):
        found = fit_calibrator(known, method).predict(new.scores, RANKS, new.n_events)
        errors[method] = np.abs(found - probability).mean()
    assert errors["score and activity"] < 0.02 < 0.1 < errors["platt"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("slope", [2.0, -2.0])
def test_no_calibrator_contradicts_the_order(method, slope):
    """Not even if what it was fitted on does."""
    known, _ = made_up(n=400, slope=slope)
    fitted = fit_calibrator(known, method)
    found = fitted.predict(known.scores, RANKS, known.n_events)
    assert (np.diff(found, axis=1) <= 1e-12).all()
    assert ((found >= 0) & (found <= 1)).all()
    extreme = fitted.predict(np.array([[1e6, -1e6]]), np.array([[1, 100]]), np.array([0]))
    assert np.isfinite(extreme).all() and ((extreme >= 0) & (extreme <= 1)).all()


def test_the_regression_is_that_of_another_library():
    rng = np.random.default_rng(3)
    features = rng.normal(0, [1, 5], (2_000, 2))
    labels = rng.random(2_000) < expit(features @ [1.0, 0.2] - 1)
    intercept, weights = fit_logistic(features, labels, (1, 0), ridge=0)
    expected = LogisticRegression(C=np.inf, tol=1e-8).fit(features, labels)
    assert np.allclose(weights, expected.coef_[0], atol=1e-3)
    assert np.isclose(intercept, expected.intercept_[0], atol=1e-3)
    assert fit_logistic(features, labels, (-1, 0))[1][0] == 0


def test_a_constant_feature_and_separable_labels_do_no_harm():
    intercept, weights = fit_logistic(np.ones((50, 1)), np.arange(50) < 10, (0,))
    assert np.isclose(expit(intercept + weights[0]), 0.2, atol=1e-3)
    _, weights = fit_logistic(np.arange(10.0)[:, None], np.arange(10) > 4, (1,))
    assert 0 < weights[0] < 100


def test_ended_lists_do_not_count():
    known, _ = made_up(n=500)
    is_item = known.is_item.copy()
    is_item[::2, 3:] = False
    changed = known.is_watched ^ ~is_item  # labels of places without an item
    for method in METHODS:
        one = fit_calibrator(replace(known, is_item=is_item), method)
        assert one == fit_calibrator(replace(known, is_item=is_item, is_watched=changed), method)


def test_probabilities_of_a_user_come_from_other_users():
    known, _ = made_up(n=100)
    before = cross_fitted(known, "platt", seed=0)
    watched = known.is_watched.copy()
    watched[7] = ~watched[7]
    after = cross_fitted(replace(known, is_watched=watched), "platt", seed=0)
    assert (before[7] == after[7]).all() and (before != after).any()


def test_the_simplest_of_equals_is_chosen():
    settings = load_settings()
    known, _ = made_up()
    chosen = choose_calibrator(known, 30.0, settings)
    assert chosen.method == "platt" and chosen.horizon_days == 30 and set(chosen.log_loss) == set(METHODS)
    assert chosen == choose_calibrator(known, 30.0, settings)
    assert choose_calibrator(made_up(new_users_gain=2.0)[0], None, settings).method == "score and activity"
    no_scores = choose_calibrator(replace(made_up(new_users_gain=2.0)[0], scores=None), None, settings)
    assert no_scores.method == "rank and activity" and set(no_scores.log_loss) < set(METHODS)


def test_too_little_to_learn_from():
    settings = load_settings()
    known, _ = made_up(n=30)
    assert choose_calibrator(known, None, settings) is not None
    assert choose_calibrator(known.subset(np.arange(9)), None, settings) is None
    assert choose_calibrator(replace(known, is_watched=np.zeros_like(known.is_watched)), None, settings) is None
    ended = np.zeros_like(known.is_item)
    ended[:9] = True
    assert choose_calibrator(replace(known, is_item=ended), None, settings) is None


def test_saved_calibrators_are_the_same(tmp_path):
    known, _ = made_up(n=300)
    fitted = {method: fit_calibrator(known, method, 27.4) for method in METHODS}
    save_calibrators(fitted, tmp_path)
    loaded = load_calibrators(tmp_path)
    assert loaded == fitted
    for method, calibrator in loaded.items():
        expected = fitted[method].predict(known.scores, RANKS, known.n_events)
        assert (calibrator.predict(known.scores, RANKS, known.n_events) == expected).all()
    assert load_calibrators(tmp_path / "nowhere") == {}


@pytest.mark.parametrize("content", ["", "[]", '{"als": {}}', '{"als": {"method": "rank", "weights": [], "extra": 1}}'])
def test_damaged_files(tmp_path, content):
    (tmp_path / CALIBRATION_FILE).write_text(content)
    with pytest.raises(ArtifactError, match=r"calibration.json can't be read .*: run `movierec run` again"):
        load_calibrators(tmp_path)
    save_calibrators({"als": fit_calibrator(made_up(n=50)[0], "rank")}, tmp_path)
    assert json.loads((tmp_path / CALIBRATION_FILE).read_text())["als"]["method"] == "rank"


def test_log_loss_by_hand():
    found = log_loss(np.array([[0.5, 0.25], [0.0, 1.0], [0.5, 0.5]]), np.array([[1, 0], [1, 1], [0, 0]]) > 0,
                     np.array([[1, 1], [1, 0], [0, 0]]) > 0)
    assert np.allclose(found[:2], [-(np.log(0.5) + np.log(0.75)) / 2, -np.log(1e-4)]) and np.isnan(found[2])


def test_bins_and_errors_by_hand():
    predicted, labels = np.array([0.1, 0.1, 0.1, 0.1, 0.4, 0.8]), np.array([0, 1, 0, 0, 0, 1]) > 0
    rows = calibration_bins(predicted, labels, 2)
    assert sum(row[1] for row in rows) == 6
    expected = sum(n * abs(mean - share) for _, n, mean, share in rows) / 2
    assert np.isclose(calibration_error(predicted, labels, 2), expected)
    assert len(calibration_bins(np.full(100, 0.3), np.arange(100) < 30)) == 1, "equal predictions are in one bin"
    assert np.isclose(calibration_error(np.full(100, 0.3), np.arange(100) < 30), 0)
    assert np.isclose(calibration_error(np.full(100, 0.6), np.arange(100) < 30), 1), "all of the base rate too high"
    assert np.isnan(calibration_error(np.full(3, 0.1), np.zeros(3, bool)))
    assert calibration_bins(np.array([]), np.array([], bool)) == []


def test_horizons_in_words():
    words = [describe_horizon(days) for days in (None, 0.2, 27.4, 1234.5)]
    assert words == ["as the next movie", "within 1 days", "within 27 days", "within 1,234 days"]
