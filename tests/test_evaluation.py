"""Exams, segments, verdicts and ceilings against plain code."""

import itertools

import numpy as np
import pandas as pd
import pytest
from helpers import tiny_settings
from scipy import sparse, stats

from movierec.artifacts import paths
from movierec.config import load_settings
from movierec.data.holdout import Holdout, load_holdout
from movierec.data.interactions import Interactions
from movierec.evaluation.evaluate import EvaluationSet, candidate_recall, compare_systems, evaluate_system
from movierec.evaluation.lists import read_lists
from movierec.evaluation.plots import plot_comparison
from movierec.evaluation.results import read_user_metrics, read_results
from movierec.evaluation.tables import as_markdown, comparison_table, comparison_text, significance_marks
from movierec.metrics import item_tiers, user_metrics
from movierec.opening import open_run


@pytest.fixture(scope="module", params=["leave-last-out", "global-time"])
def finished(request, tiny_run):
    settings, results = tiny_run
    return settings, open_run(settings, request.param), results[request.param]


def exam_of(settings, artifacts):
    return EvaluationSet(load_holdout(artifacts["split"], "test"), settings.cutoffs, settings.warm_events, sparse.csr_matrix(np.eye(120, 3, dtype=np.float32)))


def test_segments_part_the_users_and_the_relevant_events(finished):
    settings, artifacts, _ = finished
    exam = exam_of(settings, artifacts)
    assert (exam.users["warm"] ^ exam.users["cold"]).all()
    assert (sum(exam.users[f"activity {number}"].astype(int) for number in (1, 2, 3, 4)) == 1).all()
    bounds = [exam.activity[exam.users[f"activity {number}"]] for number in (1, 2, 3, 4)]
    assert all(a.max() < b.min() for a, b in itertools.pairwise(bounds) if len(a) and len(b))
    total = sum(exam.items.values())
    assert (total != exam.relevant).nnz == 0
    about = exam.describe()
    assert sum(about[name]["n_events"] for name in ("head", "torso", "tail")) == exam.relevant.nnz
    assert sum(about[name]["n_items"] for name in ("head", "torso", "tail")) == (exam.holdout.history.item_counts > 0).sum()


@pytest.mark.parametrize("system", ["popularity", "hybrid", "ranked_v3"])
def test_figures_of_segments_against_a_loop(finished, system):
    settings, artifacts, results = finished
    exam = exam_of(settings, artifacts)
    lists = read_lists(artifacts["lists"], system, exam.holdout.evaluated_users, 20)
    tier, figures = item_tiers(exam.holdout.history.item_counts), results["systems"][system]["segments"]
    for number, name in enumerate(("head", "torso", "tail")):
        recalls = []
        for row, user in enumerate(exam.holdout.evaluated_users):
            wanted = [item for item in exam.holdout.relevant[[user]].indices if tier[item] == number]
            if wanted:
                recalls.append(len(set(wanted) & set(lists[row, :10].tolist())) / len(wanted))
        assert figures[name]["n_users"] == len(recalls)
        if recalls:
            assert figures[name]["recall@10"] == pytest.approx(np.mean(recalls))
    each = user_metrics(lists, exam.relevant, settings.cutoffs)["ndcg@5"]
    for name, mask in exam.users.items():
        assert figures[name]["n_users"] == mask.sum()
        if mask.any():
            assert figures[name]["ndcg@5"] == pytest.approx(each[mask].mean())
            low, high = figures[name]["ci95"]["ndcg@5"]
            assert low - 1e-12 <= figures[name]["ndcg@5"] <= high + 1e-12
        else:
            assert "ndcg@5" not in figures[name] and figures[name]["ci95"] == {}


def test_users_add_up_to_the_figures(finished):
    _, artifacts, results = finished
    each = read_user_metrics(artifacts["evaluation"].path / "users.parquet", ["ndcg@5", "novelty@5"])
    for metric, table in each.items():
        assert table.index.tolist() == sorted(table.index) and set(table) == set(results["systems"])
        for name, value in table.mean().items():
            assert value == pytest.approx(results["systems"][name][metric])


def test_the_bounds_of_figures_come_from_the_users_of_figures(finished):
    """The interval of NDCG in the file is that of a plain bootstrap with the same draws."""
    settings, artifacts, results = finished
    values = read_user_metrics(artifacts["evaluation"].path / "users.parquet", ["ndcg@5"])["ndcg@5"]["als"].to_numpy()
    draws = np.random.default_rng(settings.seed)
    means = [values[draws.integers(0, len(values), len(values), dtype=np.int32)].mean() for _ in range(settings.bootstrap)]
    assert results["systems"]["als"]["ci95"]["ndcg@5"] == pytest.approx(np.quantile(means, [0.025, 0.975]))


def test_a_verdict_needs_more_than_a_higher_mean():
    settings, rng = load_settings(bootstrap=500), np.random.default_rng(0)
    base = rng.random(400)
    values = {"low": base - 0.2, "a little better": base + rng.normal(0.0002, 0.02, 400), "base": base}
    said = compare_systems(values, settings)
    assert said["system"] in ("base", "a little better") and not said["significantly_best"]
    assert said["versus"]["low"]["p_holm"] < 0.05 < max(one["p_holm"] for one in said["versus"].values())
    clear = compare_systems(values | {"best": base + 0.05}, settings)
    assert clear["system"] == "best" and clear["significantly_best"]
    assert not compare_systems(values | {"best": base + 0.05}, settings, system="base")["significantly_best"], "not above every other"
    assert compare_systems({"alone": base}, settings) == {"system": "alone", "versus": {}, "significantly_best": False}


def test_verdicts_agree_with_a_t_test_on_many_users():
    settings, rng = load_settings(bootstrap=2_000), np.random.default_rng(1)
    a, b = (rng.random(5_000) for _ in range(2))
    b += 0.012
    said = compare_systems({"a": a, "b": b}, settings)["versus"]["a"]
    theirs = stats.ttest_rel(b, a)
    assert said["p_holm"] == pytest.approx(theirs.pvalue, abs=0.02)
    assert (said["low"], said["high"]) == pytest.approx(theirs.confidence_interval(0.95), abs=1e-3)


def test_equal_systems_are_never_told_apart():
    settings, values = load_settings(), np.random.default_rng(0).random(50)
    said = compare_systems({"one": values, "other": values.copy()}, settings)
    assert not said["significantly_best"] and next(iter(said["versus"].values()))["p_holm"] == 1


def test_marks():
    results = {"systems": {"a": {}, "b": {}, "c": {}}, "significance": {"m": {"system": "a", "significantly_best": True, "versus": {}}, "n": {
        "system": "b", "significantly_best": False, "versus": {"a": {"p_holm": 0.3}, "c": {"p_holm": 0.01}}}}}
    assert significance_marks(results, "m") == {"a": "★", "b": "", "c": ""}
    assert significance_marks(results, "n") == {"a": "≈", "b": "≈", "c": ""}


def by_hand():
    """Two users who have two and one relevant items, and three sources of which one finds what no other does."""
    column = [np.array(values, dtype) for values, dtype in (((0, 0, 1), np.int32), ((3, 4, 5), np.int32), ((4, 4, 4), np.float32), ((2, 2, 2), np.float32), ((9, 9, 9), np.int64))]
    events = Interactions(*column, 2, 6, 10)
    seen = Interactions(*(values[:0] for values in column), 2, 6, 9, population_counts=np.array([6, 1, 1, 1, 1, 1]))
    pools = pd.DataFrame({"user_idx": [0, 0, 1], "item_idx": [3, 4, 5], "hybrid": [1, 150, 0], "a": [5, 0, 0], "b": [7, 120, 0], "c": [0, 0, 300]})
    return EvaluationSet(Holdout("test", seen, events, np.full(2, 9)), (10,), 5, sparse.csr_matrix((6, 1))), pools


def test_ceilings_by_hand():
    exam, pools = by_hand()
    said = candidate_recall(pools, exam, (100, 200, 500))
    assert (said["n_users"], said["n_events"]) == (2, 3)
    assert said["recall"]["hybrid"] == {"100": 0.25, "200": 0.5, "500": 0.5} and said["recall"]["c"] == {"100": 0, "200": 0, "500": 0.5}
    assert said["overlap"]["a"] == {"a": 1, "b": 1, "c": 0} and said["overlap"]["b"]["a"] == 0.5
    assert said["unique_share"] == {"a": 0, "b": pytest.approx(1 / 3), "c": 0}
    assert {tier: category_shares["200"] for tier, category_shares in said["by_tier"]["b"].items()} == {"torso": 1, "tail": 0.5}, "item 3 is torso, items 4 and 5 are tail"


def test_ceilings_are_at_least_what_lists_reach(finished):
    settings, _, results = finished
    for name, recall in results["pools"]["recall"].items():
        assert list(recall.values()) == sorted(recall.values())
        if results["pools"]["n_users"] == results["systems"][name]["n_users"]:
            assert recall["100"] >= results["systems"][name]["recall@20"] - 1e-9
    assert results["pools"]["sizes"] == list(settings.pool_sizes)


def test_a_ceiling_of_all_users_is_the_recall_of_their_pools(finished):
    settings, artifacts, results = finished
    from movierec.retrieval.hybrid import Hybrid

    holdout = load_holdout(artifacts["split"], "test")
    protocol = artifacts["split"].manifest["contents"]["protocol"]
    hybrid = Hybrid.load(paths(settings).sources(protocol, "test"), holdout.history)
    ease = hybrid.sources["ease"].top_k(holdout.evaluated_users, 100, holdout.as_of[holdout.evaluated_users])[0]
    recall = user_metrics(ease, holdout.relevant[holdout.evaluated_users], (100,))["recall@100"].mean()
    assert results["pools"]["recall"]["ease"]["100"] == pytest.approx(recall)


def test_pools_of_a_sample_are_of_so_many_users(finished):
    from movierec.evaluation.lists import candidate_ranks
    from movierec.retrieval.hybrid import Hybrid

    settings, artifacts, _ = finished
    holdout = load_holdout(artifacts["split"], "test")
    hybrid = Hybrid.load(paths(settings).sources(artifacts["split"].manifest["contents"]["protocol"], "test"), holdout.history)
    few = settings.model_copy(update={"pool_users": 3})
    some, every = candidate_ranks(hybrid, holdout, few), candidate_ranks(hybrid, holdout, settings)
    assert some["user_idx"].nunique() == 3
    pd.testing.assert_frame_equal(some, every[every["user_idx"].isin(some["user_idx"])].reset_index(drop=True))


def test_tables(finished):
    settings, artifacts, results = finished
    few = read_results(artifacts["evaluation"], ("als", "ease"), settings)
    assert list(few["systems"]) == ["als", "ease"] and few["protocol"] == results["protocol"]
    table = comparison_table(results, segment="head")
    assert table.loc["als", "recall@10"] == results["systems"]["als"]["segments"]["head"]["recall@10"]
    text = as_markdown(comparison_text(few))
    assert [line.split(" | ")[0] for line in text.splitlines()] == ["| system", "| ---", "| als", "| ease"]
    assert len({line.count("|") for line in text.splitlines()}) == 1
    for segment in ("all", "tail"):
        assert len(plot_comparison(results, segment=segment).axes) == 2


def test_one_judgement_is_whoever_else_is_judged(finished):
    settings, artifacts, results = finished
    exam = EvaluationSet(load_holdout(artifacts["split"], "test"), settings.cutoffs, settings.warm_events, sparse.csr_matrix(np.ones((120, 1), np.float32)))
    popular = read_lists(artifacts["lists"], "popularity", exam.holdout.users, 20)
    own = evaluate_system(popular, popular, exam, settings, tuple(results["protocol"]["headline"])).figures
    assert own["recall@5"] == results["systems"]["popularity"]["recall@5"] and own["ci95"]["recall@5"] == results["systems"]["popularity"]["ci95"]["recall@5"]
    assert own["serendipity@5"] == 0, "nothing in the popularity list is a surprise to it"


def test_settings_of_pools():
    from movierec.config import ConfigError

    with pytest.raises(ConfigError, match="pool_sizes must rise"):
        tiny_settings(paths(load_settings()).data, pool_sizes=(200, 100))
