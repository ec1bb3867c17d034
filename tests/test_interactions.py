"""Indices, confidence and splits, compared with plain re-implementations in pandas."""

import numpy as np
import pandas as pd
import pytest
from conftest import tiny_settings, write_archive

from movierec.config import DataError
from movierec.ingest import ingest, query
from movierec.interactions import (
    PARTS,
    build_interactions,
    build_split,
    export_split,
    item_genre_matrix,
    load_holdout,
    load_interactions,
    load_items,
    load_users,
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("interactions")
    settings = tiny_settings(folder)
    tables = ingest(settings, write_archive(folder / "archive"))
    return settings, tables, build_interactions(settings, tables)


@pytest.fixture(scope="module")
def raw(tiny):
    """The ratings as they stand in the file."""
    _, tables, _ = tiny
    return query("SELECT * FROM ratings ORDER BY row", ratings=tables.path / "ratings.parquet")


def split_frames(tiny, protocol, folder):
    settings, _, data = tiny
    export_split(build_split(settings, data, protocol), data, folder)
    return {part: query("SELECT * FROM t", t=folder / f"{part}.parquet") for part in PARTS}


def test_dense_ids_and_confidence(tiny, raw):
    _, _, data = tiny
    interactions, users, items = load_interactions(data), load_users(data), load_items(data)
    assert users.tolist() == sorted(raw.userId.unique()) and items.item_idx.tolist() == list(range(120))
    back = pd.DataFrame({"userId": users[interactions.user_idx], "movieId": items.movieId.to_numpy()[interactions.item_idx],
                         "confidence": interactions.confidence, "timestamp": interactions.timestamp})
    expected = raw.sort_values(["userId", "timestamp", "row"], ignore_index=True)
    assert (back.movieId == expected.movieId).all() and (back.timestamp == expected.timestamp).all()
    assert np.array_equal(back.confidence, np.maximum(expected.rating - 2.5, 0))
    assert interactions.as_of == raw.timestamp.max() + 1


def test_matrices_do_not_disturb_the_events(tiny):
    _, _, data = tiny
    interactions = load_interactions(data)
    before = interactions.item_idx.copy()
    assert interactions.matrix.has_sorted_indices and interactions.matrix.nnz == (interactions.confidence > 0).sum()
    assert np.array_equal(interactions.item_idx, before)
    with pytest.raises(ValueError, match="read-only"):
        interactions.item_idx[0] = 1
    u, i = interactions.user_idx[7], interactions.item_idx[7]
    assert interactions.matrix[u, i] == interactions.confidence[7]


def test_leave_last_out_matches_pandas(tiny, raw, tmp_path):
    parts = split_frames(tiny, "leave-last-out", tmp_path)
    ordered = raw.sort_values(["timestamp", "row"], kind="stable")
    back = ordered.groupby("userId").cumcount(ascending=False)
    for part, chosen in (("test", ordered[back == 0]), ("validation", ordered[back == 1]), ("train", ordered[back >= 2])):
        expected = chosen.sort_values(["userId", "timestamp", "row"])[["userId", "movieId", "rating", "timestamp"]]
        pd.testing.assert_frame_equal(parts[part], expected.reset_index(drop=True), check_dtype=False)
    tied = raw.groupby("userId").timestamp.apply(lambda times: len(set(times.nlargest(2))) == 1)
    assert tied.any(), "the made-up data must have ties at the cut, or this test proves nothing"


def test_global_time_cuts_at_the_quantiles(tiny, raw, tmp_path):
    parts = split_frames(tiny, "global-time", tmp_path)
    times = np.sort(raw.timestamp.to_numpy())
    t1, t2 = (times[int(np.ceil(q * len(times))) - 1] for q in (0.8, 0.9))
    assert parts["train"].timestamp.max() < t1 <= parts["validation"].timestamp.min()
    assert parts["validation"].timestamp.max() < t2 <= parts["test"].timestamp.min()
    assert sum(map(len, parts.values())) == len(raw)


@pytest.mark.parametrize("protocol", ["leave-last-out", "global-time"])
def test_holdouts_know_only_the_past(tiny, protocol):
    settings, _, data = tiny
    split = build_split(settings, data, protocol)
    sizes = []
    for phase in ("tuning", "validation", "test"):
        holdout = load_holdout(split, phase)
        history, events = holdout.history, holdout.events
        sizes.append(len(history) + len(events))
        assert (history.timestamp[np.isin(history.user_idx, holdout.users)] <= holdout.as_of[history.user_idx][np.isin(history.user_idx, holdout.users)]).all()
        assert (events.timestamp >= holdout.as_of[events.user_idx]).all()
        if protocol == "global-time":
            assert history.timestamp.max() < events.timestamp.min() == holdout.as_of.max() >= history.as_of
        pairs = set(zip(history.user_idx.tolist(), history.item_idx.tolist(), strict=True))
        assert not pairs & set(zip(events.user_idx.tolist(), events.item_idx.tolist(), strict=True))
    rows = split.manifest["contents"]["rows"]
    assert sizes == [rows["train"], rows["train"] + rows["validation"], sum(rows.values())]


def test_relevant_is_liked_known_and_unseen(tiny):
    settings, _, data = tiny
    holdout = load_holdout(build_split(settings, data, "global-time"), "test")
    known = set(holdout.history.item_idx.tolist())
    expected = {(u, i) for u, i, c in zip(holdout.events.user_idx.tolist(), holdout.events.item_idx.tolist(), holdout.events.confidence, strict=True)
                if c > 0 and i in known}
    rows, columns = holdout.relevant.nonzero()
    assert set(zip(rows.tolist(), columns.tolist(), strict=True)) == expected
    counts = holdout.counts()
    assert counts["held_out_events"] == counts["relevant_events"] + counts["without_confidence"] + counts["item_not_in_history"] + counts["already_seen"]
    assert holdout.judged.tolist() == sorted({u for u, _ in expected})


def test_users_with_few_events(tmp_path):
    folder = write_archive(tmp_path / "archive", n_users=10, per_user=8)
    lines = (folder / "ratings.csv").read_text().splitlines()
    short = [f"9{n},{movie},4.0,{1_100_000_000 + movie}" for n in (1, 2, 3) for movie in range(1, n + 1)]
    (folder / "ratings.csv").write_text("\n".join(lines + short) + "\n")
    settings = tiny_settings(tmp_path)
    data = build_interactions(settings, ingest(settings, folder))
    split = build_split(settings, data, "leave-last-out")
    assert split.manifest["contents"]["rows"] == {"train": 10 * 6 + 1 + 2 + 1, "validation": 11, "test": 11}
    assert load_holdout(split, "tuning").users.tolist() == list(range(10)), "a user with three events has none left for tuning"


def test_too_small_for_a_split(tmp_path):
    folder = tmp_path / "archive"
    folder.mkdir()
    (folder / "movies.csv").write_text("movieId,title,genres\n1,A (1990),Drama\n2,B (1991),Drama\n")
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,4,1000000000\n1,2,4,1000000001\n")
    settings = tiny_settings(tmp_path)
    data = build_interactions(settings, ingest(settings, folder))
    for protocol in ("leave-last-out", "global-time"):
        with pytest.raises(DataError, match="too small for the"):
            build_split(settings, data, protocol)


def test_genre_matrix(tiny):
    _, _, data = tiny
    items = load_items(data)
    matrix, names = item_genre_matrix(items)
    assert names == ["Action", "Comedy", "Drama", "Horror"]
    for item in (0, 5, 119):
        assert [names[g] for g in matrix[[item]].indices] == sorted(set(items.genres[item]))


def test_export_to_a_file_is_refused(tiny, tmp_path):
    settings, _, data = tiny
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="can't be used as a folder"):
        export_split(build_split(settings, data, "global-time"), data, tmp_path / "file")
