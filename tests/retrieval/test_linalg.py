"""Products, factorisations and exact rounding against NumPy, and on any number of cores."""

import numpy as np
import pytest
from helpers import make_interactions
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from movierec.retrieval.linalg import (
    dense_product,
    gram,
    invert,
    partition_by_work,
    round_for_exact_sums,
    solve,
    to_exact_integers,
)


@given(st.lists(st.integers(0, 30), max_size=40), st.integers(1, 50), st.integers(1, 9))
@settings(max_examples=50, deadline=None)
def test_parts_cover_all_rows_and_stay_within_the_limits(work, most_work, most_rows):
    parts = partition_by_work(np.concatenate([[0], np.cumsum(np.array(work, int))]), most_work, most_rows)
    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(len(work)))
    for part in parts:
        n_rows = part.stop - part.start
        assert n_rows <= most_rows and (n_rows == 1 or sum(work[part]) <= most_work)


@pytest.mark.parametrize("values", [np.ones(30), np.random.default_rng(1).random(30)], ids=["ones", "weights"])
def test_dense_product_is_the_sparse_one(values):
    rng = np.random.default_rng(0)
    columns = rng.permutation(60)[:30] % 10
    left = sparse.csr_matrix((values.astype(np.float32), columns, [0, 12, 12, 30]), shape=(3, 10))
    right = sparse.csr_matrix(sparse.random_array((10, 7), density=0.4, dtype=np.float32, rng=rng))
    assert np.array_equal(dense_product(left, right), (left @ right).toarray())


@pytest.mark.parametrize("dense_share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("batch_size", "width", "most_sums"), [(7, 3, 10), (1_000, 256, 1_000_000)])
def test_gram_of_popular_and_rare_columns(dense_share, batch_size, width, most_sums):
    x = make_interactions().csr(np.ones(29 * 12, np.float32))
    product = np.full((x.shape[1],) * 2, np.nan)

    def put(items, block):
        product[items] = block
        return items

    rows = np.concatenate(gram(x, put, dense_share, batch_size, width, most_sums))
    assert np.array_equal(product, (x.T @ x).toarray())
    assert sorted(rows.tolist()) == list(range(x.shape[1])), "each row once"


@given(st.integers(0, 1_000), st.sampled_from([1, 8, 64, 200]))
@settings(max_examples=20, deadline=None)
def test_dot_products_of_rounded_vectors_are_exact(seed, factors):
    rng = np.random.default_rng(seed)
    users = rng.standard_normal((5, factors)) * 10.0 ** rng.integers(-6, 6, (5, 1))
    items = rng.standard_normal((9, factors))
    (u, unit_u), (v, unit_v) = to_exact_integers(users), to_exact_integers(items, per_vector=False)
    exact = [[sum(int(a) * int(b) for a, b in zip(x, y, strict=True)) for y in v] for x in u]
    assert (u @ v.T).tolist() == exact and max(abs(value) for row in exact for value in row) < 2**53
    length = np.linalg.norm(users, axis=1)[:, None] * np.linalg.norm(items, axis=1).max()
    assert (np.abs(u @ v.T * unit_u * unit_v - users @ items.T) <= 1e-5 * length).all()


def test_rounded_sums_are_exact_in_any_order():
    rng = np.random.default_rng(0)
    weights = (rng.random((50, 12)) * 10.0 ** rng.integers(-12, 3, (50, 1))).astype(np.float32)
    rounded = round_for_exact_sums(weights, 12)
    backwards = rounded[:, ::-1].cumsum(axis=1, dtype=np.float32)[:, -1]
    assert np.array_equal(rounded.astype(np.float64).sum(axis=1), backwards)
    assert np.allclose(rounded, weights, rtol=1e-5, atol=weights.max(axis=1, keepdims=True) * 1e-5)
    assert round_for_exact_sums(np.zeros((3, 0), np.float32), 1).shape == (3, 0)
    assert (round_for_exact_sums(np.zeros((3, 2), np.float32), 2) == 0).all()


@pytest.mark.parametrize(("n", "tile_size"), [(0, 4), (1, 4), (8, 4), (37, 8), (50, 64)])
@pytest.mark.parametrize("has_diagonal_block", [False, True])
def test_solve_and_invert(n, tile_size, has_diagonal_block):
    rng = np.random.default_rng(n)
    rows, right = rng.normal(size=(n + 5, n)), rng.normal(size=(n, 9))
    matrix = rows.T @ rows + np.eye(n)
    n_diagonal = n // 3 if has_diagonal_block else 0
    matrix[:n_diagonal, :n_diagonal] = np.diag(np.diag(matrix)[:n_diagonal]) * max(n, 1)
    left, solution, inverse = matrix.copy(), right.copy(), matrix.copy()
    solve(left, solution, tile_size, n_diagonal)
    invert(inverse, tile_size)
    assert np.allclose(solution, np.linalg.solve(matrix, right))
    assert np.allclose(np.tril(left), np.linalg.cholesky(matrix)), "the factor is left behind"
    assert np.allclose(np.tril(inverse), np.tril(np.linalg.inv(matrix)))


@pytest.mark.parametrize("n_diagonal", [0, 2])
def test_a_matrix_that_is_not_positive_definite(n_diagonal):
    with pytest.raises(np.linalg.LinAlgError):
        solve(-np.eye(3), np.ones((3, 1)), n_diagonal=n_diagonal)


def test_the_same_numbers_on_any_number_of_cores(monkeypatch):
    noise = np.random.default_rng(0).random((60, 60))
    matrix, results = 100 * np.eye(60) + noise + noise.T, []
    for cores in (1, 3):
        monkeypatch.setattr("movierec.parallel.cores", lambda cores=cores: cores)
        left, right, inverse = matrix.copy(), noise.copy(), matrix.copy()
        solve(left, right, 16)
        invert(inverse, 16)
        results.append((right, np.tril(inverse)))
    assert all(map(np.array_equal, *results))
