"""Every benchmark of movierec itself runs and says where its figures come from; how fast is for `make bench` to say."""

import json
import sys

import bench
import bench_common
import bench_run
import bench_wide
import pandas as pd
import pytest

from movierec.artifacts import commit_of
from movierec.data.synthetic import synthesize


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A folder for bench.json, as RESULTS names it."""
    monkeypatch.setenv("RESULTS", str(tmp_path / "results"))
    return tmp_path / "results" / "bench.json"


@pytest.fixture
def pages(monkeypatch):
    """What the report pages share."""
    monkeypatch.syspath_prepend(str(bench_common.ROOT / "reports"))
    import pages

    return pages


@pytest.mark.slow
def test_every_case_of_movierec_runs(tmp_path, capsys):
    archive = tmp_path / "ml-20m.zip"
    synthesize(archive, scale=0.002)
    bench.prepare(archive)
    for case, contenders in bench.CASES.items():
        for who in contenders:
            if who.startswith("movierec"):
                bench.measure(case, who, str(archive))
                assert '"seconds"' in capsys.readouterr().out, f"{case}, {who}"


@pytest.mark.slow
def test_a_run_and_its_lists_are_measured(tmp_path):
    ratings, movies = tmp_path / "ratings.csv", tmp_path / "movies.csv"
    bench_wide.few_ratings().to_csv(ratings, index=False)
    bench_wide.catalogue(200).to_csv(movies, index=False)
    options = ("--ratings", ratings, "--movies", movies, "--protocol", "global-time")
    figures = bench_run.measured(tmp_path, *options)
    assert figures["ratings"] == 4_000 and figures["users"] == 100
    assert 0 < sum(stage["seconds"] for stage in figures["stages"]) <= figures["seconds"]
    assert figures["cpu_seconds"] > 0 and figures["watched_memory_mb"] > 100 and figures["peak_memory_mb"] > 100
    assert any("item_item" in stage.get("fit_seconds", ()) for stage in figures["stages"])
    lists = bench_wide.exported(tmp_path, "item_item", "global-time")
    assert lists.shape[1] == bench_wide.K and bench_wide.share_of_equal_lists(lists, lists) == 1


def test_a_description_says_what_is_needed_to_compare():
    described = bench_common.describe(size=64, copied=10_000)
    assert described["commit"] and described["cores"] >= 1 and described["blas"]
    assert set(described["blas_gflops"]) == {"float32", "float64"} and min(described["blas_gflops"].values()) > 0
    assert described["copied_gb_per_s"] > 0 and described["versions"]["numpy"]
    json.dumps(described)


def test_the_higher_of_two_probes_counts():
    before = {"commit": "a", "blas_gflops": {"float32": 100.0, "float64": 60.0}, "copied_gb_per_s": 20.0}
    after = {"commit": "b", "blas_gflops": {"float32": 150.0, "float64": 50.0}, "copied_gb_per_s": 19.0}
    peaks = {"blas_gflops": {"float32": 150.0, "float64": 60.0}, "copied_gb_per_s": 20.0}
    assert bench_common.faster(before, after) == {"commit": "a"} | peaks


def test_the_commit_of_another_environment(tmp_path):
    assert bench_common.commit_of_command(bench_common.movierec()[0]) == commit_of(bench_common.ROOT, bench_common.CODE)
    with pytest.raises(SystemExit, match=r"AGAINST=/nowhere/movierec should be the movierec command"):
        bench_common.commit_of_command("/nowhere/movierec")
    command = tmp_path / "movierec"
    for file in (command, tmp_path / "python"):
        file.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -I "$@"\n')
        file.chmod(0o755)
    with pytest.raises(SystemExit, match="can't import movierec: ModuleNotFoundError"):
        bench_common.commit_of_command(str(command))


def test_another_commit_is_measured_first_and_the_ratio_is_written(monkeypatch):
    order = []

    def measured(folder, *options, command=None):
        order.append(command)
        return {"seconds": 20.0 if command else 12.0}

    probes = iter([{"blas_gflops": {"float32": 1.0}, "copied_gb_per_s": value} for value in (2.0, 1.0)])
    monkeypatch.setattr(bench_run, "measured", measured)
    monkeypatch.setattr(bench_run, "machine", lambda: next(probes))
    monkeypatch.setattr(bench_run, "commit_of_command", lambda command: "0000000")
    figures = bench_run.compared("/other/movierec", "--protocol", "global-time")
    assert order == ["/other/movierec", None] and figures["ratio"] == 0.6
    assert figures["against"] == {"commit": "0000000", "seconds": 20.0} and figures["seconds"] == 12
    assert figures["machine"]["copied_gb_per_s"] == 2


def test_storing_leaves_the_other_figures(results):
    bench_common.store("runs", "1", {"seconds": 1})
    bench_common.store("serving", "ml-1m", {"users": 1})
    bench_common.store("runs", "1", {"seconds": 2})
    assert json.loads(results.read_text()) == {"runs": {"1": {"seconds": 2}}, "serving": {"ml-1m": {"users": 1}}}


def test_cases_are_renewed_together_or_at_the_same_scale(results):
    bench_common.write_results({"scale": 1.0, "cases": {"als": 1}, "runs": {"1": 2}})
    assert bench.start(0.05, list(bench.CASES)) == {"scale": 0.05, "cases": {}, "runs": {"1": 2}}
    assert bench.start(1.0, ["ease"])["cases"] == {"als": 1}
    with pytest.raises(SystemExit, match="of scale 1: CASES can only renew a part"):
        bench.start(0.05, ["ease"])


def test_wide_events():
    events, (items, users, n) = bench_wide.wide_events(0.02), bench_wide.sizes(0.02)
    assert (items, users, n) == (6_000, 1_000, 40_000) and len(events) == n
    assert events["film"].nunique() == items, "every item has an event"
    assert events["viewer"].nunique() <= users and events["seen_at"].is_monotonic_increasing
    counts = events["film"].value_counts()
    assert counts.iloc[: items // 100].sum() > 0.1 * n and counts.median() <= 4, "a long tail"
    pd.testing.assert_frame_equal(events, bench_wide.wide_events(0.02))
    assert not events.equals(bench_wide.wide_events(0.02, seed=1))


def test_unrated_movies_are_added_to_the_same_ratings():
    ratings = bench_wide.few_ratings()
    assert len(ratings) == 4_000 and not ratings.duplicated(["userId", "movieId"]).any()
    assert ratings["movieId"].between(1, 150).all() and ratings["rating"].between(0.5, 5).all()
    few, many = bench_wide.catalogue(150), bench_wide.catalogue(1_000)
    pd.testing.assert_frame_equal(few, many.iloc[:150])


def test_share_of_equal_lists():
    ranks = pd.Index(range(1, bench_wide.K + 1), name="rank")
    one = pd.DataFrame([ranks, ranks, ranks], index=[1, 2, 3], columns=ranks)
    other = one.copy()
    other.loc[2, 10] = 99
    assert bench_wide.share_of_equal_lists(one, one) == 1
    assert bench_wide.share_of_equal_lists(one, other) == round(2 / 3, 4)
    assert bench_wide.share_of_equal_lists(one, one.loc[[1]]) == round(1 / 3, 4), "who is missing has no equal list"


def test_committed_figures_say_where_they_were_measured():
    written = json.loads((bench_common.ROOT / "reports" / "results" / "bench.json").read_text(encoding="utf-8"))
    for part in ("cases", "runs", "serving"):
        for name, figures in written[part].items():
            assert figures["machine"]["commit"] and figures["machine"]["processor"], f"{part}, {name}"


def test_figures_of_one_machine_and_commit_share_an_environment(pages, capsys):
    machine = {"commit": "a", "cores": 2, "blas_gflops": {"float32": 460.0, "float64": 200.0}}
    again = machine | {"blas_gflops": {"float32": 440.0, "float64": 190.0}}
    alone = pages.Environments([machine, again])
    assert len(alone.found) == 1 and alone.label("20 million", again) == "20 million"
    slow = machine | {"blas_gflops": {"float32": 150.0, "float64": 70.0}}
    unprobed = {"commit": "a", "cores": 2}
    several = pages.Environments([machine, slow, machine | {"commit": "b"}, unprobed, again, {}])
    assert [several.letter(one) for one in (machine, again, slow, unprobed, {})] == ["A", "A", "B", "D", "E"]
    assert several.label("20 million", slow) == "20 million (B)"
    assert set(pages.describe_environment({}).values()) == {"–"}
