"""Labels after features, storage without surprises, and a ranker that learns only what can be learnt."""

import json
from copy import copy
from dataclasses import replace

import numpy as np
import pytest
from helpers import tiny_settings, write_archive
from sklearn.linear_model import LogisticRegression

from movierec.artifacts import write_json
from movierec.config import ArtifactError, load_settings
from movierec.data.holdout import load_holdout
from movierec.data.ingest import ingest
from movierec.data.interactions import build_interactions, load_items
from movierec.data.splits import build_split
from movierec.evaluation.tuning import calibration, importance
from movierec.ranking.feature_store import FeatureStore
from movierec.ranking.features import FEATURE_GROUPS, V2_FEATURES, V3_FEATURES
from movierec.ranking.ranked import RankedSystem, ranked_lists
from movierec.ranking.ranker import RANKERS, ListwiseRanker, Ranker, load_lightgbm, rerank, train
from movierec.ranking.training import TrainingSet, training_set, validation_users
from movierec.retrieval.hybrid import make_hybrid


@pytest.fixture(scope="module", params=["leave-last-out", "global-time"])
def stage(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranker")
    settings = tiny_settings(folder)
    data = build_interactions(settings, ingest(settings, write_archive(folder / "archive")))
    holdout = load_holdout(build_split(settings, data, request.param), "validation")
    hybrid = make_hybrid(settings, load_items(data)).fit(holdout.history)
    store = FeatureStore(hybrid, settings.half_life_days)
    return settings, holdout, hybrid, store, training_set(store, holdout, validation_users(holdout, settings))


def test_labels_are_what_happened_next(stage):
    _, holdout, _, _, pairs = stage
    dense = holdout.relevant.toarray() > 0
    for row, user in enumerate(pairs.users):
        there = pairs.items[row] >= 0
        assert np.array_equal(pairs.labels[row][there], dense[user, pairs.items[row][there]])
    assert pairs.labels.any() and not pairs.labels[~pairs.there].any()


def test_the_label_event_is_in_nothing_the_ranker_sees(stage):
    """Take the validation events away altogether: pools and features stay what they were."""
    settings, holdout, hybrid, _, pairs = stage
    rows, places = np.nonzero(pairs.labels)
    history = set(zip(holdout.history.user_idx.tolist(), holdout.history.item_idx.tolist(), strict=True))
    assert not any((int(pairs.users[r]), int(pairs.items[r, p])) in history for r, p in zip(rows, places, strict=True))
    again = hybrid.pool(pairs.users, holdout.as_of[pairs.users])
    assert np.array_equal(again.items, pairs.items)
    moments = holdout.as_of[pairs.users]
    known = copy(hybrid)
    known.interactions = holdout.history.select(holdout.history.timestamp <= moments.max())
    assert np.array_equal(FeatureStore(known, settings.half_life_days).matrix(again, moments), pairs.features, equal_nan=True)


@pytest.mark.parametrize("version", ["ranked_v2", "ranked_v3"])
def test_shuffled_labels_teach_nothing(stage, version):
    settings, _, _, _, pairs = stage
    rng = np.random.default_rng(0)
    shuffled = pairs.labels.copy()
    shuffled[pairs.there] = rng.permutation(shuffled[pairs.there])
    half = np.arange(len(pairs.users)) % 2 == 0
    held = pairs.of(~half)
    scores = train(version, replace(pairs, labels=shuffled).of(half), settings).score(held.features, held.items)
    liked, others = scores[held.labels], scores[held.there & ~held.labels]
    above = (liked[:, None] > others[None, :]).mean() + 0.5 * (liked[:, None] == others[None, :]).mean()
    assert 0.35 < above < 0.65, "the area under the curve must be near chance"


def test_v3_learns_what_can_be_learnt(stage):
    """Labels that follow one column must come back as its order, on users who were not trained on."""
    settings, _, _, _, pairs = stage
    column = pairs.features[:, :, V3_FEATURES.index("item_interactions")]
    made_up = replace(pairs, labels=pairs.there & (column >= np.nanquantile(column, 0.9, axis=1, keepdims=True)))
    half = np.arange(len(pairs.users)) % 2 == 0
    held = made_up.of(~half)
    scores = train("ranked_v3", made_up.of(half), settings).score(held.features, held.items)
    first = np.take_along_axis(held.labels, scores.argmax(axis=1)[:, None], axis=1)
    assert first.mean() > 0.9


def test_sampling_keeps_whole_users_and_is_repeatable(stage):
    settings, holdout, *_ = stage
    few = load_settings(**settings.model_dump() | {"ranker": {"max_rows": 1_000}})
    users = validation_users(holdout, few)
    assert len(users) == min(1_000 // settings.hybrid.pool_size, len(holdout.evaluated_users)) and np.array_equal(users, validation_users(holdout, few))
    assert set(users) <= set(holdout.evaluated_users) and (np.diff(users) > 0).all()


@pytest.mark.parametrize("version", RANKERS)
def test_storage_gives_the_same_numbers(stage, version, tmp_path):
    settings, _, _, _, pairs = stage
    ranker = train(version, pairs, settings)
    ranker.save(tmp_path)
    loaded = Ranker.load(tmp_path, settings.dataset)
    assert type(loaded) is RANKERS[version] and np.array_equal(loaded.score(pairs.features, pairs.items), ranker.score(pairs.features, pairs.items))


@pytest.mark.parametrize("version", RANKERS)
def test_training_is_repeatable(stage, version):
    settings, _, _, _, pairs = stage
    first, second = (train(version, pairs, settings).score(pairs.features, pairs.items) for _ in range(2))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("version", ["ranked_v2", "ranked_v3"])
def test_what_does_not_fit_is_refused(stage, version, tmp_path):
    settings, _, _, _, pairs = stage
    train(version, pairs, settings).save(tmp_path)
    saved = json.loads((tmp_path / "ranker.json").read_text())
    assert tuple(saved["features"]) == {"ranked_v2": V2_FEATURES, "ranked_v3": V3_FEATURES}[version]
    for features in (saved["features"][::-1], saved["features"][:-1], [*saved["features"], "new"]):
        write_json(tmp_path / "ranker.json", saved | {"features": features})
        with pytest.raises(ArtifactError, match="was trained on the features"):
            Ranker.load(tmp_path)
    write_json(tmp_path / "ranker.json", saved | {"movierec": "0.0.1"})
    with pytest.raises(ArtifactError, match=r"by movierec 0\.0\.1, this is"):
        Ranker.load(tmp_path)
    write_json(tmp_path / "ranker.json", saved)
    with pytest.raises(ArtifactError, match="trained on tiny, not on ml-1m"):
        Ranker.load(tmp_path, "ml-1m")
    Ranker.load(tmp_path, "tiny")
    file = next(tmp_path.glob("ranker.[st]*"))
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ArtifactError, match="damaged"):
        Ranker.load(tmp_path)
    (tmp_path / "ranker.json").write_text("{")
    with pytest.raises(ArtifactError, match="can't be read"):
        Ranker.load(tmp_path)


def test_a_foreign_model_is_refused(stage, tmp_path):
    settings, _, _, _, pairs = stage
    ranker = train("ranked_v2", pairs, settings)

    class Stranger(LogisticRegression):
        pass

    ranker.model = Stranger()
    ranker.save(tmp_path)
    with pytest.raises(ArtifactError, match="not trusted"):
        Ranker.load(tmp_path)


def test_contributions_add_up_to_the_score(stage):
    settings, _, _, _, pairs = stage
    ranker = train("ranked_v3", pairs, settings)
    rows = pairs.features[pairs.there][:50]
    parts = ranker.contributions(rows)
    assert parts.shape == (50, len(V3_FEATURES) + 1) and np.allclose(parts.sum(axis=1), ranker.predict(rows), atol=1e-5)


@pytest.mark.parametrize("leaves", [2, 3, 8, 9, 12])
def test_contributions_are_those_of_treeshap(leaves):
    """LightGBM's own TreeSHAP as the judge: features that split a tree twice, unknown values, trees with fewer leaves than others, trees too large for tables."""
    rng = np.random.default_rng(leaves)
    rows = np.round(rng.normal(size=(2_000, 6)), 1).astype(np.float32)
    rows[rng.random(rows.shape) < 0.1] = np.nan
    rows[:, 5] = np.nan_to_num(rows[:, 5])  # never unknown in training, but later
    label = np.nan_to_num(rows[:, 0]) * (np.isnan(rows[:, 1]) - 0.5) + (rows[:, 2] > 0.3) + 0.3 * rows[:, 5] + rng.normal(0, 0.2, 2_000)
    lightgbm = load_lightgbm()
    ranker = ListwiseRanker("ranked_v3", model=lightgbm.train({"num_leaves": leaves, "min_data_in_leaf": 50, "min_gain_to_split": 5, "verbose": -1, "num_threads": 1}, lightgbm.Dataset(rows, label), 40))
    asked = np.where(rng.random(rows.shape) < 0.1, np.nan, rows).astype(np.float32)[:300]
    assert (ranker.small_trees is None) == (leaves == 12)
    assert np.allclose(ranker.contributions(asked), ranker.model.predict(asked, pred_contrib=True), atol=1e-12)
    assert np.array_equal(ranker.contributions(asked)[7], ranker.contributions(asked[[7]])[0]), "alone as in a batch"


def test_two_phases_in_one_room(stage):
    _, holdout, _, store, pairs = stage
    room = TrainingSet.empty(len(pairs.users) + 9, pairs.items.shape[1])
    first = training_set(store, holdout, pairs.users, out=room)
    second = training_set(store, holdout, pairs.users[3:9], batch_size=4, out=room.of(slice(len(first.users), None)))
    both = room.of(slice(0, len(first.users) + len(second.users)))
    assert both.users.tolist() == [*pairs.users, *pairs.users[3:9]] and np.shares_memory(both.features, first.features) and np.shares_memory(both.labels, second.labels)
    for name in ("items", "features", "labels"):
        assert np.array_equal(getattr(first, name), getattr(pairs, name), equal_nan=name == "features") and np.array_equal(getattr(second, name), getattr(pairs, name)[3:9], equal_nan=name == "features")
    assert np.array_equal(both.rows(both.features), both.features[both.there], equal_nan=True)


def test_reorder_breaks_ties_by_item():
    items = np.array([[5, 3, 9, -1]], np.int32)
    ranked, scores = rerank(items, np.array([[0.5, 0.5, 0.7, -np.inf]], np.float32), 3)
    assert ranked.tolist() == [[9, 3, 5]] and scores.tolist() == [[np.float32(0.7), 0.5, 0.5]]


@pytest.mark.parametrize("version", ["ranked_v2", "ranked_v3"])
def test_a_ranked_system_keeps_the_contract(stage, version, tmp_path):
    settings, holdout, hybrid, store, pairs = stage
    system = RankedSystem.over(store, train(version, pairs, settings))
    users, moments = holdout.users, holdout.as_of[holdout.users]
    items, scores = system.top_k(users, 20, moments)
    pool = hybrid.pool(users, moments)
    for row in range(len(users)):
        assert set(items[row].tolist()) <= set(pool.items[row].tolist()), "a ranker only orders the pool"
    assert (np.diff(scores, axis=1)[np.isfinite(scores[:, 1:])] <= 0).all()
    assert np.array_equal(items, system.top_k(users, 20, moments, batch_size=3)[0])
    assert system.recommend(users, 20, moments).source.unique().tolist() == [version]
    together = ranked_lists(store, {"ranked_v1": train("ranked_v1", pairs, settings), version: system.ranker}, users, 20, moments)
    assert np.array_equal(together[version][0], items) and np.array_equal(together["hybrid"][0], hybrid.top_k(users, 20, moments)[0])
    system.save(tmp_path)
    loaded = RankedSystem.load(tmp_path, holdout.history)
    assert np.array_equal(loaded.top_k(users, 20, moments)[1], scores)


def test_explanations_are_of_the_scores_that_were_given(stage):
    settings, holdout, _, store, pairs = stage
    system = RankedSystem.over(store, train("ranked_v3", pairs, settings))
    user = int(holdout.evaluated_users[0])
    (items,), (scores,) = system.top_k(np.array([user]), 10, holdout.as_of[[user]])
    values, parts = system.explain(user, items, int(holdout.as_of[user]))
    assert values.index.tolist() == parts.index.tolist() == items.tolist() and tuple(parts.columns) == V3_FEATURES
    base = scores - parts.sum(axis=1).to_numpy()
    assert np.allclose(base, base[0], atol=1e-4), "the score is the mean score and what the features add"
    assert RankedSystem.over(store, train("ranked_v2", pairs, settings)).explain(user, items) is None


def test_a_ranked_system_gives_guests_what_users_get(stage):
    """Folded in, some users' own histories give the lists and scores they had; ALS, which gives guests an exact solution, isn't asked."""
    _, holdout, hybrid, store, pairs = stage
    without = replace(hybrid, weights={user_context: weights | {"als": 0.0} for user_context, weights in hybrid.weights.items()})
    without.interactions = hybrid.interactions
    store, users = copy(store), pairs.users[:6]
    store.hybrid = without
    rows, _ = holdout.history.events_of(users)
    some = holdout.history.select(np.isin(holdout.history.user_idx, users))
    fold_in_users = holdout.history.fold_in_users(replace(some, user_idx=rows.astype(np.int32), n_users=len(users)))
    system = RankedSystem.over(store, train("ranked_v3", pairs, load_settings(ranker_v3={"trees": 10})))
    items, scores = system.top_k(users, 10, holdout.as_of[users])
    theirs, their_scores = system.fold_in(fold_in_users).top_k(np.arange(len(users)), 10, holdout.as_of[users])
    assert np.array_equal(items, theirs) and np.array_equal(scores, their_scores)


def test_importance_is_the_mean_absolute_contribution(stage):
    *_, pairs = stage
    ranker = train("ranked_v3", pairs, load_settings(ranker_v3={"trees": 10}))
    table = importance(ranker, pairs, 0, most_rows=10**9)
    parts = np.abs(ranker.contributions(pairs.features[pairs.there])[:, :-1]).mean(axis=0)
    assert table.loc[list(V3_FEATURES), "importance"].tolist() == pytest.approx(parts.tolist())
    assert table["importance"].is_monotonic_decreasing and set(table["group"]) == set(FEATURE_GROUPS)
    assert len(importance(ranker, pairs, 0, most_rows=50)) == len(V3_FEATURES)


def test_calibration_counts_every_candidate_of_half_the_users_once(stage):
    settings, _, _, _, pairs = stage
    table = calibration(pairs, pairs, settings, bins=5)
    half = np.random.default_rng(settings.seed).permutation(len(pairs.users)) >= len(pairs.users) // 2
    for version in ("ranked_v2", "ranked_v3"):
        rows = table.loc[[version]]
        assert rows["n"].sum() == pairs.of(half).there.sum() and rows["predicted"].is_monotonic_increasing
        assert (rows["n"] * rows["observed"]).sum() == pytest.approx(pairs.of(half).labels[pairs.of(half).there].sum())
