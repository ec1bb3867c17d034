"""One person's export: each format by its content, and a sentence for what can't be read for certain."""

import io
import json
import zipfile
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from movierec.config import DataError, MovierecError, NotFoundError
from movierec.data.personal import (
    PersonalRow,
    combine,
    decode_text,
    merge_viewings,
    parse_stars,
    parse_times,
    read_export,
)

RATINGS = (
    "Date,Name,Year,Letterboxd URI,Rating\n"
    "2021-01-24,Heat,1995,https://boxd.it/2aQ,4.5\n"
    '2021-01-25,"Me, Myself & Irene",2000,https://boxd.it/1,0.5\n'
    "2021-01-25,Amélie,2001,https://boxd.it/2,5\n"
)
WATCHED = (
    "Date,Name,Year,Letterboxd URI\n2021-01-23,Heat,1995,https://boxd.it/2aQ\n"
    "2021-02-01,Obscure,,https://boxd.it/9\n"
)
LIKES = "Date,Name,Year,Letterboxd URI\n2021-03-01,Heat,1995,https://boxd.it/2aQ\n"
IMDB = (
    "Const,Your Rating,Date Rated,Title,URL,Title Type,IMDb Rating,Runtime (mins),Year,Genres\n"
    'tt0113277,9,2021-01-24,Heat,https://www.imdb.com/title/tt0113277/,Movie,8.3,170,1995,"Crime, Drama"\n'
    "tt5753856,10,2021-01-25,Dark,https://www.imdb.com/title/tt5753856/,TV Series,8.7,60,2017,Crime\n"
    "tt0211915,,,Amelie,https://www.imdb.com/title/tt0211915/,Movie,8.3,122,2001,Comedy\n"
)
HEAT = {"title": "Heat", "year": 1995, "ids": {"trakt": 1, "slug": "heat-1995", "imdb": "tt0113277", "tmdb": 949}}
TRAKT = [
    {"rated_at": "2021-01-24T20:00:00.000Z", "rating": 8, "type": "movie", "movie": HEAT},
    {"watched_at": "2022-01-24T20:00:00.000Z", "action": "watch", "type": "movie", "movie": HEAT},
    {"rated_at": "2021-01-25T20:00:00.000Z", "rating": 10, "type": "show", "show": {"title": "Dark"}},
    {"watched_at": "2021-01-25T20:00:00.000Z", "type": "episode", "episode": {"title": "Secrets"}, "show": {}},
    {"listed_at": "2021-01-26T20:00:00.000Z", "type": "movie", "movie": {"title": "Alien", "year": 1979, "ids": {}}},
]
NETFLIX = (
    'Title,Date\n"Heat","1/25/24"\n"Dark: Season 1: Secrets","1/24/24"\n"The Irishman","1/24/24"\n"Roma","1/24/24"\n'
)


def day(year, month, number):
    return int(datetime(year, month, number, tzinfo=UTC).timestamp())


def zipped(**members) -> bytes: # name with __ for / and . → text
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, text in members.items():
            archive.writestr(name.replace("__", "/") + ".csv", text)
    return data.getvalue()


@pytest.fixture
def read(tmp_path):
    """A function that reads some contents as an export."""

    def read_contents(contents, name="export.dat", **options):
        file = tmp_path / name
        file.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
        return read_export(file, **options)

    return read_contents


def test_letterboxd_ratings(read):
    export = read(RATINGS)
    assert export.format == "Letterboxd CSV" and export.skipped == {} and export.notes == []
    assert export.rows == [
        PersonalRow(title="Heat", year=1995, rating=4.5, time=day(2021, 1, 24)),
        PersonalRow(title="Me, Myself & Irene", year=2000, rating=0.5, time=day(2021, 1, 25)),
        PersonalRow(title="Amélie", year=2001, rating=5.0, time=day(2021, 1, 25)),
    ]


def test_letterboxd_watched_and_diary(read):
    heat, obscure = read(WATCHED, "watched.csv").rows
    assert (heat.rating, obscure.year) == (None, None)
    diary = (
        "Date,Name,Year,Letterboxd URI,Rating,Rewatch,Tags,Watched Date\n"
        "2021-06-01,Heat,1995,https://boxd.it/x,4,,,2021-05-30\n2021-07-01,Alien,1979,https://boxd.it/y,,Yes,,\n"
    )
    assert [(row.title, row.rating, row.time) for row in read(diary).rows] == [
        ("Heat", 4.0, day(2021, 5, 30)), ("Alien", None, day(2021, 7, 1)),
    ]


@pytest.mark.parametrize("prefix", ["", "letterboxd-zoe-2021__"])
def test_letterboxd_zip(read, prefix):
    members = {"ratings": RATINGS, "watched": WATCHED, "likes__films": LIKES, "watchlist": LIKES, "deleted__diary": "?"}
    export = read(zipped(**{prefix + name: text for name, text in members.items()}), "anything.bin")
    rows = {row.title: row for row in export.rows}
    assert export.format == "Letterboxd zip (ratings.csv, watched.csv, likes/films.csv)" and len(rows) == 4
    assert rows["Heat"] == PersonalRow(title="Heat", year=1995, rating=4.5, time=day(2021, 3, 1), liked=True)
    assert not rows["Amélie"].liked and rows["Obscure"].rating is None
    assert read(zipped(watched=WATCHED)).format == "Letterboxd zip (watched.csv)"


def test_imdb(read):
    export = read(IMDB)
    heat = PersonalRow(title="Heat", year=1995, imdb_id=113277, rating=4.5, time=day(2021, 1, 24))
    assert export.rows == [heat] and export.skipped == {"series, episodes and games": 1, "not rated": 1}


def test_trakt(read):
    export = read(json.dumps(TRAKT), "no-suffix")
    (heat,) = export.rows
    assert (heat.imdb_id, heat.tmdb_id, heat.rating) == (113277, 949, 4.0)
    assert heat.time == day(2022, 1, 24) + 20 * 3600, "watched again: the latest time, and the rating stays"
    assert export.skipped == {"shows, episodes and lists": 2, "only listed, not seen": 1}


def test_netflix(read):
    export = read(NETFLIX)
    assert [row.title for row in export.rows] == ["Roma", "The Irishman", "Heat"], "newest first, the day too"
    assert export.skipped == {"episodes of series": 1} and export.rows[-1].time == day(2024, 1, 25)
    german = read(NETFLIX.replace("Title,Date", "Titel,Datum").replace("Season 1", "Staffel 1"))
    assert german.rows == export.rows


def test_a_list_of_titles(read):
    text = "Heat (1995); 4,5\n\n  The Good, the Bad and the Ugly  \n[Rec] (2007);\n12 Angry Men\n2001: A Space Odyssey"
    assert [(row.title, row.year, row.rating, row.time) for row in read(text).rows] == [
        ("Heat", 1995, 4.5, None), ("The Good, the Bad and the Ugly", None, None, None), ("[Rec]", 2007, None, None),
        ("12 Angry Men", None, None, None), ("2001: A Space Odyssey", None, None, None),
    ]
    assert len(read("Lock, Stock and Two Smoking Barrels\nDumb and Dumber\n").rows) == 2


def test_the_same_movie_is_one_row(read):
    rows = read("Heat (1995); 4\nAlien\nheat (1995)\nHEAT (1995); 3\n").rows
    assert [(row.title, row.rating) for row in rows] == [("Alien", None), ("HEAT", 3.0)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_encodings_and_separators_of_excel(read, encoding, separator):
    text = RATINGS.replace('"Me, Myself & Irene"', "Irene").replace(",", separator).replace("\n", "\r\n")
    export = read(text.encode(encoding))
    assert [row.title for row in export.rows] == ["Heat", "Irene", "Amélie"]
    assert bool(export.notes) == (encoding == "cp1252"), "an assumption is reported"


@pytest.mark.parametrize(
    ("texts", "first"),
    [
        (["1/15/24", "1/6/24"], day(2024, 1, 15)),
        (["15/1/24", "1/6/24"], day(2024, 1, 15)),
        (["15.01.2024", "01.06.2024"], day(2024, 1, 15)),
        (["5/5/24"], day(2024, 5, 5)),
        (["2024-01-15T23:00:00-02:00"], day(2024, 1, 16) + 3600),
        (["2024/1/15", ""], day(2024, 1, 15)),
    ],
)
def test_dates_in_the_order_that_all_allow(texts, first):
    times = parse_times([(f"line {n}", text) for n, text in enumerate(texts)])
    assert times[0] == first and (times[-1] is None) == (not texts[-1])


def test_ambiguous_dates_are_refused_with_both_readings():
    dates = [("a.csv, line 2", "5/5/24"), ("a.csv, line 3", "1/6/24")]
    with pytest.raises(DataError, match=r"a.csv, line 3: 1/6/24 is 01 June 2024 or 06 January 2024.*--time-format"):
        parse_times(dates)
    assert parse_times(dates, "%m/%d/%y") == [day(2024, 5, 5), day(2024, 1, 6)]
    with pytest.raises(DataError, match="line 2: 5/5/24 is not a time"):
        parse_times(dates, "%Y-%m-%d")


@pytest.mark.parametrize("text", ["31/31/24", "2024-02-30", "0202-01-01", "1/2", "1700000000", "tomorrow", "१/१/२४"])
def test_what_is_no_date(text):
    with pytest.raises(DataError, match=r"line 2: .* is not a date|line 2: "):
        parse_times([("line 2", text)])


def test_dates_of_two_orders_are_refused():
    with pytest.raises(DataError, match="line 3: 1/16/24 has the month first, but line 2: 15/1/24 has the day first"):
        parse_times([("line 2", "15/1/24"), ("line 3", "1/16/24")])


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        ("", "has no movies"),
        (NETFLIX.splitlines()[0] + '\n"Dark: Season 1: Secrets","1/24/24"', r"has no movies \(episodes of series: 1\)"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "is not a text file"),
        ("userId,movieId,rating\n1,1,4\n", "`movierec run --ratings`"),
        ("a;b;c\n1;2;3\n", "which no known service exports"),
        (RATINGS.replace("4.5", "4.5.1"), "line 2: 4.5.1 is not a rating from 0.5 to 5"),
        (RATINGS.replace("4.5", "9"), "line 2: 9 is not a rating"),
        (RATINGS.replace("2000", "20000"), "line 3: 20000 is not a year"),
        (RATINGS + "2021-01-26,Short\n", "line 5 has 2 fields, but the header has 5"),
        (RATINGS + '2021-01-26,"Open,1995,x,4\n', "line 5: broken quotation marks"),
        (RATINGS.replace("Heat", ""), "line 2 has no Name"),
        (IMDB.replace("tt0113277", "nm0113277"), "nm0113277 is not an id of IMDb"),
        (IMDB.replace(",9,", ",11,"), "line 2: 11 is not a rating from 1 to 10"),
        (json.dumps(TRAKT)[:-3], "broken JSON"),
        ('[{"name": "Heat"}]', "not a list of movies as Trakt"),
        ('{"movie": {"title": "Heat"}}', "not a list of movies as Trakt"),
        ("[{" + "[" * 100_000, "broken JSON|can't be an export"),
        ('[{"movie": {"year": 1995}, "rating": 8}]', "item 1 is a movie without a title and ids"),
        (json.dumps(TRAKT[:1]).replace('"year": 1995', '"year": "x"'), "item 1: x is not a year"),
        (json.dumps([{**TRAKT[0], "rating": 12}]), "item 1: 12 is not a rating from 1 to 10"),
        ("Heat; 4; 5\n", "line 1: a line has a title and at most one rating"),
        ("; 4\n", "line 1: a line has a title"),
        ("Heat; great\n", "line 1: great is not a rating"),
        (NETFLIX.replace("Heat", ""), "line 2 has no Title"),
        (b"PK\x03\x04 nothing", "is a damaged zip file"),
        (zipped(watchlist=LIKES), "holds watchlist.csv, not Letterboxd's ratings.csv"),
        (zipped(ratings="a,b\n1,2\n"), "ratings.csv hasn't the columns"),
        (zipped(ratings=""), "ratings.csv hasn't the columns"),
        (zipped(ratings=RATINGS)[:-40], "is a damaged zip file|can't be unpacked"),
    ],
)
def test_what_is_refused(read, contents, reason):
    with pytest.raises(DataError, match=reason) as caught:
        read(contents)
    assert "\n" not in str(caught.value) and "export.dat" in str(caught.value)


def test_a_watchlist_is_refused_by_its_name(read):
    with pytest.raises(DataError, match="movies to see, not of movies that were seen"):
        read(LIKES, "watchlist.csv")


def test_places_that_are_no_export(tmp_path):
    with pytest.raises(DataError, match="is a folder"):
        read_export(tmp_path)
    with pytest.raises(NotFoundError, match="there is no file"):
        read_export(tmp_path / "nowhere.csv")


def test_too_much_for_one_person(read, monkeypatch):
    monkeypatch.setattr("movierec.data.personal.MAX_BYTES", 1_000)
    for contents in (b"a" * 1_001, zipped(ratings=RATINGS * 10)):
        with pytest.raises(DataError, match="too large for one person"):
            read(contents)


def test_the_latest_rating_counts():
    rated, seen = PersonalRow(title="a", rating=4.0, time=10), PersonalRow(title="a", time=20, liked=True)
    both = PersonalRow(title="a", rating=4.0, time=20, liked=True)
    assert combine(rated, seen) == combine(seen, rated) == both
    first, second = PersonalRow(title="a", rating=4.0), PersonalRow(title="a", rating=2.0)
    assert combine(first, second).rating == 2 and combine(second, first).rating == 4


@given(st.lists(st.builds(
    PersonalRow, title=st.sampled_from("abc"), rating=st.sampled_from([None, 1.0, 5.0]),
    time=st.sampled_from([None, 1, 2]), liked=st.booleans(),
)))
def test_merging_again_changes_nothing(rows):
    merged = merge_viewings(rows, lambda row: row.title)
    assert merge_viewings(merged, lambda row: row.title) == merged
    times = [row.time for row in merged if row.time is not None]
    assert times == sorted(times) and {row.title for row in merged} == {row.title for row in rows}


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory, data):
    file = tmp_path_factory.mktemp("any") / "export"
    file.write_bytes(data)
    try:
        assert read_export(file).rows
    except MovierecError as error:
        assert "\n" not in str(error)


@given(st.text(max_size=20))
def test_any_rating_is_between_half_a_star_and_five_or_refused(text):
    try:
        stars = parse_stars(text, "line 1")
        assert stars is None or 0.5 <= stars <= 5
    except DataError:
        pass


def test_decoding_reports_its_assumption():
    assert decode_text("Zoë".encode(), "f") == ("Zoë", [])
    assert decode_text(b"Zo\xeb", "f") == ("Zoë", ["f isn't UTF-8: read as Windows-1252"])
