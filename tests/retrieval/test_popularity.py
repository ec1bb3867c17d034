"""Popularity of all time and of the last days, against sums in plain loops."""

import numpy as np
import pytest
from helpers import make_histories, make_interactions

from movierec.config import DAY
from movierec.retrieval.popularity import Popularity, PopularityRecent

INTERACTIONS = make_interactions()


def test_popularity_sums_confidence():
    expected = np.zeros(40)
    for item, confidence in zip(INTERACTIONS.item_idx, INTERACTIONS.confidence, strict=True):
        expected[item] += confidence
    model = Popularity().fit(INTERACTIONS)
    assert np.allclose(model.item_score, expected)
    assert model.top_k(np.array([29]), 1)[0][0, 0] == expected.argmax(), "a new user gets it too"


def test_users_who_have_seen_most_popular_items_get_full_lists():
    interactions = make_histories([list(range(60)), [0], [1, 69]], 70)
    lists = Popularity().fit(interactions).top_k(np.arange(3), 3)[0].tolist()
    assert lists == [[69, -1, -1], [1, 2, 3], [0, 2, 3]], "item 69 is beyond the first twelve of the ranking"


def test_a_new_fit_makes_a_new_ranking():
    model, users = Popularity(), np.array([0])
    first = make_histories([[0], [1], [1]], 3)
    second = make_histories([[0], [2], [2]], 3)
    assert [model.fit(each).top_k(users, 1)[0][0, 0] for each in (first, second, first)] == [1, 2, 1]


@pytest.mark.parametrize("half_life", [None, 9.0])
def test_recent_popularity_counts_full_days_before_the_prediction_time(half_life):
    times = np.random.default_rng(3).choice(INTERACTIONS.timestamp, 28)
    times = np.append(times, [INTERACTIONS.as_of, INTERACTIONS.timestamp.min() - 1])
    scores = PopularityRecent(20, half_life, 1).fit(INTERACTIONS)._scores(np.arange(30), times)
    for row, time in zip(scores, times, strict=True):
        end = INTERACTIONS.as_of - -((time - INTERACTIONS.as_of) // DAY) * DAY  # of the last full day, from the end
        assert end <= time
        expected = np.zeros(40)
        for item, event in zip(INTERACTIONS.item_idx, INTERACTIONS.timestamp, strict=True):
            age = (end - 1 - event) // DAY
            if event < end:
                expected[item] += (age < 20) if half_life is None else 0.5 ** (age / half_life)
        assert np.allclose(np.where(np.isneginf(row), 0, row), expected, rtol=1e-5)


@pytest.mark.parametrize("min_events", [1, 30, 100, 10_000])
def test_the_window_grows_until_it_holds_enough_events(min_events):
    days_ago = (INTERACTIONS.as_of - 1 - INTERACTIONS.timestamp) // DAY
    all_days = int(days_ago.max()) + 1
    days = next((n for n in range(2, all_days + 1) if (days_ago < n).sum() >= min_events), all_days)
    model = PopularityRecent(2, min_events=min_events).fit(INTERACTIONS)
    scores = model._scores(np.array([0]), np.array([INTERACTIONS.as_of]))[0]
    expected = np.bincount(INTERACTIONS.item_idx[days_ago < days], minlength=40)
    assert np.array_equal(np.where(np.isneginf(scores), 0, scores), expected)
