"""Stored lists and candidate ranks against the systems that made them."""

import numpy as np
import pandas as pd
import pytest

from movierec.artifacts import paths
from movierec.config import PROTOCOLS, DataError
from movierec.data.holdout import load_holdout, sample_holdout
from movierec.data.tables import query
from movierec.evaluation.lists import (
    candidate_ranks,
    export_lists,
    export_test_users,
    list_files,
    load_test_holdout,
    read_lists,
)
from movierec.opening import open_run
from movierec.retrieval.hybrid import Hybrid


@pytest.fixture(scope="module")
def finished(tiny_run):
    """Settings, artifacts, holdout and fitted hybrid of the tiny run under global-time."""
    settings, _ = tiny_run
    artifacts = open_run(settings, "global-time")
    holdout = load_holdout(artifacts["split"], "test")
    return settings, artifacts, holdout, Hybrid.load(paths(settings).sources("global-time", "test"), holdout.history)


def test_stored_lists_are_what_a_system_recommends(finished):
    settings, artifacts, holdout, hybrid = finished
    for name, system in (("ease", hybrid.sources["ease"]), ("hybrid", hybrid)):
        expected, _ = system.top_k(holdout.users, settings.list_size, holdout.as_of[holdout.users])
        assert (read_lists(artifacts["lists"], name, holdout.users, settings.list_size) == expected).all()
    some = holdout.users[1::3]
    whole = read_lists(artifacts["lists"], "hybrid", holdout.users, 5)
    assert (read_lists(artifacts["lists"], "hybrid", some, 5) == whole[1::3]).all()


def test_candidate_ranks_are_positions_in_the_lists(finished):
    settings, _, holdout, hybrid = finished
    pools = candidate_ranks(hybrid, holdout, settings)
    users = np.unique(pools["user_idx"].to_numpy())
    ranked, _ = hybrid.sources["ease"].top_k(users, max(settings.pool_sizes), holdout.as_of[users])
    for row in pools.itertuples():
        places = np.flatnonzero(ranked[np.searchsorted(users, row.user_idx)] == row.item_idx)
        assert row.ease == (places[0] + 1 if len(places) else 0)


def test_a_sample_of_users_has_the_ranks_that_all_users_have(finished):
    settings, _, holdout, hybrid = finished
    few = settings.model_copy(update={"pool_users": 3})
    some, every = candidate_ranks(hybrid, holdout, few), candidate_ranks(hybrid, holdout, settings)
    assert some["user_idx"].nunique() == 3
    of_the_same = every[every["user_idx"].isin(some["user_idx"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(some, of_the_same)


def test_exported_lists_have_external_ids(finished, tmp_path):
    _, artifacts, *_ = finished
    file = tmp_path / "new" / "lists.parquet"
    rows = export_lists(artifacts["lists"], artifacts["split"], artifacts["data"], "als", 5, file)
    exported = query("SELECT * FROM lists", lists=file)
    files = list_files(artifacts["lists"], "als")
    stored = query("SELECT score FROM lists WHERE rank <= 5 ORDER BY user_idx, rank", lists=files)
    assert list(exported) == ["userId", "movieId", "rank", "score"] and len(exported) == rows
    assert exported["score"].tolist() == stored["score"].tolist()


def test_a_target_that_is_no_folder_is_an_error(finished, tmp_path):
    _, artifacts, *_ = finished
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="can't be written"):
        file = tmp_path / "file" / "lists.parquet"
        export_lists(artifacts["lists"], artifacts["split"], artifacts["data"], "als", 5, file)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_sampled_users_have_the_lists_and_pools_that_they_have_among_all(tiny_run, sampled_run, protocol):
    whole, part = (open_run(settings, protocol)["lists"] for settings, _ in (tiny_run, sampled_run))
    split = open_run(sampled_run[0], protocol)["split"]
    users = load_test_holdout(part, split).users
    every = load_test_holdout(whole, split)
    assert len(users) == part.manifest["contents"]["users"] == 8 < len(every.users) and every.user_sample is None
    assert users.tolist() == sample_holdout(every, 8, sampled_run[0].seed).users.tolist()
    for system in whole.manifest["contents"]["rows"]:
        assert (read_lists(part, system, users, 20) == read_lists(whole, system, users, 20)).all()
        stored = query("SELECT DISTINCT user_idx FROM lists ORDER BY 1", lists=list_files(part, system))
        assert set(stored["user_idx"]) <= set(users), "a new user has no list from some systems"
    pools, all_pools = (query("SELECT * FROM pools", pools=lists.path / "pools.parquet") for lists in (part, whole))
    of_the_same = all_pools[all_pools["user_idx"].isin(users)].reset_index(drop=True)
    pd.testing.assert_frame_equal(pools, of_the_same)


def test_the_manifest_says_what_sample_it_is(tiny_run, sampled_run):
    whole, part = (open_run(settings, "leave-last-out")["lists"].manifest for settings, _ in (tiny_run, sampled_run))
    assert whole["config"]["evaluation_users"] == 0 and "user_sample" not in whole["contents"]
    assert part["config"]["evaluation_users"] == 8
    assert part["contents"]["user_sample"] == {"users": 8, "of": 80, "seed": 42}


def test_pool_users_are_drawn_from_the_evaluated_users(finished):
    settings, _, holdout, hybrid = finished
    part = sample_holdout(holdout, 6, seed=42)
    pools = candidate_ranks(hybrid, part, settings.model_copy(update={"pool_users": 3}))
    assert pools["user_idx"].nunique() == 3 and set(pools["user_idx"]) < set(part.users)


def test_exported_test_users_have_external_ids(sampled_run, tmp_path):
    artifacts = open_run(sampled_run[0], "global-time")
    lists, split, data = artifacts["lists"], artifacts["split"], artifacts["data"]
    assert export_test_users(split, data, lists.manifest["config"], tmp_path / "users.parquet") == 8
    exported = query("SELECT * FROM u", u=tmp_path / "users.parquet")
    users = query("SELECT * FROM u ORDER BY user_idx", u=data.path / "users.parquet")["userId"]
    assert list(exported) == ["userId"]
    assert exported["userId"].tolist() == users[load_test_holdout(lists, split).users].tolist()
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="can't be written"):
        export_test_users(split, data, lists.manifest["config"], tmp_path / "file" / "users.parquet")
