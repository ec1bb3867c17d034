"""Synthetic plays: the same bytes each time, and the habits that were asked for."""

import numpy as np
import pandas as pd
import pytest
from helpers import tiny_settings

from movierec.config import DAY, DataError
from movierec.data.ingest import ingest
from movierec.data.interactions import build_interactions
from movierec.data.own_data import OwnData
from movierec.data.synthetic_plays import ListeningHabits, draw_plays, synthesize_plays
from movierec.data.tables import query

HABITS = ListeningHabits(users=120)


def test_the_same_arguments_give_the_same_bytes(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        synthesize_plays(tmp_path / f"{name}.csv", scale=0.05, seed=seed)
    a, b, c = ((tmp_path / f"{name}.csv").read_bytes() for name in "abc")
    assert a == b and a != c


def test_tracks_of_a_session_follow_each_other():
    plays = draw_plays(HABITS, seed=1).sort_values(["user_id", "timestamp"], kind="stable")
    album, track = (plays["item_id"].str.extract(r"album-(\d+)-track-(\d+)")[part].astype(int) for part in (0, 1))
    is_next = (plays["user_id"] == plays["user_id"].shift()) & (plays["timestamp"] - plays["timestamp"].shift() == 210)
    assert is_next.mean() > 0.6
    assert ((track - track.shift()) == 1)[is_next].mean() > 0.98 and (album == album.shift())[is_next].mean() > 0.98
    assert track.between(1, HABITS.tracks).all()


def test_a_shorter_half_life_makes_songs_age_faster():
    def median_age(half_life_days: float) -> float:
        habits = ListeningHabits(users=120, half_life_days=half_life_days, again=0.0)
        plays = draw_plays(habits, seed=1)
        first = plays.groupby("item_id")["timestamp"].transform("min")
        return float((plays["timestamp"] - first).median() / DAY)

    assert median_age(2.0) < median_age(20.0)
    assert draw_plays(ListeningHabits(users=120, again=0.0)).duplicated(["user_id", "item_id"]).mean() < draw_plays(
        ListeningHabits(users=120, again=0.9)).duplicated(["user_id", "item_id"]).mean()


def test_plays_are_read_as_own_data(tmp_path):
    file = tmp_path / "plays.csv"
    counts = synthesize_plays(file, scale=0.05)
    plays = pd.read_csv(file)
    assert counts == {"plays": len(plays), "listeners": 100, "songs": plays["item_id"].nunique()}
    settings = tiny_settings(tmp_path, dataset="plays")
    data = build_interactions(settings, ingest(settings, OwnData(file)))
    events = query("SELECT * FROM events", events=data.path / "interactions.parquet")
    assert len(events) == len(plays.drop_duplicates(["user_id", "item_id"]))
    repeated = plays.groupby(["user_id", "item_id"]).size().max()
    assert np.isclose(events["confidence"].max(), 1 + np.log(repeated)), "repeats are added up"


def test_what_can_go_wrong_is_a_sentence(tmp_path):
    with pytest.raises(DataError, match=r"the scale 1\.5 should be above 0"):
        synthesize_plays(tmp_path / "plays.csv", scale=1.5)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="can't be written"):
        synthesize_plays(tmp_path / "file" / "plays.csv", scale=0.05)
