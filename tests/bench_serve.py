"""`make bench-serve`: what the API takes and what it stands, in the part "serving" of reports/results/bench.json.

SOURCE is an archive (its name is the dataset's), or SCALE the size of a synthetic one as in tests/bench.py.
The run that is served is made first, once, in .venv/serve.
The load comes from wrk (https://github.com/wg/wrk; `apt-get install wrk`) on the same machine, over as many
people as there are, drawn at random:

- start: seconds from the command until /health says ready;
- for each of the KINDS below, from one worker and from two: "steady", about fifty a second over eight
  connections, which wait at random between two requests, and "full", as fast as sixteen connections get answers;
- soak: REQUESTS (200,000) precomputed lists at full speed, memory before and after.

Memory is the resident memory of a worker, which counts what it has mapped and used; "private" is what it
shares with nobody.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
from bench_common import FOLDER, machine, movierec, store, synthetic_archive

from movierec.config import load_settings
from movierec.opening import open_serving

KINDS = {  # kind → what is asked for
    "precomputed": "a user's list, precomputed",
    "computed": "a user's list, computed: of one movie more than are precomputed",
    "new_user": "a new user's list, computed from five movies",
    "similar": "similar movies",
}
SCRIPT = """
local kind, people, movies = os.getenv("KIND"), tonumber(os.getenv("PEOPLE")), tonumber(os.getenv("MOVIES"))
local k, mean = tonumber(os.getenv("K")), tonumber(os.getenv("MEAN_WAIT"))
function init() math.randomseed(os.time()) end
local function get(path, n, k) return wrk.format("GET", path .. math.random(0, n - 1) .. "?k=" .. k) end
function request()
  if kind == "precomputed" then return get("/recommend/user/", people, k) end
  if kind == "computed" then return get("/recommend/user/", people, k + 1) end
  if kind == "similar" then return get("/similar/", movies, 10) end
  local history = {}
  for n = 1, 5 do history[n] = string.format('{"item_idx": %d, "rating": %d}', math.random(0, movies - 1),
  math.random(1, 5)) end
  return wrk.format("POST", "/recommend", {["Content-Type"] = "application/json"}, '{"history": [' ..
  table.concat(history, ", ") .. "]}")
end
if mean > 0 then function delay() return math.random(0, 2 * mean) end end
function done(summary, latency)
  local errors = summary.errors
  print(string.format('{"requests": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f, "max_ms": %f, ' ..
    '"errors": %d}', summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3, latency.max / 1e3, errors.connect + errors.read + errors.write +
    errors.status + errors.timeout))
end
"""


def load(address: str, kind: str, data: dict[str, int], seconds: float, connections: int, mean_wait: int = 0) -> dict:
    """Let wrk send requests of one kind; `data` are the numbers of PEOPLE and MOVIES, and K that are precomputed."""
    numbers = {name: str(value) for name, value in (data | {"MEAN_WAIT": mean_wait}).items()}
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(SCRIPT)
        script.flush()
        done = subprocess.run(
            [
                "wrk",
                "-t1",
                f"-c{connections}",
                f"-d{max(int(seconds), 1)}s",
                "--timeout",
                "30s",
                "-s",
                script.name,
                address,
            ],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | numbers | {"KIND": kind},
        )
    told = json.loads(done.stdout.splitlines()[-1])
    return {
        "requests": told["requests"],
        "per_second": round(told["requests"] / told["seconds"], 1),
        **{name: round(told[name], 2) for name in ("p50_ms", "p99_ms", "max_ms")},
        "errors": told["errors"],
    }


def memory(server: psutil.Process, workers: int) -> dict[str, float]:
    """Of the worker that takes most."""
    found = (
        [server]
        if workers == 1
        else [child for child in server.children() if "spawn_main" in " ".join(child.cmdline())]
    )
    taken = [one.memory_full_info() for one in found]
    return {
        "resident_mb": round(max(one.rss for one in taken) / 1e6, 1),
        "private_mb": round(max(one.uss for one in taken) / 1e6, 1),
    }


@contextmanager
def served(options: list[str], workers: int):
    """A server that is ready; yields its process, address and the seconds it took."""
    started = time.perf_counter()
    process = subprocess.Popen(
        movierec("api", "--port", 0, "--workers", workers, "--set", "service.rate=1000000", *options),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        address = process.stderr.readline().split()[1]
        while True:
            try:
                if httpx.get(f"{address}/health").status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            time.sleep(0.02)
        yield psutil.Process(process.pid), address, time.perf_counter() - started
    finally:
        process.terminate()
        process.communicate(timeout=60)


def loaded(options: list[str], workers: int, data: dict[str, int], soak: int) -> dict:
    """Start a server, load it with every kind of request, and return the figures."""
    with served(options, workers) as (process, address, seconds):
        figures = {"ready_seconds": round(seconds, 2), "memory_when_ready": memory(process, workers)}
        lists = figures["requests"] = {}
        for kind in KINDS:
            load(address, kind, data, 3, 4)  # what is asked for the first time has to come from the disk
            lists[kind] = {
                "steady": load(address, kind, data, 20, 8, mean_wait=160),
                "full": load(address, kind, data, 20, 16),
            }
            if kind == "precomputed" and workers == 1:
                before, rate = memory(process, workers), lists[kind]["full"]["per_second"]
                figures["soak"] = load(address, kind, data, soak / rate, 16)
                figures["soak"] |= {"memory_before": before, "memory_after": memory(process, workers)}
            lists[kind]["memory"] = memory(process, workers)
    return figures


def main() -> None:
    """Make the run, serve it, load it, write the figures."""
    if not shutil.which("wrk"):
        sys.exit("this needs wrk: apt-get install wrk")
    source, scale = os.environ.get("SOURCE"), float(os.environ.get("SCALE") or 0.05)
    soak = int(os.environ.get("REQUESTS") or 200_000)
    archive = Path(source) if source else synthetic_archive(scale)
    name = archive.name.removesuffix(".zip")
    options = ["--dataset", name, "--data-dir", str(FOLDER / "data"), "--reports-dir", str(FOLDER / "reports")]
    subprocess.run(movierec("run", "--source", archive, "--protocol", "global-time", *options), check=True)
    settings = load_settings(dataset=name, data_dir=FOLDER / "data", reports_dir=FOLDER / "reports")
    serving = open_serving(settings)
    contents = serving.histories.manifest["contents"]
    data = {"PEOPLE": contents["n_users"], "MOVIES": contents["n_items"], "K": settings.service.precomputed}
    figures = {
        "dataset": name,
        "system": serving.system,
        "users": data["PEOPLE"],
        "movies": data["MOVIES"],
        "events": contents["rows"]["events"],
        "machine": machine(),
    }
    for workers in (1, 2):
        figures[f"workers_{workers}"] = loaded(options, workers, data, soak)
        print(f"{workers} worker{'s' * (workers > 1)}: {json.dumps(figures[f'workers_{workers}'])}", flush=True)
    store("serving", name, figures)


if __name__ == "__main__":
    main()
