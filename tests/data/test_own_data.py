"""Files of your own: what comes out is what went in, or one sentence says why not."""

import gzip
import io
import json
import zipfile
from datetime import UTC, datetime, timedelta

import duckdb
import numpy as np
import pandas as pd
import pytest
import zstandard
from helpers import tiny_settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from movierec.config import DataError
from movierec.data.columns import parse_columns
from movierec.data.ingest import ingest
from movierec.data.interactions import build_interactions, load_interactions
from movierec.data.own_data import OwnData
from movierec.data.tables import query

USUAL = "userId,movieId,rating,timestamp\n"
EVENTS = "uid,movie,when,stars\nann,m1,2015-03-01T10:00:00,4.5\nbob,m2,1425204001,3\nann,m2,1425204002000,5\n"
COLUMNS = "user=uid, item=movie,time=when,rating=stars"


def read(tables, table):
    return query("SELECT * FROM t", t=tables.path / f"{table}.parquet")


def ingested(folder, content, movies=None, columns=None, name="mine.csv", on_bad_rows="stop", **options):
    """The tables of a file of events and, if given, a catalogue."""
    for file, text in ((name, content), ("films.csv", movies)):
        if text is not None:
            (folder / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    catalogue = None if movies is None else folder / "films.csv"
    own = OwnData(folder / name, catalogue, parse_columns(columns), **options)
    return ingest(tiny_settings(folder, dataset="mine", on_bad_rows=on_bad_rows), own)


def ratings_of(tables):
    """Users, items, ratings and times in the order of each user's events."""
    found = query('SELECT * FROM t ORDER BY userId, timestamp, "row"', t=tables.path / "ratings.parquet")
    return [tuple(row) for row in found[["userId", "movieId", "rating", "timestamp"]].itertuples(index=False)]


def test_text_ids_and_three_kinds_of_time(tmp_path):
    tables = ingested(tmp_path, EVENTS, columns=COLUMNS)
    assert ratings_of(tables) == [
        ("ann", "m1", 4.5, 1425204000), ("ann", "m2", 5.0, 1425204002), ("bob", "m2", 3.0, 1425204001)]
    assert read(tables, "movies")[["movieId", "title"]].to_numpy().tolist() == [["m1", "m1"], ["m2", "m2"]]


@pytest.mark.parametrize(("text", "columns", "message"), [
    (EVENTS, "user=uid,item=film,time=when", r"no column film for the item: it has uid, movie, when, stars"),
    (EVENTS, "user=uid,item=movi,time=when", r"did you mean movie\?"),
    (EVENTS, "user=uid,item=movie,time=when,rating=score", "no column score for the rating"),
    (EVENTS, "user=uid,itm=movie", r"--columns itm=movie should be one of user=NAME.*did you mean item"),
    (EVENTS, "user", "--columns user should be"),
    (EVENTS.replace("uid", "who"), "item=movie", r"no column userId for the user: it has who"),
    (EVENTS.replace("m1,2015-03-01T10:00:00", "m1,some day"), COLUMNS,
     r'mine\.csv, line 2: when is "some day", which is no time that is known'),
    (EVENTS.replace("2015", "1915"), COLUMNS, r"line 2: when is 1915-03-01T10:00:00, not a time from 1990"),
    (EVENTS.replace("3\n", "three\n"), COLUMNS, r'mine\.csv, line 3: stars is "three", not a number'),
    (EVENTS.replace("4.5\n", "NaN\n").replace(",3\n", ",3.5\n"), COLUMNS, r"line 2: stars is missing"),
    (EVENTS.replace("bob", ""), COLUMNS, r"mine\.csv, line 3: uid is missing"),
    (EVENTS.replace("bob", "NULL"), COLUMNS, r"mine\.csv, line 3: uid is missing \(NULL\)"),
    (EVENTS.replace("bob,", '"bob\nby,",'), COLUMNS, None),
    (EVENTS.replace("bob", '"two\nlines"').replace("ann,m2", ",m2"), COLUMNS, "line 5: uid is missing"),
    ("", "user=uid", "mine.csv is empty"),
    ("ann\nbob\n", None, r"no column userId|no header"),
])
def test_errors_say_what_to_do(tmp_path, text, columns, message):
    if message is None:
        assert len(ratings_of(ingested(tmp_path, text, columns=columns))) == 3
        return
    with pytest.raises(DataError, match=message) as error:
        ingested(tmp_path, text, columns=columns)
    assert "\n" not in str(error.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"no\.csv doesn't exist"):
        ingest(tiny_settings(tmp_path, dataset="mine"), OwnData(tmp_path / "no.csv"))


# times


@pytest.mark.parametrize(("text", "seconds"), [
    ("2020-11-22T16:17:40-08:00", 1606090660), ("2020-11-22 16:17:40-0800", 1606090660),
    ("2020-11-22T16:17:40 -08", 1606090660), ("2020-11-22T16:17:40.5z", 1606061860),
    ("2020-11-22 16:17:40 America/New_York", 1606079860), ("2020-11-22T16:17:40+01:00[Europe/Berlin]", 1606058260),
    ("2020-11-22 16:17:40 UTC", 1606061860), ("2020-11-22 16:17:40", 1606058260), ("2020-11-22", 1605999600),
    ("1606061860", 1606061860), ("1606061860123456789", 1606061860), ("1.60606186e9", 1606061860),
])
def test_every_form_of_time_is_the_instant_it_names(tmp_path, text, seconds):
    tables = ingested(tmp_path, f"userId,movieId,timestamp\n1,2,{text}\n1,3,1606061999\n", timezone="Europe/Berlin")
    assert sorted(read(tables, "ratings").timestamp) == sorted([seconds, 1606061999])


@pytest.mark.parametrize("text", [
    "2020-11-22 16:17:40 Foo/Bar", "2020-11-22T16:17:40+99:00", "2020-13-01", "yesterday"])
def test_times_that_name_no_instant_are_refused(tmp_path, text):
    with pytest.raises(DataError, match=r"line 2: timestamp is \"2020-1|line 2: timestamp is \"yesterday"):
        ingested(tmp_path, f"userId,movieId,timestamp\n1,2,{text}\n")


def test_an_unknown_zone_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"no time zone Europe/Berlim \(did you mean Europe/Berlin"):
        ingested(tmp_path, USUAL + "1,2,4.5,2020-01-01\n", timezone="Europe/Berlim")


@pytest.mark.parametrize("kind", ["seconds", "ms", "us", "ns", "iso", "parquet ns", "parquet zone", "json"])
def test_events_within_a_second_are_ordered_by_their_exact_time(tmp_path, kind):
    """Newest first in the file, a few microseconds apart: the last event is the first row."""
    times = [1_600_000_000_000_000_000 + 1_000 * step for step in range(20)]
    rows = [(1, item, nanos) for item, nanos in enumerate(times)][::-1]
    if kind.startswith("parquet"):
        log = pd.DataFrame(rows, columns=["userId", "movieId", "timestamp"])
        log["timestamp"] = pd.to_datetime(log["timestamp"], utc=kind == "parquet zone")
        with duckdb.connect() as con:
            exact = "timestamp" if kind == "parquet zone" else "CAST(timestamp AS TIMESTAMP_NS)"
            con.register("log", log)
            con.execute(f"COPY (SELECT userId, movieId, {exact} AS timestamp FROM log) "
                        f"TO '{tmp_path}/mine.csv' (FORMAT parquet)")
        content = (tmp_path / "mine.csv").read_bytes()
    else:
        shown = {
            "seconds": lambda nanos: f"{nanos // 10**9}.{nanos % 10**9:09}",
            "ms": lambda nanos: f"{nanos // 10**6}.{nanos % 10**6:06}",
            "us": lambda nanos: nanos // 1_000,
            "ns": lambda nanos: nanos,
            "json": lambda nanos: nanos,
            "iso": lambda nanos: f"2020-09-13T12:26:40.{nanos % 10**9:09}Z",
        }[kind]
        content = "userId,movieId,timestamp\n" + "".join(f"{u},{i},{shown(t)}\n" for u, i, t in rows)
        if kind == "json":
            keys = ("userId", "movieId", "timestamp")
            content = "".join(json.dumps(dict(zip(keys, row, strict=True))) + "\n" for row in rows)
    tables = ingested(tmp_path, content)
    assert [item for _, item, _, _ in ratings_of(tables)] == list(range(20))


def test_dates_of_a_country_need_a_row_that_tells_the_order(tmp_path):
    day_first = ingested(tmp_path, "userId,movieId,date\n1,2,1.2.2020\n1,3,31.1.2020\n")
    assert [row[1] for row in ratings_of(day_first)] == [3, 2]
    both = "userId,movieId,date\n1,2,1/2/20\n1,3,3/4/20\n"
    with pytest.raises(DataError, match=r"1/2/20 could be day/month/year or month/day/year .*: say --time-format"):
        ingested(tmp_path, both)
    assert ratings_of(ingested(tmp_path, both, time_format="%m/%d/%y"))[0][3] == 1577923200
    with pytest.raises(DataError, match="day/month/year in some rows and month/day/year in others"):
        ingested(tmp_path, "userId,movieId,date\n1,2,1/31/20\n1,3,31/1/20\n")
    with pytest.raises(DataError, match=r"--time-format %Q"):
        ingested(tmp_path, both, time_format="%Q")


def test_without_times_or_with_one_for_all(tmp_path):
    none = ingested(tmp_path, "userId,movieId\n1,2\n1,3\n2,2\n")
    assert none.manifest["contents"]["times"] == "none"
    constant = ingested(tmp_path, USUAL + "1,2,4.5,1600000000\n1,3,3,1600000000\n")
    assert constant.manifest["contents"]["times"] == "constant"
    assert any("all times are the same" in line for line in constant.manifest["contents"]["understood"])


# ids


def test_ids_are_cleaned_of_what_is_not_part_of_them(tmp_path):
    floats = ingested(tmp_path, "userId,movieId,timestamp\n 1.0,29.0,1600000000\n2.0 ,30,1600000001\n",
                      movies="movieId,title\n29,A\n30.0,B\n")
    assert [row[:2] for row in ratings_of(floats)] == [(1, 29), (2, 30)]
    mixed = ingested(tmp_path, "userId,movieId,timestamp\n1,7.5,1600000000\n2,7.0,1600000001\n")
    assert sorted(read(mixed, "ratings").movieId) == ["7.0", "7.5"]
    zeros = ingested(tmp_path, "userId,movieId,timestamp\n007,9007199254740993,1600000000\n7,1,1600000001\n")
    assert [row[:2] for row in ratings_of(zeros)] == [("007", "9007199254740993"), ("7", "1")]


def test_a_shifted_row_of_a_catalogue_is_bad(tmp_path):
    events = "userId,movieId,timestamp\n1,1,1600000000\n2,2,1600000001\n"
    films = 'movieId,title\n1,"A\nB"\n2,C\n2005-11-01,-\n'
    with pytest.raises(DataError, match=r"films\.csv, line 5: movieId is 2005-11-01, a date among whole numbers"):
        ingested(tmp_path, events, films)
    tables = ingested(tmp_path, events, films, on_bad_rows="quarantine")
    assert read(tables, "movies").movieId.tolist() == [1, 2] and tables.manifest["contents"]["rejected"] == 1


# repeats


@pytest.mark.parametrize("order", [1, -1])
def test_the_latest_rating_wins(tmp_path, order):
    rows = ["1,10,2,1600000000", "1,11,3,1600000001", "1,10,5,1600000002", "2,10,4,1600000003"][::order]
    tables = ingested(tmp_path, USUAL + "\n".join(rows) + "\n")
    assert ratings_of(tables) == [(1, 11, 3.0, 1600000001), (1, 10, 5.0, 1600000002), (2, 10, 4.0, 1600000003)]
    assert tables.manifest["contents"]["merged"] == 1


def test_repeated_plays_add_up(tmp_path):
    log = "userId,movieId,timestamp\n" + "1,10,1600000005\n1,10,1600000002\n1,10,1600000009\n1,11,1600000003\n"
    tables = ingested(tmp_path, log)
    found = read(tables, "ratings").sort_values("movieId")
    assert found.event_count.tolist() == [3, 1] and found.timestamp.tolist() == [1600000002, 1600000003]
    events = load_interactions(build_interactions(tiny_settings(tmp_path, dataset="mine"), tables))
    assert sorted(events.confidence.tolist()) == pytest.approx([1, 1 + np.log(3)])
    assert any("2 repeats were added up" in line for line in tables.manifest["contents"]["understood"])


# ratings


@pytest.mark.parametrize(("values", "stars"), [
    ((2, 4, 10), [1, 2, 5]), ((20, 60, 100), [1, 3, 5]), ((-1, 1, 1), [0.5, 5, 5]), ((0, 1, 0), [0.5, 5, 0.5]),
    (("true", "false", "true"), [5, 0.5, 5]), (("4,5", "3,0", "1"), [4.5, 3, 1]), (("4/5", "1/5", "5/5"), [4, 1, 5]),
    ((0, 7, 8, 10), [None, 3.5, 4, 5]), ((1, 1, 1), [None] * 3), ((1, 1, 2, 300), [None] * 4),
    ((0.5, 4, 5), [0.5, 4, 5]),
])
def test_scales_become_stars(tmp_path, values, stars):
    rows = "".join(f"1;{item};{value};{1600000000 + item}\n" for item, value in enumerate(values))
    tables = ingested(tmp_path, USUAL.replace(",", ";") + rows)
    found = read(tables, "ratings").sort_values("movieId").rating
    assert [None if value != value else value for value in found.tolist()] == stars


def test_counts_grow_confidence_with_their_logarithm(tmp_path):
    tables = ingested(tmp_path, USUAL + "1,1,1,1600000000\n1,2,250,1600000001\n1,3,2,1600000002\n")
    events = load_interactions(build_interactions(tiny_settings(tmp_path, dataset="mine"), tables))
    assert sorted(events.confidence.tolist()) == pytest.approx([1, 1 + np.log(2), 1 + np.log(250)])


@pytest.mark.parametrize(("values", "message"), [
    ((4, 5, 4), "they could be thumbs .* or stars"), ((1, 20, 14), "no scale that is known: say --rating-scale"),
    ((1, 1, 1, 1, 3, 2), "they could be stars .* or counts"),
])
def test_what_fits_two_scales_or_none_is_refused(tmp_path, values, message):
    rows = "".join(f"1,{item},{value},{1600000000 + item}\n" for item, value in enumerate(values))
    with pytest.raises(DataError, match=message):
        ingested(tmp_path, USUAL + rows)
    assert len(ratings_of(ingested(tmp_path, USUAL + rows, implicit=True))) == len(values)
    scale = "counts" if len(values) > 3 else f"{min(values)}:{max(values)}"
    assert len(ratings_of(ingested(tmp_path, USUAL + rows, rating_scale=scale))) == len(values)


def test_a_wrong_value_among_many_is_a_bad_row(tmp_path):
    rows = "".join(f"{n},1,{1 + n % 5},1600000000\n" for n in range(150))
    for value in (9, 55, -1):
        with pytest.raises(DataError, match=f"line 152: rating is {value}, not between 0.5 and 5"):
            ingested(tmp_path, USUAL + rows + f"200,1,{value},1600000001\n")


def test_a_given_scale_bounds_the_ratings(tmp_path):
    with pytest.raises(DataError, match="line 3: rating is 11, not between 1 and 10"):
        ingested(tmp_path, USUAL + "1,1,10,1600000000\n1,2,11,1600000001\n", rating_scale="1:10")
    with pytest.raises(DataError, match="--rating-scale 10 should be LOW:HIGH"):
        ingested(tmp_path, USUAL + "1,1,10,1600000000\n", rating_scale="10")


def test_nothing_liked_is_said_before_anything_is_fitted(tmp_path):
    tables = ingested(tmp_path, USUAL + "1,1,1,1600000000\n1,2,2.5,1600000001\n2,1,1.5,1600000002\n")
    with pytest.raises(DataError, match=r"every rating of mine is at or below neutral_rating = 2\.5"):
        build_interactions(tiny_settings(tmp_path, dataset="mine"), tables)


# bad rows


def test_missing_ratings_and_unknown_movies_are_counted(tmp_path):
    rows = USUAL + "1,1,4.5,1600000000\n1,2,,1600000001\n2,9,3,1600000002\n2,8,5,1600000003\n2,2,NULL,1600000004\n"
    films = "movieId,title\n1,A\n2,B\n"
    with pytest.raises(DataError, match=(
            r"mine\.csv, line 3: rating is missing \(2 of 5 rows are like this\); mine\.csv, line 4: movie 9 is not in "
            r"films\.csv \(2 of 5 rows are like this\)\. --on-bad-rows quarantine sets such rows aside, --implicit")):
        ingested(tmp_path, rows, films)
    contents = ingested(tmp_path, rows, films, on_bad_rows="quarantine").manifest["contents"]
    assert contents["rejected"] == 4 and contents["rows"]["ratings"] == 1
    assert contents["reasons"] == {"mine.csv: rating is missing": 2, "mine.csv: a movie is not in films.csv": 2}
    assert "4 rows were set aside in" in contents["understood"][-1]


# formats


def test_recbole_files(tmp_path):
    inter = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n" \
            "u1\ti1\t4.5\t1600000000\nu1\ti2\t3\t1600000001\n"
    items = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n" \
            "i1\tToy Story\t1995\tAnimation Children's\ni2\tHeat\t1996\t\n"
    tables = ingested(tmp_path, inter, items, name="mine.inter")
    movies = read(tables, "movies")
    assert movies.title.tolist() == ["Toy Story", "Heat"] and movies.year.tolist() == [1995, 1996]
    assert [list(genres) for genres in movies.genres] == [["Animation", "Children's"], []]


def test_files_without_a_header(tmp_path):
    rows = "196\t242\t3\t881250949\n186\t302\t4.5\t891717742\n"
    assert ratings_of(ingested(tmp_path, rows))[0] == (186, 302, 4.5, 891717742)
    assert ratings_of(ingested(tmp_path, "1::7::3::978300760\n2::8::4.5::978300761\n"))[0][:3] == (1, 7, 3.0)
    with pytest.raises(DataError, match="has no header, and its 5 columns"):
        ingested(tmp_path, "1,2,3,4,5\n1,2,3,4,5\n")
    given = ingested(tmp_path, "978300760,7,1\n978300761,8,2\n", columns="time=1,item=2,user=3")
    assert [row[:2] for row in ratings_of(given)] == [(1, 7), (2, 8)]


@pytest.mark.parametrize("rows", [10, 21_000])
def test_quotes_count_wherever_they_begin(tmp_path, rows):
    plain = "".join(f"{n % 50},Film {n},{1600000000 + n}\n" for n in range(rows))
    quoted = f'1,"Film, the ""2nd""",{1600000000 + rows}\n2,"Film 0",{1600000001 + rows}\n'
    movies = read(ingested(tmp_path, "userId,movieId,timestamp\n" + plain + quoted), "movies")
    assert 'Film, the "2nd"' in set(movies.title) and not movies.title.str.startswith('"').any()
    assert len(movies) == rows + 1


def test_two_files_in_a_zip_are_a_question(tmp_path):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.csv", EVENTS)
        archive.writestr("b.csv", EVENTS)
    with pytest.raises(DataError, match=r"holds 2 files \(a\.csv, b\.csv\): unpack it"):
        ingested(tmp_path, packed.getvalue())


@pytest.mark.parametrize(("content", "message"), [
    (gzip.compress(EVENTS.encode())[:-9], "is damaged"), (b"PAR1" + b"x" * 50, "can't be read"),
    (b"[{\"uid\": 1}", "this isn't JSON"), (b"[1, 2]", "JSON list of objects"),
    (b"{uid: 1}\n", "no line is a JSON object"),
    ("Борис\n".encode("cp1251") * 9, "neither UTF-8 nor Western European"),
], ids=["gzip", "parquet", "json", "list", "objects", "cyrillic"])
def test_damaged_files_are_refused(tmp_path, content, message):
    with pytest.raises(DataError, match=message) as error:
        ingested(tmp_path, content)
    assert "\n" not in str(error.value)


def test_the_catalogues_own_columns_genres_and_years(tmp_path):
    films = ("ID,Original Title,title,Genre,release_date,budget\n"
             "1,x,A,\"[{'id': 18, 'name': 'Drama'}, {'id': 10, 'name': \"\"Children's\"\"}]\",1995-10-30,9\n"
             "2,y,B,[],,8\n")
    tables = ingested(tmp_path, "userId,movieId,timestamp\n1,1,1600000000\n1,2,1600000001\n", films)
    movies = read(tables, "movies")
    assert [list(genres) for genres in movies.genres] == [["Children's", "Drama"], []]
    assert movies.year.tolist()[0] == 1995 and movies.year.isna().tolist() == [False, True]
    assert any("not used: Original Title, budget" in line for line in tables.manifest["contents"]["understood"])


def test_genres_of_a_parquet_list(tmp_path):
    with duckdb.connect() as con:
        con.execute(f"COPY (SELECT 10 AS movieId, 'Heat' AS title, ['Drama', 'Crime'] AS genres) "
                    f"TO '{tmp_path}/films.csv' (FORMAT parquet)")
    films = (tmp_path / "films.csv").read_bytes()
    tables = ingested(tmp_path, "userId,movieId,timestamp\n1,10,1600000000\n", films)
    assert list(read(tables, "movies").genres[0]) == ["Crime", "Drama"]


# what people's programs write


def test_a_file_is_called_what_it_is_called(tmp_path):
    (tmp_path / "plays1.csv").write_text("userId,movieId\n9,9\n")
    tables = ingested(tmp_path, "userId,movieId\n1,1\n2,1\n", name="plays[1].csv")
    assert [row[0] for row in ratings_of(tables)] == [1, 2]


@pytest.mark.parametrize("suffix", ["csv.gz", "gz", "csv.zst"])
def test_a_suffix_decides_nothing(tmp_path, suffix):
    for content in (EVENTS.encode(), gzip.compress(EVENTS.encode()), zstandard.compress(EVENTS.encode())):
        assert len(ratings_of(ingested(tmp_path, content, columns=COLUMNS, name=f"log.{suffix}"))) == 3


@pytest.mark.parametrize(("text", "expected"), [
    (",userId,movieId,timestamp\n0,1,10,1600000000\n1,2,10,1600000001\n", 2),  # the index of a data frame
    ("userId,movieId,timestamp,\n1,10,1600000000,\n2,10,1600000001,\n", 2),
    ("userId;movieId;timestamp\n1;10;1600000000\r\n2;10;1600000001\n3;1;1600000002\n", 3),  # mixed line ends
    ("sep=;\nuserId;movieId;timestamp\n1;10;1600000000\n", 1), ("\n\nuserId,movieId\n1,10\n", 1),
    ("userId,movieId,tags\n1,10,a|b|c|d\n2,10,e|f|g|h\n3,10,i|j|k|l\n", 3),
    ("userId,movieId,rating,Rating\n1,10,4.5,1\n2,10,3,1\n", 2),
    ("userId,movieId,review\n1,10," + "x" * 150_000 + "\n", 1),
    ('userId\tmovieId\n1\t"Weird Al" Story\n2\t"A\n3\tB\n4\tC"\n', 4),  # tabs without quoting
    ("alice,heat,2020-01-01T10:00:00Z\nbob,heat,2020-01-02T10:00:00Z\n", 2),
    ('{"userId": 1, "movieId": 2, "": 3}\n', 1),
])
def test_common_oddities_are_read(tmp_path, text, expected):
    assert len(ratings_of(ingested(tmp_path, text))) == expected


@pytest.mark.parametrize(("content", "message"), [
    ("userId,movieId\nВася,Сталкер\nПетя,Зеркало\n".encode("cp1251"), "neither UTF-8 nor Western European"),
    ("userId,movieId\nŻółw,łódź\nmałpa,film\n".encode("cp1250"), "neither UTF-8 nor Western European"),
    ('{"userId": "Zoé", "movieId": "Éva"}\n'.encode() + b'{"userId": "Et\xe9", "movieId": 4}\n', "isn't valid UTF-8"),
    (b'{"userId": {"0": 1, "1": 2}, "movieId": {"0": 10}}', "a nested value"),
    (b"userId,movieId\n1,10\nuserId,movieId\n3,10\n", "line 3: the header is repeated"),
    (b"userId,movieId\n1.23457E+12,10\n", "a number that a spreadsheet has rounded"),
    (b"userId,movieId,rating\n", "mine.csv has no events: it has no rows"),
    (b"userId,movieId,rating\n1,1,4,5\n", "no row could be read; line 2: 3 fields are needed, 4 found"),
    (b'userId;movieId;when\n1;"a\nb";1600000000\n2;"c";soon\n', 'line 4: when is "soon"') ,
    (b"userId,movieId,rating\n1,1,5\n2,2,5\n3,1,\n", "line 4: rating is missing"),
    (b"userId,movieId,rating\n1,1,3.5/4\n2,1,4/5\n", "not all of one denominator"),
    (b"userId,movieId,rating\n1,1,0\n2,1,0\n", "all ratings are 0"),
    (b"userId,movieId,rating\n1,1,0.55\n2,1,0.9\n3,1,1.0\n", "stars .* or points"),
    (b"userId,movieId,rating\n1,1,2\n2,1,7\n3,1,4\n", r"points \(--rating-scale 1:7\) or points .* 1:10\)"),
    (b"userId,movieId,timestamp\n1,1,2020-07-01 12:00:00 BST\n", "no time that is known"),
    (b"userId,movieId,date\n1,1,23/11/05\n2,1,24/01/07\n", "day/month/year or year/month/day"),
    (b"BZh91AY", "of the kind bzip2"),
], ids=range(17))
def test_what_would_be_read_wrongly_is_refused(tmp_path, content, message):
    columns = "time=when" if b"when" in content else None
    with pytest.raises(DataError, match=message) as error:
        ingested(tmp_path, content, columns=columns)
    assert "\n" not in str(error.value)


def test_an_encoding_must_be_one_of_text(tmp_path):
    for encoding in ("rot13", "utf-9"):
        with pytest.raises(DataError, match=f"there is no encoding {encoding}"):
            ingested(tmp_path, EVENTS, encoding=encoding)
    named = "userId,movieId\nВася,Сталкер\n".encode("cp1251")
    assert ratings_of(ingested(tmp_path, named, encoding="cp1251"))[0][:2] == ("Вася", "Сталкер")


@pytest.mark.parametrize(("values", "stars"), [
    (("★★★½", "★★", "★★★★★"), [3.5, 2, 5]), (("4 stars", "1 star", "4.5 stars"), [4, 1, 4.5]),
    (("85%", "60%", "100 %"), [4.25, 3, 5]), (("4/5 stars", "0.5/5", "3/5"), [4, 0.5, 3]),
    (("y", "n", "y"), [5, 0.5, 5]), (('"1,234"', '"2,500"', '"3"'), [None] * 3),
])
def test_ratings_as_people_write_them(tmp_path, values, stars):
    rows = "".join(f"1,{item},{value},{1600000000 + item}\n" for item, value in enumerate(values))
    found = read(ingested(tmp_path, USUAL + rows), "ratings").sort_values("movieId").rating
    assert [None if value != value else value for value in found.tolist()] == stars


# what comes out is what went in

SCALES = {"stars": (0.5, 5, 0.5), "ten": (1, 10, 1), "hundred": (5, 100, 5)}
TIMES = {
    "seconds": lambda moment: str(int(moment.timestamp())),
    "milliseconds": lambda moment: str(int(moment.timestamp()) * 1_000),
    "iso": lambda moment: moment.isoformat(),
    "offset": lambda moment: moment.astimezone(moment.tzinfo).strftime("%Y-%m-%d %H:%M:%S+0000"),
    "dotted": lambda moment: moment.strftime("%d.%m.%Y %H:%M:%S"),
}
CONTAINERS = {
    "plain": lambda data: data, "gzip": gzip.compress, "zstd": zstandard.compress,
    "zip": lambda data: zipped(data),
}


def zipped(data: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("log.csv", data)
    return packed.getvalue()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    scale=st.sampled_from(sorted(SCALES)), encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252"]),
    delimiter=st.sampled_from([",", ";", "\t", "|"]), form=st.sampled_from(sorted(TIMES)),
    container=st.sampled_from(sorted(CONTAINERS)), seed=st.integers(0, 99), newline=st.sampled_from(["\n", "\r\n"]),
)
def test_what_comes_out_is_what_went_in(tmp_path, scale, encoding, delimiter, form, container, seed, newline):
    rng = np.random.default_rng(seed)
    low, high, step = SCALES[scale]
    points = np.append(rng.choice(np.arange(low, high + step, step), 40), [low, high, high - 2 * step])
    names = [f'Zoë, "{n}"' if n % 5 == 0 else f"Élan {n}" for n in range(len(points))]
    begin = datetime(2020, 1, 31, 12, tzinfo=UTC)
    moments = [begin + timedelta(seconds=int(second)) for second in rng.integers(0, 10**7, len(points))]
    moments[0] = begin
    log = pd.DataFrame({"user": names, "item": rng.integers(1, 9, len(points)).astype(str), "rating": points,
                        "time": [TIMES[form](moment) for moment in moments]})
    text = log.to_csv(index=False, sep=delimiter, lineterminator=newline)
    content = CONTAINERS[container](text.encode(encoding))
    tables = ingested(tmp_path, content)
    expected = sorted((row.user, int(row.item), max(row.rating * 5 / high, 0.5), int(moment.timestamp()))
                      for row, moment in zip(log.itertuples(), moments, strict=True))
    assert sorted(ratings_of(tables)) == expected
