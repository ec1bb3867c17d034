"""Shared fixtures: isolated folders, a tiny made-up archive, and finished runs that are read only.

A run is made once for all tests: the workers of pytest-xdist share its folder, and the second one finds every artifact
up to date.
"""

import os
from functools import partial
from pathlib import Path

import pytest
from helpers import copy_of_run, tiny_settings, write_archive

from movierec.artifacts import file_lock
from movierec.config import Settings, load_settings
from movierec.pipeline import run


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Fast tests come first, in whatever order they are otherwise."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


@pytest.fixture(autouse=True)
def _no_outside_settings(monkeypatch):
    """A developer's own MOVIEREC_ variables must not change what the tests see."""
    for name in [name for name in os.environ if name.startswith("MOVIEREC_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def archive(tmp_path) -> Path:
    """The tiny archive as a folder."""
    return write_archive(tmp_path / "archive")


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory) -> Path:
    """A folder that all workers of this test session share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def tiny_run(shared_folder) -> tuple[Settings, dict]:
    """A finished run of the tiny archive; read only."""
    folder = shared_folder / "tiny"
    folder.mkdir(exist_ok=True)
    settings = tiny_settings(folder)
    with file_lock(folder):
        archive = folder / "archive"
        return settings, run(settings, archive if archive.exists() else write_archive(archive))


@pytest.fixture(scope="session")
def sampled_run(tiny_run, shared_folder) -> tuple[Settings, dict]:
    """The tiny run, evaluated on a random sample of eight users under each protocol; read only."""
    folder = shared_folder / "sampled"
    folder.mkdir(exist_ok=True)
    with file_lock(folder):
        is_copied = (folder / "data").exists()
        make = tiny_settings if is_copied else partial(copy_of_run, tiny_run[0])
        settings = make(folder, evaluation_users=8)
        return settings, run(settings)


@pytest.fixture(scope="session")
def small_run(shared_folder) -> tuple[Settings, dict]:
    """A finished run of the bundled MovieLens latest-small; read only, for slow tests."""
    folder = shared_folder / "bundled"
    folder.mkdir(exist_ok=True)
    settings = load_settings(data_dir=folder / "data", reports_dir=folder / "reports")
    with file_lock(folder):
        return settings, run(settings)
