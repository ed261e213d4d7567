"""Files of fused images: each format, and 16 bits."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from langfuse_jax.errors import UserError
from langfuse_jax.images.encoding import check_output, write_image


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


def test_a_png_of_sixteen_bits_worked_by_hand(tmp_path):
    write_image(tmp_path / "a.png", np.array([[[0.0, 0.5, 1.0]], [[0.0, 1.0, 0.0]]]), bits=16)
    data = (tmp_path / "a.png").read_bytes()
    at, chunks = 8, {}
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        name, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0] == zlib.crc32(name + body)
        chunks[name], at = body, at + 12 + length
    assert chunks[b"IHDR"] == bytes([0, 0, 0, 1, 0, 0, 0, 2, 16, 2, 0, 0, 0])
    # Filter 2, then the difference to the row above, byte by byte; 0.5 is 32768.
    expected = bytes([2, 0, 0, 0x80, 0, 0xFF, 0xFF, 2, 0, 0, 0x7F, 0xFF, 1, 1])
    assert zlib.decompress(chunks[b"IDAT"]) == expected


def test_unknown_formats_and_depths(tmp_path, rgb):
    with pytest.raises(UserError, match=r"--out .*a\.gif: is of no known image format; end it in \.png, \.jpg"):
        check_output(tmp_path / "a.gif", 8, "--out")
    with pytest.raises(UserError, match=r"--bits 16: JPEG holds 8 bits; choose PNG or TIFF"):
        write_image(tmp_path / "a.jpg", rgb, bits=16)
    assert not list(tmp_path.iterdir())
