"""What the page shows, without the page: files in, PNGs and a table out, and the errors of uploads and flags."""

import numpy as np
import pytest
from PIL import Image

from langfuse_jax import Fuser, UserError
from langfuse_jax.cli import main
from langfuse_jax.commands.demo import fuse_upload
from langfuse_jax.examples.night_scene import night_scene
from langfuse_jax.images.files import to_uint8


@pytest.fixture
def paths(tmp_path):
    paths = []
    for role, image in zip(("visible", "infrared"), night_scene(48, 64), strict=True):
        paths.append(str(tmp_path / f"{role}.png"))
        Image.fromarray(image).save(paths[-1])
    return paths


def test_an_upload_is_fused_and_scored(paths, tmp_path):
    fuser = Fuser.load()
    early, late = fuse_upload(fuser, *paths, tmp_path)
    assert early[:2] == late[:2] and "EN" not in early[2]
    (before, after), download, table = late
    assert after == download and download.endswith("visible_fused.png")
    np.testing.assert_array_equal(Image.open(before), Image.open(paths[0]))
    fused = fuser(*(np.asarray(Image.open(path)) for path in paths))
    assert np.abs(np.int32(Image.open(after)) - to_uint8(fused)).max() <= 1
    # The spread of the fused luma and of the average, with numpy.
    images = [np.asarray(Image.open(path).convert("L"), float) for path in (after, *paths)]
    cells = next(row for row in table.splitlines() if row.startswith("| SD ")).split("|")[3:5]
    expected = [images[0].std(), ((images[1] + images[2]) / 2).std()]
    np.testing.assert_allclose([float(cell) for cell in cells], expected, atol=0.1)


def test_bad_uploads(paths, tmp_path):
    def error(visible, infrared):
        with pytest.raises(UserError) as caught:
            list(fuse_upload(None, visible, infrared, tmp_path))
        return str(caught.value)

    assert "visible" in error(None, paths[1]) and "infrared" in error(paths[0], None)
    other = str(tmp_path / "text.png")
    (tmp_path / "text.png").write_text("no picture")
    assert "text.png: is not an image" in error(paths[0], other)
    Image.new("L", (64, 49)).save(other)
    assert "must be of one size" in error(paths[0], other)
    Image.new("L", (2500, 2000)).save(other)
    assert "2500x2000, over 4 megapixels" in error(paths[0], other)


@pytest.mark.parametrize("port", ["0", "70000"])
def test_a_port_that_is_none(capsys, port):
    assert main(["demo", "--port", port]) == 2
    assert f"--port {port}: is no port" in capsys.readouterr().err
