"""The table over all results, trade-offs, and the page to pass on."""

import re
import sys

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from movierec.config import ConfigError
from movierec.evaluation.dashboard import (
    comparison_page,
    fit_seconds,
    interactive_table,
    plot_tradeoffs,
    results_rows,
    results_table,
)


@pytest.fixture(scope="module")
def evaluations(tiny_run):
    return tiny_run[1]


def test_every_metric_of_every_segment_is_in_the_table(evaluations):
    table = results_table(evaluations.values())
    assert set(table["protocol"]) == set(evaluations)
    for protocol, results in evaluations.items():
        for system, of_system in results["systems"].items():
            own = table[(table["protocol"] == protocol) & (table["system"] == system)].set_index("segment")
            segments = {"all": of_system} | of_system["segments"]
            assert set(own.index) == {name for name, metrics in segments.items() if metrics["n_users"]}
            for segment in own.index:
                for metric, value in segments[segment].items():
                    if "@" in metric:
                        assert np.isclose(own.loc[segment, metric], value, equal_nan=True), (system, segment, metric)


def test_seconds_add_up(evaluations):
    results = evaluations["global-time"]
    seconds = fit_seconds(results)
    assert set(seconds) == set(results["systems"])
    assert seconds["hybrid"] == pytest.approx(sum(results["fit_seconds"].values()))
    assert seconds["ranked_v3"] == pytest.approx(seconds["hybrid"] + results["seconds"]["rankers"])
    assert fit_seconds({"systems": {}, "seconds": {}}) == {}, "results of an earlier version"


def test_tradeoffs_show_every_system_where_it_is(evaluations):
    results = evaluations["global-time"]
    figure = plot_tradeoffs(results)
    rows = results_rows(results).query("segment == 'all'").set_index("system")
    first = results["protocol"]["cutoffs"][0]
    for axis, name in zip(figure.axes, ("coverage", "novelty", "popularity_lift", "fit_seconds"), strict=True):
        column = name if name == "fit_seconds" else f"{name}@{first}"
        assert {text.get_text() for text in axis.texts} == set(rows.index)
        expected = np.column_stack([rows[column], rows[f"ndcg@{first}"]]).astype(float)
        assert np.allclose(axis.collections[0].get_offsets(), expected)


def test_names_beside_points_do_not_overlap(evaluations):
    figure = plot_tradeoffs(evaluations["global-time"])
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    for axis in figure.axes:
        boxes = [Text.get_window_extent(text, renderer) for text in axis.texts]  # without its line
        middles = [((box.x0, box.x1), (box.y0 + box.y1) / 2) for box in boxes]
        for number, ((left, right), middle) in enumerate(middles):
            for (other_left, other_right), other in middles[:number]:
                apart = abs(middle - other) > 6 or right <= other_left or other_right <= left
                assert apart


def test_a_page_needs_nothing_from_elsewhere(evaluations):
    page = comparison_page(evaluations["global-time"])
    markup = re.sub(r"injectModule\(\"[^\"]*\"\)|injectCSS\(\"[^\"]*\"\)", "", page)
    loaded = re.findall(r"(?:src|href)=[\"']?(https?:[^\"' >]+)", markup)
    assert [url for url in loaded if "itables.org" not in url and "w3.org" not in url] == []
    assert "<title>tiny, global-time</title>" in page and "ranked_v3" in page


def test_without_itables_a_sentence_says_how_to_get_it(evaluations, monkeypatch):
    monkeypatch.setitem(sys.modules, "itables", None)
    with pytest.raises(ConfigError, match=r"pip install 'movierec\[app\]'"):
        interactive_table(results_table(evaluations.values()))
