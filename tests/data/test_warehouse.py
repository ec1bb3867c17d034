"""The warehouse opens from anywhere, also after it was moved."""

import duckdb
from helpers import tiny_settings, write_archive

from movierec.artifacts import paths
from movierec.data.ingest import ingest, table_views
from movierec.data.warehouse import create_warehouse


def test_moved_and_opened_from_anywhere(tmp_path, monkeypatch):
    settings = tiny_settings(tmp_path / "o'data")  # a quotation mark in the path must not end the SQL string
    ingest(settings, write_archive(tmp_path / "archive"))
    create_warehouse(settings, table_views(settings))
    moved = tmp_path / "else where" / "moved"
    moved.parent.mkdir()
    paths(settings).processed.rename(moved)
    opened_from = ((tmp_path, "else where/moved/warehouse.duckdb"), (moved, "warehouse.duckdb"),
                   (moved.parent, "../else where/moved/warehouse.duckdb"), (tmp_path, moved / "warehouse.duckdb"))
    for folder, name in opened_from:
        monkeypatch.chdir(folder)
        with duckdb.connect(name, read_only=True) as con:
            assert con.execute("SELECT count(*), count(DISTINCT userId) FROM ratings").fetchone() == (3200, 80)


def test_analytical_views(tiny):
    settings, _, _ = tiny
    with duckdb.connect(create_warehouse(settings, table_views(settings)), read_only=True) as con:
        for sql, expected in (
            ("SELECT count(DISTINCT genre) FROM movie_genres", 4),
            ("SELECT sum(ratings) FROM movie_popularity", 3200),
            ("SELECT sum(ratings) FROM ratings_per_year", 3200),
            ("SELECT sum(users) FROM activity_histogram", 80),
            ("SELECT max(share_so_far) FROM long_tail", 1.0),
            ("SELECT count(*) FROM top_by_genre", 40),
        ):
            assert con.execute(sql).fetchone() == (expected,), sql
