"""Files of fused images: each format, and 16 bits."""

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from langfuse_jax.errors import UserError
from langfuse_jax.images.encoding import check_output, write_image
from langfuse_jax.images.files import to_uint16


@pytest.fixture
def rgb():
    return np.random.default_rng(0).random((40, 57, 3), np.float32)


@pytest.mark.parametrize("ending", ["png", "PNG", "tif", "tiff", "webp", "bmp"])
@pytest.mark.parametrize("colour", [True, False])
def test_eight_bits_without_loss(tmp_path, rgb, ending, colour):
    image = rgb if colour else rgb[..., 0]
    write_image(tmp_path / f"a.{ending}", image)
    written = Image.open(tmp_path / f"a.{ending}").convert("RGB" if colour else "L")
    np.testing.assert_array_equal(np.asarray(written), np.rint(255 * image))


def test_jpeg_is_close(tmp_path):
    smooth = np.add.outer(np.linspace(0, 0.5, 40), np.linspace(0, 0.5, 57))[..., None] * [1, 0.8, 0.6]
    write_image(tmp_path / "a.jpg", smooth)
    written = Image.open(tmp_path / "a.jpg")
    assert written.format == "JPEG"
    np.testing.assert_allclose(np.asarray(written) / 255, smooth, atol=0.02)


@pytest.mark.parametrize("ending", ["png", "tiff"])
def test_sixteen_bits_of_gray(tmp_path, rgb, ending):
    write_image(tmp_path / f"a.{ending}", rgb[..., 0], bits=16)
    written = np.asarray(Image.open(tmp_path / f"a.{ending}"))
    assert written.dtype == np.uint16
    np.testing.assert_allclose(written, 65535 * rgb[..., 0].astype(np.float64), rtol=0, atol=0.51)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bits_of_colour_as_others_read_them(tmp_path, rgb, ending):
    path = tmp_path / f"a.{ending}"
    write_image(path, rgb, bits=16)
    # Pillow keeps the upper eight.
    np.testing.assert_allclose(np.asarray(Image.open(path)), 65535 * rgb / 256, atol=1.01)
    av = pytest.importorskip("av")
    with av.open(path) as container:
        deep = next(container.decode(video=0)).to_ndarray(format="rgb48le")
    np.testing.assert_allclose(deep, 65535 * rgb.astype(np.float64), rtol=0, atol=0.51)


@pytest.mark.parametrize("kind", ["png", "tif"])
def test_sixteen_bits_of_colour_are_kept_to_the_bit(tmp_path, rgb, kind):
    """Read by the other library than the one that wrote it, where there is one."""
    path = tmp_path / f"a.{kind}"
    rgb[0, :3] = [[0, 0.5, 1], [1, 0, 0], [0, 1, 0]]
    write_image(path, rgb, bits=16)
    read = imagecodecs.png_decode if kind == "png" else imagecodecs.tiff_decode
    pixels = read(path.read_bytes())
    assert pixels.dtype == np.uint16 and pixels[0, 0].tolist() == [0, 32768, 65535]
    np.testing.assert_array_equal(pixels, to_uint16(rgb))
    assert path.stat().st_size < 1.1 * pixels.nbytes


@pytest.mark.parametrize("kind", ["png", "tif"])
def test_a_full_disk_amid_a_colour_file_of_sixteen_bits(tmp_path, rgb, kind):
    resource = pytest.importorskip("resource")
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, old[1]))
    try:
        with pytest.raises(UserError, match=rf"a\.{kind}: cannot be written \(File too large\)"):
            write_image(tmp_path / f"a.{kind}", rgb, bits=16)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert not list(tmp_path.iterdir())


def test_unknown_formats_and_depths(tmp_path, rgb):
    with pytest.raises(UserError, match=r"--out .*a\.gif: is of no known image format; end it in \.png, \.jpg"):
        check_output(tmp_path / "a.gif", 8, "--out")
    with pytest.raises(UserError, match=r"--bits 16: JPEG holds 8 bits; choose PNG or TIFF"):
        write_image(tmp_path / "a.jpg", rgb, bits=16)
    assert not list(tmp_path.iterdir())
