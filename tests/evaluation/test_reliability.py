"""Reliability on the test set: horizons, noise, shift, segments; and that the test teaches a calibrator nothing."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, logit

from movierec.data.holdout import load_holdout
from movierec.evaluation.lists import load_test_holdout, read_lists, read_scored_lists
from movierec.evaluation.reliability import (
    PredictedRecommendations,
    assess_calibration,
    assess_expected_ratings,
    calibration_metrics,
    predict_recommendations,
    prediction_segments,
    segment_calibration,
    within_horizon,
    without_shift,
)
from movierec.metrics import hits
from movierec.opening import open_run
from movierec.ranking.calibration import load_calibrators
from movierec.ranking.expected_rating import load_rating_calibrator
from movierec.stages import fit_calibrators, horizon_of


@pytest.fixture(scope="module")
def finished(tiny_run):
    """The artifacts of the tiny run under global-time."""
    return open_run(tiny_run[0], "global-time")


def recommendations(probability, is_watched):
    """Recommendations that differ in nothing else."""
    n = len(probability)
    return PredictedRecommendations(np.asarray(probability, float), np.asarray(is_watched, bool), np.ones(n, int),
                                    np.zeros(n, int), np.zeros(n, int))


def test_only_events_within_the_horizon_count(finished):
    holdout = load_test_holdout(finished["lists"], finished["split"])
    days = (holdout.events.timestamp - holdout.as_of[holdout.events.user_idx]) / 86_400
    horizon = float(np.median(days))
    near = within_horizon(holdout, horizon)
    assert len(near.events) == (days < horizon).sum() and near.relevant_events == "all"
    assert set(near.users) == set(holdout.events.user_idx[days < horizon])
    everything = within_horizon(holdout, None)
    assert len(everything.events) == len(holdout.events) and everything.relevant.nnz >= holdout.relevant.nnz


def test_the_horizon_is_the_length_of_the_validation(finished, tiny_run):
    split = finished["split"]
    first, second = (load_holdout(split, phase).as_of.max() for phase in ("validation", "test"))
    assert horizon_of(split) == (second - first) / 86_400
    assert horizon_of(open_run(tiny_run[0], "leave-last-out")["split"]) is None
    for calibrator in load_calibrators(finished["rankers"].path).values():
        assert calibrator.horizon_days == horizon_of(split)


def test_scored_lists_are_the_lists(finished):
    users = load_test_holdout(finished["lists"], finished["split"]).users
    items, scores = read_scored_lists(finished["lists"], "hybrid", users, 7)
    assert (items == read_lists(finished["lists"], "hybrid", users, 7)).all()
    assert (np.isfinite(scores) == (items >= 0)).all() and (np.diff(scores[:, :2], axis=1) <= 0).all()


def test_predictions_by_plain_loops(finished):
    calibrator = load_calibrators(finished["rankers"].path)["hybrid"]
    holdout = within_horizon(load_test_holdout(finished["lists"], finished["split"]), calibrator.horizon_days)
    items, scores = read_scored_lists(finished["lists"], "hybrid", holdout.users, 5)
    predicted = predict_recommendations(calibrator, holdout, items, scores)
    rows = iter(zip(predicted.probability, predicted.is_watched, predicted.rank, predicted.n_events, strict=True))
    for user, own, values in zip(holdout.users, items, scores, strict=True):
        watched = set(holdout.events.item_idx[holdout.events.user_idx == user])
        n_events = int((holdout.history.user_idx == user).sum())
        for place, item in enumerate(own):
            if item >= 0:
                probability, is_watched, rank, count = next(rows)
                expected = calibrator.predict(values[None, [place]], np.array([[place + 1]]), np.array([n_events]))
                assert (rank, count, bool(is_watched)) == (place + 1, n_events, item in watched)
                assert np.isclose(probability, expected[0, 0])
    assert next(rows, None) is None


def test_a_shift_of_all_odds():
    probability = np.array([0.1, 0.3, 0.8])
    moved = without_shift(probability, 0.6)
    assert np.isclose(moved.mean(), 0.6) and np.ptp(logit(moved) - logit(probability)) < 1e-9


def test_noise_and_shift_are_told_apart():
    rng = np.random.default_rng(0)
    truth = expit(rng.normal(-2, 1, 20_000))
    watched = rng.random(len(truth)) < truth
    right = calibration_metrics(recommendations(truth, watched))
    assert right["calibration_error"] < 2 * right["by_chance"] and right["brier"] < right["brier_constant"]
    shifted = calibration_metrics(recommendations(expit(logit(truth) + 1), watched))
    assert shifted["calibration_error"] > 0.5 and shifted["without_shift"] < 2 * right["by_chance"]
    wrong = calibration_metrics(recommendations(expit(3 * logit(truth)), watched))
    assert wrong["without_shift"] > 4 * right["by_chance"]
    assert calibration_metrics(recommendations([0.2, 0.3], [False, False])) == {"n": 2}


def test_segments_cover_all(finished, tiny_run):
    predicted = replace(recommendations([0.5] * 6, [1, 0, 1, 0, 1, 1]), n_events=np.array([0, 0, 1, 4, 5, 300]),
                        rank=np.array([1, 2, 3, 4, 5, 10]), tier=np.array([0, 0, 1, 2, -1, 0]))
    masks = prediction_segments(predicted, 5)
    by_user, by_place = list(masks.values())[:4], list(masks.values())[-3:]
    assert (sum(by_user) == 1).all() and (sum(by_place) == 1).all()
    assert masks["new users"].tolist() == [True, True, False, False, False, False]
    assert segment_calibration(predicted, 5)["1 to 4 events"] == {"n": 2, "base_rate": 0.5, "mean_probability": 0.5}


def test_results_contain_both_assessments(finished, tiny_run):
    settings, results = tiny_run
    found = results["global-time"]["calibration"]
    assert found == assess_calibration(settings, finished["split"], finished["rankers"], finished["lists"])
    assert {"hybrid", "ranked_v3"} <= set(found["systems"])
    for system in found["systems"].values():
        assert sum(n for _, n, _, _ in system["bins"]) == system["n"]
    stars = results["global-time"]["expected_ratings"]
    assert stars == assess_expected_ratings(finished["rankers"], finished["lists"])
    assert sum(n for n, _, _ in stars["bins"]) == stars["n"]


def test_the_test_events_teach_nothing(finished, tiny_run):
    """Calibrators are made from the validation alone: the same from a holdout that has never seen a test event."""
    settings, _ = tiny_run
    holdout = load_holdout(finished["split"], "validation", "all")
    cut = load_holdout(finished["split"], "test").as_of.max()
    assert holdout.events.timestamp.max() < cut
    rng = np.random.default_rng(0)
    users = holdout.users
    items = np.array([rng.permutation(holdout.history.n_items)[:10] for _ in users])
    n_events = holdout.history.user_counts[users]
    arguments = ({"als": items}, {}, holdout.relevant[users], n_events, settings, horizon_of(finished["split"]))
    assert fit_calibrators(*arguments) == fit_calibrators(*arguments)
    assert hits(items, holdout.relevant[users]).any() == bool(fit_calibrators(*arguments))
    assert load_rating_calibrator(finished["rankers"].path).highest <= 5
