"""`make bench`: time and peak memory of the stages, beside the same work by other libraries, in reports/results/bench.json.

Every measurement is a process of its own, repeated in turn with its peers (A B C A B C …), so that a machine whose speed drifts is
fair to all; the median counts. SCALE is the size of the synthetic archive: 0.05 by default, 1 for the twenty million.
"""

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REPEATS = 3


# --- what is measured: each function is run in a fresh process with (archive, folder) ---


def ours_ingest(archive: Path, folder: Path) -> dict:
    """zip → checked, sorted Parquet tables and the warehouse's views."""
    from movierec.config import load_settings
    from movierec.ingest import create_warehouse, ingest, raw_tables

    settings = load_settings(dataset="synthetic", data_dir=folder)
    rows = ingest(settings, archive).manifest["contents"]["rows"]
    create_warehouse(settings, raw_tables(settings))
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
    """zip → Parquet with polars, with the checks of every rating (ranges, repeats, unknown movies) and the sorting that movierec does."""
    import polars as pl

    rows = {}
    movies = pl.read_csv(_member(archive, "movies", folder))
    for table in ("ratings", "movies", "links", "tags"):
        frame = movies if table == "movies" else pl.read_csv(_member(archive, table, folder))
        if table == "ratings":
            wrong = ~(pl.col("rating").is_between(0.5, 5) & pl.col("timestamp").is_between(631_152_000, 2_000_000_000) & (pl.col("userId") >= 0) & (pl.col("movieId") >= 0))
            assert frame.select(wrong.sum()).item() == 0 and frame.null_count().sum_horizontal().item() == 0
            assert frame.select(pl.struct("userId", "movieId").n_unique()).item() == len(frame)
            assert frame.join(movies, on="movieId", how="anti").is_empty()
            frame = frame.with_row_index("row").sort("userId", "timestamp", "row")
        frame.write_parquet(folder / f"{table}.parquet", compression="zstd")
        rows[table] = len(frame)
    return rows


CASES = {"ingest": {"movierec": ours_ingest, "pandas": pandas_ingest, "polars": polars_ingest, "polars, same work": polars_same_work}}


def measure(case: str, who: str, archive: str) -> None:
    """Run one function and print its seconds, peak memory and result: what the child process does."""
    with tempfile.TemporaryDirectory(dir=Path(archive).parent) as folder:
        started = time.perf_counter()
        result = CASES[case][who](Path(archive), Path(folder))
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    print(json.dumps({"seconds": seconds, "peak_memory_mb": peak, "result": result}))


def machine() -> dict:
    """What the numbers were measured on."""
    names = ("movierec", "numpy", "duckdb", "pandas", "polars", "pyarrow")
    model = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "") if Path("/proc/cpuinfo").exists() else ""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    return {"cores": os.cpu_count(), "processor": model or platform.processor(), "memory_gb": round(memory, 1), "system": platform.system(), "python": platform.python_version(),
            "versions": {name: metadata.version(name) for name in names}, "commit": commit}


def main() -> None:
    """Make the archive, measure every case, write the file, print the table."""
    from movierec.config import write_json

    scale = float(os.environ.get("SCALE", "0.05"))
    results = {"scale": scale, "repeats": REPEATS, "machine": machine(), "cases": {}}
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "ml-20m.zip"
        started = time.perf_counter()
        print(f"synthetic archive at scale {scale:g} ...", flush=True)
        # a process of its own: a child begins with the peak memory of its parent, so the parent has to stay small
        code = f"from pathlib import Path; from movierec.synthetic import synthesize; synthesize(Path({str(archive)!r}), scale={scale})"
        subprocess.run([sys.executable, "-c", code], check=True)
        results["cases"]["synthesize"] = {"movierec": {"seconds": round(time.perf_counter() - started, 2), "archive_mb": round(archive.stat().st_size / 1e6, 1)}}
        for case, contenders in CASES.items():
            runs: dict[str, list[dict]] = {who: [] for who in contenders}
            for repeat in range(REPEATS):
                for who in contenders:
                    done = subprocess.run([sys.executable, __file__, case, who, str(archive)], capture_output=True, text=True, check=True)
                    runs[who].append(json.loads(done.stdout.splitlines()[-1]))
                    print(f"{case:<12} {who:<18} {repeat + 1}/{REPEATS}  {runs[who][-1]['seconds']:8.2f} s  {runs[who][-1]['peak_memory_mb']:8.0f} MB", flush=True)
            results["cases"][case] = {who: {"what": " ".join(contenders[who].__doc__.split()), "seconds": round(statistics.median(run["seconds"] for run in measured), 2),
                                            "seconds_all": [round(run["seconds"], 2) for run in measured],
                                            "peak_memory_mb": round(max(run["peak_memory_mb"] for run in measured), 1), "rows": measured[0]["result"]}
                                      for who, measured in runs.items()}
    target = ROOT / "reports" / "results" / "bench.json"
    write_json(target, results)
    print(f"written to {target.relative_to(ROOT)}")


if __name__ == "__main__":
    measure(*sys.argv[1:]) if len(sys.argv) > 1 else main()
