"""Rankers learn what can be learnt and nothing else, and are stored without surprises."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from movierec.artifacts import write_json
from movierec.config import ArtifactError
from movierec.ranking.features import V2_FEATURES, V3_FEATURES
from movierec.ranking.ranker import (
    RANKERS,
    PointwiseRanker,
    load_ranker,
    rerank,
    save_ranker,
    train_ranker,
)
from movierec.ranking.tree_shap import MAX_SPLITS


@pytest.mark.parametrize("version", ["ranked_v2", "ranked_v3"])
def test_shuffled_labels_teach_nothing(stage, version):
    training = stage.training
    labels = training.labels.copy()
    labels[training.is_candidate] = np.random.default_rng(0).permutation(labels[training.is_candidate])
    half = np.arange(len(training.users)) % 2 == 0
    held_out = training.subset(~half)
    ranker = train_ranker(version, replace(training, labels=labels).subset(half), stage.settings)
    scores = ranker.score(held_out.features, held_out.items)
    liked, others = scores[held_out.labels], scores[held_out.is_candidate & ~held_out.labels]
    auc = (liked[:, None] > others).mean() + 0.5 * (liked[:, None] == others).mean()
    assert 0.35 < auc < 0.65, "the area under the curve must be near chance: do labels or users leak into the features?"


def test_v3_learns_what_can_be_learnt(stage):
    """Labels that follow one column come back as its order, on users who were not trained on."""
    training = stage.training
    column = training.features[:, :, V3_FEATURES.index("item_interactions")]
    popular = column >= np.nanquantile(column, 0.9, axis=1, keepdims=True)
    made_up = replace(training, labels=training.is_candidate & popular)
    half = np.arange(len(training.users)) % 2 == 0
    held_out = made_up.subset(~half)
    ranker = train_ranker("ranked_v3", made_up.subset(half), stage.settings)
    best = ranker.score(held_out.features, held_out.items).argmax(axis=1)
    assert np.take_along_axis(held_out.labels, best[:, None], axis=1).mean() > 0.9


@pytest.mark.parametrize("version", RANKERS)
def test_training_is_repeatable_and_storage_exact(stage, rankers, version, tmp_path):
    training = stage.training
    save_ranker(train_ranker(version, training, stage.settings), tmp_path)
    loaded = load_ranker(tmp_path, stage.settings.dataset)
    scores, expected = (ranker.score(training.features, training.items) for ranker in (loaded, rankers[version]))
    assert type(loaded) is RANKERS[version] and np.array_equal(scores, expected)


@pytest.mark.parametrize("version", ["ranked_v2", "ranked_v3"])
def test_what_does_not_fit_is_refused(rankers, version, tmp_path):
    save_ranker(rankers[version], tmp_path)
    saved = json.loads((tmp_path / "ranker.json").read_text())
    assert tuple(saved["features"]) == {"ranked_v2": V2_FEATURES, "ranked_v3": V3_FEATURES}[version]
    for features in (saved["features"][::-1], saved["features"][:-1], [*saved["features"], "new"]):
        write_json(tmp_path / "ranker.json", saved | {"features": features})
        with pytest.raises(ArtifactError, match="was trained on the features"):
            load_ranker(tmp_path)
    write_json(tmp_path / "ranker.json", saved | {"movierec": "0.0.1"})
    with pytest.raises(ArtifactError, match=r"by movierec 0\.0\.1, this is"):
        load_ranker(tmp_path)
    write_json(tmp_path / "ranker.json", saved)
    with pytest.raises(ArtifactError, match="trained on tiny, not on ml-1m"):
        load_ranker(tmp_path, "ml-1m")
    load_ranker(tmp_path, "tiny")
    file = tmp_path / f"ranker.{RANKERS[version].suffix}"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ArtifactError, match="damaged"):
        load_ranker(tmp_path)
    (tmp_path / "ranker.json").write_text("{")
    with pytest.raises(ArtifactError, match="can't be read"):
        load_ranker(tmp_path)


def test_a_foreign_model_is_refused(tmp_path):
    class Stranger(LogisticRegression):
        pass

    save_ranker(PointwiseRanker("ranked_v2", model=Stranger()), tmp_path)
    with pytest.raises(ArtifactError, match="not trusted"):
        load_ranker(tmp_path)


def test_contributions_add_up_to_the_score(stage, rankers):
    rows = stage.training.rows(stage.training.features)[:50]
    ranker = rankers["ranked_v3"]
    parts = ranker.contributions(rows)
    assert ranker.shap_tables is not None and parts.shape == (50, len(V3_FEATURES) + 1)
    assert np.allclose(parts.sum(axis=1), ranker.predict(rows), atol=1e-5)
    assert rankers["ranked_v2"].contributions(rows[:, : len(V2_FEATURES)]) is None


def test_trees_too_large_for_tables_are_explained_by_lightgbm(stage):
    options = {"leaves": MAX_SPLITS + 4, "trees": 5, "min_samples_leaf": 5}
    settings = stage.settings.model_copy(update={"ranker_v3": stage.settings.ranker_v3.model_copy(update=options)})
    ranker = train_ranker("ranked_v3", stage.training, settings)
    rows = stage.training.rows(stage.training.features)[:20]
    assert ranker.shap_tables is None
    assert np.allclose(ranker.contributions(rows).sum(axis=1), ranker.predict(rows), atol=1e-5)


def test_reranking_breaks_ties_by_item():
    items = np.array([[5, 3, 9, -1]], np.int32)
    ranked, scores = rerank(items, np.array([[0.5, 0.5, 0.7, -np.inf]], np.float32), 3)
    assert ranked.tolist() == [[9, 3, 5]] and scores.tolist() == [[np.float32(0.7), 0.5, 0.5]]


LOAD_WHILE_IMPORTING = """
import sys, threading
from pathlib import Path
from movierec.ranking.ranker import load_ranker
errors = []

def attempt(work):
    try:
        work()
    except BaseException as error:
        errors.append(error)

def import_sklearn():
    import sklearn.linear_model

works = [lambda: load_ranker(Path(sys.argv[1])), import_sklearn]
threads = [threading.Thread(target=attempt, args=(work,)) for work in works]
for thread in threads:
    thread.start()
while any(thread.is_alive() for thread in threads):
    assert sys.modules.get("sklearn", 0) is not None, "scikit-learn is hidden from other threads"
    threads[0].join(0.002)
    threads[1].join(0.002)
assert not errors, errors
"""


def test_a_ranker_can_be_loaded_while_another_thread_imports_scikit_learn(rankers, tmp_path):
    """In a process where neither has been imported yet."""
    save_ranker(rankers["ranked_v3"], tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", LOAD_WHILE_IMPORTING, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
