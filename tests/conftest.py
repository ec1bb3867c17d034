"""Shared fixtures: isolated folders, a tiny made-up archive, and one finished run of the bundled data."""

import os
from pathlib import Path

import pytest
from helpers import tiny_settings, write_archive

from movierec.config import Settings, load_settings
from movierec.pipeline import run


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
def tiny_run(tmp_path_factory) -> tuple[Settings, dict]:
    """A finished run of the tiny archive; read only."""
    folder = tmp_path_factory.mktemp("tiny")
    settings = tiny_settings(folder)
    return settings, run(settings, write_archive(folder / "archive"))


@pytest.fixture(scope="session")
def small_run(tmp_path_factory) -> tuple[Settings, dict]:
    """A finished run of the bundled MovieLens latest-small; read only, for slow tests."""
    folder = tmp_path_factory.mktemp("small")
    settings = load_settings(data_dir=folder / "data", reports_dir=folder / "reports")
    return settings, run(settings)
