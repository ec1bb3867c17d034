"""Archives in all layouts are read; damaged, unsafe and unknown ones are refused in one sentence."""

import os
import zipfile

import pytest
from helpers import add_genome, write_archive, zip_folder

from movierec.config import DataError
from movierec.data.archive import Archive, create_problems_table, detect_encoding
from movierec.data.tables import connect


def load(source, folder):
    """The raw tables of a source, as lists of rows."""
    archive = Archive.open(source)
    with connect() as con:
        create_problems_table(con)
        archive.load(con, folder)
        tables = {table: con.execute(f"SELECT * FROM raw_{table}").fetchall() for table in archive.members}
        assert con.execute("SELECT * FROM problems").fetchall() == []
    return archive.layout, tables


def test_folder_nested_archive_and_flat_archive_are_the_same(archive, tmp_path):
    nested = zip_folder(archive, tmp_path / "nested.zip")
    flat = zip_folder(archive, tmp_path / "flat.zip", prefix="")
    tables = [load(source, tmp_path) for source in (archive, nested, flat)]
    assert tables[0] == tables[1] == tables[2]
    assert tables[0][0] == "csv" and len(tables[0][1]["ratings"]) == 80 * 40


def test_dat_layout(tmp_path):
    folder = tmp_path / "ml-1m"
    folder.mkdir()
    movies = '1::Misérables, Les (1995)::Drama|Musical\n2::"Quoted" Title (1990)::Comedy\n'
    (folder / "movies.dat").write_bytes(movies.encode("latin-1"))
    (folder / "ratings.dat").write_text("7::1::5::978300760\n9::2::1::978300761\n")
    layout, tables = load(folder, tmp_path)
    assert layout == "dat" and tables == {
        "movies": [(1, "Misérables, Les (1995)", "Drama|Musical"), (2, '"Quoted" Title (1990)', "Comedy")],
        "ratings": [(7, 1, 5, 978300760), (9, 2, 1, 978300761)],
    }


def test_dat_layout_in_utf8_with_tags(tmp_path):
    folder = tmp_path / "ml-10M100K"
    folder.mkdir()
    (folder / "movies.dat").write_text("1::Misérables, Les (1995)::Drama\n", encoding="utf-8")
    (folder / "ratings.dat").write_text("1::1::3.5::838985046\n")
    (folder / "tags.dat").write_text("1::1::naïve::1215184630\n", encoding="utf-8")
    _, tables = load(folder, tmp_path)
    assert tables["movies"] == [(1, "Misérables, Les (1995)", "Drama")]
    assert tables["tags"] == [(1, 1, "naïve", 1215184630)]


def test_100k_layout(tmp_path):
    def flags(*on):
        return "|".join("1" if position in on else "0" for position in range(19))

    folder = tmp_path / "ml-100k"
    folder.mkdir()
    movies = (f"1|Misérables, Les (1995)|01-Jan-1995||http://x|{flags(8, 12)}\n267|unknown||||{flags(0)}\n"
              f"3|Babe (1995)|01-Jan-1995||http://x|{flags(4, 5, 8)}\n")
    (folder / "u.item").write_bytes(movies.encode("latin-1"))
    (folder / "u.data").write_text("196\t1\t3\t881250949\n186\t3\t5\t891717742\n")
    layout, tables = load(folder, tmp_path)
    assert layout == "100k" and len(tables["ratings"]) == 2
    assert tables["movies"] == [(1, "Misérables, Les (1995)", "Drama|Musical"), (267, "unknown", ""),
                                (3, "Babe (1995)", "Children's|Comedy|Drama")]


def test_tag_genome(archive, tmp_path):
    _, without = load(archive, tmp_path)
    add_genome(archive)
    for source in (archive, zip_folder(archive, tmp_path / "genome.zip")):
        _, tables = load(source, tmp_path)
        assert tables.pop("genome_tags") == [(1, "007"), (2, "love, actually"), (3, "noir")]
        scores = tables.pop("genome_scores")
        assert len(scores) == 9 and scores[-1] == (3, 3, 0.09)
        assert tables == without
    (archive / "genome-scores.csv").unlink()
    assert "genome_tags" in load(archive, tmp_path)[1]


def test_genome_scores_without_their_tags(archive):
    (add_genome(archive) / "genome-tags.csv").unlink()
    with pytest.raises(DataError, match=r"genome-scores\.csv but no genome-tags\.csv beside it"):
        Archive.open(archive)


def test_an_accent_at_the_end_of_what_is_looked_at_is_still_utf8(tmp_path):
    """The first 16 MiB may end in the middle of a letter of two bytes."""
    file = tmp_path / "movies.dat"
    file.write_bytes(b"x" * ((1 << 24) - 1) + "é".encode())
    assert detect_encoding(file) == "utf-8"


def test_missing_and_unknown_sources(archive, tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.zip doesn't exist"):
        Archive.open(tmp_path / "nowhere.zip")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"none of ratings\.csv, ratings\.dat, u\.data"):
        Archive.open(tmp_path / "empty")
    (archive / "movies.csv").unlink()
    with pytest.raises(DataError, match=r"no movies\.csv beside it"):
        Archive.open(archive)


@pytest.mark.parametrize("names", [
    ("rating.csv", "movies.csv"), ("ratings.csv", "movie.csv"), ("a/b/ratings.csv", "a/b/movies.csv"),
    ("ratings.csv.bak", "movies.csv"), ("RATINGS.CSV", "MOVIES.CSV"), ("ratings.dat", "movies.csv"),
    ("ratings.csv/", "movies.csv"), ("x", "movies.csv"),
])
def test_wrong_member_names(tmp_path, names):
    with zipfile.ZipFile(tmp_path / "names.zip", "w") as packed:
        for name in names:
            packed.writestr(name, "")
    with pytest.raises(DataError, match="has"):
        Archive.open(tmp_path / "names.zip")


def test_damaged_archives_are_one_sentence(archive, tmp_path):
    whole = zip_folder(archive, tmp_path / "whole.zip").read_bytes()
    cases = {
        "truncated.zip": whole[: len(whole) // 2], "empty.zip": b"", "text.zip": b"not a zip",
        "overwritten.zip": whole[:2_000] + b"\x00\xff" * 200 + whole[2_400:],
    }
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match="get it again") as error:
            load(tmp_path / name, tmp_path)
        assert "\n" not in str(error.value)


def test_unsafe_archives_are_refused(tmp_path, archive):
    link = zipfile.ZipInfo("tiny/link")
    link.external_attr = 0o120777 << 16
    cases = [("../ratings.csv", "points outside"), ("/etc/ratings.csv", "points outside"),
             ("C:\\ratings.csv", "points outside"), ("..\\ratings.csv", "points outside"), (link, "is a link")]
    for member, message in cases:
        unsafe = zip_folder(archive, tmp_path / "unsafe.zip")
        with zipfile.ZipFile(unsafe, "a") as packed:
            packed.writestr(member, "x")
        with pytest.raises(DataError, match=message):
            Archive.open(unsafe)


def test_zip_bombs_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("ratings.csv", "0" * 50_000_000)
        packed.writestr("movies.csv", "x")
    with pytest.raises(DataError, match="would unpack from"):
        Archive.open(tmp_path / "bomb.zip")


def test_digest_is_of_contents_not_of_times(archive):
    before = Archive.open(archive).digest()
    os.utime(archive / "ratings.csv", (1, 1))
    assert Archive.open(archive).digest() == before
    (archive / "ratings.csv").write_text("other")
    assert Archive.open(archive).digest() != before


def test_quotes_in_paths(tmp_path):
    folder = write_archive(tmp_path / "it's here", n_users=3, per_user=5)
    assert len(load(folder, tmp_path)[1]["ratings"]) == 15
