"""Imported users: stored beside a dataset, merged, never doubled, never in an artifact."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers import copy_of_run, tiny_settings, write_archive

from movierec.artifacts import paths
from movierec.config import (
    CONTENT_SOURCES,
    NEURAL_SOURCES,
    SYSTEMS,
    UNORDERED_RANKERS,
    ConfigError,
    DataError,
    NotFoundError,
)
from movierec.data.ingest import ingest
from movierec.data.personal import PersonalExport, PersonalRow, read_export
from movierec.data.tables import query
from movierec.pipeline import run
from movierec.serving.imported_users import (
    ImportedEvent,
    ImportedUser,
    check_user_name,
    datasets_with_users,
    find_imported_user,
    import_user,
    list_imported_users,
    merge_events,
    normalize_user_name,
    remove_imported_user,
    user_file,
)
from movierec.serving.matching import MovieMatcher, load_movies
from movierec.serving.service import (
    RecommenderService,
    debug_report,
    imported_user_history,
    recommend,
    recommend_to_imported_user,
)


def title(movie):
    return f"Film {movie}, The", 1950 + movie % 60


def make_export(*rows, digest="a") -> PersonalExport: # rows: movieId, rating and time
    named = [(title(movie), rating, time) for movie, rating, time in rows]
    found = [PersonalRow(title=name, year=year, rating=rating, time=time) for (name, year), rating, time in named]
    return PersonalExport("ratings.csv", "Letterboxd CSV", digest, found)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """The tiny archive's tables, in a folder where tests may write below data/feedback."""
    folder = tmp_path_factory.mktemp("imports")
    settings = tiny_settings(folder)
    ingest(settings, write_archive(folder / "archive"))
    return settings


@pytest.fixture
def here(tables):
    """Settings of a dataset without imported users."""
    shutil.rmtree(tables.data_dir / "feedback", ignore_errors=True)
    return tables


@pytest.fixture
def add(here):
    """A function that imports rows for a name."""
    matcher = MovieMatcher(load_movies(here))

    def import_rows(name, *rows, digest="a", now=1_700_000_000):
        export = make_export(*rows, digest=digest)
        return import_user(here, name, export, matcher.match_all(export.rows).of_kind("exact"), now)

    return import_rows


def ratings_of(result):
    return {event.movieId: event.rating for event in result.user.events}


def test_what_is_stored_can_be_read_without_the_package(here, add):
    add("Zoë / home", (7, 4.5, 1_000_000_000), (3, None, None))
    stored = json.loads(user_file(here, "Zoë / home").read_text(encoding="utf-8"))
    assert (stored["name"], stored["dataset"]) == ("Zoë / home", "tiny")
    assert [(event["movieId"], event["rating"], event["time"]) for event in stored["events"]] == [
        (7, 4.5, 1_000_000_000), (3, None, None),
    ]
    file = {"file": "ratings.csv", "format": "Letterboxd CSV", "digest": "a", "movies": 2, "imported_at": 1_700_000_000}
    assert stored["files"] == [file]
    assert user_file(here, "Zoë / home").stat().st_mode & 0o077 == 0, "private: readable by its owner only"
    assert user_file(here, "Zoë / home").parent == here.data_dir / "feedback" / "tiny" / "users"


def test_importing_twice_changes_nothing(here, add):
    first = add("Zoë", (7, 4.5, 1_000), (3, 2.0, 2_000))
    before = user_file(here, "Zoë").read_bytes()
    second = add("Zoë", (7, 4.5, 1_000), (3, 2.0, 2_000), now=1_800_000_000)
    assert (first.added, second.added, second.changed, second.is_repeated) == (2, 0, 0, True)
    assert user_file(here, "Zoë").read_bytes() == before


def test_another_file_is_merged_and_the_latest_rating_counts(add):
    add("Zoë", (7, 4.5, 1_000), (3, 2.0, 2_000))
    result = add("Zoë", (7, 1.0, 500), (3, 3.0, 3_000), (9, 5.0, 100), digest="b")
    assert (result.added, result.changed, result.is_repeated) == (1, 1, False)
    assert ratings_of(result) == {9: 5.0, 7: 4.5, 3: 3.0} and len(result.user.files) == 2


def test_the_first_file_again_does_not_take_a_later_rating_back(add):
    add("Zoë", (7, 4.5, None))
    add("Zoë", (7, 1.0, None), digest="b")
    again = add("Zoë", (7, 4.5, None))
    assert (again.added, again.changed) == (0, 0) and ratings_of(again) == {7: 1.0}


def test_the_same_file_can_add_what_was_confirmed_later(add):
    add("Zoë", (7, 4.5, 1_000))
    result = add("Zoë", (7, 4.5, 1_000), (3, 2.0, 2_000))
    assert (result.added, result.changed, result.is_repeated) == (1, 0, True)


def test_two_names_are_two_users(here, add):
    for name in ("zoe", "Zoe", "Zoë", "zo-e", "../zoe", "/zoe", "zoe.json", "..", "a" * 100, "CON", "🎬"):
        add(name, (7, 4.5, 1_000))
    assert len(list_imported_users(here)) == 11
    folder = paths(here).imported_users
    assert all(file.parent == folder for file in here.data_dir.rglob("*-*.json"))
    assert find_imported_user(here, "Zoe\u0308").name == "Zoë", "the same letters, encoded in another way"
    assert sorted(user.name for user in list_imported_users(here))[:2] == ["..", "../zoe"]


@pytest.mark.parametrize("name", ["", "  ", "a" * 101, "two\nlines", "bell\a", "\ud800"])
def test_names_that_cannot_be_used(here, name):
    with pytest.raises(ConfigError, match="can't be the name of a user"):
        normalize_user_name(name)
    assert find_imported_user(here, name) is None


@pytest.mark.parametrize("name", ["1", " 80 "])
def test_a_user_id_of_the_dataset_is_no_name(here, add, name):
    with pytest.raises(ConfigError, match="is a userId of tiny"):
        add(name, (7, 4.5, 1_000))
    assert list_imported_users(here) == [] and check_user_name(here, "81") == "81"


def test_nothing_to_import(here):
    with pytest.raises(DataError, match=r"no movie of ratings.csv was found in tiny"):
        import_user(here, "Zoë", make_export(), [], 1)
    assert list_imported_users(here) == []


def test_removing(here, add):
    add("Zoë", (7, 4.5, 1_000))
    add("Bob", (7, 4.5, 1_000))
    with pytest.raises(NotFoundError, match=r"no user Zoe was imported for tiny \(did you mean Zoë\?\)"):
        remove_imported_user(here, "Zoe")
    assert remove_imported_user(here, "Zoë").name == "Zoë"
    assert [user.name for user in list_imported_users(here)] == ["Bob"]
    other = here.model_copy(update={"dataset": "other"})
    with pytest.raises(NotFoundError, match=r"\(but in tiny: --dataset tiny\)"):
        remove_imported_user(other, "Bob")
    assert datasets_with_users(here) == ["tiny"]
    names = [file.name for file in paths(here).imported_users.parent.rglob("*zo*")]
    assert names == [], "no trace of the name is left"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": "Zoë", "dataset": "tiny", "events": [{"movieId": 1.5}]}'])
def test_a_damaged_file_is_reported_and_kept(here, add, text):
    file = user_file(here, "Zoë")
    file.parent.mkdir(parents=True)
    file.write_text(text, encoding="utf-8")
    for attempt in (lambda: add("Zoë", (7, 4.5, 1_000)), lambda: list_imported_users(here)):
        with pytest.raises(DataError, match="is not the file of an imported user"):
            attempt()
    assert file.read_text(encoding="utf-8") == text


def test_a_full_disk_leaves_the_old_file(here, add, monkeypatch):
    add("Zoë", (7, 4.5, 1_000))
    before = user_file(here, "Zoë").read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            add("Zoë", (3, 4.5, 1_000), digest="b")
    assert user_file(here, "Zoë").read_bytes() == before
    assert [file for file in paths(here).imported_users.iterdir() if file.suffix == ".tmp"] == []


def test_two_imports_at_once_both_count(here, add):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda movie: add("Zoë", (movie, 4.0, movie), digest=str(movie)), range(1, 25)))
    assert {event.movieId for event in find_imported_user(here, "Zoë").events} == set(range(1, 25))


IMPORT = """
import sys
from movierec.config import load_settings
from movierec.data.personal import PersonalExport, PersonalRow
from movierec.serving.imported_users import import_user
from movierec.serving.matching import MovieMatcher, load_movies

settings = load_settings(dataset="tiny", data_dir=sys.argv[1])
matcher = MovieMatcher(load_movies(settings))
for movie in map(int, sys.argv[2].split(",")):
    export = PersonalExport("f", "list", str(movie), [PersonalRow(title=f"Film {movie}, The", year=1950 + movie % 60)])
    import_user(settings, "Zoë", export, matcher.match_all(export.rows).of_kind("exact"), 1)
"""


@pytest.mark.slow
def test_processes_that_import_at_once_lose_nothing(here):
    parts = [range(first, 41, 4) for first in range(1, 5)]
    command = [sys.executable, "-c", textwrap.dedent(IMPORT), str(here.data_dir)]
    running = [subprocess.Popen([*command, ",".join(map(str, part))]) for part in parts]
    assert [process.wait(timeout=120) for process in running] == [0] * 4
    assert {event.movieId for event in find_imported_user(here, "Zoë").events} == set(range(1, 41))


def test_merging_reports_what_changed():
    event = ImportedEvent(movieId=1, title="a", rating=4.0, time=10)
    assert merge_events([event], [event])[1:] == (0, 0)
    assert merge_events([event], [replace(event, liked=True)])[1:] == (0, 1)
    assert merge_events([], [event, replace(event, movieId="1")])[1:] == (2, 0), "text ids are other ids"


def test_letterboxd_by_name_and_year(here, tmp_path):
    """A file as Letterboxd writes it, from reading to storing."""
    rows = "".join(f"2021-02-{movie:02},The Film {movie},{1950 + movie % 60},https://boxd.it/{movie},{movie / 4}\n"
                   for movie in range(2, 20))
    (tmp_path / "ratings.csv").write_text("Date,Name,Year,Letterboxd URI,Rating\n" + rows)
    export = read_export(tmp_path / "ratings.csv")
    report = MovieMatcher(load_movies(here)).match_all(export.rows)
    assert report.counts() == {"exact": 18, "fuzzy": 0, "ambiguous": 0, "unmatched": 0}
    result = import_user(here, "Zoë", export, report.matches, 1)
    assert ratings_of(result) == {movie: movie / 4 for movie in range(2, 20)}


# in a service


def imported(*events) -> ImportedUser: # movieId, rating, time
    named = [ImportedEvent(movieId=movie, title="", rating=stars, time=time) for movie, stars, time in events]
    return ImportedUser("Zoë", "tiny", [], named)


def test_times_are_those_of_the_export(model):
    as_of = model.interactions.as_of
    history = imported_user_history(model, imported((5, 4.0, as_of - 900), (2, 3.0, as_of - 300), (9, None, None)))
    assert (history.timestamp - as_of).tolist() == [-900, -300, -1] and history.item_idx.tolist() == [4, 1, 8]
    assert np.isnan(history.rating[2]) and history.confidence.tolist() == [1.5, 0.5, 1.0]


def test_times_beyond_the_data_keep_their_gaps(model):
    as_of = model.interactions.as_of
    history = imported_user_history(model, imported((5, 4.0, as_of + 1_000), (2, 3.0, as_of + 5_000)))
    assert (history.timestamp - as_of).tolist() == [-4_001, -1]


def test_likes_and_movies_that_are_gone(model):
    user = imported((5, None, 1), (777, 5.0, 2), (6, 2.0, 3))
    liked = replace(user, events=[replace(event, liked=True) for event in user.events])
    history = imported_user_history(model, liked)
    assert history.item_idx.tolist() == [4, 5] and history.rating.tolist() == [5.0, 2.0]


OFF = (*NEURAL_SOURCES, *CONTENT_SOURCES, *UNORDERED_RANKERS)  # unless asked for


@pytest.mark.parametrize("system", [name for name in SYSTEMS if name not in OFF])
def test_a_copy_of_a_user_gets_that_users_list(open_service, system):
    """The same events, imported: the same recommendations, none of them seen; ALS has a vector that was folded in."""
    service = open_service(system)
    data, ids = service.model.interactions, service.model.catalogue.movie_ids
    mine = slice(data.indptr[7], data.indptr[8])
    rows = zip(data.item_idx[mine], data.rating[mine], data.timestamp[mine], strict=True)
    user = imported(*((int(ids[item]), float(stars), int(time)) for item, stars, time in rows))
    answer, expected = recommend_to_imported_user(service.model, user, 10), service.recommend(7, 10)
    seen = {event.movieId for event in user.events}
    assert answer.items and not seen & {movie.movieId for movie in answer.items}
    if system not in ("als", "hybrid", "ranked_v1", "ranked_v2", "ranked_v3"):
        assert [movie.movieId for movie in answer.items] == [movie.movieId for movie in expected.items]
    else:
        common = {movie.movieId for movie in answer.items} & {movie.movieId for movie in expected.items}
        assert len(common) >= 7


def test_debugging_an_imported_user(service):
    history = imported_user_history(service.model, imported((5, 4.0, 1), (2, 3.0, 2)))
    report = debug_report(service.model, history, None, 5)
    assert report["user_idx"] is None and report["events"] == 2 and len(report["items"]) == 5
    json.dumps(report, allow_nan=False)


def add_user(settings, name="Zoë", n_movies=12):
    export = make_export(*((movie, 4.0, 1_100_000_000 + movie) for movie in range(1, n_movies + 1)))
    return import_user(settings, name, export, MovieMatcher(load_movies(settings)).match_all(export.rows).matches, 1)


@pytest.fixture(scope="module")
def with_user(tiny_run, tmp_path_factory):
    """A copy of the tiny run with an imported user."""
    settings = copy_of_run(tiny_run[0], tmp_path_factory.mktemp("with_user"))
    add_user(settings)
    return settings


@pytest.mark.parametrize("system", ["ranked_v3", "ranked_v1", "hybrid", "popularity"])
def test_recommending_by_name(with_user, system):
    result = recommend(with_user, "Zoë", 5, system, "global-time")
    assert len(result.table) == len(result.debug) == 5 and not set(result.table.movieId) & set(range(1, 13))
    assert result.notes == [] and {"rank_als", "score_als"} <= set(result.debug.columns)
    assert recommend(with_user, "Zoe\u0308", 5, system, "global-time").table.equals(result.table)
    with pytest.raises(NotFoundError, match=r"there is no user Zoe in tiny: .* and no user of that name was imported"):
        recommend(with_user, "Zoe", 5)


def test_a_dataset_that_grows_does_not_take_an_imported_user_along_silently(with_user):
    """A name that becomes a userId: the dataset's own user is answered, and it is said."""
    alone = recommend(with_user, "8", 5).table
    file, user = user_file(with_user, "8"), replace(imported((5, 4.0, 1)), name="8")
    file.write_text(json.dumps({"name": user.name, "dataset": "tiny", "events": []}), encoding="utf-8")
    try:
        result = recommend(with_user, "8", 5)
    finally:
        file.unlink()
    assert result.table.equals(alone) and "8 is a userId of tiny, whose list this is" in result.notes[0]


def test_movies_that_the_dataset_lost_are_said(with_user):
    add_user(with_user, "Lost")
    file = user_file(with_user, "Lost")
    stored = json.loads(file.read_text(encoding="utf-8"))
    stored["events"][0]["movieId"] = 999
    file.write_text(json.dumps(stored), encoding="utf-8")
    assert recommend(with_user, "Lost", 5).notes == ["imported movies that aren't in tiny any more: 1 of 12"]


def without_measurements(value): # JSON
    """A value without what differs between two runs of the same data: times and memory."""
    if isinstance(value, list):
        return [without_measurements(one) for one in value]
    if not isinstance(value, dict):
        return value
    measured = ("seconds", "fit_seconds", "peak_memory_mb", "sha256")  # sha256: of a .skops file, see `contents`
    return {name: without_measurements(one) for name, one in value.items() if name not in measured}


def contents(folder) -> dict: # path → bytes, or the values of a JSON file without measurements
    found = {}
    for file in sorted(folder.rglob("*")):
        # a .skops file is a zip file with the time in it; what V1 and V2 learned is compared by their lists
        if file.is_file() and file.suffix not in (".lock", ".duckdb", ".skops"):
            data = file.read_bytes()
            found[str(file.relative_to(folder))] = (
                without_measurements(json.loads(data)) if file.suffix == ".json" else data
            )
    return found


def is_same_table(one, other) -> bool: # Parquet files
    """DuckDB adds up on several threads, so the last bit of a mean may differ between any two runs."""
    tables = (query("SELECT * FROM t", t=file) for file in (one, other))
    pd.testing.assert_frame_equal(*tables, rtol=1e-12, atol=0)
    return True


@pytest.mark.slow
def test_a_run_is_byte_for_byte_the_same_with_imported_users(tmp_path):
    """Not in splits, features, popularity, models, lists or metrics: none of them changes by a byte."""
    folders = [tmp_path / "without", tmp_path / "with"]
    for folder in folders:
        settings = tiny_settings(folder, protocol="global-time")
        archive = write_archive(folder / "archive")
        ingest(settings, archive)
        if folder.name == "with":
            add_user(settings)
            paths(settings).feedback.write_text('{"time": 1, "userId": 3, "movieId": 5, "action": "like"}\n')
        run(settings, archive)
    without, with_users = (contents(folder / "data" / "processed") for folder in folders)
    assert without.keys() == with_users.keys() and len(without) > 20
    different = [name for name in without if without[name] != with_users[name]]
    assert all(name.startswith("tiny/features/") for name in different), different
    assert all(is_same_table(*(folder / "data" / "processed" / name for folder in folders)) for name in different)
    models = [contents(folder / "reports" / "models") for folder in folders]
    assert models[0] == models[1] and len(models[0]) > 10
    events = find_imported_user(settings, "Zoë").events
    assert recommend(settings, "Zoë", 5).notes == [] and len(events) == 12, "and after the run they are known"


@pytest.mark.slow
def test_imported_users_outlive_other_indices(tmp_path):
    """The next run gives all movies other indices; the file names them by the dataset's ids."""
    archive = write_archive(tmp_path / "archive")
    settings = tiny_settings(tmp_path, protocol="global-time")
    ingest(settings, archive)
    add_user(settings)
    with (archive / "movies.csv").open("a") as file:
        file.write('0,"Another Film (1900)",Drama\n')
    run(settings, archive)
    service = RecommenderService.open(settings)
    history = imported_user_history(service.model, find_imported_user(settings, "Zoë"))
    assert history.item_idx.tolist() == list(range(1, 13)), "movieId 1 was item_idx 0"
    assert not set(recommend(settings, "Zoë", 10).table.movieId) & set(range(1, 13))
