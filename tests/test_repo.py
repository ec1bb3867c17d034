"""The repository itself: notebooks clean, package and README in step, metadata and licences in order."""

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


def test_notebooks_are_clean_and_the_package_is_in_step(tmp_path):
    """In a copy, `nbdev_clean` and `nbdev_export` change nothing."""
    for name in ("nbs", "movierec", "reports"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "models", ".ipynb_checkpoints"))
    for name in ("settings.ini", "pyproject.toml", "setup.py", "README.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    for command in (["nbdev_clean"], ["nbdev_clean", "--fname", "reports"], ["nbdev_export"]):
        subprocess.run([BIN / command[0], *command[1:]], cwd=tmp_path, env=environment, check=True, capture_output=True)
    changed = [str(file.relative_to(tmp_path)) for file in sorted(tmp_path.rglob("*")) if file.suffix in (".ipynb", ".py")
               and (not (ROOT / file.relative_to(tmp_path)).is_file() or file.read_bytes() != (ROOT / file.relative_to(tmp_path)).read_bytes())]
    assert changed == [], "run `make export` and commit"


def test_readme_is_made_from_the_index():
    done = subprocess.run([sys.executable, ROOT / "nbs" / "make_readme.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_metadata_agrees():
    config = configparser.ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini", encoding="utf-8")
    from movierec import __version__

    assert config["DEFAULT"]["version"] == __version__
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    for extra in ("requirements", "app_requirements", "bench_requirements", "neural_requirements", "dev_requirements"):
        for requirement in config["DEFAULT"][extra].split():
            name = re.split(r"[<>=!~]", requirement)[0].lower().replace("_", "-")
            assert name in pinned, f"{name} is not pinned in constraints.txt"


def test_committed_results_are_of_a_whole_run():
    for protocol in ("leave-last-out", "global-time"):
        results = json.loads((ROOT / "reports" / "results" / "ml-latest-small" / f"{protocol}.json").read_text(encoding="utf-8"))
        assert len(results["seconds"]) == 8 and results["peak_memory_mb"] > 0


def test_bundled_data_come_with_their_licence():
    with zipfile.ZipFile(ROOT / "data" / "ml-latest-small.zip") as archive:
        assert archive.testzip() is None
        readme = archive.read("ml-latest-small/README.txt")
    assert (ROOT / "data" / "ml-latest-small.README.txt").read_bytes() == readme and b"redistribute" in readme


def test_chapters_import_only_from_above():
    from movierec.artifacts import MODULES

    assert MODULES[1] == "ingest"
    order = (*MODULES, "service", "feedback", "home", "posters", "api", "app", "front")  # these make no artifacts
    for position, chapter in enumerate(order):
        text = (ROOT / "movierec" / f"{chapter}.py").read_text(encoding="utf-8")
        for name in set(re.findall(r"^\s*from \.(\w+) import", text, re.M)) - {"download"}:  # no artifact depends on how an archive was fetched
            assert order.index(name) < position, f"{chapter} imports {name}"
