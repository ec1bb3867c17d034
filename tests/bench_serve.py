"""`make bench-serve`: what the API takes and what it stands, in the part "serving" of reports/results/bench.json.

SOURCE is an archive (its name is the dataset's), or SCALE the size of a synthetic one as in tests/bench.py.
The run that is served is made first, once, in .venv/serve.
The load comes from wrk (https://github.com/wg/wrk; `apt-get install wrk`) on the same machine, over as many
people as there are, drawn at random:

- start: seconds from the command until /health says ready;
- steady: about fifty requests a second over eight connections, which wait at random between two requests;
- full: as fast as sixteen connections get answers, from one worker and from two;
- new_users_steady, new_users_full: the same for POST /recommend with five movies, where nothing could be prepared;
- soak: REQUESTS (200,000) at full speed, memory before and after.

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
from bench import ROOT, machine

from movierec.artifacts import write_json
from movierec.config import load_settings
from movierec.opening import open_serving

FOLDER = ROOT / ".venv" / "serve"
SCRIPT = """
local people, movies, mean = tonumber(os.getenv("PEOPLE")), tonumber(os.getenv("MOVIES")),
tonumber(os.getenv("MEAN_WAIT"))
function init() math.randomseed(os.time()) end
function request()
  if people > 0 then return wrk.format("GET", "/recommend/user/" .. math.random(0, people - 1)) end
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


def movierec(*arguments) -> list[str]:
    """The command of this environment."""
    return [str(Path(sys.executable).with_name("movierec")), *map(str, arguments)]


def load(
    address: str, seconds: float, connections: int, people: int = 0, movies: int = 0, mean_wait: int = 0
) -> dict:
    """Let wrk ask for the lists of a number of users, or of new users who name some of a number of movies."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(SCRIPT)
        script.flush()
        done = subprocess.run(
            [
                "wrk",
                "-t1",
                f"-c{connections}",
                f"-d{int(seconds)}s",
                "--timeout",
                "30s",
                "-s",
                script.name,
                address,
            ],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PEOPLE": str(people), "MOVIES": str(movies), "MEAN_WAIT": str(mean_wait)},
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


def main() -> None:
    """Make the run, serve it, load it, write the figures."""
    if not shutil.which("wrk"):
        sys.exit("this needs wrk: apt-get install wrk")
    source, scale, soak = (
        os.environ.get("SOURCE"),
        float(os.environ.get("SCALE") or 0.05),
        int(os.environ.get("REQUESTS") or 200_000),
    )
    FOLDER.mkdir(parents=True, exist_ok=True)
    archive = Path(source) if source else FOLDER / f"synthetic-{scale:g}.zip"
    if not archive.exists():
        subprocess.run(movierec("synthesize", "--out", archive, "--scale", scale), check=True)
    name = archive.name.removesuffix(".zip")
    options = ["--dataset", name, "--data-dir", str(FOLDER / "data"), "--reports-dir", str(FOLDER / "reports")]
    subprocess.run(movierec("run", "--source", archive, "--protocol", "global-time", *options), check=True)
    serving = open_serving(
        load_settings(dataset=name, data_dir=FOLDER / "data", reports_dir=FOLDER / "reports")
    )
    people, movies = (serving.histories.manifest["contents"][name] for name in ("n_users", "n_items"))
    figures = {
        "dataset": name,
        "system": serving.system,
        "users": people,
        "movies": movies,
        "events": serving.histories.manifest["contents"]["rows"]["events"],
        "machine": machine(),
    }
    for workers in (1, 2):
        with served(options, workers) as (process, address, seconds):
            line = figures[f"workers_{workers}"] = {
                "ready_seconds": round(seconds, 2),
                "memory_when_ready": memory(process, workers),
            }
            load(address, 3, 4, people)  # what is asked for the first time has to come from the disk
            line["steady"] = load(address, 20, 8, people, mean_wait=160)
            line["full"] = load(address, 20, 16, people)
            if workers == 1:
                before = memory(process, workers)
                line["soak"] = load(address, soak / line["full"]["per_second"], 16, people)
                line["soak"] |= {"memory_before": before, "memory_after": memory(process, workers)}
            line["memory"] = memory(process, workers)
            line["new_users_steady"] = load(address, 20, 8, movies=movies, mean_wait=160)
            line["new_users_full"] = load(address, 20, 16, movies=movies)
            line["memory_with_new_users"] = memory(process, workers)
        print(f"{workers} worker{'s' * (workers > 1)}: {json.dumps(line)}", flush=True)
    target = ROOT / "reports" / "results" / "bench.json"
    results = json.loads(target.read_text(encoding="utf-8"))
    results.setdefault("serving", {})[name] = figures
    write_json(target, results)
    print(f"written to {target.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
