"""The results file and the metrics per user behind it."""

import numpy as np
import pandas as pd
import pytest
from helpers import tiny_settings

from movierec.artifacts import Artifact, paths
from movierec.config import PROTOCOLS, ConfigError, DataError
from movierec.data.holdout import draw_users, load_holdout
from movierec.evaluation.results import load_evaluation_set, publish, read_results, read_user_metrics
from movierec.opening import open_run


@pytest.fixture(scope="module", params=["leave-last-out", "global-time"])
def finished(request, tiny_run):
    """Settings, evaluation and results of the tiny run under one protocol."""
    settings, results = tiny_run
    return settings, open_run(settings, request.param)["evaluation"], results[request.param]


def test_metrics_per_user_average_to_the_metrics(finished):
    _, evaluation, results = finished
    per_user = read_user_metrics(evaluation.path / "users.parquet", ["ndcg@5", "novelty@5"])
    for metric, table in per_user.items():
        assert table.index.tolist() == sorted(table.index) and set(table) == set(results["systems"])
        for name, value in table.mean().items():
            assert value == pytest.approx(results["systems"][name][metric])


def test_intervals_are_those_of_a_plain_bootstrap_with_the_same_draws(finished):
    settings, evaluation, results = finished
    values = read_user_metrics(evaluation.path / "users.parquet", ["ndcg@5"])["ndcg@5"]["als"].to_numpy()
    rng, n = np.random.default_rng(settings.seed), len(values)
    means = [values[rng.integers(0, n, n, dtype=np.int32)].mean() for _ in range(settings.bootstrap)]
    assert results["systems"]["als"]["ci95"]["ndcg@5"] == pytest.approx(np.quantile(means, [0.025, 0.975]))


def test_some_systems_are_compared_among_themselves(finished):
    settings, evaluation, results = finished
    few = read_results(evaluation, ("als", "ease"), settings)
    assert list(few["systems"]) == ["als", "ease"] and few["protocol"] == results["protocol"]
    assert all(len(comparison["versus"]) == 1 for comparison in few["significance"].values())
    with pytest.raises(ValueError, match="needs the settings"):
        read_results(evaluation, ("als",))


def test_published_files_are_replaced_only_if_they_differ(finished, tmp_path):
    _, evaluation, _ = finished
    elsewhere = tiny_settings(tmp_path)
    files = publish(elsewhere, "global-time", evaluation)
    assert {file.parent for file in files.values()} == {paths(elsewhere).results}
    before = files["csv"].stat().st_ino
    files["json"].write_text("half")
    publish(elsewhere, "global-time", evaluation)
    assert files["csv"].stat().st_ino == before
    assert files["json"].read_bytes() == (evaluation.path / "results.json").read_bytes()
    assert not list(paths(elsewhere).results.glob(".*.tmp"))


def test_pool_sizes_must_rise(tmp_path):
    with pytest.raises(ConfigError, match="pool_sizes must rise"):
        tiny_settings(tmp_path, pool_sizes=(200, 100))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_sampled_users_have_the_metrics_that_they_have_among_all(tiny_run, sampled_run, protocol):
    """Only who counts differs: ranking, novelty and popularity are still those of the whole catalogue and all users."""
    metrics = ["ndcg@5", "recall@20", "novelty@5", "popularity_lift@5", "serendipity@5", "genre_diversity@5"]
    whole, part = (
        read_user_metrics(open_run(settings, protocol)["evaluation"].path / "users.parquet", metrics)
        for settings, _ in (tiny_run, sampled_run)
    )
    for metric in metrics:
        assert 0 < len(part[metric]) < len(whole[metric])
        pd.testing.assert_frame_equal(part[metric], whole[metric].loc[part[metric].index], check_exact=True)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_results_of_a_sample_say_so(tiny_run, sampled_run, protocol):
    whole, part = (results[protocol] for _, results in (tiny_run, sampled_run))
    with_events = whole["protocol"]["test"]["users_with_events"]
    assert "user_sample" not in whole["protocol"]
    assert part["protocol"]["user_sample"] == {"users": 8, "of": with_events, "seed": 42}
    test = part["protocol"]["test"]
    assert test["users_with_events"] == 8 >= test["users_evaluated"] == part["systems"]["als"]["n_users"]
    assert part["config"]["evaluation_users"] == 8
    assert part["pools"]["n_users"] <= 8 and part["chosen_on_validation"] == whole["chosen_on_validation"]
    assert part["protocol"]["items_in_history"] == whole["protocol"]["items_in_history"]


def test_a_sample_without_anything_relevant_is_an_error(tiny_run):
    """Lists of one user whose only test event wasn't liked."""
    settings, _ = tiny_run
    artifacts = open_run(settings, "leave-last-out")
    lists, split = artifacts["lists"], artifacts["split"]
    irrelevant = set(load_holdout(split, "test").users) - set(load_holdout(split, "test").evaluated_users)
    users = load_holdout(split, "test").users
    seed = next(seed for seed in range(1_000) if draw_users(users, 1, seed)[0] in irrelevant)
    config = lists.manifest["config"] | {"evaluation_users": 1, "seed": seed}
    of_one = Artifact(lists.path, lists.manifest | {"config": config}, built=False)
    with pytest.raises(DataError, match=r"no user of tiny .* a random sample of 1 of 80 users \(--all-users"):
        load_evaluation_set(settings, artifacts["data"], split, of_one)
