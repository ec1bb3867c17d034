"""Walking forward, nothing of a window reaches a model that is evaluated in it."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from movierec.artifacts import paths
from movierec.config import SOURCES, DataError
from movierec.data.interactions import load_interactions, load_items
from movierec.evaluation.backtest import TRAINING_WINDOWS, Window, backtest, cut_windows, evaluate_models, walk_forward
from movierec.evaluation.source_backtest import source_backtest
from movierec.opening import open_data
from movierec.progress import Progress
from movierec.retrieval.hybrid import make_hybrid
from movierec.shards import ItemSide


@pytest.fixture(scope="module")
def walked(tiny_run, tmp_path_factory):
    """Six cuts of the tiny data: settings, events, windows, answers, and the folder of the models."""
    settings, folder = tiny_run[0], tmp_path_factory.mktemp("backtest")
    data = open_data(settings)
    interactions = load_interactions(data)
    windows, evaluations = walk_forward(settings, interactions, load_items(data), 6, folder, Progress())
    return settings, interactions, windows, evaluations, folder


def test_windows_are_consecutive_and_of_equally_many_events():
    times = np.sort(np.random.default_rng(0).integers(0, 10**6, 8_000))
    windows = cut_windows(times, 6)
    assert len(windows) == 8 and windows[-1].end == times.max() + 1
    assert all(one.end == other.begin for one, other in pairwise(windows))
    counts = [((times >= window.begin) & (times < window.end)).sum() for window in windows]
    assert min(counts) >= 790 and max(counts) <= 810
    with pytest.raises(DataError, match="try fewer"):
        cut_windows(np.repeat([1, 2, 3], 5), 6)


def test_the_last_window_is_the_test_window_of_global_time(walked, tiny_run):
    _, _, windows, evaluations, _ = walked
    facts = tiny_run[1]["global-time"]["protocol"]["facts"]
    assert [window.begin for window in windows[-3:]] == [facts["tuning"], facts["validation"], facts["test"]]
    (last,) = (one for one in evaluations if one.fitted == one.window == len(windows) - 1)
    published = tiny_run[1]["global-time"]["systems"]
    assert len(last.users) == published["hybrid"]["n_users"]
    for name in ("popularity", "popularity_recent", "item_item", "ease", "sequential", "linear_ar", "genre"):
        means = last.metrics[name].mean(axis=0)
        assert means == pytest.approx([published[name]["recall@5"], published[name]["ndcg@5"]]), name


def test_what_happens_in_a_window_and_later_reaches_no_model(walked, tmp_path):
    """Models fitted on a log whose later events are of other movies are the same."""
    settings, interactions, windows, _, folder = walked
    number = TRAINING_WINDOWS + 1
    window = windows[number]
    begin = window.begin
    items = interactions.item_idx.copy()
    later = interactions.timestamp >= begin
    items[later] = np.random.default_rng(0).permutation(items[later])
    assert (items[~later] == interactions.item_idx[~later]).all() and (items != interactions.item_idx).any()
    shuffled = replace(interactions, item_idx=items)
    known, other = window.known(interactions), Window(begin, window.end).known(shuffled)
    assert np.array_equal(known.item_idx, other.item_idx) and known.timestamp.max() < begin
    hybrid = make_hybrid(settings, load_items(open_data(settings))).fit(other)
    mine = ItemSide.of(hybrid, settings.half_life_days)
    stored = ItemSide.open(folder / str(number))
    for name in ("item_item", "ease", "linear_ar"):
        one, same = (side.store.hybrid.sources[name] for side in (mine, stored))
        for part in one.state:
            a, b = getattr(one, part), getattr(same, part)
            assert (a != b).nnz == 0 if hasattr(a, "nnz") else np.array_equal(a, b), (name, part)


def test_every_model_is_evaluated_at_its_window_and_at_later_ones(walked):
    _, interactions, windows, evaluations, _ = walked
    found = {(one.fitted, one.window, one.fresh) for one in evaluations}
    numbers = range(TRAINING_WINDOWS, len(windows))
    assert found == {(i, j, True) for j in numbers for i in numbers if i <= j} | {
        (i, j, False) for j in numbers for i in numbers if i < j
    }
    for one in evaluations:
        evaluated = windows[one.window].holdout(interactions).evaluated_users
        assert one.users.tolist() == evaluated.tolist()
        assert all(values.shape == (len(evaluated), 2) for values in one.metrics.values())


def test_fresh_histories_are_not_the_old_ones(walked):
    """The same model gives other lists to users of whom it knows what they did since."""
    settings, interactions, windows, _, folder = walked
    number = len(windows) - 1
    answers = evaluate_models(interactions, windows, number, folder, settings)
    old, fresh = (
        next(one for one in answers if one.fitted == TRAINING_WINDOWS and one.fresh is kind) for kind in (False, True)
    )
    assert any(not np.array_equal(old.metrics[name], fresh.metrics[name]) for name in old.metrics)


def test_results_say_what_was_measured(tiny_run, walked, tmp_path):
    settings = tiny_run[0].model_copy(update={"results_dir": tmp_path})
    result = backtest(settings, 2)
    assert json.loads((paths(settings).results / "backtest.json").read_text()) == result
    assert not list(paths(settings).models.glob(".backtest-*"))
    assert len(result["windows"]) == 2 and set(result["ageing"]) == {"fresh", "old"}
    for system in result["systems"].values():
        rows = [cut["rows"] for cut in system["cuts"]]
        mean = np.average([cut["ndcg@5"] for cut in system["cuts"]], weights=rows)
        assert system["rows"] == sum(rows) and system["ndcg@5"] == pytest.approx(mean)
        low, high = system["ci95"]["ndcg@5"]
        assert low <= system["ndcg@5"] <= high
    assert set(result["ageing"]["fresh"]["hybrid"]) == {"1"}


def test_the_backtest_of_sources_leaves_each_out_at_every_cut(tiny_run, tmp_path):
    settings = tiny_run[0].model_copy(update={"results_dir": tmp_path})
    result = source_backtest(settings, 2)
    assert json.loads((paths(settings).results / "backtest-sources.json").read_text()) == result
    whole = backtest(settings, 2)["systems"]
    for name, system in result["systems"].items():
        assert system["all"]["ndcg@5"] == pytest.approx(whole[name]["ndcg@5"])
        assert set(system["without"]) == set(SOURCES)
        changes = {source: change["ndcg@5"] for source, change in system["without"].items()}
        assert any(changes.values()), name
        for change in system["without"].values():
            assert change["rows"] == system["all"]["rows"]
            cuts = [(cut["ndcg@5"], cut["rows"]) for cut in change["cuts"]]
            mean = np.average([mean for mean, _ in cuts], weights=[rows for _, rows in cuts])
            assert change["ndcg@5"] == pytest.approx(mean, abs=1e-12)
