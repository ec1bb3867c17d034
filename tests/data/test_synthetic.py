"""Synthetic archives: the official layout, the wanted marginals, the same bytes each time."""

import zipfile

import numpy as np
import pytest
from helpers import tiny_settings

from movierec.config import ConfigError, DataError
from movierec.data.ingest import ingest
from movierec.data.synthetic import STAR_SHARES, synthesize
from movierec.data.tables import query


def test_official_layout_and_marginals(tmp_path):
    file = tmp_path / "ml-20m.zip"
    synthesize(file, scale=0.01)
    with zipfile.ZipFile(file) as packed:
        names = ("README.txt", "links.csv", "movies.csv", "ratings.csv", "tags.csv")
        assert sorted(packed.namelist()) == [f"ml-20m/{name}" for name in names]
        assert b"synthetic" in packed.read("ml-20m/README.txt")
        assert packed.read("ml-20m/ratings.csv").startswith(b"userId,movieId,rating,timestamp\n1,")
    tables = ingest(tiny_settings(tmp_path, dataset="synthetic"), file)
    assert tables.manifest["contents"]["rows"] == {
        "ratings": 200_003, "users": 1_385, "movies": 2_728, "links": 2_728, "tags": 4_655}
    ratings = query("SELECT * FROM r", r=tables.path / "ratings.parquet")
    lengths = ratings.groupby("userId").size()
    assert lengths.min() >= 20 and 130 < lengths.mean() < 160 and lengths.max() > 1_000
    popularity = ratings.groupby("movieId").size().sort_values(ascending=False)
    top_tenth = popularity.iloc[: len(popularity) // 10].sum() / len(ratings)
    assert top_tenth > 0.4, "a tenth of the movies should have a large share of the ratings"
    shares = ratings.rating.value_counts(normalize=True).sort_index().to_numpy()
    assert np.abs(shares - STAR_SHARES).max() < 0.01
    gaps = ratings.sort_values(["userId", "timestamp"]).groupby("userId").timestamp.diff()
    assert (gaps < 120).mean() > 0.8 and (gaps > 86_400).mean() > 0.005, "sessions, and long pauses between them"
    assert query("SELECT count(*) AS n FROM l WHERE tmdbId IS NULL", l=tables.path / "links.parquet").n[0] > 0


def test_same_arguments_same_bytes(tmp_path):
    archives = []
    for number, seed in enumerate((0, 0, 1)):
        file = tmp_path / f"{number}.zip"
        synthesize(file, scale=0.001, seed=seed)
        archives.append(file.read_bytes())
    assert archives[0] == archives[1] != archives[2]


def test_impossible_arguments(tmp_path):
    with pytest.raises(ConfigError, match=r"no shape ml-20 \(did you mean ml-20m\?\)"):
        synthesize(tmp_path / "x.zip", like="ml-20")
    for scale in (0, -1, 1.5, float("nan")):
        with pytest.raises(ConfigError, match="the scale"):
            synthesize(tmp_path / "x.zip", scale=scale)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="can't be written"):
        synthesize(tmp_path / "file" / "x.zip", scale=0.001)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
