"""Artifacts appear whole or not at all, are made again only when something changed, and survive a kill."""

import json
import subprocess
import threading

import numpy as np
import pytest
from helpers import ROOT

from movierec import config
from movierec.artifacts import (
    MODULES,
    build,
    commit_of,
    log_event,
    open_artifact,
    paths,
    read_arrays,
    read_manifest,
    remove_leftovers,
    replace_atomically,
    write_arrays,
    write_json,
)
from movierec.config import ArtifactError, NotFoundError, load_settings, package_folder


def write_file(text):
    """A stage that writes one file."""
    def make(folder):
        (folder / "file").write_text(text)
        return {"files": 1}
    return make


def folders_in(folder):
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def test_build_skips_only_what_is_the_same(tmp_path):
    place, make = tmp_path / "artifact", write_file("x")
    first = build(place, "config", {"a": 1}, {"input": "k"}, make)
    assert first.built and first.manifest["contents"] == {"files": 1}
    assert not build(place, "config", {"a": 1}, {"input": "k"}, make).built
    assert build(place, "config", {"a": 2}, {"input": "k"}, make).built, "another setting"
    assert build(place, "config", {"a": 2}, {"input": "other"}, make).built, "another input"
    assert build(place, "data.ingest", {"a": 2}, {"input": "other"}, make).built, "other code"
    assert folders_in(tmp_path) == ["artifact"]


def test_failed_build_leaves_the_old_artifact(tmp_path):
    place = tmp_path / "artifact"
    build(place, "config", {}, {}, write_file("old"))

    def fail(folder):
        (folder / "file").write_text("new")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(place, "config", {"changed": True}, {}, fail)
    assert (place / "file").read_text() == "old"
    assert folders_in(tmp_path) == ["artifact"]


def test_leftovers_of_a_killed_run_are_removed_by_the_next(tmp_path):
    stale = tmp_path / ".artifact.99999.tmp"
    stale.mkdir()
    with replace_atomically(tmp_path / "artifact") as folder:
        (folder / "file").touch()
    assert not stale.exists() and (tmp_path / "artifact" / "file").exists()


def test_killed_between_the_two_renames_the_old_artifact_comes_back(tmp_path):
    place = tmp_path / "artifact"
    build(place, "config", {}, {}, write_file("old"))
    place.rename(tmp_path / ".artifact.99999.old.tmp")
    (tmp_path / ".artifact.99999.tmp").mkdir()
    assert open_artifact(place, "missing").path == place and (place / "file").read_text() == "old"
    assert folders_in(tmp_path) == ["artifact"]


def test_remove_leftovers_of_one_process(tmp_path):
    """Its temporaries go, those of others stay; killed between the two renames, the old artifact comes back."""
    for name in ("a/.lists.12.tmp/inner", "a/.als.12.old.tmp", "b/.als.12.old.tmp", "b/als", "b/.lists.112.tmp"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "a" / ".als.12.old.tmp" / "manifest.json").touch()
    (tmp_path / "a" / ".lists.12.tmp" / ".manifest.json.12.tmp").touch()
    (tmp_path / "a" / ".results.json.12.tmp").touch()
    remove_leftovers(tmp_path, 12)
    remaining = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert remaining == {"a", "a/als", "a/als/manifest.json", "b", "b/als", "b/.lists.112.tmp"}
    remove_leftovers(tmp_path / "absent", 12)


def test_artifact_without_readable_manifest_is_made_again(tmp_path):
    place = tmp_path / "artifact"
    build(place, "config", {}, {}, write_file("x"))
    (place / "manifest.json").write_text('{"key": ')
    assert read_manifest(place) is None
    assert build(place, "config", {}, {}, write_file("x")).built


def test_two_builders_at_once_build_once(tmp_path):
    made = []
    start = threading.Barrier(4)

    def make(folder):
        made.append(folder)
        return {}

    def builder():
        start.wait()
        build(tmp_path / "artifact", "config", {}, {}, make)

    threads = [threading.Thread(target=builder) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_open_artifact_refuses_other_inputs(tmp_path):
    upstream = build(tmp_path / "up", "config", {"v": 1}, {}, write_file("1"))
    build(tmp_path / "down", "config", {}, {"up": upstream.key}, write_file("x"))
    assert open_artifact(tmp_path / "down", "missing", up=upstream).key
    changed = build(tmp_path / "up", "config", {"v": 2}, {}, write_file("2"))
    with pytest.raises(ArtifactError, match="made from other up"):
        open_artifact(tmp_path / "down", "missing", up=changed)
    with pytest.raises(NotFoundError, match="nothing here"):
        open_artifact(tmp_path / "absent", "nothing here")


def test_write_json_replaces_in_one_step(tmp_path):
    write_json(tmp_path / "a" / "file.json", {"é": 1})
    assert json.loads((tmp_path / "a" / "file.json").read_text(encoding="utf-8")) == {"é": 1}
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["file.json"]


def test_log_event_appends_a_line(tmp_path):
    log = tmp_path / "logs" / "run.jsonl"
    log_event(log, "started", dataset="tiny")
    log_event(log, "ended", path=tmp_path)
    first, second = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert (first["event"], first["dataset"], second["event"]) == ("started", "tiny", "ended")
    assert first["time"] <= second["time"] and second["path"] == str(tmp_path)


@pytest.mark.parametrize("mapped", [True, False])
def test_arrays_are_what_was_written(tmp_path, mapped):
    values, empty, text = np.arange(12.0).reshape(3, 4), np.zeros((0, 2), np.int32), np.array(["é", "b"])
    arrays = {"values": values, "empty": empty, "text": text}
    checksums = write_arrays(tmp_path / "model", arrays)
    read = read_arrays(tmp_path / "model", checksums, mapped)
    for name, array in arrays.items():
        assert read[name].dtype == array.dtype and np.array_equal(read[name], array)
    file = tmp_path / "model" / "values.npy"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match=r"values\.npy is damaged"):
        read_arrays(tmp_path / "model", checksums, mapped)


def test_arrays_can_hold_no_code(tmp_path):
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        write_arrays(tmp_path, {"objects": np.array([print], dtype=object)})


def test_results_can_be_written_elsewhere(tmp_path):
    settings = load_settings(reports_dir=tmp_path / "reports")
    assert paths(settings).results == tmp_path / "reports" / "results" / "ml-latest-small"
    settings = load_settings(reports_dir=tmp_path / "reports", results_dir=tmp_path / "mine")
    assert paths(settings).results == tmp_path / "mine" / "ml-latest-small"
    assert paths(settings).serving == tmp_path / "reports" / "models" / "ml-latest-small" / "serving"


def test_the_bundled_archive_serves_any_data_folder_and_comes_last(tmp_path):
    places = paths(load_settings(data_dir=tmp_path)).archives()
    assert places[0] == tmp_path / "raw" / "ml-latest-small.zip"
    assert [place for place in places if place.exists()] == [ROOT / "data" / "ml-latest-small.zip"] == places[-1:]
    assert not any(place.exists() for place in paths(load_settings(dataset="ml-1mm", data_dir=tmp_path)).archives())


def test_an_installed_package_has_the_bundled_archive_inside(tmp_path, monkeypatch):
    bundled = tmp_path / "site-packages" / "movierec" / "bundled" / "ml-latest-small.zip"
    bundled.parent.mkdir(parents=True)
    bundled.touch()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(config, "package_folder", lambda: bundled.parents[1])
    settings = load_settings()
    assert settings.data_dir == tmp_path / "here" / "data" and settings.reports_dir == tmp_path / "here" / "reports"
    assert [place for place in paths(settings).archives() if place.exists()] == [bundled]


def test_modules_are_those_of_the_package():
    for name in MODULES:
        assert (package_folder() / f"{name.replace('.', '/')}.py").is_file(), f"remove {name} from MODULES"


def test_a_commit_is_marked_if_its_code_was_changed(tmp_path):
    def git(*arguments):
        named = ("-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *named, *arguments], cwd=tmp_path, check=True, capture_output=True)

    assert commit_of(tmp_path) is None, "no checkout"
    git("init", "-q")
    for folder in ("movierec", "reports"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "file").write_text("1")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    commit = commit_of(tmp_path / "movierec")
    assert len(commit) >= 7 and "+" not in commit
    (tmp_path / "reports" / "file").write_text("2")
    assert commit_of(tmp_path) == commit, "results are written while measuring"
    (tmp_path / "movierec" / "file").write_text("2")
    assert commit_of(tmp_path) == f"{commit}+"
