"""Fusion weights are tuned to what the validation set rewards."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import sparse

from movierec.config import DataError, NotFoundError
from movierec.data.interactions import Interactions
from movierec.evaluation.tuning import FusionTable, open_phases, tune, tune_weights
from movierec.retrieval.als import ALS
from movierec.retrieval.fusion import USER_CONTEXTS
from movierec.retrieval.hybrid import Hybrid
from movierec.retrieval.popularity import Popularity

N_USERS, N_ITEMS = 30, 40


@pytest.fixture(scope="module")
def hybrid():
    """Popularity and ALS with equal weights, fitted on random events."""
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(N_USERS), 12).astype(np.int32)
    items = np.concatenate([rng.permutation(N_ITEMS)[:12] for _ in range(N_USERS)]).astype(np.int32)
    confidence = rng.choice([0, 0.5, 1.0, 2.5], len(users)).astype(np.float32)
    times = np.sort(rng.integers(10**9, 10**9 + 10**7, (N_USERS, 12)), axis=1).ravel()
    events = Interactions(users, items, confidence + 2.5, confidence, times, N_USERS, N_ITEMS, 10**9 + 10**7)
    weights = {user_context: {"popularity": 1.0, "als": 0.1} for user_context in USER_CONTEXTS}
    return Hybrid({"popularity": Popularity(), "als": ALS(factors=8)}, weights, pool_size=15, depth=15).fit(events)


@pytest.fixture
def holdout(hybrid):
    """A holdout in which each user likes just the first item of ALS's list, long after the last event."""
    best = hybrid.sources["als"].top_k(np.arange(N_USERS), 1)[0][:, 0]
    ones = np.ones(N_USERS, np.float32)
    relevant = sparse.csr_matrix((ones, (np.arange(N_USERS), best)), shape=(N_USERS, N_ITEMS))
    as_of = np.full(N_USERS, hybrid.interactions.as_of + 10**6)
    return SimpleNamespace(evaluated_users=np.arange(N_USERS), as_of=as_of, relevant=relevant)


def test_tuning_finds_the_source_that_knows(hybrid, holdout):
    weights, reached = tune_weights(hybrid, holdout, "returning", depth=200)
    assert weights["als"] > weights["popularity"] and reached["ndcg@10"] > 0.95
    with pytest.raises(DataError, match="no validation user is in the context in_session"):
        tune_weights(hybrid, holdout, "in_session")


def test_fused_lists_are_the_hybrids(hybrid, holdout):
    """The table's shortcut against the hybrid itself."""
    users = holdout.evaluated_users
    lists = {name: source.top_k(users, 15, holdout.as_of)[0] for name, source in hybrid.sources.items()}
    table = FusionTable.from_lists(lists, N_ITEMS, hybrid.rank_constant)
    expected = hybrid.top_k(users, 10, holdout.as_of)[0]
    assert np.array_equal(table.fuse(hybrid.weights["returning"], 10), expected)


def test_only_finished_runs_are_tuned(tiny_run):
    settings, _ = tiny_run
    with pytest.raises(NotFoundError, match=r"no user context retuning \(did you mean returning\?\)"):
        tune(settings, "global-time", "retuning")
    with pytest.raises(NotFoundError, match="no protocol all"):
        open_phases(settings, "all")
    other = settings.model_copy(update={"als": settings.als.model_copy(update={"factors": 5}), "half_life_days": 3.0})
    opened, _, sources = open_phases(other, "leave-last-out")
    assert opened.half_life_days == 30, "the settings are those of the run"
    assert {phase: artifact.manifest["contents"]["phase"] for phase, artifact in sources.items()} == {
        "tuning": "tuning", "validation": "validation"}
