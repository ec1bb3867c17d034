"""Places of lists for items without events."""

from types import SimpleNamespace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from movierec.retrieval.new_items import new_item_places, place_new_items


def hybrid_that_proposes(new, per_ten):
    """A hybrid with a content source that proposes the same new items to everybody."""
    def new_items(users, k, exclude):
        rows = [[item for item in new if item not in set(exclude.tolist())][:k] for _ in users]
        return np.array([row + [-1] * (k - len(row)) for row in rows], np.int32).reshape(len(users), k), None

    return SimpleNamespace(new_items=per_ten, sources={"content": SimpleNamespace(new_items=new_items)})


@given(st.integers(1, 40), st.integers(0, 5), st.integers(0, 40), st.integers(0, 12), st.integers(0, 3))
def test_lists_by_plain_loops(k, per_ten, n_items, n_new, n_excluded):
    new = list(range(1_000, 1_000 + n_new))
    own = list(range(min(n_items, k)))
    items = np.array([own + [-1] * (k - len(own))], np.int32)
    scores = np.where(items >= 0, -items, -np.inf).astype(np.float32)
    placed = place_new_items(
        hybrid_that_proposes(new, per_ten), np.zeros(1, int), items.copy(), scores, np.array(new[:n_excluded], int)
    )
    expected, left = list(own), new[n_excluded:]
    for place in range(k):
        if place % 10 >= 10 - per_ten and left and place <= len(expected) and place:
            expected.insert(place, left.pop(0))
    expected = expected[:k]
    assert placed.items[0, : len(expected)].tolist() == expected and (placed.items[0, len(expected) :] == -1).all()
    found = placed.items[0][placed.items[0] >= 0]
    assert (np.diff(placed.scores[0][: len(found)]) <= 0).all()
    for item, origin in zip(placed.items[0], placed.origin[0], strict=True):
        assert origin == (item if 0 <= item < 1_000 else -1)


def test_the_first_ten_of_a_long_list_are_the_short_list():
    hybrid = hybrid_that_proposes([100, 101, 102, 103, 104], 1)
    items = np.arange(50, dtype=np.int32)[None]
    scores = -items.astype(np.float32)
    long = place_new_items(hybrid, np.zeros(1, int), items, scores)
    short = place_new_items(hybrid, np.zeros(1, int), items[:, :10], scores[:, :10])
    assert long.items[0, :10].tolist() == short.items[0].tolist() == [*range(9), 100]
    assert new_item_places(50, 1).tolist() == [9, 19, 29, 39, 49]


def test_without_places_lists_are_the_same_arrays():
    items, scores = np.zeros((2, 5), np.int32), np.zeros((2, 5), np.float32)
    placed = place_new_items(hybrid_that_proposes([9], 0), np.arange(2), items, scores)
    assert placed.items is items and placed.scores is scores
