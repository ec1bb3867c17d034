"""Genre mix: the greedy selection against plain loops, and what the weights do."""

import numpy as np
import pytest
from scipy import sparse

from movierec.metrics import genre_miscalibration
from movierec.ranking.genre_mix import (
    NO_MIX,
    ListMix,
    MixTarget,
    divergence,
    select_mixed,
    share_of_tiers,
    tier_shares,
)


def plain_divergence(p, q, alpha=0.01):
    """C_KL of Steck (2018), term by term."""
    q = q / q.sum() if q.sum() else q
    return sum(p[g] * np.log(p[g] / ((1 - alpha) * q[g] + alpha * p[g])) for g in range(len(p)) if p[g] > 0)


def plain_greedy(relevance, mixes, k):
    """Evaluate the whole objective for every list that has one item more."""
    share, chosen = np.prod([1 - mix.weight for mix in mixes]), []

    def objective(items):
        value = share * sum(relevance[item] for item in items)
        return value - sum(mix.weight * plain_divergence(mix.target, mix.shares[items].sum(axis=0)) for mix in mixes)

    for _ in range(min(k, len(relevance))):
        left = [item for item in range(len(relevance)) if item not in chosen]
        values = np.array([objective([*chosen, item]) for item in left])
        chosen.append(left[int(np.flatnonzero(values >= values.max() - 1e-12)[0])])
    return chosen


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("weights", [(0.3,), (0.5,), (0.9,), (1.0,), (0.4, 0.7)])
def test_greedy_selection_by_plain_loops(seed, weights):
    rng = np.random.default_rng(seed)
    relevance = np.sort(rng.random(12))[::-1]
    mixes = [MixTarget(weight, rng.dirichlet(np.ones(4)), rng.dirichlet(np.ones(4) / 3, 12)) for weight in weights]
    assert select_mixed(relevance, mixes, 6).tolist() == plain_greedy(relevance, mixes, 6)
    assert sorted(select_mixed(relevance, mixes, 99).tolist()) == list(range(12))


def test_without_weight_the_order_stays():
    relevance = np.array([0.9, 0.9, 0.5, 0.1])
    shares = np.eye(4)
    assert select_mixed(relevance, [], 4).tolist() == [0, 1, 2, 3]
    assert select_mixed(relevance, [MixTarget(0.0, np.array([0, 0, 0, 1.0]), shares)], 4).tolist() == [0, 1, 2, 3]
    unknown = MixTarget(0.7, np.zeros(4), shares)  # a user without a history
    assert select_mixed(relevance, [unknown], 4).tolist() == [0, 1, 2, 3]
    assert not NO_MIX.is_active and ListMix(0.1).is_active and ListMix(match_popularity=0.1).is_active


def test_the_divergence_is_that_of_the_metric():
    rng = np.random.default_rng(0)
    genres = sparse.csr_matrix((rng.random((30, 5)) < 0.4).astype(np.float32))
    history = sparse.csr_matrix(rng.random((8, 30)) * (rng.random((8, 30)) < 0.3))
    ranked = np.array([rng.permutation(30)[:6] for _ in range(8)])
    shares = genres.toarray() / np.maximum(genres.toarray().sum(axis=1, keepdims=True), 1)
    target = history @ shares
    target /= target.sum(axis=1, keepdims=True)
    found = [divergence(p, shares[items].sum(axis=0)[None])[0] for p, items in zip(target, ranked, strict=True)]
    assert np.allclose(found, genre_miscalibration(ranked, history, genres, 6))


def test_more_weight_means_a_better_match():
    rng = np.random.default_rng(1)
    relevance, shares = np.sort(rng.random(200))[::-1], rng.dirichlet(np.ones(8) / 4, 200)
    target = rng.dirichlet(np.ones(8))
    distances, relevances = [], []
    for weight in (0, 0.2, 0.5, 0.8, 1):
        chosen = select_mixed(relevance, [MixTarget(weight, target, shares)], 10)
        distances.append(divergence(target, shares[chosen].sum(axis=0)[None])[0])
        relevances.append(relevance[chosen].sum())
    assert distances[-1] < 0.1 < distances[0] and relevances == sorted(relevances, reverse=True)


def test_tiers():
    assert tier_shares(np.array([0, 2, -1])).tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]
    assert share_of_tiers(np.array([], int)).tolist() == [0, 0, 0]
    assert share_of_tiers(np.array([0, 1, 1, 2])).tolist() == [0.25, 0.5, 0.25]
