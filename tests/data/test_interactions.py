"""Indices, confidence and the arrays that models see, compared with plain pandas."""

import numpy as np
import pandas as pd
import pytest

from movierec.data.interactions import item_genre_matrix, load_interactions, load_items, load_users


def test_dense_ids_and_confidence(tiny, ratings):
    _, _, data = tiny
    interactions, users, items = load_interactions(data), load_users(data), load_items(data)
    assert users.tolist() == sorted(ratings.userId.unique()) and items.item_idx.tolist() == list(range(120))
    expected = ratings.sort_values(["userId", "timestamp", "row"], ignore_index=True)
    assert users[interactions.user_idx].tolist() == expected.userId.tolist()
    assert items.movieId.to_numpy()[interactions.item_idx].tolist() == expected.movieId.tolist()
    assert interactions.timestamp.tolist() == expected.timestamp.tolist()
    assert np.array_equal(interactions.confidence, np.maximum(expected.rating - 2.5, 0))
    assert interactions.as_of == ratings.timestamp.max() + 1


def test_matrices_do_not_disturb_the_events(tiny):
    _, _, data = tiny
    interactions = load_interactions(data)
    before = interactions.item_idx.copy()
    assert interactions.matrix.has_sorted_indices
    assert interactions.matrix.nnz == (interactions.confidence > 0).sum()
    assert np.array_equal(interactions.item_idx, before)
    with pytest.raises(ValueError, match="read-only"):
        interactions.item_idx[0] = 1
    user, item = interactions.user_idx[7], interactions.item_idx[7]
    assert interactions.matrix[user, item] == interactions.confidence[7]


def test_events_and_recent_events_of_a_batch(tiny):
    _, _, data = tiny
    interactions, users = load_interactions(data), np.array([7, 2, 7])
    frame = pd.DataFrame({"user": interactions.user_idx, "item": interactions.item_idx})
    histories = [frame.item[frame.user == user].tolist() for user in users]
    rows, events = interactions.events_of(users)
    assert [interactions.item_idx[events[rows == row]].tolist() for row in range(3)] == histories
    recent = interactions.recent(users, last=3, decay=0.5).toarray()
    for row, history in enumerate(histories):
        assert recent[row, history[-3:]].tolist() == [0.25, 0.5, 1] and np.count_nonzero(recent[row]) == 3
    assert interactions.recent(np.array([], int), last=3, decay=0.5).shape == (0, interactions.n_items)


def test_genre_matrix(tiny):
    _, _, data = tiny
    items = load_items(data)
    matrix, names = item_genre_matrix(items)
    assert names == ["Action", "Comedy", "Drama", "Horror"]
    for item in (0, 5, 119):
        assert [names[genre] for genre in matrix[[item]].indices] == sorted(set(items.genres[item]))
