"""Every protocol is compared with a plain re-implementation in pandas."""

import numpy as np
import pandas as pd
import pytest
from helpers import tiny_settings, write_archive

from movierec.config import DataError
from movierec.data.holdout import load_holdout
from movierec.data.ingest import ingest
from movierec.data.interactions import build_interactions, load_interactions
from movierec.data.splits import PROTOCOL_RULES, build_split, export_split
from movierec.data.tables import query

COLUMNS = ["userId", "movieId", "rating", "timestamp"]


def exported(tiny, splits, protocol, folder):
    """The subsets of a split with MovieLens's ids."""
    _, _, data = tiny
    rows = export_split(splits[protocol], data, folder)
    subsets = {subset: query("SELECT * FROM t", t=folder / f"{subset}.parquet")
               for subset in PROTOCOL_RULES[protocol].subsets}
    assert rows == {subset: len(frame) for subset, frame in subsets.items()}
    return subsets


def test_leave_last_out_matches_pandas(tiny, splits, ratings, tmp_path):
    subsets = exported(tiny, splits, "leave-last-out", tmp_path)
    ordered = ratings.sort_values(["timestamp", "row"], kind="stable")
    back = ordered.groupby("userId").cumcount(ascending=False)
    for subset, is_chosen in (("test", back == 0), ("validation", back == 1), ("train", back >= 2)):
        expected = ordered[is_chosen].sort_values(["userId", "timestamp", "row"])[COLUMNS].reset_index(drop=True)
        pd.testing.assert_frame_equal(subsets[subset], expected, check_dtype=False)
    is_tied = ratings.groupby("userId").timestamp.apply(lambda times: len(set(times.nlargest(2))) == 1)
    assert is_tied.any(), "the made-up data must have ties at the cut, or this test proves nothing"


def test_global_time_cuts_at_the_quantiles(tiny, splits, ratings, tmp_path):
    subsets = exported(tiny, splits, "global-time", tmp_path)
    times = np.sort(ratings.timestamp.to_numpy())
    t1, t2 = (times[int(np.ceil(quantile * len(times))) - 1] for quantile in (0.8, 0.9))
    assert subsets["train"].timestamp.max() < t1 <= subsets["validation"].timestamp.min()
    assert subsets["validation"].timestamp.max() < t2 <= subsets["test"].timestamp.min()
    assert sum(map(len, subsets.values())) == len(ratings)


def test_random_ties_change_the_order_within_a_second_and_nothing_else(tiny, splits, tmp_path):
    _, _, data = tiny
    names = ("leave-last-out", "leave-last-out-random-ties")
    frames = [pd.concat(exported(tiny, splits, name, tmp_path / name).values()) for name in names]
    pd.testing.assert_frame_equal(*(frame.sort_values(["userId", "movieId"], ignore_index=True) for frame in frames))
    in_order, at_random = (load_holdout(splits[name], "test").events for name in names)
    assert np.array_equal(in_order.timestamp, at_random.timestamp), "the last second is the last second"
    is_moved = in_order.item_idx != at_random.item_idx
    log = load_interactions(data)
    ties = np.array([
        (log.timestamp[log.user_idx == user] == time).sum()
        for user, time in zip(in_order.user_idx, in_order.timestamp, strict=True)
    ])
    assert is_moved.any() and (ties[is_moved] > 1).all()
    expected = np.mean(1 - 1 / ties)
    assert is_moved.mean() == pytest.approx(expected, abs=0.2), "each of a second's events is as likely to be the last"
    other = build_split(tiny_settings(tmp_path, seed=7), data, names[1])
    assert not np.array_equal(load_holdout(other, "test").events.item_idx, at_random.item_idx)


def split_as_published(ratings, held_out_users, min_events=5, seed=98765):
    """Liang et al. 2018, section 4.1, step by step on a data frame in the order of user and movie."""
    liked = ratings[ratings.rating > 3.5].sort_values(["userId", "movieId"])
    liked = liked[liked.userId.map(liked.userId.value_counts()) >= min_events]
    np.random.seed(seed)  # noqa: NPY002
    order = np.random.permutation(np.sort(liked.userId.unique()))  # noqa: NPY002
    cuts = [len(order) - 2 * held_out_users, len(order) - held_out_users]
    train_users, validation_users, test_users = np.split(order, cuts)
    train = liked[liked.userId.isin(train_users)]
    subsets = {"train": train}
    for name, users in (("validation", validation_users), ("test", test_users)):
        np.random.seed(seed)  # noqa: NPY002
        fold_in, held_out = [], []
        for _, events in liked[liked.userId.isin(users) & liked.movieId.isin(train.movieId)].groupby("userId"):
            drawn = np.zeros(len(events), bool)
            if len(events) >= min_events:
                size = int(0.2 * len(events))
                drawn[np.random.choice(len(events), size=size, replace=False)] = True  # noqa: NPY002
            fold_in.append(events[~drawn])
            held_out.append(events[drawn])
        subsets |= {f"{name}_fold_in": pd.concat(fold_in), name: pd.concat(held_out)}
    return subsets, liked


def test_strong_generalization_is_that_of_the_paper(tiny, splits, ratings, tmp_path):
    subsets = exported(tiny, splits, "strong-generalization", tmp_path)
    expected, liked = split_as_published(ratings, held_out_users=8)
    for name, frame in expected.items():
        found = subsets[name].sort_values(["userId", "movieId"], ignore_index=True)
        pd.testing.assert_frame_equal(found, frame[COLUMNS].reset_index(drop=True), check_dtype=False)
    assert splits["strong-generalization"].manifest["contents"]["facts"] == {
        "liked_events": len(liked), "users": liked.userId.nunique(), "items": liked.movieId.nunique(),
        "items_of_training_users": expected["train"].movieId.nunique(), "validation_users": 8, "test_users": 8,
    }


def test_users_with_few_events(tmp_path):
    folder = write_archive(tmp_path / "archive", n_users=10, per_user=8)
    short = [f"9{n},{movie},4.0,{1_100_000_000 + movie}\n" for n in (1, 2, 3) for movie in range(1, n + 1)]
    with (folder / "ratings.csv").open("a") as file:
        file.writelines(short)
    settings = tiny_settings(tmp_path)
    data = build_interactions(settings, ingest(settings, folder))
    split = build_split(settings, data, "leave-last-out")
    assert split.manifest["contents"]["rows"] == {"train": 10 * 6 + 1 + 2 + 1, "validation": 11, "test": 11}
    users = load_holdout(split, "tuning").users.tolist()
    assert users == list(range(10)), "a user with three events has none left for tuning"


def test_too_small_for_a_split(tmp_path):
    folder = write_archive(tmp_path / "archive", n_users=1, per_user=2)
    settings = tiny_settings(tmp_path)
    data = build_interactions(settings, ingest(settings, folder))
    for protocol in PROTOCOL_RULES:
        with pytest.raises(DataError, match="too small for the"):
            build_split(settings, data, protocol)


@pytest.mark.parametrize("protocol", ["global-next", "global-next-last", "global-next-random-ties"])
def test_predicted_events_are_numbered_in_an_export(tiny, splits, protocol, tmp_path):
    _, _, data = tiny
    export_split(splits[protocol], data, tmp_path)
    test = query("SELECT * FROM t", t=tmp_path / "test.parquet")
    assert list(test.columns) == [*COLUMNS, "event"] and test["event"].tolist() == list(range(len(test)))
    assert "event" not in query("SELECT * FROM t", t=tmp_path / "train.parquet")
    events = load_holdout(splits[protocol], "test", "all").events
    movies = query("SELECT movieId FROM t ORDER BY item_idx", t=data.path / "items.parquet")["movieId"].to_numpy()
    numbered = test.set_index("event").loc[events.user_idx]
    assert numbered["movieId"].tolist() == movies[events.item_idx].tolist()


def test_protocols_that_share_a_split_share_its_files(splits):
    own, shared = splits["global-time"], splits["global-next"]
    assert own.path == shared.path and own.key == shared.key
    assert shared.manifest["contents"]["protocol"] == "global-next" != own.manifest["contents"]["protocol"]


def test_export_to_a_file_is_refused(tiny, splits, tmp_path):
    _, _, data = tiny
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="can't be used as a folder"):
        export_split(splits["global-time"], data, tmp_path / "file")
