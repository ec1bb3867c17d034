"""Segments, metrics, intervals, significance tests and candidate recall against plain code."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from movierec.artifacts import paths
from movierec.config import load_settings
from movierec.data.holdout import Holdout, load_holdout
from movierec.data.interactions import Interactions
from movierec.evaluation.evaluate import (
    EvaluationSet,
    candidate_recall,
    compare_systems,
    describe_segments,
    evaluate_system,
)
from movierec.evaluation.lists import read_lists
from movierec.metrics import item_tiers, user_metrics
from movierec.opening import open_run
from movierec.retrieval.hybrid import Hybrid

TIERS = ("head", "torso", "tail")


@pytest.fixture(scope="module", params=["leave-last-out", "global-time"])
def finished(request, tiny_run):
    """Settings, artifacts, results and evaluation set of the tiny run under one protocol."""
    settings, results = tiny_run
    artifacts = open_run(settings, request.param)
    genres = sparse.csr_matrix(np.eye(120, 3, dtype=np.float32))
    holdout = load_holdout(artifacts["split"], "test")
    evaluation_set = EvaluationSet(holdout, settings.cutoffs, settings.warm_events, genres)
    return settings, artifacts, results[request.param], evaluation_set


def test_segments_partition_users_and_relevant_events(finished):
    _, _, _, evaluation_set = finished
    users = evaluation_set.user_segments
    assert (users["warm"] ^ users["cold"]).all()
    quartiles = [users[f"activity {number}"] for number in (1, 2, 3, 4)]
    assert (sum(mask.astype(int) for mask in quartiles) == 1).all()
    activity = [evaluation_set.activity[mask] for mask in quartiles]
    assert all(a.max() < b.min() for a, b in itertools.pairwise(activity) if len(a) and len(b))
    assert (sum(evaluation_set.item_segments.values()) != evaluation_set.relevant).nnz == 0
    sizes = describe_segments(evaluation_set)
    known = (evaluation_set.holdout.history.item_counts > 0).sum()
    assert sum(sizes[tier]["n_events"] for tier in TIERS) == evaluation_set.relevant.nnz
    assert sum(sizes[tier]["n_items"] for tier in TIERS) == known


def test_metrics_of_item_segments_against_a_loop(finished):
    _, artifacts, results, evaluation_set = finished
    holdout, system = evaluation_set.holdout, "ranked_v3"
    lists = read_lists(artifacts["lists"], system, holdout.evaluated_users, 20)
    tier, metrics = item_tiers(holdout.history.item_counts), results["systems"][system]["segments"]
    for number, name in enumerate(TIERS):
        recalls = []
        for row, user in enumerate(holdout.evaluated_users):
            wanted = [item for item in holdout.relevant[[user]].indices if tier[item] == number]
            if wanted:
                recalls.append(len(set(wanted) & set(lists[row, :10].tolist())) / len(wanted))
        assert metrics[name]["n_users"] == len(recalls)
        if recalls:
            assert metrics[name]["recall@10"] == pytest.approx(np.mean(recalls))


def test_metrics_of_user_segments_are_means_over_their_users(finished):
    settings, artifacts, results, evaluation_set = finished
    lists = read_lists(artifacts["lists"], "hybrid", evaluation_set.holdout.evaluated_users, 20)
    each = user_metrics(lists, evaluation_set.relevant, settings.cutoffs)["ndcg@5"]
    for name, mask in evaluation_set.user_segments.items():
        metrics = results["systems"]["hybrid"]["segments"][name]
        assert metrics["n_users"] == mask.sum()
        if mask.any():
            low, high = metrics["ci95"]["ndcg@5"]
            assert metrics["ndcg@5"] == pytest.approx(each[mask].mean())
            assert low - 1e-12 <= metrics["ndcg@5"] <= high + 1e-12
        else:
            assert "ndcg@5" not in metrics and metrics["ci95"] == {}


def test_a_system_evaluated_alone_has_the_metrics_it_has_among_others(finished):
    settings, artifacts, results, evaluation_set = finished
    popular = read_lists(artifacts["lists"], "popularity", evaluation_set.holdout.users, 20)
    own = evaluate_system(popular, popular, evaluation_set, settings, tuple(results["protocol"]["headline"])).metrics
    published = results["systems"]["popularity"]
    assert own["recall@5"] == published["recall@5"] and own["ci95"]["recall@5"] == published["ci95"]["recall@5"]
    assert own["serendipity@5"] == 0, "nothing in the popularity list is a surprise to it"


# significance


def test_the_highest_mean_is_not_enough():
    settings, rng = load_settings(bootstrap=500), np.random.default_rng(0)
    base = rng.random(400)
    values = {"low": base - 0.2, "a little better": base + rng.normal(0.0002, 0.02, 400), "base": base}
    close = compare_systems(values, settings)
    assert close["system"] in ("base", "a little better") and not close["significantly_best"]
    assert close["versus"]["low"]["p_holm"] < 0.05 < max(other["p_holm"] for other in close["versus"].values())
    values["best"] = base + 0.05
    clear = compare_systems(values, settings)
    assert clear["system"] == "best" and clear["significantly_best"]
    assert not compare_systems(values, settings, system="base")["significantly_best"], "not above every other"


def test_equal_systems_are_never_significantly_different():
    base = np.random.default_rng(2).random(200)
    equal = compare_systems({"a": base, "b": base.copy()}, load_settings(bootstrap=200))
    assert equal["versus"]["b"] == {"difference": 0, "low": 0, "high": 0, "p_holm": 1}
    assert not equal["significantly_best"]


def test_a_single_system_has_no_comparison():
    only = compare_systems({"only": np.ones(9)}, load_settings())
    assert only == {"system": "only", "versus": {}, "significantly_best": False}


def test_comparisons_agree_with_a_t_test_on_many_users():
    settings, rng = load_settings(bootstrap=2_000), np.random.default_rng(1)
    a, b = (rng.random(5_000) for _ in range(2))
    b += 0.012
    ours, theirs = compare_systems({"a": a, "b": b}, settings)["versus"]["a"], stats.ttest_rel(b, a)
    assert ours["p_holm"] == pytest.approx(theirs.pvalue, abs=0.02)
    assert (ours["low"], ours["high"]) == pytest.approx(theirs.confidence_interval(0.95), abs=1e-3)


# candidate recall


def by_hand():
    """Two users with two and one relevant items, and three sources, one of which finds what no other does."""
    users, items, ones = np.array([0, 0, 1], np.int32), np.array([3, 4, 5], np.int32), np.ones(3, np.float32)
    columns = [users, items, 4 * ones, 2 * ones, np.array([9, 9, 9], np.int64)]
    events = Interactions(*columns, 2, 6, 10)
    counts = np.array([6, 1, 1, 1, 1, 1])
    history = Interactions(*(column[:0] for column in columns), 2, 6, 9, population_counts=counts)
    pools = pd.DataFrame({"user_idx": users, "item_idx": items, "hybrid": [1, 150, 0],
                          "a": [5, 0, 0], "b": [7, 120, 0], "c": [0, 0, 300]})
    holdout = Holdout("test", history, events, np.full(2, 9))
    return EvaluationSet(holdout, (10,), 5, sparse.csr_matrix((6, 1))), pools


def test_candidate_recall_by_hand():
    evaluation_set, pools = by_hand()
    found = candidate_recall(pools, evaluation_set, (100, 200, 500))
    assert (found["n_users"], found["n_events"]) == (2, 3)
    assert found["recall"]["hybrid"] == {"100": 0.25, "200": 0.5, "500": 0.5}
    assert found["recall"]["c"] == {"100": 0, "200": 0, "500": 0.5}
    assert found["overlap"]["a"] == {"a": 1, "b": 1, "c": 0} and found["overlap"]["b"]["a"] == 0.5
    assert found["unique_share"] == {"a": 0, "b": pytest.approx(1 / 3), "c": 0}
    at_200 = {tier: shares["200"] for tier, shares in found["by_tier"]["b"].items()}
    assert at_200 == {"torso": 1, "tail": 0.5}, "item 3 is torso, items 4 and 5 are tail"


def test_candidate_recall_bounds_the_recall_of_the_lists(finished):
    settings, _, results, _ = finished
    pools = results["pools"]
    assert pools["sizes"] == list(settings.pool_sizes)
    for name, recall in pools["recall"].items():
        assert list(recall.values()) == sorted(recall.values())
        if pools["n_users"] == results["systems"][name]["n_users"]:
            assert recall["100"] >= results["systems"][name]["recall@20"] - 1e-9


def test_candidate_recall_is_the_recall_of_long_lists(finished):
    settings, artifacts, results, evaluation_set = finished
    holdout, protocol = evaluation_set.holdout, artifacts["split"].manifest["contents"]["protocol"]
    users = holdout.evaluated_users
    hybrid = Hybrid.load(paths(settings).sources(protocol, "test"), holdout.history)
    lists, _ = hybrid.sources["ease"].top_k(users, 100, holdout.as_of[users])
    recall = user_metrics(lists, holdout.relevant[users], (100,))["recall@100"].mean()
    assert results["pools"]["recall"]["ease"]["100"] == pytest.approx(recall)
