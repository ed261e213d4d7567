"""The notebooks are kept without outputs, hold no logic, run from the first cell to the last, and show what they say
(mark `notebook`).
"""

import ast
import configparser
import json
import os
from pathlib import Path

import pytest

from langfuse_jax.clip.words import GOAL

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


def _obeyed(found):
    """Each sentence is nearest to the picture that was fused towards it; the first one is the default sentence."""
    (first, default), *others = found.items()
    assert first == GOAL and default == "default" and len(others) > 3
    assert all(goal == picture for goal, picture in others)


def _trained(found):
    """The words are obeyed as they were not before, the picture is bright, and no pattern was drawn into it."""
    loss, level, pattern = (found[name] for name in ("language loss", "mean gray level", "periodicity"))
    assert loss["after"] < loss["before"] - 0.2 and loss["after"] < loss["visible"] - 0.1
    assert level["after"] > 1.5 * level["before"] and level["after"] > 1.5 * level["visible"]
    assert pattern["after"] < 1.2 * max(pattern["before"], pattern["visible"])


def _same(found):
    assert set(found) == {"loss", "gradient_norm"} and 0 <= max(found.values()) < 1e-4


# What the last dictionary of numbers in a notebook has to say.
CLAIMS = {"02_language": _obeyed, "03_train": _trained, "05_scale_out": _same}


def _dictionaries(outputs):
    texts = [output["data"]["text/plain"] for output in outputs if "text/plain" in output.get("data", {})]
    return [ast.literal_eval(text) for text in texts if text.startswith("{")]


@pytest.mark.notebook
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path):
    import nbclient
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(path.parent)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [o for o in outputs if "error:" in o.get("text", "")]
    if path.stem in CLAIMS:
        CLAIMS[path.stem](_dictionaries(outputs)[0 if path.stem == "02_language" else -1])
    if folder := os.environ.get("LANGFUSE_JAX_EXECUTED"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, Path(folder) / path.name)
