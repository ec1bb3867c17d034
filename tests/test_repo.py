"""The repository itself: notebooks clean, package and README in step, nothing of this machine in stored outputs."""

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted([*ROOT.glob("nbs/*.ipynb"), *ROOT.glob("reports/*.ipynb")])
BIN = Path(sys.executable).parent

every_notebook = pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)


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


@every_notebook
def test_stored_outputs(file):
    """Every code cell was run, in order, without errors or warnings, and shows no path of a machine."""
    notebook = nbformat.read(file, 4)
    nbformat.validate(notebook)
    text = file.read_text(encoding="utf-8")
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            assert output.output_type != "error", cell.source
            assert output.get("name") != "stderr", cell.source
    assert any(cell.get("outputs") for cell in notebook.cells if cell.cell_type == "code")
    found = re.findall(r"(?:/home/|/root/|/Users/|/tmp/|[A-Z]:\\\\)[^\"\s]*", text) + ([str(ROOT)] if str(ROOT) + "/" in text else [])
    assert found == []


@every_notebook
def test_links_and_images_resolve(file):
    notebook = nbformat.read(file, 4)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for target in re.findall(r"\]\(([^)\s]+)\)", cell.source):
                if not re.match(r"https?://|#|mailto:", target):
                    assert (file.parent / target.split("#")[0]).exists(), target


def test_links_of_the_readme_resolve():
    for document in ("README.md", "CONTRIBUTING.md"):
        for target in re.findall(r"\]\(([^)\s]+)\)", (ROOT / document).read_text(encoding="utf-8")):
            if not re.match(r"https?://|#", target):
                assert (ROOT / target).exists(), target


@every_notebook
def test_pages_pass_the_quarto_filter(file):
    done = subprocess.run([sys.executable, ROOT / "nbs" / "quarto_filter.py"], input=file.read_text(encoding="utf-8"), capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    page = nbformat.reads(done.stdout, 4)
    nbformat.validate(page)
    left = [line for cell in page.cells for line in cell.source.splitlines() if re.match(r"#\|\s*(export|hide|default_exp)", line)]
    assert left == []


def test_site_configuration_names_pages_that_exist():
    site = yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))

    def pages(value):
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, list):
            return [page for part in value for page in pages(part)]
        return [value] if isinstance(value, str) and value.endswith((".ipynb", ".py")) else []

    named = pages(site)
    for page in named:
        assert list(ROOT.glob(page)), page
    for file in NOTEBOOKS:
        assert str(file.relative_to(ROOT)) in named, f"{file.name} is missing from the sidebar"


def test_metadata_agrees():
    config = configparser.ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini", encoding="utf-8")
    from movierec import __version__

    assert config["DEFAULT"]["version"] == __version__
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    for extra in ("requirements", "app_requirements", "bench_requirements", "neural_requirements", "dev_requirements"):
        for requirement in config["DEFAULT"][extra].split():
            name = re.split(r"[<>=!~]", requirement)[0].lower()
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
    from movierec.config import CHAPTERS

    assert CHAPTERS[1] == "ingest"
    order = (*CHAPTERS, "service", "feedback", "api")  # these make no artifacts
    for position, chapter in enumerate(order):
        text = (ROOT / "movierec" / f"{chapter}.py").read_text(encoding="utf-8")
        for name in set(re.findall(r"^\s*from \.(\w+) import", text, re.M)) - {"download"}:  # no artifact depends on how an archive was fetched
            assert order.index(name) < position, f"{chapter} imports {name}"
