"""The component for notebooks, driven as a person would: runs, metrics and tabs."""

import pytest
from helpers import copy_of_run

from movierec.app.compare import CompareApp, newest_runs
from movierec.config import NotFoundError
from movierec.evaluation.runs import read_runs, run_metrics, runs_table


@pytest.fixture
def compare(tiny_run):
    return CompareApp(settings=tiny_run[0])


def content(app, tab):
    app.tabs.selected_index = tab
    return app.views[tab].children


def test_the_newest_run_of_each_protocol_is_offered(tiny_run, compare):
    runs = read_runs(tiny_run[0])
    assert [name for _, name in compare.runs.options] == newest_runs(tiny_run[0])
    assert len(newest_runs(tiny_run[0])) == len(runs.drop_duplicates(["dataset", "protocol", "relevant"]))
    assert list(compare.chosen) == [compare.runs.options[0][1]]


def test_every_tab_shows_the_chosen_runs(tiny_run, compare):
    compare.runs.value = [name for _, name in compare.runs.options]
    (intervals,) = content(compare, 0)
    assert intervals.value.startswith("<svg") and all(label in intervals.value for label in compare.labels.values())
    against, figure = content(compare, 1)
    assert "ranked_v3" in figure.value and against is compare.against
    (table,) = content(compare, 2)
    rows = runs_table(tiny_run[0], list(compare.chosen))
    assert table.df.drop(columns="run").equals(rows.drop(columns="run"))
    assert set(table.df["run"]) == {*compare.labels.values()}
    for name in compare.chosen:
        metric = next(column for column in rows if column.startswith("recall@"))
        own = run_metrics(tiny_run[0], [name], metric).set_index("system")["value"]
        shown = rows[(rows["run"] == name) & (rows["segment"] == "all")].set_index("system")[metric]
        assert shown.to_dict() == own.to_dict()
    controls, users = content(compare, 3)
    assert "relevant movies" in users.value and list(controls.children) == [compare.a, compare.b]


def test_a_choice_changes_what_is_shown(compare):
    before = content(compare, 0)[0].value
    compare.metric.value = next(name for name in compare.metric.options if name.startswith("recall"))
    assert content(compare, 0)[0].value != before and compare.metric.value in content(compare, 0)[0].value
    compare.segment.value = "cold"
    assert content(compare, 0)[0].value.startswith("<svg")
    same = compare.a.options[0]
    compare.a.value = compare.b.value = same
    assert f"{same} is named twice" in content(compare, 3)[-1].value
    compare.runs.value = []
    assert content(compare, 3)[-1].value, "nothing chosen: what was shown stays"


def test_a_metric_that_is_not_known_for_a_segment_is_a_sentence(compare):
    compare.segment.value = "cold"
    compare.metric.value = next(name for name in compare.metric.options if name.startswith("coverage"))
    assert "these runs have no metric coverage" in content(compare, 0)[0].value


def test_nothing_to_compare(tiny_run, tmp_path):
    empty = copy_of_run(tiny_run[0], tmp_path).model_copy(update={"reports_dir": tmp_path / "none"})
    with pytest.raises(NotFoundError, match="no run is kept yet"):
        CompareApp(settings=empty)
    with pytest.raises(NotFoundError, match="no run is called"):
        CompareApp(["zzz"], settings=tiny_run[0])


def test_another_choice_of_runs_is_drawn_once(compare, monkeypatch):
    drawn = []
    monkeypatch.setattr(compare, "_intervals", lambda: drawn.append(compare.metric.value) or [])
    compare.runs.value = [compare.runs.options[-1][1]]
    assert len(drawn) == 1 and drawn[0] in compare.metric.options
