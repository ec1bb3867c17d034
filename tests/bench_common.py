"""What the benchmarks share: the description of the machine, the files with the results, and the command.

As a script it prints the description of the machine as JSON. Imports nothing heavy: peers without movierec read
it too, and a child process begins with the peak memory of its parent, so those who measure have to stay small.
"""

import json
import os
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".venv" / "serve"  # archives and runs that are made once
PACKAGES = ("movierec", "numpy", "scipy", "implicit", "lightgbm", "duckdb", "pandas", "polars", "pyarrow")
CODE = ("movierec", "nbs", "tests")  # what a commit has to agree with: results are written while measuring


def results_file(name: str = "bench.json") -> Path:
    """A file of results: in reports/results, or in the folder RESULTS to try a benchmark out."""
    return Path(os.environ.get("RESULTS") or ROOT / "reports" / "results") / name


def read_results() -> dict:
    """What bench.json holds so far; {} if there is none."""
    file = results_file()
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def write_results(results: dict) -> None:
    """Write bench.json and say so."""
    from movierec.artifacts import write_json

    file = results_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, results)
    print(f"written to {file.relative_to(ROOT) if file.is_relative_to(ROOT) else file}")


def store(part: str, name: str, figures: dict) -> None:
    """Write figures under `part`, `name` of bench.json, and leave the others as they are."""
    results = read_results()
    write_results(results | {part: results.get(part, {}) | {name: figures}})


def movierec(*arguments) -> list[str]:
    """The command of this environment."""
    return [str(Path(sys.executable).with_name("movierec")), *map(str, arguments)]


def synthetic_archive(scale: float) -> Path:
    """A synthetic archive like MovieLens 20M, made once."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    archive = FOLDER / f"synthetic-{scale:g}.zip"
    if not archive.is_file():
        subprocess.run(movierec("synthesize", "--like", "ml-20m", "--scale", scale, "--out", archive), check=True)
    return archive


def commit_of_command(command: str) -> str:
    """The commit that the `movierec` of another environment runs, or its version where it is no checkout.

    Exits with a sentence if there is no such command."""
    python = Path(command).absolute().with_name("python")
    if not os.access(command, os.X_OK) or not python.exists():
        sys.exit(f"AGAINST={command} should be the movierec command of an environment, as /other/.venv/bin/movierec")
    from movierec.artifacts import commit_of

    code = "import movierec; print(movierec.__path__[0]); print(movierec.__version__)"
    done = subprocess.run([python, "-c", code], cwd="/", capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"AGAINST={command} can't import movierec: {done.stderr.strip().splitlines()[-1]}")
    package, version = done.stdout.splitlines()
    return commit_of(Path(package), CODE) or f"version {version}"


def processor() -> str:
    """The processor's name, as the system calls it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def blas_kernels() -> list[str]:
    """The BLAS libraries of numpy and scipy with their versions, and the kernels that they chose."""
    import numpy  # noqa: F401
    import scipy.linalg  # noqa: F401  each loads its own
    from threadpoolctl import threadpool_info

    libraries = [library for library in threadpool_info() if library["user_api"] == "blas"]
    return sorted({f"{one['internal_api']} {one['version']}, {one.get('architecture', '?')}" for one in libraries})


def fastest(work, repeats: int = 3) -> float:
    """The least seconds of several tries, after one that doesn't count."""
    work()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def throughput(size: int = 4_096, copied: int = 50_000_000) -> dict:
    """What the processor does at most, on all cores: products of `size` × `size` matrices, in 10⁹ operations per
    second, and copying `copied` float64 numbers, in 10⁹ bytes read and written per second.
    """
    import numpy as np

    gflops = {}
    for dtype in ("float32", "float64"):
        a, b, out = (np.ones((size, size), dtype) for _ in range(3))
        gflops[dtype] = round(2 * size**3 / fastest(lambda a=a, b=b, out=out: np.matmul(a, b, out)) / 1e9, 1)
    source, target = np.ones(copied), np.empty(copied)
    return {
        "blas_gflops": gflops,
        "copied_gb_per_s": round(2 * source.nbytes / fastest(lambda: np.copyto(target, source)) / 1e9, 1),
    }


def version_of(package: str) -> str | None:
    """The version of an installed package; None if it isn't installed, as the peers of a benchmark may not be."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def describe(**sizes: int) -> dict:
    """When and on what is being measured: commit, processor, BLAS, its throughput, versions."""
    from movierec.artifacts import commit_of
    from movierec.parallel import cores, machine_memory_mb

    memory = machine_memory_mb()
    return {
        "commit": commit_of(ROOT, CODE),
        "day": time.strftime("%Y-%m-%d", time.gmtime()),
        "processor": processor(),
        "cores": cores(),
        "memory_gb": None if memory is None else round(memory / 1e3, 1),
        "blas": blas_kernels(),
        **throughput(**sizes),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := version_of(name))},
    }


def machine() -> dict:
    """`describe`, from a process of its own; takes about ten seconds."""
    done = subprocess.run([sys.executable, __file__], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def faster(before: dict, after: dict) -> dict:
    """The description of a machine that was probed before and after a measurement, with the higher throughput:
    on a shared processor one probe alone may be too low to bound what was measured.
    """
    gflops = {dtype: max(value, after["blas_gflops"][dtype]) for dtype, value in before["blas_gflops"].items()}
    copied = max(before["copied_gb_per_s"], after["copied_gb_per_s"])
    return before | {"blas_gflops": gflops, "copied_gb_per_s": copied}


if __name__ == "__main__":
    print(json.dumps(describe()))
