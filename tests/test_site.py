"""The site, as far as it can be checked without Quarto: pages, links and the filter; report pages read results only."""

import ast
import contextlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import nbformat
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
REPORTS = sorted(ROOT.glob("reports/*.ipynb"))
NOTEBOOKS = sorted([*ROOT.glob("nbs/*.ipynb"), *REPORTS])
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("reports/results/*/README.md")]

OWN_PROCESS = ("80_serving.middleware",)  # Prometheus metrics can be defined once in a process

every_notebook = pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)


@cache
def read(file: Path) -> nbformat.NotebookNode:
    return nbformat.read(file, 4)


@cache
def quarto_filter():
    """The module with the filter, which Quarto runs as a script."""
    spec = importlib.util.spec_from_file_location("quarto_filter", ROOT / "nbs" / "quarto_filter.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def page(file: Path) -> tuple[dict, nbformat.NotebookNode]:
    """What Quarto gets: the JSON of the filtered notebook, and the same read by nbformat."""
    if file.stem in OWN_PROCESS:
        text = filtered_in_a_process(file)
    else:
        with contextlib.chdir(file.parent):
            text = quarto_filter().filtered(file.read_text(encoding="utf-8"))
    return json.loads(text), nbformat.reads(text, 4)


def filtered_in_a_process(file: Path) -> str:
    """What the filter writes when it is called as Quarto calls it."""
    command = [sys.executable, ROOT / "nbs" / "quarto_filter.py"]
    given = file.read_text(encoding="utf-8")
    done = subprocess.run(command, input=given, capture_output=True, text=True, cwd=file.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_filter_reads_standard_input_and_writes_standard_output():
    """As Quarto calls it, for one page."""
    file = ROOT / "nbs" / "03_progress.ipynb"
    cells = json.loads(filtered_in_a_process(file))["cells"]
    assert [cell["source"] for cell in cells] == [cell["source"] for cell in page(file)[0]["cells"]]


def outputs_of(notebook, kind: str) -> list[str]:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output.data[kind] for output in outputs if kind in output.get("data", {})]


def markdown_of(file: Path) -> str:
    """The text of a notebook or Markdown file, with what its cells put out as Markdown, without code blocks."""
    if file.suffix == ".md":
        text = file.read_text(encoding="utf-8")
    else:
        cells = [cell.source for cell in read(file).cells if cell.cell_type == "markdown"]
        text = "\n\n".join(cells + outputs_of(read(file), "text/markdown"))
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


@cache
def anchors(file: Path) -> set[str]:
    """The names that Pandoc gives headings."""
    heads = re.findall(r"^#+ +(.+?) *$", markdown_of(file), flags=re.M)
    plain = [re.sub(r"[`*]|\[([^]]*)\]\([^)]*\)", r"\1", head) for head in heads]
    return {re.sub(r"[^\w\s.-]", "", head).strip().lower().replace(" ", "-") for head in plain}


def broken_links(file: Path) -> list[str]:
    """Links of a file that lead to no file, or to no heading in it."""
    broken = []
    for target in dict.fromkeys(re.findall(r"\]\(([^)\s]+)\)", markdown_of(file))):
        if re.match(r"https?://|mailto:", target):
            continue
        name, _, anchor = target.partition("#")
        place = file.parent / name if name else file
        if not place.exists() or (anchor and anchor not in anchors(place)):
            broken.append(target)
    return broken


@pytest.mark.parametrize("file", [*NOTEBOOKS, *TEXTS], ids=lambda file: str(file.relative_to(ROOT)))
def test_links_images_and_anchors_resolve(file):
    assert broken_links(file) == [], "correct these links: to an existing file, and to a heading in it"


def test_a_broken_link_would_be_found(tmp_path):
    (tmp_path / "there.md").write_text("# A `heading`, isn't it\n")
    file = tmp_path / "page.md"
    links = "[1](there.md#a-heading-isnt-it) [2](there.md#no) [3](gone.md) [4](#here)"
    file.write_text(f"{links}\n\n## Here\n\n```\n[5](in-code.md)\n```\n")
    assert broken_links(file) == ["there.md#no", "gone.md"]


@every_notebook
def test_stored_outputs(file):
    """Every page was run, without errors or warnings, and shows no path of a machine."""
    notebook = read(file)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            assert output.output_type != "error", cell.source
            assert output.get("name") != "stderr", cell.source
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not code or any(cell.get("outputs") for cell in code)
    shown = [cell.source for cell in notebook.cells]
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        data = output.get("data", {})
        shown += [output.get("text", ""), *(str(data[kind]) for kind in data if not kind.startswith("image/"))]
    text = "\n".join(shown)
    paths = r"(?:/home/|/root/|/Users/|/tmp/|Path\('/|[A-Z]:\\\\Users)[^\"\s]*"
    assert re.findall(paths, text) == [] and f"{ROOT}/" not in text
    assert not re.search(r"\w+Warning: ", text)


@every_notebook
def test_pages_pass_the_filter(file):
    """Quarto joins the lines of each source, so they must be lists; and it knows none of nbdev's directives."""
    raw, notebook = page(file)
    nbformat.validate(notebook)
    assert all(isinstance(cell["source"], list) for cell in raw["cells"])
    quarto = re.compile(r"#\| *(echo|output|code-fold|code-summary|label|fig-\w+): ")
    code = [cell.source.splitlines() for cell in notebook.cells if cell.cell_type == "code"]
    directives = [line for lines in code for line in lines if line.startswith("#|")]
    assert [line for line in directives if not quarto.match(line)] == []


@every_notebook
def test_titles_become_front_matter_and_the_text_below_stays(file):
    _, notebook = page(file)
    front = yaml.safe_load(notebook.cells[0].source.strip().strip("-"))
    first = next(cell.source for cell in read(file).cells if cell.cell_type == "markdown")
    title, *lines = first.splitlines()
    assert front["title"] == title.removeprefix("# ") and front["description"]
    assert "output-file" not in front  # one name for all pages
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert [line for line in lines if line and not line.startswith(">") and line not in text] == []


def public_names(file: Path) -> list[str]:
    """Functions and classes that a chapter exports."""
    code = [cell.source for cell in read(file).cells if cell.cell_type == "code"]
    exported = [source for source in code if re.match(r"#\| *export\b", source)]
    nodes = [node for source in exported for node in ast.parse(source).body]
    names = [node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return [name for name in names if not name.startswith("_")]


@pytest.mark.parametrize("file", [file for file in NOTEBOOKS if public_names(file)], ids=lambda file: file.stem)
def test_every_exported_function_is_documented_on_its_page(file):
    shown = "\n".join(outputs_of(page(file)[1], "text/markdown"))
    missing = [name for name in public_names(file) if not re.search(rf"^###+ {name}\b", shown, flags=re.M)]
    assert missing == [], "nbdev shows no documentation of these: export each by a cell of its own"
    assert "[source](" not in shown  # it would lead nowhere


def strings(value) -> list[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [text for part in value for text in strings(part)]
    return [value] if isinstance(value, str) else []


def test_site_configuration():
    site = yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))
    project, website = site["project"], site["website"]
    assert project["type"] == "website" and website["repo-actions"] == "none"
    assert site["execute"] == {"enabled": False}
    named = strings([project["render"], website["navbar"], website["sidebar"], site["ipynb-filters"]])
    pages = [text for text in named if re.search(r"\.(ipynb|md|py)$", text)]
    assert [name for name in pages if not list(ROOT.glob(name))] == [], "_quarto.yml names pages that don't exist"
    assert [name for name in project["resources"] if not list(ROOT.glob(name))] == []
    listed, notebooks = strings(website["sidebar"]), [str(file.relative_to(ROOT)) for file in NOTEBOOKS]
    assert [name for name in notebooks if name not in listed] == [], "add these pages to the sidebar in _quarto.yml"
    rendered = {file for name in project["render"] for file in ROOT.glob(name)}
    assert [name for name in listed if (ROOT / name).is_file() and ROOT / name not in rendered] == []
    assert "logo-href" not in website["navbar"], "Quarto doesn't make such links relative: a 404 on every page but one"


def test_quarto_knows_the_keys():
    """These objects are closed in Quarto's schema: a key that it doesn't know stops it."""
    site = yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))
    website, html = site["website"], site["format"]["html"]
    assert set(site) <= {"project", "website", "format", "execute", "ipynb-filters"}
    assert set(site["project"]) <= {
        "title", "type", "render", "execute-dir", "output-dir", "lib-dir", "resources", "preview", "pre-render",
        "post-render",
    }
    assert set(website) <= {
        "title", "description", "favicon", "site-url", "repo-actions", "search", "navbar", "sidebar",
        "page-navigation", "back-to-top-navigation", "bread-crumbs", "page-footer", "image", "reader-mode",
    }
    assert set(website["search"]) <= {
        "location", "type", "limit", "collapse-after", "copy-button", "keyboard-shortcut", "show-item-context",
    }
    assert set(website["page-footer"]) <= {"left", "right", "center", "border", "background", "foreground"}
    assert set(html["code-tools"]) <= {"source", "toggle", "caption"} and set(html["theme"]) == {"light", "dark"}


def test_the_site_opens_on_the_landing_page():
    """Quarto writes `index.html` at the top only for a page of that name there; an alias leads on."""
    front = yaml.safe_load(page(ROOT / "nbs" / "index.ipynb")[1].cells[0].source.strip().strip("-"))
    assert front["aliases"] == ["/index.html"]


def test_make_site_says_how_to_get_quarto(tmp_path):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    rule = re.search(r"^site:.*\n((?:\t.*\n)+)", makefile, flags=re.M)[1]
    check = rule.splitlines()[0].strip().removeprefix("@").replace("$$", "$")
    (tmp_path / "sh").symlink_to(shutil.which("sh"))
    done = subprocess.run(["sh", "-c", check], capture_output=True, text=True, env={"PATH": str(tmp_path)})
    assert done.returncode == 1 and "https://quarto.org/docs/get-started/" in done.stdout
    assert "https://quarto.org/docs/get-started/" in (ROOT / "README.md").read_text(encoding="utf-8")


RUN = """
import json, sys
from pathlib import Path

root, touched = Path.cwd().parent, set()


def note(event, arguments):
    if event in ("open", "os.listdir", "os.scandir") and isinstance(arguments[0], str):
        path = Path.cwd() / arguments[0]
        if path.is_relative_to(root) and path.suffix not in (".py", ".pyc", ".ipynb"):
            touched.add(str(path.relative_to(root)))
    if event == "socket.connect":
        touched.add(f"network {arguments[1]}")


sys.addaudithook(note)
sys.path.insert(0, str(Path.cwd()))
for file in sorted(Path.cwd().glob("*.ipynb")):
    names = {}
    for cell in json.loads(file.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            code = "".join(line for line in cell["source"] if not line.startswith("%"))
            exec(compile(code, file.name, "exec"), names)
    sys.modules["matplotlib.pyplot"].close("all")  # as a notebook does after each cell
print(json.dumps(sorted(touched)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("has_results", [True, False], ids=["all results", "without any dataset"])
def test_report_pages_read_only_results(tmp_path, has_results):
    """In a folder that holds nothing but the package, the pages and results, every page runs and opens nothing else."""
    ignored = shutil.ignore_patterns("__pycache__", "models", "runs", "logs", "local", ".ipynb_checkpoints")
    for name in ("movierec", "reports"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    shutil.copy(ROOT / "settings.ini", tmp_path)
    if not has_results:
        for folder in [path for path in (tmp_path / "reports" / "results").iterdir() if path.is_dir()]:
            shutil.rmtree(folder)
    environment = {
        "PYTHONPATH": str(tmp_path),
        "MPLBACKEND": "agg",
        "PATH": "",
        "HOME": str(tmp_path / "home"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-W", "error", "-c", RUN]
    done = subprocess.run(command, cwd=tmp_path / "reports", capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    touched = json.loads(done.stdout.splitlines()[-1])
    allowed = (".", "reports", "reports/__pycache__", "settings.ini")
    prefixes = ("movierec", "reports/results", "home/")
    others = [name for name in touched if not name.startswith(prefixes) and name not in allowed]
    assert others == [], "report pages read reports/results and nothing else"
    assert "reports/results/published.json" in touched


def test_published_results_come_with_their_source():
    published = json.loads((ROOT / "reports" / "results" / "published.json").read_text(encoding="utf-8"))
    for name, table in published.items():
        if name == "note":
            continue
        assert table["dataset"] and table["split"]
        about = table.get("about", {})
        assert table.get("status") or set(about) == set(table["systems"])
        for one in about.values():
            assert one["link"].startswith("https://") and one["source"] and one["setting"]
        for values in table["systems"].values():
            assert len(values) == len(table["metrics"])
            assert all(value is None or 0 < value < 1 for value in values)
