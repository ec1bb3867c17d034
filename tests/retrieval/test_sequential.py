"""Counts of what follows what, and the scores made from them, against plain loops."""

import numpy as np
import pytest
from helpers import make_histories, make_interactions
from hypothesis import given, settings
from hypothesis import strategies as st

from movierec.retrieval.linear import EASE, LinearAutoregression
from movierec.retrieval.sequential import Sequential, transitions


def ragged_histories(seed: int = 0, n_users: int = 25, n_items: int = 12) -> list[list[int]]:
    """Histories of different lengths, some empty; the last item has no event."""
    rng = np.random.default_rng(seed)
    return [rng.permutation(n_items - 1)[:length].tolist() for length in rng.integers(0, n_items - 1, n_users)]


@given(
    seed=st.integers(0, 1_000),
    window=st.integers(1, 6),
    decay=st.sampled_from([0.0, 0.5, 1.0]),
    most_pairs=st.integers(1, 60),
    events_at_once=st.integers(1, 9),
)
@settings(max_examples=25, deadline=None)
def test_transitions_are_the_counts(seed, window, decay, most_pairs, events_at_once):
    histories, weight = ragged_histories(seed), np.random.default_rng(seed).random(12)
    expected, expected_weighted = np.zeros((12, 12)), np.zeros((12, 12))
    for history in histories:
        for place, item in enumerate(history):
            for lag, follower in enumerate(history[place + 1 : place + 1 + window]):
                expected[item, follower] += decay**lag
                expected_weighted[item, follower] += decay**lag * weight[len(history) - place - 2 - lag]
    counts, weighted, rows_seen = np.zeros((12, 12)), np.zeros((12, 12)), []
    blocks = transitions(
        make_histories(histories, 12), window, decay, lambda *block: block, (None, weight), most_pairs, events_at_once
    )
    for rows, (plain, with_weight) in blocks:
        counts[rows], weighted[rows] = plain, with_weight
        rows_seen += range(rows.start, rows.stop)
    assert rows_seen == list(range(12)), "each row once"
    assert np.allclose(counts, expected) and np.allclose(weighted, expected_weighted, rtol=1e-5)


def test_scores_are_sums_of_log_likelihood_ratios():
    histories = ragged_histories()
    interactions = make_histories(histories, 12)
    model = Sequential(window=3, step_decay=0.5, smoothing=4.0, discount=0.3, last=4, decay=0.6).fit(interactions)
    counts = np.zeros((12, 12))
    for history in histories:
        for place, item in enumerate(history):
            for lag, follower in enumerate(history[place + 1 : place + 4]):
                counts[item, follower] += 0.5**lag
    share = np.maximum(interactions.item_counts, 1) / len(interactions)
    smooth = (counts + 4 * share) / (counts.sum(axis=1, keepdims=True) + 4)
    ratio = np.log(smooth) - 0.3 * np.log(share)
    scores = model._scores(np.arange(25), np.zeros(25))
    seeds = model.seed_items(np.arange(25), np.full((25, 1), 1))[:, 0]
    for user, history in enumerate(histories):
        if not history:
            assert np.isneginf(scores[user]).all() and seeds[user] == -1
            continue
        recent = list(enumerate(history[::-1][:4]))
        expected = sum(0.6**back * ratio[item] for back, item in recent)
        difference = scores[user] - scores[user][0]
        assert np.allclose(difference, expected - expected[0], atol=1e-4), "up to a constant for each user"
        parts = {item: 0.6**back * model.lift[item, 1] for back, item in recent}
        largest = max(parts.values())
        assert seeds[user] == -1 if largest == 0 else np.isclose(parts[seeds[user]], largest)


def test_rows_are_cut_to_the_best_followers():
    interactions = make_histories(ragged_histories(n_users=200), 12)
    whole = Sequential(window=3).fit(interactions)
    cut = Sequential(window=3, neighbours=4).fit(interactions)
    lift = whole.lift.toarray()
    value = np.where(lift > 0, lift + 0.6 * whole.log_share, -np.inf)
    for item in range(11):
        best = set(np.argsort(-value[item])[:4].tolist()) & set(np.flatnonzero(lift[item]).tolist())
        assert set(cut.lift[[item]].indices.tolist()) == best


def test_the_next_item_in_a_cycle():
    """Everyone watches the items in a circle, from a random start: what comes next is certain."""
    start = np.random.default_rng(0).integers(0, 12, 200)
    interactions = make_histories(((start[:, None] + np.arange(6)) % 12).tolist(), 12)

    def first_item(model):
        return model.fit(interactions).top_k(np.arange(200), 1)[0][:, 0]

    for model in (Sequential(smoothing=1.0), LinearAutoregression(regularization=1.0, min_events=1)):
        assert np.array_equal(first_item(model), (start + 6) % 12), model.name
    assert not np.array_equal(first_item(EASE(1.0, min_events=1)), (start + 6) % 12), "EASE knows no order"


@pytest.mark.parametrize("model", [Sequential(), EASE(min_events=1), LinearAutoregression(min_events=1)])
def test_nothing_to_learn_from(model):
    interactions = make_interactions()
    without_events = interactions.select(np.zeros(len(interactions), bool))
    assert (model.fit(without_events).top_k(np.arange(30), 5)[0] == -1).all()


@pytest.mark.parametrize("model", [Sequential(), EASE(5.0, min_events=1), LinearAutoregression(min_events=1)])
def test_a_fit_is_the_same_on_any_number_of_cores(model, monkeypatch):
    interactions, learned = make_histories(ragged_histories(7, 400, 60), 60), []
    for cores in (1, 3):
        monkeypatch.setattr("movierec.parallel.cores", lambda cores=cores: cores)
        model.fit(interactions)
        learned.append(model.lift.toarray() if isinstance(model, Sequential) else model.weights.copy())
    assert np.array_equal(*learned)
