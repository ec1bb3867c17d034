"""Fixtures of the data tests: the tiny archive as tables, interactions and splits, made once; read only."""

import pytest
from helpers import tiny_settings, write_archive

from movierec.artifacts import Artifact
from movierec.config import Settings
from movierec.data.ingest import ingest
from movierec.data.interactions import build_interactions
from movierec.data.splits import PROTOCOL_RULES, build_split
from movierec.data.tables import query


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> tuple[Settings, Artifact, Artifact]:
    """Settings, tables and interactions of the tiny archive."""
    folder = tmp_path_factory.mktemp("data")
    settings = tiny_settings(folder)
    tables = ingest(settings, write_archive(folder / "archive"))
    return settings, tables, build_interactions(settings, tables)


@pytest.fixture(scope="session")
def ratings(tiny):
    """The ratings in the order of the file."""
    _, tables, _ = tiny
    return query("SELECT * FROM ratings ORDER BY row", ratings=tables.path / "ratings.parquet")


@pytest.fixture(scope="session")
def splits(tiny) -> dict[str, Artifact]:
    """The split of each protocol."""
    settings, _, data = tiny
    return {protocol: build_split(settings, data, protocol) for protocol in PROTOCOL_RULES}
