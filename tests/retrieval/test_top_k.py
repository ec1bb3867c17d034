"""Exact top-k against a full sort, with ties, NaN and infinities."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from movierec.retrieval.top_k import kth_largest, merge_lists, top_k, top_k_sparse


def full_sort(row: np.ndarray, k: int, above: float = -np.inf) -> list[int]:
    """Items with a score above the limit, by score, then index, padded with −1."""
    order = sorted(np.flatnonzero(row > above).tolist(), key=lambda item: (-row[item], item))[:k]
    return order + [-1] * (k - len(order))


@given(st.integers(0, 10_000), st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_small_rows_are_fully_sorted(seed, k):
    values = [-1.5, -0.0, 0.0, 0.25, 3.0, -np.inf, 1e-30, 1e30]
    scores = np.random.default_rng(seed).choice(values, (4, 9)).astype(np.float32)
    items, best = top_k(scores, k)
    for row, found, found_scores in zip(scores, items, best, strict=True):
        assert found.tolist() == full_sort(row, k)
        assert found_scores.tolist() == [row[item] if item >= 0 else -np.inf for item in found]


@pytest.mark.parametrize("k", [1, 5, 40, 200, 1_000])
def test_wide_rows_are_fully_sorted(k):
    scores = np.round(np.random.default_rng(k).standard_normal((6, 900)), 1).astype(np.float32)  # many ties
    scores[0], scores[1, 5:], scores[2, ::2], scores[3, 700] = 0, -np.inf, np.nan, np.inf
    items, best = top_k(scores, k, above=-1.5)
    for row, found, found_scores in zip(scores, items, best, strict=True):
        assert found.tolist() == full_sort(row, k, above=-1.5)
        assert found_scores[found >= 0].tolist() == row[found[found >= 0]].tolist()
    for a, b in zip(top_k(np.asfortranarray(scores), k), top_k(scores, k), strict=True):
        assert np.array_equal(a, b), "the memory layout must not matter"


def test_nan_is_never_recommended():
    assert top_k(np.array([[np.nan, 1.0, np.nan, 0.5]], np.float32), 3)[0].tolist() == [[1, 3, -1]]


def test_no_items_no_users_no_list():
    assert (top_k(np.zeros((2, 0), np.float32), 3)[0] == -1).all()
    assert top_k(np.zeros((0, 4), np.float32), 3)[0].shape == (0, 3)
    assert top_k(np.zeros((2, 4), np.float32), 0)[0].shape == (2, 0)


def stored(scores: np.ndarray) -> sparse.csr_matrix:
    """The finite scores of each row, in the order of items."""
    is_stored = np.isfinite(scores)
    return sparse.csr_matrix((scores[is_stored], np.nonzero(is_stored)), shape=scores.shape)


@given(st.integers(0, 10_000), st.integers(1, 12), st.sampled_from([-np.inf, 0.0, 2.0]))
@settings(max_examples=60, deadline=None)
def test_sparse_rows_give_the_lists_of_dense_ones(seed, k, above):
    """Rows from empty to full, in rectangles of any size."""
    rng = np.random.default_rng(seed)
    scores = np.round(rng.standard_normal((8, 30)), 1).astype(np.float32)
    scores[rng.random(scores.shape) < rng.random((8, 1)) * 1.2] = -np.inf
    matrix = stored(scores)
    for found, expected in zip(top_k_sparse(matrix, k, above), top_k(scores, k, above), strict=True):
        assert np.array_equal(found, expected)
    order = np.sort(scores, axis=1)[:, ::-1]
    expected = np.where(np.isfinite(scores).sum(axis=1) > k, order[:, k - 1], -np.inf)
    assert np.array_equal(kth_largest(matrix, matrix.data, k, most_cells=int(rng.integers(1, 100))), expected)


@given(st.integers(0, 10_000), st.integers(0, 12))
@settings(max_examples=40, deadline=None)
def test_merged_lists_are_the_lists_of_the_whole(seed, k):
    rng = np.random.default_rng(seed)
    scores = np.round(rng.standard_normal((4, 25)), 1).astype(np.float32)
    scores[rng.random(scores.shape) < 0.3] = -np.inf
    parts = [slice(0, 10), slice(10, 12), slice(12, 25)]
    lists = [top_k(scores[:, part], k) for part in parts]
    items = [np.where(found >= 0, found + part.start, -1) for (found, _), part in zip(lists, parts, strict=True)]
    merged = merge_lists(np.hstack(items), np.hstack([best for _, best in lists]), k)
    for found, expected in zip(merged, top_k(scores, k), strict=True):
        assert np.array_equal(found, expected) and found.dtype == expected.dtype
