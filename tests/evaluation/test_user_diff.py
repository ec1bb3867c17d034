"""Two systems user by user, against plain loops over the stored lists."""

import json

import numpy as np
import pytest
from helpers import copy_of_run

from movierec.config import NotFoundError
from movierec.data.interactions import load_items, load_users
from movierec.evaluation.evaluate import EvaluationSet
from movierec.evaluation.lists import read_lists
from movierec.evaluation.results import load_evaluation_set
from movierec.evaluation.user_diff import compare_users, plot_users, publish_users, user_groups
from movierec.opening import open_run
from movierec.pipeline import run

A, B, METRIC = "popularity", "hybrid", "ndcg@5"


@pytest.fixture(scope="module")
def compared(tiny_run):
    settings = tiny_run[0]
    return settings, compare_users(settings, "global-time", A, B, n_examples=2), open_run(settings, "global-time")


def evaluation_set(settings, artifacts) -> EvaluationSet:
    return load_evaluation_set(settings, artifacts["data"], artifacts["split"], artifacts["lists"])


def ndcg(listed, relevant, k=5):
    gains = [1 / np.log2(place + 2) for place, item in enumerate(listed[:k]) if item in relevant]
    return sum(gains) / sum(1 / np.log2(place + 2) for place in range(min(k, len(relevant))))


def test_shares_and_means_by_hand(compared):
    settings, result, artifacts = compared
    found = evaluation_set(settings, artifacts)
    users = found.holdout.evaluated_users
    values = {}
    for name in (A, B):
        lists = read_lists(artifacts["lists"], name, users, 5)
        values[name] = np.array([
            ndcg(own.tolist(), set(found.relevant[row].indices.tolist())) for row, own in enumerate(lists)
        ])
    everyone = result["all"]
    assert result["metric"] == METRIC and everyone["n_users"] == len(users)
    assert everyone["a"] == pytest.approx(values[A].mean()) and everyone["b"] == pytest.approx(values[B].mean())
    assert everyone["b_better"] == pytest.approx((values[B] > values[A] + 1e-12).mean())
    assert everyone["a_better"] == pytest.approx((values[A] > values[B] + 1e-12).mean())
    masks = user_groups(found)
    assert set(result["groups"]) == set(masks)
    for name, mask in masks.items():
        group = result["groups"][name]
        assert group["n_users"] == mask.sum()
        assert group["difference"] == pytest.approx((values[B] - values[A])[mask].mean())
    assert any(name.startswith("taste") for name in masks) and sum(
        result["groups"][name]["n_users"] for name in masks if name.endswith("relevant")
    ) == len(users), "everyone is in one group by number of relevant events"


def test_examples_are_real_users_with_their_lists(compared):
    settings, result, artifacts = compared
    found, titles = evaluation_set(settings, artifacts), load_items(artifacts["data"])["title"].tolist()
    numbers = {user: number for number, user in enumerate(load_users(artifacts["data"]).tolist())}
    assert result["examples"]["b_better"] and result["examples"]["a_better"]
    for direction, examples in result["examples"].items():
        for example in examples:
            user = numbers[example["user_id"]]
            row = found.holdout.evaluated_users.tolist().index(user)
            relevant = {titles[item] for item in found.relevant[row].indices}
            for key, name in (("a", A), ("b", B)):
                listed = read_lists(artifacts["lists"], name, np.array([user]), 5)[0]
                assert [title for title, _ in example[key]] == [titles[item] for item in listed if item >= 0]
                assert all(hit == (title in relevant) for title, hit in example[key])
            better, worse = ("b", "a") if direction == "b_better" else ("a", "b")
            assert example["metric"][better] > example["metric"][worse]


def test_single_users_are_published_only_of_data_that_may_be_passed_on(compared, tmp_path):
    settings, result, _ = compared
    own = settings.model_copy(update={"results_dir": tmp_path})
    written = json.loads(publish_users(own, result).read_text())
    assert "examples" not in written and written["groups"] == result["groups"] and "commit" in written
    shown = own.model_copy(update={"dataset": "ml-latest-small"})
    assert json.loads(publish_users(shown, result).read_text())["examples"] == result["examples"]


def test_what_can_not_be_compared(tiny_run, tmp_path):
    settings = tiny_run[0]
    with pytest.raises(NotFoundError, match="predicts events one by one"):
        compare_users(settings, "global-next", A, B)
    with pytest.raises(NotFoundError, match="hybrid is named twice"):
        compare_users(settings, "global-time", "hybrid", "hybrid")
    with pytest.raises(NotFoundError, match=r"there is no system hybird \(did you mean hybrid\?\)"):
        compare_users(settings, "global-time", "hybird", "als")
    own = copy_of_run(settings, tmp_path)
    with pytest.raises(NotFoundError, match="hasn't been run under cold-items yet"):
        compare_users(own, "cold-items", "hybrid", "als")


def test_the_figure_has_a_row_for_each_group(compared):
    _, result, _ = compared
    shares, _ = plot_users(result).axes
    labels = [label.get_text() for label in shares.get_yticklabels()]
    assert len(labels) == 1 + len(result["groups"]) and labels[0].startswith("all (")


def test_a_run_with_other_list_lengths_is_compared_by_its_own(tiny_run, tmp_path):
    own = copy_of_run(tiny_run[0], tmp_path, protocol="global-time", cutoffs=(3, 7))
    run(own)
    found = compare_users(own.model_copy(update={"cutoffs": (5, 10)}), "global-time", A, B)
    assert found["metric"] == "ndcg@3" and found["config"]["cutoffs"] == [3, 7]
