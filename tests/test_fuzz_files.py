"""Image files of every kind, whole and damaged: each is read as an image, or refused in one line that names it."""

import io
import os
import struct

import numpy as np
import pillow_heif
import pytest
import tifffile
from flir_files import PHOTO, RAW, encoded, fff, flir_jpeg, raw_record, with_segments
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from langfuse_jax.errors import UserError
from langfuse_jax.images.files import header_size, infrared_size, read_infrared, read_visible

MODES = {
    "png": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "jpg": ("L", "RGB", "CMYK", "YCbCr"),
    "bmp": ("1", "L", "P", "RGB"),
    "webp": ("L", "RGB", "RGBA"),
    "tiff": ("1", "L", "P", "RGB", "CMYK", "F", "I"),
    "gif": ("L", "P", "RGB"),
}
ENDINGS = st.sampled_from(["png", "tif", "jpg", "fff", "heic"])
DTYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float16", "float32", "float64")


def by_pillow(draw, pixels):
    container = draw(st.sampled_from([*MODES]))
    mode = draw(st.sampled_from(MODES[container]))
    image = Image.fromarray(pixels)
    if mode == "I;16":
        image = Image.fromarray(257 * np.asarray(image.convert("L")).astype(np.uint16))
    file = io.BytesIO()
    options = {}
    if draw(st.booleans()) and container in ("png", "jpg", "webp", "tiff"):
        exif = Image.Exif()
        exif[0x0112] = draw(st.integers(0, 9))  # orientations, and what are none
        options["exif"] = exif
    image = image if mode == "I;16" else image.convert(mode)
    image.save(file, {"jpg": "JPEG"}.get(container, container.upper()), **options)
    return file.getvalue()


def by_tifffile(draw, pixels):
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    scale = draw(st.sampled_from([1, 1 / 255, 40, -1, 1e30]))
    with np.errstate(all="ignore"):
        values = (pixels.astype(np.float64) * scale).astype(dtype)
    colour = draw(st.booleans())
    values = values if colour else values[..., 0]
    if dtype.kind == "f" and draw(st.booleans()):
        values = values.copy()
        values.flat[:: draw(st.integers(1, 50))] = draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    options = {"photometric": "rgb" if colour else draw(st.sampled_from(["minisblack", "miniswhite"]))}
    if colour and draw(st.booleans()):
        values, options["planarconfig"] = np.moveaxis(values, -1, 0), "separate"
    if draw(st.booleans()):
        options["tile"] = (32, 32)
    options["compression"] = draw(st.sampled_from([None, "zlib", "lzw"]))
    options["extratags"] = [(274, 3, 1, draw(st.integers(0, 9)), True)] if draw(st.booleans()) else []
    if draw(st.booleans()):
        options["extratags"].append((42113, "s", 0, draw(st.sampled_from(["0", "-9999", "nan", "none"])), True))
    file = io.BytesIO()
    with tifffile.TiffWriter(file, byteorder=draw(st.sampled_from("<>"))) as writer:
        for _ in range(draw(st.sampled_from([1, 1, 1, 2]))):
            writer.write(values, **options)
    return file.getvalue()


def by_camera(draw, pixels):
    """Radiometric JPEGs of FLIR and DJI, FFF files, and HEIC."""
    gray = np.ascontiguousarray(pixels[..., 0])
    counts = gray.astype(np.uint16) + draw(st.sampled_from([0, 7000, 65000]))
    kind = draw(st.sampled_from(["fff", "flir", "dji", "heic"]))
    if kind == "heic":
        file = io.BytesIO()
        pillow_heif.from_pillow(Image.fromarray(pixels)).save(file)
        return file.getvalue()
    if kind == "dji":
        parts = [(0xE1, b"Exif\0\0 DJI"), (draw(st.sampled_from([0xE3, 0xE4])), counts.tobytes())]
        return with_segments(encoded(gray, "JPEG"), parts)
    photo = [(PHOTO, bytes(32) + encoded(pixels, "JPEG"))] if draw(st.booleans()) else []
    content = fff([(RAW, raw_record(counts, png=draw(st.booleans()))), *photo], draw(st.sampled_from("<>")))
    return content if kind == "fff" else flir_jpeg(content)


def by_bits(draw, pixels):
    """TIFF of two or four bits a pixel, which no library writes here."""
    bits = draw(st.sampled_from([2, 4]))
    height, width = pixels.shape[:2]
    row = -(-width * bits // 8)
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, draw(st.sampled_from([0, 1])))]
    tags += [(273, 8), (277, 1), (278, height), (279, row * height)]
    strip = pixels.tobytes()[: row * height]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    head = b"II*\0" + struct.pack("<I", 8 + len(strip)) + strip
    return head + struct.pack("<H", len(tags)) + entries + bytes(4)


@st.composite
def contents(draw):
    height, width = draw(st.integers(30, 70)), draw(st.integers(30, 70))
    seed = draw(st.integers(0, 2**32 - 1))
    flat = draw(st.booleans())
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    pixels = np.full_like(pixels, pixels[0, 0]) if flat else pixels
    content = draw(st.sampled_from([by_pillow, by_tifffile, by_camera, by_bits]))(draw, pixels)
    damage = draw(st.sampled_from(["none", "none", "cut", "changed", "empty"]))
    if damage == "cut":
        return content[: draw(st.integers(1, len(content)))]
    if damage == "changed":
        changed = bytearray(content)
        for _ in range(draw(st.integers(1, 8))):
            changed[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
        return bytes(changed)
    return b"" if damage == "empty" else content


def check(path, content):
    path.write_bytes(content)
    for read, size_of in ((read_visible, header_size), (read_infrared, infrared_size)):
        try:
            result = read(path)
        except UserError as error:
            assert str(path) in str(error) and "\n" not in str(error), error
            continue
        image = result[0] if read is read_visible else result
        known = image[np.isfinite(image)]
        assert image.ndim == 2 and image.dtype == np.float32
        assert known.size == image.size or read is read_infrared
        assert not known.size or (known.min() >= 0 and known.max() <= 1)
        assert size_of(path) in (None, image.shape)


# The same files in every run: what it finds is found on any machine.
@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(content=contents(), ending=ENDINGS)
def test_any_file_is_read_or_refused(tmp_path, content, ending):
    check(tmp_path / f"image.{ending}", content)


@pytest.mark.slow
@settings(
    max_examples=int(os.environ.get("LANGFUSE_JAX_FUZZ", "1500")),  # 100 000 take about an hour
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(content=contents(), ending=ENDINGS)
def test_many_files_are_read_or_refused(tmp_path, content, ending):
    check(tmp_path / f"image.{ending}", content)
