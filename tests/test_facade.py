"""The Python interface: the same answers as the pipeline and the service, for archives, files and frames."""

import gc
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import ROOT, TINY, write_archive, zip_folder

import movierec
from movierec import facade
from movierec.artifacts import paths
from movierec.config import ArtifactError, ConfigError, DataError, MovierecError, NotFoundError, load_settings
from movierec.serving.service import recommend

COLUMNS = {"user": "who", "item": "film", "rating": "stars", "time": "when"}


def frames_of(archive: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tiny archive as data frames with other names."""
    ratings = pd.read_csv(archive / "ratings.csv")
    ratings["timestamp"] = pd.to_datetime(ratings["timestamp"], unit="s", utc=True)
    events = ratings.set_axis(["who", "film", "stars", "when"], axis=1)
    movies = pd.read_csv(archive / "movies.csv").rename(columns={"movieId": "film"})
    return events, movies.assign(genres=movies["genres"].str.split("|"))


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """The tiny archive as a folder."""
    return write_archive(tmp_path_factory.mktemp("source") / "tiny")


@pytest.fixture(scope="module")
def dataset(source, shared_folder) -> movierec.Dataset:
    """The tiny archive, in a folder where all test workers find what one of them has fitted."""
    return movierec.load_dataset(source, folder=shared_folder / "facade")


@pytest.fixture(scope="module")
def model(dataset) -> movierec.Model:
    """A source, fitted to it."""
    return dataset.fit("als", **TINY)


@pytest.fixture(scope="module")
def films(source, tmp_path_factory) -> movierec.Dataset:
    """The same events as frames."""
    events, movies = frames_of(source)
    return movierec.from_frame(events, **COLUMNS, items=movies, name="films", folder=tmp_path_factory.mktemp("films"))


def blocks_of_readme() -> list[str]:
    """The Python code in the README's section on it."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## From Python")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


@pytest.mark.slow
def test_the_ten_lines_of_the_readme_run(tmp_path):
    code = blocks_of_readme()[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    code += "\nassert again.equals(model.recommend(42, k=5)); print(*similar['title'], *metrics.index)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "Toy Story 2" in done.stdout and "ranked_v3" in done.stdout
    assert [file.name for file in tmp_path.iterdir()] == ["my-model"], "nothing else is left"


def test_the_lines_of_the_readme_on_frames_run(source):
    events, movies = frames_of(source)
    names = {"movierec": movierec, "df": events, "films": movies}
    exec(blocks_of_readme()[1], names)
    assert names["model"].recommend(7, k=3).columns[1] == "film"


def test_importing_the_package_imports_nothing_else():
    code = "import sys, movierec; print(sorted({'numpy', 'pandas', 'duckdb', 'pydantic', 'typing'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_package_has_these_names_and_no_other():
    assert movierec.load is facade.load and movierec.Model is facade.Model
    assert set(movierec.__all__) <= set(dir(movierec))
    with pytest.raises(AttributeError, match="has no attribute 'recommend'"):
        movierec.recommend  # noqa: B018


@pytest.mark.parametrize("system", ["popularity", "als_recent", "sequential", "hybrid", "ranked_v3", None])
def test_a_fit_recommends_what_a_run_does(dataset, tiny_run, system):
    settings, results = tiny_run
    fitted = dataset.fit(system, **TINY)
    assert fitted.system == (system or results["global-time"]["chosen_on_validation"])
    for user in (1, 7, 80):
        expected = recommend(settings, user, 10, system, "global-time").table
        if system not in ("ranked_v3", None):  # nothing is validated, so nothing is calibrated
            expected = expected.drop(columns=["probability", "expected_rating"], errors="ignore")
        pd.testing.assert_frame_equal(fitted.recommend(user), expected)


def test_an_evaluation_is_that_of_a_run(dataset, tiny_run, tmp_path, monkeypatch):
    _, results = tiny_run
    monkeypatch.setenv("MOVIEREC_RESULTS_DIR", str(tmp_path / "published"))
    found = dataset.results("global-time", **TINY)
    for part in ("systems", "segments", "significance", "chosen_on_validation"):
        assert found[part] == results["global-time"][part]
    table = dataset.evaluate("global-time", **TINY)
    assert table.loc["hybrid", "ndcg@10"] == results["global-time"]["systems"]["hybrid"]["ndcg@10"]
    assert not (tmp_path / "published").exists(), "an evaluation at the prompt publishes nothing"
    with pytest.raises(NotFoundError, match=r"no protocol globaltime \(did you mean global-time\?\)"):
        dataset.evaluate("globaltime")


@pytest.mark.parametrize(("system", "sources"), [
    ("popularity", ["popularity", "als", "genre"]),
    ("als", ["als", "genre"]),
    ("als_recent", ["als", "als_recent", "genre"]),
])
def test_a_source_is_fitted_without_the_rest(dataset, system, sources):
    served = dataset.fit(system, **TINY)._service.model
    assert list(served.hybrid.sources) == sources and served.ranker is None
    assert served.settings.reports_dir.is_dir() and not list(served.settings.reports_dir.rglob("ranked_v*"))


def test_a_new_user_gets_other_movies_than_the_ones_watched(model):
    history = [("Toy Story", 5.0)]
    with pytest.raises(NotFoundError, match="no movie Toy Story in tiny"):
        model.recommend(history)
    watched = [(1, 5.0), 2, ("The Film 3", 4), "The Film 4 (1954)"]
    found = model.recommend(watched, k=20)
    assert len(found) == 20 and not set(found.movieId) & {1, 2, 3, 4}
    pd.testing.assert_frame_equal(model.recommend([(1, 5.0), (2, None), ("3", 4), 4], k=20), found)
    pd.testing.assert_frame_equal(model.recommend({1: 5.0, 2: None, 3: 4, 4: None}, k=20), found)
    pairs = pd.DataFrame({"movie": [1, 3], "stars": [5.0, 1.0]})
    pd.testing.assert_frame_equal(model.recommend(pairs), model.recommend([(1, 5.0), (3, 1.0)]))
    assert len(model.recommend(np.array([1, 2]))) == len(model.recommend(iter([1, 2]))) == 10
    assert set(model.recommend([], k=3)["rank"]) <= {1, 2, 3}


def test_users_are_named_by_id_in_any_type(model):
    expected = model.recommend(7)
    for user in ("7", 7.0, np.int64(7), np.float64(7), np.str_("7")):
        pd.testing.assert_frame_equal(model.recommend(user), expected)


@pytest.mark.parametrize(("ask", "error", "message"), [
    (lambda model: model.recommend(4711), NotFoundError, "no user 4711 in tiny: the 80 userIds go from 1 to 80"),
    (lambda model: model.recommend(None), NotFoundError, "no user None"),
    (lambda model: model.recommend(7.5), NotFoundError, "no user 7.5"),
    (lambda model: model.recommend([4711]), NotFoundError, "no movie 4711 in tiny: the 120 ids go from 1 to 120"),
    (lambda model: model.recommend(["The Flim 3"]), NotFoundError, r"did you mean .*3 \(The Film 3, 1953\)"),
    (lambda model: model.recommend(("The Film 3", 5.0)), NotFoundError, r"5.0 is no movie: .* \[\(id, rating\), …\]"),
    (lambda model: model.recommend([(1, 50)]), DataError, "50.0 is not a rating"),
    (lambda model: model.recommend([(1, float("nan"))]), DataError, "nan is not a rating"),
    (lambda model: model.recommend([(1, "good")]), DataError, "'good' is not a rating of 1"),
    (lambda model: model.recommend([(1, 2, 3)]), DataError, r"\(1, 2, 3\) in the history is neither"),
    (lambda model: model.recommend(7, k=0), ConfigError, "k = 0 is no length"),
    (lambda model: model.recommend(7, k=-3), ConfigError, "k = -3 is no length"),
    (lambda model: model.recommend(7, k=2.5), ConfigError, "k = 2.5 is no length"),
    (lambda model: model.similar(1, k=True), ConfigError, "k = True is no length"),
    (lambda model: model.similar(0), NotFoundError, "no movie 0 in tiny"),
])
def test_what_can_not_be_answered_is_a_sentence(model, ask, error, message):
    with pytest.raises(error, match=message):
        ask(model)


def test_a_title_of_several_movies_is_refused():
    events = pd.DataFrame({"userId": [1, 1, 2], "movieId": [1, 2, 1], "timestamp": [10**9, 10**9 + 1, 10**9]})
    movies = pd.DataFrame({"movieId": [1, 2], "title": ["Hamlet (1948)", "Hamlet (1996)"]})
    model = movierec.from_frame(events, items=movies).fit("popularity")
    with pytest.raises(NotFoundError, match=r"2 movies of frame have the title Hamlet: give the id, 1 \(Hamlet, 19"):
        model.similar("Hamlet")
    assert model.recommend(["hamlet 1948"])["title"].tolist() == ["Hamlet"]


def test_similar_movies_are_not_the_movie_itself(model):
    found = model.similar("The Film 5", k=6)
    assert len(found) == 6 and 5 not in set(found.movieId) and found.score.is_monotonic_decreasing


def test_a_longer_list_than_there_are_movies_is_as_long_as_it_can_be(model):
    assert len(model.recommend(7, k=np.int64(1_000))) == 120 - 40


def test_systems_and_settings_that_do_not_exist(dataset):
    with pytest.raises(NotFoundError, match=r"no system hybrd \(did you mean hybrid\?\)"):
        dataset.fit("hybrd")
    with pytest.raises(ConfigError, match=r"no setting als.factrs \(did you mean als.factors\?\)"):
        dataset.fit("als", als={"factrs": 3})
    with pytest.raises(ConfigError, match="data_dir can't be set here"):
        dataset.fit("als", data_dir="elsewhere")
    with pytest.raises(NotFoundError, match="strong-generalization only measures"):
        dataset.fit(protocol="strong-generalization")


def test_two_models_do_not_disturb_each_other(dataset, model, films, tmp_path):
    before, similar = model.recommend(7), model.similar(5)
    other = dataset.fit("als", **TINY | {"als": {"factors": 4}}, half_life_days=3.0, neutral_rating=1.0)
    assert not other.similar(5).equals(similar)
    same_events = films.fit("als", **TINY).recommend(7)
    assert same_events["film"].tolist() == before["movieId"].tolist()
    pd.testing.assert_frame_equal(model.recommend(7), before)
    model.save(tmp_path / "model")
    pd.testing.assert_frame_equal(movierec.load(tmp_path / "model").similar(5), similar)


def test_many_threads_get_what_one_gets(dataset, model):
    users = [*range(1, 13)] * 2
    for one in (model, dataset.fit("ranked_v2", **TINY)):
        alone = [one.recommend(user, k=5) for user in users]
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(lambda user, one=one: one.recommend(user, k=5), users))
            events = list(pool.map(lambda user, one=one: one.recommend(["The Film 3", user], k=5), users))
        assert all(found.equals(expected) for found, expected in zip(together, alone, strict=True))
        assert all(len(found) == 5 for found in events)


# saving and loading


@pytest.mark.parametrize("system", ["popularity", "hybrid", "ranked_v3"])
def test_a_saved_model_is_the_model(dataset, tmp_path, system):
    fitted = dataset.fit(system, **TINY, service={"genre_share": 0.9})
    fitted.save(tmp_path / "saved" / "model")
    expected, similar = fitted.recommend(7), fitted.similar(5)
    (tmp_path / "saved").rename(tmp_path / "moved")
    loaded = movierec.load(str(tmp_path / "moved" / "model"))
    assert repr(loaded) == repr(fitted) == f"<Model {system} of tiny: 80 users, 120 movies>"
    pd.testing.assert_frame_equal(loaded.recommend(7), expected)
    pd.testing.assert_frame_equal(loaded.similar(5), similar)
    assert not [file for file in (tmp_path / "moved").rglob("*") if file.suffix in (".pkl", ".pickle", ".joblib")]
    loaded.save(tmp_path / "moved" / "model")  # onto itself
    pd.testing.assert_frame_equal(movierec.load(tmp_path / "moved" / "model").recommend(7), expected)


def test_a_saved_model_needs_nothing_else(source, tmp_path):
    events, movies = frames_of(source)
    fitted = movierec.from_frame(events, **COLUMNS, items=movies, folder=tmp_path / "work").fit("popularity", **TINY)
    fitted.save(tmp_path / "model")
    expected = fitted.recommend(7)
    (tmp_path / "work").rename(tmp_path / "gone")
    loaded = movierec.load(tmp_path / "model")
    pd.testing.assert_frame_equal(loaded.recommend(7), expected)
    assert expected.columns[1] == "film"


def test_saving_replaces_a_model_and_nothing_else(model, tmp_path):
    for _ in range(2):
        model.save(tmp_path / "model")
    assert [file.name for file in tmp_path.iterdir()] == ["model"], "no temporary is left"
    (tmp_path / "empty").mkdir()
    model.save(tmp_path / "empty")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").write_text("three years")
    (tmp_path / "file").write_text("a file")
    for name in ("notes", "file"):
        with pytest.raises(ConfigError, match="exists and is no saved model: name another folder"):
            model.save(tmp_path / name)
    assert (tmp_path / "notes" / "thesis.txt").read_text() == "three years"


def test_a_save_that_fails_leaves_the_earlier_model(model, tmp_path, monkeypatch):
    model.save(tmp_path / "model")

    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(facade, "write_json", fail)
    with pytest.raises(OSError, match="no space"):
        model.save(tmp_path / "model")
    assert len(movierec.load(tmp_path / "model").recommend(7)) == 10
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def test_a_saved_model_that_can_not_be_used_is_a_sentence(dataset, tmp_path):
    with pytest.raises(NotFoundError, match=r"no saved model in .*nowhere: `Model.save` writes one"):
        movierec.load(tmp_path / "nowhere")
    dataset.fit("ranked_v2", **TINY).save(tmp_path / "model")
    file = tmp_path / "model" / "model.json"
    description = json.loads(file.read_text())
    file.write_text(json.dumps(description | {"movierec": "0.0.1"}))
    with pytest.raises(ArtifactError, match=r"was saved by movierec 0.0.1, this is .*: fit it again and save it"):
        movierec.load(tmp_path / "model")
    for damaged in ("not JSON", "[]", "{}"):
        file.write_text(damaged)
        with pytest.raises(ArtifactError, match="is damaged: fit the model again"):
            movierec.load(tmp_path / "model")
    file.write_text(json.dumps(description | {"dataset": "another"}))
    with pytest.raises(ArtifactError, match="can't be opened"):
        movierec.load(tmp_path / "model")
    file.write_text(json.dumps(description))
    for damaged in ("users.parquet", "user_factors.npy", "item_idx.npy"):
        (found,) = [one for one in (tmp_path / "model").rglob(damaged) if "als_recent" not in one.parts]
        content = found.read_bytes()
        found.write_bytes(content[: len(content) // 2])
        with pytest.raises(ArtifactError, match=r"can't be opened: [^`]*: fit it again and save it"):
            movierec.load(tmp_path / "model")
        found.write_bytes(content)
    movierec.load(tmp_path / "model")


# folders


def test_a_temporary_folder_goes_when_nothing_uses_it(source):
    data = movierec.load_dataset(source)
    fitted = data.fit("popularity", **TINY)
    place = data._folder.path
    del data
    gc.collect()
    assert place.is_dir() and len(fitted.recommend(7)) == 10, "the model needs it"
    del fitted
    gc.collect()
    assert not place.exists()


def test_a_temporary_folder_goes_when_python_ends(source):
    """And not when a forked child does."""
    code = f"""
import os, sys, movierec
data = movierec.load_dataset({str(source)!r})
if os.fork() == 0:
    sys.exit()
os.wait()
print(data._folder.path)
assert data._folder.path.is_dir()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not Path(done.stdout.strip()).exists() and done.stderr == ""


def test_in_a_folder_of_ones_own_nothing_is_done_twice(dataset, source, shared_folder):
    def made_at(data):
        served = data.fit("ranked_v1", **TINY)._service.model
        places = (paths(served.settings).tables, served.artifacts.sources.path, served.artifacts.rankers.path)
        return [(place, (place / "manifest.json").stat().st_mtime_ns) for place in places]

    assert made_at(dataset) == made_at(movierec.load_dataset(source, folder=shared_folder / "facade"))


def test_other_data_in_the_same_folder_are_other_data(source, tmp_path):
    events, movies = frames_of(source)
    first = movierec.from_frame(events, **COLUMNS, folder=tmp_path)
    expected = first.fit("popularity").recommend(7)
    second = movierec.from_frame(events[events["who"] != 7], **COLUMNS, items=movies, folder=tmp_path)
    with pytest.raises(NotFoundError, match="no user 7"):
        second.fit("popularity").recommend(7)
    pd.testing.assert_frame_equal(first.fit("popularity").recommend(7), expected)


# sources


def test_archives_and_files_are_opened_by_what_they_are(source, tmp_path):
    counts = "3,200 events, 80 users, 120 movies"
    assert repr(movierec.load_dataset(zip_folder(source, tmp_path / "My films.zip"))) == f"<Dataset My-films: {counts}>"
    assert repr(movierec.load_dataset(str(source))) == f"<Dataset tiny: {counts}>"
    csv = source / "ratings.csv"
    assert repr(movierec.load_dataset(csv, items=source / "movies.csv")) == f"<Dataset ratings: {counts}>"
    renamed = tmp_path / "plays.csv"
    renamed.write_text(csv.read_text().replace("userId,movieId,rating,timestamp", "who,film,stars,when"))
    found = movierec.load_dataset(renamed, **COLUMNS).fit("popularity").recommend(7, k=3)
    assert found.columns[1] == "film" and found["film"].dtype.kind == "i"


def test_sources_that_are_not_there(source, tmp_path):
    with pytest.raises(NotFoundError, match=r"neither a file or folder .* data set \(did you mean ml-1m\?\)"):
        movierec.load_dataset("ml-1n")
    with pytest.raises(ConfigError, match="is no file of events: only for one can columns"):
        movierec.load_dataset(source, user="who")
    with pytest.raises(ConfigError, match=r"no option itms \(did you mean items\?\)"):
        movierec.load_dataset(source / "ratings.csv", itms="x")
    with pytest.raises(ConfigError, match="on_bad_rows = 'ignore' is not usable"):
        movierec.load_dataset(source, on_bad_rows="ignore")
    with pytest.raises(DataError, match="it is not a MovieLens dataset"):
        movierec.load_dataset(tmp_path)


def test_a_published_archive_is_downloaded_once_to_the_data_folder(source, tmp_path, monkeypatch):
    monkeypatch.setenv("MOVIEREC_DATA_DIR", str(tmp_path / "data"))
    downloads = []

    def fetch(settings, report):
        downloads.append(settings.dataset)
        archive = paths(settings).archives()[0]
        archive.parent.mkdir(parents=True)
        return facade.Artifact(zip_folder(source, archive).parent, {"contents": {}, "seconds": 0}, built=True)

    monkeypatch.setattr(facade, "fetch", fetch)
    for _ in range(2):
        assert repr(movierec.load_dataset("ml-1m")).startswith("<Dataset ml-1m: 3,200 events")
    assert downloads == ["ml-1m"] and load_settings().data_dir == tmp_path / "data"


# frames


@pytest.mark.parametrize(("convert", "kind"), [
    (lambda ids: ids, "i"),
    (lambda ids: ids + 10**12, "i"),
    (lambda ids: ids.astype(str), "U"),
    (lambda ids: "film " + ids.astype(str), "U"),
    (lambda ids: ids.astype(float), "i"),
    (lambda ids: ids.astype(str).astype("category"), "U"),
])
def test_ids_come_back_as_they_were(source, convert, kind):
    events, movies = (frame.assign(film=convert(frame["film"])) for frame in frames_of(source))
    found = movierec.from_frame(events, **COLUMNS, items=movies).fit("popularity").recommend(7)
    assert len(found) == 10 and set(found["film"]) <= set(movies["film"])
    assert found["film"].dtype.kind == kind or (kind == "U" and pd.api.types.is_string_dtype(found["film"]))
    merged = found.merge(movies.astype({"film": found["film"].dtype}), on="film")
    assert len(merged) == 10 and (merged["title_x"].str[:8] == "The Film").all()


def test_titles_may_be_the_ids(source):
    """As in a frame without a catalogue: then there is one column less to name."""
    events, _ = frames_of(source)
    events = events.assign(title="Film " + events["film"].astype(str)).drop(columns="film")
    model = movierec.from_frame(events, **COLUMNS | {"item": "title"}).fit("popularity")
    found = model.recommend([("Film 1", 5)], k=3)
    assert found.columns.tolist() == ["rank", "movieId", "title", "year", "genres", "score", "reason"]
    assert found["movieId"].tolist() == found["title"].tolist()


def test_bad_rows_are_named_by_position_or_put_aside(source):
    events, movies = frames_of(source)
    events = events.sample(frac=1, random_state=3)  # positions, not labels
    events.iloc[5, 2], events.iloc[9, 3], events.iloc[11, 1] = 11, pd.NaT, 999
    with pytest.raises(DataError, match=r"the frame, row 5 \(from 0\): stars is 11.*frame, row 9 \(from 0\): when is"):
        movierec.from_frame(events, **COLUMNS, items=movies)
    data = movierec.from_frame(events, **COLUMNS, items=movies, on_bad_rows="quarantine")
    assert data.rejects["row"].tolist() == [5, 9, 11] and data.rejects["frame"].unique().tolist() == ["frame"]
    assert "3,197 events" in repr(data) and "999 is not in items" in data.rejects["reason"][2]
    assert data.rejects.columns.tolist() == ["frame", "row", "reason"]
    doubled = pd.concat([movies, movies[:1]])
    with pytest.raises(DataError, match=r"items, row 120 \(from 0\): movie 1 appears a second time"):
        movierec.from_frame(frames_of(source)[0], **COLUMNS, items=doubled)


def test_without_bad_rows_there_are_no_rejects(dataset, films):
    assert dataset.rejects.columns.tolist() == ["file", "line", "reason", "text"] and dataset.rejects.empty
    assert films.rejects.columns.tolist() == ["frame", "row", "reason"] and films.rejects.empty


def test_events_without_ratings_are_implicit_feedback(source):
    events, movies = frames_of(source)
    columns = {role: name for role, name in COLUMNS.items() if role != "rating"}
    data = movierec.from_frame(events[["who", "film", "when"]], **columns, items=movies)
    found = data.fit("als", **TINY).recommend(7)
    assert len(found) == 10 and found["title"].str.startswith("The Film").all()
    with pytest.raises(DataError, match="the frame has no column stars for the rating"):
        movierec.from_frame(events[["who", "film", "when"]], **COLUMNS)


def test_a_frame_is_not_changed(source):
    events, movies = frames_of(source)
    before = events.copy(), movies.copy()
    movierec.from_frame(events, **COLUMNS, items=movies)
    pd.testing.assert_frame_equal(events, before[0])
    pd.testing.assert_frame_equal(movies, before[1])


@pytest.mark.parametrize("protocol", ["global-time", "leave-last-out"])
def test_too_little_data_is_a_sentence(protocol):
    events = pd.DataFrame({"userId": [1, 2], "movieId": [1, 1], "rating": 4.0, "timestamp": [10**9, 10**9 + 1]})
    data = movierec.from_frame(events)
    for attempt in (data.fit, data.evaluate):
        with pytest.raises(MovierecError):
            attempt(protocol=protocol)
    assert len(data.fit("popularity").recommend([], k=5)) == 1, "what is popular can be said all the same"


def test_progress_is_shown_on_request_only(source, capsys):
    data = movierec.load_dataset(source)
    data.fit("popularity")
    assert capsys.readouterr() == ("", "")
    data.fit("popularity", progress=True, seed=7)
    assert "sources on all events" in capsys.readouterr().out
