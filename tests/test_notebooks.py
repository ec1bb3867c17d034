"""Every notebook runs from top to bottom, with folders of its own, and without a warning."""

import importlib.util
import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted([*ROOT.glob("nbs/*.ipynb"), *ROOT.glob("reports/*.ipynb")])
NEEDS = {"04c_neural": "torch"}  # chapters that need more than the development tools


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Data and reports folders that all notebooks of the session share, so that none of them touches the repository's."""
    folder = tmp_path_factory.mktemp("notebooks")
    return {"MOVIEREC_DATA_DIR": str(folder / "data"), "MOVIEREC_REPORTS_DIR": str(folder / "reports")}


@pytest.mark.slow
@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_notebook_runs(file, folders):
    if file.stem in NEEDS and not importlib.util.find_spec(NEEDS[file.stem]):
        pytest.skip(f"{NEEDS[file.stem]} of the extra neural isn't installed: make neural")
    notebook = nbformat.read(file, 4)
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(file.parent)}})
    client.execute(env=os.environ | folders)
    warnings = [output.text for cell in notebook.cells for output in cell.get("outputs", []) if output.get("name") == "stderr"]
    assert warnings == []
