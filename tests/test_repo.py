"""The repository itself: notebooks clean, package and README in step, layers respected, all documented and packaged."""

import ast
import configparser
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
PACKAGE = ROOT / "movierec"
MODULES = {
    ".".join(file.relative_to(PACKAGE).with_suffix("").parts): file
    for file in sorted(PACKAGE.rglob("*.py"))
    if not file.name.startswith("_")
}
BASE = {"config", "parallel", "artifacts", "progress", "metrics", "statistics"}
# between the base and the rest
LAYERS = ("data", "retrieval", "ranking", "shards", "stages", "opening", "evaluation", "serving", "app")


def layer(module: str) -> int:
    """How far down a module is: 0 for the base, the last for what only orchestrates."""
    first = module.split(".")[0]
    if first in BASE:
        return 0
    return LAYERS.index(first) + 1 if first in LAYERS else len(LAYERS) + 1


def imports_of(module: str) -> set[str]:
    """The movierec modules that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level:
            parents = ["movierec", *module.split(".")][: -node.level]
            name = ".".join([*parents, *(node.module or "").split(".")]).rstrip(".")
        else:
            name = node.module or ""
        if name.split(".")[0] == "movierec":
            inside = name.removeprefix("movierec").lstrip(".")
            for alias in node.names:
                full = f"{inside}.{alias.name}".lstrip(".")
                found.add(full if full in MODULES else inside)
    return found & MODULES.keys()


def test_modules_import_only_from_their_own_layer_and_those_above():
    pairs = [(module, name) for module in MODULES for name in imports_of(module)]
    wrong = [f"{module} imports {name}" for module, name in pairs if layer(name) > layer(module)]
    assert wrong == [], "a module imports only from its own subpackage and those above it: move the code, or the import"


def test_there_are_no_import_cycles():
    graph, finished = {module: imports_of(module) - {module} for module in MODULES}, set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"a cycle: {' → '.join([*path[path.index(module) :], module])}"
        if module not in finished:
            for name in sorted(graph[module]):
                visit(name, (*path, module))
            finished.add(module)

    for module in graph:
        visit(module, ())


def test_the_code_that_identifies_artifacts_is_listed_in_order():
    """An artifact is rebuilt when a module above its stage changes: `MODULES` lists each after what it imports."""
    from movierec import artifacts

    listed = list(artifacts.MODULES)
    stages = {module for module in MODULES if layer(module) <= LAYERS.index("evaluation") + 1} | {"pipeline"}
    # downloads and synthetic data are archives, whose contents identify them; an inspection writes nothing
    not_of_a_stage = {"data.download", "data.synthetic", "data.synthetic_plays", "data.inspect", "data.frames"}
    not_of_a_stage |= {"data.personal"}  # imported users are in no artifact
    not_of_a_stage |= {"evaluation.user_diff", "evaluation.dashboard"}  # they read what a run has made
    not_of_a_stage |= {"ranking.reasons"}  # they explain what was computed
    not_of_a_stage |= {"evaluation.search_space", "evaluation.studies", "evaluation.search"}  # they write settings
    unlisted = stages - set(listed) - not_of_a_stage
    assert unlisted == set(), "add the module to `MODULES` in the chapter on artifacts"
    assert set(listed) <= MODULES.keys(), "a module in `MODULES` doesn't exist"
    for position, module in enumerate(listed):
        late = [name for name in imports_of(module) if name in listed[position + 1 :]]
        assert late == [], f"{module} imports {late}, which `MODULES` lists after it"


def public_definitions(module: str) -> list[tuple[str, ast.AST]]:
    """Public functions, classes, methods and properties of a module."""
    found: list[tuple[str, ast.AST]] = []
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for node in ast.parse(MODULES[module].read_text(encoding="utf-8")).body:
        if isinstance(node, kinds) and not node.name.startswith("_"):
            found.append((f"{module}.{node.name}", node))
            if isinstance(node, ast.ClassDef):
                methods = [one for one in node.body if isinstance(one, kinds) and not one.name.startswith("_")]
                found += [(f"{module}.{node.name}.{one.name}", one) for one in methods]
    return found


def test_everything_public_has_a_docstring():
    without = [name for module in MODULES for name, node in public_definitions(module) if not ast.get_docstring(node)]
    assert without == [], "say what it returns or does"


def test_exported_cells_are_short():
    """One definition per cell, as in nbdev and fastcore: none above 60 lines, nine of ten within 35."""
    spec = importlib.util.spec_from_file_location("cell_stats", ROOT / "nbs" / "cell_stats.py")
    cell_stats = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(cell_stats)
    found = cell_stats.measure()
    long = [place for place in sorted(found["places"][found["lengths"] > 60]) if "class Settings(" not in place]
    assert long == [], "split the cell into the ideas it holds (`Settings` only declares)"
    assert sorted(found["lengths"])[int(0.9 * len(found["lengths"]))] <= 35


def test_notebooks_are_clean_and_the_package_is_in_step(tmp_path):
    """In a copy, `nbdev_clean` and `nbdev_export` change nothing."""
    for name in ("nbs", "movierec", "reports"):
        ignored = shutil.ignore_patterns("__pycache__", "models", "runs", "logs", "local-results", ".ipynb_checkpoints")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    for name in ("settings.ini", "pyproject.toml", "setup.py", "README.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    for command in (["nbdev_clean"], ["nbdev_clean", "--fname", "reports"], ["nbdev_export"]):
        subprocess.run([BIN / command[0], *command[1:]], cwd=tmp_path, env=environment, check=True, capture_output=True)
    changed = []
    for file in sorted(tmp_path.rglob("*")):
        original = ROOT / file.relative_to(tmp_path)
        if file.suffix in (".ipynb", ".py") and not (original.is_file() and original.read_bytes() == file.read_bytes()):
            changed.append(str(file.relative_to(tmp_path)))
    assert changed == [], "run `make export` and commit"


def test_every_module_comes_from_a_notebook():
    sources = {re.sub(r"^\d+[a-z]?_", "", file.stem) for file in (ROOT / "nbs").glob("*.ipynb")}
    assert MODULES.keys() - sources == set(), "a module without a notebook: remove the file, or write the chapter"


def test_readme_is_made_from_the_index():
    done = subprocess.run([sys.executable, ROOT / "nbs" / "make_readme.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_readme_lists_every_chapter_as_it_is_called():
    """The table is an output of `index.ipynb`, which has to be run again when a chapter comes or changes its name."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for file in sorted((ROOT / "nbs").glob("[0-9]*.ipynb")):
        first = "".join(json.loads(file.read_text(encoding="utf-8"))["cells"][0]["source"])
        title, subtitle = first.split("\n")[0].removeprefix("# "), first.split("> ")[1].split("\n")[0]
        number = file.stem.split("_")[0]
        assert f"| [{number} {title}](nbs/{file.name}) |" in readme, f"run index.ipynb and make readme: {file.name}"
        assert subtitle in readme, f"run index.ipynb and make readme: {file.name}"


def test_metadata_agrees():
    config = configparser.ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini", encoding="utf-8")
    from movierec import __version__

    assert config["DEFAULT"]["version"] == __version__
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    for extra in ("", "app_", "bench_", "neural_", "tune_", "dev_"):
        for requirement in config["DEFAULT"][f"{extra}requirements"].split():
            name = re.split(r"[<>=!~]", requirement)[0].lower().replace("_", "-")
            assert name in pinned, f"{name} is not pinned in constraints.txt"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel made from the source distribution: each of the two could lack something."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("movierec", "data", "settings.ini", "pyproject.toml", "setup.py", "README.md", "LICENSE"):
        source, target = ROOT / name, folder / "source" / name
        target.parent.mkdir(exist_ok=True)
        if source.is_dir():
            derived = ("raw", "processed", "feedback") if name == "data" else ()
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", *derived))
        else:
            shutil.copy(source, target)
    command = [sys.executable, "setup.py", "-q", "sdist", "-d", folder]
    subprocess.run(command, cwd=folder / "source", check=True, capture_output=True)
    (packed,) = folder.glob("*.tar.gz")
    pip("wheel", "-q", "--no-deps", "--no-index", "--no-build-isolation", "-w", folder, packed)
    (built,) = folder.glob("*.whl")
    return built


def pip(*arguments: object) -> None:
    """Run pip, without asking whether there is a newer one."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True)


@pytest.mark.slow
def test_the_wheel_holds_every_module_the_static_files_and_the_dataset(wheel):
    """An editable install would hide what is missing."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        bundled = {name: archive.read(name) for name in names if name.startswith("movierec/bundled/")}
    static = {f"movierec/static/{file.name}" for file in (PACKAGE / "static").iterdir()}
    modules = {str(file.relative_to(ROOT)) for file in PACKAGE.rglob("*.py")}
    assert (modules | static | {"movierec/py.typed"}) - names == set()
    with_licence = ("ml-latest-small.zip", "ml-latest-small.README.txt", "NOTICE.txt")
    assert bundled == {f"movierec/bundled/{name}": (ROOT / "data" / name).read_bytes() for name in with_licence}


@pytest.mark.slow
def test_an_installed_wheel_runs_in_an_empty_folder_without_a_network(wheel, tmp_path):
    """The libraries are those of this environment, but not its editable install: that is found by another way."""
    environment, folder = tmp_path / "environment", tmp_path / "empty"
    folder.mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True, capture_output=True)
    python = environment / "bin" / "python"
    pip("--python", python, "install", "-q", "--no-deps", "--no-index", wheel)
    (packages,) = environment.glob("lib/python*/site-packages")
    libraries = Path(pytest.__file__).parents[1]
    (packages / "libraries.pth").write_text(f"{libraries}\n")
    fast = ("bootstrap=100", "als.iterations=1", "ranker.max_iter=10", "ranker_v3.trees=10", "linear_ar.max_items=500")
    options = [part for setting in fast for part in ("--set", setting)]
    unreachable = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | unreachable

    def output(*command: object) -> str:
        done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert Path(output(python, "-c", "import movierec; print(movierec.__file__)").strip()).is_relative_to(packages)
    movierec = environment / "bin" / "movierec"
    assert "ranked_v3" in output(movierec, "run", "--protocol", "global-time", *options)
    assert sorted(file.name for file in folder.iterdir()) == ["data", "reports"]
    assert (folder / "reports" / "results" / "ml-latest-small" / "global-time.json").is_file()
    assert not (folder / "data" / "raw").exists(), "nothing was downloaded"
    assert "ml-latest-small" in output(movierec, "info")


def test_committed_results_are_of_a_whole_run():
    folder = ROOT / "reports" / "results" / "ml-latest-small"
    for protocol in ("leave-last-out", "global-time"):
        results = json.loads((folder / f"{protocol}.json").read_text(encoding="utf-8"))
        assert len(results["seconds"]) == 8 and results["peak_memory_mb"] > 0


@pytest.mark.parametrize("dataset", ["ml-1m", "ml-latest-small"])
def test_committed_results_of_a_dataset_agree(dataset):
    """One commit and one configuration, apart from what their names say; the commit may be an old one."""
    commits, configs, sources = {}, {}, {}
    for file in sorted((ROOT / "reports" / "results" / dataset).glob("*.json")):
        results = json.loads(file.read_text(encoding="utf-8"))
        commits[file.name] = results["commit"]
        config = results["config"]
        assert config["sasrec"].pop("enabled") == file.stem.endswith("-neural"), file.name
        configs[file.name] = json.dumps([config, results["version"]], sort_keys=True)
        if isinstance(results["dataset"], dict):
            sources[file.name] = results["dataset"]["sha256"]
    for values in (commits, configs, sources):
        assert len(set(values.values())) == 1, values
    assert not next(iter(commits.values())).endswith("+"), "made by code that nobody can check out"


def test_bundled_data_come_with_their_licence():
    with zipfile.ZipFile(ROOT / "data" / "ml-latest-small.zip") as archive:
        assert archive.testzip() is None
        readme = archive.read("ml-latest-small/README.txt")
    assert (ROOT / "data" / "ml-latest-small.README.txt").read_bytes() == readme and b"redistribute" in readme
    assert "ml-latest-small.README.txt" in (ROOT / "data" / "NOTICE.txt").read_text(encoding="utf-8")


BLENDS = ("hybrid", "ranked_v3", "ranked_unordered")
EVALUATIONS = sorted(
    file for file in (ROOT / "reports" / "results").glob("ml-*/*.json")
    if "significance" in json.loads(file.read_text(encoding="utf-8"))
)


@pytest.mark.parametrize("file", EVALUATIONS, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_no_blend_is_significantly_below_its_best_part(file):
    """Neither the hybrid nor the ranker, by any headline metric (paired bootstrap, Holm-adjusted)."""
    results = json.loads(file.read_text(encoding="utf-8"))
    systems = results["systems"]
    sources = [name for name in systems if name != "hybrid" and not name.startswith("ranked")]
    # only movies without events count there: lists that have others, too, can't reach those of `content`
    if results["protocol"]["name"] == "cold-items":
        assert max(sources, key=lambda name: systems[name]["recall@50"]) == "content"
        return
    for metric in results["protocol"]["headline"]:
        tested = results["significance"][metric]
        best = max(sources, key=lambda name: systems[name][metric])
        for blend in set(BLENDS).intersection(systems):
            below = tested["versus"].get(blend, {"p_holm": 1.0})["p_holm"] < 0.05
            assert not (below and tested["system"] in sources), (metric, blend)
            assert systems[blend]["ci95"][metric][1] > systems[best]["ci95"][metric][0], (metric, blend)
