"""The ONNX model: the numbers of the package's network in onnxruntime, and the example that shows cameras with it."""

import io
import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from langfuse_jax._version import __version__
from langfuse_jax.alignment.transform import Alignment
from langfuse_jax.cli import main
from langfuse_jax.errors import UserError
from langfuse_jax.examples.night_scene import night_scene
from langfuse_jax.images.files import rgb_to_ycbcr, to_unit, write_png
from langfuse_jax.inference.fuser import Fuser
from langfuse_jax.inference.onnx import export_onnx
from langfuse_jax.inference.onnx_graph import Graph, op

ROOT = Path(__file__).resolve().parents[1]
SIZES = ((480, 640), (96, 128), (41, 90))  # the last is no whole cells of 16


@pytest.fixture(scope="module", autouse=True)
def quick_programs():
    """Each size is a program of ours, which is compiled in a quarter of the time and gives the same numbers."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """model.onnx, written by the command, which takes the format from the name."""
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    assert main(["export", "--out", str(path)]) == 0
    return path


# What an edge device has.
_WITHOUT_JAX = """
import sys
sys.modules["langfuse_jax"] = sys.modules["jax"] = sys.modules["onnx"] = None
{lines}
np.savez("result.npz", fused=fused, pair=np.stack(pair))
"""


def _scene(height, width):
    """Luma and infrared of the drawn scene, float32."""
    visible, infrared = (to_unit(image, "scene") for image in night_scene(height, width))
    return rgb_to_ycbcr(visible)[0], infrared


def _run(session, visible, infrared, goal):
    """A batch (n, h, w) through the model."""
    feed = {"visible": visible[:, None], "infrared": infrared[:, None], "goal": goal}
    return session.run(["fused"], feed)[0][:, 0]


@pytest.mark.slow
def test_the_numbers_of_the_network_at_any_size_and_for_any_words(model):
    import onnxruntime

    session, fuser = onnxruntime.InferenceSession(model), Fuser.load()
    far = fuser.default_goal[::-1].copy()  # no sentence: far from the default one
    away = Fuser(fuser.params, fuser.metadata, far - fuser.default_goal)
    for size in SIZES:
        pair = [image[None] for image in _scene(*size)]
        for goal, ours in ((fuser.default_goal, fuser), (far, away)):
            got, want = _run(session, *pair, goal), ours(*(image[..., None] for image in pair))[..., 0]
            assert got.shape == (1, *size)
            np.testing.assert_allclose(got, want, atol=1e-4)


@pytest.mark.slow
def test_documented_lines_run_without_jax(model):
    page = (ROOT / "docs" / "fusing.md").read_text()
    lines = next(block.split("```")[0] for block in page.split("```python\n") if "InferenceSession" in block)
    assert main(["embed", "--out", str(model.parent / "words.npz")]) == 0
    for role, image in zip(("visible", "infrared"), night_scene(96, 128), strict=True):
        write_png(model.parent / "example" / f"{role}.png", image)
    command = [sys.executable, "-c", _WITHOUT_JAX.format(lines=lines)]
    done = subprocess.run(command, cwd=model.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = np.load(model.parent / "result.npz")
    np.testing.assert_allclose(result["fused"], Fuser.load()(*result["pair"][:, 0, 0]), atol=1e-4)


@pytest.mark.slow
def test_a_batch_is_its_images(model):
    import onnxruntime

    session, fuser = onnxruntime.InferenceSession(model), Fuser.load()
    visible, infrared = (np.stack([image, image[::-1] ** 2]) for image in _scene(96, 128))
    got = _run(session, visible, infrared, fuser.default_goal)
    for i in range(2):
        np.testing.assert_allclose(got[i], fuser(visible[i], infrared[i]), atol=1e-4)


@pytest.mark.slow
def test_metadata_name_the_weights(model):
    import onnxruntime

    session, fuser = onnxruntime.InferenceSession(model), Fuser.load()
    found = session.get_modelmeta().custom_metadata_map
    assert (found["version"], found["fingerprint"]) == (__version__, fuser.fingerprint)
    assert json.loads(found["clip"]) == fuser.metadata["clip"]
    np.testing.assert_array_equal(np.float32(json.loads(found["default_goal"])), fuser.default_goal)
    assert {x.name: x.shape for x in session.get_inputs()} == {
        "visible": ["n", 1, "h", "w"],
        "infrared": ["n", 1, "h", "w"],
        "goal": [96],
    }


@pytest.mark.slow
@pytest.mark.parametrize("aligned", (False, True))
def test_the_example_shows_two_videos(model, tmp_path, aligned):
    import cv2

    visible, infrared = (np.asarray(image) for image in night_scene(96, 128))
    for name, image in (("a", visible[..., ::-1]), ("b", np.repeat(infrared.reshape(96, 128, 1), 3, 2))):
        writer = cv2.VideoWriter(str(tmp_path / f"{name}.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (128, 96))
        for _ in range(3):
            writer.write(np.ascontiguousarray(image))
        writer.release()
    flags = ["--port", "0"]
    if aligned:
        Alignment(np.eye(3), (128, 96), (128, 96)).save(tmp_path / "rig.json")
        flags += ["--alignment", str(tmp_path / "rig.json")]
    command = [sys.executable, str(ROOT / "examples" / "webcam.py"), str(model), "a.avi", "b.avi", *flags]
    program = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        address = program.stdout.readline().strip()
        stream = urllib.request.urlopen(address, timeout=60).read()
        assert program.wait(60) == 0
    finally:
        program.kill()
    parts = stream.split(b"--frame\r\nContent-Type: image/jpeg\r\n\r\n")[1:]
    want = Fuser.load()(visible, infrared)
    assert len(parts) == 3
    for part in parts:
        shown = np.asarray(Image.open(io.BytesIO(part))) / 255
        assert np.abs(shown - want).mean() < 0.03  # two times JPEG


def test_equal_constants_are_one():
    graph = Graph()
    x = graph.input("x", ("n",))
    op("Mul", x + 2.0, np.float32(2.0)), x + 2, x + np.float32([2.0])
    assert [array.dtype.name for _, array in graph.constants.values()] == ["float32", "int64", "float32"]


def test_errors_are_one_line_and_leave_nothing(tmp_path, capsys, monkeypatch):
    out = str(tmp_path / "model.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    for arguments, named in (
        (["--out", out], 'install it with pip install "langfuse-jax[onnx]"'),
        (["--out", str(tmp_path / "model"), "--format", "onnx"], 'install it with pip install "langfuse-jax[onnx]"'),
        (["--out", out, "--model", "ldfusion"], "is for the default network"),
    ):
        assert main(["export", *arguments]) == 2
        message = capsys.readouterr().err
        assert named in message and message.count("\n") == 1
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="default network"):
        export_onnx(Fuser.load(model="ldfusion"))
