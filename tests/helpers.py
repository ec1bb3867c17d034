"""What several tests share: a tiny made-up archive and settings for it."""

import shutil
import zipfile
from pathlib import Path

import numpy as np

from movierec.config import Settings, load_settings

ROOT = Path(__file__).resolve().parent.parent


def write_archive(
    folder: Path, n_users: int = 80, n_movies: int = 120, per_user: int = 40, seed: int = 0
) -> Path:
    """A small csv dataset with long-tailed films and two taste groups, spread over ten years, ties in time included."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    genres = ("Action", "Comedy", "Drama", "Horror")
    movies = [
        f'{m},"Film {m}, The ({1950 + m % 60})",{genres[m % 4]}|{genres[(m // 7) % 4]}'
        for m in range(1, n_movies + 1)
    ]
    (folder / "movies.csv").write_text("movieId,title,genres\n" + "\n".join(movies) + "\n")
    popularity = 1 / np.arange(1, n_movies + 1)
    lines = []
    for user in range(1, n_users + 1):
        taste = np.where(np.arange(n_movies) % 2 == user % 2, 4.0, 1.0) * popularity
        chosen = rng.choice(n_movies, per_user, replace=False, p=taste / taste.sum())
        start = 1_000_000_000 + int(rng.integers(0, 300_000_000))
        times = (
            start + np.sort(rng.integers(0, 40_000_000, per_user)) // 100_000 * 100_000
        )  # coarse, so that some tie
        ratings = np.clip(
            np.round(rng.normal(3.5 + 0.7 * (chosen % 2 == user % 2), 1, per_user) * 2) / 2, 0.5, 5
        )
        lines += [
            f"{user},{movie + 1},{rating},{time}"
            for movie, rating, time in zip(chosen, ratings, times, strict=True)
        ]
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + "\n".join(lines) + "\n")
    return folder


def zip_folder(folder: Path, target: Path, prefix: str = "tiny/") -> Path:
    """A folder's files as a zip archive."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, prefix + file.name)
    return target


TINY = {
    "list_size": 20,
    "cutoffs": (5, 10, 20),
    "bootstrap": 100,
    "als": {"factors": 8},
    "hybrid": {"pool_size": 40},
    "ranker": {"max_iter": 10, "min_samples_leaf": 20},
}


def tiny_settings(folder: Path, **changes) -> Settings:
    """Settings for the tiny archive, with every folder below `folder`."""
    return load_settings(
        **({"dataset": "tiny", "data_dir": folder / "data", "reports_dir": folder / "reports"} | TINY | changes)
    )


def copy_of_run(settings: Settings, folder: Path, **changes) -> Settings:
    """Settings for a copy of a finished run of the tiny archive, for tests that write; much faster than another run."""
    ignored = shutil.ignore_patterns("*.lock")
    shutil.copytree(settings.data_dir, folder / "data", ignore=ignored)
    shutil.copytree(settings.reports_dir, folder / "reports", ignore=ignored)
    return tiny_settings(folder, **changes)
