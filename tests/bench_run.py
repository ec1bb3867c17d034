"""`make bench-run`: a whole `movierec run`, from the archive to precomputed recommendations, in the part
"runs" of reports/results/bench.json.

SCALE is the size of a synthetic archive (made once, in .venv/serve), or SOURCE a real one; MEMORY is given to
`--memory-limit`, PROTOCOL to `--protocol`. Every run starts from nothing, in a folder of its own.
AGAINST is the `movierec` command of another commit's environment: it runs first, on the same machine, and the
ratio of the two times is written beside them.
The figures are those of the run's own log: each stage's seconds and the most resident memory during it. As an
independent check, the memory of the working process is read from outside while it runs.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import psutil
from bench_common import commit_of_command, faster, machine, movierec, store, synthetic_archive

DATASET = "measured"


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


def finish(command: list[str]) -> float:
    """Run a command to its end and return the peak of its memory in MB; exits if the command fails."""
    process = subprocess.Popen(command)
    stop, seen = threading.Event(), []
    watcher = threading.Thread(target=lambda: seen.append(watched(psutil.Process(process.pid), stop)))
    watcher.start()
    try:
        if process.wait():
            sys.exit(f"{command[0]} {command[1]} ended with status {process.returncode}")
    finally:
        stop.set()
        watcher.join()
    return seen[0]


def in_folder(folder: Path) -> list[str]:
    """The options that keep what a command reads and writes in a folder."""
    return ["--dataset", DATASET, "--data-dir", f"{folder}/data", "--reports-dir", f"{folder}/reports"]


def cpu_of_children() -> float:
    """The processor seconds of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measured(folder: Path, *options, command: str | None = None) -> dict:
    """Run `movierec run` with options in a folder; return what its log says, and what was seen from outside.

    `command` is that of another environment."""
    started = cpu_of_children()
    seen = finish([command or movierec()[0], "run", *map(str, options), *in_folder(folder)])
    (log,) = (folder / "reports" / "logs" / DATASET).glob("*.jsonl")
    events = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    ends = [event for event in events if event["event"] == "stage ends"]
    kept = ("stage", "seconds", "peak_memory_mb", "fit_seconds")
    return {
        **{name: ends[0]["rows"][name] for name in ("ratings", "users", "movies") if name in ends[0]["rows"]},
        "seconds": events[-1]["seconds"],
        "cpu_seconds": round(cpu_of_children() - started, 1),
        "peak_memory_mb": events[-1]["peak_memory_mb"],
        "watched_memory_mb": seen,
        "stages": [{name: event[name] for name in kept if name in event} for event in ends],
    }


def compared(against: str | None, *options) -> dict:
    """Measure a run, and before it, if there is one, that of another environment's command."""
    before, other = machine(), {}
    if against:
        commit = commit_of_command(against)
        with tempfile.TemporaryDirectory() as folder:
            other = {"commit": commit} | measured(Path(folder), *options, command=against)
    with tempfile.TemporaryDirectory() as folder:
        figures = measured(Path(folder), *options)
    figures = {"machine": faster(before, machine())} | figures
    if other:
        figures |= {"against": other, "ratio": round(figures["seconds"] / other["seconds"], 3)}
    return figures


def main() -> None:
    """Make the archive, run, write the figures."""
    source, memory, protocol, against = (
        os.environ.get(name) or None for name in ("SOURCE", "MEMORY", "PROTOCOL", "AGAINST")
    )
    scale = None if source else float(os.environ.get("SCALE") or 0.05)
    archive = Path(source) if scale is None else synthetic_archive(scale)
    options = {"--source": archive, "--memory-limit": memory, "--protocol": protocol}
    given = [part for name, value in options.items() if value for part in (name, value)]
    figures = {"scale": scale, "memory_limit": memory, "protocol": protocol or "all"} | compared(against, *given)
    name = archive.stem if scale is None else f"{scale:g}"
    store("runs", ", ".join(filter(None, [name, memory, protocol])), figures)
    print(f"{figures['ratings']:,} ratings: {figures['seconds']:.0f} s, {figures['peak_memory_mb']:,.0f} MB")
    if against:
        print(f"{figures['ratio']:.0%} of the time of {figures['against']['commit']} on the same machine")


if __name__ == "__main__":
    if not shutil.which(movierec()[0]):
        sys.exit("this needs movierec's own environment: make bench-run")
    main()
