"""Broken archives of all kinds: a whole dataset or one sentence comes out, and never half of one."""

import json
import random
import string
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import tiny_settings, write_archive, zip_folder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from movierec.artifacts import paths, read_manifest
from movierec.config import DataError
from movierec.data.ingest import ingest
from movierec.data.tables import query

HEADER = "userId,movieId,rating,timestamp\n"
MOVIES = "movieId,title,genres\n" + "".join(f'{movie},"Movie {movie} (1990)",Drama\n' for movie in range(1, 31))
few = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def write(folder, ratings, movies=MOVIES):
    folder.mkdir(exist_ok=True)
    (folder / "ratings.csv").write_text(ratings, encoding="utf-8")
    (folder / "movies.csv").write_text(movies, encoding="utf-8")
    return folder


def read(tables, table):
    return query("SELECT * FROM t", t=tables.path / f"{table}.parquet")


keys = st.tuples(st.integers(0, 2**31 - 1), st.integers(1, 30))
values = st.tuples(st.sampled_from(np.arange(0.5, 5.5, 0.5).tolist()), st.integers(631_152_000, 1_600_000_000))


@given(st.dictionaries(keys, values, min_size=1, max_size=60), st.randoms(use_true_random=False))
@few
def test_good_rows_come_through_unchanged(tmp_path, rows, order):
    """Whatever the order in the file: the same rows, sorted by user and time, file order where times tie."""
    lines = [(user, movie, rating, time) for (user, movie), (rating, time) in rows.items()]
    order.shuffle(lines)
    text = "".join(f"{user},{movie},{rating},{time}\n" for user, movie, rating, time in lines)
    ratings = read(ingest(tiny_settings(tmp_path), write(tmp_path / "good", HEADER + text)), "ratings")
    expected = sorted((user, time, row, movie, rating) for row, (user, movie, rating, time) in enumerate(lines))
    found = ratings[["userId", "timestamp", "row", "movieId", "rating"]]
    assert list(found.itertuples(index=False, name=None)) == expected


letters = st.characters(codec="utf-8", exclude_characters="\n\r\0", exclude_categories=("Cs", "Cc"))
titles = st.text(letters, min_size=1, max_size=25).filter(str.strip)


@given(st.lists(titles, min_size=1, max_size=8))
@few
def test_any_title_survives(tmp_path, titles):
    """Commas, quotes, letters of any script: the raw title is what was written."""
    quoted = [title.replace('"', '""') for title in titles]
    movies = "movieId,title,genres\n" + "".join(f'{movie},"{title}",Drama\n' for movie, title in enumerate(quoted, 1))
    folder = write(tmp_path / "titles", HEADER + "1,1,4,1000000000\n", movies)
    assert read(ingest(tiny_settings(tmp_path), folder), "movies").raw_title.tolist() == titles


@given(st.text(string.digits + ".,-+eE \"'xé;\t", max_size=30))
@few
def test_any_line_is_a_row_or_a_sentence(tmp_path, line):
    """A line of anything among good ones: taken as a rating that is in range, or named."""
    folder = write(tmp_path / "line", f"{HEADER}7,1,4.0,1000000000\n{line}\n7,2,3.0,1000000001\n")
    try:
        ratings = read(ingest(tiny_settings(tmp_path), folder), "ratings")
    except DataError as error:
        assert "\n" not in str(error) and "ratings.csv, line" in str(error)
    else:
        assert len(ratings) == (3 if line.strip() else 2)
        assert ratings.rating.between(0.5, 5).all() and (ratings.userId >= 0).all()


def damage(whole: bytes, kind: str, rng: random.Random) -> bytes:
    """A copy of an archive with one kind of damage."""
    start, noise = rng.randrange(len(whole)), rng.randbytes(rng.randrange(1, 500))
    if kind == "truncated":
        return whole[:start]
    if kind == "flipped bits":
        broken = bytearray(whole)
        for _ in range(rng.randrange(1, 20)):
            broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
        return bytes(broken)
    return whole[:start] + noise + whole[start + (500 if kind == "overwritten" else 0) :]


@pytest.mark.parametrize("kind", ["truncated", "flipped bits", "overwritten", "inserted"])
def test_damaged_archives(tmp_path, kind):
    """Never a traceback, never half a dataset; where the damage did no harm, all rows are there."""
    folder = write_archive(tmp_path / "archive", n_users=12, per_user=20)
    content, rng = zip_folder(folder, tmp_path / "whole.zip").read_bytes(), random.Random(kind)
    refused = 0
    for number in range(15):
        target = tmp_path / f"{number}.zip"
        target.write_bytes(damage(content, kind, rng))
        config = tiny_settings(tmp_path / f"out{number}")
        try:
            assert ingest(config, target).manifest["contents"]["rows"]["ratings"] == 240
        except DataError as error:
            assert "\n" not in str(error)
            assert read_manifest(paths(config).tables) is None and not list(paths(config).data.rglob("*.parquet"))
            refused += 1
    assert refused


KILL_AT_EVERY_STEP = """
import json, os, shutil, signal, sys
from pathlib import Path
from helpers import tiny_settings
from movierec.data import ingest as stage

folder, steps = Path(sys.argv[1]), 0
EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")

def step(limit):
    global steps
    if steps == limit:
        os.kill(os.getpid(), signal.SIGKILL)
    steps += 1

def ingest_until(limit, place):
    "Replace old tables by new ones in a child that is killed before its step number `limit`; return whether it was."
    child = os.fork()
    if not child:
        write_table = stage.write_table
        def counted(*args):
            step(limit)
            return write_table(*args)
        stage.write_table = counted
        sys.addaudithook(lambda event, args: step(limit) if event in EVENTS and str(place) in str(args[0]) else None)
        stage.ingest(tiny_settings(place), folder / "new")
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])

n = 0
while True:
    place = folder / f"killed{n}"
    shutil.copytree(folder / "old_run", place)
    if not ingest_until(n, place):
        break
    n += 1
print(json.dumps(n))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs os.fork")
def test_killed_at_every_step(tmp_path):
    """An ingest over old tables is killed at each step: old tables or new ones are there, and a rerun completes."""
    write_archive(tmp_path / "old", n_users=10, per_user=8)
    write_archive(tmp_path / "new", n_users=12, per_user=9, seed=1)
    ingest(tiny_settings(tmp_path / "old_run"), tmp_path / "old")
    command = [sys.executable, "-c", KILL_AT_EVERY_STEP, str(tmp_path)]
    output = subprocess.run(command, cwd=Path(__file__).parent.parent, stdout=subprocess.PIPE, check=True).stdout
    steps = json.loads(output)
    assert steps > 10, "a run should take more steps on the disk than that: does the audit hook see them?"
    found = []
    for step in range(steps):
        config = tiny_settings(tmp_path / f"killed{step}")
        manifest = read_manifest(paths(config).tables)
        if manifest is not None:
            found.append(manifest["contents"]["rows"]["ratings"])
            rows = query("SELECT * FROM r", r=paths(config).tables / "ratings.parquet")
            assert len(rows) == found[-1] and found[-1] in (80, 108)
        if step % 4 == 0 or step == steps - 1:
            assert ingest(config, tmp_path / "new").manifest["contents"]["rows"]["ratings"] == 108
            assert not list(paths(config).processed.glob(".*.tmp")), f"left over after a kill at step {step}"
    assert found[0] == 80 and found == sorted(found)
