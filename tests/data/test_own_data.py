"""Files of your own: other column names, text ids, several kinds of time, no ratings."""

import duckdb
import pytest
from helpers import tiny_settings

from movierec.config import DataError
from movierec.data.ingest import ingest
from movierec.data.interactions import build_interactions, load_interactions
from movierec.data.own_data import OwnData, parse_columns
from movierec.data.tables import query

EVENTS = "uid,movie,when,stars\nann,m1,2015-03-01T10:00:00,4.5\nbob,m2,1425204001,3\nann,m2,1425204002000,5\n"
COLUMNS = "user=uid, item=movie,time=when,rating=stars"


def read(tables, table):
    return query("SELECT * FROM t", t=tables.path / f"{table}.parquet")


def test_text_ids_and_three_kinds_of_time(tmp_path):
    (tmp_path / "mine.csv").write_text(EVENTS)
    own = OwnData(tmp_path / "mine.csv", columns=parse_columns(COLUMNS))
    tables = ingest(tiny_settings(tmp_path, dataset="mine"), own)
    assert read(tables, "ratings")[["userId", "movieId", "rating", "timestamp"]].to_numpy().tolist() == [
        ["ann", "m1", 4.5, 1425204000], ["ann", "m2", 5.0, 1425204002], ["bob", "m2", 3.0, 1425204001]]
    assert read(tables, "movies")[["movieId", "title"]].to_numpy().tolist() == [["m1", "m1"], ["m2", "m2"]]


def test_parquet_without_ratings(tmp_path):
    with duckdb.connect() as con:
        con.execute(f"""
            COPY (SELECT * FROM (VALUES (7, 10, TIMESTAMP '2020-01-01 00:00:00'),
                                        (7, 10, TIMESTAMP '2019-01-01 00:00:00'),
                                        (8, 11, TIMESTAMP '2020-01-02 00:00:00')) t(userId, movieId, timestamp))
            TO '{tmp_path}/events.parquet' (FORMAT parquet)""")
        con.execute(f"""
            COPY (SELECT 10 AS movieId, 'Heat (1995)' AS title UNION ALL SELECT 11, 'Babe')
            TO '{tmp_path}/movies.parquet' (FORMAT parquet)""")
    settings = tiny_settings(tmp_path, dataset="mine")
    tables = ingest(settings, OwnData(tmp_path / "events.parquet", tmp_path / "movies.parquet"))
    ratings = read(tables, "ratings")
    assert ratings.userId.tolist() == [7, 8] and ratings.rating.isna().all()
    assert ratings.timestamp.tolist() == [1546300800, 1577923200], "a repeated event counts once, at its earliest time"
    assert read(tables, "movies")[["title", "year"]].iloc[0].tolist() == ["Heat", 1995]
    assert load_interactions(build_interactions(settings, tables)).confidence.tolist() == [1, 1]


@pytest.mark.parametrize(("text", "columns", "message"), [
    (EVENTS, "user=uid,item=movie",
     r"no column timestamp for the time: it has uid, movie, when, stars \(--columns time=NAME"),
    (EVENTS, "user=uid,item=movie,time=when,rating=score", "no column score for the rating"),
    (EVENTS, "user=uid,itm=movie", r"--columns itm=movie should be one of user=NAME.*did you mean item"),
    (EVENTS, "user", "--columns user should be"),
    (EVENTS.replace("m1,2015-03-01T10:00:00", "m1,some day"), COLUMNS,
     r"mine\.csv, line 2: timestamp is missing or no time"),
    (EVENTS.replace("3\n", "three\n"), COLUMNS, r"mine\.csv, line 3: rating is missing or no number"),
    (EVENTS.replace("bob", ""), COLUMNS, r"mine\.csv, line 3: userId is missing"),
    ("", "user=uid", "mine.csv"),
])
def test_errors_say_what_to_do(tmp_path, text, columns, message):
    (tmp_path / "mine.csv").write_text(text)
    with pytest.raises(DataError, match=message) as error:
        own = OwnData(tmp_path / "mine.csv", columns=parse_columns(columns))
        ingest(tiny_settings(tmp_path, dataset="mine"), own)
    assert "\n" not in str(error.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"no\.csv doesn't exist"):
        ingest(tiny_settings(tmp_path, dataset="mine"), OwnData(tmp_path / "no.csv"))
