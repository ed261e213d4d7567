"""Fused images as files: PNG, JPEG, TIFF, WebP or BMP by the ending of the name, with 8 or 16 bits."""

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped, UInt8, UInt16
from PIL import Image

from langfuse_jax.errors import UserError
from langfuse_jax.images.files import PNG_LEVEL, to_uint8, to_uint16
from langfuse_jax.runtime.atomic import atomic_write

FORMATS = {"png": "PNG", "jpg": "JPEG", "jpeg": "JPEG", "tif": "TIFF", "tiff": "TIFF", "webp": "WEBP", "bmp": "BMP"}
DEEP_FORMATS = ("PNG", "TIFF")
_OPTIONS: dict[str, dict[str, Any]] = {
    "PNG": {"compress_level": PNG_LEVEL},
    "JPEG": {"quality": 95, "subsampling": 0},
    "TIFF": {"compression": "tiff_adobe_deflate"},
    "WEBP": {"lossless": True},
    "BMP": {},
}


def check_output(path: str | os.PathLike, bits: int, flag: str) -> None:
    """Raises UserError, naming `flag` and `path`, for an ending that no format has, or whose format lacks `bits`.

    >>> check_output("fused.jpg", 16, "--out")
    Traceback (most recent call last):
        ...
    langfuse_jax.errors.UserError: --bits 16: JPEG holds 8 bits; choose PNG or TIFF
    """
    kind = FORMATS.get(Path(path).suffix[1:].lower())
    if kind is None:
        raise UserError(f"{flag} {path}: is of no known image format; end it in .{', .'.join(FORMATS)}")
    if bits == 16 and kind not in DEEP_FORMATS:
        raise UserError(f"--bits 16: {kind} holds 8 bits; choose {' or '.join(DEEP_FORMATS)}")


def write_image(
    path: str | os.PathLike, image: Float[np.ndarray, "h w"] | Float[np.ndarray, "h w 3"], bits: int = 8
) -> None:
    """Writes a gray or RGB image of floats in [0, 1] with 8 or 16 bits per value; it appears whole or not at all.

    The ending of `path` says how (`FORMATS`; all but JPEG without loss, 16 bits as PNG and TIFF alone). Makes the
    folder if it is missing; raises UserError, naming the file, where it cannot be written.

    >>> write_image("fused.tif", np.full((32, 40), 0.5), bits=16)
    >>> Image.open("fused.tif").getpixel((0, 0))
    32768
    """
    check_output(path, bits, "--out")
    kind = FORMATS[Path(path).suffix[1:].lower()]
    with atomic_write(path) as file:
        if bits == 16 and image.ndim == 3:  # Pillow writes no such files
            file.write(_ENCODE_RGB16[kind](to_uint16(image)))
        else:
            pixels = to_uint16(image) if bits == 16 else to_uint8(image)
            Image.fromarray(pixels).save(file, format=kind, **_OPTIONS[kind])


def _png_rgb16(pixels: UInt16[np.ndarray, "h w 3"]) -> bytes:
    """A PNG, colour type 2 and depth 16; every row stored as its difference to the row above (filter 2)."""
    height, width = pixels.shape[:2]
    rows = pixels.astype(">u2").reshape(height, -1).view(np.uint8)
    up: UInt8[np.ndarray, "h n"] = np.diff(rows, axis=0, prepend=np.zeros_like(rows[:1]))
    data = np.concatenate([np.full((height, 1), 2, np.uint8), up], axis=1).tobytes()

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    image = chunk(b"IDAT", zlib.compress(data, PNG_LEVEL))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + image + chunk(b"IEND", b"")


def _tiff_rgb16(pixels: Shaped[np.ndarray, "h w 3"]) -> bytes:
    """A baseline TIFF, little endian, one deflated strip."""
    height, width = pixels.shape[:2]
    strip = zlib.compress(pixels.astype("<u2").tobytes(), PNG_LEVEL)
    strip += b"\0" * (len(strip) % 2)
    short, long = 3, 4
    at = 8 + len(strip)  # of the three BitsPerSample, which do not fit into their entry
    entries = [
        (256, long, 1, width),
        (257, long, 1, height),
        (258, short, 3, at),
        (259, short, 1, 8),  # Adobe's deflate
        (262, short, 1, 2),  # RGB
        (273, long, 1, 8),
        (277, short, 1, 3),
        (278, long, 1, height),
        (279, long, 1, len(strip)),
        (284, short, 1, 1),
    ]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", at + 6) + strip + struct.pack("<3H", 16, 16, 16) + directory


_ENCODE_RGB16 = {"PNG": _png_rgb16, "TIFF": _tiff_rgb16}
