"""What several tests share: a tiny made-up archive and settings for it."""

import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import sparse

from movierec.config import Settings, load_settings
from movierec.data.interactions import Interactions
from movierec.retrieval.fusion import USER_CONTEXTS

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


def add_genome(folder: Path, n_movies: int = 3) -> Path:
    """The folder, with a tag genome of three tags."""
    scores = [f"{movie},{tag},{movie * tag / 100}" for movie in range(1, n_movies + 1) for tag in (1, 2, 3)]
    (folder / "genome-tags.csv").write_text('tagId,tag\n1,007\n2,"love, actually"\n3,noir\n')
    (folder / "genome-scores.csv").write_text("\n".join(["movieId,tagId,relevance", *scores]) + "\n")
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
    ignored = shutil.ignore_patterns("*.lock", "*.tmp", "logs")  # what other tests may be writing
    shutil.copytree(settings.data_dir, folder / "data", ignore=ignored)
    shutil.copytree(settings.reports_dir, folder / "reports", ignore=ignored)
    return tiny_settings(folder, **changes)


def make_interactions(
    seed: int = 0, n_users: int = 30, n_items: int = 40, per_user: int = 12
) -> Interactions:
    """Random events; the last three items and the last user have none."""
    rng = np.random.default_rng(seed)
    users = np.repeat(np.arange(n_users - 1), per_user)
    items = np.concatenate([rng.permutation(n_items - 3)[:per_user] for _ in range(n_users - 1)])
    confidence = rng.choice([0, 0.5, 1.0, 2.5], len(users)).astype(np.float32)
    start, end = 10**9, 10**9 + 10**7
    times = np.sort(rng.integers(start, end, (n_users - 1, per_user)), axis=1).ravel().astype(np.int64)
    columns = users.astype(np.int32), items.astype(np.int32), confidence + 2.5, confidence, times
    return Interactions(*columns, n_users=n_users, n_items=n_items, as_of=end)


def make_histories(histories: list[list[int]], n_items: int) -> Interactions:
    """Interactions of users who liked these items, in this order."""
    users = np.repeat(np.arange(len(histories)), [len(history) for history in histories]).astype(np.int32)
    items = np.array([item for history in histories for item in history], np.int32)
    ones, times = np.ones(len(items), np.float32), np.arange(len(items), dtype=np.int64)
    return Interactions(users, items, ones * 5, ones * 2.5, times, len(histories), n_items, len(items))


def as_new_users(interactions: Interactions, users: np.ndarray) -> Interactions:
    """The events of some users as those of fold-in users, numbered from 0."""
    rows, events = interactions.events_of(np.asarray(users))
    columns = (getattr(interactions, name)[events] for name in ("item_idx", "rating", "confidence", "timestamp"))
    copies = Interactions(rows.astype(np.int32), *columns, n_users=len(users), n_items=interactions.n_items, as_of=0)
    return interactions.fold_in_users(copies)


def make_genres(n_items: int = 40) -> sparse.csr_matrix:
    """Which item has which of five genres, at random."""
    rng = np.random.default_rng(1)
    return sparse.csr_matrix((rng.random((n_items, 5)) < 0.4).astype(np.float32))


def make_years(n_items: int = 40) -> np.ndarray:
    """Years from three decades."""
    return (1980 + 10 * (np.arange(n_items) % 3)).astype(np.float32)


def same_in_all_contexts(**weights: float) -> dict[str, dict[str, float]]:
    """The same fusion weights in every user context."""
    return dict.fromkeys(USER_CONTEXTS, weights)


def make_irregular_histories(seed: int = 0, n_users: int = 30, n_items: int = 25) -> Interactions:
    """Up to 15 events per user at irregular times, some tied; the last item and the last user have none."""
    rng = np.random.default_rng(seed)
    lengths = np.append(rng.integers(0, 16, n_users - 1), 0)
    users = np.repeat(np.arange(n_users), lengths).astype(np.int32)
    items = np.concatenate([rng.permutation(n_items - 1)[:length] for length in lengths]).astype(np.int32)
    times = [1_000_000 + np.cumsum(rng.choice([0, 5, 4_000, 900_000], length)) for length in lengths]
    time = np.concatenate(times).astype(np.int64)
    rating = rng.integers(1, 11, len(users)).astype(np.float32) / 2
    confidence = np.maximum(rating - 2.5, 0).astype(np.float32)
    return Interactions(users, items, rating, confidence, time, n_users, n_items, int(time.max()) + 1)


def without_last_events(interactions: Interactions) -> Interactions:
    """The history without each user's last event."""
    is_last = np.zeros(len(interactions), bool)
    is_last[interactions.indptr[1:][interactions.user_counts > 0] - 1] = True
    earlier = interactions.select(~is_last)
    return replace(earlier, as_of=int(earlier.timestamp.max()) + 1)
