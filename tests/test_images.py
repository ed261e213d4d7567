"""Reading and writing images: bit depths, colour, orientation, and what is wrong with a file."""

import errno
import io
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin

from langfuse_jax.errors import UserError
from langfuse_jax.images import files as images
from langfuse_jax.images.encoding import write_image
from langfuse_jax.runtime.atomic import atomic_write, remove_leftovers


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
    np.testing.assert_allclose(images.read_visible(path)[0], deep / 65535, atol=1e-7)
    np.testing.assert_allclose(images.read_infrared(path, (0, 65535)), deep / 65535, atol=1e-7)
    # Without limits: half a percent at either end is clipped, in between it is linear.
    low, high = np.percentile(deep, [0.5, 99.5])
    infrared = images.read_infrared(path)
    np.testing.assert_allclose(infrared, np.clip((deep - low) / (high - low), 0, 1), atol=1e-6)
    assert 0.005 <= (infrared == 1).mean() < 0.007 and 0.005 <= (infrared == 0).mean() < 0.007
    assert images.infrared_limits(path) == pytest.approx((low, high))


def test_big_endian_and_mode_i(tmp_path):
    deep = np.random.default_rng(2).integers(0, 65536, (33, 47)).astype(np.uint16)
    Image.frombytes("I;16B", (47, 33), deep.astype(">u2").tobytes()).save(tmp_path / "b.tif")
    Image.fromarray(deep.astype(np.int32)).save(tmp_path / "i.tif")
    for name in ("b.tif", "i.tif"):
        np.testing.assert_allclose(images.read_visible(tmp_path / name)[0], deep / 65535, atol=1e-7)
        expected = images.thermal_to_unit(deep)
        np.testing.assert_array_equal(images.read_infrared(tmp_path / name), expected)
    Image.fromarray(np.full((33, 47), 70000, np.int32)).save(tmp_path / "wide.tif")
    with pytest.raises(UserError, match=r"wide\.tif: holds integers beyond 16 bits"):
        images.read_visible(tmp_path / "wide.tif")
    assert (images.read_infrared(tmp_path / "wide.tif") == 0).all()  # infrared may hold any numbers


def test_float_tiffs_are_in_range_or_temperatures(tmp_path, gray):
    Image.fromarray(np.float32(gray) / 255).save(tmp_path / "f.tif")
    np.testing.assert_allclose(images.read_infrared(tmp_path / "f.tif"), gray / 255, atol=1e-7)
    Image.fromarray(np.float32(gray) + 290).save(tmp_path / "kelvin.tif")
    with pytest.raises(UserError, match=r"kelvin\.tif: floats run from 290.* scale them"):
        images.read_visible(tmp_path / "kelvin.tif")
    shown = images.thermal_to_unit(np.float32(gray) + 290)
    np.testing.assert_allclose(images.read_infrared(tmp_path / "kelvin.tif"), shown, atol=1e-6)
    kelvin = images.read_infrared(tmp_path / "kelvin.tif", (300, 400))
    np.testing.assert_allclose(kelvin, np.clip((gray - 10.0) / 100, 0, 1), atol=1e-6)


def test_thermal_counts_worked_by_hand():
    counts = np.array([[100, 200], [300, 500]], np.uint16)
    np.testing.assert_allclose(images.thermal_to_unit(counts, (200, 400)), [[0, 0], [0.5, 1]])
    flat = np.full((20, 20), 29000, np.uint16)
    assert not images.thermal_to_unit(flat).any()
    flat[0, 0] = 30000  # less than half a percent: the extremes are taken
    assert images.thermal_to_unit(flat).sum() == 1
    # A narrow band of counts fills the range, whatever the offset.
    band = np.random.default_rng(0).integers(0, 900, (50, 60)).astype(np.uint16)
    np.testing.assert_allclose(images.thermal_to_unit(band), images.thermal_to_unit(band + np.uint16(28000)), atol=1e-6)


def test_limits_apply_to_eight_bits_and_colour_too(tmp_path, gray):
    Image.fromarray(gray).save(tmp_path / "a.png")
    Image.fromarray(np.dstack([gray] * 3)).save(tmp_path / "c.png")
    expected = np.clip((gray - 50.0) / 100, 0, 1)
    for name in ("a.png", "c.png"):
        np.testing.assert_allclose(images.read_infrared(tmp_path / name, (50, 150)), expected, atol=1e-6)
        assert images.infrared_limits(tmp_path / name) is None


def test_infrared_of_sixteen_bits_in_colour_is_refused(tmp_path, rgb):
    write_image(tmp_path / "a.png", np.float32(rgb) / 255, bits=16)
    write_image(tmp_path / "a.tif", np.float32(rgb) / 255, bits=16)
    for name in ("a.png", "a.tif"):
        with pytest.raises(UserError, match=r"a\.\w+: is infrared of 16 bits in colour; save it as gray"):
            images.read_infrared(tmp_path / name)
        luma, chroma = images.read_visible(tmp_path / name)  # the upper eight bits
        np.testing.assert_allclose(images.ycbcr_to_rgb(luma, chroma), np.float32(rgb) / 255, atol=0.005)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_large_images_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 178956970 // 2)  # Pillow's own; --allow-large lifts it
    Image.new("L", (8200, 40)).save(tmp_path / "wide.png")
    Image.new("1", (20000, 20000)).save(tmp_path / "bomb.png")
    Image.new("1", (10000, 10000)).save(tmp_path / "warned.png")
    for name, told in (("wide", "is 8200x40"), ("warned", "is 10000x10000"), ("bomb", "has more than 178956970")):
        with pytest.raises(UserError, match=rf"{name}\.png: {told} pixels; .*--allow-large"):
            images.read_visible(tmp_path / f"{name}.png")
    assert images.read_infrared(tmp_path / "wide.png", max_side=None).shape == (40, 8200)
    # The header alone is enough to tell.
    data = (tmp_path / "wide.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[:60])
    with pytest.raises(UserError, match="is 8200x40 pixels; sides over 8192 are refused"):
        images.read_visible(tmp_path / "cut.png")


def test_header_size(tmp_path, gray):
    Image.fromarray(gray).save(tmp_path / "a.png")
    (tmp_path / "bad.png").write_text("no image")
    assert images.header_size(tmp_path / "a.png") == (40, 56)
    assert images.header_size(tmp_path / "bad.png") is None and images.header_size(tmp_path / "none.png") is None


UPRIGHT = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.T,
    6: lambda x: x[::-1].T,
    7: lambda x: x[::-1, ::-1].T,
    8: lambda x: x[:, ::-1].T,
}


def write_turned(path, pixels, orientation, **options):
    """Writes pixels with an EXIF orientation, which in `late.png` stands behind them."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    if path.suffix == ".mpo":
        options |= {"save_all": True, "append_images": [Image.fromarray(pixels)]}
    Image.fromarray(pixels).save(path, exif=exif, **options)
    if path.name == "late.png":
        data = path.read_bytes()
        start, end = data.index(b"eXIf") - 4, data.index(b"IDAT") - 4
        path.write_bytes(data[:start] + data[end:-12] + data[start:end] + data[-12:])


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("name", ["a.jpg", "a.mpo", "a.png", "late.png", "a.webp", "a.tif", "lzw.tif"])
def test_header_and_reader_turn_alike(tmp_path, name, orientation):
    ramp = np.add.outer(np.arange(40), 2 * np.arange(56)).astype(np.uint8)
    options = {"lzw.tif": {"compression": "tiff_lzw"}, "a.webp": {"lossless": True}}.get(name, {})
    write_turned(tmp_path / name, ramp, orientation, **options)
    expected = UPRIGHT[orientation](ramp) / 255
    assert images.header_size(tmp_path / name) == expected.shape
    np.testing.assert_allclose(images.read_infrared(tmp_path / name), expected, atol=0.02)


@pytest.mark.parametrize("kind", [np.uint16, np.float32, bool])
def test_header_and_reader_turn_deep_tiffs_alike(tmp_path, gray, kind):
    pixels = (gray > 127).astype(kind)
    write_turned(tmp_path / "a.tif", pixels, 6)
    assert images.header_size(tmp_path / "a.tif") == (56, 40)
    np.testing.assert_array_equal(images.read_infrared(tmp_path / "a.tif", (0, 1)), UPRIGHT[6](pixels))


def test_orientation_in_the_text_of_a_png(tmp_path, gray):
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    Image.fromarray(gray).save(tmp_path / "a.png", pnginfo=text)
    assert images.header_size(tmp_path / "a.png") == (56, 40) == images.read_infrared(tmp_path / "a.png").shape


def test_headers_do_not_decode(tmp_path, gray, monkeypatch):
    for name in ("a.jpg", "a.png", "a.webp", "a.tif"):
        Image.fromarray(gray).save(tmp_path / name)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    for name in ("a.jpg", "a.png", "a.webp", "a.tif"):
        assert images.header_size(tmp_path / name) == (40, 56)


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


def test_leftovers_of_dead_processes_are_removed(tmp_path):
    program = """if True:
        import os, sys
        from langfuse_jax.runtime.atomic import atomic_write
        with atomic_write(sys.argv[1]) as file:
            file.write(b"half")
            file.flush()
            os.kill(os.getpid(), 9)
    """
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "a.png")], check=False)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".") and left.name.endswith(".tmp")
    mine = left.with_name(left.name.replace(left.name.split("-")[-2], str(os.getpid())))
    other = tmp_path / ".notes.tmp"
    mine.touch()
    other.touch()
    remove_leftovers(tmp_path)
    assert set(tmp_path.iterdir()) == {mine, other}
    remove_leftovers(tmp_path / "none")
