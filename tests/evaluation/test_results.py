"""The results file and the metrics per user behind it."""

import numpy as np
import pytest
from helpers import tiny_settings

from movierec.artifacts import paths
from movierec.config import ConfigError
from movierec.evaluation.results import publish, read_results, read_user_metrics
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
