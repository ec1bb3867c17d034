"""A holdout knows only the past, and counts only what a system can predict."""

import numpy as np
import pytest

from movierec.data.holdout import Holdout, load_holdout
from movierec.data.interactions import Interactions


def pairs_of(events):
    return set(zip(events.user_idx.tolist(), events.item_idx.tolist(), strict=True))


@pytest.mark.parametrize("protocol", ["leave-last-out", "global-time"])
def test_holdouts_know_only_the_past(splits, protocol):
    sizes = []
    for phase in ("tuning", "validation", "test"):
        holdout = load_holdout(splits[protocol], phase)
        history, events = holdout.history, holdout.events
        sizes.append(len(history) + len(events))
        is_held_out = np.isin(history.user_idx, holdout.users)
        assert (history.timestamp <= holdout.as_of[history.user_idx])[is_held_out].all()
        assert (events.timestamp >= holdout.as_of[events.user_idx]).all()
        if protocol == "global-time":
            assert history.timestamp.max() < events.timestamp.min() == holdout.as_of.max() >= history.as_of
        assert not pairs_of(history) & pairs_of(events)
    rows = splits[protocol].manifest["contents"]["rows"]
    assert sizes == [rows["train"], rows["train"] + rows["validation"], sum(rows.values())]


def test_relevant_is_liked_known_and_unseen(splits):
    holdout = load_holdout(splits["global-time"], "test")
    known, events = set(holdout.history.item_idx.tolist()), holdout.events
    columns = (events.user_idx.tolist(), events.item_idx.tolist(), events.confidence)
    expected = {
        (user, item) for user, item, confidence in zip(*columns, strict=True) if confidence > 0 and item in known
    }
    users, items = holdout.relevant.nonzero()
    assert set(zip(users.tolist(), items.tolist(), strict=True)) == expected
    assert holdout.evaluated_users.tolist() == sorted({user for user, _ in expected})
    counts = holdout.counts()
    reasons = ("relevant_events", "without_confidence", "item_not_in_history", "already_seen")
    assert counts["held_out_events"] == sum(counts[reason] for reason in reasons)


def test_every_held_out_event_counts_if_asked(splits):
    liked, everything = (load_holdout(splits["leave-last-out"], "test", relevant) for relevant in ("liked", "all"))
    assert len(everything.evaluated_users) == everything.relevant.nnz == len(everything.events) > liked.relevant.nnz
    counts = everything.counts()
    assert counts["without_confidence"] == 0 and counts["relevant_events"] == len(everything.events)
    assert (liked.relevant - liked.relevant.multiply(everything.relevant)).nnz == 0


def test_held_out_users_of_strong_generalization_are_folded_in(splits):
    for phase in ("validation", "test"):
        holdout = load_holdout(splits["strong-generalization"], phase)
        assert not np.isin(holdout.users, holdout.population.user_idx).any()
        assert np.isin(holdout.users, holdout.history.user_idx).all()
        population_counts = np.bincount(holdout.population.item_idx, minlength=120)
        assert np.array_equal(holdout.history.item_counts, population_counts)
        assert holdout.relevant.nnz == len(holdout.events)


@pytest.mark.parametrize(("history", "events", "relevant"), [
    ([(0, 1), (0, 1), (0, 2), (2, 0)], [(0, 1), (1, 1), (2, 3)], [(1, 1)]),  # seen twice; relevant; a cold item
    ([(0, 1)], [], []), ([], [(0, 1)], []), ([], [], []),
])
def test_seen_and_cold_items_are_not_relevant(history, events, relevant):
    """Also where there is no history, or nothing held out."""
    def interactions(pairs):
        n, pairs = len(pairs), np.array(pairs, np.int32).reshape(-1, 2)
        ones = np.ones(n, np.float32)
        return Interactions(pairs[:, 0], pairs[:, 1], ones, ones, np.arange(n), 3, 4, 99)

    holdout = Holdout("test", interactions(history), interactions(events), np.zeros(3, np.int64))
    users, items = holdout.relevant.nonzero()
    assert list(zip(users.tolist(), items.tolist(), strict=True)) == relevant
    assert holdout.evaluated_users.tolist() == sorted({user for user, _ in relevant})
