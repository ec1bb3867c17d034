"""Weighted reciprocal rank fusion and candidate pools, against plain loops."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import make_interactions

from movierec.data.interactions import of_users, without_order
from movierec.retrieval.fusion import (
    USER_CONTEXTS,
    CandidatePool,
    RankFusion,
    RankTable,
    empty_pool,
    fuse,
    item_cells,
    user_contexts,
)

N_ITEMS = 12


@pytest.fixture
def lists():
    """Two sources' lists of four users; some are shorter than the others."""
    rng = np.random.default_rng(0)
    lists = {name: np.stack([rng.permutation(N_ITEMS)[:6] for _ in range(4)]).astype(np.int32) for name in ("a", "b")}
    lists["a"][1, 4:] = -1
    lists["b"][2] = -1
    return lists


def test_fused_scores_against_a_loop(lists):
    weights = {"a": np.array([1.0, 0.5, 1.0, 0.0]), "b": np.full(4, 0.25)}
    expected = np.zeros((4, N_ITEMS))
    for name, items in lists.items():
        for user, place in np.argwhere(items >= 0):
            expected[user, items[user, place]] += weights[name][user] / (60 + place + 1)
    scores = fuse(lists, weights, N_ITEMS, rank_constant=60.0)
    assert np.allclose(scores[:, :-1], expected) and (scores[:, -1] == 0).all()


def test_candidates_are_in_order_and_ties_go_to_the_smaller_item(lists):
    fusion = RankFusion({context: {"a": 1.0, "b": 1.0} for context in USER_CONTEXTS})
    lists["b"] = lists["a"][:, ::-1].copy()  # first and last of a list tie
    items, scores = fusion.candidates(lists, np.zeros(4, int), 20, N_ITEMS)
    for user in range(4):
        found = items[user] >= 0
        assert set(items[user][found]) == set(lists["a"][user]) - {-1}
        order = list(zip(-scores[user][found], items[user][found], strict=True))
        assert order == sorted(order), "by score, then item"
        assert np.isneginf(scores[user][~found]).all()


def test_quotas_guarantee_a_place(lists):
    weights = {context: {"a": 1.0, "b": 0.001} for context in USER_CONTEXTS}
    plain = RankFusion(weights, pool_size=5).candidates(lists, np.zeros(4, int), 5, N_ITEMS)[0]
    with_quota = RankFusion(weights, quotas={"b": 2}, pool_size=5)
    items, scores = with_quota.candidates(lists, np.zeros(4, int), 5, N_ITEMS)
    guaranteed = [set(first) for first in lists["b"][[0, 1, 3], :2]]
    assert all(first <= set(pool) for first, pool in zip(guaranteed, items[[0, 1, 3]], strict=True))
    assert not all(first <= set(pool) for first, pool in zip(guaranteed, plain[[0, 1, 3]], strict=True))
    assert (np.diff(scores[[0, 1, 3]], axis=1) <= 0).all(), "the order is that of the fused scores"
    longer, _ = with_quota.candidates(lists, np.zeros(4, int), 9, N_ITEMS)
    shorter, _ = with_quota.candidates(lists, np.zeros(4, int), 3, N_ITEMS)
    assert np.array_equal(shorter, items[:, :3]) and set(items[0]) <= set(longer[0])


def test_a_source_is_active_with_a_weight_or_a_quota():
    weights: dict = {context: {} for context in USER_CONTEXTS} | {"in_session": {"a": 0.5, "b": 0.0}}
    fusion = RankFusion(weights, quotas={"c": 2, "d": 0})
    assert list(fusion.active(dict.fromkeys("abcde"))) == ["a", "c"]


@pytest.mark.parametrize("shift, expected", [(3_600, "in_session"), (3_601, "returning")])
def test_user_contexts(shift, expected):
    interactions = make_interactions()
    last = interactions.timestamp[interactions.indptr[1:30] - 1]
    contexts = user_contexts(interactions, np.arange(29), last + shift)
    assert {USER_CONTEXTS[context] for context in contexts} == {expected}
    few = user_contexts(interactions, np.arange(30), np.full(30, interactions.as_of), new_user_events=13)
    assert {USER_CONTEXTS[context] for context in few} == {"new_user"}
    nobody, end = np.array([29]), np.array([interactions.as_of])
    assert user_contexts(interactions, nobody, end).tolist() == [2], "no events"
    assert user_contexts(without_order(interactions), nobody, end).tolist() == [2], "no events, which have no order"


def test_users_whose_events_have_no_order_are_in_a_context_of_their_own():
    interactions = make_interactions()
    mixed = replace(interactions, unordered=np.arange(30) % 2 == 0)
    users, last = np.arange(29), interactions.timestamp[interactions.indptr[1:30] - 1]
    names = [USER_CONTEXTS[context] for context in user_contexts(mixed, users, last)]
    assert names == ["unordered" if user % 2 == 0 else "in_session" for user in users]
    some = np.array([4, 7, 8])
    part = of_users(mixed, some)
    assert part.unordered.tolist() == [True, False, True]
    assert user_contexts(part, np.arange(3), last[some]).tolist() == [3, 0, 3]


def test_ranks_against_a_look_into_the_lists(lists):
    wanted = np.tile(np.arange(N_ITEMS), (4, 1))
    table = RankTable(4, N_ITEMS)
    for items in (*lists.values(), lists["a"]):  # the table is clear again after each
        ranks = table.ranks(items, item_cells(wanted, N_ITEMS))
        for user in range(4):
            listed = items[user].tolist()
            expected = [listed.index(item) + 1 if item in listed else 0 for item in range(N_ITEMS)]
            assert ranks[user].tolist() == expected


def test_pools_are_written_part_by_part(lists):
    pool = empty_pool(4, 6, ["a"])
    for rows in (slice(0, 3), slice(3, 4)):
        n = len(lists["a"][rows])
        items = lists["a"][rows]
        part = CandidatePool(
            np.arange(n), np.ones(n), items, items / 2, {"a": items % 3}, {"a": items / 4}
        )
        pool.write(rows, part)
    assert np.array_equal(pool.items, lists["a"]) and np.array_equal(pool.ranks["a"], lists["a"] % 3)
    assert np.array_equal(pool.source_scores["a"], lists["a"] / 4) and pool.users.tolist() == [0, 1, 2, 0]
    taken = pool.take(np.array([[5, 0]] * 4))
    assert np.array_equal(taken.items, lists["a"][:, [5, 0]]) and np.array_equal(taken.scores, pool.scores[:, [5, 0]])
