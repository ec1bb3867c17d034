"""A dataset comes in whole and checked, from wherever it is."""

import duckdb
import pytest
from helpers import add_genome, tiny_settings

from movierec.config import NotFoundError, load_settings
from movierec.data.ingest import GENRES_SQL, TITLE_SQL, YEAR_SQL, ingest, table_views
from movierec.data.tables import query
from movierec.data.warehouse import create_warehouse


def read(tables, table):
    return query("SELECT * FROM t", t=tables.path / f"{table}.parquet")


def test_bundled_dataset_has_the_published_counts(tmp_path):
    tables = ingest(load_settings(data_dir=tmp_path))
    assert tables.manifest["contents"]["rows"] == {
        "ratings": 100_836, "users": 610, "movies": 9_742, "links": 9_742, "tags": 3_683}
    ratings = read(tables, "ratings")
    assert ratings.rating.between(0.5, 5).all() and not ratings.duplicated(["userId", "movieId"]).any()
    assert (ratings.sort_values(["userId", "timestamp", "row"]).index == ratings.index).all()
    movies = read(tables, "movies").set_index("movieId")
    assert (movies.title[2571], movies.year[2571]) == ("The Matrix", 1999)
    assert list(movies.genres[1]) == ["Adventure", "Animation", "Children", "Comedy", "Fantasy"]


@pytest.mark.parametrize(("raw", "title", "year"), [
    ("Matrix, The (1999)", "The Matrix", 1999),
    ("City of Lost Children, The (Cité des enfants perdus, La) (1995)",
     "The City of Lost Children (La Cité des enfants perdus)", 1995),
    ("Misérables, Les (1995)", "Les Misérables", 1995),
    ("Avventura, L' (Adventure, The) (1960)", "L'Avventura (The Adventure)", 1960),
    ("I, Robot (2004)", "I, Robot", 2004),
    ("Me, Myself & Irene (2000)", "Me, Myself & Irene", 2000),
    ("2001: A Space Odyssey (1968)", "2001: A Space Odyssey", 1968),
    ("Fawlty Towers (1975-1979)", "Fawlty Towers", 1975),
    ("Babylon 5", "Babylon 5", None),
    ('"11\'09""01 - September 11 (2002)', '"11\'09""01 - September 11', 2002),
])
def test_titles(raw, title, year):
    with duckdb.connect() as con:
        found = con.execute(f"SELECT {TITLE_SQL}, {YEAR_SQL} FROM (SELECT $1 AS title)", [raw]).fetchone()
    assert found == (title, year)


def test_genres():
    sql = f"SELECT {GENRES_SQL} FROM (SELECT unnest(['B|A|B', '(no genres listed)', NULL]) AS genres)"
    with duckdb.connect() as con:
        assert [genres for genres, in con.execute(sql).fetchall()] == [["A", "B"], [], []]


def test_file_order_breaks_ties_and_missing_tables_are_empty(tmp_path):
    folder = tmp_path / "ml-1m"
    folder.mkdir()
    (folder / "movies.dat").write_text("1::Heat (1995)::Drama\n2::Babe (1995)::Comedy\n")
    (folder / "ratings.dat").write_text("7::2::5::978300760\n7::1::3::978300760\n6::2::1::978300761\n")
    tables = ingest(tiny_settings(tmp_path, dataset="ml-1m"), folder)
    assert read(tables, "ratings")[["userId", "movieId", "row"]].values.tolist() == [[6, 2, 2], [7, 2, 0], [7, 1, 1]]
    links = read(tables, "links")
    assert len(links) == 0 and list(links.columns) == ["movieId", "imdbId", "tmdbId"]


def test_a_tag_genome_adds_two_tables_and_changes_none(archive, tmp_path):
    other = tiny_settings(tmp_path, dataset="without")
    without = ingest(other, archive)
    assert sorted(file.stem for file in without.path.glob("*.parquet")) == ["links", "movies", "ratings", "tags"]
    settings = tiny_settings(tmp_path)
    tables = ingest(settings, add_genome(archive))
    rows = tables.manifest["contents"]["rows"]
    assert rows == without.manifest["contents"]["rows"] | {"genome_tags": 3, "genome_scores": 9}
    for table in ("links", "movies", "ratings", "tags"):
        assert (tables.path / f"{table}.parquet").read_bytes() == (without.path / f"{table}.parquet").read_bytes()
    with duckdb.connect(create_warehouse(settings, table_views(settings)), read_only=True) as con:
        sql = "SELECT movieId, tag, relevance FROM genome_scores JOIN genome_tags USING (tagId) WHERE tagId = 2"
        found = con.sql(sql + " ORDER BY movieId").fetchall()
        kinds = [str(kind) for kind in con.sql("SELECT * FROM genome_scores").types]
    assert found == [(movie, "love, actually", pytest.approx(movie * 2 / 100)) for movie in (1, 2, 3)]
    assert kinds == ["INTEGER", "INTEGER", "FLOAT"]
    with duckdb.connect(create_warehouse(other, table_views(other)), read_only=True) as con:
        assert "genome_tags" not in {name for name, in con.execute("SELECT view_name FROM duckdb_views()").fetchall()}


def test_unknown_dataset_and_one_that_is_not_here(tmp_path):
    with pytest.raises(NotFoundError, match=r"no dataset ml-1mm \(did you mean ml-1m\?\)"):
        ingest(load_settings(dataset="ml-1mm", data_dir=tmp_path))
    with pytest.raises(NotFoundError, match=r"files\.grouplens\.org/datasets/movielens/ml-20m\.zip.*--source"):
        ingest(load_settings(dataset="ml-20m", data_dir=tmp_path))


def test_tables_outlive_their_source_and_a_changed_source_is_read_again(archive, tmp_path):
    settings = tiny_settings(tmp_path)
    first = ingest(settings, archive)
    assert first.built and not ingest(settings, archive).built
    without_source = ingest(settings)
    assert without_source.key == first.key and not without_source.built
    lines = (archive / "ratings.csv").read_text().splitlines()
    (archive / "ratings.csv").write_text("\n".join(lines[:-1]) + "\n")
    second = ingest(settings, archive)
    rows = [tables.manifest["contents"]["rows"]["ratings"] for tables in (first, second)]
    assert second.built and rows[1] == rows[0] - 1
