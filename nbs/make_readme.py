"""README.md from nbs/index.ipynb: its text and stored outputs, with links that start from the top folder."""

import re
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
NOTE = "<!-- Made from nbs/index.ipynb by `make readme`; edit the notebook. -->"


def readme() -> str:
    """The text of README.md."""
    parts = [NOTE]
    for cell in nbformat.read(ROOT / "nbs" / "index.ipynb", 4).cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
        parts += [
            output.data["text/markdown"]
            for output in cell.get("outputs", [])
            if "text/markdown" in output.get("data", {})
        ]
    here = re.sub(r"\]\((?!\.\./|[a-z]+:|#)", "](nbs/", "\n\n".join(parts))  # links to chapters and pictures
    return here.replace("](../", "](") + "\n"


if __name__ == "__main__":
    target = ROOT / "README.md"
    if "--check" not in sys.argv:
        target.write_text(readme(), encoding="utf-8")
    elif target.read_text(encoding="utf-8") != readme():
        sys.exit("README.md isn't what nbs/index.ipynb gives: run `make readme`")
