"""Explanations are of the scores that were given, and attribution names the right source and item."""

import numpy as np
import pytest

from movierec.config import RANKER_SOURCES
from movierec.ranking.contributions import (
    SIMILAR_ABOVE,
    attributed_lists,
    contributing_source,
    explain_scores,
    find_seed_items,
    find_similar_liked,
    leave_one_out,
    top_contributing_source,
)
from movierec.ranking.features import FEATURES, V3_FEATURES
from movierec.ranking.ranked import RankedSystem


@pytest.fixture
def v3(stage, rankers):
    return RankedSystem.over(stage.store, rankers["ranked_v3"])


def test_explanations_are_of_the_scores_that_were_given(stage, rankers, v3):
    user = int(stage.holdout.evaluated_users[0])
    as_of = int(stage.holdout.as_of[user])
    (items,), (scores,) = v3.top_k(np.array([user]), 10, np.array([as_of]))
    values, parts = explain_scores(v3, user, items, as_of)
    assert values.index.tolist() == parts.index.tolist() == items.tolist() and tuple(parts.columns) == V3_FEATURES
    mean_score = scores - parts.sum(axis=1).to_numpy()
    assert np.allclose(mean_score, mean_score[0], atol=1e-4), "a score is the mean score and what the features add"
    assert explain_scores(RankedSystem.over(stage.store, rankers["ranked_v2"]), user, items) is None


def test_the_top_contributing_source_by_hand():
    features = ("als_score", "als_z", "lift_1", "fused_score", "user_interactions", "item_events_7d")
    contributions = np.array([
        [0.25, 0.5, 0.5, 0.0, 9.0, 0.1],  # als 0.75; a feature of the user alone counts for no source
        [0.25, 0.0, 0.5, 0.25, 0.0, 0.1],  # als 0.25 + 0.25 of the fused score = sequential: the first of equals
        [0.25, 0.0, 0.5, 0.5, 0.0, 0.1],  # als 0.75
        [-1.0, 0.0, -1.0, 0.0, 0.0, 0.0],  # the others lower the score
    ])
    sources = ("popularity_recent", "sequential", "als")
    found = top_contributing_source(contributions, features, np.array(["als", "als", "als", "sequential"]), sources)
    assert found.tolist() == ["als", "sequential", "als", "popularity_recent"]


def test_every_feature_is_attributed_to_a_source_or_to_none():
    assert {contributing_source(feature.name) for feature in FEATURES} <= {*RANKER_SOURCES, "fused_score", ""}
    for source in RANKER_SOURCES:
        assert contributing_source(f"{source}_score") == contributing_source(f"{source}_z") == source


@pytest.mark.parametrize("name", ["als", "hybrid", "ranked_v2", "ranked_v3"])
def test_attributed_lists_are_the_systems_own(stage, rankers, name):
    hybrid, users = stage.hybrid, stage.holdout.evaluated_users[:20]
    systems = {"als": hybrid.sources["als"], "hybrid": hybrid}
    systems |= {version: RankedSystem.over(stage.store, ranker) for version, ranker in rankers.items()}
    as_of = stage.holdout.as_of[users]
    found = attributed_lists(stage.store, systems[name], users, 10, as_of, batch_size=7)
    items, scores = systems[name].top_k(users, 10, as_of)
    assert np.array_equal(found.items, items) and np.array_equal(found.scores, scores)
    sources = np.array(list(hybrid.sources), dtype=object)[found.top_sources]
    if name == "als":
        assert (sources == "als").all()
    if name == "hybrid":
        assert np.array_equal(sources, hybrid.fusion.top_sources(hybrid.pool(users, as_of, 10)))
    if name in rankers:
        pool = hybrid.pool(users, as_of)
        user, rank = np.nonzero(found.items >= 0)
        place = (pool.items[user] == found.items[user, rank][:, None]).argmax(axis=1)
        expected = hybrid.fusion.top_sources(pool)[user, place]
        if name == "ranked_v3":
            rows = stage.store.matrix(pool, as_of, rankers[name].features)[user, place]
            contributions = rankers[name].contributions(rows)[:, :-1]
            names = tuple(hybrid.sources)
            expected = top_contributing_source(contributions, rankers[name].features, expected, names)
        assert np.array_equal(sources[user, rank], expected)


def test_no_users_have_no_attributed_lists(stage, v3):
    no_users = np.zeros(0, np.int64)
    for system in (stage.hybrid, v3, stage.hybrid.sources["als"]):
        found = attributed_lists(stage.store, system, no_users, 5, no_users)
        assert [part.shape for part in found] == [(0, 5)] * 3


def test_seed_items_are_those_of_each_items_source(stage):
    hybrid, users = stage.hybrid, stage.holdout.evaluated_users[:4]
    items = hybrid.sources["item_item"].top_k(users, 3)[0]
    items[0, 2] = -1
    top_sources = np.full(items.shape, "item_item", dtype=object)
    top_sources[:, 1], top_sources[3] = "sequential", "popularity"
    found = find_seed_items(hybrid, users, items, top_sources)
    own = {name: hybrid.sources[name].seed_items(users, items) for name in ("item_item", "sequential")}
    assert np.array_equal(found[:3, 0], own["item_item"][:3, 0])
    assert np.array_equal(found[:3, 1], own["sequential"][:3, 1])
    similar = find_similar_liked(hybrid, users, items)
    assert found[0, 2] == -1, "no item"
    assert np.array_equal(found[3], similar[3]) and (similar >= 0).any(), "a source without seed items"
    alone = find_seed_items(hybrid, users, items, top_sources, fall_back=False)
    assert (alone[3] == -1).all() and np.array_equal(alone[:3], np.where(alone[:3] >= 0, found[:3], -1))
    history = stage.holdout.history
    for row, user in enumerate(users):
        assert set(found[row][found[row] >= 0].tolist()) <= set(history.item_idx[history.user_idx == user].tolist())


def test_the_most_similar_liked_movie_has_the_largest_ease_weight(stage):
    hybrid, history = stage.hybrid, stage.holdout.history
    ease, users = hybrid.sources["ease"], stage.holdout.evaluated_users[:30]
    items = hybrid.top_k(users, 6)[0]
    found, place = find_similar_liked(hybrid, users, items), {item: row for row, item in enumerate(ease.items.tolist())}
    for user, row, own in zip(users, items, found, strict=True):
        events = slice(history.indptr[user], history.indptr[user + 1])
        seen = history.item_idx[events].tolist()
        liked = {item for item, value in zip(seen, history.confidence[events], strict=True) if value > 0}
        for item, liked_item in zip(row.tolist(), own.tolist(), strict=True):
            adds = {one: ease.weights[place[one], place[item]] for one in seen if one in place} if item in place else {}
            most = max(adds.values(), default=0)
            if liked_item >= 0:
                assert liked_item in liked and adds[liked_item] == most > SIMILAR_ABOVE
            else:
                    best = {one for one in adds if adds[one] == most}  # several, where movies have equal events
                    assert most <= SIMILAR_ABOVE or not best <= liked
    assert (found >= 0).any() and not (found[items < 0] >= 0).any()


def test_histories_without_one_movie(stage):
    history, users = stage.holdout.history, stage.holdout.evaluated_users[:5]
    items = np.array([history.item_idx[history.indptr[user]] for user in users])
    reduced = leave_one_out(history, users, items)
    assert reduced.n_users == 5 and reduced.as_of == history.as_of
    for row, (user, item) in enumerate(zip(users, items, strict=True)):
        own = history.item_idx[history.user_idx == user]
        assert reduced.item_idx[reduced.user_idx == row].tolist() == own[own != item].tolist()
    assert np.array_equal(reduced.item_counts, history.item_counts), "what is known of items stays"
