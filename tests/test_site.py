"""The site, as far as it can be checked without Quarto: pages, links, the filter, and that report pages read results only."""

import ast
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
TEXTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", *(str(file.relative_to(ROOT)) for file in ROOT.glob("reports/results/*/README.md")))]

every_notebook = pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)


@cache
def read(file: Path) -> nbformat.NotebookNode:
    return nbformat.read(file, 4)


@cache
def page(file: Path) -> tuple[dict, nbformat.NotebookNode]:
    """What Quarto gets: the JSON of the filtered notebook, called as Quarto calls it, and the same read by nbformat."""
    done = subprocess.run([sys.executable, ROOT / "nbs" / "quarto_filter.py"], input=file.read_text(encoding="utf-8"), capture_output=True, text=True, cwd=file.parent)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), nbformat.reads(done.stdout, 4)


def outputs_of(notebook, kind: str) -> list[str]:
    return [output.data[kind] for cell in notebook.cells for output in cell.get("outputs", []) if kind in output.get("data", {})]


def markdown_of(file: Path) -> str:
    """The text of a notebook or Markdown file, with what its cells put out as Markdown, without code blocks."""
    if file.suffix == ".md":
        text = file.read_text(encoding="utf-8")
    else:
        cells = [cell.source for cell in read(file).cells if cell.cell_type == "markdown"]
        text = "\n\n".join(cells + outputs_of(read(file), "text/markdown"))
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


def anchors(file: Path) -> set[str]:
    """The names that Pandoc gives headings."""
    heads = re.findall(r"^#+ +(.+?) *$", markdown_of(file), flags=re.M)
    plain = [re.sub(r"[`*]|\[([^]]*)\]\([^)]*\)", r"\1", head) for head in heads]
    return {re.sub(r"[^\w\s.-]", "", head).strip().lower().replace(" ", "-") for head in plain}


def broken_links(file: Path) -> list[str]:
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", markdown_of(file)) if not re.match(r"https?://|mailto:", target)]
    places = {target: (file.parent / target.split("#")[0] if target[0] != "#" else file, target.partition("#")[2]) for target in targets}
    return [target for target, (place, anchor) in places.items() if not place.exists() or (anchor and anchor not in anchors(place))]


@pytest.mark.parametrize("file", [*NOTEBOOKS, *TEXTS], ids=lambda file: str(file.relative_to(ROOT)))
def test_links_images_and_anchors_resolve(file):
    assert broken_links(file) == []


def test_a_broken_link_would_be_found(tmp_path):
    (tmp_path / "there.md").write_text("# A `heading`, isn't it\n")
    file = tmp_path / "page.md"
    file.write_text("[1](there.md#a-heading-isnt-it) [2](there.md#no) [3](gone.md) [4](#here)\n\n## Here\n\n```\n[5](in-code.md)\n```\n")
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
    shown = [cell.source for cell in notebook.cells] + [str(value) for cell in notebook.cells for output in cell.get("outputs", [])
             for value in [output.get("text", ""), *(value for kind, value in output.get("data", {}).items() if not kind.startswith("image/"))]]
    text = "\n".join(shown)
    assert re.findall(r"(?:/home/|/root/|/Users/|/tmp/|[A-Z]:\\\\)[^\"\s]*", text) == [] and f"{ROOT}/" not in text
    assert not re.search(r"\w+Warning: ", text)


@every_notebook
def test_pages_pass_the_filter(file):
    """Quarto joins the lines of each source, so they must be lists; and it knows none of nbdev's directives."""
    raw, notebook = page(file)
    nbformat.validate(notebook)
    assert all(isinstance(cell["source"], list) for cell in raw["cells"])
    left = [line for cell in notebook.cells if cell.cell_type == "code" for line in cell.source.splitlines()
            if line.startswith("#|") and not re.match(r"#\| *(echo|output|code-fold|code-summary|label|fig-\w+): ", line)]
    assert left == []


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
    cells = [cell.source for cell in read(file).cells if cell.cell_type == "code" and re.match(r"#\| *export\b", cell.source)]
    return [node.name for source in cells for node in ast.parse(source).body if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")]


@pytest.mark.parametrize("file", [file for file in NOTEBOOKS if public_names(file)], ids=lambda file: file.stem)
def test_every_exported_function_is_documented_on_its_page(file):
    shown = "\n".join(outputs_of(page(file)[1], "text/markdown"))
    assert [name for name in public_names(file) if not re.search(rf"^###+ {name}\b", shown, flags=re.M)] == []
    assert "[source](" not in shown  # it would lead nowhere


def strings(value) -> list[str]:
    if isinstance(value, dict):
        value = list(value.values())
    return [text for part in value for text in strings(part)] if isinstance(value, list) else [value] if isinstance(value, str) else []


def test_site_configuration():
    site = yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))
    assert site["project"]["type"] == "website" and site["website"]["repo-actions"] == "none" and site["execute"] == {"enabled": False}
    pages = [text for text in strings([site["project"]["render"], site["website"]["navbar"], site["website"]["sidebar"], site["ipynb-filters"]]) if re.search(r"\.(ipynb|md|py)$", text)]
    assert [name for name in pages if not list(ROOT.glob(name))] == []
    assert [name for name in site["project"]["resources"] if not list(ROOT.glob(name))] == []
    listed = strings(site["website"]["sidebar"])
    assert [str(file.relative_to(ROOT)) for file in NOTEBOOKS if str(file.relative_to(ROOT)) not in listed] == []
    rendered = {file for name in site["project"]["render"] for file in ROOT.glob(name)}
    assert [name for name in listed if (ROOT / name).is_file() and ROOT / name not in rendered] == []
    assert (ROOT / site["website"]["navbar"]["logo-href"]).with_suffix(".ipynb").is_file()


def test_quarto_knows_the_keys():
    """These objects are closed in Quarto's schema: a key that it doesn't know stops it."""
    site = yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))
    assert set(site) <= {"project", "website", "format", "execute", "ipynb-filters"}
    assert set(site["project"]) <= {"title", "type", "render", "execute-dir", "output-dir", "lib-dir", "resources", "preview", "pre-render", "post-render"}
    assert set(site["website"]) <= {"title", "description", "favicon", "site-url", "repo-actions", "search", "navbar", "sidebar", "page-navigation", "back-to-top-navigation", "bread-crumbs",
                                    "page-footer", "image", "reader-mode"}
    assert set(site["website"]["search"]) <= {"location", "type", "limit", "collapse-after", "copy-button", "keyboard-shortcut", "show-item-context"}
    assert set(site["website"]["page-footer"]) <= {"left", "right", "center", "border", "background", "foreground"}
    assert set(site["format"]["html"]["code-tools"]) <= {"source", "toggle", "caption"} and set(site["format"]["html"]["theme"]) == {"light", "dark"}


def test_the_site_opens_on_the_landing_page():
    """Quarto writes `index.html` at the top only for a page of that name there; an alias leads on."""
    front = yaml.safe_load(page(ROOT / "nbs" / "index.ipynb")[1].cells[0].source.strip().strip("-"))
    assert front["aliases"] == ["/index.html"]


def test_make_site_says_how_to_get_quarto(tmp_path):
    rule = re.search(r"^site:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M)[1]
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
            exec(compile("".join(line for line in cell["source"] if not line.startswith("%")), file.name, "exec"), names)
    sys.modules["matplotlib.pyplot"].close("all")  # as a notebook does after each cell
print(json.dumps(sorted(touched)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kept", [None, ("ml-latest-small",), ()], ids=["all results", "without ml-1m", "without any data set"])
def test_report_pages_read_only_results(tmp_path, kept):
    """In a folder that holds nothing but the package, the pages and results, every page runs, and opens nothing else."""
    for name in ("movierec", "reports"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "models", "runs", ".ipynb_checkpoints"))
    shutil.copy(ROOT / "settings.ini", tmp_path)
    results = tmp_path / "reports" / "results"
    for folder in [folder for folder in results.iterdir() if folder.is_dir()]:
        if kept is not None and folder.name not in kept:
            shutil.rmtree(folder)
    done = subprocess.run([sys.executable, "-W", "error", "-c", RUN], cwd=tmp_path / "reports", capture_output=True, text=True,
                          env={"PYTHONPATH": str(tmp_path), "MPLBACKEND": "agg", "PATH": "", "HOME": str(tmp_path / "home"), "PYTHONDONTWRITEBYTECODE": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    touched = json.loads(done.stdout.splitlines()[-1])
    assert [name for name in touched if not name.startswith(("reports/results", "home/")) and name not in (".", "movierec", "reports", "reports/__pycache__", "settings.ini")] == []
    assert "reports/results/published.json" in touched


def test_published_figures_come_with_their_source():
    published = json.loads((ROOT / "reports" / "results" / "published.json").read_text(encoding="utf-8"))
    for name, table in published.items():
        if name != "note":
            assert table["dataset"] and table["split"] and (table.get("link", "").startswith("https://") or table["status"])
            assert all(len(values) == len(table["metrics"]) and all(value is None or 0 < value < 1 for value in values) for values in table["systems"].values())
