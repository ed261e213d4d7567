"""Reading and writing images: bit depths, colour, orientation, and what is wrong with a file."""

import errno
import io

import numpy as np
import pytest
from PIL import Image

from langfuse_jax import images
from langfuse_jax.atomic import atomic_write
from langfuse_jax.errors import UserError


@pytest.fixture
def rgb():
    return np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)


@pytest.fixture
def gray():
    return np.random.default_rng(1).integers(0, 256, (40, 56), np.uint8)


def test_ycbcr_agrees_with_jpeg_colours_of_pillow(rgb):
    luma, chroma = images.rgb_to_ycbcr(np.float32(rgb) / 255)
    expected = np.float32(Image.fromarray(rgb).convert("YCbCr"))
    np.testing.assert_allclose(255 * luma, expected[..., 0], atol=1.01)  # Pillow truncates
    np.testing.assert_allclose(255 * chroma + 128, expected[..., 1:], atol=1.01)


def test_ycbcr_of_red_worked_by_hand():
    luma, chroma = images.rgb_to_ycbcr(np.array([[[1.0, 0.0, 0.0]]], np.float32))
    assert luma[0, 0] == pytest.approx(0.299)
    np.testing.assert_allclose(chroma[0, 0], [-0.168736, 0.5], atol=1e-5)


def test_ycbcr_round_trip_and_clip(rgb):
    unit = np.float32(rgb) / 255
    luma, chroma = images.rgb_to_ycbcr(unit)
    np.testing.assert_allclose(images.ycbcr_to_rgb(luma, chroma), unit, atol=1e-6)
    bright = images.ycbcr_to_rgb(np.ones_like(luma), chroma)
    assert bright.max() == 1 and bright.min() >= 0


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "TIFF", "webp"])
def test_eight_bits_without_loss(tmp_path, rgb, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(rgb).save(path, **({"lossless": True} if suffix == "webp" else {}))
    luma, chroma = images.read_visible(path)
    assert luma.dtype == chroma.dtype == np.float32
    np.testing.assert_allclose(images.ycbcr_to_rgb(luma, chroma), np.float32(rgb) / 255, atol=1e-6)


def test_gray_has_no_chroma(tmp_path, gray):
    Image.fromarray(gray).save(tmp_path / "a.png")
    luma, chroma = images.read_visible(tmp_path / "a.png")
    assert chroma is None
    np.testing.assert_array_equal(luma, np.float32(gray) / np.float32(255))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits(tmp_path, suffix):
    deep = np.random.default_rng(2).integers(0, 65536, (33, 47)).astype(np.uint16)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(deep).save(path)
    np.testing.assert_allclose(images.read_infrared(path), deep / 65535, atol=1e-7)
    np.testing.assert_allclose(images.read_visible(path)[0], deep / 65535, atol=1e-7)


def test_big_endian_and_mode_i(tmp_path):
    deep = np.random.default_rng(2).integers(0, 65536, (33, 47)).astype(np.uint16)
    Image.frombytes("I;16B", (47, 33), deep.astype(">u2").tobytes()).save(tmp_path / "b.tif")
    Image.fromarray(deep.astype(np.int32)).save(tmp_path / "i.tif")
    for name in ("b.tif", "i.tif"):
        np.testing.assert_allclose(images.read_infrared(tmp_path / name), deep / 65535, atol=1e-7)
    Image.fromarray(np.full((33, 47), 70000, np.int32)).save(tmp_path / "wide.tif")
    with pytest.raises(UserError, match=r"wide\.tif: holds integers beyond 16 bits"):
        images.read_infrared(tmp_path / "wide.tif")


def test_float_tiff_must_be_in_range(tmp_path, gray):
    Image.fromarray(np.float32(gray) / 255).save(tmp_path / "f.tif")
    np.testing.assert_allclose(images.read_infrared(tmp_path / "f.tif"), gray / 255, atol=1e-7)
    Image.fromarray(np.float32(gray) + 290).save(tmp_path / "kelvin.tif")
    with pytest.raises(UserError, match=r"kelvin\.tif: floats run from 290.* scale them"):
        images.read_infrared(tmp_path / "kelvin.tif")


def test_alpha_is_dropped_and_palette_looked_up(tmp_path, rgb, gray):
    unit = np.float32(rgb) / 255
    Image.fromarray(np.dstack([rgb, gray])).save(tmp_path / "rgba.png")
    np.testing.assert_allclose(images.ycbcr_to_rgb(*images.read_visible(tmp_path / "rgba.png")), unit, atol=1e-6)
    palette = Image.fromarray(rgb).quantize(16)
    palette.save(tmp_path / "p.png")
    expected = np.float32(palette.convert("RGB")) / 255
    np.testing.assert_allclose(images.ycbcr_to_rgb(*images.read_visible(tmp_path / "p.png")), expected, atol=1e-6)
    Image.fromarray(np.dstack([gray, gray // 2]), "LA").save(tmp_path / "la.png")
    luma, chroma = images.read_visible(tmp_path / "la.png")
    assert chroma is None
    np.testing.assert_allclose(luma, gray / 255, atol=1e-6)
    Image.fromarray(gray > 127).save(tmp_path / "one.png")
    np.testing.assert_array_equal(images.read_infrared(tmp_path / "one.png"), gray > 127)


def test_infrared_in_colour_gives_luma(tmp_path, gray):
    Image.fromarray(np.dstack([gray] * 3)).save(tmp_path / "a.png")
    np.testing.assert_allclose(images.read_infrared(tmp_path / "a.png"), gray / 255, atol=1e-6)


def test_exif_orientation_is_applied(tmp_path, gray):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    Image.fromarray(gray).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_allclose(images.read_infrared(tmp_path / "a.png"), np.rot90(gray, -1) / 255, atol=1e-6)


@pytest.mark.filterwarnings("ignore:Truncated File Read")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "BMP"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5])
def test_truncated_file_is_named(tmp_path, rgb, kind, share):
    whole = io.BytesIO()
    Image.fromarray(rgb).save(whole, kind)
    path = tmp_path / "cut.png"
    path.write_bytes(whole.getvalue()[: int(share * len(whole.getvalue()))])
    with pytest.raises(UserError, match=r"cut\.png: (is not an image|cannot be read)") as error:
        images.read_visible(path)
    assert "\n" not in str(error.value) and "replace" in str(error.value)


def test_other_bad_files(tmp_path):
    with pytest.raises(UserError, match=r"none\.png: no such image file"):
        images.read_visible(tmp_path / "none.png")
    with pytest.raises(UserError, match="cannot be read"):
        images.read_visible(tmp_path)
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(UserError, match=r"text\.png: is not an image"):
        images.read_infrared(tmp_path / "text.png")
    Image.new("L", (64, 31)).save(tmp_path / "small.png")
    with pytest.raises(UserError, match=r"small\.png: is 64x31 pixels; both sides must be at least 32"):
        images.read_infrared(tmp_path / "small.png")


def test_smallest_side_is_that_of_the_network():
    from langfuse_jax.models import fusion

    assert images.MIN_SIDE == fusion.MIN_SIDE


def test_write_png_rounds_and_replaces(tmp_path, rgb, gray):
    path = tmp_path / "new" / "a.png"
    images.write_png(path, rgb)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), rgb)
    images.write_png(path, np.float32(gray) / 255)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), gray)
    images.write_png(path, np.array([[-1.0, 0.501], [0.499, 2.0]]))
    np.testing.assert_array_equal(np.asarray(Image.open(path)), [[0, 128], [127, 255]])
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]


def test_full_disk_leaves_the_old_file_and_no_other(tmp_path, gray, monkeypatch):
    path = tmp_path / "a.png"
    images.write_png(path, gray)

    def full(self, file, **kwargs):
        file.write(b"half a picture")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(UserError, match=r"a\.png: cannot be written \(No space left on device\)"):
        images.write_png(path, gray // 2)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), gray)
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_write_keeps_other_errors(tmp_path):
    with pytest.raises(KeyboardInterrupt), atomic_write(tmp_path / "a") as file:
        file.write(b"x")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_no_folder_can_be_made_under_a_file(tmp_path, gray):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        images.write_png(tmp_path / "file" / "a.png", gray)
