"""`make bench-run`: a whole `movierec run`, from the archive to precomputed recommendations, in the part
"runs" of reports/results/bench.json.

SCALE is the size of a synthetic archive (made once, in .venv/serve), or SOURCE a real one; MEMORY is given to
`--memory-limit`, PROTOCOL to `--protocol`. Every run starts from nothing, in a folder of its own.
The figures are those of the run's own log: each stage's seconds and the most resident memory during it. As an
independent check, the memory of the working process is read from outside
while it runs.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
from bench import ROOT, machine
from bench_serve import FOLDER, movierec

from movierec.artifacts import write_json


def watched(process: psutil.Process, stop: threading.Event) -> float:
    """The most resident memory, in MB, of all processes of a run together, looked at ten times a second."""
    most = 0.0
    while not stop.wait(0.1):
        try:
            most = max(
                most, sum(one.memory_info().rss for one in (process, *process.children(recursive=True))) / 1e6
            )
        except psutil.NoSuchProcess:
            continue
    return round(most, 1)


def limits() -> dict:
    """What the processor can do at most, on all cores: products of large matrices, and copying memory."""
    import numpy as np

    gflops = {}
    for dtype in ("float32", "float64"):
        a, b, n = np.ones((4_096, 4_096), dtype), np.ones((4_096, 4_096), dtype), 3
        a @ b
        started = time.perf_counter()
        for _ in range(n):
            a @ b
        gflops[dtype] = round(n * 2 * 4_096**3 / (time.perf_counter() - started) / 1e9, 1)
    source, target = np.ones(100_000_000), np.empty(100_000_000)
    target[:] = source
    started = time.perf_counter()
    target[:] = source
    return {
        "blas_gflops": gflops,
        "copied_gb_per_s": round(2 * source.nbytes / (time.perf_counter() - started) / 1e9, 1),
    }


def measured(archive: Path, options: dict[str, str]) -> dict:
    """What the log of a run says, and what was seen from outside."""
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            movierec(
                "run",
                "--source",
                archive,
                "--dataset",
                "measured",
                "--data-dir",
                Path(folder) / "data",
                "--reports-dir",
                Path(folder) / "reports",
                *(part for pair in options.items() for part in pair),
            )
        )
        stop, seen = threading.Event(), []
        watcher = threading.Thread(target=lambda: seen.append(watched(psutil.Process(process.pid), stop)))
        watcher.start()
        try:
            if process.wait():
                sys.exit(f"movierec run ended with status {process.returncode}")
        finally:
            stop.set()
            watcher.join()
        (log,) = (Path(folder) / "reports" / "logs" / "measured").glob("*.jsonl")
        events = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    ends = [event for event in events if event["event"] == "stage ends"]
    facts = {
        "ratings": ends[0]["rows"]["ratings"],
        "users": ends[0]["rows"]["users"],
        "seconds": events[-1]["seconds"],
        "peak_memory_mb": events[-1]["peak_memory_mb"],
        "watched_memory_mb": seen[0],
    }
    return facts | {
        "stages": [
            {
                name: event[name]
                for name in ("stage", "seconds", "peak_memory_mb", "fit_seconds")
                if name in event
            }
            for event in ends
        ]
    }


def main() -> None:
    """Make the archive, run, write the figures."""
    source, scale, memory, protocol = (
        os.environ.get("SOURCE"),
        float(os.environ.get("SCALE") or 0.05),
        os.environ.get("MEMORY") or None,
        os.environ.get("PROTOCOL") or None,
    )
    FOLDER.mkdir(parents=True, exist_ok=True)
    archive = Path(source) if source else FOLDER / f"synthetic-{scale:g}.zip"
    if not archive.is_file():
        subprocess.run(
            movierec("synthesize", "--like", "ml-20m", "--scale", scale, "--out", archive), check=True
        )
    started = time.strftime("%Y-%m-%d", time.gmtime())
    figures = {
        "scale": None if source else scale,
        "memory_limit": memory,
        "protocol": protocol or "all",
        "day": started,
        "machine": machine() | limits(),
    } | measured(
        archive,
        {name: value for name, value in (("--memory-limit", memory), ("--protocol", protocol)) if value},
    )
    target = ROOT / "reports" / "results" / "bench.json"
    results = json.loads(target.read_text(encoding="utf-8")) if target.exists() else {}
    name = (archive.stem if source else f"{scale:g}") + "".join(
        f", {option}" for option in (memory, protocol) if option
    )
    write_json(target, results | {"runs": results.get("runs", {}) | {name: figures}})
    print(
        f"{figures['ratings']:,} ratings: {figures['seconds']:.0f} s, {figures['peak_memory_mb']:,.0f} MB; "
        f"written to {target.relative_to(ROOT)}"
    )


if __name__ == "__main__":
    if not shutil.which(movierec()[0]):
        sys.exit("this needs movierec's own environment: make bench-run")
    main()
