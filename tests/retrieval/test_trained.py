"""Files of trained weights: what is written is read, and what doesn't fit is refused in one sentence."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import make_irregular_histories

from movierec.config import ConfigError, DataError
from movierec.retrieval.trained import (
    TrainedWeights,
    check_movies,
    content_checksum,
    fitting_weights,
    read_trained,
    write_trained,
)


def make_trained(**changes) -> TrainedWeights:
    events = content_checksum(make_irregular_histories())
    parameters = {"factors": 2, "threads": 4}
    trained = TrainedWeights({"item": np.ones((25, 2), np.float32)}, parameters, events, np.arange(25))
    return trained._replace(**changes)


@pytest.mark.parametrize("ids", [np.array([7, 30, 5]), np.array(["tt7", "tt30", "é"])])
def test_what_is_written_is_read(tmp_path, ids):
    write_trained(tmp_path / "a.npz", make_trained(movie_ids=ids))
    again = read_trained(tmp_path / "a.npz")
    assert again.movie_ids.tolist() == ids.tolist() and again.parameters == make_trained().parameters
    assert np.array_equal(again.weights["item"], np.ones((25, 2))) and again.events == make_trained().events
    assert [file.name for file in tmp_path.iterdir()] == ["a.npz"]


@pytest.mark.parametrize("change", [
    lambda file: file.write_bytes(file.read_bytes()[:200]),
    lambda file: file.write_text("movieId,title"),
    lambda file: np.savez(file, item=np.ones(3)),
    lambda file: np.savez(file, about=np.array({"a": 1}, object), movie_ids=np.arange(3)),  # a pickle
    lambda file: file.unlink(),
])
def test_other_files_are_refused(tmp_path, change):
    file = tmp_path / "a.npz"
    write_trained(file, make_trained())
    change(file)
    with pytest.raises(DataError, match=r"a.npz holds no trained weights: write it with") as error:
        read_trained(file)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("ids", "reason"), [
    (np.arange(26), "only one has movie 25"), (np.arange(25)[::-1], "in another order"), (np.arange(24), "movie 24"),
])
def test_other_movies_are_refused(ids, reason):
    check_movies(make_trained(), Path("a.npz"), np.arange(25))
    with pytest.raises(DataError, match=reason):
        check_movies(make_trained(), Path("a.npz"), ids)


def test_every_part_of_the_history_counts():
    history = make_irregular_histories()
    one = np.arange(len(history)) == 3
    others = [
        history.select(~one),
        replace(history, item_idx=np.where(one, history.item_idx + 1, history.item_idx).astype(np.int32)),
        replace(history, timestamp=history.timestamp + one),
        replace(history, rating=(history.rating + one).astype(np.float32)),
        replace(history, as_of=history.as_of + 1),
        replace(history, n_users=history.n_users + 1),
    ]
    assert len({content_checksum(each) for each in [history, *others]}) == 7


def test_what_runs_faster_elsewhere_fits_all_the_same(tmp_path):
    history, file = make_irregular_histories(), tmp_path / "a.npz"
    write_trained(file, make_trained())
    assert np.array_equal(fitting_weights(file, {"factors": 2, "threads": 1}, history)["item"], np.ones((25, 2)))
    with pytest.raises(ConfigError, match=r"a.npz was trained with factors 2, not 3"):
        fitting_weights(file, {"factors": 3, "threads": 4}, history)
