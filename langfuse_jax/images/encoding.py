"""Fused images as files: PNG, JPEG, TIFF, WebP or BMP by the ending of the name, with 8 or 16 bits."""

import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Float, UInt16
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


def check_format(name: str, bits: int) -> None:
    """Raises UserError, naming the flag, for a name that is no key of `FORMATS`, or whose format lacks `bits`.

    >>> check_format("tiff", 16)
    """
    if name not in FORMATS:
        raise UserError(f"--format {name}: is none of {', '.join(FORMATS)}")
    check_output(f"x.{name}", bits, "--format")


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
        if bits == 16 and image.ndim == 3:
            _write_rgb16(file, kind, to_uint16(image))
        else:
            pixels = to_uint16(image) if bits == 16 else to_uint8(image)
            Image.fromarray(pixels).save(file, format=kind, **_OPTIONS[kind])


def _write_rgb16(file: BinaryIO, kind: str, pixels: UInt16[np.ndarray, "h w 3"]) -> None:
    """Pillow writes no such files. The libraries that do are imported for them alone."""
    if kind == "PNG":
        import imagecodecs

        file.write(imagecodecs.png_encode(pixels, level=PNG_LEVEL))
    else:
        import tifffile

        deflate: dict[str, Any] = {"compression": "adobe_deflate", "compressionargs": {"level": PNG_LEVEL}}
        tifffile.imwrite(file, pixels, photometric="rgb", metadata=None, **deflate)
