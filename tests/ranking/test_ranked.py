"""A ranked system keeps the contract of every recommender."""

from copy import copy
from dataclasses import replace

import numpy as np
import pytest

from movierec.ranking.ranked import RankedSystem, ranked_lists


@pytest.mark.parametrize("version", ["ranked_v2", "ranked_v3"])
def test_a_ranked_system_keeps_the_contract(stage, rankers, version, tmp_path):
    holdout, hybrid, store = stage.holdout, stage.hybrid, stage.store
    system = RankedSystem.over(store, rankers[version])
    users, as_of = holdout.users, holdout.as_of[holdout.users]
    items, scores = system.top_k(users, 20, as_of)
    pool = hybrid.pool(users, as_of)
    for row in range(len(users)):
        assert set(items[row].tolist()) <= set(pool.items[row].tolist()), "a ranker only orders the pool"
    assert (np.diff(scores, axis=1)[np.isfinite(scores[:, 1:])] <= 0).all()
    assert np.array_equal(items, system.top_k(users, 20, as_of, batch_size=3)[0])
    assert system.recommend(users, 20, as_of).source.unique().tolist() == [version]
    together = ranked_lists(store, {name: rankers[name] for name in ("ranked_v1", version)}, users, 20, as_of)
    assert np.array_equal(together[version][0], items)
    assert np.array_equal(together["hybrid"][0], hybrid.top_k(users, 20, as_of)[0])
    for name in hybrid.builder.sources:
        assert np.array_equal(together[name][0], hybrid.sources[name].top_k(users, 20, as_of)[0])
    system.save(tmp_path)
    loaded = RankedSystem.load(tmp_path, holdout.history)
    assert np.array_equal(loaded.top_k(users, 20, as_of)[1], scores)


def test_no_users_get_no_lists(stage, rankers):
    items, scores = RankedSystem.over(stage.store, rankers["ranked_v3"]).top_k(np.zeros(0, np.int32), 5)
    assert items.shape == scores.shape == (0, 5)


def test_fold_in_users_get_what_fitted_users_get(stage, rankers):
    """Users who are folded in with their own histories; ALS, whose fold-in is an exact solution, has no weight."""
    hybrid, history = stage.hybrid, stage.holdout.history
    weights = {user_context: row | {"als": 0.0} for user_context, row in hybrid.weights.items()}
    without_als = replace(hybrid, weights=weights)
    without_als.interactions = hybrid.interactions
    store, users = copy(stage.store), stage.training.users[:6]
    store.hybrid = without_als
    rows, _ = history.events_of(users)
    events = history.select(np.isin(history.user_idx, users))
    folded_in = history.fold_in_users(replace(events, user_idx=rows.astype(np.int32), n_users=len(users)))
    system, as_of = RankedSystem.over(store, rankers["ranked_v3"]), stage.holdout.as_of[users]
    items, scores = system.top_k(users, 10, as_of)
    theirs, their_scores = system.fold_in(folded_in).top_k(np.arange(len(users)), 10, as_of)
    assert np.array_equal(items, theirs) and np.array_equal(scores, their_scores)
