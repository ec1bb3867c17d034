"""How long exported cells, their lines and definitions are, beside the projects that this one takes as a model.

Counts the lines of exported cells without blank lines and directives, and leaves out cells that only import. A cell
has an example if a code cell that isn't exported follows it within two code cells.
"""

import ast
import json
import re
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
# Measured in November 2026: median, 90 %, longest, above 60 lines, line length at 90 %, share with an example
MODELS = {
    "nbdev": (10, 24, 62, "1 of 266", 91, "59 %"),
    "fastcore": (6, 16, 51, "0 of 673", 89, "81 %"),
    "fasthtml": (6, 21, 48, "0 of 235", 93, "51 %"),
}


def code_cells(file: Path) -> list[str]:
    """The sources of a notebook's code cells."""
    notebook = json.loads(file.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def is_exported(source: str) -> bool:
    """Whether nbdev writes the cell to the package."""
    return re.match(r"#\|\s*export\b", source) is not None


def is_only_imports(source: str) -> bool:
    """Whether a cell holds nothing but imports."""
    return all(isinstance(statement, ast.Import | ast.ImportFrom) for statement in ast.parse(source).body)


def code_lines(source: str) -> list[str]:
    """The lines that count: no blank ones, no directives."""
    return [line for line in source.split("\n") if line.strip() and not line.startswith("#|")]


def measure() -> dict[str, np.ndarray]:
    """Lengths of all exported cells and of their lines, and which cells are followed by an example."""
    lengths, widths, examples, places = [], [], [], []
    for file in sorted((ROOT / "nbs").glob("*.ipynb")):
        cells = code_cells(file)
        for number, source in enumerate(cells):
            if not is_exported(source) or is_only_imports(source):
                continue
            lines = code_lines(source)
            lengths.append(len(lines))
            widths += map(len, lines)
            examples.append(any(not is_exported(later) for later in cells[number + 1 : number + 3]))
            places.append(f"{file.stem}: {lines[0][:60]}")
    columns = {"lengths": lengths, "widths": widths, "examples": examples, "places": places}
    return {name: np.array(values) for name, values in columns.items()}


def main() -> None:
    """Print the table, and the longest cells."""
    found = measure()
    lengths = found["lengths"]
    above = f"{(lengths > 60).sum()} of {len(lengths)}"
    share = f"{found['examples'].mean():.0%}".replace("%", " %")
    widest = int(np.quantile(found["widths"], 0.9))
    ours = (int(np.median(lengths)), int(np.quantile(lengths, 0.9)), lengths.max(), above, widest, share)
    print("exported cells  median  90 %  longest  above 60 lines  line length, 90 %  example within two cells")
    for name, (median, most, longest, above, width, share) in (MODELS | {"movierec": ours}).items():
        print(f"{name:<14} {median:>7} {most:>5} {longest:>8} {above:>15} {width:>18} {share:>25}")
    for place in np.argsort(-lengths)[:5]:
        print(f"  {lengths[place]:>3} lines: {found['places'][place]}")


if __name__ == "__main__":
    main()
