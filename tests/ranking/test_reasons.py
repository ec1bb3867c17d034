"""Plain reasons sum up what the features say, and a movie that is named makes a difference."""

import numpy as np
import pytest

from movierec.config import ALL_SOURCES
from movierec.data.interactions import of_users
from movierec.ranking.contributions import leave_one_out
from movierec.ranking.features import FEATURES
from movierec.ranking.ranked import RankedSystem
from movierec.ranking.reasons import (
    REASON_GROUPS,
    SOURCE_GROUPS,
    fused_shares,
    group_contributions,
    influential_items,
    likely_influences,
    reason_group,
    scores_without,
)


def test_every_source_and_feature_has_its_place():
    assert set(SOURCE_GROUPS) == set(ALL_SOURCES) and set(SOURCE_GROUPS.values()) == set(REASON_GROUPS)
    groups = {feature.name: reason_group(feature.name) for feature in FEATURES}
    assert {name for name, group in groups.items() if group == "fused"} == {"fused_score", "fused_rank", "n_sources"}
    assert all(name.startswith(("user_", "hour_")) for name, group in groups.items() if not group)
    assert groups["als_cosine_1"] == groups["lift_20"] == "what you watched lately"
    assert groups["als_cosine_20"] == groups["predicted_rating"] == "people like you"


@pytest.fixture
def folded(stage, rankers):
    """V3 for a single user, and the prediction time."""
    user = int(stage.holdout.evaluated_users[3])
    own = stage.store.fold_in(of_users(stage.holdout.history, np.array([user])))
    return RankedSystem.over(own, rankers["ranked_v3"]), int(stage.holdout.as_of[user])


def test_reasons_and_the_rest_sum_to_the_contributions(folded):
    system, as_of = folded
    pool = system.hybrid.pool(np.array([0]), np.array([as_of]))
    parts = system.ranker.contributions(system.store.matrix(pool, np.array([as_of]), system.ranker.features)[0])[:, :-1]
    shares = fused_shares(system.hybrid, pool)[0]
    assert np.allclose(shares.sum(axis=1), 1)
    reasons = group_contributions(parts, system.ranker.features, shares)
    rest = parts[:, [not reason_group(name) for name in system.ranker.features]].sum(axis=1)
    assert np.allclose(reasons.sum(axis=1) + rest, parts.sum(axis=1))


def test_without_a_named_movie_the_score_is_lower(folded):
    system, as_of = folded
    items, scores = (row[0] for row in system.top_k(np.array([0]), 5, np.array([as_of])))
    named = 0
    for item, score in zip(items, scores, strict=True):
        found = influential_items(system, system.hybrid, int(item), as_of)
        assert len(found) <= 2 and sum(one.share for one in found) <= 1 + 1e-9
        for one in found:
            assert one.item in system.interactions.item_idx
            history = leave_one_out(system.interactions, np.array([0]), np.array([one.item]))
            without = system.fold_in(history).top_k(np.array([0]), system.hybrid.pool_size, np.array([as_of]))
            place = np.flatnonzero(without[0][0] == item)
            assert not len(place) or without[1][0][place[0]] < score
            named += 1
    assert named


def test_scores_without_nothing_are_the_scores(folded):
    system, as_of = folded
    items, scores = system.top_k(np.array([0]), 3, np.array([as_of]))
    tried = likely_influences(system.hybrid, int(items[0, 0]))
    assert np.isin(tried, system.interactions.item_idx).all() and len(tried) == len(set(tried.tolist()))
    found = scores_without(system, int(items[0, 0]), tried, as_of, system.hybrid.pool_size)
    assert len(found) == len(tried) + 1 and found[0] == pytest.approx(scores[0, 0])


def test_a_user_without_history_has_no_movie_of_their_own(folded):
    system, as_of = folded
    nobody = system.interactions.fold_in_users(system.interactions.select(np.zeros(len(system.interactions), bool)))
    alone = system.fold_in(nobody)
    item = int(alone.top_k(np.array([0]), 1, np.array([as_of]))[0][0, 0])
    assert influential_items(alone, alone.hybrid, item, as_of) == []
