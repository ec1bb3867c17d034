"""Point-in-time states against plain loops over the events strictly before a time."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from movierec.config import DAY
from movierec.data.interactions import decay
from movierec.ranking.timeline import PointInTimeState, Timeline, running_sums


@given(st.integers(0, 100_000), st.sampled_from([0.5, 30.0, 10_000.0]))
@settings(max_examples=30, deadline=None)
def test_states_against_a_loop(seed, half_life):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 60))
    entity, confidence = rng.integers(0, 6, n), rng.choice([0, 0.5, 2.5], n)
    timestamp = 10**9 + rng.integers(0, 20, n) * 3 * DAY  # many ties
    timeline = Timeline.from_events(entity, timestamp, confidence, 8, half_life)
    entities, times = rng.integers(0, 8, 50), 10**9 + rng.integers(-2, 70, 50) * DAY
    for state, one, as_of in zip(timeline.state_at(entities, times, (1, 7.5)), entities, times, strict=True):
        past = (entity == one) & (timestamp < as_of)
        age = (as_of - timestamp[past]) / DAY
        decayed = (confidence[past] * 0.5 ** (age / half_life)).sum()
        last, first = (age.min(), age.max()) if past.any() else (np.nan, np.nan)
        expected = [past.sum(), confidence[past].sum(), decayed, last, first, (age <= 1).sum(), (age <= 7.5).sum()]
        np.testing.assert_allclose(state, expected, rtol=1e-9, atol=1e-12)
    assert np.array_equal(timeline.events_before(entities, times), timeline.state_at(entities, times)[:, 0])


@pytest.mark.parametrize("n_entities", [1, 3, 40])
def test_running_sums_are_those_of_a_loop_however_they_are_computed(n_entities):
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 60, n_entities)
    counts[0] = 200
    start = np.concatenate([[0], np.cumsum(counts)])
    timestamp = np.concatenate([np.sort(rng.integers(0, 10**8, count)) for count in counts])
    values = rng.random(start[-1]).astype(np.float32)
    plain, decayed = values.astype(np.float64), values.astype(np.float64)
    for first, stop in pairwise(start):
        for event in range(first + 1, stop):
            plain[event] += plain[event - 1]
            decayed[event] += decayed[event - 1] * decay(timestamp[event] - timestamp[event - 1], 30.0)
    for min_histories in (0, 16, 1_000):
        sums = running_sums(values, timestamp, start, 30.0, min_histories)
        assert np.array_equal(sums, (plain, decayed)), "to the last bit"


def test_decay_does_not_overflow_over_decades():
    days = np.array([0, 30 * 365, 60 * 365])
    timeline = Timeline.from_events(np.zeros(3, int), days * DAY, np.ones(3), 1, half_life_days=1.0)
    assert timeline.state_at(np.zeros(3, int), (days + 1) * DAY)[:, 2].tolist() == [0.5, 0.5, 0.5]


def test_an_empty_timeline_has_states():
    timeline = Timeline.from_events(np.array([], int), np.array([], np.int64), np.array([]), 2, 30.0)
    assert timeline.state_at(np.array([1]), np.array([10]))[0, :3].tolist() == [0, 0, 0]


def test_the_state_of_one_time_is_the_timelines_and_refuses_another():
    rng = np.random.default_rng(1)
    timeline = Timeline.from_events(rng.integers(0, 4, 30), rng.integers(0, 100, 30) * DAY, np.ones(30), 5, 30.0)
    state, entities, times = PointInTimeState.of(timeline, 60 * DAY, (7,)), np.array([4, 0, 0, 3]), np.full(4, 60 * DAY)
    expected = timeline.state_at(entities, times, (7,))
    assert np.array_equal(state.state_at(entities, times, (7,)), expected, equal_nan=True)
    assert np.array_equal(state.events_before(entities, times), timeline.events_before(entities, times))
    with pytest.raises(ValueError, match=f"only the state as of {60 * DAY}"):
        state.state_at(entities, times + 1)
