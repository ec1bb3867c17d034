"""Archives come in whole and checked, or not at all, with one sentence about what was wrong."""

import os
import zipfile

import duckdb
import pytest
from helpers import tiny_settings, write_archive

from movierec.artifacts import paths
from movierec.config import DataError, MovierecError, NotFoundError, load_settings
from movierec.data.archive import Archive
from movierec.data.ingest import GENRES_SQL, TITLE_SQL, YEAR_SQL, ingest, table_views
from movierec.data.interactions import build_interactions, load_interactions
from movierec.data.own_data import OwnData, parse_columns
from movierec.data.tables import query
from movierec.data.warehouse import create_warehouse


def frame(folder, table):
    return query("SELECT * FROM t", t=folder / f"{table}.parquet")


def zipped(folder, target, prefix="tiny/"):
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, prefix + file.name)
    return target


def test_bundled_dataset_has_the_published_counts(tmp_path):
    tables = ingest(load_settings(data_dir=tmp_path))
    assert tables.manifest["contents"]["rows"] == {"ratings": 100_836, "users": 610, "movies": 9_742, "links": 9_742, "tags": 3_683}
    ratings = frame(tables.path, "ratings")
    assert ratings.rating.between(0.5, 5).all() and not ratings.duplicated(["userId", "movieId"]).any()
    assert (ratings.sort_values(["userId", "timestamp", "row"]).index == ratings.index).all()
    movies = frame(tables.path, "movies").set_index("movieId")
    assert (movies.title[2571], movies.year[2571]) == ("The Matrix", 1999)
    assert list(movies.genres[1]) == ["Adventure", "Animation", "Children", "Comedy", "Fantasy"]


@pytest.mark.parametrize(("raw", "title", "year"), [
    ("Matrix, The (1999)", "The Matrix", 1999),
    ("American President, The (1995)", "The American President", 1995),
    ("City of Lost Children, The (Cité des enfants perdus, La) (1995)", "The City of Lost Children (La Cité des enfants perdus)", 1995),
    ("Misérables, Les (1995)", "Les Misérables", 1995),
    ("Avventura, L' (Adventure, The) (1960)", "L'Avventura (The Adventure)", 1960),
    ("I, Robot (2004)", "I, Robot", 2004),
    ("Me, Myself & Irene (2000)", "Me, Myself & Irene", 2000),
    ("2001: A Space Odyssey (1968)", "2001: A Space Odyssey", 1968),
    ("Fawlty Towers (1975-1979)", "Fawlty Towers", 1975),
    ("Babylon 5", "Babylon 5", None),
    ("Ready Player One", "Ready Player One", None),
    ('"11\'09""01 - September 11 (2002)', '"11\'09""01 - September 11', 2002),
])
def test_titles(raw, title, year):
    with duckdb.connect() as con:
        assert con.execute(f"SELECT {TITLE_SQL}, {YEAR_SQL} FROM (SELECT $1 AS title)", [raw]).fetchone() == (title, year)


def test_genres():
    with duckdb.connect() as con:
        rows = con.execute(f"SELECT {GENRES_SQL} FROM (SELECT unnest(['B|A|B', '(no genres listed)', NULL]) AS genres)").fetchall()
    assert [row[0] for row in rows] == [["A", "B"], [], []]


def test_folder_archive_and_flat_archive_give_the_same_tables(archive, tmp_path):
    rows = []
    for source in (archive, zipped(archive, tmp_path / "nested.zip"), zipped(archive, tmp_path / "flat.zip", prefix="")):
        tables = ingest(tiny_settings(tmp_path / f"from-{source.name}"), source)
        rows.append(frame(tables.path, "ratings"))
    assert rows[0].equals(rows[1]) and rows[0].equals(rows[2]) and len(rows[0]) == 80 * 40


def test_dat_layout(tmp_path):
    folder = tmp_path / "ml-1m"
    folder.mkdir()
    (folder / "movies.dat").write_bytes('1::Misérables, Les (1995)::Drama|Musical\n2::"Quoted" Title (1990)::Comedy\n'.encode("latin-1"))
    (folder / "ratings.dat").write_text("7::1::5::978300760\n7::2::3::978300760\n9::2::1::978300761\n")
    tables = ingest(tiny_settings(tmp_path, dataset="ml-1m"), folder)
    assert frame(tables.path, "movies").title.tolist() == ["Les Misérables", '"Quoted" Title']
    assert frame(tables.path, "ratings")[["userId", "movieId", "row"]].values.tolist() == [[7, 1, 0], [7, 2, 1], [9, 2, 2]]
    assert len(frame(tables.path, "links")) == 0 and list(frame(tables.path, "links").columns) == ["movieId", "imdbId", "tmdbId"]


@pytest.mark.parametrize(("file", "text", "message"), [
    ("ratings.csv", "user,movie,rating,time\n1,1,4,1000000000\n", r"ratings\.csv, line 1: the header should be userId,movieId,rating,timestamp"),
    ("ratings.csv", "", r"ratings\.csv, line 1: the header"),
    ("ratings.csv", "userId,movieId,rating,timestamp\n", "has no usable rows"),
    ("ratings.csv", "userId,movieId,rating,timestamp\n1,1,4,1000000000\n\n1,2,6,1000000000\n", r'line 4: rating is 6, not between 0.5 and 5'),
    ("ratings.csv", "userId,movieId,rating,timestamp\n1,1,nan,1000000000\n", 'line 2: rating is nan, not between'),
    ("ratings.csv", "userId,movieId,rating,timestamp\n-1,1,4,1000000000\n", 'line 2: userId is -1, not a whole number from 0'),
    ("ratings.csv", "userId,movieId,rating,timestamp\n1,1.5,4,1000000000\n", r"line 2: movieId is 1\.5, not a whole number"),
    ("ratings.csv", "userId,movieId,rating,timestamp\n1,3000000000,4,1000000000\n", r"line 2: movieId is 3000000000, not a whole number"),
    ("ratings.csv", "userId,movieId,rating,timestamp\n1,1,4,4000000000\n", "line 2: timestamp is 4000000000, not a time from 1990 until now"),
    ("ratings.csv", 'userId,movieId,rating,timestamp\n1,1,4,"1000000000\n', "line 2: a quotation mark is not closed"),
    ("ratings.csv", "userId,movieId,rating,timestamp\n1,,4,1000000000\n", r"line 2: movieId is missing"),
    ("ratings.csv", "userId,movieId,rating,timestamp\n1,1,4,7\n", 'line 2: timestamp is 7, not a time from 1990 until now'),
    ("ratings.csv", "userId,movieId,rating,timestamp\n1,1,4\n", "line 2: 4 fields are needed, 3 found"),
    ("ratings.csv", "userId,movieId,rating,timestamp\n1,1,4,1000000000,9\n", "line 2: 4 fields are needed, 5 found"),
    ("ratings.csv", "userId,movieId,rating,timestamp\n1,1,4,1000000000\n1,1,3,1000000001\n", "line 3: user 1 rates movie 1 a second time"),
    ("ratings.csv", "userId,movieId,rating,timestamp\n1,999,4,1000000000\n", "line 2: movie 999 is not in the movies table"),
    ("movies.csv", "movieId,title,genres\n1,A (1990),Drama\n1,B (1991),Drama\n", r"movies\.csv, line 3: movie 1 appears a second time"),
    ("movies.csv", "movieId,title\n1,A\n", r"movies\.csv, line 1: the header"),
    ("links.csv", "movieId,imdbId,tmdbId\n1,0114709,x\n", r'links\.csv, line 2: tmdbId is "x", not a number'),
    ("tags.csv", "userId,movieId,tag,timestamp\n1,1,good,soon\n", r'tags\.csv, line 2: timestamp is "soon", not a number'),
])
def test_bad_files_are_named_and_leave_nothing(archive, tmp_path, file, text, message):
    (archive / file).write_text(text)
    settings = tiny_settings(tmp_path)
    with pytest.raises(DataError, match=message) as error:
        ingest(settings, archive)
    assert "\n" not in str(error.value)
    left = [path for path in paths(settings).processed.rglob("*") if not path.name.endswith(".lock")] if paths(settings).processed.exists() else []
    assert left == []


def test_first_five_bad_rows_are_listed(archive, tmp_path):
    rows = "".join(f"1,{movie},9,1000000000\n" for movie in range(1, 9))
    (archive / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + rows)
    with pytest.raises(DataError) as error:
        ingest(tiny_settings(tmp_path), archive)
    assert [f"line {line}" in str(error.value) for line in range(2, 8)] == [True] * 5 + [False]


def test_damaged_archives_are_one_sentence(archive, tmp_path):
    whole = zipped(archive, tmp_path / "whole.zip").read_bytes()
    cases = {"truncated.zip": whole[: len(whole) // 2], "empty.zip": b"", "text.zip": b"not a zip", "flipped.zip": whole[:2_000] + b"\x00\xff" * 200 + whole[2_400:]}
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match="get it again") as error:
            ingest(tiny_settings(tmp_path / "out"), tmp_path / name)
        assert "\n" not in str(error.value)


def test_missing_and_foreign_sources(archive, tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.zip doesn't exist"):
        ingest(tiny_settings(tmp_path), tmp_path / "nowhere.zip")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"none of ratings\.csv, ratings\.dat, u\.data"):
        ingest(tiny_settings(tmp_path), tmp_path / "empty")
    (archive / "movies.csv").unlink()
    with pytest.raises(DataError, match=r"no movies\.csv beside it"):
        ingest(tiny_settings(tmp_path), archive)


def test_unsafe_archives_are_refused(tmp_path, archive):
    link = zipfile.ZipInfo("tiny/link")
    link.external_attr = 0o120777 << 16
    cases = {"climbs": ("../ratings.csv", "points outside"), "rooted": ("/etc/ratings.csv", "points outside"), "windows": ("C:\\ratings.csv", "points outside"),
             "backslash": ("..\\ratings.csv", "points outside"), "linked": (link, "is a link")}
    for name, (member, message) in cases.items():
        evil = zipped(archive, tmp_path / f"{name}.zip")
        with zipfile.ZipFile(evil, "a") as packed:
            packed.writestr(member, "x")
        with pytest.raises(DataError, match=message):
            ingest(tiny_settings(tmp_path / "out"), evil)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("ratings.csv", "0" * 50_000_000)
        packed.writestr("movies.csv", "x")
    with pytest.raises(DataError, match="would unpack from"):
        ingest(tiny_settings(tmp_path / "out"), tmp_path / "bomb.zip")
    assert not list(tmp_path.rglob("out/**/*.csv"))


def test_quarantine_sets_bad_rows_aside(archive, tmp_path):
    lines = (archive / "ratings.csv").read_text().splitlines()
    lines[5:5] = ["", "1,1,9,1000000000", "1,2", "x,2,3,1000000000"]
    lines += ["80,999,4,1000000000", lines[-1], "3,3,3.5,99999999999"]
    (archive / "ratings.csv").write_text("\n".join(lines) + "\n")
    settings = tiny_settings(tmp_path, on_bad_rows="quarantine")
    tables = ingest(settings, archive)
    assert tables.manifest["contents"]["rejected"] == 6 and tables.manifest["contents"]["rows"]["ratings"] == 3200
    rejects = frame(tables.path, "rejects")
    found = {(row.line, row.text): row.reason for row in rejects.itertuples()}
    for line, part in ((7, "rating is 9"), (8, "4 fields are needed, 2 found"), (9, 'userId is "x", not a number'), (len(lines) - 2, "movie 999 is not in"),
                       (len(lines) - 1, "a second time"), (len(lines), "timestamp is 99999999999")):
        assert part in found[line, lines[line - 1]], (line, found)
    with pytest.raises(DataError, match="and 1 more"):
        ingest(tiny_settings(tmp_path / "strict"), archive)
    with duckdb.connect(create_warehouse(settings, table_views(settings)), read_only=True) as con:
        assert con.execute("SELECT count(*) FROM rejects").fetchone() == (6,)


def test_100k_layout(tmp_path):
    folder = tmp_path / "ml-100k"
    folder.mkdir()
    flags = lambda *on: "|".join("1" if i in on else "0" for i in range(19))  # noqa: E731
    (folder / "u.item").write_bytes((f"1|Misérables, Les (1995)|01-Jan-1995||http://x|{flags(8, 12)}\n267|unknown||||{flags(0)}\n"
                                     f"3|Babe (1995)|01-Jan-1995||http://x|{flags(4, 5, 8)}\n").encode("latin-1"))
    (folder / "u.data").write_text("196\t1\t3\t881250949\n186\t3\t5\t891717742\n196\t267\t1\t881250949\n")
    tables = ingest(tiny_settings(tmp_path, dataset="ml-100k"), folder)
    movies = frame(tables.path, "movies").set_index("movieId")
    assert movies.title[1] == "Les Misérables" and list(movies.genres[1]) == ["Drama", "Musical"] and list(movies.genres[267]) == []
    assert list(movies.genres[3]) == ["Children's", "Comedy", "Drama"] and len(frame(tables.path, "ratings")) == 3


def test_10m_layout_is_utf8(tmp_path):
    folder = tmp_path / "ml-10M100K"
    folder.mkdir()
    (folder / "movies.dat").write_text("1::Misérables, Les (1995)::Drama\n", encoding="utf-8")
    (folder / "ratings.dat").write_text("1::1::3.5::838985046\n")
    (folder / "tags.dat").write_text("1::1::naïve::1215184630\n", encoding="utf-8")
    tables = ingest(tiny_settings(tmp_path, dataset="ml-10m"), folder)
    assert frame(tables.path, "movies").title.tolist() == ["Les Misérables"] and frame(tables.path, "tags").tag.tolist() == ["naïve"]


OWN = "uid,film,when,stars\nann,m1,2015-03-01T10:00:00,4.5\nbob,m2,1425204001,3\nann,m2,1425204002000,5\n"


def test_own_data_with_text_ids_and_three_kinds_of_time(tmp_path):
    (tmp_path / "mine.csv").write_text(OWN)
    own = OwnData(tmp_path / "mine.csv", columns=parse_columns("user=uid, item=film,time=when,rating=stars"))
    tables = ingest(tiny_settings(tmp_path, dataset="mine"), own)
    assert frame(tables.path, "ratings")[["userId", "movieId", "rating", "timestamp"]].to_numpy().tolist() == [
        ["ann", "m1", 4.5, 1425204000], ["ann", "m2", 5.0, 1425204002], ["bob", "m2", 3.0, 1425204001]]
    assert frame(tables.path, "movies")[["movieId", "title"]].to_numpy().tolist() == [["m1", "m1"], ["m2", "m2"]]


def test_own_parquet_without_ratings(tmp_path):
    with duckdb.connect() as con:
        con.execute(f"""COPY (SELECT * FROM (VALUES (7, 10, TIMESTAMP '2020-01-01 00:00:00'), (7, 10, TIMESTAMP '2019-01-01 00:00:00'), (8, 11, TIMESTAMP '2020-01-02 00:00:00'))
                        t(userId, movieId, timestamp)) TO '{tmp_path}/events.parquet' (FORMAT parquet)""")
        con.execute(f"COPY (SELECT 10 AS movieId, 'Heat (1995)' AS title UNION ALL SELECT 11, 'Babe') TO '{tmp_path}/films.parquet' (FORMAT parquet)")
    settings = tiny_settings(tmp_path, dataset="mine")
    tables = ingest(settings, OwnData(tmp_path / "events.parquet", tmp_path / "films.parquet"))
    ratings = frame(tables.path, "ratings")
    assert ratings.userId.tolist() == [7, 8] and ratings.rating.isna().all() and ratings.timestamp.tolist() == [1546300800, 1577923200]
    assert frame(tables.path, "movies")[["title", "year"]].iloc[0].tolist() == ["Heat", 1995]
    interactions = load_interactions(build_interactions(settings, tables))
    assert interactions.confidence.tolist() == [1, 1]


@pytest.mark.parametrize(("text", "columns", "message"), [
    (OWN, "user=uid,item=film", r"no column timestamp for the time: it has uid, film, when, stars \(--columns time=NAME"),
    (OWN, "user=uid,item=film,time=when,rating=score", "no column score for the rating"),
    (OWN, "user=uid,itm=film", r"--columns itm=film should be one of user=NAME.*did you mean item"),
    (OWN, "user", "--columns user should be"),
    (OWN.replace("m1,2015-03-01T10:00:00", "m1,some day"), "user=uid,item=film,time=when,rating=stars", r"mine\.csv, line 2: timestamp is missing or no time"),
    (OWN.replace("3\n", "three\n"), "user=uid,item=film,time=when,rating=stars", r"mine\.csv, line 3: rating is missing or no number"),
    (OWN.replace("bob", ""), "user=uid,item=film,time=when,rating=stars", r"mine\.csv, line 3: userId is missing"),
    ("", "user=uid", "mine.csv"),
])
def test_own_data_gone_wrong(tmp_path, text, columns, message):
    (tmp_path / "mine.csv").write_text(text)
    with pytest.raises(DataError, match=message) as error:
        ingest(tiny_settings(tmp_path, dataset="mine"), OwnData(tmp_path / "mine.csv", columns=parse_columns(columns)))
    assert "\n" not in str(error.value)


def test_own_file_that_is_absent(tmp_path):
    with pytest.raises(DataError, match=r"no\.csv doesn't exist"):
        ingest(tiny_settings(tmp_path, dataset="mine"), OwnData(tmp_path / "no.csv"))


def test_unknown_dataset_and_one_not_at_hand(tmp_path):
    with pytest.raises(NotFoundError, match=r"no dataset ml-1mm \(did you mean ml-1m\?\)"):
        ingest(load_settings(dataset="ml-1mm", data_dir=tmp_path))
    with pytest.raises(NotFoundError, match=r"files\.grouplens\.org/datasets/movielens/ml-20m\.zip.*--source"):
        ingest(load_settings(dataset="ml-20m", data_dir=tmp_path))


def test_tables_outlive_their_source(archive, tmp_path):
    settings = tiny_settings(tmp_path)
    first = ingest(settings, archive)
    assert ingest(settings).key == first.key and not ingest(settings).built


def test_a_changed_source_is_read_again(archive, tmp_path):
    settings = tiny_settings(tmp_path)
    first = ingest(settings, archive)
    assert not ingest(settings, archive).built
    lines = (archive / "ratings.csv").read_text().splitlines()
    (archive / "ratings.csv").write_text("\n".join(lines[:-1]) + "\n")
    second = ingest(settings, archive)
    assert second.built and second.manifest["contents"]["rows"]["ratings"] == first.manifest["contents"]["rows"]["ratings"] - 1


def test_digest_is_of_contents_not_of_times(archive):
    before = Archive.open(archive).digest()
    os.utime(archive / "ratings.csv", (1, 1))
    assert Archive.open(archive).digest() == before


def test_warehouse_views(archive, tmp_path):
    settings = tiny_settings(tmp_path)
    ingest(settings, archive)
    with duckdb.connect(create_warehouse(settings, table_views(settings)), read_only=True) as con:
        assert con.execute("SELECT count(*), count(DISTINCT userId) FROM ratings").fetchone() == (3200, 80)
        assert con.execute("SELECT count(DISTINCT genre) FROM movie_genres").fetchone() == (4,)
        assert con.execute("SELECT sum(ratings) FROM movie_popularity").fetchone() == (3200,)


def test_warehouse_can_be_moved_and_opened_from_anywhere(archive, tmp_path, monkeypatch):
    settings = tiny_settings(tmp_path)
    ingest(settings, archive)
    create_warehouse(settings, table_views(settings))
    moved = tmp_path / "else where" / "moved"
    moved.parent.mkdir()
    paths(settings).processed.rename(moved)
    for folder, name in ((tmp_path, "else where/moved/warehouse.duckdb"), (moved, "warehouse.duckdb"), (moved.parent, "../else where/moved/warehouse.duckdb"),
                         (tmp_path, moved / "warehouse.duckdb")):
        monkeypatch.chdir(folder)
        with duckdb.connect(name, read_only=True) as con:
            assert con.execute("SELECT count(*) FROM ratings").fetchone() == (3200,)
            assert con.execute("SELECT sum(users) FROM activity_histogram").fetchone() == (80,)
            assert con.execute("SELECT max(share_so_far) FROM long_tail").fetchone() == (1.0,)
            assert con.execute("SELECT count(*) FROM top_by_genre").fetchone() == (40,)


def test_quotes_in_paths(tmp_path):
    folder = write_archive(tmp_path / "it's here")
    settings = tiny_settings(tmp_path / "o'data")
    tables = ingest(settings, folder)
    create_warehouse(settings, table_views(settings))
    assert tables.manifest["contents"]["rows"]["ratings"] == 3200


def test_every_expected_error_is_of_one_family():
    assert issubclass(DataError, MovierecError) and issubclass(NotFoundError, MovierecError)
