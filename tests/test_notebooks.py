"""The notebooks run, cell by cell, and are kept without outputs."""

import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, capsys):
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] for cell in cells)
    names = {}
    for cell in cells:
        exec("".join(cell["source"]), names)
    assert names["sheet"].shape[1] > 3 * names["visible"].shape[1]
    # The picture's point: what is hot is brighter in the fused image.
    visible, fused = (image[names["hot"]].mean() for image in names["luma"])
    assert fused > visible + 0.1
    assert "hottest" in capsys.readouterr().out
