"""Counts of what follows what, and the closed forms built on them, against their definitions in plain loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_baselines import make_interactions

from movierec.data.interactions import Interactions
from movierec.retrieval.linalg import invert, solve
from movierec.retrieval.linear import EASE, LinearAutoregression, most_rated, restrict_to_items
from movierec.retrieval.sequential import Sequential, transitions


def ragged(seed=0, n_users=25, n_items=12) -> Interactions:
    """Histories of different lengths, some empty; the last item has no event."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, n_items - 1, n_users)
    users = np.repeat(np.arange(n_users), lengths).astype(np.int32)
    items = np.concatenate([rng.permutation(n_items - 1)[:length] for length in lengths]).astype(np.int32)
    ones = np.ones(len(users), np.float32)
    return Interactions(users, items, ones * 5, ones * 2.5, np.arange(len(users), dtype=np.int64), n_users, n_items, len(users))


def histories(interactions):
    return [interactions.item_idx[interactions.indptr[u] : interactions.indptr[u + 1]].tolist() for u in range(interactions.n_users)]


@given(st.integers(0, 1_000), st.integers(1, 6), st.sampled_from([0.0, 0.5, 1.0]), st.integers(1, 60), st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_transitions_are_the_counts(seed, window, decay, most_pairs, at_once):
    interactions = ragged(seed)
    weight = np.random.default_rng(seed).random(12)
    expected, weighted = np.zeros((12, 12)), np.zeros((12, 12))
    for history in histories(interactions):
        for place, item in enumerate(history):
            for step, follower in enumerate(history[place + 1 : place + 1 + window]):
                expected[item, follower] += decay**step
                weighted[item, follower] += decay**step * weight[len(history) - place - 2 - step]
    mine, mine_weighted = np.zeros((12, 12)), np.zeros((12, 12))
    rows_seen = []
    for rows, (plain, with_weight) in transitions(interactions, window, decay, lambda *block: block, (None, weight), most_pairs, at_once):
        mine[rows], mine_weighted[rows] = plain, with_weight
        rows_seen += range(rows.start, rows.stop)
    assert rows_seen == list(range(12)), "each row once"
    assert np.allclose(mine, expected) and np.allclose(mine_weighted, weighted, rtol=1e-5)


@pytest.mark.parametrize(("n", "size"), [(0, 4), (1, 4), (8, 4), (37, 8), (50, 64)])
def test_tiles_solve_and_invert(n, size):
    rng = np.random.default_rng(n)
    rows, right = rng.normal(size=(n + 5, n)), rng.normal(size=(n, 9))
    matrix = rows.T @ rows + np.eye(n)
    left, solution, inverse = matrix.copy(), right.copy(), matrix.copy()
    solve(left, solution, size)
    invert(inverse, size)
    assert np.allclose(solution, np.linalg.solve(matrix, right)) and np.allclose(np.tril(inverse), np.tril(np.linalg.inv(matrix)))
    assert np.allclose(np.tril(left), np.linalg.cholesky(matrix)), "the factor is left behind"
    easy = n // 3
    matrix[:easy, :easy] = np.diag(np.diag(matrix)[:easy]) * n
    left, solution = matrix.copy(), right.copy()
    solve(left, solution, size, easy)
    assert np.allclose(solution, np.linalg.solve(matrix, right)) and np.allclose(np.tril(left), np.linalg.cholesky(matrix))
    with pytest.raises(np.linalg.LinAlgError):
        solve(-np.eye(3), np.ones((3, 1)))
    with pytest.raises(np.linalg.LinAlgError):
        solve(-np.eye(3), np.ones((3, 1)), n_diagonal=2)


@pytest.mark.parametrize("model", [EASE(regularization=5.0, min_events=1), LinearAutoregression(regularization=5.0, min_events=1), Sequential()])
def test_a_fit_is_the_same_on_any_number_of_cores(model, monkeypatch):
    found, matrix = [], 100 * np.eye(60) + np.random.default_rng(0).random((60, 60))
    for cores in (1, 3):
        monkeypatch.setattr("movierec.parallel.cores", lambda cores=cores: cores)
        model.fit(ragged(7, 400, 60))
        left, right, inverse = matrix + matrix.T, matrix.copy(), matrix + matrix.T
        solve(left, right, 16)
        invert(inverse, 16)
        found.append((model.lift.toarray() if isinstance(model, Sequential) else model.weights.copy(), right, np.tril(inverse)))
    assert all(map(np.array_equal, *found))


def test_recent_is_the_end_of_the_history():
    interactions = ragged()
    profile = interactions.recent(np.arange(25), 3, 0.5).toarray()
    for user, history in enumerate(histories(interactions)):
        expected = np.zeros(12)
        for back, item in enumerate(history[::-1][:3]):
            expected[item] = 0.5**back
        assert np.allclose(profile[user], expected)
    assert interactions.recent(np.array([], int), 3, 0.5).shape == (0, 12)


def test_sequential_is_a_sum_of_log_likelihood_ratios():
    interactions = ragged()
    model = Sequential(window=3, step_decay=0.5, smoothing=4.0, discount=0.3, last=4, decay=0.6).fit(interactions)
    counts = np.zeros((12, 12))
    for history in histories(interactions):
        for place, item in enumerate(history):
            for step, follower in enumerate(history[place + 1 : place + 4]):
                counts[item, follower] += 0.5**step
    share = np.maximum(interactions.item_counts, 1) / len(interactions)
    smooth = (counts + 4 * share) / (counts.sum(axis=1, keepdims=True) + 4)
    ratio = np.log(smooth) - 0.3 * np.log(share)
    scores = model._scores(np.arange(25), np.zeros(25))
    for user, history in enumerate(histories(interactions)):
        if not history:
            assert np.isneginf(scores[user]).all()
            continue
        expected = sum(0.6**back * ratio[item] for back, item in enumerate(history[::-1][:4]))
        assert np.allclose(scores[user] - scores[user][0], expected - expected[0], atol=1e-4), "up to a constant for each user"
        seed, target = model.seed_items(np.array([user]), np.array([[1]]))[0, 0], 1
        parts = {item: 0.6**back * model.lift[item, target] for back, item in enumerate(history[::-1][:4])}
        assert (seed == -1 and max(parts.values()) == 0) or np.isclose(parts[seed], max(parts.values()))


def test_fewer_neighbours_keep_the_best_followers():
    interactions = ragged(n_users=200)
    whole, cut = Sequential(window=3).fit(interactions), Sequential(window=3, neighbours=4).fit(interactions)
    worth = np.where(whole.lift.toarray() > 0, whole.lift.toarray() + 0.6 * whole.log_share, -np.inf)
    for item in range(11):
        best = set(np.argsort(-worth[item])[:4].tolist())
        assert set(cut.lift[[item]].indices.tolist()) == best & set(np.flatnonzero(np.isfinite(worth[item])).tolist())


def ease_by_definition(x, regularization):
    """Each column by itself: ridge regression on all other columns (Steck 2019, eq. 4, without the closed form)."""
    n = x.shape[1]
    weights = np.zeros((n, n))
    for item in range(n):
        others = np.arange(n) != item
        a = x[:, others]
        weights[others, item] = np.linalg.solve(a.T @ a + regularization * np.eye(n - 1), a.T @ x[:, item])
    return weights


def test_ease_is_a_ridge_regression_on_all_other_items():
    interactions = make_interactions()
    x = interactions.csr(np.ones(len(interactions))).toarray()
    model = EASE(5.0, min_events=1).fit(interactions)
    assert model.items.tolist() == list(range(37)), "the last three have no event"
    assert np.allclose(model.weights, ease_by_definition(x[:, :37], 5.0), atol=1e-5)
    assert np.allclose(model._scores(np.arange(29), np.zeros(29))[:, :37], x[:29, :37] @ model.weights, atol=1e-5)
    seed = model.seed_items(np.array([3]), np.array([[7, 38]]))[0]
    assert seed[0] == (x[3, :37] * model.weights[:, 7]).argmax() and seed[1] == -1


def test_ease_on_the_most_rated_items():
    interactions = make_interactions()
    kept = np.sort(sorted(range(40), key=lambda item: (-interactions.item_counts[item], item))[:10])
    assert most_rated(interactions, 10).tolist() == kept.tolist()
    model = EASE(5.0, max_items=10, min_events=1).fit(interactions)
    x = interactions.csr(np.ones(len(interactions))).toarray()[:, kept]
    assert np.allclose(model.weights, ease_by_definition(x, 5.0), atol=1e-5)
    scores = model._scores(np.arange(30), np.zeros(30))
    assert np.isneginf(np.delete(scores, kept, axis=1)).all()
    assert np.isneginf(scores[29]).all(), "nothing is known about a user without events"


@pytest.mark.parametrize("decays", [(0.0,), (0.5,), (0.0, 0.75, 0.97), (0.9, 0.3)])
@pytest.mark.parametrize("max_items", [8, 100])
def test_linear_autoregression_by_definition(decays, max_items):
    """A row per event, built one by one and solved; no memory ends early."""
    interactions = ragged(n_users=60)
    model = LinearAutoregression(decays, 3.0, max_items=max_items, least=1e-9, min_events=1).fit(interactions)
    known = restrict_to_items(interactions, model.items)
    n, rows, targets = known.n_items, [], []
    for history in histories(known):
        for t, item in enumerate(history):
            rows.append(np.concatenate([sum((np.eye(n)[history[s]] * float(d) ** (t - 1 - s) for s in range(t)), np.zeros(n)) for d in decays]))
            targets.append(np.eye(n)[item])
    x, y = np.array(rows), np.array(targets)
    weights = np.linalg.solve(x.T @ x + 3.0 * np.eye(x.shape[1]), x.T @ y)
    assert np.allclose(model.weights, weights, atol=1e-4)
    scores = model._scores(np.arange(60), np.zeros(60))
    for user, history in enumerate(histories(known)):
        if not history:
            assert np.isneginf(scores[user]).all()
            continue
        now = [sum((np.eye(n)[item] * float(d) ** back for back, item in enumerate(history[::-1])), np.zeros(n)) for d in decays]
        assert np.allclose(scores[user][model.items], np.concatenate(now) @ weights, atol=1e-4)
        parts = {item: sum(float(d) ** back * weights[number * n + item, 0] for number, d in enumerate(decays)) for back, item in enumerate(history[::-1])}
        seed, best = model.seed_items(np.array([user]), model.items[None, :1])[0, 0], max(parts, key=parts.get)
        assert seed == (model.items[best] if parts[best] > 0 else -1) or abs(parts[best]) < 1e-5


def test_nothing_to_learn_from():
    interactions = make_interactions().select(np.zeros(29 * 12, bool))
    for model in (Sequential(), EASE(min_events=1), LinearAutoregression(min_events=1)):
        assert (model.fit(interactions).top_k(np.arange(30), 5)[0] == -1).all()


def test_the_next_film_in_a_cycle():
    """Everybody watches the films in a circle, from a random start: what comes next is certain."""
    start = np.random.default_rng(0).integers(0, 12, 200)
    items = ((start[:, None] + np.arange(6)) % 12).astype(np.int32)
    ones = np.ones(1_200, np.float32)
    interactions = Interactions(np.repeat(np.arange(200), 6).astype(np.int32), items.ravel(), ones * 5, ones * 2.5, np.arange(1_200), 200, 12, 1_200)
    for model in (Sequential(smoothing=1.0), LinearAutoregression(regularization=1.0, min_events=1)):
        assert np.array_equal(model.fit(interactions).top_k(np.arange(200), 1)[0][:, 0], (start + 6) % 12), model.name
    assert not np.array_equal(EASE(1.0, min_events=1).fit(interactions).top_k(np.arange(200), 1)[0][:, 0], (start + 6) % 12), "EASE knows no order"
