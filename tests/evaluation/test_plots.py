"""The comparison plot shows the numbers of the results."""

import pytest

from movierec.evaluation.plots import COLOURS, HIGHLIGHT, plot_comparison


@pytest.mark.parametrize("segment", ["all", "tail"])
def test_a_panel_for_each_headline_metric(tiny_run, segment):
    results = tiny_run[1]["global-time"]
    figure = plot_comparison(results, segment=segment)
    assert [axis.get_title(loc="left") or axis.get_title() for axis in figure.axes] == results["protocol"]["headline"]


def test_points_are_the_means_and_the_chosen_on_validation_is_highlighted(tiny_run):
    results = tiny_run[1]["global-time"]
    axis = plot_comparison(results, ("ndcg@5",)).axes[0]
    means = [line for line in axis.lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in means] == [system["ndcg@5"] for system in results["systems"].values()]
    colours = [HIGHLIGHT if name == results["chosen_on_validation"] else COLOURS[0] for name in results["systems"]]
    assert [line.get_color() for line in means] == colours


@pytest.mark.parametrize("segment", ["all", "warm"])
def test_the_title_says_who_was_evaluated(tiny_run, sampled_run, segment):
    whole, part = (
        plot_comparison(results["leave-last-out"], segment=segment).get_suptitle()
        for _, results in (tiny_run, sampled_run)
    )
    assert "users; 95 % intervals" in whole and "sample" not in whole
    assert "users from a random sample of 8 of 80 users;\n95 % intervals" in part
