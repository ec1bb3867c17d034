"""Frames become files that say the same: types, order of rows, missing values."""

from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import pytest

from movierec.config import DataError
from movierec.data.frames import about_frame, write_events, write_items
from movierec.data.tables import connect, query


class ArrowTable:
    """A table that is no pandas frame: it offers its columns by the Arrow interface, as pyarrow and polars do."""

    def __init__(self, frame: pd.DataFrame):
        self.frame = frame

    def __arrow_c_stream__(self, requested_schema=None):
        self.con = connect()  # kept, since the stream reads from it
        self.con.register("shown", self.frame)
        return self.con.sql("SELECT * FROM shown").__arrow_c_stream__(requested_schema)


def events(**columns) -> pd.DataFrame:
    """Three events, with other columns in the place of some."""
    return pd.DataFrame({"userId": [1, 2, 3], "movieId": [7, 8, 9], "timestamp": [10**9] * 3} | columns)


def written(frame, tmp_path, columns=None) -> pd.DataFrame:
    """What is in the file that is made of a frame."""
    write_events(frame, tmp_path / "frame.parquet", columns or {})
    return query("SELECT * FROM frame", frame=tmp_path / "frame.parquet")


@pytest.mark.parametrize(("ids", "texts"), [
    ([1, 2, 3], ["1", "2", "3"]),
    (np.array([1, 2, 255], np.uint8), ["1", "2", "255"]),
    ([1.0, None, 3.0], ["1", None, "3"]),
    ([1.0, 2.5, np.inf], ["1", "2.5", None]),
    (np.array([1, 2, 3], np.float32), ["1", "2", "3"]),
    ([2**53 + 1, 2, 3], ["9007199254740993", "2", "3"]),
    (["007", "b", None], ["007", "b", None]),
    (pd.Categorical(["b", "a", "b"]), ["b", "a", "b"]),
    (pd.array([1, None, 3], "Int64"), ["1", None, "3"]),
    (pd.Series([1, "x", None], dtype=object), ["1", "x", None]),
])
def test_ids_are_what_a_person_would_call_them(tmp_path, ids, texts):
    for name in ("userId", "movieId"):
        found = written(events(**{name: ids}), tmp_path)[name]
        assert [None if pd.isna(text) else text for text in found] == texts


def test_a_type_is_not_decided_by_a_sample(tmp_path):
    """A text among 50,000 numbers, where a sample would miss it."""
    ids = pd.Series(range(50_000), dtype=object)
    ids[43_210] = "last"
    frame = pd.DataFrame({"userId": ids, "movieId": 1, "timestamp": 10**9})
    assert written(frame, tmp_path)["userId"].tolist()[43_209:43_212] == ["43209", "last", "43211"]


NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize("times", [
    [NOON] * 3,
    [NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))] * 3,
    pd.to_datetime(["2024-05-01 08:00"] * 3).tz_localize("America/New_York"),
    pd.to_datetime(["2024-05-01 14:00"] * 3).tz_localize("Europe/Berlin").astype("datetime64[ns, Europe/Berlin]"),
])
def test_a_time_with_a_zone_is_a_moment(tmp_path, times):
    found = written(events(timestamp=times), tmp_path)["timestamp"]
    assert [moment.timestamp() for moment in found] == [NOON.timestamp()] * 3


@pytest.mark.parametrize("times", [
    pd.to_datetime(["2024-05-01 12:00:00.5"] * 3).astype("datetime64[ns]"),
    pd.to_datetime(["2024-05-01 12:00:00.5"] * 3).astype("datetime64[s]") + pd.Timedelta(milliseconds=500),
    [datetime(2024, 5, 1, 12, 0, 0, 500_000)] * 3,
])
def test_a_time_without_a_zone_stays_one(tmp_path, times):
    found = written(events(timestamp=times), tmp_path)["timestamp"].tolist()
    assert found == [pd.Timestamp("2024-05-01 12:00:00.5")] * 3
    days = written(events(timestamp=[date(2024, 5, 1)] * 3), tmp_path)["timestamp"]
    assert days.tolist() == [pd.Timestamp("2024-05-01")] * 3


def test_texts_and_numbers_as_times_are_left_to_the_reader_of_files(tmp_path):
    times = ["2024-05-01T12:00:00+02:00", "1714557600", None]
    assert written(events(timestamp=times), tmp_path)["timestamp"].tolist()[:2] == times[:2]
    assert written(events(timestamp=[1_714_557_600] * 3), tmp_path)["timestamp"].tolist() == [1_714_557_600] * 3


def test_arrow_tables_are_written_like_pandas_frames(tmp_path):
    frame = events(timestamp=[NOON] * 3, rating=[1.5, None, 5])
    from_arrow = written(ArrowTable(frame), tmp_path)
    pd.testing.assert_frame_equal(from_arrow, written(frame, tmp_path))
    with pytest.raises(DataError, match=r"the frame has no column who for the user: it has userId, movieId"):
        write_events(ArrowTable(frame), tmp_path / "x.parquet", {"user": "who"})


def test_pyarrow_tables_are_written_like_pandas_frames(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow isn't installed: make bench installs it")
    frame = events(timestamp=[NOON] * 3)
    pd.testing.assert_frame_equal(written(pyarrow.Table.from_pandas(frame), tmp_path), written(frame, tmp_path))


def test_rows_keep_their_order_whatever_the_index_is(tmp_path):
    frame = pd.DataFrame({"userId": range(300_000), "movieId": 1, "timestamp": 10**9})
    shuffled = frame.sample(frac=1, random_state=1)
    assert written(shuffled, tmp_path)["userId"].tolist() == shuffled["userId"].astype(str).tolist()


def test_columns_without_a_role_are_left_out(tmp_path):
    """Also those that no file could hold."""
    frame = events(period=pd.period_range("2024-01", periods=3, freq="M"), junk=[{"a": 1}, [2], object()])
    assert written(frame, tmp_path).columns.tolist() == ["userId", "movieId", "timestamp"]


def test_columns_may_be_numbered(tmp_path):
    frame = pd.DataFrame([[1, 2, 10**9]])
    columns = {"user": "0", "item": "1", "time": "2"}
    assert written(frame, tmp_path, columns).to_dict("list") == {"0": ["1"], "1": ["2"], "2": [10**9]}


@pytest.mark.parametrize(("frame", "columns", "message"), [
    ([1, 2], {}, "the frame is a list, which is no table: pandas data frames and Arrow tables can be read"),
    (None, {}, "the frame is a NoneType"),
    (pd.DataFrame({"userid": [1]}), {}, "no column movieId for the item: it has userid"),
    (pd.DataFrame({"userId": [1]}), {}, r"no column movieId for the item.*it has userId \(item=NAME says which\)"),
    (events(), {"rating": "stars"}, "no column stars for the rating"),
    (events(), {"time": "when"}, "no column when for the time"),
    (events()[["userId", "movieId", "userId"]], {}, "the frame has two columns named userId: rename one"),
    (events(timestamp=pd.period_range("2024-01", periods=3, freq="M")), {}, "can't be read: .*period"),
    (events(timestamp=pd.Series([NOON, datetime(2024, 5, 1), None], dtype=object)), {}, "the frame can't be read"),
])
def test_what_is_no_frame_of_events_is_a_sentence(tmp_path, frame, columns, message):
    with pytest.raises(DataError, match=message):
        write_events(frame, tmp_path / "frame.parquet", columns)
    assert list(tmp_path.iterdir()) == []


def test_genres_may_be_lists(tmp_path):
    items = pd.DataFrame({"film": [1, 2, 3], "title": ["A", "B", "C"], "genres": [["Drama", "War"], [], None]})
    write_items(items, tmp_path / "items.parquet", "film")
    found = query("SELECT * FROM items", items=tmp_path / "items.parquet")
    assert found["film"].tolist() == ["1", "2", "3"]
    assert [list(genres) for genres in found["genres"][:2]] == [["Drama", "War"], []]


def test_items_need_an_id_and_a_title(tmp_path):
    with pytest.raises(DataError, match="items has no column title: it needs film and title, and has film"):
        write_items(pd.DataFrame({"film": [1]}), tmp_path / "items.parquet", "film")
    assert list(tmp_path.iterdir()) == []


def test_messages_about_the_files_become_messages_about_the_frame():
    assert about_frame("frame.parquet, row 1: x; items.parquet, row 12: y; and 3 more") == (
        "the frame, row 0 (from 0): x; items, row 11 (from 0): y; and 3 more")
    assert about_frame("frame.parquet has no column t (--columns time=NAME says which)") == (
        "the frame has no column t (time=NAME says which)")
