"""Indices, confidence and splits, compared with plain re-implementations in pandas."""

import numpy as np
import pandas as pd
import pytest
from helpers import tiny_settings, write_archive

from movierec.config import DataError
from movierec.data.holdout import Holdout, load_holdout
from movierec.data.ingest import ingest
from movierec.data.interactions import (
    Interactions,
    build_interactions,
    item_genre_matrix,
    load_interactions,
    load_items,
    load_users,
)
from movierec.data.splits import PROTOCOL_CLASSES, assign_users, build_split, export_split
from movierec.data.tables import query


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
    return {part: query("SELECT * FROM t", t=folder / f"{part}.parquet") for part in PROTOCOL_CLASSES[protocol].subsets}


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
    assert holdout.evaluated_users.tolist() == sorted({u for u, _ in expected})


def test_every_held_out_event_counts_if_asked(tiny):
    settings, _, data = tiny
    split = build_split(settings, data, "leave-last-out")
    liked, every = load_holdout(split, "test"), load_holdout(split, "test", "all")
    assert len(every.evaluated_users) == every.relevant.nnz == len(every.events) > liked.relevant.nnz
    assert every.counts()["without_confidence"] == 0 and every.counts()["relevant_events"] == len(every.events)
    assert (liked.relevant - liked.relevant.multiply(every.relevant)).nnz == 0


def test_random_ties_change_the_order_within_a_second_and_nothing_else(tiny, tmp_path):
    settings, _, data = tiny
    frames = {name: pd.concat(split_frames(tiny, name, tmp_path / name).values()) for name in ("leave-last-out", "leave-last-out-random-ties")}
    same = [frame.sort_values(["userId", "movieId"], ignore_index=True) for frame in frames.values()]
    pd.testing.assert_frame_equal(*same)
    tests = [load_holdout(build_split(settings, data, name), "test") for name in frames]
    assert np.array_equal(tests[0].events.timestamp, tests[1].events.timestamp), "the last second is the last second"
    moved = tests[0].events.item_idx != tests[1].events.item_idx
    last = load_interactions(data)
    ties = np.array([(last.timestamp[last.user_idx == user] == moment).sum() for user, moment in zip(tests[0].events.user_idx, tests[0].events.timestamp, strict=True)])
    assert moved.any() and (ties[moved] > 1).all()
    assert moved.mean() == pytest.approx(np.mean(1 - 1 / ties), abs=0.2), "each of a second's events is as likely to be the last"
    assert np.array_equal(load_holdout(build_split(settings, data, "leave-last-out-random-ties"), "test").events.item_idx, tests[1].events.item_idx)
    other = build_split(settings.model_copy(update={"seed": 7}), data, "leave-last-out-random-ties")
    assert not np.array_equal(load_holdout(other, "test").events.item_idx, tests[1].events.item_idx)


def as_the_paper_says(raw, held_out_users, least=5, seed=98765):
    """Liang et al. 2018, section 4.1, step by step on a data frame in the order of user and film."""
    liked = raw[raw.rating > 3.5].sort_values(["userId", "movieId"])
    liked = liked[liked.userId.map(liked.userId.value_counts()) >= least]
    np.random.seed(seed)  # noqa: NPY002
    order = np.random.permutation(np.sort(liked.userId.unique()))  # noqa: NPY002
    train_users, validation_users, test_users = np.split(order, [len(order) - 2 * held_out_users, len(order) - held_out_users])
    train = liked[liked.userId.isin(train_users)]
    parts = {"train": train}
    for name, users in (("validation", validation_users), ("test", test_users)):
        np.random.seed(seed)  # noqa: NPY002
        given, hidden = [], []
        for _, events in liked[liked.userId.isin(users) & liked.movieId.isin(train.movieId)].groupby("userId"):
            drawn = np.zeros(len(events), bool)
            if len(events) >= 5:
                drawn[np.random.choice(len(events), size=int(0.2 * len(events)), replace=False)] = True  # noqa: NPY002
            given.append(events[~drawn])
            hidden.append(events[drawn])
        parts |= {f"{name}_fold_in": pd.concat(given), name: pd.concat(hidden)}
    return parts, liked


def test_strong_generalization_is_the_papers(tiny, raw, tmp_path):
    settings, _, data = tiny
    parts = split_frames(tiny, "strong-generalization", tmp_path)
    expected, liked = as_the_paper_says(raw, 8)
    for name, frame in expected.items():
        got = parts[name].sort_values(["userId", "movieId"], ignore_index=True)
        pd.testing.assert_frame_equal(got, frame[["userId", "movieId", "rating", "timestamp"]].reset_index(drop=True), check_dtype=False)
    facts = build_split(settings, data, "strong-generalization").manifest["contents"]["facts"]
    assert facts == {"liked_events": len(liked), "users": liked.userId.nunique(), "items": liked.movieId.nunique(), "items_of_training_users": expected["train"].movieId.nunique(),
                     "validation_users": 8, "test_users": 8}


def test_strong_generalization_holds_out_ten_thousand_of_many():
    roles = assign_users(136_677, 98_765)
    assert np.bincount(roles).tolist() == [116_677, 10_000, 0, 10_000]
    assert np.bincount(assign_users(605, 98_765)).tolist() == [485, 60, 0, 60]


def test_users_held_out_are_guests(tiny):
    settings, _, data = tiny
    split = build_split(settings, data, "strong-generalization")
    for phase in ("validation", "test"):
        holdout = load_holdout(split, phase)
        assert not np.isin(holdout.users, holdout.population.user_idx).any() and np.isin(holdout.users, holdout.history.user_idx).all()
        assert np.array_equal(holdout.history.item_counts, np.bincount(holdout.population.item_idx, minlength=120))
        assert holdout.relevant.nnz == len(holdout.events)


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
    for protocol in PROTOCOL_CLASSES:
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


@pytest.mark.parametrize(("history", "events", "relevant"), [
    ([(0, 1), (0, 1), (0, 2), (2, 0)], [(0, 1), (1, 1), (2, 3)], [(1, 1)]),  # seen, more than once; new; of a film nobody had met
    ([(0, 1)], [], []), ([], [(0, 1)], []), ([], [], [])])
def test_what_was_seen_or_met_by_nobody_is_not_relevant(history, events, relevant):
    """Also where there is no history, or nothing held out."""
    def interactions(pairs):
        n, pairs = len(pairs), np.array(pairs, np.int32).reshape(-1, 2)
        return Interactions(pairs[:, 0], pairs[:, 1], np.ones(n, np.float32), np.ones(n, np.float32), np.arange(n), 3, 4, 99)

    holdout = Holdout("test", interactions(history), interactions(events), np.zeros(3, np.int64))
    assert list(zip(*(place.tolist() for place in holdout.relevant.nonzero()), strict=True)) == relevant
    assert holdout.evaluated_users.tolist() == sorted({user for user, _ in relevant})
