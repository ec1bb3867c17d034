"""Labels after features, storage without surprises, and a ranker that learns only what can be learnt."""

import json

import numpy as np
import pytest
import skops.io
from conftest import tiny_settings, write_archive
from sklearn.linear_model import LogisticRegression

from movierec.config import ArtifactError, load_settings, write_json
from movierec.features import V2_FEATURES, FeatureStore
from movierec.ingest import ingest
from movierec.interactions import build_interactions, build_split, item_genre_matrix, load_holdout, load_items
from movierec.ranker import Ranked, Ranker, fit_on, reorder, training_set, validation_users
from movierec.retrieval import make_hybrid


@pytest.fixture(scope="module", params=["leave-last-out", "global-time"])
def stage(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranker")
    settings = tiny_settings(folder)
    data = build_interactions(settings, ingest(settings, write_archive(folder / "archive")))
    holdout = load_holdout(build_split(settings, data, request.param), "validation")
    items = load_items(data)
    genres, _ = item_genre_matrix(items)
    hybrid = make_hybrid(settings, items).fit(holdout.history)
    store = FeatureStore(holdout.history, genres, settings.half_life_days)
    return settings, holdout, hybrid, store, training_set(hybrid, store, holdout, validation_users(holdout, settings))


def test_labels_are_what_happened_next(stage):
    _, holdout, _, _, pairs = stage
    dense = holdout.relevant.toarray() > 0
    for row, user in enumerate(pairs.users):
        there = pairs.items[row] >= 0
        assert np.array_equal(pairs.labels[row][there], dense[user, pairs.items[row][there]])
    assert pairs.labels.any() and not pairs.labels[~pairs.there].any()


def test_the_label_event_is_in_nothing_the_ranker_sees(stage):
    """Take the validation events away altogether: pools and features stay what they were."""
    settings, holdout, hybrid, store, pairs = stage
    rows, places = np.nonzero(pairs.labels)
    history = set(zip(holdout.history.user_idx.tolist(), holdout.history.item_idx.tolist(), strict=True))
    assert not any((int(pairs.users[r]), int(pairs.items[r, p])) in history for r, p in zip(rows, places, strict=True))
    again = hybrid.pool(pairs.users, holdout.as_of[pairs.users])
    assert np.array_equal(again.items, pairs.items)
    moments = holdout.as_of[pairs.users]
    past = holdout.history.select(holdout.history.timestamp < moments.max())
    assert np.array_equal(FeatureStore(past, store.item_genres, settings.half_life_days).matrix(pairs.users, pairs.items, moments), pairs.features, equal_nan=True)


def test_shuffled_labels_teach_nothing(stage):
    settings, _, _, _, pairs = stage
    rng = np.random.default_rng(0)
    shuffled = pairs.labels.copy()
    shuffled[pairs.there] = rng.permutation(shuffled[pairs.there])
    half = np.arange(len(pairs.users)) % 2 == 0
    there, held = pairs.there[half], pairs.there[~half]
    scores = Ranker("ranked_v2").fit(pairs.features[half][there], shuffled[half][there], settings.ranker, 0).predict(pairs.features[~half][held])
    truth = pairs.labels[~half][held]
    above = (scores[truth][:, None] > scores[~truth][None, :]).mean() + 0.5 * (scores[truth][:, None] == scores[~truth][None, :]).mean()
    assert 0.35 < above < 0.65, "the area under the curve must be near chance"


def test_sampling_keeps_whole_users_and_is_repeatable(stage):
    settings, holdout, *_ = stage
    few = load_settings(**settings.model_dump() | {"ranker": {"max_rows": 1_000}})
    users = validation_users(holdout, few)
    assert len(users) == min(1_000 // settings.hybrid.pool_size, len(holdout.judged)) and np.array_equal(users, validation_users(holdout, few))
    assert set(users) <= set(holdout.judged) and (np.diff(users) > 0).all()


@pytest.mark.parametrize("version", ["ranked_v1", "ranked_v2"])
def test_storage_gives_the_same_numbers(stage, version, tmp_path):
    settings, _, _, _, pairs = stage
    ranker = fit_on(version, pairs, settings)
    ranker.save(tmp_path)
    assert np.array_equal(Ranker.load(tmp_path).predict(pairs.features[pairs.there]), ranker.predict(pairs.features[pairs.there]))


def test_another_feature_order_is_refused(stage, tmp_path):
    settings, _, _, _, pairs = stage
    fit_on("ranked_v2", pairs, settings).save(tmp_path)
    saved = json.loads((tmp_path / "ranker.json").read_text())
    assert saved["features"] == list(V2_FEATURES)
    for features in (saved["features"][::-1], saved["features"][:-1], [*saved["features"], "new"]):
        write_json(tmp_path / "ranker.json", saved | {"features": features})
        with pytest.raises(ArtifactError, match="was trained on the features"):
            Ranker.load(tmp_path)


def test_a_foreign_model_is_refused(stage, tmp_path):
    settings, _, _, _, pairs = stage
    fit_on("ranked_v2", pairs, settings).save(tmp_path)

    class Stranger(LogisticRegression):
        pass

    skops.io.dump(Stranger(), tmp_path / "ranker.skops")
    with pytest.raises(ArtifactError, match="not trusted"):
        Ranker.load(tmp_path)
    (tmp_path / "ranker.skops").write_bytes(b"garbage")
    with pytest.raises(ArtifactError, match="can't be read"):
        Ranker.load(tmp_path)


def test_reorder_breaks_ties_by_item():
    items = np.array([[5, 3, 9, -1]], np.int32)
    ranked, scores = reorder(items, np.array([[0.5, 0.5, 0.7, -np.inf]], np.float32), 3)
    assert ranked.tolist() == [[9, 3, 5]] and scores.tolist() == [[np.float32(0.7), 0.5, 0.5]]


def test_a_ranked_system_keeps_the_contract(stage, tmp_path):
    settings, holdout, hybrid, store, pairs = stage
    system = Ranked.over(hybrid, store, fit_on("ranked_v2", pairs, settings))
    users, moments = holdout.users, holdout.as_of[holdout.users]
    items, scores = system.top_k(users, 20, moments)
    pool = hybrid.pool(users, moments)
    for row in range(len(users)):
        assert set(items[row].tolist()) <= set(pool.items[row].tolist()), "a ranker only orders the pool"
    assert (np.diff(scores, axis=1)[np.isfinite(scores[:, 1:])] <= 0).all()
    assert np.array_equal(items, system.top_k(users, 20, moments, batch_size=3)[0])
    assert system.recommend(users, 20, moments).source.unique().tolist() == ["ranked_v2"]
    system.save(tmp_path)
    loaded = Ranked.load(tmp_path, holdout.history)
    assert np.array_equal(loaded.top_k(users, 20, moments)[1], scores)
