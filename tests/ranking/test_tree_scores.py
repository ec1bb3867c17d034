"""Scores from tables are those of the library that fitted the trees, to the last bit."""

from concurrent.futures import ThreadPoolExecutor

import lightgbm
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.ensemble import HistGradientBoostingClassifier

from movierec.ranking.ranker import RANKERS, Ranker, train_ranker
from movierec.ranking.tree_scores import (
    BLOCK,
    LIGHTGBM_ZERO,
    TreeScores,
    classifier_scores,
    lightgbm_scores,
    nested_tree,
    round_down,
)
from movierec.ranking.tree_shap import MAX_SPLITS

PARAMETERS = {"min_data_in_leaf": 20, "verbose": -1, "num_threads": 1, "deterministic": True, "seed": 0}


def training_rows(n=4_000):
    """Ties, missing values, a column without a value, one that is never missing, tiny, huge and negative values."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(n, 8)).astype(np.float32)
    rows[:, 0] = np.round(rows[:, 0], 1)
    rows[rng.random(rows.shape) < 0.1] = np.nan
    rows[:, 1] = np.nan_to_num(rows[:, 1])
    rows[:, 2] = np.nan
    rows[:, 3] *= np.float32(1e30)
    rows[:, 4] *= np.float32(1e-34)
    rows[:, 5] = np.nan_to_num(rows[:, 5]) * (rng.random(n) < 0.5)  # half of them zero
    target = np.nan_to_num(rows[:, 0] * rows[:, 6]) + np.isnan(rows[:, 7]) + (rows[:, 5] > 0) + (rows[:, 4] > 0)
    target += 0.5 * (rows[:, 1] > 0.3) + 0.3 * (rows[:, 3] > 1e29) + rng.normal(0, 0.3, n)
    return rows, target


def fit_classifier(leaves, n_trees):
    """A classifier and the rows it was fitted on; scikit-learn refuses a column without any value."""
    rows, target = training_rows()
    rows[:, 2] = 0
    model = HistGradientBoostingClassifier(max_leaf_nodes=leaves, max_iter=n_trees, early_stopping=False)
    return model.fit(rows, target > 1), rows


def hard_rows(trees, rows):
    """Rows that no training set has: each threshold and its neighbours, zeros of both signs, infinity, NaN anywhere."""
    thresholds = trees.comparisons.threshold.ravel()
    special = np.array([0, -0.0, 1e-35, -1e-35, 1e-36, -1e-36, 1e-44, np.inf, -np.inf, np.nan, 3e38, -3e38])
    finite = thresholds[np.abs(thresholds) < 3e38]
    near = [np.nextafter(finite, np.float32(end)) for end in (-np.inf, np.inf)]
    values = np.concatenate([thresholds, *near, special.astype(np.float32)])
    rng = np.random.default_rng(1)
    drawn = rng.choice(values, (3 * BLOCK // 2, rows.shape[1])).astype(np.float32)
    return np.concatenate([rows, drawn, np.where(rng.random(rows.shape) < 0.3, np.nan, rows).astype(np.float32)])


@pytest.mark.parametrize("leaves", [2, 3, 8, MAX_SPLITS + 1])
@pytest.mark.parametrize("n_trees", [1, 60])
def test_lightgbm_scores_are_the_same_bits(leaves, n_trees):
    rows, target = training_rows()
    model = lightgbm.train(PARAMETERS | {"num_leaves": leaves}, lightgbm.Dataset(rows, target), n_trees)
    trees = lightgbm_scores(model)
    asked = hard_rows(trees, rows)
    assert np.array_equal(trees.predict(asked), model.predict(asked))
    loaded = lightgbm.Booster(model_str=model.model_to_string())
    assert np.array_equal(lightgbm_scores(loaded).predict(asked), model.predict(asked))
    for one in (asked[:1], asked[-1:], asked[BLOCK : BLOCK + 1]):
        assert np.array_equal(trees.predict(one), model.predict(one)), "a row alone as in a batch"
    assert trees.predict(asked[:0]).shape == (0,)


@pytest.mark.parametrize("leaves", [2, 3, 8, MAX_SPLITS + 1])
@pytest.mark.parametrize("n_trees", [1, 60])
def test_scikit_learn_probabilities_are_the_same_bits(leaves, n_trees):
    model, rows = fit_classifier(leaves, n_trees)
    trees = classifier_scores(model)
    asked = hard_rows(trees, rows)
    asked = asked[~np.isinf(asked).any(axis=1)]  # scikit-learn refuses infinity
    assert np.array_equal(expit(trees.predict(asked)), model.predict_proba(asked)[:, 1])


def test_deep_trees_are_followed_to_their_end():
    """Each split cuts off one leaf: the deepest trees that a number of leaves allows."""
    rows = np.arange(2_000, dtype=np.float32)[:, None]
    target = np.floor(np.log2(rows[:, 0] + 1))
    parameters = PARAMETERS | {"num_leaves": MAX_SPLITS + 1, "min_data_in_leaf": 1, "min_data_in_bin": 1}
    model = lightgbm.train(parameters | {"max_bin": 2_000}, lightgbm.Dataset(rows, target), 20)
    assert np.array_equal(lightgbm_scores(model).predict(rows), model.predict(rows))


def test_a_model_without_a_split_scores_every_row_the_same():
    rows = np.zeros((50, 3), np.float32)
    model = lightgbm.train(PARAMETERS, lightgbm.Dataset(rows, np.linspace(0, 1, 50)), 3)
    asked = np.array([[np.nan, 1, 2], [0, 0, 0]], np.float32)
    assert np.array_equal(lightgbm_scores(model).predict(asked), model.predict(asked))
    assert TreeScores([{"leaf_value": 0.5}], start=0.25).predict(asked).tolist() == [0.75, 0.75]


def test_larger_trees_have_no_tables():
    rows, target = training_rows()
    model = lightgbm.train(PARAMETERS | {"num_leaves": MAX_SPLITS + 2}, lightgbm.Dataset(rows, target), 2)
    assert lightgbm_scores(model) is None
    with pytest.raises(ValueError, match=f"{MAX_SPLITS + 1} splits"):
        TreeScores([tree["tree_structure"] for tree in model.dump_model()["tree_info"]])
    classifier, _ = fit_classifier(MAX_SPLITS + 2, 2)
    assert classifier_scores(classifier) is None


def test_a_small_first_tree_does_not_hide_a_large_one():
    rows, target = training_rows()
    model = lightgbm.train(PARAMETERS | {"num_leaves": 4}, lightgbm.Dataset(rows, target, free_raw_data=False), 1)
    model = lightgbm.train(PARAMETERS | {"num_leaves": 31}, lightgbm.Dataset(rows, target), 1, init_model=model)
    assert lightgbm_scores(model) is None


def test_splits_of_a_nested_tree_are_numbered_from_zero():
    classifier, _ = fit_classifier(4, 1)
    nodes = classifier._predictors[0][0].nodes

    def numbers(node):
        if "split_index" not in node:
            return []
        return [node["split_index"], *numbers(node["left_child"]), *numbers(node["right_child"])]

    assert sorted(numbers(nested_tree(nodes))) == [0, 1, 2]


@given(
    threshold=st.floats(allow_nan=False, allow_infinity=False),
    value=st.floats(width=32, allow_nan=False),
    zero=st.sampled_from([0.0, LIGHTGBM_ZERO]),
)
def test_a_rounded_threshold_divides_values_in_the_same_way(threshold, value, zero):
    read = 0.0 if abs(value) <= zero else value
    (rounded,) = round_down(np.array([threshold]), zero)
    assert rounded.dtype == np.float32
    assert (np.float32(value) <= rounded) == (read <= threshold)


@pytest.mark.parametrize("version", RANKERS)
def test_rankers_score_as_their_library_does(stage, rankers, version):
    ranker = rankers[version]
    rows = stage.training.rows(ranker.select_columns(stage.training.features))
    rows = np.where(np.random.default_rng(0).random(rows.shape) < 0.2, np.nan, rows).astype(np.float32)
    library = ranker.model.predict(rows) if ranker.suffix == "txt" else ranker.model.predict_proba(rows)[:, 1]
    assert ranker.tree_scores is not None and np.array_equal(ranker.predict(rows), library.astype(np.float32))


@pytest.mark.parametrize(("version", "group", "option"), [
    ("ranked_v2", "ranker", "max_leaf_nodes"), ("ranked_v3", "ranker_v3", "leaves"),
])
def test_rankers_with_large_trees_use_their_library(stage, version, group, option):
    changed = getattr(stage.settings, group).model_copy(update={option: MAX_SPLITS + 4, "min_samples_leaf": 5})
    ranker = train_ranker(version, stage.training, stage.settings.model_copy(update={group: changed}))
    rows = stage.training.rows(ranker.select_columns(stage.training.features))[:300]
    library = ranker.model.predict(rows) if version == "ranked_v3" else ranker.model.predict_proba(rows)[:, 1]
    assert ranker.tree_scores is None and np.array_equal(ranker.predict(rows), library.astype(np.float32))
    nobody = np.full((2, 3), -1)
    assert np.isneginf(ranker.score_columns(np.zeros((2, 3, rows.shape[1]), np.float32), nobody)).all()


@pytest.mark.parametrize("version", RANKERS)
def test_threads_may_score_at_once(stage, rankers, version):
    """Tables are made by whichever thread comes first; all of them get the scores that one thread gets."""
    known = rankers[version]
    ranker: Ranker = RANKERS[version](version, model=known.model)
    rows = stage.training.rows(ranker.select_columns(stage.training.features))
    parts = np.array_split(rows, 40)
    with ThreadPoolExecutor(8) as pool:
        scores = np.concatenate(list(pool.map(ranker.predict, parts)))
    assert np.array_equal(scores, known.predict(rows))


def test_a_new_model_gets_new_tables(stage, rankers):
    ranker = RANKERS["ranked_v3"]("ranked_v3", model=rankers["ranked_v3"].model)
    rows = stage.training.rows(stage.training.features)[:100]
    before = ranker.predict(rows)
    ranker.model = lightgbm.Booster(model_str=ranker.model.model_to_string(num_iteration=5))
    after = ranker.predict(rows)
    assert not np.array_equal(before, after)
    assert np.array_equal(after, ranker.model.predict(rows).astype(np.float32))
    assert np.allclose(ranker.contributions(rows).sum(axis=1), after, atol=1e-5)


def test_places_without_a_candidate_are_not_scored(stage, rankers):
    ranker, columns = rankers["ranked_v3"], stage.training.features[:3]
    items = stage.training.items[:3].copy()
    full = ranker.score_columns(columns, np.abs(items))
    items[1, 4:] = -1
    some = ranker.score_columns(columns, items)
    assert np.array_equal(np.isneginf(some), items < 0)
    assert np.array_equal(some[items >= 0], full[items >= 0])
