"""Runs: kept once, found by name, set side by side, compared user by user only where the users are the same."""

import json
import shutil

import numpy as np
import pytest

from movierec.artifacts import paths
from movierec.config import NotFoundError
from movierec.data.tables import query
from movierec.evaluation.results import read_user_metrics
from movierec.evaluation.runs import (
    changed_settings,
    run_metrics,
    find_run,
    metrics_table,
    read_runs,
    compare_runs,
)
from movierec.pipeline import run
from movierec.statistics import paired_difference


@pytest.fixture(scope="module")
def two(tiny_run, tmp_path_factory):
    """The tiny run and one with other settings, in folders of their own."""
    settings, results = tiny_run
    folder = tmp_path_factory.mktemp("runs")
    own = settings.model_copy(update={"data_dir": folder / "data", "reports_dir": folder / "reports", "protocol": "leave-last-out"})
    shutil.copytree(settings.data_dir, own.data_dir)
    shutil.copytree(settings.reports_dir, own.reports_dir)
    run(own.model_copy(update={"hybrid": own.hybrid.model_copy(update={"rank_constant": 2.0})}))
    return own, results


def test_every_protocol_of_a_run_is_kept_once(tiny_run):
    settings, results = tiny_run
    runs = read_runs(settings)
    assert sorted(runs["protocol"]) == sorted(results)
    run(settings)
    assert len(read_runs(settings)) == len(runs)
    assert read_runs(settings, protocol="global-time")["protocol"].tolist() == ["global-time"]
    assert read_runs(settings, dataset="other").empty


def test_figures_are_those_of_the_results(tiny_run):
    settings, results = tiny_run
    for row in read_runs(settings).itertuples():
        told = results[row.protocol]
        figures = run_metrics(settings, [row.run], "ndcg@5").set_index("system")
        for name, system in told["systems"].items():
            assert figures.loc[name, "value"] == system["ndcg@5"] and [figures.loc[name, "low"], figures.loc[name, "high"]] == system["ci95"]["ndcg@5"]
        assert row.best_on_validation == told["best_on_validation"]
        assert json.loads(row.changed) == changed_settings(told["config"]) and json.loads(row.changed)["als.factors"] == 8


def test_long_form_has_every_figure(tiny_run):
    _, results = tiny_run
    told = results["leave-last-out"]
    rows = metrics_table(told)
    assert len(rows) == sum(sum("@" in name for name in part) for system in told["systems"].values() for part in (system, *system["segments"].values()))
    assert not rows.duplicated(["system", "segment", "metric"]).any()


def test_two_runs_user_by_user(two):
    settings, _ = two
    runs = read_runs(settings, protocol="leave-last-out")["run"].tolist()[::-1]
    assert len(runs) == 2
    table = compare_runs(settings, runs, "ndcg@5")
    first, second = (read_user_metrics(paths(settings).runs / name / "users.parquet", ["ndcg@5"])["ndcg@5"] for name in runs)
    for name in table.index:
        expected = paired_difference(second[name].to_numpy(), first[name].to_numpy(), 0.95, settings.bootstrap, settings.seed)
        assert table.loc[name, "difference"].tolist() == pytest.approx(expected)
    assert (table.loc["als", "difference"] == 0).all(), "the rank constant is nothing to a source"
    changed = [json.loads(find_run(settings, name)["changed"]) for name in runs]
    assert "hybrid.rank_constant" not in changed[0] and changed[1]["hybrid.rank_constant"] == 2


def test_other_users_are_not_compared(two):
    settings, _ = two
    runs = read_runs(settings)
    names = [runs.loc[runs["protocol"] == protocol, "run"].iloc[0] for protocol in ("leave-last-out", "global-time")]
    assert "difference" not in compare_runs(settings, names, "ndcg@5").columns.get_level_values(0)
    assert "difference" not in compare_runs(settings, names[:1], "ndcg@5").columns.get_level_values(0)
    assert np.isfinite(compare_runs(settings, names, "ndcg@5", "warm").xs("value", axis=1, level=1).to_numpy()).all()


def test_names_that_are_not_there(two):
    settings, _ = two
    name = read_runs(settings)["run"].iloc[0]
    assert find_run(settings, name[:6])["run"] == name
    with pytest.raises(NotFoundError, match="no run is called zzz"):
        find_run(settings, "zzz")
    with pytest.raises(NotFoundError, match="runs are called"):
        find_run(settings, "")
    with pytest.raises(NotFoundError, match="did you mean ndcg@5"):
        run_metrics(settings, [name], "ndgc@5")
    with pytest.raises(NotFoundError, match="no segment hea"):
        run_metrics(settings, [name], "ndcg@5", "hea")
    assert read_runs(settings.model_copy(update={"reports_dir": settings.data_dir})).empty


def test_runs_can_be_asked_with_plain_sql(two):
    settings, _ = two
    files = sorted(paths(settings).runs.glob("*/metrics.parquet"))
    best = query("SELECT system, max(value) AS value FROM m WHERE segment = 'all' AND metric = 'recall@5' GROUP BY system ORDER BY value DESC", m=files)
    assert len(best) == 13 and best["value"].is_monotonic_decreasing


def test_a_run_that_was_not_finished_is_not_there(two):
    settings, _ = two
    before = read_runs(settings)
    (paths(settings).runs / ".12345678.99.tmp").mkdir()
    (paths(settings).runs / ".12345678.99.tmp" / "run.json").write_text('{"run": "12345678"')
    assert len(read_runs(settings)) == len(before)
