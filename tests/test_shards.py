"""Blocks of users give the lists of all users at once, in this process or from what was written for another."""

import numpy as np
import pytest

from movierec.artifacts import paths
from movierec.config import ArtifactError
from movierec.data.holdout import load_holdout
from movierec.data.interactions import load_interactions
from movierec.opening import open_run, open_serving
from movierec.retrieval.hybrid import Hybrid
from movierec.shards import (
    ItemSide,
    UserBlock,
    block_metrics,
    cut_users,
    served_lists,
    system_lists,
    training_rows,
)
from movierec.stages import load_rankers


@pytest.fixture(scope="module", params=["leave-last-out", "global-time"])
def tested(request, tiny_run):
    """The holdout of a protocol's test, and the item side that its lists are made with."""
    settings, _ = tiny_run
    run = open_run(settings, request.param)
    holdout = load_holdout(run["split"], "test")
    hybrid = Hybrid.load(paths(settings).sources(request.param, "test"), holdout.history)
    return holdout, ItemSide.of(hybrid, settings.half_life_days, load_rankers(run["rankers"], "tiny"))


def blocks(holdout, side, users, n_blocks):
    """The users in as many blocks."""
    factors = side.store.hybrid.sources["als"].user_factors
    return [UserBlock.of(holdout.history, some, holdout.as_of[some], factors) for some in cut_users(users, n_blocks)]


def joined(parts):
    """System → items and scores, of all blocks."""
    return {name: [np.concatenate(arrays) for arrays in zip(*(part[name] for part in parts), strict=True)]
            for name in parts[0]}


def test_lists_of_all_systems_are_the_same_in_any_number_of_blocks(tested):
    holdout, side = tested
    whole = joined([system_lists(side, block, 10) for block in blocks(holdout, side, holdout.users, 1)])
    assert list(whole)[-4:] == ["hybrid", "ranked_v1", "ranked_v2", "ranked_v3"]
    for n_blocks in (3, 7):
        parts = joined([system_lists(side, block, 10) for block in blocks(holdout, side, holdout.users, n_blocks)])
        for name in whole:
            assert all(np.array_equal(*pair) for pair in zip(whole[name], parts[name], strict=True)), name


def test_they_are_those_of_the_systems_that_know_all_users(tested):
    """A block's users are fold-in users; here they are those of the fit."""
    holdout, side = tested
    lists = joined([system_lists(side, block, 10) for block in blocks(holdout, side, holdout.users, 3)])
    for name, source in side.store.hybrid.sources.items():
        expected = source.top_k(holdout.users, 10, holdout.as_of[holdout.users])
        assert all(np.array_equal(*pair) for pair in zip(lists[name], expected, strict=True)), name


def test_another_process_needs_nothing_but_the_folder(tested, tmp_path):
    holdout, side = tested
    side.write(tmp_path)
    opened = ItemSide.open(tmp_path)
    assert len(opened.store.hybrid.interactions) == 0, "no events of users"
    pairs = zip(*(blocks(holdout, each, holdout.users, 2) for each in (side, opened)), strict=True)
    for first, second in pairs:
        expected, found = system_lists(side, first, 10), system_lists(opened, second, 10)
        assert list(expected) == list(found)
        for name in expected:
            assert all(np.array_equal(*pair) for pair in zip(expected[name], found[name], strict=True)), name


def test_a_missing_or_damaged_item_side_is_refused(tested, tmp_path):
    _, side = tested
    with pytest.raises(ArtifactError, match=r"item side in .* can't be read"):
        ItemSide.open(tmp_path / "nowhere")
    side.write(tmp_path)
    (tmp_path / "timeline_key.npy").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"item side in .* can't be read"):
        ItemSide.open(tmp_path)


def test_training_rows_and_metrics_are_the_same_in_any_number_of_blocks(tested):
    holdout, side = tested
    users = holdout.evaluated_users
    made = {}
    for n_blocks in (1, 3, 7):
        rows, metrics = [], []
        for block in blocks(holdout, side, users, n_blocks):
            relevant = holdout.relevant[block.users]
            rows.append(training_rows(side, block, relevant, list_size=5))
            metrics.append(block_metrics(system_lists(side, block, 10), relevant, (5, 10))["ranked_v3"]["ndcg@10"])
        parts = {name: np.concatenate([getattr(part, name) for part in rows])
                 for name in ("users", "items", "features", "labels")}
        parts["list"] = np.concatenate([part.source_lists["popularity"] for part in rows])
        made[n_blocks] = parts | {"ndcg": np.concatenate(metrics)}
    assert np.array_equal(made[1]["users"], users)
    for n_blocks in (3, 7):
        for name, expected in made[1].items():
            assert np.array_equal(made[n_blocks][name], expected, equal_nan=expected.dtype.kind == "f"), name


@pytest.mark.parametrize("system", ["popularity", "sequential", "hybrid", "ranked_v2", "ranked_v3"])
def test_served_lists_are_the_same_in_any_number_of_blocks(tiny_run, system):
    settings, _ = tiny_run
    serving = open_serving(settings)
    events = load_interactions(serving.data)
    hybrid = Hybrid.load(serving.sources.path, events)
    side = ItemSide.of(hybrid, settings.half_life_days, load_rankers(serving.rankers, "tiny"))
    made = []
    for n_blocks in (1, 3, 7):
        parts = []
        for users in cut_users(np.arange(events.n_users), n_blocks):
            as_of = np.full(len(users), events.as_of)
            block = UserBlock.of(events, users, as_of, hybrid.sources["als"].user_factors)
            parts.append(served_lists(side, block, system, 6))
        made.append([np.concatenate(arrays) for arrays in zip(*parts, strict=True)])
    for parts in made[1:]:
        assert all(np.array_equal(*pair) for pair in zip(made[0], parts, strict=True))


def test_cutting_users():
    users = np.array([3, 5, 8, 9, 12])
    assert [part.tolist() for part in cut_users(users, 2)] == [[3, 5, 8], [9, 12]]
    assert [part.tolist() for part in cut_users(users, block_size=2)] == [[3, 5], [8, 9], [12]]
    assert [len(part) for part in cut_users(users[:0])] == [0]
