"""Precomputed Shapley values against LightGBM's own TreeSHAP, and against the definition."""

from itertools import permutations

import lightgbm
import numpy as np
import pytest

from movierec.ranking.tree_shap import MAX_SPLITS, TreeShapTables, max_splits, shapley_values


def made_up(leaves):
    """Rows with missing values, and a model that splits a feature twice and has trees of different sizes."""
    rng = np.random.default_rng(leaves)
    rows = np.round(rng.normal(size=(2_000, 6)), 1).astype(np.float32)
    rows[rng.random(rows.shape) < 0.1] = np.nan
    rows[:, 5] = np.nan_to_num(rows[:, 5])  # never missing in training, but later
    target = np.nan_to_num(rows[:, 0]) * (np.isnan(rows[:, 1]) - 0.5) + (rows[:, 2] > 0.3) + 0.3 * rows[:, 5]
    target += rng.normal(0, 0.2, len(rows))
    parameters = {"num_leaves": leaves, "min_data_in_leaf": 50, "min_gain_to_split": 5, "verbose": -1, "num_threads": 1}
    model = lightgbm.train(parameters, lightgbm.Dataset(rows, target), 40)
    asked = np.where(rng.random(rows.shape) < 0.1, np.nan, rows).astype(np.float32)[:300]
    return model, asked


@pytest.mark.parametrize("leaves", [2, 3, 8, 9])
def test_contributions_are_those_of_treeshap(leaves):
    model, rows = made_up(leaves)
    tables = TreeShapTables(model.dump_model())
    found = tables.contributions(rows)
    assert tables.n_features == 6 and max_splits(model.dump_model()) == leaves - 1
    assert np.allclose(found, model.predict(rows, pred_contrib=True), atol=1e-12)
    assert np.array_equal(found[7], tables.contributions(rows[[7]])[0]), "alone as in a batch"


def test_larger_trees_are_refused():
    model, _ = made_up(MAX_SPLITS + 2)
    with pytest.raises(ValueError, match=f"{MAX_SPLITS + 1} splits"):
        TreeShapTables(model.dump_model())


def test_trees_without_a_split_add_a_constant():
    tree = {"num_leaves": 1, "tree_structure": {"leaf_value": 0.25}}
    found = TreeShapTables({"max_feature_idx": 1, "tree_info": [tree, tree]}).contributions(np.zeros((3, 2)))
    assert found.tolist() == [[0, 0, 0.5]] * 3


def test_shapley_values_are_mean_marginal_contributions():
    """Every order in which three players can join, one after the other."""
    values = np.random.default_rng(0).normal(size=(8, 2))
    expected = np.zeros((2, 3))
    for order in permutations(range(3)):
        coalition = 0
        for player in order:
            expected[:, player] += (values[coalition | 1 << player] - values[coalition]) / 6
            coalition |= 1 << player
    assert np.allclose(shapley_values(values, 3), expected)
