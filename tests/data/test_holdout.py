"""A holdout knows only the past, and counts only what a system can predict."""

import numpy as np
import pytest

from movierec.data.holdout import (
    Holdout,
    describe_sample,
    draw_users,
    held_out_users,
    load_holdout,
    sample_holdout,
)
from movierec.data.interactions import Interactions, load_interactions
from movierec.data.splits import PROTOCOL_RULES


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


TOGETHER = [name for name, rules in PROTOCOL_RULES.items() if not rules.next_events]
ONE_BY_ONE = [name for name, rules in PROTOCOL_RULES.items() if rules.next_events]


@pytest.mark.parametrize("protocol", TOGETHER)
@pytest.mark.parametrize("relevant", ["liked", "all"])
def test_a_sample_holds_the_same_truth_for_fewer_users(splits, protocol, relevant):
    whole = load_holdout(splits[protocol], "test", relevant)
    part = sample_holdout(whole, 6, seed=42)
    assert len(part.users) == 6 and set(part.users) < set(whole.users)
    assert part.users.tolist() == draw_users(whole.users, 6, seed=42).tolist()
    assert part.user_sample == {"users": 6, "of": len(whole.users), "seed": 42}
    assert part.history is whole.history and part.population is whole.population
    assert (part.relevant[part.users] != whole.relevant[part.users]).nnz == 0
    assert part.evaluated_users.tolist() == [user for user in whole.evaluated_users if user in set(part.users)]
    counts = part.counts()
    reasons = ("relevant_events", "without_confidence", "item_not_in_history", "already_seen")
    assert counts["held_out_events"] == np.isin(whole.events.user_idx, part.users).sum()
    assert counts["held_out_events"] == sum(counts[reason] for reason in reasons)
    assert counts["users_with_events"] == 6 and counts["users_evaluated"] == len(part.evaluated_users)


def test_what_is_relevant_does_not_change_who_is_drawn(splits):
    """Lists are stored once and evaluated under both definitions."""
    liked, everything = (load_holdout(splits["leave-last-out"], "test", relevant) for relevant in ("liked", "all"))
    assert sample_holdout(liked, 9, 1).users.tolist() == sample_holdout(everything, 9, 1).users.tolist()


@pytest.mark.parametrize("n_users", [0, 80, 81, 10**9])
def test_enough_users_are_no_sample(splits, n_users):
    whole = load_holdout(splits["leave-last-out"], "test")
    assert len(whole.users) == 80 and whole.user_sample is None
    assert sample_holdout(whole, n_users, seed=0) is whole


def test_a_draw_depends_on_the_seed_and_grows_with_its_size():
    users = np.sort(np.random.default_rng(0).choice(10_000, 500, replace=False)).astype(np.int32)
    small, large, other = (draw_users(users, n, seed) for n, seed in ((40, 1), (90, 1), (40, 2)))
    assert small.dtype == users.dtype and (np.diff(small) > 0).all()
    assert set(small) < set(large) < set(users) and set(small) != set(other)
    assert small.tolist() == draw_users(users.copy(), 40, 1).tolist()


def test_the_order_of_events_does_not_matter(splits):
    whole = load_holdout(splits["global-time"], "test")
    backwards = Holdout("test", whole.history, whole.events.select(np.arange(len(whole.events))[::-1]), whole.as_of)
    assert sample_holdout(backwards, 5, 3).users.tolist() == sample_holdout(whole, 5, 3).users.tolist()


def test_every_user_is_as_likely_to_be_drawn():
    """400 draws of 10 of 40 users: each is drawn 100 times, give or take five standard deviations of 8.7."""
    drawn = np.concatenate([draw_users(np.arange(40), 10, seed) for seed in range(400)])
    assert np.abs(np.bincount(drawn, minlength=40) - 100).max() < 5 * 8.7


def test_a_sample_of_a_sample_is_not_drawn_by_the_same_numbers():
    """The pools' users are drawn from the evaluated users with the same seed: again all are equally likely."""
    counts = np.zeros(40)
    for seed in range(400):
        drawn = draw_users(np.arange(40), 20, seed)
        counts[np.random.default_rng(seed).choice(drawn, 10, replace=False)] += 1
    assert np.abs(counts - 100).max() < 5 * 8.7


@pytest.mark.parametrize("protocol", PROTOCOL_RULES)
def test_held_out_users_are_those_of_the_holdout(splits, protocol):
    for phase in PROTOCOL_RULES[protocol].phases:
        users, expected = held_out_users(splits[protocol], phase), load_holdout(splits[protocol], phase).users
        assert users.dtype == expected.dtype and users.tolist() == expected.tolist()


def test_a_sample_in_words():
    sample = {"users": 50_000, "of": 138_493, "seed": 42}
    assert describe_sample(sample) == "a random sample of 50,000 of 138,493 users"


def predictions_by_hand(log, facts, phase, last_only):
    """The events of a phase one by one, from all events in the order of user and position: (user, what the user had
    done before, item, time)."""
    begin, end = facts[phase], facts.get({"tuning": "validation", "validation": "test"}.get(phase), np.inf)
    found: list = []
    for user in np.unique(log.user_idx):
        own = log.user_idx == user
        items, times = log.item_idx[own].tolist(), log.timestamp[own].tolist()
        numbers = [number for number, time in enumerate(times) if begin <= time < end]
        numbers = numbers[-1:] if last_only else numbers
        found += [(user, items[:number], items[number], times[number]) for number in numbers]
    return found


@pytest.mark.parametrize("protocol", ["global-next", "global-next-last"])
@pytest.mark.parametrize("phase", ["tuning", "validation", "test"])
def test_each_event_is_predicted_from_what_its_user_did_before(tiny, splits, protocol, phase):
    facts = splits[protocol].manifest["contents"]["facts"]
    expected = predictions_by_hand(load_interactions(tiny[2]), facts, phase, protocol == "global-next-last")
    holdout = load_holdout(splits[protocol], phase)
    history, numbers = holdout.history, holdout.users
    assert len(numbers) == len(expected) > 0
    for number, (user, before, item, time) in zip(numbers, expected, strict=True):
        assert holdout.owners[number] == user and holdout.as_of[number] == time
        assert history.item_idx[history.indptr[number] : history.indptr[number + 1]].tolist() == before
        assert holdout.events.item_idx[holdout.events.user_idx == number].tolist() == [item]
    assert np.array_equal(np.unique(history.user_idx), np.flatnonzero(history.user_counts))
    assert holdout.population.timestamp.max() < facts[phase], "models know nothing from after the cut"
    assert history.as_of == holdout.population.as_of == facts[phase]
    assert history.item_counts.tolist() == holdout.population.item_counts.tolist()


@pytest.mark.parametrize("protocol", ONE_BY_ONE)
def test_a_sample_of_predictions_is_the_same_as_in_the_whole(splits, protocol):
    whole = load_holdout(splits[protocol], "test", "all")
    part = load_holdout(splits[protocol], "test", "all", n_users=5, seed=3)
    assert part.users.tolist() == draw_users(whole.users, 5, 3).tolist()
    assert part.user_sample == {"users": 5, "of": len(whole.users), "seed": 3, "unit": "predictions"}
    for number in part.users:
        own = part.history.user_idx == number
        same = whole.history.user_idx == number
        assert part.history.item_idx[own].tolist() == whole.history.item_idx[same].tolist()
    assert part.as_of.tolist() == whole.as_of.tolist() and part.owners.tolist() == whole.owners.tolist()
    assert (part.relevant[part.users] != whole.relevant[part.users]).nnz == 0
    counts = part.counts()
    assert counts["predictions_evaluated"] == counts["relevant_events"] == 5
    assert counts["users_evaluated"] == len({whole.owners[number] for number in part.users})
    assert describe_sample(part.user_sample).endswith(f"of {len(whole.users):,} predictions")


def test_random_ties_shuffle_events_of_the_same_second_only(splits):
    names = ("global-next", "global-next-random-ties")
    ordered, shuffled = (load_holdout(splits[name], "test", "all") for name in names)
    assert ordered.as_of.tolist() == shuffled.as_of.tolist() and ordered.owners.tolist() == shuffled.owners.tolist()
    assert ordered.events.item_idx.tolist() != shuffled.events.item_idx.tolist()
    for name in ("item_idx", "rating"):
        pairs = [np.lexsort((getattr(one.events, name), one.as_of, one.owners)) for one in (ordered, shuffled)]
        one, other = (getattr(h.events, name)[p] for h, p in zip((ordered, shuffled), pairs, strict=True))
        assert np.array_equal(one, other)
