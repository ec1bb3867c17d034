"""`make bench`: time and peak memory of the stages, beside the same work by other libraries, in
reports/results/bench.json.

Every measurement is a process of its own, repeated in turn with its peers (A B C A B C …), so that a machine
whose speed drifts is
fair to all; the median counts. SCALE is the size of the synthetic archive: 0.05 by default, 1 for the twenty
million. CASES names the
cases to run, separated by commas (by default all are): they take the place of the same cases in a file of the
same scale. Each case
says at which commit and on which machine it was measured; its peers were measured there in the same run.

RecTools wants other versions of numpy and attrs than movierec, so it lives in an environment of its own,
.venv/peers, made when it is
first needed. Whatever a peer can't do (install, memory, time) is a line of the results too.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from bench_common import ROOT, machine, read_results, write_results

PEERS = ROOT / ".venv" / "peers"
PEER_PACKAGES = ("rectools==0.19.0",)
FACTORS, ITERATIONS, ALPHA, REGULARIZATION, NEIGHBOURS, EASE_ITEMS, EASE_LAMBDA = (
    64,
    5,
    2.0,
    1.0,
    200,
    10_000,
    500.0,
)  # the same for all who fit a model
MOST_SECONDS = 900  # of one measurement


# --- what is measured: each function is run in a fresh process with (archive, folder); if it returns a
# function, only that is timed ---


def ours_ingest(archive: Path, folder: Path) -> dict:
    """zip → checked, sorted Parquet tables and the warehouse's views."""
    from movierec.config import load_settings
    from movierec.data.ingest import ingest, table_views
    from movierec.data.warehouse import create_warehouse

    settings = load_settings(dataset="synthetic", data_dir=folder)
    rows = ingest(settings, archive).manifest["contents"]["rows"]
    create_warehouse(settings, table_views(settings))
    return rows


def _member(archive: Path, table: str, folder: Path) -> Path:
    with zipfile.ZipFile(archive) as packed:
        return Path(packed.extract(f"ml-20m/{table}.csv", folder))


def pandas_ingest(archive: Path, folder: Path) -> dict:
    """zip → Parquet with pandas: no checks, no sorting."""
    import pandas as pd

    rows = {}
    for table in ("ratings", "movies", "links", "tags"):
        frame = pd.read_csv(_member(archive, table, folder))
        frame.to_parquet(folder / f"{table}.parquet", compression="zstd")
        rows[table] = len(frame)
    return rows


def polars_ingest(archive: Path, folder: Path) -> dict:
    """zip → Parquet with polars: no checks, no sorting."""
    import polars as pl

    rows = {}
    for table in ("ratings", "movies", "links", "tags"):
        frame = pl.read_csv(_member(archive, table, folder))
        frame.write_parquet(folder / f"{table}.parquet", compression="zstd")
        rows[table] = len(frame)
    return rows


def polars_same_work(archive: Path, folder: Path) -> dict:
    """zip → Parquet with polars, with the checks of every rating (ranges, repeats, unknown movies) and the
    sorting that movierec does.
    """
    import polars as pl

    rows = {}
    movies = pl.read_csv(_member(archive, "movies", folder))
    for table in ("ratings", "movies", "links", "tags"):
        frame = movies if table == "movies" else pl.read_csv(_member(archive, table, folder))
        if table == "ratings":
            wrong = ~(
                pl.col("rating").is_between(0.5, 5)
                & pl.col("timestamp").is_between(631_152_000, 2_000_000_000)
                & (pl.col("userId") >= 0)
                & (pl.col("movieId") >= 0)
            )
            assert frame.select(wrong.sum()).item() == 0 and frame.null_count().sum_horizontal().item() == 0
            assert frame.select(pl.struct("userId", "movieId").n_unique()).item() == len(frame)
            assert frame.join(movies, on="movieId", how="anti").is_empty()
            frame = frame.with_row_index("row").sort("userId", "timestamp", "row")
        frame.write_parquet(folder / f"{table}.parquet", compression="zstd")
        rows[table] = len(frame)
    return rows


def _settings(archive: Path):
    from movierec.config import load_settings

    return load_settings(
        dataset="synthetic", data_dir=archive.parent / "data", reports_dir=archive.parent / "reports"
    )


def _known(archive: Path):
    """All interactions, and the catalogue; prepared once, by the first who asks."""
    from movierec.data.ingest import ingest
    from movierec.data.interactions import build_interactions, load_interactions, load_items

    settings = _settings(archive)
    data = build_interactions(settings, ingest(settings, archive))
    interactions = load_interactions(data)
    interactions.matrix  # noqa: B018  all models use it
    return interactions, load_items(data)


def _fit(model, archive: Path):
    interactions, _ = _known(archive)
    return lambda: {"events": len(model.fit(interactions).interactions)}


def ours_item_item(archive: Path, folder: Path):
    """ItemItem with cosine similarities: interactions → 200 neighbours of each movie."""
    from movierec.retrieval.item_item import ItemItem

    return _fit(ItemItem("cosine", NEIGHBOURS), archive)


def ours_rp3beta(archive: Path, folder: Path):
    """ItemItem as configured, with RP3beta: interactions → 200 neighbours of each movie."""
    from movierec.retrieval.item_item import ItemItem

    return _fit(ItemItem("rp3beta", NEIGHBOURS), archive)


def implicit_item_item(archive: Path, folder: Path):
    """implicit's CosineRecommender by itself: CSR matrix → 200 neighbours of each movie."""
    from implicit.nearest_neighbours import CosineRecommender

    interactions, _ = _known(archive)
    matrix = interactions.matrix.astype("float64")

    def work() -> dict:
        model = CosineRecommender(K=NEIGHBOURS + 1)
        model.fit(matrix, show_progress=False)
        return {"stored": int(model.similarity.nnz)}

    return work


def ours_sequential(archive: Path, folder: Path):
    """Sequential: interactions → directed co-visitation, 1,000 followers of each movie."""
    from movierec.retrieval.sequential import Sequential

    return _fit(Sequential(), archive)


def ours_als(archive: Path, folder: Path):
    """ALS with 64 factors, five iterations."""
    from movierec.retrieval.als import ALS

    work = _fit(ALS(FACTORS, ALPHA, REGULARIZATION, ITERATIONS), archive)
    return lambda: work() | {"iterations": ITERATIONS}


def implicit_als(archive: Path, folder: Path):
    """implicit's AlternatingLeastSquares by itself on the weighted CSR matrix: 64 factors, five iterations."""
    import numpy as np
    from implicit.cpu.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    interactions, _ = _known(archive)
    weights = interactions.matrix.copy()
    weights.data = 1 + np.float32(ALPHA) * weights.data

    def work() -> dict:
        with threadpool_limits(1, "blas"):  # as its documentation asks
            AlternatingLeastSquares(
                factors=FACTORS, regularization=REGULARIZATION, iterations=ITERATIONS, random_state=42
            ).fit(weights, show_progress=False)
        return {"iterations": ITERATIONS}

    return work


def ours_ease(archive: Path, folder: Path):
    """EASE on the 10,000 most rated movies."""
    from movierec.retrieval.linear import EASE

    return _fit(EASE(EASE_LAMBDA, EASE_ITEMS), archive)


def rectools_ease(archive: Path, folder: Path):
    """RecTools' EASEModel on the 10,000 most rated movies, from its own Dataset."""
    import numpy as np
    import pandas as pd
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models import EASEModel

    user, item = np.load(archive.parent / "most_rated.npy")
    frame = pd.DataFrame(
        {
            Columns.User: user,
            Columns.Item: item,
            Columns.Weight: 1.0,
            Columns.Datetime: pd.Timestamp("2015-01-01"),
        }
    )
    dataset = Dataset.construct(frame)
    del frame, user, item

    def work() -> dict:
        model = EASEModel(regularization=EASE_LAMBDA).fit(dataset)
        return {"items": len(model.weight)}

    return work


def ours_linear_ar(archive: Path, folder: Path):
    """LinearAutoregression: three memories of the 6,000 most rated movies."""
    from movierec.retrieval.linear import LinearAutoregression

    return _fit(LinearAutoregression(), archive)


def ours_genre(archive: Path, folder: Path):
    """GenreNeighbours."""
    from movierec.retrieval.hybrid import make_hybrid

    interactions, items = _known(archive)
    source = make_hybrid(_settings(archive), items).sources["genre"]
    return lambda: {"events": len(source.fit(interactions).interactions)}


def ours_hybrid_fit(archive: Path, folder: Path):
    """All sources of the hybrid, fitted and saved."""
    from movierec.artifacts import replace_atomically
    from movierec.retrieval.hybrid import make_hybrid

    interactions, items = _known(archive)
    hybrid = make_hybrid(_settings(archive), items)

    def work() -> dict:
        hybrid.interactions, seconds = interactions, {}
        for name, source in hybrid.sources.items():
            started = time.perf_counter()
            source.fit(interactions)
            seconds[name] = round(time.perf_counter() - started, 2)
        started = time.perf_counter()
        hybrid.rating_model.fit(interactions)
        seconds["rating_model"] = round(time.perf_counter() - started, 2)
        with replace_atomically(archive.parent / "hybrid") as temporary:
            hybrid.save(temporary)
        return {"fit_seconds": seconds}

    return work


def ours_pool(archive: Path, folder: Path):
    """The hybrid's pool of 200 for every user, from a saved hybrid."""
    import numpy as np

    from movierec.retrieval.hybrid import Hybrid

    interactions, _ = _known(archive)
    hybrid = Hybrid.load(archive.parent / "hybrid", interactions)

    def work() -> dict:
        pool = hybrid.pool(np.arange(interactions.n_users))
        return {
            "users": len(pool.users),
            "sources": len(pool.ranks),
            "candidates": int((pool.items >= 0).sum()),
        }

    return work


def _store(archive: Path):
    """The feature store over the saved hybrid."""
    from movierec.ranking.feature_store import FeatureStore
    from movierec.retrieval.hybrid import Hybrid

    return FeatureStore(Hybrid.load(archive.parent / "hybrid", _known(archive)[0]), 30.0)


def ours_ranker(archive: Path, folder: Path):
    """Ranker V3 as a run trains it: the pools and features of as many users as ranker.max_rows allows in each
    of two phases, and LambdaRank on them. The labels are made up: they change what is learnt, not what it
    costs.
    """
    import numpy as np

    from movierec.artifacts import replace_atomically
    from movierec.parallel import map_threads
    from movierec.ranking.ranker import save_ranker, train_ranker
    from movierec.ranking.training import TrainingSet

    settings, store = _settings(archive), _store(archive)
    n = store.interactions.n_users
    users = (
        np.random.default_rng(0)
        .choice(n, min(n, settings.ranker.max_rows // settings.hybrid.pool_size * 2), replace=False)
        .astype(np.int32)
    )

    def part(start: int):
        pool = store.hybrid.pool(users[start : start + 128])
        return pool.items, store.matrix(pool, np.full(len(pool.users), store.interactions.as_of))

    def work() -> dict:
        started = time.perf_counter()
        items, features = (
            np.concatenate(parts) for parts in zip(*map_threads(part, range(0, len(users), 128)), strict=True)
        )
        collected = time.perf_counter()
        labels = (items >= 0) & (
            np.random.default_rng(1).random(items.shape) < np.where(np.arange(items.shape[1]) < 20, 0.02, 0.002)
        )
        ranker = train_ranker("ranked_v3", TrainingSet(users, items, features, labels), settings)
        done = time.perf_counter()
        with replace_atomically(archive.parent / "ranker") as temporary:
            save_ranker(ranker, temporary)
        return {
            "users": len(users),
            "rows": int((items >= 0).sum()),
            "collecting_seconds": round(collected - started, 2),
            "training_seconds": round(done - collected, 2),
        }

    return work


def ours_rank(archive: Path, folder: Path):
    """Features and scores of V3 for 200 candidates of every user, all users asking at one moment, on all
    cores; the pools themselves are not counted.
    """
    import numpy as np

    from movierec.parallel import cores, map_threads
    from movierec.ranking.ranker import load_ranker, rerank

    store, ranker = _store(archive), load_ranker(archive.parent / "ranker")
    n, now = store.interactions.n_users, store.interactions.as_of

    def part(start: int) -> tuple[int, float]:
        pool = store.hybrid.pool(np.arange(start, min(start + 128, n)))
        started = time.perf_counter()
        there = pool.items >= 0
        scores = np.full(there.shape, -np.inf, np.float32)
        scores[there] = ranker.predict(store.matrix(pool, np.full(len(there), now))[there])
        rerank(pool.items, scores, 50)
        return int(there.sum()), time.perf_counter() - started

    def work() -> dict:
        rows, seconds = zip(*map_threads(part, range(0, n, 128)), strict=True)
        return {"users": n, "candidates": sum(rows), "seconds": sum(seconds) / cores()}

    return work


def ours_one_user(archive: Path, folder: Path):
    """One user at a time, on one thread, 300 of them: milliseconds for the pool of 200, and for features and
    scores of V3.
    """
    import numpy as np
    from threadpoolctl import threadpool_limits

    from movierec.ranking.ranker import load_ranker

    store, ranker = _store(archive), load_ranker(archive.parent / "ranker")
    users, now = (
        np.random.default_rng(0).integers(0, store.interactions.n_users, 320),
        np.array([store.interactions.as_of + 3_600]),
    )

    def work() -> dict:
        pools, ranks = [], []
        with threadpool_limits(1):
            for user in users:
                started = time.perf_counter()
                pool = store.hybrid.pool(np.array([user]), now)
                found = time.perf_counter()
                ranker.predict(store.matrix(pool, now)[0])
                pools.append(found - started)
                ranks.append(time.perf_counter() - found)
        return {
            f"{name}_ms": {f"p{q}": round(float(np.percentile(times[20:], q)) * 1e3, 2) for q in (50, 99)}
            for name, times in (("pool", pools), ("features_and_scores", ranks))
        }

    return work


CASES = {
    "ingest": {
        "movierec": ours_ingest,
        "pandas": pandas_ingest,
        "polars": polars_ingest,
        "polars, same work": polars_same_work,
    },
    "item_item": {
        "movierec": ours_item_item,
        "movierec, rp3beta": ours_rp3beta,
        "implicit": implicit_item_item,
    },
    "sequential": {"movierec": ours_sequential},
    "als": {"movierec": ours_als, "implicit": implicit_als},
    "ease": {"movierec": ours_ease, "rectools": rectools_ease},
    "linear_ar": {"movierec": ours_linear_ar},
    "genre": {"movierec": ours_genre},
    "hybrid_fit": {"movierec": ours_hybrid_fit},
    "pool": {"movierec": ours_pool},
    "ranker": {"movierec": ours_ranker},
    "rank": {"movierec": ours_rank},
    "one_user": {"movierec": ours_one_user},
}
ELSEWHERE = {rectools_ease}  # run in .venv/peers
ONCE = {
    "linear_ar",
    "hybrid_fit",
    "ranker",
}  # half a minute and more at any scale: what they take is solving for as many movies


def repeats(case: str, scale: float) -> int:
    """How often each contender runs."""
    return 1 if case in ONCE or (scale > 0.5 and case != "ingest") else 3


def prepare(archive: str) -> None:
    """The interactions that all models share, and the events on the most rated movies for peers who can't read
    Parquet; in a child process.
    """
    import numpy as np

    from movierec.retrieval.linear import most_rated

    interactions, _ = _known(Path(archive))
    kept = np.isin(interactions.item_idx, most_rated(interactions, EASE_ITEMS, 10))
    np.save(
        Path(archive).parent / "most_rated.npy",
        np.stack([interactions.user_idx[kept], interactions.item_idx[kept]]),
    )


def peers() -> str | None:  # why there are none
    """Make the peers' environment if it isn't there."""
    if (PEERS / ".installed").exists():
        return None
    print("Installing the peers into .venv/peers (once) ...", flush=True)
    steps = (
        [sys.executable, "-m", "venv", str(PEERS)],
        [
            str(PEERS / "bin" / "python"),
            "-m",
            "pip",
            "install",
            "-q",
            "--disable-pip-version-check",
            *PEER_PACKAGES,
        ],
    )
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            return f"{' '.join(PEER_PACKAGES)} can't be installed: {reason}"
    (PEERS / ".installed").touch()
    return None


def measure(case: str, who: str, archive: str) -> None:
    """Run one function and print its seconds, peak memory and result: what the child process does."""
    with tempfile.TemporaryDirectory(dir=Path(archive).parent) as folder:
        started, cpu = time.perf_counter(), time.process_time()
        result = CASES[case][who](Path(archive), Path(folder))
        if callable(result):  # set-up is over
            started, cpu = time.perf_counter(), time.process_time()
            result = result()
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        seconds = result.pop("seconds", seconds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "peak_memory_mb": peak, "result": result}))


def run(case: str, who: str, archive: Path) -> dict:  # what `measure` prints, or {"failed": why}
    """One measurement in a process of its own."""
    python, elsewhere = sys.executable, CASES[case][who] in ELSEWHERE
    if elsewhere:
        if reason := peers():
            return {"failed": reason}
        python = str(PEERS / "bin" / "python")
    try:
        done = subprocess.run(
            [python, "-W", "ignore", __file__, case, who, str(archive)],
            capture_output=True,
            text=True,
            timeout=MOST_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"not done after {MOST_SECONDS} s"}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [""])[-1]
        return {
            "failed": "killed, most likely for want of memory"
            if done.returncode == -9
            else last or f"exit status {done.returncode}"
        }
    return json.loads(done.stdout.splitlines()[-1])


def summary(what, measured: list[dict]) -> dict:
    """One contender's line of the results: the median of its times and its highest peak; also why, if it failed."""
    line = {"what": " ".join(what.__doc__.split())}
    if failures := [run["failed"] for run in measured if "failed" in run]:
        return line | {"failed": failures[0]}
    line |= {
        "seconds": round(statistics.median(run["seconds"] for run in measured), 2),
        "seconds_all": [round(run["seconds"], 2) for run in measured],
        "cpu_seconds": round(statistics.median(run["cpu_seconds"] for run in measured), 2),
        "peak_memory_mb": round(max(run["peak_memory_mb"] for run in measured), 1),
        "rows": measured[0]["result"],
    }
    if "iterations" in measured[0]["result"]:
        line["seconds_per_iteration"] = round(line["seconds"] / measured[0]["result"]["iterations"], 2)
    return line


def start(scale: float, wanted: list[str]) -> dict:  # without the cases that are measured now
    """The results to add to: all of other kinds, and the cases that stay, if they are of the same scale."""
    before = read_results()
    if wanted == list(CASES):
        return before | {"scale": scale, "cases": {}}
    if before.get("scale", scale) != scale:
        sys.exit(
            f"the cases in bench.json are of scale {before['scale']:g}: "
            "CASES can only renew a part of them at the same scale"
        )
    return before | {"scale": scale, "cases": dict(before.get("cases", {}))}


def main() -> None:
    """Make the archive, measure every case, write the file, print the table."""
    scale = float(os.environ.get("SCALE", "0.05"))
    wanted = os.environ["CASES"].split(",") if os.environ.get("CASES") else list(CASES)
    if unknown := set(wanted) - set(CASES):
        sys.exit(f"there is no case {', '.join(sorted(unknown))}: CASES may name {', '.join(CASES)}")
    results, described = start(scale, wanted), machine()
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "ml-20m.zip"
        started = time.perf_counter()
        print(f"synthetic archive at scale {scale:g} ...", flush=True)
        # processes of their own: a child begins with the peak memory of its parent, so the parent has to stay small
        imports = "from pathlib import Path; from movierec.data.synthetic import synthesize"
        code = f"{imports}; synthesize(Path({str(archive)!r}), scale={scale})"
        subprocess.run([sys.executable, "-c", code], check=True)
        written = {
            "what": "writing the synthetic archive",
            "seconds": round(time.perf_counter() - started, 2),
            "archive_mb": round(archive.stat().st_size / 1e6, 1),
        }
        results["cases"]["synthesize"] = {"machine": described, "libraries": {"movierec": written}}
        subprocess.run([sys.executable, __file__, "prepare", str(archive)], check=True)
        for case in wanted:
            runs: dict[str, list[dict]] = {who: [] for who in CASES[case]}
            for repeat in range(repeats(case, scale)):
                for who, measured in runs.items():
                    if measured and "failed" in measured[-1]:
                        continue
                    measured.append(run(case, who, archive))
                    last = measured[-1]
                    times = f"{last['seconds']:8.2f} s  {last['cpu_seconds']:8.2f} s CPU" if "seconds" in last else ""
                    shown = last.get("failed") or f"{times}  {last['peak_memory_mb']:8.0f} MB"
                    print(f"{case:<12} {who:<18} {repeat + 1}/{repeats(case, scale)}  {shown}", flush=True)
            lines = {who: summary(CASES[case][who], measured) for who, measured in runs.items()}
            results["cases"][case] = {"machine": described, "libraries": lines}
    write_results(results)
    failed = [case for case in wanted for who, line in results["cases"][case]["libraries"].items()
              if who.startswith("movierec") and "failed" in line]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    elif sys.argv[1] == "prepare":
        prepare(sys.argv[2])
    else:
        measure(*sys.argv[1:])
