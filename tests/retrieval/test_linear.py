"""EASE and linear autoregression against their definitions, built row by row and solved."""

import numpy as np
import pytest
from helpers import make_histories, make_interactions

from movierec.retrieval.linear import EASE, LinearAutoregression, most_rated, restrict_to_items

INTERACTIONS = make_interactions()
SEEN = INTERACTIONS.csr(np.ones(len(INTERACTIONS))).toarray()


def ease_by_definition(x: np.ndarray, regularization: float) -> np.ndarray:
    """Each column by itself: ridge regression on all other columns (Steck 2019, eq. 4, without the closed form)."""
    n = x.shape[1]
    weights = np.zeros((n, n))
    for item in range(n):
        others = np.arange(n) != item
        a = x[:, others]
        weights[others, item] = np.linalg.solve(a.T @ a + regularization * np.eye(n - 1), a.T @ x[:, item])
    return weights


def test_ease_is_a_ridge_regression_on_all_other_items():
    model = EASE(5.0, min_events=1).fit(INTERACTIONS)
    assert model.items.tolist() == list(range(37)), "the last three have no event"
    assert np.allclose(model.weights, ease_by_definition(SEEN[:, :37], 5.0), atol=1e-5)
    scores = model._scores(np.arange(29), np.zeros(29))[:, :37]
    assert np.allclose(scores, SEEN[:29, :37] @ model.weights, atol=1e-5)
    seeds = model.seed_items(np.array([3]), np.array([[7, 38]]))[0]
    assert seeds.tolist() == [(SEEN[3, :37] * model.weights[:, 7]).argmax(), -1], "item 38 isn't modelled"


def test_ease_on_the_most_rated_items():
    counts = INTERACTIONS.item_counts
    kept = sorted(sorted(range(40), key=lambda item: (-counts[item], item))[:10])
    assert most_rated(INTERACTIONS, 10).tolist() == kept
    model = EASE(5.0, max_items=10, min_events=1).fit(INTERACTIONS)
    assert np.allclose(model.weights, ease_by_definition(SEEN[:, kept], 5.0), atol=1e-5)
    scores = model._scores(np.arange(30), np.zeros(30))
    assert np.isneginf(np.delete(scores, kept, axis=1)).all()
    assert np.isneginf(scores[29]).all(), "a user without events has no scores"


def memories_of(history: list[int], decays: tuple[float, ...], n: int) -> np.ndarray:
    """The decayed sums of a history, side by side."""
    memories = np.zeros((len(decays), n))
    for item in history:
        memories = memories * np.array(decays)[:, None] + np.eye(n)[item]
    return memories.ravel()


@pytest.mark.parametrize("decays", [(0.0,), (0.5,), (0.0, 0.75, 0.97), (0.9, 0.3)])
@pytest.mark.parametrize("max_items", [8, 100])
def test_linear_autoregression_by_definition(decays, max_items):
    """A row for each event; no memory ends early."""
    rng = np.random.default_rng(0)
    all_histories = [rng.permutation(11)[:length].tolist() for length in rng.integers(0, 11, 60)]
    interactions = make_histories(all_histories, 12)
    model = LinearAutoregression(decays, 3.0, max_items=max_items, min_weight=1e-9, min_events=1).fit(interactions)
    n, restricted = len(model.items), restrict_to_items(interactions, model.items)
    bounds = restricted.indptr
    histories = [restricted.item_idx[bounds[user] : bounds[user + 1]].tolist() for user in range(60)]
    x = np.array([memories_of(history[:t], decays, n) for history in histories for t in range(len(history))])
    y = np.array([np.eye(n)[item] for history in histories for item in history])
    weights = np.linalg.solve(x.T @ x + 3.0 * np.eye(x.shape[1]), x.T @ y)
    assert np.allclose(model.weights, weights, atol=1e-4)
    scores = model._scores(np.arange(60), np.zeros(60))
    seeds = model.seed_items(np.arange(60), np.full((60, 1), model.items[0]))[:, 0]
    for user, history in enumerate(histories):
        if not history:
            assert np.isneginf(scores[user]).all()
            continue
        assert np.allclose(scores[user][model.items], memories_of(history, decays, n) @ weights, atol=1e-4)
        parts = {}
        for back, item in enumerate(history[::-1]):
            parts[item] = sum(float(d) ** back * weights[number * n + item, 0] for number, d in enumerate(decays))
        best = max(parts, key=parts.get)
        expected = model.items[best] if parts[best] > 0 else -1
        assert seeds[user] == expected or abs(parts[best]) < 1e-5


@pytest.mark.parametrize("model", [EASE(0.0, min_events=1), LinearAutoregression((0.5,), 0.0, min_events=1)])
def test_a_singular_system_names_the_setting(model):
    twins = make_histories([[0, 1]], 2)  # two items with the same users
    with pytest.raises(np.linalg.LinAlgError, match=rf"raise {model.name}\.regularization"):
        model.fit(twins)
