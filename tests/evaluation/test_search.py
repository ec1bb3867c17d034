"""The search: validation only, resumable, never worse than its start, and it never overwrites a file."""

import importlib.util
import json
from dataclasses import replace

import numpy as np
import pytest
from helpers import copy_of_run

from movierec.artifacts import paths, read_manifest
from movierec.config import ConfigError, DataError, NotFoundError, load_settings
from movierec.data.holdout import load_holdout
from movierec.evaluation import search as module
from movierec.evaluation.search import (
    STAGES,
    Criterion,
    PhaseSources,
    changes_table,
    check_request,
    in_steps,
    label_phase,
    open_phases_to_tune,
    plot_search,
    search,
    toml_of,
    write_settings,
)
from movierec.evaluation.search_space import changed_settings, get_setting, with_settings
from movierec.evaluation.studies import Budget
from movierec.metrics import ndcg
from movierec.opening import open_trained
from movierec.progress import Progress
from movierec.ranking.ranker import train_ranker
from movierec.retrieval.hybrid import Hybrid
from movierec.stages import load_phase

PROTOCOL, METRIC = "global-time", "ndcg@5"
needs_optuna = pytest.mark.skipif(
    importlib.util.find_spec("optuna") is None, reason="the extra tune (Optuna) isn't installed: make neural"
)
extra = pytest.mark.extra


class Messages(Progress):
    """Keeps what a person would read."""

    def __init__(self):
        self.messages = []

    def message(self, text):
        self.messages.append(text)


def own_folders(settings, folder, **changes):
    """The same data, with models and results in a folder of one's own."""
    return settings.model_copy(update={"reports_dir": folder / "reports", "results_dir": folder / "results"} | changes)


def comparable(result):
    """What two searches must agree in."""
    return {name: value for name, value in result.items() if name not in ("config", "written", "commit")}


@pytest.fixture(scope="module")
def searched(tiny_run, tmp_path_factory):
    """A search of two trials; its settings, result and folder."""
    pytest.importorskip("optuna", reason="the extra tune (Optuna) isn't installed: make neural")
    folder = tmp_path_factory.mktemp("search")
    settings = own_folders(tiny_run[0], folder)
    return settings, search(settings, PROTOCOL, Budget(trials=2), folder / "tuned.toml", METRIC), folder


def test_metrics_are_read(tiny_run):
    assert Criterion.of("recall@20", tiny_run[0]) == ("recall", 20, 40)
    for name in ("ndcg", "ndcg@0", "ndcg@21", "ndcg@x", "accuracy@10"):
        with pytest.raises(ConfigError, match=f"{name} can't be tuned for"):
            Criterion.of(name, tiny_run[0])


def test_users_are_evaluated_in_steps_once_each():
    seen, steps, values = [], [], np.arange(10.0)

    def evaluate(part):
        seen.extend(range(10)[part])
        return values[part]

    assert in_steps(evaluate, 10, lambda *step: steps.append(step)) == values.mean()
    assert seen == list(range(10)) and steps == [(0, values[:2].mean()), (1, values[:5].mean())]
    assert in_steps(lambda part: values[part], 1, lambda *_: None) == 0


def test_sources_are_fitted_again_only_if_their_parameters_change(tiny_run):
    settings, _ = tiny_run
    _, phases = open_phases_to_tune(settings, PROTOCOL)
    validation: PhaseSources = phases["validation"]
    als, recent, ease = (validation.source(settings, name) for name in ("als", "als_recent", "ease"))
    changed = with_settings(settings, {"als.alpha": 5.0})
    assert validation.source(changed, "ease") is ease
    assert validation.source(changed, "als_recent") is not recent and validation.source(changed, "als") is not als
    again = validation.source(settings, "als_recent")
    assert np.array_equal(again.item_factors, recent.item_factors)


@pytest.mark.parametrize("phase", ["tuning", "validation"])
def test_what_is_measured_is_what_a_run_gets(tiny_run, phase):
    """The same candidates and features as the stages of a run, computed in another way."""
    settings, _ = tiny_run
    split, phases = open_phases_to_tune(settings, PROTOCOL)
    labelled = label_phase(phases[phase], settings, PROTOCOL)
    folder = paths(settings).sources(PROTOCOL, phase)
    sources = module.Artifact(folder, read_manifest(folder), built=False)
    assert set(Hybrid.load(folder, None).sources) == set(settings.sources)
    expected = load_phase(settings, split, sources, phase)[2]
    for name in ("users", "items", "labels"):
        assert np.array_equal(getattr(labelled, name), getattr(expected, name)), name
    np.testing.assert_allclose(labelled.features, expected.features, rtol=1e-4, atol=1e-5)


def test_wrong_requests_are_refused_before_any_work(tiny_run, tmp_path):
    settings, _ = tiny_run
    here = tmp_path / "movierec.toml"
    for wrong, message in (
        ({"protocol": "global-tim"}, "global-tim can't be tuned under .did you mean global-time"),
        ({"protocol": "cold-items"}, "--protocol is leave-last-out or global-time"),
        ({"what": ("rankr",)}, "no stage rankr to tune .did you mean ranker"),
        ({"out": tmp_path / "nowhere" / "movierec.toml"}, "there is no folder .*nowhere to write movierec.toml into"),
    ):
        right = {"protocol": PROTOCOL, "what": tuple(STAGES), "metric": METRIC, "out": here}
        with pytest.raises((NotFoundError, ConfigError), match=message):
            check_request(settings, **right | wrong)
    here.write_text("seed = 1\n")
    with pytest.raises(ConfigError, match=r"movierec\.toml exists and is never overwritten"):
        check_request(settings, PROTOCOL, tuple(STAGES), METRIC, here)
    assert here.read_text() == "seed = 1\n"


@extra
@pytest.mark.slow
@needs_optuna
class TestSearch:
    def test_it_is_never_worse_on_validation(self, searched):
        _, result, _ = searched
        assert list(result["stages"]) == ["start", *STAGES]
        reached = {stage: means["ranked_v3"] for stage, means in result["stages"].items()}
        assert reached[result["chosen"]] == max(reached.values())
        assert result["gain"]["mean"] == pytest.approx(reached[result["chosen"]] - reached["start"])
        for study in result["studies"].values():
            assert study["trials"] == 2 and study["best"] >= study["start"]

    def test_the_file_holds_the_settings_and_their_origin(self, searched):
        settings, result, folder = searched
        assert result["written"], "with this seed something is better"
        text = (folder / "tuned.toml").read_text()
        comment = [line for line in text.splitlines() if line.startswith("#")]
        assert "for tiny (global-time)" in comment[0] and "optimistic" in comment[2]
        read = load_settings(folder / "tuned.toml", dataset="tiny")
        assert changed_settings(read) == result["settings"] != changed_settings(settings)
        assert json.loads((paths(settings).results / f"{PROTOCOL}-search.json").read_text())["gain"] == result["gain"]

    def test_the_scores_are_those_of_a_ranker_trained_by_hand(self, tiny_run, searched):
        settings, result, _ = searched
        best = load_settings(searched[2] / "tuned.toml", **settings.model_dump(include={"dataset", "data_dir"}))
        split, phases = open_phases_to_tune(best, PROTOCOL)
        tuning, validation = (label_phase(phase, best, PROTOCOL) for phase in phases.values())
        scores = train_ranker("ranked_v3", tuning, best).score(validation.features, validation.items)
        order = np.lexsort((validation.items, -scores), axis=-1)[:, :5]
        hit = np.take_along_axis(validation.labels, order, axis=1)
        n_relevant = np.diff(load_holdout(split, "validation").relevant[validation.users].indptr)
        assert ndcg(hit, n_relevant, 5).mean() == pytest.approx(result["stages"][result["chosen"]]["ranked_v3"])

    def test_two_searches_agree_and_a_repeated_one_makes_no_trial(self, searched, tiny_run, tmp_path, monkeypatch):
        settings, result, _ = searched
        other = search(own_folders(tiny_run[0], tmp_path), PROTOCOL, Budget(trials=2), tmp_path / "a.toml", METRIC)
        assert comparable(other) == comparable(result)

        def no_trial(*_):
            raise AssertionError("a trial was made")

        monkeypatch.setattr("movierec.evaluation.studies.run_trial", no_trial)
        again = search(settings, PROTOCOL, Budget(trials=2), tmp_path / "b.toml", METRIC)
        assert comparable(again) == comparable(result)

    def test_no_test_event_is_read(self, searched, tiny_run, tmp_path):
        """Without the test part of the split, the result is the same."""
        settings = copy_of_run(tiny_run[0], tmp_path)
        split = paths(settings).split(PROTOCOL)
        (split / "test.parquet").unlink()
        with pytest.raises(Exception, match="test"):
            load_holdout(open_trained(settings, PROTOCOL)["split"], "test")
        result = search(settings, PROTOCOL, Budget(trials=2), tmp_path / "a.toml", METRIC)
        assert comparable(result) == comparable(searched[1])

    def test_a_changed_start_begins_new_studies_and_says_so(self, searched, tmp_path):
        settings, progress = with_settings(searched[0], {"ranker_v3.leaves": 5}), Messages()
        search(settings, PROTOCOL, Budget(trials=1), tmp_path / "a.toml", METRIC, ("ranker",), progress)
        assert any("ranker: a new study, since" in text for text in progress.messages)
        again = Messages()
        search(settings, PROTOCOL, Budget(trials=1), tmp_path / "b.toml", METRIC, ("ranker",), again)
        assert again.messages == []

    def test_stages_can_be_searched_alone_under_either_protocol(self, tiny_run, tmp_path):
        """Fusion weights, which the few validation users of global-time don't allow; again without a test part."""
        settings, results = tiny_run[0], []
        for name in ("a", "b"):
            copied = copy_of_run(settings, tmp_path / name)
            if name == "b":
                (paths(copied).split("leave-last-out") / "test.parquet").unlink()
            out = tmp_path / f"{name}.toml"
            results.append(search(copied, "leave-last-out", Budget(trials=4), out, METRIC, ("fusion",)))
        assert comparable(results[0]) == comparable(results[1])
        assert list(results[0]["studies"]) == ["fusion"] and list(results[0]["stages"]) == ["start", "fusion"]
        assert set(results[0]["settings"].get("hybrid", {})) <= {"rank_constant", "weights", "pool_size"}

    def test_fused_lists_are_those_of_the_hybrid(self, tiny_run, tmp_path):
        settings = tiny_run[0]
        _, phases = open_phases_to_tune(settings, "leave-last-out")
        criterion = Criterion.of(METRIC, settings)
        asked = module.Searched("leave-last-out", criterion, Budget(trials=1), *phases.values(), tmp_path / "s", {})
        tables, hybrid = module.context_tables(asked, settings), phases["validation"].hybrid(settings)
        assert tables
        for name, one in tables.items():
            fused = one.fused(slice(3, 12), hybrid.weights[name], hybrid.rank_constant, 15)
            expected = hybrid.top_k(one.users[3:12], 15, phases["validation"].holdout.as_of[one.users[3:12]])[0]
            assert np.array_equal(fused, expected)

    def test_time_is_kept_to(self, tiny_run, tmp_path):
        """With a clock that says each look takes a second, a budget of nothing makes one trial of each study."""
        ticks = iter(range(10**6))
        budget = Budget(minutes=0.01, clock=lambda: float(next(ticks)))
        settings = own_folders(tiny_run[0], tmp_path)
        result = search(settings, PROTOCOL, budget, tmp_path / "a.toml", METRIC)
        assert {study["trials"] for study in result["studies"].values()} == {1}

    def test_a_file_that_appears_meanwhile_is_kept(self, searched, tmp_path):
        settings, _, folder = searched
        tuned = load_settings(folder / "tuned.toml", dataset="tiny")
        text, out = (folder / "tuned.toml").read_text(), tmp_path / "movierec.toml"
        out.write_text("mine")
        report_file = paths(settings).results / f"{PROTOCOL}-search.json"
        with pytest.raises(ConfigError, match=r"has appeared meanwhile and isn't overwritten: .*-search\.json"):
            write_settings(text, out, tuned, report_file)
        assert out.read_text() == "mine" and [file.name for file in tmp_path.iterdir()] == ["movierec.toml"]

    def test_environment_variables_that_win_are_noticed(self, searched, tmp_path, monkeypatch):
        _, _, folder = searched
        tuned = load_settings(folder / "tuned.toml", dataset="tiny")
        monkeypatch.setenv("MOVIEREC_ALS__FACTORS", "77")
        with pytest.raises(ConfigError, match="override what the search has found"):
            write_settings((folder / "tuned.toml").read_text(), tmp_path / "a.toml", tuned, tmp_path / "r.json")
        assert not (tmp_path / "a.toml").exists()

    def test_test_is_evaluated_on_request_only(self, searched, tmp_path):
        settings, result, _ = searched
        assert "test" not in result
        asked = search(settings, PROTOCOL, Budget(trials=2), tmp_path / "a.toml", METRIC, on_test=True)
        assert comparable(asked) | {"test": None} == comparable(result) | {"test": None}
        for name in ("hybrid", "ranked_v3"):
            gain = asked["test"][name]["after"] - asked["test"][name]["before"]
            assert asked["test"][name]["gain"]["mean"] == pytest.approx(gain)

    def test_results_are_shown(self, searched):
        _, result, _ = searched
        table = changes_table(result)
        assert set(table.columns) == {"before", "after", "importance"} and len(table)
        name = table.index[0]
        assert get_setting(searched[0], name) == table.loc[name, "before"] != table.loc[name, "after"]
        assert len(plot_search(result).axes) == 2
        text = toml_of(result | {"settings": {}}, module.date(2026, 1, 2))
        assert text.startswith("# Written by `movierec tune` on 2026-01-02")


@extra
@needs_optuna
def test_nothing_is_written_if_nothing_is_better(tiny_run, tmp_path):
    """The only trial is that of the present settings."""
    settings, out = own_folders(tiny_run[0], tmp_path), tmp_path / "a.toml"
    result = search(settings, PROTOCOL, Budget(trials=1), out, METRIC, ("ranker",))
    assert not result["written"] and not out.exists() and result["chosen"] == "start"
    assert result["gain"] == {"mean": 0.0, "ci95": [0.0, 0.0]}


def test_data_must_have_been_split(tiny_run, tmp_path):
    settings, _ = tiny_run
    with pytest.raises(NotFoundError, match="there is no dataset unheard-of here"):
        open_phases_to_tune(settings.model_copy(update={"dataset": "unheard-of"}), PROTOCOL)
    copied = copy_of_run(settings, tmp_path)
    (paths(copied).split(PROTOCOL) / "manifest.json").unlink()
    with pytest.raises(NotFoundError, match="`movierec run --dataset tiny --protocol global-time --until splits`"):
        open_phases_to_tune(copied, PROTOCOL)


def test_too_little_data_is_a_sentence(tiny_run, monkeypatch):
    def empty(split, phase):
        holdout = load_holdout(split, phase)
        return replace(holdout, events=holdout.events.select(np.zeros(len(holdout.events), bool)))

    monkeypatch.setattr(module, "load_holdout", empty)
    with pytest.raises(DataError, match="tiny is too small to tune under global-time: no user of the tuning phase"):
        open_phases_to_tune(tiny_run[0], PROTOCOL)
