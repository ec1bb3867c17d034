"""`make bench-wide`: runs over catalogues of many items, in the part "catalogues" of reports/results/bench.json.

- wide: somebody's own events without ratings, over 300,000 items at SCALE=1, of which most have few events;
- unrated: a few thousand ratings of 150 movies, once with a catalogue of these, once with one of 60,000, which
  should give the same lists at the same cost.

PROTOCOL is given to `--protocol`; CASES names the cases to run, separated by commas (by default both).
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bench_common import FOLDER, faster, machine, movierec, store
from bench_run import finish, in_folder, measured

ITEMS, USERS, EVENTS, GROUPS = 300_000, 50_000, 2_000_000, 200  # of the wide case at scale 1
RATED, CATALOGUE, RATERS, RATINGS = 150, 60_000, 100, 4_000  # of the other one
FIRST, DAYS = 1_600_000_000, 400  # of the times, in seconds since 1970, and how many days they cover
COMPARED = ("popularity", "item_item", "hybrid", "ranked_v3")  # systems whose lists are compared
K = 10


def sizes(scale: float) -> tuple[int, int, int]:
    """Items, users and events of the wide case."""
    return max(round(ITEMS * scale), 500), max(round(USERS * scale), 50), max(round(EVENTS * scale), 4_000)


def wide_events(scale: float = 1.0, seed: int = 0):
    """Events over many items as a data frame (viewer, film, seen_at), in the order of time.

    Popularity is a power law and activity log-normal; half of a user's events are in one of GROUPS groups of
    items; every item occurs at least once. Pairs repeat, as they do in logs.
    """
    import numpy as np
    import pandas as pd

    rng, (items, users, events) = np.random.default_rng(seed), sizes(scale)
    activity, popularity = rng.lognormal(0, 1.2, users), (np.arange(items) + 30.0) ** -0.9
    user = rng.choice(users, events, p=activity / activity.sum())
    item = rng.choice(items, events, p=popularity / popularity.sum())
    in_group = np.flatnonzero(rng.random(events) < 0.5)
    group = rng.integers(0, GROUPS, users)[user[in_group]]
    item[in_group] = np.minimum(item[in_group] // GROUPS * GROUPS + group, items - 1)
    item[rng.choice(events, items, replace=False)] = np.arange(items)
    return pd.DataFrame({
        "viewer": "v" + pd.Series(user).astype(str),
        "film": "f" + pd.Series(rng.permutation(items)[item]).astype(str),
        "seen_at": FIRST + np.sort(rng.integers(0, DAYS * 86_400, events)),
    })  # fmt: skip


def few_ratings(seed: int = 0):
    """Distinct ratings of RATED movies as a data frame: userId, movieId, rating, timestamp."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(seed)
    popularity = np.log((np.arange(RATED) + 2.0) ** -0.8)
    drawn = popularity + rng.gumbel(size=(RATERS, RATED))  # the highest are a draw without replacement
    movie = np.argsort(-drawn, axis=1)[:, : RATINGS // RATERS]
    times = FIRST + rng.integers(0, DAYS * 86_400, (RATERS, 1)) + np.cumsum(rng.integers(20, 90_000, movie.shape), 1)
    return pd.DataFrame({
        "userId": np.repeat(np.arange(1, RATERS + 1), movie.shape[1]),
        "movieId": movie.ravel() + 1,
        "rating": rng.integers(1, 11, movie.size) / 2,
        "timestamp": times.ravel(),
    })  # fmt: skip


def catalogue(n: int, seed: int = 0):
    """The first n of CATALOGUE movies as a data frame: movieId, title, genres. The first RATED have ratings."""
    import numpy as np
    import pandas as pd

    from movierec.data.synthetic import GENRES

    rng = np.random.default_rng(seed)
    years, genres = rng.integers(1930, 2020, CATALOGUE), rng.integers(0, len(GENRES), (CATALOGUE, 2))
    ids = range(1, n + 1)
    return pd.DataFrame({
        "movieId": ids,
        "title": [f"Movie {number} ({year})" for number, year in zip(ids, years[:n], strict=True)],
        "genres": ["|".join(sorted({*GENRES[pair]})) for pair in genres[:n]],
    })  # fmt: skip


def exported(folder: Path, system: str, protocol: str):
    """The test lists of a system in a finished run: one row per user, with the movies by rank."""
    import duckdb

    file = folder / f"{system}.parquet"
    options = ("--protocol", protocol, "--system", system, "-k", K)
    finish(movierec("export-recommendations", "--out", file, *options, *in_folder(folder)))
    lists = duckdb.read_parquet(str(file)).df()
    return lists.pivot(index="userId", columns="rank", values="movieId")  # noqa: PD010  nothing to aggregate


def share_of_equal_lists(one, other) -> float:
    """The share of users whose two lists are the same; a user who is in one of them only has no equal list."""
    users = one.index.union(other.index)
    one, other = (lists.reindex(index=users, columns=range(1, K + 1)).fillna(-1) for lists in (one, other))
    return round(float((one == other).all(axis=1).mean()), 4)


def wide_file(scale: float) -> Path:
    """The wide case's events as CSV, made once, in a process of its own: those who measure have to stay small."""
    file = FOLDER / f"wide-{scale:g}.csv"
    if not file.is_file():
        FOLDER.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, __file__, "events", str(scale), f"{file}.part"], check=True)
        Path(f"{file}.part").replace(file)
    return file


def wide(scale: float, protocol: list[str]) -> None:
    """Measure a run over a wide catalogue and write the figures."""
    file, before = wide_file(scale), machine()
    columns = ("--columns", "user=viewer,item=film,time=seen_at")
    with tempfile.TemporaryDirectory() as folder:
        figures = measured(Path(folder), "--ratings", file, *columns, *protocol)
    items, _, events = sizes(scale)
    figures = {"machine": faster(before, machine())} | figures | {"scale": scale, "movies": items, "events": events}
    store("catalogues", f"wide, {scale:g}", figures)


def unrated(protocol: list[str]) -> None:
    """Measure a small run without and with many unrated movies, compare the lists and write the figures."""
    before, runs, lists = machine(), {}, {}
    for n in (RATED, CATALOGUE):
        with tempfile.TemporaryDirectory() as folder:
            ratings, movies = Path(folder) / "ratings.csv", Path(folder) / "movies.csv"
            few_ratings().to_csv(ratings, index=False)
            catalogue(n).to_csv(movies, index=False)
            runs[n] = measured(Path(folder), "--ratings", ratings, "--movies", movies, *protocol) | {"movies": n}
            protocols = [part for part in ("global-time", "leave-last-out") if protocol[1:] in ([], ["all"], [part])]
            lists[n] = {
                f"{name}, {part}": exported(Path(folder), name, part) for name in COMPARED for part in protocols
            }
    equal = {name: share_of_equal_lists(one, lists[CATALOGUE][name]) for name, one in lists[RATED].items()}
    described = faster(before, machine())
    store("catalogues", f"{RATED} movies", {"machine": described} | runs[RATED])
    store("catalogues", f"{RATED} of {CATALOGUE:,} movies", {"machine": described} | runs[CATALOGUE] | {"equal": equal})


def main() -> None:
    """Measure the cases that are asked for."""
    scale, protocol = float(os.environ.get("SCALE") or 0.05), os.environ.get("PROTOCOL")
    options = ["--protocol", protocol] if protocol else []
    wanted = (os.environ.get("CASES") or "wide,unrated").split(",")
    if "wide" in wanted:
        wide(scale, options)
    if "unrated" in wanted:
        unrated(options)


if __name__ == "__main__":
    if not shutil.which(movierec()[0]):
        sys.exit("this needs movierec's own environment: make bench-wide")
    if sys.argv[1:2] == ["events"]:
        wide_events(float(sys.argv[2])).to_csv(sys.argv[3], index=False)
    else:
        main()
