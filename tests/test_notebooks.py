"""The notebooks are kept without outputs, hold no logic, and run from the first cell to the last (mark `notebook`)."""

import ast
import configparser
import json
import os
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))
LOGIC = (ast.FunctionDef, ast.ClassDef, ast.For, ast.While, ast.If, ast.Try)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_clean(path):
    install, *cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert "REPOSITORY" in install["source"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in [install, *cells])
    for cell in cells:
        if not cell["source"].startswith("!"):
            assert not any(isinstance(node, LOGIC) for node in ast.walk(ast.parse(cell["source"])))


def test_install_cells_name_the_address_of_setup_cfg():
    setup = configparser.ConfigParser()
    setup.read(NOTEBOOKS[0].parents[1] / "setup.cfg")
    address = f"REPOSITORY = {json.dumps(setup['metadata'].get('url', ''))}\n"
    cells = [json.loads(path.read_text())["cells"] for path in NOTEBOOKS]
    installs = {next(cell["source"] for cell in each if cell["cell_type"] == "code") for each in cells}
    assert len(installs) == 1 and address in installs.pop()


@pytest.mark.notebook
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path):
    import nbclient
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(path.parent)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [o for o in outputs if "error:" in o.get("text", "")]
    if folder := os.environ.get("LANGFUSE_JAX_EXECUTED"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, Path(folder) / path.name)
