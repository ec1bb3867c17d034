"""Archives that no one would make on purpose: whatever comes, it is a whole dataset or one sentence, and never half of one."""

import random
import signal
import string
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import duckdb
import numpy as np
import pytest
from helpers import tiny_settings, write_archive
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from movierec.artifacts import paths, read_manifest
from movierec.config import DataError
from movierec.data.ingest import ingest
from movierec.data.tables import query

MOVIES = "movieId,title,genres\n" + "".join(f'{m},"Film {m} (1990)",Drama\n' for m in range(1, 31))
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def write(folder, ratings, movies=MOVIES):
    folder.mkdir(exist_ok=True)
    (folder / "ratings.csv").write_text(ratings, encoding="utf-8")
    (folder / "movies.csv").write_text(movies, encoding="utf-8")
    return folder


good_rows = st.dictionaries(st.tuples(st.integers(0, 2**31 - 1), st.integers(1, 30)), st.tuples(st.sampled_from(np.arange(0.5, 5.5, 0.5).tolist()),
                                                                                              st.integers(631_152_000, 1_600_000_000)), min_size=1, max_size=60)


@given(good_rows, st.randoms(use_true_random=False))
@quick
def test_good_rows_come_through_unchanged(tmp_path, rows, order):
    """Whatever the order in the file: the same rows, sorted by user and time, file order where times tie."""
    lines = [(u, m, r, t) for (u, m), (r, t) in rows.items()]
    order.shuffle(lines)
    folder = write(tmp_path / "good", "userId,movieId,rating,timestamp\n" + "".join(f"{u},{m},{r},{t}\n" for u, m, r, t in lines))
    table = query("SELECT * FROM r", r=ingest(tiny_settings(tmp_path), folder).path / "ratings.parquet")
    expected = sorted(((u, t, position, m, r) for position, (u, m, r, t) in enumerate(lines)))
    assert [(row.userId, row.timestamp, row.row, row.movieId, row.rating) for row in table.itertuples()] == expected


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n\r\0", exclude_categories=("Cs", "Cc")), min_size=1, max_size=25).filter(str.strip), min_size=1, max_size=8))
@quick
def test_any_title_survives(tmp_path, titles):
    """Commas, quotes, letters of any script: the raw title is what was written."""
    quoted = [title.replace('"', '""') for title in titles]
    folder = write(tmp_path / "titles", "userId,movieId,rating,timestamp\n1,1,4,1000000000\n",
                   "movieId,title,genres\n" + "".join(f'{m},"{title}",Drama\n' for m, title in enumerate(quoted, 1)))
    table = query("SELECT raw_title FROM m ORDER BY movieId", m=ingest(tiny_settings(tmp_path), folder).path / "movies.parquet")
    assert table.raw_title.tolist() == titles


@given(st.text(string.digits + ".,-+eE \"'xé;\t", max_size=30))
@quick
def test_any_line_is_a_row_or_a_sentence(tmp_path, line):
    """A line of anything among good ones: taken as a rating that is in range, or named."""
    folder = write(tmp_path / "line", f"userId,movieId,rating,timestamp\n7,1,4.0,1000000000\n{line}\n7,2,3.0,1000000001\n")
    try:
        table = query("SELECT * FROM r", r=ingest(tiny_settings(tmp_path), folder).path / "ratings.parquet")
        assert len(table) in (2, 3) and table.rating.between(0.5, 5).all() and (table.userId >= 0).all()
        assert len(table) == 3 or not line.strip()
    except DataError as error:
        assert "\n" not in str(error) and "ratings.csv, line" in str(error)


def damaged(whole: bytes, kind: str, rng: random.Random) -> bytes:
    """A copy of an archive with one kind of damage."""
    if kind == "truncated":
        return whole[: rng.randrange(len(whole))]
    if kind == "flipped":
        broken = bytearray(whole)
        for _ in range(rng.randrange(1, 20)):
            broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
        return bytes(broken)
    start = rng.randrange(len(whole))
    if kind == "overwritten":
        return whole[:start] + rng.randbytes(rng.randrange(1, 500)) + whole[start + 500 :]
    return whole[:start] + rng.randbytes(rng.randrange(1, 500)) + whole[start:]  # inserted


@pytest.mark.parametrize("kind", ["truncated", "flipped", "overwritten", "inserted"])
def test_damaged_archives(tmp_path, kind):
    """Fifty of each kind: never a traceback, never half a dataset; where the damage did no harm, all rows are there."""
    folder = write_archive(tmp_path / "archive", n_users=12, per_user=20)
    whole = tmp_path / "whole.zip"
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, f"tiny/{file.name}")
    content, rng = whole.read_bytes(), random.Random(kind)
    outcomes = set()
    for number in range(50):
        target = tmp_path / f"{number}.zip"
        target.write_bytes(damaged(content, kind, rng))
        config = tiny_settings(tmp_path / f"out{number}")
        try:
            tables = ingest(config, target)
            assert tables.manifest["contents"]["rows"]["ratings"] == 240
            outcomes.add("whole")
        except DataError as error:
            assert "\n" not in str(error)
            assert read_manifest(paths(config).tables) is None and not list(paths(config).data.rglob("*.parquet"))
            outcomes.add("refused")
    assert "refused" in outcomes


@pytest.mark.parametrize("names", [("rating.csv", "movies.csv"), ("ratings.csv", "movie.csv"), ("a/b/ratings.csv", "a/b/movies.csv"), ("ratings.csv.bak", "movies.csv"),
                                   ("RATINGS.CSV", "MOVIES.CSV"), ("ratings.dat", "movies.csv"), ("ratings.csv/", "movies.csv"), ("", "movies.csv")])
def test_wrong_member_names(tmp_path, names):
    with zipfile.ZipFile(tmp_path / "names.zip", "w") as archive:
        for name, text in zip(names, ("userId,movieId,rating,timestamp\n1,1,4,1000000000\n", MOVIES), strict=True):
            archive.writestr(name or "x", text)
    with pytest.raises(DataError):
        ingest(tiny_settings(tmp_path), tmp_path / "names.zip")


RUNNER = """
import sys
from pathlib import Path
from helpers import tiny_settings
from movierec.data.ingest import ingest
folder = Path(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
ingest(tiny_settings(folder), folder / sys.argv[2])
"""


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path):
    """SIGKILL at twenty random moments while a new archive replaces an old one: the old tables, the new ones or none, and the next run completes."""
    write_archive(tmp_path / "old", n_users=100, per_user=40)
    write_archive(tmp_path / "new", n_users=3_000, per_user=60, n_movies=300, seed=1)
    config, rng = tiny_settings(tmp_path), random.Random(0)
    started = time.monotonic()
    ingest(config, tmp_path / "new")
    length = time.monotonic() - started
    counts = {100 * 40: "old", 3_000 * 60: "new"}
    seen = []
    for _ in range(20):
        ingest(config, tmp_path / "old")
        process = subprocess.Popen([sys.executable, "-c", RUNNER, str(tmp_path), "new"], cwd=Path(__file__).parent.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        process.stdout.readline()
        process.stdin.write(b"\n")
        process.stdin.flush()
        time.sleep(rng.uniform(0, 1.3 * length))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        manifest = read_manifest(paths(config).tables)
        if manifest is not None:
            rows = manifest["contents"]["rows"]["ratings"]
            with duckdb.connect() as con:
                assert con.execute(f"SELECT count(*) FROM '{paths(config).tables}/ratings.parquet'").fetchone() == (rows,)
            seen.append(counts[rows])
        assert ingest(config, tmp_path / "new").manifest["contents"]["rows"]["ratings"] == 3_000 * 60
    assert "old" in seen, "some kills must come before the end"
    assert not list(paths(config).processed.glob(".*.tmp"))
