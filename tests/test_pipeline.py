"""Whole runs: repeatable, resumable, and checked by code that shares nothing with the package."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import pytrec_eval
from helpers import TINY, copy_of_run, tiny_settings, write_archive

from movierec.artifacts import paths, read_manifest
from movierec.config import (
    CONTENT_SOURCES,
    EXTRA_PROTOCOLS,
    NEURAL_SOURCES,
    PROTOCOLS,
    SOURCES,
    TIMED_RANKERS,
    UNORDERED_RANKERS,
    DataError,
    NotFoundError,
)
from movierec.config import SYSTEMS as ALL_SYSTEMS
from movierec.data.holdout import load_holdout
from movierec.data.interactions import load_interactions, load_items, load_users
from movierec.data.own_data import OwnData
from movierec.data.splits import PROTOCOL_RULES, build_split
from movierec.data.tables import query
from movierec.evaluation.ablation import ablate
from movierec.evaluation.lists import iterate_lists
from movierec.evaluation.tuning import tune
from movierec.opening import datasets, open_data, open_run
from movierec.pipeline import (
    compare,
    export_run_recommendations,
    export_run_split,
    inventory,
    run,
    settings_of_run,
)
from movierec.progress import Progress
from movierec.ranking.feature_store import FeatureStore
from movierec.retrieval.hybrid import Hybrid, make_hybrid
from movierec.run_log import logged
from movierec.serving.service import recommend
from movierec.shards import make_systems
from movierec.stages import load_rankers

COSTS = ("seconds", "fit_seconds", "peak_memory_mb")
OFF = (*NEURAL_SOURCES, *CONTENT_SOURCES, *UNORDERED_RANKERS)  # unless asked for
SYSTEMS = tuple(name for name in ALL_SYSTEMS if name not in OFF)


def published(settings):
    """The results files as they lie in the reports folder, without what may differ from run to run."""
    files = {
        protocol: json.loads((paths(settings).results / f"{protocol}.json").read_text())
        for protocol in PROTOCOLS
    }
    return {
        protocol: {name: value for name, value in result.items() if name not in COSTS}
        for protocol, result in files.items()
    }


class Recorder(Progress):
    """Remembers which stages were built, and what was counted: (stage, text, total, unit) → the counts."""

    def __init__(self):
        self.built, self.skipped, self.counts = [], [], {}

    def stage(self, name):
        self.name = name
        return super().stage(name)

    def report(self, text, done=None, total=None, unit=""):
        if total is not None:
            self.counts.setdefault((self.name, text, total, unit), []).append(done)

    def done(self, artifact):
        (self.built if artifact.built else self.skipped).append(self.name)
        return artifact


def test_results_file(tiny_run):
    settings, results = tiny_run
    for protocol in PROTOCOLS:
        result = json.loads((paths(settings).results / f"{protocol}.json").read_text())
        assert result == results[protocol] and tuple(result["systems"]) == SYSTEMS
        assert (
            result["dataset"]["rows"]["ratings"] == 3200
            and result["version"]
            and result["config"]["als"]["factors"] == 8
        )
        assert result["peak_memory_mb"] > 0 and min(result["seconds"].values()) >= 0
        for system in result["systems"].values():
            assert {
                f"{m}@{k}"
                for m in ("recall", "truncated_recall", "ndcg", "hit_rate", "mrr", "map", "coverage")
                for k in (5, 10, 20)
            } <= set(system)
            assert system["n_users"] == result["protocol"]["test"]["users_evaluated"] > 0
            low, high = system["ci95"]["ndcg@5"]
            assert low <= system["ndcg@5"] <= high
            assert (
                system["segments"]["warm"]["n_users"] + system["segments"]["cold"]["n_users"]
                == system["n_users"]
            )
        assert result["highest_on_validation"] == max(
            SYSTEMS, key=lambda name: result["systems"][name]["validation"]["ndcg@5"]
        )
        assert {result["highest_on_validation"], result["chosen_on_validation"]} <= set(
            result["not_significantly_below"]
        )
        assert {file.suffix for file in paths(settings).results.glob(f"{protocol}.*")} == {
            ".json",
            ".csv",
            ".png",
        }


def test_a_second_run_has_nothing_to_do(tiny_run):
    settings, results = tiny_run
    recorder = Recorder()
    assert run(settings, None, recorder) == results
    assert recorder.built == [] and len(recorder.skipped) == 20


def test_a_run_that_only_serves_is_the_beginning_of_a_whole_one(tiny_run, archive, tmp_path):
    settings, only, whole = tiny_settings(tmp_path), Recorder(), Recorder()
    assert run(settings, archive, only, serving_only=True) == {}
    assert only.built == [
        "ingest",
        "interactions",
        "global-time: split",
        "global-time: sources for tuning",
        "global-time: sources on train",
        "global-time: rankers",
        "serving: histories",
        "serving: sources on all events",
        "serving: precomputed recommendations",
    ]
    assert not paths(settings).results.exists() and not paths(settings).runs.exists()
    assert recommend(settings, 7).table.equals(recommend(tiny_run[0], 7).table)
    rows = export_run_split(settings, "global-time", tmp_path / "split")
    assert sum(rows.values()) - rows["test_users"] == 3200
    with pytest.raises(NotFoundError, match="tiny hasn't been evaluated under global-time yet: `movierec run"):
        export_run_recommendations(settings, "global-time", "als", 5, tmp_path / "x.parquet")
    run(settings, archive, whole)
    assert whole.skipped == only.built, "nothing is made twice"
    assert published(settings) == published(tiny_run[0])


def test_a_run_that_only_serves_has_nothing_to_do_after_a_whole_one(tiny_run):
    recorder = Recorder()
    run(tiny_run[0], None, recorder, serving_only=True)
    assert recorder.built == [] and len(recorder.skipped) == 9


def test_a_run_that_only_serves_takes_the_protocol_that_was_named(tiny_run, tmp_path):
    own = copy_of_run(tiny_run[0], tmp_path, protocol="leave-last-out")
    recorder = Recorder()
    run(own, None, recorder, serving_only=True)
    assert "leave-last-out: rankers" in recorder.skipped
    assert not any(stage.startswith("global-time") for stage in recorder.skipped + recorder.built)
    with pytest.raises(NotFoundError, match="strong-generalization only measures tiny"):
        run(own.model_copy(update={"protocol": "strong-generalization"}), None, recorder, serving_only=True)


def test_a_changed_setting_reruns_what_depends_on_it(tiny_run, tmp_path):
    ranker = TINY["ranker"] | {"max_iter": 12}
    changed = copy_of_run(tiny_run[0], tmp_path, protocol="global-time", ranker=ranker)
    recorder = Recorder()
    run(changed, None, recorder)
    assert recorder.built == [
        "global-time: rankers",
        "global-time: test lists",
        "global-time: evaluation",
        "serving: precomputed recommendations",
    ]


def test_a_sample_of_users_reruns_only_what_is_measured(tiny_run, tmp_path):
    """And the models that serve, chosen on validation, stay the same files."""
    changed, recorder = copy_of_run(tiny_run[0], tmp_path, evaluation_users=8), Recorder()
    run(changed, None, recorder)
    measured = ("test lists", "evaluation")
    assert recorder.built == [f"{protocol}: {stage}" for protocol in PROTOCOLS for stage in measured]


@pytest.mark.parametrize("evaluation_users", [0, 80, 10**6])
def test_a_limit_that_is_not_reached_changes_nothing(tiny_run, tmp_path, evaluation_users):
    settings, results = tiny_run
    changed, recorder = copy_of_run(settings, tmp_path, evaluation_users=evaluation_users), Recorder()
    assert run(changed, None, recorder) == results
    assert recorder.built == []


def test_users_of_validation_are_sampled_where_lists_choose_the_system(tiny_run, tmp_path):
    settings = copy_of_run(tiny_run[0], tmp_path, protocol="cold-items", evaluation_users=5)
    (result,) = run(settings).values()
    sample = result["protocol"]["user_sample"]
    assert (sample["users"], sample["seed"]) == (5, 42) and sample["of"] > 70
    for system in result["systems"].values():
        assert 0 < system["n_users"] <= 5 and 0 < system["validation"]["n_users"] <= 5
    rows = export_run_split(settings, "cold-items", tmp_path / "split")
    assert rows["test_users"] == 5


def test_another_run_gives_the_same_results_and_is_logged(tiny_run, tmp_path):
    """In a folder that is named like a partition, which must change nothing."""
    settings, recorder = tiny_settings(tmp_path / "rating=9" / "userId=7"), Recorder()
    with logged(settings, recorder, ["movierec", "run", "--set", "posters.api_key=secret"]) as log:
        run(settings, write_archive(tmp_path / "archive"), log)
        warnings.warn("the ice is thin", stacklevel=1)
    assert published(settings) == published(tiny_run[0])
    assert_logged(log, recorder)
    assert_counted(recorder)


def assert_logged(log, recorder):
    """The log tells of the command, of every stage and of a warning, and keeps no secret."""
    events = events_of(log)
    first, last = events[0], events[-1]
    assert (
        first["event"] == "run begins" and first["dataset"] == "tiny" and first["changed"]["als.factors"] == 8
    )
    assert "secret" not in log.file.read_text()
    assert {"settings", "version", "code", "cores", "memory_mb", "python", "system"} <= set(first)
    ends = {event["stage"]: event for event in events if event["event"] == "stage ends"}
    begun = [event["stage"] for event in events if event["event"] == "stage begins"]
    assert list(ends) == recorder.built == begun
    for event in ends.values():
        assert event["built"] and event["seconds"] >= 0 and event["peak_memory_mb"] > 0
    assert ends["ingest"]["rows"]["ratings"] == 3200
    assert set(ends["leave-last-out: sources on train"]["fit_seconds"]) == {*SOURCES, "rating_model"}
    assert any(event["event"] == "warning" and "the ice is thin" in event["warning"] for event in events)
    assert last["event"] == "run ends" and last["warnings"] == log.warnings >= 1
    assert last["peak_memory_mb"] == max(event["peak_memory_mb"] for event in [*ends.values(), last])
    times = [event["time"] for event in events]
    assert times == sorted(times) and times[0].endswith("+00:00")


def assert_counted(recorder):
    """Stages that work through users or systems report how many are done, from none to all."""
    for (stage, text, total, _), counts in recorder.counts.items():
        assert counts == sorted(counts) and counts[0] == 0 and counts[-1] == total, (stage, text)
    over_users = {stage for stage, _, _, unit in recorder.counts if unit == "users"}
    assert {
        "leave-last-out: rankers",
        "leave-last-out: test lists",
        "serving: precomputed recommendations",
    } <= over_users
    assert {total for _, _, total, unit in recorder.counts if unit == "systems"} == {len(SYSTEMS)}


RUN_WITH_SETTINGS = """
import sys
from pathlib import Path
from movierec.config import Settings
from movierec.pipeline import run
run(Settings.model_validate_json(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
"""


def test_threads_and_batches_change_nothing(tiny_run, tmp_path):
    """One native thread, another batch size and little memory: the same results and models to the last bit."""
    settings = tiny_settings(tmp_path, batch_size=7, memory_limit="1GB")
    write_archive(tmp_path / "archive")
    (tmp_path / "settings.json").write_text(settings.model_dump_json())
    environment = os.environ | dict.fromkeys(
        ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1"
    )
    subprocess.run(
        [sys.executable, "-c", RUN_WITH_SETTINGS, tmp_path / "settings.json", tmp_path / "archive"],
        env=environment,
        check=True,
    )
    theirs, mine = published(tiny_run[0]), published(settings)
    assert all(mine[protocol]["systems"] == theirs[protocol]["systems"] for protocol in PROTOCOLS)
    models = {
        file.relative_to(tmp_path): file.read_bytes() for file in paths(settings).serving.parent.rglob("*.npy")
    }
    assert len(models) > 50 and all(
        (tiny_run[0].reports_dir.parent / file).read_bytes() == stored for file, stored in models.items()
    )


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("system", SYSTEMS)
def test_published_figures_from_exports_by_trec_eval(tiny_run, tmp_path, protocol, system):
    check_with_trec_eval(tiny_run, tmp_path, protocol, system, TINY["cutoffs"], TINY["list_size"])


def check_with_trec_eval(finished, folder, protocol, system, cutoffs, list_size):
    """Recompute a system's test metrics from the exported files alone."""
    settings, results = finished
    export_run_split(settings, protocol, folder)
    export_run_recommendations(settings, protocol, system, list_size, folder / "lists.parquet")
    train, validation, test, lists, test_users = (
        query("SELECT * FROM t", t=folder / f"{name}.parquet")
        for name in ("train", "validation", "test", "lists", "test_users")
    )
    assert set(lists.userId) <= set(test_users.userId) <= set(test.userId)
    assert list(lists.columns) == ["userId", "movieId", "rank", "score"]
    history = pd.concat([train, validation])
    assert lists.merge(history, on=["userId", "movieId"]).empty, "a list shows something the user had seen"
    test = test[test.userId.isin(test_users.userId)]
    test = test[(test.rating > 2.5) & test.movieId.isin(history.movieId.unique())]
    qrel = {str(user): dict.fromkeys(map(str, movies), 1) for user, movies in test.groupby("userId").movieId}
    runs = {
        str(user): {str(movie): 1 / rank for movie, rank in zip(rows.movieId, rows["rank"], strict=True)}
        for user, rows in lists.groupby("userId")
    }
    names = ",".join(map(str, cutoffs))
    theirs = pytrec_eval.RelevanceEvaluator(
        qrel, {f"recall.{names}", f"ndcg_cut.{names}", f"success.{names}"}
    ).evaluate(runs)
    published = results[protocol]["systems"][system]
    assert published["n_users"] == len(qrel)
    for k in cutoffs:
        for mine, name in (("recall", "recall"), ("ndcg", "ndcg_cut"), ("hit_rate", "success")):
            mean = sum(user.get(f"{name}_{k}", 0) for user in theirs.values()) / len(qrel)
            assert published[f"{mine}@{k}"] == pytest.approx(mean, abs=1e-6), (mine, k)
        shown = lists[lists["rank"] <= k].movieId.nunique()
        assert published[f"coverage@{k}"] == pytest.approx(shown / history.movieId.nunique())


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("system", ["popularity", "sequential", "hybrid", "ranked_v3"])
def test_published_figures_of_a_sample_from_exports_by_trec_eval(sampled_run, tmp_path, protocol, system):
    check_with_trec_eval(sampled_run, tmp_path, protocol, system, TINY["cutoffs"], TINY["list_size"])
    assert len(query("SELECT * FROM t", t=tmp_path / "test_users.parquet")) == 8


def with_catalogue(source: Path, target: Path, unrated: int) -> Path:
    """The archive's ratings with the movies that are rated, and with as many others between them."""
    ratings = pd.read_csv(source / "ratings.csv")
    movies = pd.read_csv(source / "movies.csv")
    rated = movies[movies["movieId"].isin(ratings["movieId"])]
    others = rated.sample(unrated, replace=True, random_state=0)
    step = 2 + unrated // len(movies)
    others = others.assign(movieId=others["movieId"] * step + 1 + np.arange(unrated) % (step - 1))
    catalogue = pd.concat([rated.assign(movieId=rated["movieId"] * step), others.drop_duplicates("movieId")])
    target.mkdir()
    catalogue.sort_values("movieId").to_csv(target / "movies.csv", index=False)
    ratings.assign(movieId=ratings["movieId"] * step).to_csv(target / "ratings.csv", index=False)
    return target


@pytest.mark.slow
def test_movies_that_nobody_rated_change_no_list(archive, tmp_path):
    """Lists of every system, with scores, and what is served: those of the same ratings without such movies."""
    lists, served = [], []
    for unrated in (0, 900):
        folder = tmp_path / str(unrated)
        folder.mkdir()
        settings = tiny_settings(folder, protocol="leave-last-out")
        run(settings, with_catalogue(archive, folder / "archive", unrated))
        data = open_data(settings)
        n_items, scored = data.manifest["contents"]["rows"]["items"], data.manifest["contents"]["scored_items"]
        assert (scored < n_items) == bool(unrated)
        items = load_items(data)
        assert items["movieId"][:scored].is_monotonic_increasing
        exported = {}
        for system in SYSTEMS:
            export_run_recommendations(settings, "leave-last-out", system, 20, folder / "lists.parquet")
            table = query("SELECT * FROM lists ORDER BY userId, rank", lists=folder / "lists.parquet")
            exported[system] = table.assign(movieId=table["movieId"] // (2 + unrated // 120))
        lists.append(exported)
        served.append(np.load(paths(settings).precomputed / "items.npy"))
    for system in SYSTEMS:
        pd.testing.assert_frame_equal(lists[0][system], lists[1][system], check_exact=True)
    assert np.array_equal(*served)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("system", ["popularity", "als", "hybrid", "ranked_v2"])
def test_published_figures_of_the_bundled_data(small_run, tmp_path, protocol, system):
    check_with_trec_eval(small_run, tmp_path, protocol, system, (10, 20, 50), 50)


def test_lists_are_for_every_user_with_a_test_event(tiny_run, tmp_path):
    settings, _ = tiny_run
    for protocol in PROTOCOLS:
        export_run_split(settings, protocol, tmp_path)
        export_run_recommendations(settings, protocol, "hybrid", 5, tmp_path / "lists.parquet")
        users = query("SELECT DISTINCT userId FROM t ORDER BY 1", t=tmp_path / "test.parquet")
        assert query(
            "SELECT userId, max(rank) AS k FROM t GROUP BY 1 ORDER BY 1", t=tmp_path / "lists.parquet"
        ).to_numpy().tolist() == [[u, 5] for u in users.userId]


@pytest.mark.parametrize("system", SYSTEMS)
def test_recommendations_are_new_ordered_and_explained(tiny_run, system):
    settings, _ = tiny_run
    advice = recommend(settings, 7, 10, system)
    seen = query("SELECT movieId FROM r WHERE userId = 7", r=paths(settings).tables / "ratings.parquet").movieId
    assert not set(advice.table.movieId) & set(seen) and advice.table["rank"].tolist() == list(range(1, 11))
    assert (np.diff(advice.table.score) <= 0).all() and advice.table.reason.str.len().min() > 10
    assert len(advice.debug) == 10 and (
        advice.debug.columns.str.endswith(" contribution").sum() == 15
        if system == "ranked_v3"
        else "item_genre_count" in advice.debug
    )


@pytest.mark.parametrize("system", ["hybrid", "ranked_v2", "ranked_v3"])
def test_a_person_gets_to_the_number_what_the_evaluation_would_give(tiny_run, system):
    """One user through `recommend`, against all users in one batch over the same sources at the same moment."""
    settings, _ = tiny_run
    data = open_data(settings)
    interactions, rankers = load_interactions(data), open_run(settings, "global-time")["rankers"]
    store = FeatureStore(Hybrid.load(paths(settings).serving, interactions), settings.half_life_days)
    items, scores = make_systems(store, load_rankers(rankers, "tiny"))[system].top_k(
        np.arange(interactions.n_users), 10
    )
    movies, users = load_items(data).movieId.to_numpy(), load_users(data)
    for user in (0, 6, 41):
        table = recommend(settings, users[user], 10, system, "global-time").table
        assert table.movieId.tolist() == movies[items[user]].tolist() and np.array_equal(
            table.score.to_numpy(np.float32), scores[user]
        )


def test_default_system_is_the_one_chosen_on_validation(tiny_run):
    settings, results = tiny_run
    assert recommend(settings, 7).system == results["global-time"]["chosen_on_validation"]
    assert (
        recommend(settings, 7, protocol="leave-last-out").system
        == results["leave-last-out"]["chosen_on_validation"]
    )


def test_asking_for_what_is_not_there(tiny_run, tmp_path):
    settings, _ = tiny_run
    with pytest.raises(NotFoundError, match="no user 4711 in tiny: the 80 userIds go from 1 to 80"):
        recommend(settings, 4711)
    with pytest.raises(NotFoundError, match=r"no system hybrd \(did you mean hybrid\?\)"):
        recommend(settings, 7, system="hybrd")
    with pytest.raises(NotFoundError, match="at most 20"):
        export_run_recommendations(settings, "global-time", "hybrid", 21, tmp_path / "x.parquet")
    with pytest.raises(NotFoundError, match="no protocol all"):
        recommend(settings, 7, protocol="all")
    with pytest.raises(NotFoundError, match=r"no protocol globaltime \(did you mean global-time\?\)"):
        export_run_split(settings, "globaltime", tmp_path)
    with pytest.raises(NotFoundError, match="no dataset other here"):
        recommend(tiny_settings(tmp_path, dataset="other"), 7)
    with pytest.raises(NotFoundError, match="ml-20m hasn't been run yet: `movierec run --dataset ml-20m`"):
        recommend(tiny_settings(tmp_path, dataset="ml-20m"), 7)


@pytest.mark.parametrize("case", ["one user", "nobody likes anything", "one moment", "users one after another"])
def test_odd_data_end_in_a_result_or_a_sentence(tmp_path, case):
    folder = write_archive(tmp_path / "archive", n_users=1 if case == "one user" else 24)
    lines = (folder / "ratings.csv").read_text().splitlines()
    rows = [line.split(",") for line in lines[1:]]
    if case == "nobody likes anything":
        rows = [[u, m, "1.0", t] for u, m, _, t in rows]
    elif case == "one moment":
        rows = [[u, m, r, "1000000000"] for u, m, r, _ in rows]
    elif case == "users one after another":
        rows = [[u, m, r, str(1_000_000_000 + int(u) * 10_000 + i)] for i, (u, m, r, _) in enumerate(rows)]
    (folder / "ratings.csv").write_text("\n".join([lines[0], *(",".join(row) for row in rows)]) + "\n")
    for protocol in PROTOCOLS:
        try:
            results = run(tiny_settings(tmp_path, protocol=protocol), folder)
            assert results[protocol]["systems"]["hybrid"]["n_users"] > 0
        except DataError as error:
            assert any(words in str(error) for words in ("too small", "anything relevant", "no event counts as liked"))


@pytest.mark.extra
@pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="PyTorch isn't installed: make neural")
def test_the_neural_source_joins_in_and_goes_on_from_phase_to_phase(tmp_path):
    small = {"enabled": True, "factors": 8, "length": 20, "epochs": 2, "continue_epochs": 1, "negatives": 20}
    settings = tiny_settings(tmp_path, protocol="leave-last-out", sasrec=small)
    results = run(settings, write_archive(tmp_path / "archive"))["leave-last-out"]
    assert tuple(results["systems"]) == tuple(name for name in ALL_SYSTEMS if name in SYSTEMS or name in NEURAL_SOURCES)
    assert results["systems"]["sasrec"]["coverage@10"] > 0
    assert {file.name for file in paths(settings).results.glob("*")} == {
        f"leave-last-out-neural.{suffix}" for suffix in ("json", "csv", "png")
    }
    assert not list(paths(settings).sources("leave-last-out", "test").parent.glob("*-sasrec.npz")), (
        "checkpoints are gone when they aren't needed any more"
    )
    inputs = {
        phase: read_manifest(paths(settings).sources("leave-last-out", phase))
        for phase in ("tuning", "validation", "test")
    }
    assert (
        inputs["validation"]["inputs"]["earlier"] == inputs["tuning"]["key"]
        and inputs["test"]["inputs"]["earlier"] == inputs["validation"]["key"]
    )
    recorder = Recorder()
    run(settings, None, recorder)
    assert not recorder.built
    plain = settings.model_copy(update={"sasrec": settings.sasrec.model_copy(update={"enabled": False})})
    ablate(plain, "leave-last-out")
    assert {file.name for file in paths(settings).results.glob("*-features.csv")} == {
        "leave-last-out-neural-features.csv"
    }, "never in the place of the other run's"
    assert (
        recommend(settings, 7, 5, "sasrec").table.reason.str.len().min() > 10
        and len(recommend(settings, 7, 5, "ranked_v3").table) == 5
    )


def test_a_system_that_was_not_run_is_a_sentence(tiny_run):
    settings, _ = tiny_run
    with pytest.raises(
        NotFoundError,
        match=r"tiny was run without sasrec: `movierec run --dataset tiny --set sasrec.enabled=true`",
    ):
        recommend(settings, 7, system="sasrec")
    with pytest.raises(NotFoundError, match="was run without sasrec"):
        export_run_recommendations(settings, "global-time", "sasrec", 5, Path("unused.parquet"))


def test_the_best_system_is_compared_user_by_user(tiny_run):
    _, results = tiny_run
    for result in results.values():
        best = result["chosen_on_validation"]
        assert list(result["paired"]) == list(result["significance"]) == result["protocol"]["headline"]
        for metric, differences in result["paired"].items():
            assert set(differences) == set(SYSTEMS) - {best}
            for name, of in differences.items():
                assert of["low"] <= of["difference"] <= of["high"] and of["difference"] == pytest.approx(
                    result["systems"][best][metric] - result["systems"][name][metric]
                )
            highest = result["significance"][metric]["system"]
            assert result["systems"][highest][metric] == max(
                system[metric] for system in result["systems"].values()
            )


def test_every_protocol_ends_in_results(tiny_run, tmp_path):
    """Also those on request; what is served stays the same."""
    settings, _ = tiny_run
    own = copy_of_run(settings, tmp_path)
    served = read_manifest(paths(own).serving)
    for protocol in EXTRA_PROTOCOLS:
        (result,) = run(own.model_copy(update={"protocol": protocol})).values()
        rules = PROTOCOL_RULES[protocol]
        missing = {*NEURAL_SOURCES, *CONTENT_SOURCES} - {*rules.extra_sources}
        missing |= {*TIMED_RANKERS, *UNORDERED_RANKERS} - {*rules.rankers} | {*UNORDERED_RANKERS}  # too few users
        assert tuple(result["systems"]) == tuple(name for name in ALL_SYSTEMS if name not in missing)
        assert (
            result["chosen_on_validation"] in result["systems"]
            and (paths(own).results / f"{protocol}.json").is_file()
        )
    assert read_manifest(paths(own).serving) == served
    strong = json.loads((paths(own).results / "strong-generalization.json").read_text())
    assert (
        strong["protocol"]["headline"] == ["truncated_recall@20", "truncated_recall@50", "ndcg@100"]
        and strong["systems"]["ease"]["ci95"]["ndcg@100"]
    )
    (every,) = run(own.model_copy(update={"protocol": "leave-last-out", "relevant": "all"})).values()
    assert every["systems"]["als"]["n_users"] == every["protocol"]["test"]["held_out_events"] == 80
    assert (paths(own).results / "leave-last-out-all-relevant.json").is_file()
    with pytest.raises(NotFoundError, match="only measures"):
        recommend(own, 1, protocol="strong-generalization")
    with pytest.raises(NotFoundError, match="strong-generalization trains no ranked_v3"):
        export_run_recommendations(own, "strong-generalization", "ranked_v3", 5, tmp_path / "x.parquet")
    with pytest.raises(NotFoundError, match="cold-items trains no ranked_v3"):
        export_run_recommendations(own, "cold-items", "ranked_v3", 5, tmp_path / "x.parquet")
    with pytest.raises(NotFoundError, match="too few users to train ranked_unordered"):
        export_run_recommendations(own, "strong-generalization", "ranked_unordered", 5, tmp_path / "x.parquet")
    assert export_run_recommendations(own, "strong-generalization", "ease", 100, tmp_path / "x.parquet") > 0


COLD_PROTOCOLS = [name for name, rules in PROTOCOL_RULES.items() if rules.cold_items]
NEXT_PROTOCOLS = [name for name, rules in PROTOCOL_RULES.items() if rules.next_events]


@pytest.fixture(scope="module")
def next_run(tiny_run, tmp_path_factory):
    """Finished runs of the protocols that predict events one by one: settings of each, and their results."""
    own = copy_of_run(tiny_run[0], tmp_path_factory.mktemp("next"), relevant="all")
    settings = {protocol: own.model_copy(update={"protocol": protocol}) for protocol in NEXT_PROTOCOLS}
    return settings, {protocol: run(settings[protocol])[protocol] for protocol in NEXT_PROTOCOLS}


@pytest.mark.parametrize("protocol", NEXT_PROTOCOLS)
@pytest.mark.parametrize("system", ["popularity", "sequential", "hybrid", "ranked_v3"])
def test_predictions_one_by_one_from_exports_alone(next_run, tmp_path, protocol, system):
    settings, results = next_run
    export_run_split(settings[protocol], protocol, tmp_path)
    export_run_recommendations(settings[protocol], protocol, system, TINY["list_size"], tmp_path / "lists.parquet")
    train, validation, test, lists, predicted = (
        query("SELECT * FROM t", t=tmp_path / f"{name}.parquet")
        for name in ("train", "validation", "test", "lists", "test_predictions")
    )
    assert list(lists.columns) == ["userId", "event", "movieId", "rank", "score"]
    if protocol == "global-next-last":
        assert predicted["event"].tolist() == test.groupby("userId")["event"].max().sort_values().tolist()
    else:
        assert predicted["event"].tolist() == test["event"].tolist()
    known = pd.concat([train, validation])
    shown = lists[lists["rank"] <= 10].groupby("event")["movieId"].agg(list).to_dict()
    hits, gains = [], []
    for event in predicted["event"]:
        target = test.iloc[event]
        earlier = test[(test.userId == target.userId) & (test.event < event)]
        seen = set(known[known.userId == target.userId].movieId) | set(earlier.movieId)
        movies = shown.get(event, [])
        assert not seen & set(movies), "a list shows something the user had seen"
        place = movies.index(target.movieId) if target.movieId in movies else None
        hits.append(place is not None)
        gains.append(0 if place is None else 1 / np.log2(place + 2))
    published = results[protocol]["systems"][system]
    k = TINY["cutoffs"][-1] if 10 not in TINY["cutoffs"] else 10
    assert published["n_users"] == len(predicted) == results[protocol]["protocol"]["test"]["predictions_evaluated"]
    assert k == 10 and published["recall@10"] == pytest.approx(np.mean(hits))
    assert published["ndcg@10"] == pytest.approx(np.mean(gains))


def test_what_is_predicted_one_by_one_uses_the_models_of_global_time(next_run, tiny_run):
    settings, results = next_run
    where = paths(settings["global-next"])
    for protocol in ("global-next", "global-next-last"):
        assert not (where.models / protocol / "test").exists() and not where.split(protocol).exists()
        own, time = results[protocol]["protocol"], tiny_run[1]["global-time"]["protocol"]
        assert own["facts"] == time["facts"] and own["rows"] == time["rows"]
    assert where.rankers("global-next").exists() and not where.rankers("global-next-last").exists()
    assert (where.models / "global-next-random-ties" / "test").exists()


@pytest.mark.parametrize("protocol", NEXT_PROTOCOLS)
def test_tied_predictions_are_reported_apart(next_run, protocol):
    _, results = next_run
    metrics = results[protocol]["systems"]["hybrid"]
    parts = [metrics["segments"][name] for name in ("tied", "not tied")]
    assert sum(part["n_users"] for part in parts) == metrics["n_users"]
    mean = sum(part["n_users"] * part.get("recall@10", 0) for part in parts) / metrics["n_users"]
    assert mean == pytest.approx(metrics["recall@10"])


def test_single_predictions_can_be_tuned_on(next_run):
    settings, _ = next_run
    weights, reached = tune(settings["global-next"], "global-next", "in_session")
    assert max(weights.values()) > 0 and reached.notna().all()


def test_later_events_change_no_prediction(next_run, tiny_run, tmp_path):
    """The lists for the first predicted events are the same if what happens later is unknown."""
    settings, _ = next_run
    split = build_split(settings["global-next"], open_data(settings["global-next"]), "global-next")
    whole = load_holdout(split, "test", "all")
    fitted = Hybrid.load(paths(settings["global-next"]).sources("global-time", "test"), whole.population)
    numbers = whole.users[: max(1, len(whole.users) // 3)]
    cut = replace(
        whole,
        events=whole.events.select(np.isin(whole.events.user_idx, numbers)),
        history=whole.history.select(np.isin(whole.history.user_idx, numbers)),
    )
    (one, other) = (
        next(iterate_lists(fitted, {}, holdout, settings["global-next"], 10, block_size=len(numbers)))
        for holdout in (whole, cut)
    )
    assert one[0].tolist() == other[0].tolist()
    for name, (items, scores) in one[1].items():
        assert np.array_equal(items, other[1][name][0]) and np.array_equal(scores, other[1][name][1]), name


@pytest.fixture(scope="module")
def cold_run(tiny_run, tmp_path_factory):
    """Finished runs of cold-items and cold-items-only: settings of each, and their results."""
    own = copy_of_run(tiny_run[0], tmp_path_factory.mktemp("cold"))
    settings = {protocol: own.model_copy(update={"protocol": protocol}) for protocol in COLD_PROTOCOLS}
    return settings, {protocol: run(settings[protocol])[protocol] for protocol in COLD_PROTOCOLS}


@pytest.mark.parametrize("protocol", COLD_PROTOCOLS)
@pytest.mark.parametrize("system", ["ease", "content", "hybrid"])
def test_cold_items_from_exports_alone(cold_run, tmp_path, protocol, system):
    settings, results = cold_run
    export_run_split(settings[protocol], protocol, tmp_path)
    export_run_recommendations(settings[protocol], protocol, system, 50, tmp_path / "lists.parquet")
    train, validation, test, lists = (
        query("SELECT * FROM t", t=tmp_path / f"{name}.parquet") for name in ("train", "validation", "test", "lists")
    )
    movies = [set(part.movieId) for part in (train, validation, test)]
    assert not (movies[0] & movies[1] or movies[0] & movies[2] or movies[1] & movies[2])
    assert len(movies[2]) == pytest.approx(sum(map(len, movies)) / 10, abs=1)
    liked = test[test.rating > 2.5].groupby("userId")["movieId"].agg(set)
    shown = lists.groupby("userId")["movieId"].agg(list)
    seen = train.groupby("userId")["movieId"].agg(set)
    recalls = []
    for user, relevant in liked.items():
        listed = shown.get(user, [])
        assert not set(listed) & seen.get(user, set()), "a list shows something the user had seen"
        assert protocol == "cold-items" or set(listed) <= movies[2], "only the withheld movies are ranked"
        recalls.append(len(relevant & set(listed[:50])) / len(relevant))
    published = results[protocol]["systems"][system]
    assert published["n_users"] == len(liked) and published["recall@50"] == pytest.approx(np.mean(recalls))
    finds = system == "content" or (system == "hybrid" and protocol == "cold-items-only")
    assert (published["recall@50"] > 0) == finds, "only content can find movies without events"


def test_content_can_be_one_of_the_sources(tiny_run, tmp_path):
    """It is fitted, fused, has places in the pool, and can be asked by name."""
    hybrid = {"weights": {"returning": {"als": 1, "content": 1}}, "quotas": {"content": 5}}
    own = copy_of_run(tiny_run[0], tmp_path, protocol="global-time", content={"enabled": True}, hybrid=hybrid)
    (results,) = run(own).values()
    assert tuple(results["systems"]) == (*SOURCES, "content", "hybrid", *TIMED_RANKERS)
    assert results["pools"]["recall"]["content"] and results["systems"]["content"]["recall@10"] > 0
    found = recommend(own, 1, 5, system="content")
    assert found.system == "content" and len(found.table) == 5


def test_no_event_of_a_withheld_movie_reaches_a_model(cold_run):
    """The models of cold-items are those of a log without the withheld movies' events."""
    settings, _ = cold_run
    split = build_split(settings["cold-items"], open_data(settings["cold-items"]), "cold-items")
    for phase in ("validation", "test"):
        holdout = load_holdout(split, phase)
        assert not np.isin(holdout.events.item_idx, holdout.population.item_idx).any()
    train = query("SELECT item_idx FROM t", t=split.path / "train.parquet")["item_idx"].to_numpy()
    data = load_interactions(open_data(settings["cold-items"]))
    own = data.select(np.isin(data.item_idx, train), split.manifest["contents"]["facts"]["as_of"])
    fitted = Hybrid.load(paths(settings["cold-items"]).sources("cold-items", "validation"), None)
    again = make_hybrid(
        settings["cold-items"], load_items(open_data(settings["cold-items"])), tuple(fitted.sources)
    ).fit(own)
    for name in ("item_item", "ease", "linear_ar", "content"):
        for part in fitted.sources[name].state:
            one, other = (getattr(model.sources[name], part) for model in (fitted, again))
            assert (one != other).nnz == 0 if hasattr(one, "nnz") else np.array_equal(one, other), (name, part)


def test_compare_sets_some_systems_side_by_side(tiny_run):
    settings, results = tiny_run
    asked = settings.model_copy(update={"protocol": "leave-last-out"})
    few = compare(asked, ("hybrid", "popularity"))
    assert (
        list(few["systems"]) == ["hybrid", "popularity"]
        and few["systems"]["hybrid"] == results["leave-last-out"]["systems"]["hybrid"]
    )
    for metric, comparison in few["significance"].items():
        assert set(comparison["versus"]) | {comparison["system"]} == {"hybrid", "popularity"}
        (against,) = comparison["versus"].values()
        assert against["difference"] == pytest.approx(
            abs(few["systems"]["hybrid"][metric] - few["systems"]["popularity"][metric])
        )
    with pytest.raises(NotFoundError, match="did you mean ease"):
        compare(asked, ("eas",))
    with pytest.raises(NotFoundError, match="named twice"):
        compare(asked, ("als", "als"))


def test_asking_about_a_run_keeps_its_settings(tiny_run, tmp_path):
    settings, _ = tiny_run
    plain = tiny_settings(tmp_path).model_copy(
        update={
            "data_dir": settings.data_dir,
            "reports_dir": settings.reports_dir,
            "protocol": "leave-last-out",
        }
    )
    assert (
        settings_of_run(
            plain.model_copy(update={"als": plain.als.model_copy(update={"factors": 5})})
        ).als.factors
        == 8
    )
    assert settings_of_run(plain.model_copy(update={"relevant": "all"})).relevant == "all"
    assert settings_of_run(plain.model_copy(update={"data_dir": tmp_path})).data_dir == tmp_path


def events_of(log):
    return [json.loads(line) for line in log.file.read_text().splitlines()]


def test_a_log_of_what_went_wrong(tmp_path):
    settings = tiny_settings(tmp_path)
    with pytest.raises(DataError), logged(settings) as log:
        run(settings, tmp_path / "absent", log)
    assert (
        events_of(log)[-1]["event"] == "error"
        and "absent" in events_of(log)[-1]["error"]
        and "traceback" not in events_of(log)[-1]
    )
    with pytest.raises(ZeroDivisionError), logged(settings) as log:
        1 / 0  # noqa: B018
    assert "ZeroDivisionError" in events_of(log)[-1]["traceback"]
    with pytest.raises(KeyboardInterrupt), logged(settings) as log:
        raise KeyboardInterrupt
    assert events_of(log)[-1]["event"] == "interrupted"
    with pytest.raises(NotFoundError), logged(tiny_settings(tmp_path, dataset="nowhere")) as log:
        open_data(tiny_settings(tmp_path, dataset="nowhere"))
    assert not log.file.parent.exists()


def test_the_last_logs_are_kept(tmp_path):
    settings, files = tiny_settings(tmp_path), []
    for _ in range(5):
        with logged(settings, keep=3) as log:
            files.append(log.file)
    assert sorted(paths(settings).logs.iterdir()) == files[-3:]


def test_inventory(tiny_run):
    settings, _ = tiny_run
    assert datasets(settings) == ["tiny"]
    here = inventory(settings)
    assert len(here) == 16 and here.seconds.min() >= 0


RUNNER = """
import sys
from pathlib import Path
from helpers import tiny_settings
from movierec.pipeline import run
run(tiny_settings(Path(sys.argv[1])), Path(sys.argv[1]) / "archive")
"""


@pytest.mark.slow
def test_killed_anywhere_it_ends_with_the_same_results(tiny_run, tmp_path):
    """SIGKILL as soon as a given artifact, or a temporary folder, shows up; then run to the end."""
    folder = tmp_path / "work"
    write_archive(folder / "archive")
    settings = tiny_settings(folder)
    where = paths(settings)
    moments = [
        where.processed / ".tables.*.tmp",
        where.sources("leave-last-out", "tuning") / "manifest.json",
        where.rankers("leave-last-out").parent / ".rankers.*.tmp" / "ranked_v1",
        where.lists("leave-last-out") / "manifest.json",
        where.lists("global-time").parent / ".global-time.*.tmp" / "als" / "00000.parquet",
        where.serving / "manifest.json",
    ]
    killed = 0
    for moment in moments:
        process = subprocess.Popen(
            [sys.executable, "-c", RUNNER, str(folder)],
            cwd=Path(__file__).parent,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 120
        pattern = str(moment.relative_to(folder))
        while process.poll() is None and not any(folder.glob(pattern)):
            assert time.monotonic() < deadline
            time.sleep(0.002)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.wait()
    assert killed >= len(moments) - 2, "most kills must hit a living run"
    half_written = where.results / ".global-time.json.4711.tmp"  # too short a moment to be hit reliably
    half_written.write_text('{"systems"')
    run(settings, folder / "archive")
    assert published(settings) == published(tiny_run[0])
    leftovers = [path for path in folder.rglob(".*.tmp*") if not path.name.endswith(".lock")]
    assert leftovers == []


def test_data_without_times_are_measured_and_served_without_rankers(tmp_path):
    rows = "".join(f"{user},{10 + (3 * user + item) % 25}\n" for user in range(60) for item in range(10))
    (tmp_path / "pairs.csv").write_text("userId,movieId\n" + rows)
    settings = tiny_settings(tmp_path, dataset="pairs")
    own = OwnData(tmp_path / "pairs.csv")
    with pytest.raises(DataError, match="pairs has no times, and global-time splits by time"):
        run(settings.model_copy(update={"protocol": "global-time"}), own)
    assert not paths(settings).models.exists(), "nothing was fitted"
    assert run(settings, own, serving_only=True) == {}
    served = recommend(settings, 7, 5)
    recorder = Recorder()
    results = run(settings, own, recorder)
    assert list(results) == ["strong-generalization"]
    assert recorder.built == [
        "strong-generalization: test lists", "strong-generalization: evaluation", "feature tables"
    ]
    best = results["strong-generalization"]["chosen_on_validation"]
    found = recommend(settings, 7, 5)
    assert found.system == best and found.protocol == "strong-generalization" and len(found.table) == 5
    assert served.table.equals(found.table), "by the same system, before it was evaluated"
    with pytest.raises(NotFoundError, match="only measures pairs"):
        recommend(settings, 7, 5, protocol="global-time")


@pytest.mark.parametrize(("until", "made"), [
    ("ingest", "tables"), ("interactions", "interactions"), ("splits", "splits")])
def test_a_run_stops_where_it_is_told(archive, tmp_path, until, made):
    settings = tiny_settings(tmp_path)
    assert run(settings, archive, until=until) == {}
    where = paths(settings)
    steps = {"tables": where.tables, "interactions": where.interactions, "splits": where.processed / "splits"}
    reached = list(steps)[: list(steps).index(made) + 1]
    assert [name for name, folder in steps.items() if folder.exists()] == reached and not where.models.exists()
    with pytest.raises(NotFoundError, match=r"no step split \(did you mean splits\?\)"):
        run(settings, archive, until="split")
    with pytest.raises(NotFoundError, match="--serving-only leaves out the step lists: there are ingest"):
        run(settings, archive, until="lists", serving_only=True)
