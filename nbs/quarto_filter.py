"""Quarto's `ipynb-filters` entry: nbdev's own processors, from standard input to standard output.

Without it Quarto stumbles over directives such as `#| export`.
"""

import contextlib
import io
import sys
from pathlib import Path

from execnb.nbio import dict2nb, nb2str
from fastcore.xtras import loads
from nbdev.processors import FilterDefaults

CELL_KEYS = {"cell_type", "execution_count", "id", "metadata", "outputs", "source", "attachments"}


def filtered(text: str) -> str:
    """A notebook's JSON after nbdev's processors: directives gone, hidden cells gone, `show_doc` in place."""
    notebook = dict2nb(loads(text))
    notebook.path_ = Path("nbs/notebook.ipynb")  # some processors ask for it
    with contextlib.redirect_stdout(io.StringIO()):  # their prints would end up in the page
        FilterDefaults()(notebook)
    for cell in notebook.cells:
        for key in set(cell) - CELL_KEYS:  # notes that the processors leave for each other
            del cell[key]
    return nb2str(notebook)


if __name__ == "__main__":
    print(filtered(sys.stdin.read()), flush=True)
