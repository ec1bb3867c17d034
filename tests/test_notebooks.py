"""Every notebook runs from top to bottom and without a warning, on a finished run that the tests share."""

import importlib.util
import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted([*ROOT.glob("nbs/*.ipynb"), *ROOT.glob("reports/*.ipynb")])
NEEDS = {
    "38_retrieval.transformer": "torch",
    "38b_retrieval.training": "torch",
    "39_retrieval.ann": "faiss",
    "40_retrieval.neural": "torch",
    "40b_retrieval.two_tower": "torch",
    "65f_evaluation.studies": "optuna",
    "65g_evaluation.search": "optuna",
}


def marked(file):
    """A notebook as a parameter, marked if it needs an extra."""
    return pytest.param(file, id=file.stem, marks=[pytest.mark.extra] if file.stem in NEEDS else [])


@pytest.mark.slow
@pytest.mark.parametrize("file", [*map(marked, NOTEBOOKS)])
def test_notebook_runs(file, small_run):
    needed = NEEDS.get(file.stem)
    if needed and not importlib.util.find_spec(needed):
        pytest.skip(f"{needed} of an extra isn't installed: make neural")
    settings, _ = small_run
    folders = {"MOVIEREC_DATA_DIR": str(settings.data_dir), "MOVIEREC_REPORTS_DIR": str(settings.reports_dir)}
    notebook = nbformat.read(file, 4)
    resources = {"metadata": {"path": str(file.parent)}}
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources)
    client.execute(env=os.environ | folders)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    warnings = [output.text for output in outputs if output.get("name") == "stderr"]
    assert warnings == [], "a notebook must not warn: what it shows is on the site"
