"""Runs: saved once, found by name, and compared user by user only where the users are the same."""

import json
import shutil

import numpy as np
import pytest

from movierec.artifacts import paths, write_json
from movierec.config import NotFoundError, Settings
from movierec.data.tables import connect, query, write_table
from movierec.evaluation.results import read_user_metrics
from movierec.evaluation.runs import (
    changed_settings,
    compare_runs,
    find_run,
    have_different_samples,
    metrics_table,
    read_runs,
    run_metrics,
    save_run,
)
from movierec.opening import open_run
from movierec.statistics import paired_difference


@pytest.fixture(scope="module")
def settings(tiny_run, tmp_path_factory):
    """Settings of the tiny run, with its saved runs in a folder of their own."""
    shared, _ = tiny_run
    own = shared.model_copy(update={"reports_dir": tmp_path_factory.mktemp("runs")})
    shutil.copytree(paths(shared).runs, paths(own).runs)
    return own


def test_environment_variables_are_no_defaults(monkeypatch):
    settings = Settings().model_dump(mode="json")
    monkeypatch.setenv("MOVIEREC_SEED", "7")
    assert changed_settings(settings) == {}
    assert changed_settings(Settings().model_dump(mode="json")) == {"seed": 7}


@pytest.fixture(scope="module")
def two(settings):
    """The run under leave-last-out, and a made-up one over the same users in which only the hybrid is better."""
    first = read_runs(settings, protocol="leave-last-out")["run"].iloc[0]
    second, folder = "0000000f", paths(settings).runs
    shutil.copytree(folder / first, folder / second)
    run = json.loads((folder / first / "run.json").read_text())
    changes = {"run": second, "time": "2001-01-01T00:00:00Z", "changed": {"hybrid.rank_constant": 2.0}}
    write_json(folder / second / "run.json", run | changes)
    gain = "CASE WHEN system = 'hybrid' THEN user_idx % 3 / 10 ELSE 0 END"
    better = f'SELECT * REPLACE ("ndcg@5" + {gain} AS "ndcg@5") FROM users'
    with connect(users=folder / first / "users.parquet") as con:
        write_table(con, better, folder / second / "users.parquet")
    return first, second


def test_every_protocol_is_saved_once(settings, tiny_run):
    shared, results = tiny_run
    runs = read_runs(shared)
    assert sorted(runs["protocol"]) == sorted(results)
    evaluation = open_run(shared, "global-time")["evaluation"]
    known = read_runs(settings, protocol="global-time")
    assert known["run"].tolist() == [save_run(settings, evaluation)]
    assert read_runs(settings, protocol="global-time")["run"].tolist() == known["run"].tolist()
    assert read_runs(settings, dataset="other").empty


def test_metrics_are_those_of_the_results(tiny_run):
    settings, results = tiny_run
    for row in read_runs(settings).itertuples():
        expected = results[row.protocol]
        metrics = run_metrics(settings, [row.run], "ndcg@5").set_index("system")
        for name, system in expected["systems"].items():
            assert metrics.loc[name, "value"] == system["ndcg@5"]
            assert metrics.loc[name, ["low", "high"]].tolist() == system["ci95"]["ndcg@5"]
        assert row.chosen_on_validation == expected["chosen_on_validation"]
        assert json.loads(row.changed) == changed_settings(expected["config"])
        assert json.loads(row.changed)["als.factors"] == 8


def test_the_long_form_has_every_metric(tiny_run):
    results = tiny_run[1]["leave-last-out"]
    rows = metrics_table(results)
    parts = [part for system in results["systems"].values() for part in (system, *system["segments"].values())]
    assert len(rows) == sum("@" in name for part in parts for name in part)
    assert not rows.duplicated(["system", "segment", "metric"]).any()


def test_runs_over_the_same_users_are_compared_user_by_user(settings, two):
    table = compare_runs(settings, list(two), "ndcg@5")
    files = [paths(settings).runs / name / "users.parquet" for name in two]
    first, second = (read_user_metrics(file, ["ndcg@5"])["ndcg@5"] for file in files)
    for name in table.index:
        values = (second[name].to_numpy(), first[name].to_numpy())
        expected = paired_difference(*values, 0.95, settings.bootstrap, settings.seed)
        assert table.loc[name, "difference"].tolist() == pytest.approx(expected)
    assert (table.loc["als", "difference"] == 0).all() and table.loc["hybrid", ("difference", "low")] > 0


def test_runs_over_other_users_are_not(settings, two):
    other = read_runs(settings, protocol="global-time")["run"].iloc[0]
    for names in ([two[0], other], [two[0]]):
        assert "difference" not in compare_runs(settings, names, "ndcg@5").columns.get_level_values(0)
    by_segment = compare_runs(settings, [two[0], other], "ndcg@5", "warm")
    assert np.isfinite(by_segment.xs("value", axis=1, level=1).to_numpy()).all()


@pytest.fixture(scope="module")
def sampled(settings, sampled_run):
    """The name of the same run on a sample of its users, saved beside the others."""
    own, _ = sampled_run
    evaluation = open_run(own, "leave-last-out")["evaluation"]
    return save_run(settings, evaluation)


def test_runs_say_which_sample_they_are_of(settings, two, sampled):
    assert find_run(settings, sampled)["user_sample"] == {"users": 8, "of": 80, "seed": 42}
    assert not isinstance(find_run(settings, two[0])["user_sample"], dict)
    assert json.loads(find_run(settings, sampled)["changed"])["evaluation_users"] == 8


def test_a_run_of_an_earlier_version_is_of_all_users(settings, two):
    file = paths(settings).runs / two[1] / "run.json"
    run = json.loads(file.read_text())
    write_json(file, {name: value for name, value in run.items() if name != "user_sample"})
    assert not isinstance(find_run(settings, two[1])["user_sample"], dict)
    assert not have_different_samples([find_run(settings, name) for name in two])


def test_runs_over_different_samples_are_not_compared_user_by_user(settings, two, sampled):
    first, other = find_run(settings, two[0]), read_runs(settings, protocol="global-time").iloc[0]
    found = find_run(settings, sampled)
    assert "difference" not in compare_runs(settings, [two[0], sampled], "ndcg@5").columns.get_level_values(0)
    assert have_different_samples([first, found]) and not have_different_samples([found, found])
    assert not have_different_samples([other, found])  # another protocol has other users anyway
    other_seed = found.copy()
    other_seed["user_sample"] = found["user_sample"] | {"seed": 43}
    assert have_different_samples([found, other_seed])


def test_unknown_names_are_errors_with_a_hint(settings, two):
    assert find_run(settings, two[0][:7])["run"] == two[0]
    for name, message in (("zzz", "no run is called zzz"), ("", "runs are called")):
        with pytest.raises(NotFoundError, match=message):
            find_run(settings, name)
    with pytest.raises(NotFoundError, match="did you mean ndcg@5"):
        run_metrics(settings, [two[0]], "ndgc@5")
    with pytest.raises(NotFoundError, match="no segment hea"):
        run_metrics(settings, [two[0]], "ndcg@5", "hea")
    assert read_runs(settings.model_copy(update={"reports_dir": settings.data_dir})).empty


def test_metrics_of_all_runs_can_be_queried_with_sql(settings):
    files = sorted(paths(settings).runs.glob("*/metrics.parquet"))
    best = query("SELECT system, max(value) AS value FROM m WHERE segment = 'all' AND metric = 'recall@5' "
                 "GROUP BY system ORDER BY value DESC", m=files)
    assert len(best) == 13 and best["value"].is_monotonic_decreasing


def test_an_unfinished_run_is_ignored(settings):
    before = read_runs(settings)
    unfinished = paths(settings).runs / ".12345678.99.tmp"
    unfinished.mkdir()
    (unfinished / "run.json").write_text('{"run": "12345678"')
    assert len(read_runs(settings)) == len(before)
