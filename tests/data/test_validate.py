"""Bad rows are named by file, line and reason, or quarantined; nothing is dropped silently."""

import duckdb
import pytest
from helpers import add_genome, tiny_settings

from movierec.artifacts import paths
from movierec.config import DataError
from movierec.data.ingest import ingest, table_views
from movierec.data.tables import query
from movierec.data.warehouse import create_warehouse

RATINGS, MOVIES = "userId,movieId,rating,timestamp\n", "movieId,title,genres\n"
LINKS, TAGS = "movieId,imdbId,tmdbId\n", "userId,movieId,tag,timestamp\n"
SCORES = "movieId,tagId,relevance\n"


@pytest.mark.parametrize(("file", "text", "message"), [
    ("ratings.csv", "user,movie,rating,time\n1,1,4,1000000000\n",
     r"ratings\.csv, line 1: the header should be userId,movieId,rating,timestamp"),
    ("ratings.csv", "", r"ratings\.csv, line 1: the header"),
    ("ratings.csv", RATINGS, "has no usable rows"),
    ("ratings.csv", RATINGS + "1,1,4,1000000000\n\n1,2,6,1000000000\n", r"line 4: rating is 6, not between 0.5 and 5"),
    ("ratings.csv", RATINGS + "1,1,nan,1000000000\n", "line 2: rating is nan, not between"),
    ("ratings.csv", RATINGS + "-1,1,4,1000000000\n", "line 2: userId is -1, not a whole number from 0"),
    ("ratings.csv", RATINGS + "1,1.5,4,1000000000\n", r"line 2: movieId is 1\.5, not a whole number"),
    ("ratings.csv", RATINGS + "1,3000000000,4,1000000000\n", "line 2: movieId is 3000000000, not a whole number"),
    ("ratings.csv", RATINGS + "1,1,4,4000000000\n", "line 2: timestamp is 4000000000, not a time from 1990 until now"),
    ("ratings.csv", RATINGS + '1,1,4,"1000000000\n', "line 2: a quotation mark is not closed"),
    ("ratings.csv", RATINGS + "1,,4,1000000000\n", "line 2: movieId is missing"),
    ("ratings.csv", RATINGS + "1,1,4,7\n", "line 2: timestamp is 7, not a time from 1990 until now"),
    ("ratings.csv", RATINGS + "1,1,4\n", "line 2: 4 fields are needed, 3 found"),
    ("ratings.csv", RATINGS + "1,1,4,1000000000,9\n", "line 2: 4 fields are needed, 5 found"),
    ("ratings.csv", RATINGS + "1,1,4,1000000000\n1,1,3,1000000001\n", "line 2: user 1 rates movie 1 more than once"),
    ("ratings.csv", RATINGS + "1,999,4,1000000000\n", r"line 2: movie 999 is not in movies\.csv"),
    ("movies.csv", MOVIES + "1,A (1990),Drama\n1,B (1991),Drama\n",
     r"movies\.csv, line 3: movie 1 appears a second time"),
    ("movies.csv", "movieId,title\n1,A\n", r"movies\.csv, line 1: the header"),
    ("links.csv", LINKS + "1,0114709,x\n", r'links\.csv, line 2: tmdbId is "x", not a number'),
    ("tags.csv", TAGS + "1,1,good,soon\n", r'tags\.csv, line 2: timestamp is "soon", not a number'),
    ("genome-tags.csv", "tagId,tag\n1,noir\n2,x\n3,\n", r"genome-tags\.csv, line 4: tag is missing"),
    ("genome-tags.csv", "tagId,tag\n1,x\n2,x\n3,x\n1,y\n", r"genome-tags\.csv, line 5: tag 1 appears a second time"),
    ("genome-tags.csv", "tagId,tag\n1,x\n2,x\n", r"genome-scores\.csv, line 4: tag 3 is not in the table of tags"),
    ("genome-tags.csv", "tag,tagId\n", r"genome-tags\.csv, line 1: the header should be tagId,tag"),
    ("genome-scores.csv", SCORES + "1,1,1.5\n", r"genome-scores\.csv, line 2: relevance is 1\.5, not between 0 and 1"),
    ("genome-scores.csv", SCORES + "1,1,nan\n", "line 2: relevance is nan, not between"),
    ("genome-scores.csv", SCORES + "1,1,\n", "line 2: relevance is missing"),
    ("genome-scores.csv", SCORES + "1,1,high\n", r'line 2: relevance is "high", not a number'),
    ("genome-scores.csv", SCORES + "1,1.5,0\n", r"line 2: tagId is 1\.5, not a whole number"),
    ("genome-scores.csv", SCORES + "x,1,0\n", r'line 2: movieId is "x", not a number'),
    ("genome-scores.csv", SCORES + "1,1,0\n1,1,1\n", "line 3: movie 1 has a second score of tag 1"),
])
def test_bad_files_are_named_and_leave_nothing(archive, tmp_path, file, text, message):
    (add_genome(archive) / file).write_text(text)
    settings = tiny_settings(tmp_path)
    with pytest.raises(DataError, match=message) as error:
        ingest(settings, archive)
    assert "\n" not in str(error.value)
    left = [path for path in paths(settings).processed.rglob("*") if not path.name.endswith(".lock")]
    assert left == []


def test_each_kind_of_bad_row_is_named_once(archive, tmp_path):
    rows = "".join(f"1,{movie},{movie + 6},1000000000\n" for movie in range(1, 9)) + "2,1,3,7\n1,2\n"
    (archive / "ratings.csv").write_text(RATINGS + rows)
    with pytest.raises(DataError) as error:
        ingest(tiny_settings(tmp_path), archive)
    assert str(error.value) == (
        "ratings.csv, line 2: rating is 7, not between 0.5 and 5 (8 of 10 rows are like this); "
        "ratings.csv, line 10: timestamp is 7, not a time from 1990 until now; "
        "ratings.csv, line 11: 4 fields are needed, 2 found. --on-bad-rows quarantine sets such rows aside")


def test_quarantined_scores(archive, tmp_path):
    with (add_genome(archive) / "genome-scores.csv").open("a") as file:
        file.write("4,1,0.5\n4,4,0.5\n\n4,2,7\n1,1,0.5\n4,3\n")
    tables = ingest(tiny_settings(tmp_path, on_bad_rows="quarantine"), archive)
    contents = tables.manifest["contents"]
    assert contents["rejected"] == 4 and contents["rows"]["genome_scores"] == 10
    rejects = query("SELECT * FROM rejects", rejects=tables.path / "rejects.parquet")
    assert rejects.file.unique().tolist() == ["genome-scores.csv"] and rejects.line.tolist() == [12, 14, 15, 16]
    assert rejects.text.tolist() == ["4,4,0.5", "4,2,7", "1,1,0.5", "4,3"]


def test_quarantine(archive, tmp_path):
    lines = (archive / "ratings.csv").read_text().splitlines()
    lines[5:5] = ["", "1,1,9,1000000000", "1,2", "x,2,3,1000000000"]
    lines += ["80,999,4,1000000000", lines[-1], "3,3,3.5,99999999999"]
    (archive / "ratings.csv").write_text("\n".join(lines) + "\n")
    settings = tiny_settings(tmp_path, on_bad_rows="quarantine")
    tables = ingest(settings, archive)
    contents = tables.manifest["contents"]
    assert contents["rejected"] == 6 and contents["rows"]["ratings"] == 3200
    rejects = query("SELECT * FROM rejects", rejects=tables.path / "rejects.parquet")
    found = {(row.line, row.text): row.reason for row in rejects.itertuples()}
    last = len(lines)
    expected = {7: "rating is 9", 8: "4 fields are needed, 2 found", 9: 'userId is "x", not a number',
                last - 2: "movie 999 is not in movies.csv", last - 3: "more than once",
                last: "timestamp is 99999999999"}
    for line, reason in expected.items():
        assert reason in found[line, lines[line - 1]], (line, found)
    with duckdb.connect(create_warehouse(settings, table_views(settings)), read_only=True) as con:
        assert con.execute("SELECT count(*) FROM rejects").fetchone() == (6,)
