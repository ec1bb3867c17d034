"""Expected stars: as of the prediction time, against plain baselines, in a file."""

import numpy as np
import pandas as pd
import pytest

from movierec.config import ArtifactError
from movierec.data.holdout import load_holdout
from movierec.opening import open_trained
from movierec.ranking.expected_rating import (
    RATING_FILE,
    RatingCalibrator,
    fit_rating_calibrator,
    load_rating_calibrator,
    predict_held_out_ratings,
    rating_bins,
    rating_errors,
    save_rating_calibrator,
)
from movierec.retrieval.ratings import RatingModel


@pytest.fixture(scope="module")
def predicted(tiny_run):
    """The validation of the tiny run and its predictions."""
    holdout = load_holdout(open_trained(tiny_run[0], "global-time")["split"], "validation")
    return holdout, predict_held_out_ratings(RatingModel().fit(holdout.history), holdout)


def test_baselines_by_plain_loops(predicted):
    holdout, rows = predicted
    known, events = holdout.history, holdout.events
    assert len(rows) == np.isfinite(events.rating).sum()
    assert np.allclose(rows["constant"], np.nanmean(known.rating))
    for number in range(0, len(rows), max(len(rows) // 20, 1)):
        user, item = events.user_idx[number], events.item_idx[number]
        of_user, of_item = known.rating[known.user_idx == user], known.rating[known.item_idx == item]
        expected = [values.mean() if len(values) else np.nanmean(known.rating) for values in (of_user, of_item)]
        assert np.allclose(rows.iloc[number][["user_mean", "item_mean"]].astype(float), expected, atol=1e-5)


def test_a_sample_is_part_of_all(predicted):
    holdout, rows = predicted
    some = predict_held_out_ratings(RatingModel().fit(holdout.history), holdout, max_events=10)
    assert len(some) == 10 and set(some["rating"]) <= set(rows["rating"])
    assert some.equals(predict_held_out_ratings(RatingModel().fit(holdout.history), holdout, max_events=10))


def test_a_line_is_found():
    rng = np.random.default_rng(0)
    predicted = rng.normal(3.5, 0.5, 5_000)
    rows = pd.DataFrame({"predicted": predicted, "rating": 1 + 0.7 * predicted + rng.normal(0, 0.1, 5_000)})
    found = fit_rating_calibrator(rows)
    assert np.isclose(found.slope, 0.7, atol=0.01) and np.isclose(found.intercept, 1, atol=0.03)
    reverse = fit_rating_calibrator(rows.assign(predicted=-predicted))
    assert reverse.slope == 0 and np.isclose(reverse.intercept, rows["rating"].mean()), "the order is kept"
    assert fit_rating_calibrator(rows[:1]) is None
    assert fit_rating_calibrator(rows.assign(predicted=3.0)).slope == 0


def test_stars_stay_on_the_scale():
    calibrator = RatingCalibrator(0.0, 1.0, 0.5, 5.0)
    assert calibrator.predict(np.array([-3, 3.3, 9])).tolist() == [0.5, 3.3, 5]


def test_errors_and_bins_by_hand():
    rows = pd.DataFrame({"rating": [3.0, 5], "predicted": [3.0, 4], "constant": [4.0, 4], "user_mean": [4.0, 5],
                         "item_mean": [3.0, 3]})
    errors = rating_errors(rows, RatingCalibrator(-3.0, 2.0, 0.5, 5.0))
    assert errors["calibrated"] == {"rmse": 0, "mae": 0, "bias": 0}
    assert errors["constant"] == {"rmse": 1, "mae": 1, "bias": 0} and errors["item_mean"]["bias"] == -1
    assert rating_bins(rows, RatingCalibrator(-3.0, 2.0, 0.5, 5.0), 2) == [(1, 3, 3), (1, 5, 5)]


def test_files(tmp_path):
    save_rating_calibrator(None, tmp_path)
    assert load_rating_calibrator(tmp_path) is None
    calibrator = RatingCalibrator(0.1 + 0.2, 1 / 3, 0.5, 5.0)
    save_rating_calibrator(calibrator, tmp_path)
    assert load_rating_calibrator(tmp_path) == calibrator
    for content in ("", "{}", '{"slope": 1}'):
        (tmp_path / RATING_FILE).write_text(content)
        with pytest.raises(ArtifactError, match=r"expected_rating.json can't be read"):
            load_rating_calibrator(tmp_path)
