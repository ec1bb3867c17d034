"""Stored lists and candidate ranks against the systems that made them."""

import numpy as np
import pandas as pd
import pytest

from movierec.artifacts import paths
from movierec.config import DataError
from movierec.data.holdout import load_holdout
from movierec.data.tables import query
from movierec.evaluation.lists import candidate_ranks, export_lists, list_files, read_lists
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
    rows = export_lists(artifacts["lists"], artifacts["data"], "als", 5, file)
    exported = query("SELECT * FROM lists", lists=file)
    files = list_files(artifacts["lists"], "als")
    stored = query("SELECT score FROM lists WHERE rank <= 5 ORDER BY user_idx, rank", lists=files)
    assert list(exported) == ["userId", "movieId", "rank", "score"] and len(exported) == rows
    assert exported["score"].tolist() == stored["score"].tolist()


def test_a_target_that_is_no_folder_is_an_error(finished, tmp_path):
    _, artifacts, *_ = finished
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="can't be written"):
        export_lists(artifacts["lists"], artifacts["data"], "als", 5, tmp_path / "file" / "lists.parquet")
