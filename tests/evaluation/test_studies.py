"""Studies: seeded, resumable at any trial, pruned by real intermediate values, and within their budget."""

import builtins
import importlib.util
import math

import pytest

from movierec.config import ConfigError
from movierec.evaluation.search_space import Choice, Range
from movierec.evaluation.studies import (
    Budget,
    has_time,
    import_optuna,
    importances,
    open_study,
    quiet_optuna,
    run_studies,
    run_trial,
)

needs_optuna = pytest.mark.skipif(
    importlib.util.find_spec("optuna") is None, reason="the extra tune (Optuna) isn't installed: make neural"
)
SPACE = {"x": Range(0.01, 100.0), "n": Range(1, 9, log=False), "kind": Choice(("a", "b", [1, 2]))}
START = {"x": 50.0, "n": 5, "kind": "a"}


@pytest.fixture(autouse=True)
def _quiet():
    if importlib.util.find_spec("optuna") is None:
        yield
        return
    with quiet_optuna():
        yield


def hill(values, report):
    """The higher, the nearer x is to 1, with b as kind."""
    value = -abs(math.log(values["x"])) + (values["kind"] == "b")
    report(0, value / 2)
    report(1, value * 0.9)
    return value


def searched(file, trials, seed=0, objective=hill, depends_on="data", starts=(START,)):
    study = open_study(file, "hill", depends_on, SPACE, list(starts), seed)
    run_studies({"hill": (study, objective)}, Budget(trials=trials))
    return study


def tried(study):
    return [(trial.params, trial.value if trial.state.name == "COMPLETE" else None) for trial in study.trials]


def test_budgets_are_checked():
    for minutes, trials, message in (
        (0, None, "0 minutes is no time"), (-1, 5, "-1 minutes"), (float("nan"), None, "nan"),
        (1, 0, "0 trials are none"), (None, None, "never ends"),
    ):
        with pytest.raises(ConfigError, match=message):
            Budget(minutes, trials)


def test_time_runs_out_by_the_clock_it_is_given():
    now = [100.0]
    budget = Budget(minutes=2, clock=lambda: now[0])
    now[0] += 30
    assert budget.left() == 90 and budget.reserve(share=0.5) == 45 and budget.reserve(share=0.5, later=30) == 60
    now[0] += 100
    assert budget.left() == -10 and budget.reserve(share=0.5) == 0
    assert Budget(trials=3).left() == math.inf and Budget(trials=3).reserve(0.5, 10) == 0


def test_a_missing_extra_is_one_sentence(monkeypatch):
    original = builtins.__import__

    def without(name, *arguments, **options):
        if name == "optuna":
            raise ImportError(name)
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"isn't installed: pip install 'movierec\[tune\]'") as caught:
        import_optuna()
    assert "\n" not in str(caught.value)


@pytest.mark.extra
@needs_optuna
class TestStudy:
    def test_it_starts_from_the_present_settings_and_is_never_worse(self, tmp_path):
        study = searched(tmp_path / "s.sqlite3", 30)
        assert study.values_of(study.trials[0]) == START
        assert study.best.value >= study.trials[0].value
        found = study.values_of(study.best)
        assert found["kind"] == "b" and 0.2 < found["x"] < 5 and isinstance(found["n"], int)

    def test_the_seed_decides_the_trials(self, tmp_path):
        a, b, c = (searched(tmp_path / f"{name}.sqlite3", 15, seed) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
        assert tried(a) == tried(b) != tried(c)

    def test_an_interrupted_search_goes_on_as_if_it_had_not_been(self, tmp_path):
        calls = []

        def breaks(values, report):
            calls.append(values)
            if len(calls) in (1, 4, 11):  # the first trial, too
                raise KeyboardInterrupt
            return hill(values, report)

        whole = searched(tmp_path / "whole.sqlite3", 14)
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt):
                searched(tmp_path / "broken.sqlite3", 14, objective=breaks)
        assert tried(searched(tmp_path / "broken.sqlite3", 14, objective=breaks)) == tried(whole)

    def test_finished_trials_are_not_made_again(self, tmp_path):
        searched(tmp_path / "s.sqlite3", 5)
        calls = []
        study = searched(tmp_path / "s.sqlite3", 5, objective=lambda *_: calls.append(1) or 0.0)
        assert not calls and len(study.trials) == 5 and not study.is_new

    def test_other_data_begin_a_new_study(self, tmp_path):
        file = tmp_path / "s.sqlite3"
        searched(file, 2)
        for changed in ({"depends_on": "other data"}, {"seed": 7}):
            study = searched(file, 1, **changed)
            assert len(study.trials) == 1 and study.is_new and study.replaces >= 1
        wider = open_study(file, "hill", "data", SPACE | {"x": Range(0.01, 1_000.0)}, [START], 0)
        assert wider.is_new and wider.replaces == 3
        assert open_study(file, "other stage", "data", SPACE, [START], 0).replaces == 0

    def test_trials_below_the_median_are_pruned(self, tmp_path):
        reached = []

        def objective(values, report):
            report(0, values["x"])
            reached.append(values["x"])
            return values["x"]

        study = searched(tmp_path / "s.sqlite3", 30, objective=objective)
        pruned = [trial for trial in study.trials if trial.state.name == "PRUNED"]
        assert len(reached) == len(study.completed) < 30 == len(study.trials)
        assert pruned and all(list(trial.intermediate_values) == [0] for trial in pruned)
        earlier = [trial for trial in study.trials if trial.number < pruned[0].number]
        median = sorted(trial.intermediate_values[0] for trial in earlier)[len(earlier) // 2]
        assert pruned[0].intermediate_values[0] <= median

    def test_starting_points_are_never_pruned(self, tmp_path):
        starts = [START | {"x": x} for x in (100.0, 100.0, 100.0, 100.0, 100.0, 0.01)]

        def objective(values, report):
            report(0, values["x"])
            return values["x"]

        study = searched(tmp_path / "s.sqlite3", 6, starts=starts, objective=objective)
        assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 6

    def test_studies_take_turns_within_the_budget(self, tmp_path):
        order = []
        studies = {}
        for name in ("a", "b"):
            study = open_study(tmp_path / "s.sqlite3", name, {}, SPACE, [START], 0)
            studies[name] = (study, lambda *_, name=name: order.append(name) or 1.0)
        run_studies(studies, Budget(trials=3))
        assert order == ["a", "b"] * 3

    def test_no_trial_begins_without_time_but_the_first_is_always_made(self, tmp_path):
        now = [0.0]
        study = open_study(tmp_path / "s.sqlite3", "hill", {}, SPACE, [START], 0)
        over = Budget(minutes=1, clock=lambda: now[0])
        now[0] = 61.0
        run_studies({"hill": (study, hill)}, over)
        assert len(study.trials) == 1 and not has_time(study, over)
        enough = Budget(minutes=1, clock=lambda: now[0])
        assert has_time(study, enough) and not has_time(study, enough, reserve=60.0)
        run_trial(study, hill)
        assert len(study.trials) == 2

    def test_what_matters_is_found(self, tmp_path):
        study = searched(tmp_path / "s.sqlite3", 40, objective=lambda values, _: -abs(math.log(values["x"])))
        shares = importances(study)
        assert shares["x"] > 0.7 and math.isclose(sum(shares.values()), 1)
        assert importances(searched(tmp_path / "few.sqlite3", 3)) == {}
        assert importances(searched(tmp_path / "flat.sqlite3", 6, objective=lambda *_: 1.0)) == {}

    def test_optuna_logs_what_it_did_before(self):
        import optuna

        optuna.logging.set_verbosity(optuna.logging.INFO)
        with quiet_optuna():
            assert optuna.logging.get_verbosity() == optuna.logging.WARNING
        assert optuna.logging.get_verbosity() == optuna.logging.INFO
