"""Quarto's `ipynb-filters` entry: nbdev's own processors, from standard input to standard output.

Without it Quarto stumbles over directives such as `#| export`. Quarto runs it with the Python it finds; where
that one has no
nbdev, the one that `make` set up takes over.
"""

import contextlib
import importlib.util
import io
import os
import re
import sys
from pathlib import Path

VENV = Path(__file__).resolve().parent.parent / ".venv"
if importlib.util.find_spec("nbdev") is None:
    if not (VENV / "bin" / "python").exists() or Path(sys.prefix).resolve() == VENV.resolve():
        sys.exit(
            "The site needs nbdev, which comes with the development tools: "
            "`make site` installs them, or run `make test` once"
        )
    os.execv(
        VENV / "bin" / "python", [str(VENV / "bin" / "python"), __file__]
    )  # the notebook still waits on standard input

from execnb.nbio import dict2nb, mk_cell, nb2str  # noqa: E402
from fastcore.xtras import loads  # noqa: E402
from nbdev.processors import FilterDefaults  # noqa: E402

CELL_KEYS = {"cell_type", "execution_count", "id", "metadata", "outputs", "source", "attachments"}


def keep_opening(notebook) -> None:
    """Part the title and the subtitle from the text below them: nbdev makes front matter of the whole first
    cell and would lose the text.
    """
    for position, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown" and cell.source.startswith("# "):
            title, *lines = cell.source.split("\n")
            subtitle = " ".join(line.lstrip("> ") for line in lines if line.startswith(">"))
            text = "\n".join(line for line in lines if not line.startswith(">")).strip()
            cell.source = f"{title}\n\n> {subtitle}" if subtitle else title
            if text:
                notebook.cells.insert(position + 1, mk_cell(text, "markdown"))
            return


def tidy(cell) -> None:
    """Take out what is wrong on this site: notes that processors leave for each other, a file name that all
    pages would share, links to a source that is nowhere on line.
    """
    for key in set(cell) - CELL_KEYS:
        del cell[key]
    if cell.cell_type == "raw":
        cell.source = re.sub(r"^output-file: .*\n", "", cell.source, flags=re.M)
    for output in cell.get("outputs", []):
        if text := output.get("data", {}).get("text/markdown"):
            output["data"]["text/markdown"] = [line for line in text if not line.startswith("[source](/blob/")]


def filtered(text: str) -> str:
    """A notebook's JSON after nbdev's processors: directives gone, hidden cells gone, `show_doc` in place."""
    notebook = dict2nb(loads(text))
    notebook.path_ = Path("nbs/notebook.ipynb")  # some processors ask for it
    keep_opening(notebook)
    with contextlib.redirect_stdout(io.StringIO()):  # their prints would end up in the page
        FilterDefaults()(notebook)
    for cell in notebook.cells:
        tidy(cell)
    return nb2str(notebook)


if __name__ == "__main__":
    print(filtered(sys.stdin.read()), flush=True)
