"""The exported network: the lines of docs/fusing.md run it without the package, to the package's numbers."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from jax import export

from langfuse_jax.cli import main
from langfuse_jax.errors import UserError
from langfuse_jax.examples.night_scene import night_scene
from langfuse_jax.images.files import write_png
from langfuse_jax.inference.export import _extended, export_fusion
from langfuse_jax.inference.fuser import Fuser

# What a machine has where only JAX is installed.
_WITHOUT_PACKAGE = """
import sys
sys.modules["langfuse_jax"] = sys.modules["flax"] = None
{lines}
assert not any(name.startswith("langfuse_jax.") for name in sys.modules)
np.savez("result.npz", fused=fused, pair=np.stack(pair))
"""


GOAL = "a dark image"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with model.stablehlo and words.npz, written by commands, and an example of sides that need padding."""
    folder = tmp_path_factory.mktemp("export")
    assert main(["export", "--out", str(folder / "model.stablehlo")]) == 0
    assert main(["embed", "--goal", GOAL, "--out", str(folder / "words.npz")]) == 0
    for role, image in zip(("visible", "infrared"), night_scene(96, 128), strict=True):
        write_png(folder / "example" / f"{role}.png", image[:90, :122])
    return folder


def test_documented_lines_run_without_the_package(folder):
    page = (Path(__file__).resolve().parents[1] / "docs" / "fusing.md").read_text()
    lines = next(block.split("```")[0] for block in page.split("```python\n") if "export.deserialize" in block)
    assert len(lines.split("\n\n")[1].splitlines()) <= 7
    script = _WITHOUT_PACKAGE.format(lines=lines)
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = np.load(folder / "result.npz")
    assert result["fused"].shape == (90, 122)
    np.testing.assert_allclose(result["fused"], Fuser.load()(*result["pair"], goal=GOAL), atol=1e-4)


def _any_batch_and_canvas(artefact, fuser, *goal):
    assert artefact.platforms == ("cpu", "cuda", "tpu")
    rng, sizes = np.random.default_rng(0), np.array([[33, 47], [40, 40]], np.int32)
    canvases = rng.random((2, 2, 48, 64, 1), np.float32)
    fused = np.array(jax.jit(artefact.call)(*canvases, sizes, *goal))
    for got, visible, infrared, (h, w) in zip(fused, *canvases[..., 0], sizes, strict=True):
        np.testing.assert_allclose(got[:h, :w, 0], fuser(visible[:h, :w], infrared[:h, :w]), atol=1e-4)
        got[:h, :w] = 0
        assert not got.any()


def test_any_batch_and_canvas(folder):
    artefact = export.deserialize(bytearray((folder / "model.stablehlo").read_bytes()))
    fuser = Fuser.load()
    _any_batch_and_canvas(artefact, fuser, fuser.default_goal)
    _any_batch_and_canvas(artefact, fuser.towards(GOAL), np.load(folder / "words.npz")["goal"])


@pytest.mark.slow
def test_the_published_network_is_exported_too(tmp_path):
    assert main(["export", "--model", "ldfusion", "--out", str(tmp_path / "model.stablehlo")]) == 0
    artefact = export.deserialize(bytearray((tmp_path / "model.stablehlo").read_bytes()))
    _any_batch_and_canvas(artefact, Fuser.load(model="ldfusion"))


def test_extended_is_numpys_reflection():
    x = np.random.default_rng(0).random((2, 48, 40, 1)).astype(np.float32)
    got = jax.jit(partial(_extended, worn=0))(x, np.array([[42, 33], [48, 40]], np.int32))
    want = np.pad(x[0, :42, :33], ((0, 6), (0, 7), (0, 0)), mode="reflect")
    np.testing.assert_array_equal(got[0], want)
    np.testing.assert_array_equal(got[1], x[1])


def test_errors_are_one_line_and_leave_nothing(tmp_path, capsys):
    for arguments, named in (
        (["--out", str(tmp_path)], f"--out {tmp_path}: is a folder"),
        (["--out", str(tmp_path / "model"), "--checkpoint", str(tmp_path / "none")], "no such folder"),
        (["--out", "/proc/langfuse_jax/model"], "cannot be written"),
    ):
        assert main(["export", *arguments]) == 2
        message = capsys.readouterr().err
        assert named in message and message.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_failed_export_leaves_no_file(tmp_path, monkeypatch):
    def fail(*_):
        raise UserError("stopped")

    monkeypatch.setattr("langfuse_jax.inference.export.export_fusion", fail)
    assert main(["export", "--out", str(tmp_path / "model.stablehlo")]) == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_worn_edge_is_skipped_as_fuser_does():
    worn = Fuser(Fuser.load(model="ldfusion").params, {"pad_multiple": 8, "worn_edge": 2})
    artefact = export.deserialize(export_fusion(worn))
    pair = np.random.default_rng(0).random((2, 37, 45), np.float32)
    canvases = np.pad(pair, ((0, 0), (0, 11), (0, 3)))[:, None, ..., None]
    got = np.asarray(jax.jit(artefact.call)(*canvases, np.array([[37, 45]], np.int32)))[0, :37, :45, 0]
    np.testing.assert_allclose(got, worn(*pair), atol=1e-4)
